// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "compaction": whether pages of the node move within it, for the
 * sake of large free blocks. The node is filled and then thinned out, so that
 * it has much free memory and no large block; then each way to start compaction
 * is tried. On an ordinary node, as a control, it moves pages at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define SEED		0xc0417000UL
/* One page in so many stays. */
#define STEP		((size_t)8)
#define STRIDE		(STEP * PAGE_SIZE)
#define SPARE_NR	((size_t)256)

FIXTURE(compaction)
{
	int nid;
	char *pages;
	size_t nr;		/* pages that stay */
	unsigned long *before;
	unsigned long *after;
};

FIXTURE_VARIANT(compaction)
{
	const char *caps;	/* NULL: an ordinary node */
	bool allowed;
};

FIXTURE_VARIANT_ADD(compaction, denied)
{
	.caps = "migrate,thp,reclaim",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(compaction, allowed)
{
	.caps = "migrate,thp,reclaim,compaction",
	.allowed = true,
};

/* Compaction does not need reclaim. */
FIXTURE_VARIANT_ADD(compaction, allowed_alone)
{
	.caps = "migrate,thp,compaction",
	.allowed = true,
};

FIXTURE_VARIANT_ADD(compaction, ordinary)
{
	.allowed = true,
};

/* Free blocks of a huge page or more */
static long huge_blocks(int nid)
{
	long count[16], blocks = 0;
	char line[512], zone[32];
	int n, i, nr;
	FILE *f;

	f = fopen("/proc/buddyinfo", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		char *pos = line;
		int len;

		if (sscanf(line, "Node %d, zone %31s%n", &n, zone, &len) != 2 ||
		    n != nid)
			continue;
		pos += len;
		for (nr = 0; nr < 16 && sscanf(pos, "%ld%n", &count[nr], &len) == 1;
		     nr++)
			pos += len;
		for (i = 9; i < nr; i++)
			blocks += count[i] << (i - 9);
	}
	fclose(f);
	return blocks;
}

FIXTURE_SETUP(compaction)
{
	self->nid = variant->caps ? cdm_node_up(variant->caps) : ram_node(1);
	ASSERT_LE(0, self->nid);
	/* Not by itself, while the test looks */
	ASSERT_EQ(0, setting("/proc/sys/vm/compaction_proactiveness", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
}

FIXTURE_TEARDOWN_PARENT(compaction)
{
	settings_restore();
}

/* Fill so many pages and thin them out. */
static bool fragment(char **pages, size_t *left, unsigned long **before,
		     unsigned long **after, int nid, size_t nr)
{
	size_t i;

	nr = nr / STEP * STEP;
	*left = nr / STEP;
	*before = calloc(*left, sizeof(**before));
	*after = calloc(*left, sizeof(**after));
	*pages = map_pages_on(nr, nid);
	if (!*before || !*after || !*pages)
		return false;
	if (madvise(*pages, nr * PAGE_SIZE, MADV_POPULATE_WRITE))
		return false;
	fill_pages(*pages, *left, STRIDE, SEED);
	for (i = 0; i < nr; i += STEP)
		if (madvise(*pages + (i + 1) * PAGE_SIZE,
			    (STEP - 1) * PAGE_SIZE, MADV_DONTNEED))
			return false;
	drain_lru();
	return !pages_pfns(*pages, *left, STRIDE, *before);
}

#define fragmented(count) fragment(&self->pages, &self->nr, &self->before,	\
				&self->after, self->nid, count)

/* All that is free, but for what keeps the allocator going */
static size_t free_pages(int nid)
{
	return node_meminfo(nid, "MemFree") * 1024 / PAGE_SIZE - SPARE_NR;
}

/* How many of the pages are elsewhere than they were */
static size_t moved(const char *pages, size_t nr, const unsigned long *before,
		    unsigned long *after)
{
	size_t i, count = 0;

	if (pages_pfns(pages, nr, STRIDE, after))
		return 0;
	for (i = 0; i < nr; i++)
		count += before[i] != after[i];
	return count;
}

#define pages_moved() moved(self->pages, self->nr, self->before, self->after)

#define expect_intact()							\
do {									\
	EXPECT_EQ(self->nr, pages_intact(self->pages, self->nr, STRIDE, SEED)); \
	/* One that is on its way is nowhere. */			\
	EXPECT_TRUE(wait_for(pages_on(self->pages, self->nr, STRIDE,	\
				      self->nid) == self->nr));		\
} while (0)

/*
 * What gets fragmented: all of a device, and of the ordinary node, on which the
 * machine lives, more than half. Compaction moves pages up, and those that are
 * in the zone's upper half stay.
 */
#define portion() (free_pages(self->nid) * (variant->caps ? 8 : 5) / 8)

/* nodeN/compact */
TEST_F_TIMEOUT(compaction, node_compact, CDM_TIMEOUT)
{
	char path[128];

	ASSERT_TRUE(fragmented(portion()));
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/compact", self->nid);
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP, file_write(path, "1"));
	EXPECT_EQ(variant->allowed, pages_moved() > 0);
	expect_intact();
}

/* /proc/sys/vm/compact_memory goes over all nodes. */
TEST_F_TIMEOUT(compaction, compact_memory, CDM_TIMEOUT)
{
	ASSERT_TRUE(fragmented(portion()));
	EXPECT_EQ(0, file_write("/proc/sys/vm/compact_memory", "1"));
	EXPECT_EQ(variant->allowed, pages_moved() > 0);
	expect_intact();
}

/*
 * The whole node, fragmented: huge pages at fault by direct compaction, or base
 * pages and no wait; then kcompactd of its own accord; then the blocks.
 */
TEST_F_TIMEOUT(compaction, whole_node, CDM_TIMEOUT)
{
	size_t nr = 8, huge = 0;
	char *addr;
	long blocks;
	int i;

	if (!variant->caps)
		return;		/* the machine lives there */
	ASSERT_TRUE(fragmented(portion()));
	blocks = huge_blocks(self->nid);
	ASSERT_GT(6, blocks);

	ASSERT_EQ(0, setting("/sys/kernel/mm/transparent_hugepage/defrag",
			     "madvise"));
	addr = map_huge_range(nr);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, madvise(addr, nr * HUGE, MADV_HUGEPAGE));
	ASSERT_EQ(0, bind_pages(addr, nr * HUGE_NR, MPOL_BIND,
				NODE_BIT(self->nid), 0));
	/* After a failure the next few are not even tried. */
	for (i = 0; i < 20; i++) {
		fill_pages(addr, nr, HUGE, SEED);
		huge = pages_with(addr, nr, HUGE, KPF_THP);
		if ((long)huge > blocks)
			break;
		ASSERT_EQ(0, madvise(addr, nr * HUGE, MADV_DONTNEED));
	}
	TH_LOG("%zu of %zu faults gave huge pages in the end, %zu of %zu pages moved for it",
	       huge, nr, pages_moved(), self->nr);
	if (variant->allowed) {
		EXPECT_LT(blocks, (long)huge);
		EXPECT_LT(0, pages_moved());
	} else {
		EXPECT_GE(blocks, (long)huge);
		EXPECT_EQ(0, pages_moved());
	}
	munmap(addr, nr * HUGE);

	EXPECT_EQ(0, setting("/proc/sys/vm/compaction_proactiveness", "100"));
	if (variant->allowed) {
		EXPECT_TRUE(wait_for(pages_moved() > self->nr / 4));
		/* Most of it is free, and in one piece now. */
		EXPECT_TRUE(wait_for(huge_blocks(self->nid) >
				     (long)(cdm_device(0)->size / HUGE / 2)));
	} else {
		sleep(1);
		EXPECT_EQ(0, setting("/proc/sys/vm/compaction_proactiveness",
				     "99"));
		sleep(1);
		EXPECT_EQ(0, pages_moved());
		EXPECT_GE(blocks, huge_blocks(self->nid));
	}
	TH_LOG("%zu of %zu pages moved, %ld free blocks of 2 MiB became %ld",
	       pages_moved(), self->nr, blocks, huge_blocks(self->nid));
	expect_intact();
}

/*
 * Faults that let kcompactd find the huge pages that there are none of: more
 * than the few blocks that fragmented() may leave whole.
 */
static bool left_to_kcompactd(char *addr, size_t nr)
{
	fill_pages(addr, nr, HUGE, SEED);
	return !madvise(addr, nr * HUGE, MADV_DONTNEED);
}

/* kcompactd at work on a device is no pressure on the machine. */
TEST_F_TIMEOUT(compaction, pressure, CDM_TIMEOUT)
{
	static const char thp[] = "/sys/kernel/mm/transparent_hugepage";
	size_t nr = cdm_device(0)->size / HUGE / 2;
	char path[128], *addr;
	long long before;

	if (!variant->caps || !variant->allowed)
		return;		/* there is no work to do */
	snprintf(path, sizeof(path), "%s/khugepaged/defrag", thp);
	ASSERT_EQ(0, setting(path, "0"));
	snprintf(path, sizeof(path), "%s/defrag", thp);
	ASSERT_EQ(0, setting(path, "defer"));
	addr = map_huge_range(nr);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, madvise(addr, nr * HUGE, MADV_HUGEPAGE));
	ASSERT_EQ(0, bind_pages(addr, nr * HUGE_NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	ASSERT_TRUE(fragmented(portion()));
	ASSERT_GT(6, huge_blocks(self->nid));

	before = memory_stall();
	ASSERT_LE(0, before);
	EXPECT_TRUE(wait_for(left_to_kcompactd(addr, 8) && pages_moved() > 0)) {
		TH_LOG("%ld blocks free", huge_blocks(self->nid));
	}
	EXPECT_EQ(before, memory_stall());

	/* Control: who compacts for himself is under pressure */
	ASSERT_EQ(0, setting(path, "always"));
	fill_pages(addr, nr, HUGE, SEED);
	EXPECT_LT(before, memory_stall());
	munmap(addr, nr * HUGE);
	expect_intact();
}

TEST_HARNESS_MAIN
