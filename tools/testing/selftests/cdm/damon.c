// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "damon": DAMON watches the pages of the node and acts on them only
 * where the driver allows it, by virtual and by physical address. Everything
 * else that an action needs (reclaim, swap, migrate, thp) is allowed in both
 * directions, so that it is this bit which decides.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	((size_t)256)
#define SEED	0xda30UL

/* How long DAMON has before it counts as not having acted, in seconds */
#define PATIENCE	8

FIXTURE(damon)
{
	int nid;
	int ram;
	char *device;
	char *ordinary;
	bool stop;
};

FIXTURE_VARIANT(damon)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(damon, denied)
{
	.caps = "migrate,reclaim,swap,thp,hugetlb",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(damon, allowed)
{
	.caps = "migrate,reclaim,swap,thp,hugetlb,damon",
	.allowed = true,
};

FIXTURE_SETUP(damon)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	self->device = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->device);
	self->ordinary = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->ordinary);
}

FIXTURE_TEARDOWN_PARENT(damon)
{
	damon_stop();
	pool_set(ram_node(0), "0");
	if (cdm_node() >= 0)
		pool_set(cdm_node(), "0");
	settings_restore();
}

/* Do so many of the pages leave the node within the time? */
static bool pages_leave(const char *addr, size_t nr, int nid, size_t left)
{
	time_t end = time(NULL) + (left ? CDM_WAIT : PATIENCE);

	while (time(NULL) < end) {
		if (pages_on(addr, nr, PAGE_SIZE, nid) < left)
			return true;
		usleep(50000);
	}
	return pages_on(addr, nr, PAGE_SIZE, nid) < nr;
}

/* If it is allowed, most of them go; if not, all stay */
static bool so_many_leave_if(bool expected, char *addr, size_t nr, int nid)
{
	return pages_leave(addr, nr, nid, expected ? nr / 2 : 0) == expected;
}

static bool leave_if(bool expected, char *addr, int nid)
{
	return so_many_leave_if(expected, addr, NR, nid);
}

struct toucher {
	const char *addr;
	const bool *stop;
};

static void *touch_all(void *arg)
{
	struct toucher *toucher = arg;
	size_t i;

	while (!READ_ONCE(*toucher->stop)) {
		flush_translations();
		for (i = 0; i < NR; i++)
			READ_ONCE(toucher->addr[i * PAGE_SIZE]);
		usleep(1000);
	}
	return NULL;
}

/* Does it see that these pages are used all the time? */
static bool sees_accesses(struct __test_metadata *_metadata, const char *ops,
			  const char *addr, unsigned long long start,
			  unsigned long long size, bool *stop,
			  bool expected)
{
	struct toucher toucher = { .addr = addr, .stop = stop };
	time_t end = time(NULL) + (expected ? CDM_WAIT : PATIENCE);
	long long seen = 0;
	pthread_t thread;

	WRITE_ONCE(*stop, false);
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch_all, &toucher));
	ASSERT_EQ(0, damon_start(ops, start, size, "stat", -1, 1));
	while (seen <= 0 && time(NULL) < end) {
		usleep(200000);
		seen = damon_tried();
		ASSERT_LE(0, seen);
	}
	WRITE_ONCE(*stop, true);
	pthread_join(thread, NULL);
	damon_stop();
	return seen > 0;
}

/* The same of memory on the device and, as a control, of as much in RAM */
static void expect_watched(struct __test_metadata *_metadata,
			   const char *device, const char *ordinary,
			   size_t size, bool *stop, bool allowed)
{
	ASSERT_NE(NULL, device);
	ASSERT_NE(NULL, ordinary);
	EXPECT_TRUE(sees_accesses(_metadata, "vaddr", ordinary,
				  (unsigned long)ordinary, size, stop, true));
	EXPECT_EQ(allowed,
		  sees_accesses(_metadata, "vaddr", device,
				(unsigned long)device, size, stop, allowed));
}

TEST_F_TIMEOUT(damon, watches_virtual, CDM_TIMEOUT)
{
	expect_watched(_metadata, self->device, self->ordinary, NR * PAGE_SIZE,
		       &self->stop, variant->allowed);
}

static char *huge_page_on(int nid)
{
	char *addr;

	if (pool_set(nid, "1"))
		return NULL;
	addr = map_huge(1, MAP_NORESERVE);
	if (addr == MAP_FAILED ||
	    bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_page(addr, SEED);
	return page_node(addr) == nid ? addr : NULL;
}

TEST_F_TIMEOUT(damon, watches_hugetlb, CDM_TIMEOUT)
{
	char *device = huge_page_on(self->nid), *ordinary = huge_page_on(self->ram);

	expect_watched(_metadata, device, ordinary, HUGE, &self->stop,
		       variant->allowed);
	munmap(device, HUGE);
	munmap(ordinary, HUGE);
}

TEST_F_TIMEOUT(damon, watches_huge, CDM_TIMEOUT)
{
	char *device = large_folios_on(HUGE >> 10, self->nid, SEED);
	char *ordinary = large_folios_on(HUGE >> 10, self->ram, SEED);

	expect_watched(_metadata, device, ordinary, HUGE, &self->stop,
		       variant->allowed);
	EXPECT_EQ(HUGE_NR, pages_with(device, HUGE_NR, PAGE_SIZE, KPF_THP));
}

/* It does not even look at what it would not touch. */
TEST_F_TIMEOUT(damon, counts, CDM_TIMEOUT)
{
	char * const huge[] = {
		large_folios_on(HUGE >> 10, self->nid, SEED),
		large_folios_on(HUGE >> 10, self->ram, SEED),
	};
	struct {
		const char *addr;
		size_t size;
		bool device;
	} ranges[] = {
		{ self->ordinary, NR * PAGE_SIZE, false },
		{ self->device, NR * PAGE_SIZE, true },
		{ huge[1], HUGE, false },
		{ huge[0], HUGE, true },
	};
	size_t i;

	ASSERT_NE(NULL, huge[0]);
	ASSERT_NE(NULL, huge[1]);
	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		ASSERT_EQ(0, damon_start("vaddr", (unsigned long)ranges[i].addr,
					 ranges[i].size, "stat", -1, 0));
		ASSERT_EQ(0, damon_only_anon());
		if (variant->allowed || !ranges[i].device) {
			EXPECT_TRUE(wait_for(damon_passed() > 0));
		} else {
			EXPECT_TRUE(wait_for(damon_tried() > 10 * (long long)HUGE));
			EXPECT_EQ(0, damon_passed());
		}
	}
	damon_stop();
	munmap(huge[0], HUGE);
	munmap(huge[1], HUGE);
}

TEST_F_TIMEOUT(damon, watches_physical, CDM_TIMEOUT)
{
	unsigned long first = ~0UL, last = 0, pfn;
	size_t i;

	/* The part of the device where the pages are */
	for (i = 0; i < NR; i++) {
		pfn = page_pfn(self->device + i * PAGE_SIZE);
		ASSERT_NE(0, pfn);
		first = pfn < first ? pfn : first;
		last = pfn > last ? pfn : last;
	}
	EXPECT_EQ(variant->allowed,
		  sees_accesses(_metadata, "paddr", self->device,
				first * PAGE_SIZE, (last - first + 1) * PAGE_SIZE,
				&self->stop, variant->allowed));
}

TEST_F_TIMEOUT(damon, pageout_virtual, CDM_TIMEOUT)
{
	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)self->device,
				 NR * PAGE_SIZE, "pageout", -1, 0));
	EXPECT_TRUE(leave_if(variant->allowed, self->device, self->nid));
	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)self->ordinary,
				 NR * PAGE_SIZE, "pageout", -1, 0));
	EXPECT_TRUE(leave_if(true, self->ordinary, self->ram));
	damon_stop();
	EXPECT_EQ(NR, pages_intact(self->device, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_intact(self->ordinary, NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(damon, pageout_physical, CDM_TIMEOUT)
{
	ASSERT_EQ(0, damon_start("paddr", cdm_device(0)->start,
				 cdm_device(0)->size, "pageout", -1, 0));
	EXPECT_TRUE(leave_if(variant->allowed, self->device, self->nid));
	damon_stop();
	EXPECT_EQ(NR, pages_intact(self->device, NR, PAGE_SIZE, SEED));
}

/* Off the device and onto it: a scheme that names the node is no exception */
TEST_F_TIMEOUT(damon, migrate_virtual, CDM_TIMEOUT)
{
	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)self->device,
				 NR * PAGE_SIZE, "migrate_cold", self->ram, 0));
	EXPECT_TRUE(leave_if(variant->allowed, self->device, self->nid));
	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)self->ordinary,
				 NR * PAGE_SIZE, "migrate_cold", self->nid, 0));
	EXPECT_TRUE(leave_if(variant->allowed, self->ordinary, self->ram));
	EXPECT_EQ(variant->allowed,
		  pages_on(self->ordinary, NR, PAGE_SIZE, self->nid) > 0);

	/* Control: from one ordinary node to another */
	damon_stop();
	unmap_pages(self->ordinary, NR);
	self->ordinary = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->ordinary);
	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)self->ordinary,
				 NR * PAGE_SIZE, "migrate_cold", ram_node(1), 0));
	EXPECT_TRUE(leave_if(true, self->ordinary, self->ram));
	damon_stop();
	EXPECT_EQ(NR, pages_intact(self->device, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_intact(self->ordinary, NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(damon, migrate_physical, CDM_TIMEOUT)
{
	ASSERT_EQ(0, damon_start("paddr", cdm_device(0)->start,
				 cdm_device(0)->size, "migrate_cold", self->ram, 0));
	EXPECT_TRUE(leave_if(variant->allowed, self->device, self->nid));
	damon_stop();
	EXPECT_EQ(NR, pages_intact(self->device, NR, PAGE_SIZE, SEED));
}

/* Larger folios, those that have an entry of the page table of their own included */
TEST_F_TIMEOUT(damon, large_folios, CDM_TIMEOUT)
{
	static const size_t sizes[] = { 64, HUGE >> 10 };
	static const char * const actions[] = { "migrate_cold", "pageout" };
	char *device, *ordinary;
	size_t i, k;

	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (k = 0; k < ARRAY_SIZE(actions); k++) {
			device = large_folios_on(sizes[i], self->nid, SEED);
			ordinary = large_folios_on(sizes[i], self->ram, SEED);
			ASSERT_NE(NULL, device);
			ASSERT_NE(NULL, ordinary);
			ASSERT_EQ(0, damon_start("vaddr", (unsigned long)device,
						 HUGE, actions[k], self->ram, 0));
			EXPECT_TRUE(so_many_leave_if(variant->allowed, device,
						     HUGE_NR, self->nid)) {
				TH_LOG("%s of %zu kB", actions[k], sizes[i]);
			}
			/* Control */
			ASSERT_EQ(0, damon_start("vaddr", (unsigned long)ordinary,
						 HUGE, actions[k], ram_node(1), 0));
			EXPECT_TRUE(so_many_leave_if(true, ordinary, HUGE_NR,
						     self->ram));
			damon_stop();
			EXPECT_EQ(HUGE_NR, pages_intact(device, HUGE_NR, PAGE_SIZE,
							SEED));
			munmap(device, HUGE);
			munmap(ordinary, HUGE);
		}
	}
}

/* So many ranges, of which DAMON cuts some into pieces too small to collapse */
#define RANGES		((size_t)8)
#define RANGES_NR	(RANGES * HUGE_NR)

/* Base pages in a range that may be collapsed, which nobody does by himself */
static char *collapsible(int nid)
{
	char *addr = map_huge_range(RANGES);

	if (!addr)
		return NULL;
	if (madvise(addr, RANGES * HUGE, MADV_NOHUGEPAGE) ||
	    bind_pages(addr, RANGES_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_pages(addr, RANGES_NR, PAGE_SIZE, SEED);
	if (madvise(addr, RANGES * HUGE, MADV_HUGEPAGE))
		return NULL;
	drain_lru();
	return addr;
}

/* One page of each tells. */
static size_t collapsed(const char *addr)
{
	drain_lru();
	return pages_with(addr, RANGES, HUGE, KPF_THP);
}

/* The node allows huge pages in each case: but not on DAMON's advice */
TEST_F_TIMEOUT(damon, collapse, CDM_TIMEOUT)
{
	char *device, *ordinary;
	long long tried;

	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "never"));
	device = collapsible(self->nid);
	ordinary = collapsible(self->ram);
	ASSERT_NE(NULL, device);
	ASSERT_NE(NULL, ordinary);
	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)ordinary, RANGES * HUGE,
				 "collapse", -1, 0));
	EXPECT_TRUE(wait_for(collapsed(ordinary)));
	tried = damon_tried();
	EXPECT_LT(0, tried);

	ASSERT_EQ(0, damon_start("vaddr", (unsigned long)device, RANGES * HUGE,
				 "collapse", -1, 0));
	/* Ten times what it has taken with ordinary pages is enough. */
	EXPECT_TRUE(wait_for(collapsed(device) || damon_tried() > 10 * tried));
	EXPECT_EQ(variant->allowed, collapsed(device) > 0);
	EXPECT_EQ(variant->allowed, !node_denied(self->nid, "damon"));
	damon_stop();
	EXPECT_EQ(RANGES_NR, pages_on(device, RANGES_NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(RANGES_NR, pages_intact(device, RANGES_NR, PAGE_SIZE, SEED));
	EXPECT_EQ(RANGES_NR, pages_intact(ordinary, RANGES_NR, PAGE_SIZE, SEED));
}

/* What is hot or cold on the device's lists is not for it to say. */
TEST_F_TIMEOUT(damon, lru_physical, CDM_TIMEOUT)
{
	static const char * const actions[] = { "lru_prio", "lru_deprio" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(actions); i++) {
		ASSERT_EQ(0, damon_start("paddr", cdm_device(0)->start,
					 cdm_device(0)->size, actions[i], -1, 0));
		if (variant->allowed) {
			EXPECT_TRUE(wait_for(damon_applied() > 0));
		} else {
			EXPECT_TRUE(wait_for(damon_tried() >
					     (long long)cdm_device(0)->size));
			EXPECT_EQ(0, damon_applied());
		}
		damon_stop();
	}
	EXPECT_EQ(NR, pages_on(self->device, NR, PAGE_SIZE, self->nid));
}

TEST_HARNESS_MAIN
