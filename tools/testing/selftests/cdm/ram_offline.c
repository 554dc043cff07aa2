// SPDX-License-Identifier: GPL-2.0
/*
 * Memory of an ordinary node goes offline beside a device: what lives in it
 * moves to ordinary memory, though the device is nearer than that, and what
 * lives on the device stays. Nobody has named the device for the pages that
 * have to move, whatever its mask allows.
 *
 * Needs a movable zone on the second ordinary node: movablecore= of the kernel.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define SEED		0x0ff11e00UL
#define NR		((size_t)49152)		/* pages that have to move */
#define NR_DEV		((size_t)512)
#define MAX_BLOCKS	64
#define ALL_CAPS	"migrate,gup,longterm_pin,thp,reclaim,swap,numa_balancing,ksm,demotion,compaction,interleave"

FIXTURE(ram_offline)
{
	int ram;				/* the node that goes offline in part */
	int nid;				/* the device's */
	char *pages;
	char *device;
	unsigned long pfn[NR];
	unsigned long block_pages;
	unsigned int block[MAX_BLOCKS];
	int nr_blocks;
};

static int block_file(unsigned int block, const char *name, char *text, size_t size)
{
	char path[128];

	snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%u/%s", block, name);
	return file_read(path, text, size);
}

static int block_set(unsigned int block, const char *state)
{
	char path[128];

	snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%u/state", block);
	return file_write(path, state);
}

/* Blocks of a node that can go offline, as all that is in them can move */
static int movable_blocks(int nid, unsigned int block[MAX_BLOCKS])
{
	char path[64], text[64];
	struct dirent *entry;
	unsigned int n;
	int nr = 0;
	DIR *dir;

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d", nid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)) && nr < MAX_BLOCKS) {
		if (sscanf(entry->d_name, "memory%u", &n) != 1)
			continue;
		if (block_file(n, "valid_zones", text, sizeof(text)) > 0 &&
		    !strncmp(text, "Movable", 7))
			block[nr++] = n;
	}
	closedir(dir);
	return nr;
}

static size_t pages_in_block(const unsigned long *pfn, unsigned long block_pages,
			     unsigned int block)
{
	size_t i, nr = 0;

	for (i = 0; i < NR; i++)
		nr += pfn[i] / block_pages == block;
	return nr;
}

FIXTURE_SETUP(ram_offline)
{
	char text[32];

	self->ram = ram_node(1);
	ASSERT_LE(0, self->ram);
	self->nid = cdm_node_up(ALL_CAPS);
	ASSERT_LE(0, self->nid);

	ASSERT_LT(0, file_read(MEMORY_SYSFS "/block_size_bytes", text, sizeof(text)));
	self->block_pages = strtoul(text, NULL, 16) / PAGE_SIZE;
	ASSERT_LT(0, self->block_pages);
	self->nr_blocks = movable_blocks(self->ram, self->block);
	ASSERT_LT(0, self->nr_blocks) {
		TH_LOG("node %d has no movable zone: movablecore= of the kernel", self->ram);
	}

	self->device = filled_pages_on(NR_DEV, self->nid, SEED);
	ASSERT_NE(NULL, self->device);
	self->pages = filled_pages_on(NR, self->ram, SEED + NR_DEV);
	ASSERT_NE(NULL, self->pages);
	drain_lru();
	ASSERT_EQ(0, pages_pfns(self->pages, NR, PAGE_SIZE, self->pfn));
}

FIXTURE_TEARDOWN(ram_offline)
{
	int i;

	settings_restore();
	for (i = 0; i < self->nr_blocks; i++)
		block_set(self->block[i], "online_movable");
	unmap_pages(self->pages, NR);
	unmap_pages(self->device, NR_DEV);
	EXPECT_EQ(0, cdm_node_down());
}

TEST_F_TIMEOUT(ram_offline, to_device_denied, CDM_TIMEOUT)
{
	size_t had = 0, moved, on_device;
	struct node_use before, after;
	static unsigned long now[NR];
	int i, ret;

	ASSERT_EQ(0, device_use(&before));
	/* Bound to their node: that is no place for them any more, and none is named. */
	for (i = 0; i < self->nr_blocks; i++) {
		size_t there = pages_in_block(self->pfn, self->block_pages, self->block[i]);

		if (!there)
			continue;
		ret = block_set(self->block[i], "offline");
		/* A block with a hole can never go. */
		if (ret == -EINVAL)
			continue;
		ASSERT_EQ(0, ret) {
			TH_LOG("memory%u: %s", self->block[i], strerror(-ret));
		}
		had += there;
	}
	/* Else nothing was asked. */
	ASSERT_LE(NR / 4, had) {
		TH_LOG("%zu of %zu pages were where memory could go offline", had, NR);
	}

	ASSERT_EQ(0, pages_pfns(self->pages, NR, PAGE_SIZE, now));
	for (i = 0, moved = 0; i < (int)NR; i++)
		moved += now[i] != self->pfn[i];
	EXPECT_LE(had, moved);
	on_device = pages_on(self->pages, NR, PAGE_SIZE, self->nid);
	EXPECT_EQ(0, on_device) {
		TH_LOG("%zu of %zu pages came to node %d", on_device, moved, self->nid);
	}
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED + NR_DEV));

	EXPECT_EQ(NR_DEV, pages_on(self->device, NR_DEV, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR_DEV, pages_intact(self->device, NR_DEV, PAGE_SIZE, SEED));
	ASSERT_EQ(0, device_use(&after));
	EXPECT_EQ(before.used, after.used);
}

/*
 * What is reserved for who has to recover the machine is made anew when RAM goes or
 * comes, and is a part of what RAM has free. See overcommit for what it is good for.
 */
TEST_F_TIMEOUT(ram_offline, reserves, CDM_TIMEOUT)
{
	static const char reserve[] = "/proc/sys/vm/user_reserve_kbytes";
	long long free, device, value = -1;
	char text[32];
	int i, n;

	unmap_pages(self->pages, NR);
	device = node_meminfo(self->nid, "MemFree");
	for (n = 0; n < 2; n++) {
		/* With a part of the device it would be there, and stay. */
		free = proc_meminfo("MemFree");
		snprintf(text, sizeof(text), "%lld", n ? free + device / 4 : free / 2);
		ASSERT_EQ(0, setting(reserve, text));
		for (i = 0; i < self->nr_blocks; i++)
			if (!block_set(self->block[i], "offline"))
				break;
		ASSERT_GT(self->nr_blocks, i);
		value = file_number(reserve);
		if (n) {
			EXPECT_LT(value, (free + device / 2) / 32);
		} else {
			/* Control: RAM has as much, and more */
			EXPECT_EQ(free / 2, value);
		}
		/* What is the default or less is made anew */
		ASSERT_EQ(0, setting(reserve, "1024"));
		EXPECT_EQ(0, block_set(self->block[i], "online_movable"));
		value = file_number(reserve);
		free = proc_meminfo("MemFree");
		EXPECT_LT(value, (free + device / 2) / 32);
		EXPECT_GT(value, free / 64);
	}
	self->pages = filled_pages_on(NR, self->ram, SEED + NR_DEV);
}

TEST_HARNESS_MAIN
