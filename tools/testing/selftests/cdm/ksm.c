// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "ksm": pages of the node merge with each other when the driver
 * allows it, and never otherwise; with pages elsewhere they never merge, and a
 * KSM page never moves in. Ordinary pages of the same VMA merge as always: in
 * each case that is the positive control.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	((size_t)64)
#define SAME	0x5a5eUL
#define OTHER	0x07e4UL
#define EVEN(p)	(p)
#define ODD(p)	((p) + PAGE_SIZE)

FIXTURE(ksm)
{
	int nid;
	int ram;
	pid_t child;
};

FIXTURE_VARIANT(ksm)
{
	const char *caps;
	const char *merge_across_nodes;
	bool allowed;
};

FIXTURE_VARIANT_ADD(ksm, denied)
{
	.caps = "migrate",
	.merge_across_nodes = "1",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(ksm, denied_per_node)
{
	.caps = "migrate",
	.merge_across_nodes = "0",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(ksm, allowed)
{
	.caps = "migrate,ksm",
	.merge_across_nodes = "1",
	.allowed = true,
};

FIXTURE_VARIANT_ADD(ksm, allowed_per_node)
{
	.caps = "migrate,ksm",
	.merge_across_nodes = "0",
	.allowed = true,
};

FIXTURE_SETUP(ksm)
{
	self->child = 0;
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, ksm_start(variant->merge_across_nodes));
}

FIXTURE_TEARDOWN_PARENT(ksm)
{
	kill_and_reap(self->child);
	ksm_stop();
}

static void fill_equal(char *addr, size_t nr, size_t stride, unsigned long seed)
{
	size_t i;

	for (i = 0; i < nr; i++)
		fill_page(addr + i * stride, seed);
}

static size_t equal_intact(char *addr, size_t nr, size_t stride, unsigned long seed)
{
	size_t i, intact = 0;

	for (i = 0; i < nr; i++)
		intact += page_is(addr + i * stride, seed);
	return intact;
}

/* One VMA of 2 * NR pages: even ones in RAM, odd ones on the device */
static char *mixed_vma(int ram, int nid)
{
	char *addr = map_pages(2 * NR);

	if (!addr)
		return NULL;
	fill_equal(EVEN(addr), NR, 2 * PAGE_SIZE, SAME);
	fill_equal(ODD(addr), NR, 2 * PAGE_SIZE, SAME);
	if (move_to(EVEN(addr), NR, 2 * PAGE_SIZE, ram, NULL) ||
	    move_to(ODD(addr), NR, 2 * PAGE_SIZE, nid, NULL))
		return NULL;
	if (pages_on(EVEN(addr), NR, 2 * PAGE_SIZE, ram) != NR ||
	    pages_on(ODD(addr), NR, 2 * PAGE_SIZE, nid) != NR ||
	    count_vmas(addr, 2 * NR) != 1)
		return NULL;
	return addr;
}

/*
 * Equal pages everywhere in one VMA. Those in RAM merge with each other only;
 * those on the device merge with each other if allowed, and stay there.
 */
TEST_F_TIMEOUT(ksm, mixed_vma, CDM_TIMEOUT)
{
	struct node_use use;
	char *addr;

	addr = mixed_vma(self->ram, self->nid);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, madvise(addr, 2 * NR * PAGE_SIZE, MADV_MERGEABLE));

	/* Positive control: the pages in RAM merge */
	ASSERT_TRUE(wait_for(pages_ksm(EVEN(addr), NR, 2 * PAGE_SIZE) == NR));
	ASSERT_EQ(0, ksm_scans(4));
	EXPECT_EQ(NR, pages_ksm(EVEN(addr), NR, 2 * PAGE_SIZE));
	EXPECT_EQ(1, distinct_pfns(EVEN(addr), NR, 2 * PAGE_SIZE));
	EXPECT_EQ(NR, pages_on(EVEN(addr), NR, 2 * PAGE_SIZE, self->ram));

	ASSERT_EQ(0, device_use(&use));
	if (variant->allowed) {
		EXPECT_EQ(NR, pages_ksm(ODD(addr), NR, 2 * PAGE_SIZE));
		EXPECT_EQ(1, distinct_pfns(ODD(addr), NR, 2 * PAGE_SIZE));
		EXPECT_EQ(1, use.ksm);
	} else {
		EXPECT_EQ(0, pages_ksm(ODD(addr), NR, 2 * PAGE_SIZE));
		EXPECT_EQ(NR, distinct_pfns(ODD(addr), NR, 2 * PAGE_SIZE));
		EXPECT_EQ(0, use.ksm);
	}
	EXPECT_EQ(NR, pages_on(ODD(addr), NR, 2 * PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, equal_intact(EVEN(addr), NR, 2 * PAGE_SIZE, SAME));
	EXPECT_EQ(NR, equal_intact(ODD(addr), NR, 2 * PAGE_SIZE, SAME));
	EXPECT_EQ(1, count_vmas(addr, 2 * NR));
}

/* Pages of the device alone, one process, nothing of equal content in RAM */
TEST_F_TIMEOUT(ksm, one_process, CDM_TIMEOUT)
{
	char *device, *ram;

	device = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, device);
	ram = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, ram);
	fill_equal(device, NR, PAGE_SIZE, SAME);
	fill_equal(ram, NR, PAGE_SIZE, OTHER);
	ASSERT_EQ(NR, pages_on(device, NR, PAGE_SIZE, self->nid));
	ASSERT_EQ(0, madvise(device, NR * PAGE_SIZE, MADV_MERGEABLE));
	ASSERT_EQ(0, madvise(ram, NR * PAGE_SIZE, MADV_MERGEABLE));

	ASSERT_TRUE(wait_for(pages_ksm(ram, NR, PAGE_SIZE) == NR));
	ASSERT_EQ(0, ksm_scans(4));
	EXPECT_EQ(variant->allowed ? NR : 0, pages_ksm(device, NR, PAGE_SIZE));
	EXPECT_EQ(NR, pages_on(device, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, equal_intact(device, NR, PAGE_SIZE, SAME));
}

struct sharer {
	int nid;
	int ram;
	int ready;
	char *device;
	char *plain;
};

static int sharer(void *arg)
{
	struct sharer *s = arg;

	s->device = map_pages_on(NR, s->nid);
	s->plain = map_pages_on(NR, s->ram);
	if (!s->device || !s->plain)
		return 1;
	fill_equal(s->device, NR, PAGE_SIZE, SAME);
	fill_equal(s->plain, NR, PAGE_SIZE, OTHER);
	if (madvise(s->device, NR * PAGE_SIZE, MADV_MERGEABLE) ||
	    madvise(s->plain, NR * PAGE_SIZE, MADV_MERGEABLE))
		return 1;
	s->ready = 1;
	for (;;)
		pause();
}

/* Two processes with the same content, each on the device and in RAM */
TEST_F_TIMEOUT(ksm, two_processes, CDM_TIMEOUT)
{
	struct sharer *s = shared_page();
	struct node_use use;
	char *device, *ram;

	ASSERT_NE(NULL, s);
	s->nid = self->nid;
	s->ram = self->ram;
	self->child = spawn(sharer, s);
	ASSERT_LT(0, self->child);
	ASSERT_TRUE(wait_for(s->ready));

	/* One page each here: without the child nothing could merge. */
	device = map_pages_on(1, self->nid);
	ASSERT_NE(NULL, device);
	ram = map_pages_on(1, self->ram);
	ASSERT_NE(NULL, ram);
	fill_page(device, SAME);
	fill_page(ram, OTHER);
	ASSERT_EQ(self->nid, page_node(device));
	ASSERT_EQ(0, madvise(device, PAGE_SIZE, MADV_MERGEABLE));
	ASSERT_EQ(0, madvise(ram, PAGE_SIZE, MADV_MERGEABLE));

	ASSERT_TRUE(wait_for(pages_ksm(ram, 1, PAGE_SIZE) == 1));
	ASSERT_EQ(0, ksm_scans(4));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_EQ(variant->allowed ? 1 : 0, pages_ksm(device, 1, PAGE_SIZE));
	EXPECT_EQ(variant->allowed ? 1 : 0, use.ksm);
	EXPECT_EQ(variant->allowed ? 1 : NR + 1, use.anon);
	EXPECT_EQ(self->nid, page_node(device));
	EXPECT_TRUE(page_is(device, SAME));
}

/*
 * Pages full of zeros: KSM can put the zero page in their place, which is in
 * RAM. So it does not for the device's, which merge with each other if allowed.
 */
TEST_F_TIMEOUT(ksm, zero_pages, CDM_TIMEOUT)
{
	char *addr;

	addr = map_pages(2 * NR);
	ASSERT_NE(NULL, addr);
	memset(addr, 0, 2 * NR * PAGE_SIZE);
	ASSERT_EQ(0, move_to(ODD(addr), NR, 2 * PAGE_SIZE, self->nid, NULL));
	ASSERT_EQ(NR, pages_on(ODD(addr), NR, 2 * PAGE_SIZE, self->nid));
	ASSERT_EQ(0, setting(KSM_SYSFS "/use_zero_pages", "1"));
	ASSERT_EQ(0, madvise(addr, 2 * NR * PAGE_SIZE, MADV_MERGEABLE));

	/* Positive control: the even pages all become the zero page */
	ASSERT_TRUE(wait_for(distinct_pfns(EVEN(addr), NR, 2 * PAGE_SIZE) == 1));
	ASSERT_EQ(0, ksm_scans(4));
	EXPECT_EQ(variant->allowed ? 1 : NR,
		  distinct_pfns(ODD(addr), NR, 2 * PAGE_SIZE));
	EXPECT_EQ(NR, pages_on(ODD(addr), NR, 2 * PAGE_SIZE, self->nid));
}

/*
 * A page that was merged in RAM does not move in, whatever the node allows.
 * MPOL_MF_MOVE_ALL as root: without it, every kernel refuses shared pages.
 */
TEST_F_TIMEOUT(ksm, merged_page_moves_in_denied, CDM_TIMEOUT)
{
	int other = ram_node(1);
	int status[NR];
	char *addr;

	ASSERT_LE(0, other);
	addr = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, addr);
	fill_equal(addr, NR, PAGE_SIZE, SAME);
	ASSERT_EQ(0, madvise(addr, NR * PAGE_SIZE, MADV_MERGEABLE));
	ASSERT_TRUE(wait_for(pages_ksm(addr, NR, PAGE_SIZE) == NR));
	ASSERT_EQ(0, file_write(KSM_SYSFS "/run", "0"));

	/* Positive control: to another ordinary node it does move */
	EXPECT_EQ(0, move_to(addr, 1, PAGE_SIZE, other, status));
	EXPECT_EQ(other, page_node(addr));

	EXPECT_EQ(0, move_to(addr, NR, PAGE_SIZE, self->nid, status));
	EXPECT_EQ(NR, count_status(status, NR, -EOPNOTSUPP));
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_ksm(addr, NR, PAGE_SIZE));
	EXPECT_EQ(NR, equal_intact(addr, NR, PAGE_SIZE, SAME));
}

/* The same for all pages of a process, which takes other ways in the kernel */
TEST_F_TIMEOUT(ksm, merged_page_by_mbind_denied, CDM_TIMEOUT)
{
	char *addr;

	addr = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, addr);
	fill_equal(addr, NR, PAGE_SIZE, SAME);
	ASSERT_EQ(0, madvise(addr, NR * PAGE_SIZE, MADV_MERGEABLE));
	ASSERT_TRUE(wait_for(pages_ksm(addr, NR, PAGE_SIZE) == NR));
	ASSERT_EQ(0, file_write(KSM_SYSFS "/run", "0"));

	bind_pages(addr, NR, MPOL_BIND, NODE_BIT(self->nid), MPOL_MF_MOVE_ALL);
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_ksm(addr, NR, PAGE_SIZE));
	EXPECT_EQ(NR, equal_intact(addr, NR, PAGE_SIZE, SAME));
}

struct mover {
	int nid;
	int ram;
	int ready;
	unsigned long rounds;
	unsigned long in;
	unsigned long ksm;
};

/* KSM pages that are on this node; they may have come or gone meanwhile */
static size_t ksm_pages_on(char *addr, int nid)
{
	size_t i, count = 0;

	for (i = 0; i < NR; i++)
		if (pages_ksm(addr + i * PAGE_SIZE, 1, PAGE_SIZE) &&
		    page_node(addr + i * PAGE_SIZE) == nid &&
		    pages_ksm(addr + i * PAGE_SIZE, 1, PAGE_SIZE))
			count++;
	return count;
}

/* Move pages in and out as fast as possible, writing one to unmerge it */
static int mover(void *arg)
{
	struct mover *m = arg;
	size_t i;
	char *addr;

	addr = map_pages_on(NR, m->ram);
	if (!addr)
		return 1;
	fill_equal(addr, NR, PAGE_SIZE, SAME);
	if (madvise(addr, NR * PAGE_SIZE, MADV_MERGEABLE))
		return 1;
	m->ready = 1;
	for (;;) {
		/* Written: from now on these are no KSM pages, for a while */
		for (i = 0; i < NR; i++)
			fill_page(addr + i * PAGE_SIZE, SAME);
		/* In every other round they may have become some again */
		for (i = 0; i < 100 && m->rounds % 2; i++) {
			if (pages_ksm(addr, NR, PAGE_SIZE))
				break;
			usleep(1000);
		}
		if (move_to(addr, NR, PAGE_SIZE, m->nid, NULL) < 0)
			return 2;
		m->in += pages_on(addr, NR, PAGE_SIZE, m->nid);
		if (pages_ksm(addr, NR, PAGE_SIZE))
			m->ksm += ksm_pages_on(addr, m->nid);
		if (equal_intact(addr, NR, PAGE_SIZE, SAME) != NR)
			return 3;
		if (move_to(addr, NR, PAGE_SIZE, m->ram, NULL) < 0)
			return 2;
		m->rounds++;
	}
}

/*
 * Pages that move in while ksmd merges them: whoever wins, no page of the
 * device is a KSM page if that is denied. If it is allowed, a KSM page there
 * is none that came from elsewhere: then it would have sharers in RAM's place.
 */
TEST_F_TIMEOUT(ksm, move_in_races_with_merge, CDM_TIMEOUT)
{
	struct mover *m = shared_page();
	time_t end = time(NULL) + CDM_WAIT;
	size_t ksm = 0, seen = 0;
	struct node_use use;
	long long merged;
	char *ram;

	ASSERT_NE(NULL, m);
	m->nid = self->nid;
	m->ram = self->ram;

	/* Something in RAM to merge with, at all times */
	ram = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, ram);
	fill_equal(ram, NR, PAGE_SIZE, SAME);
	ASSERT_EQ(0, madvise(ram, NR * PAGE_SIZE, MADV_MERGEABLE));
	ASSERT_TRUE(wait_for(pages_ksm(ram, NR, PAGE_SIZE) == NR));
	merged = file_number(KSM_SYSFS "/pages_sharing");
	ASSERT_LT(0, merged);

	self->child = spawn(mover, m);
	ASSERT_LT(0, self->child);
	ASSERT_TRUE(wait_for(m->ready));
	/* So many, and until a look has come while the pages were there */
	while (m->rounds < 20 || (!seen && time(NULL) < end)) {
		ASSERT_EQ(0, device_use(&use));
		ksm += use.ksm;
		seen += use.anon;
		ASSERT_EQ(0, waitpid(self->child, NULL, WNOHANG));
		usleep(50000);
	}
	/* Positive controls: pages did move in, and were seen there */
	EXPECT_LT(0, m->in);
	EXPECT_LT(0, seen);
	TH_LOG("%lu moves in, %zu and %lu KSM pages seen", m->in, ksm, m->ksm);
	if (!variant->allowed) {
		EXPECT_EQ(0, ksm);
		EXPECT_EQ(0, m->ksm);
	}
	/* The pages in RAM have not been drawn in */
	EXPECT_EQ(NR, pages_on(ram, NR, PAGE_SIZE, self->ram));
	EXPECT_EQ(NR, equal_intact(ram, NR, PAGE_SIZE, SAME));
}

TEST_HARNESS_MAIN
