// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "thp": whether the node's memory is used in huge folios, of any
 * size. In both cases a range with pages on both sides of the device's border
 * is never collapsed, and khugepaged goes on with its work.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		(HUGE / PAGE_SIZE)
#define SEED		0x74690000UL
#define COLLAPSE	25

FIXTURE(thp)
{
	int nid;
	int ram;
	char *pages;
	char *other;
};

FIXTURE_VARIANT(thp)
{
	const char *caps;	/* NULL: an ordinary node */
	bool allowed;
	bool reclaim;
};

FIXTURE_VARIANT_ADD(thp, denied)
{
	.caps = "migrate,reclaim",
	.reclaim = true,
};

FIXTURE_VARIANT_ADD(thp, allowed)
{
	.caps = "migrate,thp",
	.allowed = true,
};

FIXTURE_VARIANT_ADD(thp, allowed_reclaim)
{
	.caps = "migrate,thp,reclaim",
	.allowed = true,
	.reclaim = true,
};

FIXTURE_VARIANT_ADD(thp, ordinary)
{
	.allowed = true,
	.reclaim = true,
};

FIXTURE_SETUP(thp)
{
	self->nid = variant->caps ? cdm_node_up(variant->caps) : ram_node(1);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	/* khugepaged and faults start when the test says so. */
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "inherit"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "never"));
}

FIXTURE_TEARDOWN_PARENT(thp)
{
	settings_restore();
}

/* Base pages there, in a VMA that may be collapsed; nid < 0: the default policy */
static char *base_pages(int nid, size_t nr)
{
	char *addr = map_huge_range(1);

	if (!addr || madvise(addr, HUGE, MADV_NOHUGEPAGE))
		return NULL;
	if (nid >= 0 && bind_pages(addr, NR, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_pages(addr, nr, PAGE_SIZE, SEED);
	if (madvise(addr, HUGE, MADV_HUGEPAGE))
		return NULL;
	drain_lru();
	return addr;
}

static size_t huge_pages(const char *addr)
{
	return pages_with(addr, NR, PAGE_SIZE, KPF_THP);
}

static bool collapse(char *addr)
{
	int i;

	/* Pages in somebody's batch make it fail: for a moment. */
	for (i = 0; i < 10; i++) {
		drain_lru();
		if (!madvise(addr, HUGE, COLLAPSE))
			return true;
		if (errno != EAGAIN && errno != EBUSY)
			break;
		usleep(10000);
	}
	return false;
}

TEST_F_TIMEOUT(thp, fault, CDM_TIMEOUT)
{
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	self->pages = map_huge_range(1);
	ASSERT_NE(NULL, self->pages);
	ASSERT_EQ(0, madvise(self->pages, HUGE, MADV_HUGEPAGE));
	ASSERT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND,
				NODE_BIT(self->nid), 0));
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(self->pages));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* The smaller sizes: here a device must say no to each of them. */
TEST_F_TIMEOUT(thp, fault_mthp, CDM_TIMEOUT)
{
	static const char * const sizes[] = { "16", "64", "256", "1024" };
	char path[128];
	size_t i, nr;

	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "never"));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		nr = strtoul(sizes[i], NULL, 10) * 1024 / PAGE_SIZE;
		snprintf(path, sizeof(path), THP_SYSFS "/hugepages-%skB/enabled", sizes[i]);
		ASSERT_EQ(0, setting(path, "always"));
		self->pages = map_huge_range(1);
		ASSERT_NE(NULL, self->pages);
		ASSERT_EQ(0, madvise(self->pages, HUGE, MADV_HUGEPAGE));
		ASSERT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND,
					NODE_BIT(self->nid), 0));
		/* One write, one folio */
		WRITE_ONCE(self->pages[0], 1);
		EXPECT_EQ(variant->allowed ? nr : 1,
			  pages_on(self->pages, NR, PAGE_SIZE, self->nid));
		EXPECT_EQ(variant->allowed ? nr : 0,
			  pages_with(self->pages, nr, PAGE_SIZE, KPF_THP));
		ASSERT_EQ(0, setting(path, "never"));
		munmap(self->pages, HUGE);
	}
}

TEST_F_TIMEOUT(thp, collapse, CDM_TIMEOUT)
{
	self->pages = base_pages(self->nid, NR);
	ASSERT_NE(NULL, self->pages);
	ASSERT_EQ(0, huge_pages(self->pages));
	EXPECT_EQ(variant->allowed, collapse(self->pages));
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(self->pages));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Half of it has never been written to. */
TEST_F_TIMEOUT(thp, collapse_with_holes, CDM_TIMEOUT)
{
	self->pages = base_pages(self->nid, NR / 2);
	ASSERT_NE(NULL, self->pages);
	EXPECT_EQ(variant->allowed, collapse(self->pages));
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(self->pages));
	EXPECT_EQ(variant->allowed ? NR : NR / 2,
		  pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR / 2, pages_intact(self->pages, NR / 2, PAGE_SIZE, SEED));
}

/* Nothing there at all, and nobody names the node: it is ordinary memory's. */
TEST_F_TIMEOUT(thp, collapse_of_nothing, CDM_TIMEOUT)
{
	unsigned long allocations = node_allocations(self->nid);
	int i;

	if (!variant->caps)
		return;
	for (i = 0; i < 20; i++) {
		self->pages = base_pages(-1, 0);
		ASSERT_NE(NULL, self->pages);
		collapse(self->pages);
		EXPECT_EQ(0, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
		munmap(self->pages, HUGE);
	}
	EXPECT_EQ(allocations, node_allocations(self->nid));
}

/* Each one of these on the device, the others in RAM */
static char *mixed_pages(int nid, int ram, size_t stride)
{
	char *addr = base_pages(ram, NR);

	if (!addr)
		return NULL;
	if (move_to(addr, NR / stride, stride * PAGE_SIZE, nid, NULL))
		return NULL;
	drain_lru();
	return addr;
}

static bool still_mixed(const char *addr, int nid, int ram, size_t stride)
{
	return pages_on(addr, NR, PAGE_SIZE, nid) == NR / stride &&
	       pages_on(addr, NR, PAGE_SIZE, ram) == NR - NR / stride &&
	       pages_intact(addr, NR, PAGE_SIZE, SEED) == NR &&
	       !huge_pages(addr);
}

TEST_F_TIMEOUT(thp, collapse_mixed, CDM_TIMEOUT)
{
	static const size_t strides[] = { 2, 8, NR };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(strides); i++) {
		self->pages = mixed_pages(self->nid, self->ram, strides[i]);
		ASSERT_NE(NULL, self->pages);
		/* An ordinary node's pages are collapsed with others'. */
		EXPECT_EQ(!variant->caps, collapse(self->pages));
		EXPECT_EQ(!!variant->caps, still_mixed(self->pages, self->nid,
						       self->ram, strides[i]));
	}
}

/* Pages of a memfd, the first half of them on @first and the others on @second */
static char *shared_pages(int first, int second)
{
	int fd = memfd_create("cdm", 0);
	char *addr;

	if (fd < 0 || ftruncate(fd, HUGE))
		return NULL;
	addr = map_huge_range(1);
	if (!addr || mmap(addr, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			  fd, 0) == MAP_FAILED)
		return NULL;
	close(fd);
	if (bind_pages(addr, NR / 2, MPOL_BIND, NODE_BIT(first), 0) ||
	    bind_pages(addr + HUGE / 2, NR / 2, MPOL_BIND, NODE_BIT(second), 0))
		return NULL;
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	/* One VMA again, as a range that may be collapsed is */
	if (bind_pages(addr, NR, MPOL_DEFAULT, 0, 0) || madvise(addr, HUGE, MADV_HUGEPAGE))
		return NULL;
	return addr;
}

/* The same of shared memory, whose pages no page table needs to have */
TEST_F_TIMEOUT(thp, collapse_shared, CDM_TIMEOUT)
{
	self->other = shared_pages(self->ram, self->ram);
	ASSERT_NE(NULL, self->other);
	ASSERT_EQ(0, huge_pages(self->other));
	EXPECT_TRUE(collapse(self->other));
	EXPECT_EQ(NR, huge_pages(self->other));
	EXPECT_EQ(NR, pages_on(self->other, NR, PAGE_SIZE, self->ram));
	EXPECT_EQ(NR, pages_intact(self->other, NR, PAGE_SIZE, SEED));

	self->pages = shared_pages(self->nid, self->ram);
	ASSERT_NE(NULL, self->pages);
	EXPECT_EQ(!variant->caps, collapse(self->pages));
	EXPECT_EQ(variant->caps ? 0 : NR, huge_pages(self->pages));
	if (variant->caps)
		EXPECT_EQ(NR / 2, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));

	self->pages = shared_pages(self->nid, self->nid);
	ASSERT_NE(NULL, self->pages);
	EXPECT_EQ(variant->allowed, collapse(self->pages));
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(self->pages));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/*
 * khugepaged meets ranges of all kinds, those with the device first. What is
 * ordinary memory alone it collapses in spite of them.
 */
TEST_F_TIMEOUT(thp, khugepaged, CDM_TIMEOUT)
{
	char *device, *most, *half, *holes, *ordinary[4];
	size_t i;

	device = base_pages(self->nid, NR);
	ASSERT_NE(NULL, device);
	half = mixed_pages(self->nid, self->ram, 2);
	ASSERT_NE(NULL, half);
	most = base_pages(self->nid, NR);
	ASSERT_NE(NULL, most);
	ASSERT_EQ(0, move_to(most, 8, PAGE_SIZE, self->ram, NULL));
	holes = base_pages(self->nid, NR / 2);
	ASSERT_NE(NULL, holes);
	for (i = 0; i < ARRAY_SIZE(ordinary); i++) {
		ordinary[i] = base_pages(self->ram, NR);
		ASSERT_NE(NULL, ordinary[i]);
	}

	ASSERT_EQ(0, setting(THP_SYSFS "/khugepaged/max_ptes_none", "511"));
	ASSERT_EQ(0, setting(THP_SYSFS "/khugepaged/pages_to_scan", "4096"));
	ASSERT_EQ(0, setting(THP_SYSFS "/khugepaged/scan_sleep_millisecs", "10"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	/* It learns of a process whose VMA changes while huge pages are on. */
	ASSERT_EQ(0, madvise(ordinary[0], HUGE, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, madvise(ordinary[0], HUGE, MADV_HUGEPAGE));
	for (i = 0; i < ARRAY_SIZE(ordinary); i++) {
		EXPECT_TRUE(wait_for((drain_lru(), huge_pages(ordinary[i]) == NR)));
		EXPECT_EQ(NR, pages_intact(ordinary[i], NR, PAGE_SIZE, SEED));
	}
	if (variant->allowed) {
		EXPECT_TRUE(wait_for((drain_lru(), huge_pages(device) == NR)));
		EXPECT_TRUE(wait_for((drain_lru(), huge_pages(holes) == NR)));
	}
	if (!variant->caps)
		return;
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(device));
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(holes));
	EXPECT_EQ(NR, pages_on(device, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(device, NR, PAGE_SIZE, SEED));
	EXPECT_TRUE(still_mixed(half, self->nid, self->ram, 2));
	EXPECT_EQ(0, huge_pages(most));
	EXPECT_EQ(NR - 8, pages_on(most, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(most, NR, PAGE_SIZE, SEED));
}

/*
 * Moving in: a huge page stays one if the node takes it, and is split if not.
 */
TEST_F_TIMEOUT(thp, move_in, CDM_TIMEOUT)
{
	self->pages = base_pages(self->ram, NR);
	ASSERT_NE(NULL, self->pages);
	ASSERT_TRUE(collapse(self->pages));
	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->nid, NULL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(variant->allowed ? NR : 0, huge_pages(self->pages));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/*
 * A huge page that is split gives up those of its pages that hold nothing but
 * zeroes: that is reclaim, and needs the leave for it.
 */
TEST_F_TIMEOUT(thp, split_drops_zeroes, CDM_TIMEOUT)
{
	size_t kept = variant->reclaim ? NR / 2 : NR;
	char text[96];

	if (!variant->allowed)
		return;
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	self->pages = map_huge_range(1);
	ASSERT_NE(NULL, self->pages);
	ASSERT_EQ(0, madvise(self->pages, HUGE, MADV_HUGEPAGE));
	ASSERT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND,
				NODE_BIT(self->nid), 0));
	fill_pages(self->pages, NR / 2, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, huge_pages(self->pages));
	drain_lru();
	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", getpid(),
		 (unsigned long)self->pages, (unsigned long)self->pages + HUGE);
	EXPECT_TRUE(wait_for((file_write("/sys/kernel/debug/split_huge_pages", text),
			      !huge_pages(self->pages))));
	EXPECT_EQ(kept, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR / 2, pages_intact(self->pages, NR / 2, PAGE_SIZE, SEED));
	EXPECT_EQ(0, self->pages[HUGE - 1]);
}

TEST_HARNESS_MAIN
