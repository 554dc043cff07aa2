// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "demotion": reclaim of ordinary memory may move pages to the node
 * instead of swapping them out, those of any task. Denied, it never does, and
 * the node is in no memory tier.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)512)
#define SEED		0xde407000UL
#define DEMOTION	"/sys/kernel/mm/numa/demotion_enabled"
#define PAGEOUT		21

FIXTURE(demotion)
{
	int nid;
	int ram;
	char *pages;
	unsigned long allocations;
};

FIXTURE_VARIANT(demotion)
{
	const char *caps;
	const char *lru_gen;
	bool allowed;
};

FIXTURE_VARIANT_ADD(demotion, denied)
{
	.caps = "migrate,reclaim,swap",
	.lru_gen = "y",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(demotion, denied_classic_lru)
{
	.caps = "migrate,reclaim,swap",
	.lru_gen = "n",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(demotion, allowed)
{
	.caps = "migrate,reclaim,swap,demotion",
	.lru_gen = "y",
	.allowed = true,
};

FIXTURE_VARIANT_ADD(demotion, allowed_classic_lru)
{
	.caps = "migrate,reclaim,swap,demotion",
	.lru_gen = "n",
	.allowed = true,
};

FIXTURE_SETUP(demotion)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	ASSERT_EQ(0, setting("/sys/kernel/mm/lru_gen/enabled", variant->lru_gen));
	/* Nobody promotes meanwhile. */
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(DEMOTION, "1"));
	ASSERT_EQ(0, memcg_create());
	ASSERT_EQ(0, memcg_join());
	self->allocations = node_allocations(self->nid);
	self->pages = map_pages(NR);
	ASSERT_NE(NULL, self->pages);
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));
	drain_lru();
}

FIXTURE_TEARDOWN_PARENT(demotion)
{
	memcg_remove();
	settings_restore();
}

#define reclaim_half()							\
do {									\
	int __i;							\
									\
	for (__i = 0; __i < 8; __i++) {					\
		memcg_set("memory.reclaim", NR / 2 * PAGE_SIZE);	\
		if (pages_on(self->pages, NR, PAGE_SIZE, self->ram) < NR / 2) \
			break;						\
	}								\
} while (0)

TEST_F_TIMEOUT(demotion, memcg_reclaim, CDM_TIMEOUT)
{
	size_t here;

	reclaim_half();
	here = pages_on(self->pages, NR, PAGE_SIZE, self->nid);
	TH_LOG("%zu of %zu pages on node %d, %zu on node %d", here, NR, self->nid,
	       pages_on(self->pages, NR, PAGE_SIZE, self->ram), self->ram);
	/* In each case they went somewhere. */
	EXPECT_GT(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));
	if (variant->allowed) {
		EXPECT_LT(NR / 4, here);
	} else {
		EXPECT_EQ(0, here);
		EXPECT_EQ(self->allocations, node_allocations(self->nid));
	}
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Switched off by the admin, it does not matter what the driver allows. */
TEST_F_TIMEOUT(demotion, switched_off, CDM_TIMEOUT)
{
	ASSERT_EQ(0, setting(DEMOTION, "0"));
	reclaim_half();
	EXPECT_GT(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));
	EXPECT_EQ(self->allocations, node_allocations(self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* What has been demoted can still be swapped out, and comes back to RAM. */
TEST_F_TIMEOUT(demotion, and_then_swap, CDM_TIMEOUT)
{
	size_t here, cached;

	reclaim_half();
	here = pages_on(self->pages, NR, PAGE_SIZE, self->nid);
	if (variant->allowed)
		EXPECT_LT(NR / 4, here);
	EXPECT_TRUE(wait_for((drain_lru(),
			      madvise(self->pages, NR * PAGE_SIZE, PAGEOUT),
			      !pages_on(self->pages, NR, PAGE_SIZE, self->nid))));
	/* A page that is still in the swap cache comes back from there. */
	cached = node_meminfo(self->nid, "SwapCached") / (PAGE_SIZE >> 10);
	EXPECT_GT(NR / 8, cached);
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	EXPECT_GE(cached, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
}

/* The tiers are what it follows from; the node leaves them as it came. */
TEST_F_TIMEOUT(demotion, memory_tier, CDM_TIMEOUT)
{
	int ram = tier_of(self->ram), tier;

	EXPECT_LE(0, ram);
	tier = tier_of(self->nid);
	EXPECT_TRUE(variant->allowed ? tier > ram : tier == -1);
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(-1, tier_of(self->nid));
	EXPECT_EQ(ram, tier_of(self->ram));
	/* Nothing to go to but swap */
	reclaim_half();
	EXPECT_GT(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

TEST_HARNESS_MAIN
