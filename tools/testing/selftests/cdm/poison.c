// SPDX-License-Identifier: GPL-2.0
/*
 * A page that is broken stays out of use: when the node could not leave, when it
 * has left and comes again, when a block goes offline and back, and from the
 * first moment on if the driver knows of it. Nobody writes to it any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)64)
#define SEED		0xbadbadUL
#define BLOCK		((size_t)128 << 20)
#define BLOCK_NR	(BLOCK / PAGE_SIZE)
#define CORRUPT		"/sys/kernel/debug/hwpoison/corrupt-pfn"

/* include/linux/cdm.h */
#define ALLOW_MIGRATE	0x0008
#define ALLOW_GUP	0x0010
#define COHERENT	0x0001
#define P2PDMA		0x0002
#define ALL_BAD_PAGES	0x0008

#define ALLOW		(ALLOW_MIGRATE | ALLOW_GUP)
#define FLAGS		(COHERENT | P2PDMA)

FIXTURE(poison)
{
	int nid;
	int pipes[2];
	unsigned long first;	/* page frame of the device */
	long long corrupted;	/* kB, before */
	char path[256];
	char text[256];
};

/* A node of so many blocks, with a list of broken pages */
static int node_up(int blocks, unsigned int flags, const char *bad)
{
	int ret = cdm_call("register", "%#lx %#lx -1 %#x %#x %s", cdm_device(0)->start,
			   blocks * BLOCK, ALLOW, flags, bad);

	return ret ?: cdm_node();
}

static int node_down(int nid)
{
	return cdm_call("unregister", "%d", nid);
}

FIXTURE_SETUP(poison)
{
	self->pipes[0] = -1;
	self->pipes[1] = -1;
	ASSERT_NE(NULL, cdm_device(0));
	ASSERT_LE(2 * BLOCK, cdm_device(0)->size);
	self->first = cdm_device(0)->start / PAGE_SIZE;
	/* Nor is what others broke for these */
	ASSERT_EQ(0, cdm_forget_bad_pages());
	ASSERT_EQ(0, load_module("cdm_test", ""));
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "60000"));
	self->corrupted = proc_meminfo("HardwareCorrupted");
	ASSERT_LE(0, self->corrupted);
}

/* What was broken here is not for other tests to find */
FIXTURE_TEARDOWN_PARENT(poison)
{
	int nid = cdm_node();

	settings_restore();
	if (nid >= 0 && node_down(nid))
		cdm_unplug(nid);
	EXPECT_EQ(0, unload_module("cdm_test"));
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

static long long nr_bad(int nid)
{
	char path[256];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_bad_pages", nid);
	return file_number(path);
}

static bool is_bad(unsigned long pfn)
{
	return page_flags_of(pfn) & KPF_HWPOISON;
}

static int corrupt(unsigned long pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", pfn);
	return file_write(CORRUPT, text);
}

/* A page in use and one that is free break; the next node has neither. */
TEST_F_TIMEOUT(poison, is_remembered, CDM_TIMEOUT)
{
	unsigned long pfn[2];
	char *addr;
	int i;

	self->nid = node_up(1, FLAGS, "");
	ASSERT_LE(0, self->nid);
	EXPECT_EQ(0, nr_bad(self->nid));
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	pfn[0] = page_pfn(addr);
	ASSERT_NE(0, pfn[0]);
	/* Pages come from the other end, or from this one: not from both */
	pfn[1] = self->first + BLOCK_NR / 2;
	ASSERT_TRUE(page_flags_of(pfn[1]) & KPF_BUDDY || !page_flags_of(pfn[1]));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, corrupt(pfn[i]));
		EXPECT_TRUE(is_bad(pfn[i]));
		EXPECT_EQ(i + 1, nr_bad(self->nid));
	}
	EXPECT_EQ(self->corrupted + 8, proc_meminfo("HardwareCorrupted"));
	unmap_pages(addr, NR);

	ASSERT_EQ(0, node_down(self->nid));
	EXPECT_EQ(self->corrupted, proc_meminfo("HardwareCorrupted"));

	ASSERT_EQ(self->nid, node_up(1, FLAGS, ""));
	EXPECT_EQ(2, nr_bad(self->nid));
	EXPECT_EQ(self->corrupted + 8, proc_meminfo("HardwareCorrupted"));
	for (i = 0; i < 2; i++)
		EXPECT_TRUE(is_bad(pfn[i]));
	ASSERT_EQ(0, node_down(self->nid));

	/* A larger node, with these pages in it; a driver that adds one */
	snprintf(self->text, sizeof(self->text), "%#lx",
		 (self->first + 2 * BLOCK_NR - 1) * PAGE_SIZE);
	ASSERT_EQ(self->nid, node_up(2, FLAGS, self->text));
	EXPECT_EQ(3, nr_bad(self->nid));
	ASSERT_EQ(0, node_down(self->nid));

	/* Control: a driver that says that it knows of all */
	ASSERT_EQ(self->nid, node_up(1, FLAGS | ALL_BAD_PAGES, ""));
	EXPECT_EQ(0, nr_bad(self->nid));
	EXPECT_EQ(self->corrupted, proc_meminfo("HardwareCorrupted"));
	for (i = 0; i < 2; i++)
		EXPECT_FALSE(is_bad(pfn[i]));
	EXPECT_EQ(0, node_down(self->nid));
}

/* Takes all pages that can be had, and looks whether one is broken */
static int take_all(void *arg)
{
	const int *nid = arg;
	char *addr = map_pages_on(BLOCK_NR, *nid);
	unsigned long *pfn = calloc(BLOCK_NR, sizeof(*pfn));
	size_t i, got, bad = 0;

	if (!addr || !pfn)
		return 10;
	/* All but the reserve */
	got = node_zoneinfo(*nid, "Movable", "nr_free_pages") -
	      node_zoneinfo(*nid, "Movable", "high") - 256;
	if (got < BLOCK_NR / 2 || got > BLOCK_NR)
		return 11;
	for (i = 0; i < got; i++)
		addr[i * PAGE_SIZE] = 1;
	if (pages_pfns(addr, got, PAGE_SIZE, pfn))
		return 12;
	for (i = 0; i < got; i++)
		bad += page_flags_of(pfn[i]) & KPF_HWPOISON ? 1 : 0;
	return bad ? 13 : 0;
}

/* The driver knows; addresses are anywhere in their pages */
TEST_F_TIMEOUT(poison, is_given, CDM_TIMEOUT)
{
	unsigned long pfn[] = {
		self->first, self->first + 12345, self->first + BLOCK_NR - 1,
	};
	long long free_pages;
	size_t i;

	self->nid = node_up(1, FLAGS, "");
	ASSERT_LE(0, self->nid);
	free_pages = node_zoneinfo(self->nid, "Movable", "nr_free_pages");
	ASSERT_EQ(0, node_down(self->nid));

	snprintf(self->text, sizeof(self->text), "%#lx %#lx %#lx", pfn[2] * PAGE_SIZE,
		 pfn[0] * PAGE_SIZE, pfn[1] * PAGE_SIZE + PAGE_SIZE - 1);
	ASSERT_EQ(self->nid, node_up(1, FLAGS, self->text));
	EXPECT_EQ(3, nr_bad(self->nid));
	EXPECT_EQ(self->corrupted + 12, proc_meminfo("HardwareCorrupted"));
	EXPECT_EQ(free_pages - 3, node_zoneinfo(self->nid, "Movable", "nr_free_pages"));
	for (i = 0; i < ARRAY_SIZE(pfn); i++)
		EXPECT_TRUE(is_bad(pfn[i]));
	EXPECT_EQ(0, reap(spawn(take_all, &self->nid)));
	for (i = 0; i < ARRAY_SIZE(pfn); i++)
		EXPECT_TRUE(is_bad(pfn[i]));
	ASSERT_EQ(0, node_down(self->nid));

	/* One that is not its memory */
	snprintf(self->text, sizeof(self->text), "%#lx", (pfn[2] + 1) * PAGE_SIZE);
	EXPECT_EQ(-EINVAL, node_up(1, FLAGS, self->text));
	snprintf(self->text, sizeof(self->text), "%#lx", pfn[0] * PAGE_SIZE - 1);
	EXPECT_EQ(-EINVAL, node_up(1, FLAGS, self->text));
}

/*
 * A page is broken in one block, one is held in the other: the node cannot leave,
 * and is what it was.
 */
TEST_F_TIMEOUT(poison, failed_leave, CDM_TIMEOUT)
{
	unsigned long pfn = self->first + 4321;
	struct iovec iov;
	long long total;
	char *addr;
	int log;

	self->nid = node_up(2, FLAGS, "");
	ASSERT_LE(0, self->nid);
	total = node_meminfo(self->nid, "MemTotal");
	ASSERT_LT(0, total);
	/* The first block goes offline first, so what is held is in the other one */
	snprintf(self->path, sizeof(self->path), MEMORY_SYSFS "/memory%lu/state",
		 pfn * PAGE_SIZE / BLOCK);
	ASSERT_EQ(0, file_write(self->path, "offline"));
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, file_write(self->path, "online_movable"));
	ASSERT_EQ(0, corrupt(pfn));
	ASSERT_TRUE(is_bad(pfn));
	ASSERT_EQ(0, pipe(self->pipes));
	iov.iov_base = addr;
	iov.iov_len = PAGE_SIZE;
	ASSERT_EQ(PAGE_SIZE, vmsplice(self->pipes[1], &iov, 1, 0));

	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "3000"));
	log = log_open();
	EXPECT_EQ(-EBUSY, node_down(self->nid));
	EXPECT_TRUE(log_has(log, "1 broken page")) {
		TH_LOG("the log does not say that a page stays out of use");
	}
	close(log);
	EXPECT_EQ(total, node_meminfo(self->nid, "MemTotal"));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_TRUE(is_bad(pfn));
	EXPECT_EQ(1, nr_bad(self->nid));
	EXPECT_EQ(self->corrupted + 4, proc_meminfo("HardwareCorrupted"));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));

	close(self->pipes[0]);
	close(self->pipes[1]);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "60000"));
	EXPECT_EQ(0, node_down(self->nid));
	EXPECT_EQ(self->corrupted, proc_meminfo("HardwareCorrupted"));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
}

/* A block with a broken page goes offline and comes back, by hand */
TEST_F_TIMEOUT(poison, block_by_hand, CDM_TIMEOUT)
{
	unsigned long pfn = self->first + BLOCK_NR + 77;

	self->nid = node_up(2, FLAGS, "");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, corrupt(pfn));
	ASSERT_TRUE(is_bad(pfn));
	snprintf(self->path, sizeof(self->path), MEMORY_SYSFS "/memory%lu/state",
		 pfn * PAGE_SIZE / BLOCK);
	ASSERT_EQ(0, file_write(self->path, "offline"));
	EXPECT_EQ(0, file_write(self->path, "online_movable"));
	ASSERT_LT(0, file_read(self->path, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_TRUE(is_bad(pfn));
	EXPECT_EQ(self->corrupted + 4, proc_meminfo("HardwareCorrupted"));
	EXPECT_EQ(0, node_down(self->nid));
	EXPECT_EQ(self->corrupted, proc_meminfo("HardwareCorrupted"));
}

/* What is erased when the node has gone is all but the broken page */
TEST_F_TIMEOUT(poison, is_not_written, CDM_TIMEOUT)
{
	unsigned long pfn;
	char *addr;

	self->nid = node_up(1, FLAGS, "");
	ASSERT_LE(0, self->nid);
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	pfn = page_pfn(addr + 3 * PAGE_SIZE);
	ASSERT_NE(0, pfn);
	ASSERT_EQ(0, corrupt(pfn));
	unmap_pages(addr, NR);
	ASSERT_EQ(0, node_down(self->nid));
	EXPECT_EQ(1, raw_used(0, 0, BLOCK_NR));
	EXPECT_EQ(1, raw_used(0, (pfn - self->first) * PAGE_SIZE, 1));

	/* Control: a good page is erased */
	ASSERT_EQ(self->nid, node_up(1, FLAGS | ALL_BAD_PAGES, ""));
	ASSERT_EQ(0, node_down(self->nid));
	EXPECT_EQ(0, raw_used(0, 0, BLOCK_NR));
}

/* What was broken is so when the content was lost; what breaks after that is not */
TEST_F_TIMEOUT(poison, content_is_lost, CDM_TIMEOUT)
{
	unsigned long pfn[2];
	struct iovec iov;
	char *addr;

	self->nid = node_up(1, FLAGS, "");
	ASSERT_LE(0, self->nid);
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	pfn[0] = page_pfn(addr);
	ASSERT_NE(0, pfn[0]);
	ASSERT_EQ(0, corrupt(pfn[0]));
	ASSERT_TRUE(is_bad(pfn[0]));
	/* Something refers to another page, so that the node does not go yet */
	ASSERT_EQ(0, pipe(self->pipes));
	iov.iov_base = addr + PAGE_SIZE;
	iov.iov_len = PAGE_SIZE;
	ASSERT_EQ(PAGE_SIZE, vmsplice(self->pipes[1], &iov, 1, 0));
	EXPECT_EQ(0, cdm_call("lost", "%d", self->nid));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	ASSERT_STREQ("lost", self->text);

	/* Who reads there now may find any page broken; see is_remembered */
	pfn[1] = self->first + BLOCK_NR / 2;
	ASSERT_EQ(0, corrupt(pfn[1]));
	EXPECT_TRUE(is_bad(pfn[1]));
	EXPECT_EQ(1, nr_bad(self->nid));

	/* Neither keeps the node */
	close(self->pipes[0]);
	close(self->pipes[1]);
	EXPECT_TRUE(wait_for(!cdm_node_exists(self->nid)));
	unmap_pages(addr, NR);
	EXPECT_TRUE(wait_for(node_up(1, FLAGS, "") == self->nid));
	EXPECT_EQ(1, nr_bad(self->nid));
	EXPECT_TRUE(is_bad(pfn[0]));
	EXPECT_FALSE(is_bad(pfn[1]));
	EXPECT_EQ(self->corrupted + 4, proc_meminfo("HardwareCorrupted"));
	EXPECT_EQ(0, node_down(self->nid));
}

static int read_poisoned(char *text, size_t size)
{
	return file_read("/sys/kernel/debug/cdm_test/poisoned", text, size);
}

/* The driver is told of each page that breaks, and can ask for all */
TEST_F_TIMEOUT(poison, driver_is_told, CDM_TIMEOUT)
{
	unsigned long pfn[] = { self->first + 7, self->first + 9999 };
	char line[128];

	snprintf(line, sizeof(line), "%#lx", pfn[0] * PAGE_SIZE);
	self->nid = node_up(1, FLAGS, line);
	ASSERT_LE(0, self->nid);
	/* What it has said itself is no news */
	snprintf(line, sizeof(line), "bad %#lx", pfn[0] * PAGE_SIZE);
	ASSERT_LT(0, read_poisoned(self->text, sizeof(self->text)));
	EXPECT_STREQ(line, self->text);

	ASSERT_EQ(0, corrupt(pfn[1]));
	snprintf(line, sizeof(line), "told %#lx\nbad %#lx\nbad %#lx", pfn[1] * PAGE_SIZE,
		 pfn[0] * PAGE_SIZE, pfn[1] * PAGE_SIZE);
	EXPECT_TRUE(wait_for(read_poisoned(self->text, sizeof(self->text)) > 0 &&
			     !strcmp(line, self->text))) {
		TH_LOG("%s", self->text);
	}

	/* The one that comes after it knows of both, and has been told of none */
	ASSERT_EQ(0, node_down(self->nid));
	ASSERT_EQ(self->nid, node_up(1, FLAGS, ""));
	snprintf(line, sizeof(line), "bad %#lx\nbad %#lx", pfn[0] * PAGE_SIZE,
		 pfn[1] * PAGE_SIZE);
	ASSERT_LT(0, read_poisoned(self->text, sizeof(self->text)));
	EXPECT_STREQ(line, self->text);
	EXPECT_EQ(0, node_down(self->nid));
}

TEST_HARNESS_MAIN
