// SPDX-License-Identifier: GPL-2.0
/*
 * The capabilities against each other: each decides what it says and nothing
 * else. Of the legal masks so many are registered that each two capabilities
 * occur in every combination that the rules leave (a covering array of strength
 * two, made here), and under each mask all of them are tried. What each means in
 * detail is the other programs' subject.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"
#include "../../../../mm/gup_test.h"

#define NR		((size_t)64)
#define SEED		0x3a5c0000UL
#define SCRATCH		"/scratch/cdm-masks"
#define NUMA_BALANCING	"/proc/sys/kernel/numa_balancing"
/* Faults on the stack, the program, libc while the pages are read */
#define NOISE		8
/*
 * How long DAMON may see nothing before it counts as not looking: in seconds,
 * and in times of what it needed to see ordinary pages
 */
#define PATIENCE	3
#define PATIENCE_TIMES	4

enum cap {
	NUMA, KSM, HUGETLB, MIGRATE, GUP, LONGTERM, THPS, PAGECACHE, RECLAIM,
	SWAP, DEMOTION, COMPACTION, INTERLEAVE, DAMON, OFFLINE, NR_CAPS
};

#define BIT(cap)	(1U << (cap))

/* The node that is tried, an ordinary one with the task, another one without */
static int nid, ram, far;

/* What did not happen to ordinary pages either, and says nothing of the node */
static const char *dead;

/*
 * Hinting faults, while ordinary pages take theirs. Pages where the task runs
 * are not prepared for any, since they are in the right place.
 */
static bool try_numa_balancing(void)
{
	char *device = map_pages(NR), *ordinary = map_pages(NR);
	time_t end = time(NULL) + CDM_WAIT;
	long control = 0, faults = 0;

	if (!device || !ordinary || numab_start() ||
	    bind_pages(device, NR, MPOL_BIND | MPOL_F_NUMA_BALANCING,
		       NODE_BIT(nid), 0) ||
	    bind_pages(ordinary, NR, MPOL_BIND | MPOL_F_NUMA_BALANCING,
		       NODE_BIT(far), 0))
		return false;
	fill_pages(device, NR, PAGE_SIZE, SEED);
	fill_pages(ordinary, NR, PAGE_SIZE, SEED);
	while (control < 2 * (long)NR && time(NULL) < end) {
		control += touch_faults(ordinary, NR, PAGE_SIZE);
		faults += touch_faults(device, NR, PAGE_SIZE);
	}
	setting(NUMA_BALANCING, "0");
	unmap_pages(device, NR);
	unmap_pages(ordinary, NR);
	if (control < 2 * (long)NR)
		dead = "NUMA balancing";
	return faults > NOISE;
}

static bool try_ksm(void)
{
	char *device = map_pages_on(NR, nid), *ordinary = map_pages_on(NR, ram);
	bool merged;
	size_t i;

	if (!device || !ordinary || ksm_start("0"))
		return false;
	for (i = 0; i < NR; i++) {
		fill_page(device + i * PAGE_SIZE, SEED + i % 4);
		fill_page(ordinary + i * PAGE_SIZE, SEED + i % 4);
	}
	if (madvise(device, NR * PAGE_SIZE, MADV_MERGEABLE) ||
	    madvise(ordinary, NR * PAGE_SIZE, MADV_MERGEABLE))
		return false;
	if (!wait_for(pages_ksm(ordinary, NR, PAGE_SIZE) == NR) || ksm_scans(2))
		dead = "ksmd";
	merged = pages_ksm(device, NR, PAGE_SIZE);
	setting(KSM_SYSFS "/run", "2");
	setting(KSM_SYSFS "/run", "0");
	unmap_pages(device, NR);
	unmap_pages(ordinary, NR);
	return merged;
}

static bool try_hugetlb(void)
{
	bool grown = !pool_set(nid, "1") && pool_size(nid) == 1;

	pool_set(nid, "0");
	return grown;
}

static bool try_migrate(void)
{
	char *pages = filled_pages_on(NR, nid, SEED);
	bool moved;

	if (!pages)
		return false;
	moved = !move_to(pages, NR, PAGE_SIZE, ram, NULL) &&
		pages_on(pages, NR, PAGE_SIZE, ram) == NR;
	unmap_pages(pages, NR);
	return moved;
}

static bool try_gup(void)
{
	char *pages = filled_pages_on(1, nid, SEED);
	struct iovec iov = { .iov_base = pages, .iov_len = PAGE_SIZE };
	bool taken;
	int fds[2];

	if (!pages || pipe(fds))
		return false;
	taken = vmsplice(fds[1], &iov, 1, 0) == PAGE_SIZE;
	close(fds[0]);
	close(fds[1]);
	unmap_pages(pages, 1);
	return taken;
}

/* In place */
static bool try_longterm_pin(void)
{
	char *pages = filled_pages_on(NR, nid, SEED);
	bool pinned;

	if (!pages)
		return false;
	pinned = gup_gets(PIN_LONGTERM_BENCHMARK, pages, NR, FOLL_WRITE) == NR &&
		 pages_on(pages, NR, PAGE_SIZE, nid) == NR;
	unmap_pages(pages, NR);
	return pinned;
}

static bool try_thp(void)
{
	char *area = map_pages(2 * HUGE_NR), *addr;
	bool huge;

	if (!area || setting(THP_SYSFS "/hugepages-2048kB/enabled", "madvise"))
		return false;
	addr = (char *)(((unsigned long)area + HUGE - 1) & ~(HUGE - 1));
	if (madvise(addr, HUGE, MADV_HUGEPAGE) ||
	    bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return false;
	fill_page(addr, SEED);
	huge = pages_with(addr, HUGE_NR, PAGE_SIZE, KPF_THP) == HUGE_NR &&
	       page_node(addr) == nid;
	setting(THP_SYSFS "/hugepages-2048kB/enabled", "never");
	unmap_pages(area, 2 * HUGE_NR);
	return huge;
}

static bool try_pagecache(void)
{
	int fd = open(SCRATCH, O_RDWR | O_CREAT | O_TRUNC, 0600);
	bool moved = false;
	char *pages;

	if (fd < 0 || ftruncate(fd, NR * PAGE_SIZE))
		return false;
	pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	if (pages != MAP_FAILED) {
		fill_pages(pages, NR, PAGE_SIZE, SEED);
		moved = !msync(pages, NR * PAGE_SIZE, MS_SYNC) &&
			!move_to(pages, NR, PAGE_SIZE, nid, NULL) &&
			pages_on(pages, NR, PAGE_SIZE, nid) == NR;
		munmap(pages, NR * PAGE_SIZE);
	}
	close(fd);
	unlink(SCRATCH);
	return moved;
}

/* What the task no longer wants, which needs no swap */
static bool try_reclaim(void)
{
	char *pages = filled_pages_on(NR, nid, SEED);
	size_t left;

	if (!pages)
		return false;
	drain_lru();
	madvise(pages, NR * PAGE_SIZE, MADV_FREE);
	drain_lru();
	madvise(pages, NR * PAGE_SIZE, MADV_PAGEOUT);
	left = pages_on(pages, NR, PAGE_SIZE, nid);
	unmap_pages(pages, NR);
	return left < NR / 2;
}

static bool try_swap(void)
{
	char *pages = filled_pages_on(NR, nid, SEED);
	size_t left;

	if (!pages)
		return false;
	drain_lru();
	madvise(pages, NR * PAGE_SIZE, MADV_PAGEOUT);
	left = pages_on(pages, NR, PAGE_SIZE, nid);
	if (pages_intact(pages, NR, PAGE_SIZE, SEED) != NR)
		ksft_print_msg("swap lost data\n");
	unmap_pages(pages, NR);
	return left < NR / 2;
}

static bool try_demotion(void)
{
	return tier_of(nid) > tier_of(ram);
}

static bool try_compaction(void)
{
	char path[128];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/compact", nid);
	return !file_write(path, "1");
}

static bool try_interleave(void)
{
	unsigned long nodes = NODE_BIT(nid);
	bool taken = !set_mempolicy(MPOL_INTERLEAVE, &nodes, 64);

	set_mempolicy(MPOL_DEFAULT, NULL, 0);
	return taken;
}

/* Does DAMON see that these pages are used all the time? */
static bool damon_sees(char *pages, int seconds)
{
	time_t end = time(NULL) + seconds;
	long long seen = 0;
	int i;

	if (damon_start("vaddr", (unsigned long)pages, NR * PAGE_SIZE, "stat",
			-1, 1))
		return false;
	while (seen <= 0 && time(NULL) < end) {
		for (i = 0; i < 100; i++) {
			flush_translations();
			touch_faults(pages, NR, PAGE_SIZE);
			usleep(1000);
		}
		seen = damon_tried();
	}
	damon_stop();
	return seen > 0;
}

static bool try_damon(void)
{
	char *device = filled_pages_on(NR, nid, SEED);
	char *ordinary = filled_pages_on(NR, ram, SEED);
	time_t start = time(NULL), took;
	bool seen = false;

	if (!device || !ordinary)
		return false;
	if (damon_sees(ordinary, CDM_WAIT)) {
		took = time(NULL) - start;
		seen = damon_sees(device, PATIENCE + PATIENCE_TIMES * took);
	} else {
		dead = "DAMON";
	}
	unmap_pages(device, NR);
	unmap_pages(ordinary, NR);
	return seen;
}

static bool try_soft_offline(void)
{
	char *pages = filled_pages_on(1, nid, SEED);
	bool taken;

	if (!pages)
		return false;
	taken = !madvise(pages, PAGE_SIZE, MADV_SOFT_OFFLINE);
	unmap_pages(pages, 1);
	return taken;
}

/* In the order of the bits */
static const struct {
	const char *name;
	bool (*works)(void);
	unsigned int needs;
} caps[NR_CAPS] = {
	[NUMA]		= { "numa_balancing", try_numa_balancing, BIT(MIGRATE) },
	[KSM]		= { "ksm", try_ksm },
	[HUGETLB]	= { "hugetlb", try_hugetlb },
	[MIGRATE]	= { "migrate", try_migrate },
	[GUP]		= { "gup", try_gup },
	[LONGTERM]	= { "longterm_pin", try_longterm_pin, BIT(GUP) },
	[THPS]		= { "thp", try_thp },
	[PAGECACHE]	= { "pagecache", try_pagecache, BIT(MIGRATE) },
	[RECLAIM]	= { "reclaim", try_reclaim },
	[SWAP]		= { "swap", try_swap, BIT(RECLAIM) },
	[DEMOTION]	= { "demotion", try_demotion, BIT(MIGRATE) | BIT(RECLAIM) },
	[COMPACTION]	= { "compaction", try_compaction, BIT(MIGRATE) },
	[INTERLEAVE]	= { "interleave", try_interleave },
	[DAMON]		= { "damon", try_damon },
	[OFFLINE]	= { "soft_offline", try_soft_offline },
};

static unsigned int what_works(void)
{
	unsigned int works = 0;
	int i;

	dead = NULL;
	for (i = 0; i < NR_CAPS; i++)
		if (caps[i].works())
			works |= BIT(i);
	return works;
}

static char *mask_text(unsigned int mask)
{
	static char text[256];
	int i;

	text[0] = '\0';
	for (i = 0; i < NR_CAPS; i++) {
		if (!(mask & BIT(i)))
			continue;
		if (text[0])
			strcat(text, ",");
		strcat(text, caps[i].name);
	}
	return mask ? text : strcpy(text, "none");
}

static bool legal(unsigned int mask)
{
	int i;

	for (i = 0; i < NR_CAPS; i++)
		if (mask & BIT(i) && (mask & caps[i].needs) != caps[i].needs)
			return false;
	return true;
}

/* Any legal mask in which all of set and none of clear is; -1 if there is none */
static int random_legal(unsigned int set, unsigned int clear)
{
	unsigned int mask;
	int i, tries;

	/* Chance, and in the end no more than what is asked for */
	for (tries = 0; tries < 64; tries++) {
		mask = (tries < 63 ? random() & (BIT(NR_CAPS) - 1) : 0) | set;
		for (i = 0; i < NR_CAPS; i++)
			if (mask & BIT(i))
				mask |= caps[i].needs;
		/* What needs something that must not be there goes, too. */
		mask &= ~clear;
		for (i = 0; i < NR_CAPS; i++)
			if ((mask & caps[i].needs) != caps[i].needs)
				mask &= ~BIT(i);
		if ((mask & set) == set && legal(mask))
			return mask;
	}
	return -1;
}

#define MAX_MASKS	64

/* Which of the four combinations of each two have been seen, by their bits */
struct pairs {
	unsigned char seen[NR_CAPS][NR_CAPS];
};

static int combination(unsigned int mask, int a, int b)
{
	return !!(mask & BIT(a)) * 2 + !!(mask & BIT(b));
}

static int new_pairs(unsigned int mask, struct pairs *pairs)
{
	int a, b, count = 0;

	for (a = 0; a < NR_CAPS; a++)
		for (b = a + 1; b < NR_CAPS; b++)
			count += !(pairs->seen[a][b] & BIT(combination(mask, a, b)));
	return count;
}

static void add_mask(unsigned int mask, struct pairs *pairs, unsigned int *masks,
		     int *nr)
{
	int a, b;

	for (a = 0; a < NR_CAPS; a++)
		for (b = a + 1; b < NR_CAPS; b++)
			pairs->seen[a][b] |= BIT(combination(mask, a, b));
	masks[(*nr)++] = mask;
}

/* All or nothing, then for each combination that is missing the best of many */
static int covering_array(unsigned int *masks)
{
	int a, b, c, i, nr = 0, mask, best, gain, most;
	struct pairs pairs = {};

	srandom(1);
	add_mask(0, &pairs, masks, &nr);
	add_mask(BIT(NR_CAPS) - 1, &pairs, masks, &nr);
	for (a = 0; a < NR_CAPS; a++) {
		for (b = a + 1; b < NR_CAPS; b++) {
			for (c = 0; c < 4; c++) {
				unsigned int set = (c & 2 ? BIT(a) : 0) |
						   (c & 1 ? BIT(b) : 0);
				unsigned int both = BIT(a) | BIT(b);

				if (pairs.seen[a][b] & BIT(c))
					continue;
				best = -1;
				most = -1;
				for (i = 0; i < 256; i++) {
					mask = random_legal(set, both & ~set);
					if (mask < 0)
						break;
					gain = new_pairs(mask, &pairs);
					if (gain > most) {
						most = gain;
						best = mask;
					}
				}
				/* The rules leave no such mask. */
				if (best < 0)
					continue;
				if (nr == MAX_MASKS)
					return -1;
				add_mask(best, &pairs, masks, &nr);
			}
		}
	}
	return nr;
}

FIXTURE(masks)
{
	unsigned int masks[MAX_MASKS];
};

FIXTURE_SETUP(masks)
{
	ram = ram_node(0);
	far = ram_node(1);
	ASSERT_LE(0, ram);
	ASSERT_LE(0, far);
	ASSERT_EQ(0, run_on_node(ram));
	/* Quiet, but for what is tried */
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting(NUMA_BALANCING, "0"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "never"));
}

FIXTURE_TEARDOWN_PARENT(masks)
{
	damon_stop();
	ksm_stop();
	unlink(SCRATCH);
}

/* Control: all that can be tried does happen on a node like any other. */
TEST_F_TIMEOUT(masks, ordinary_node, CDM_TIMEOUT)
{
	unsigned int works;

	nid = far;
	/* Demotion is for nodes without a CPU. */
	works = what_works();
	EXPECT_EQ(NULL, dead);
	EXPECT_EQ((BIT(NR_CAPS) - 1) & ~BIT(DEMOTION), works) {
		TH_LOG("works: %s", mask_text(works));
	}
}

TEST_F_TIMEOUT(masks, each_two, 4 * CDM_TIMEOUT)
{
	int i, nr = covering_array(self->masks);
	unsigned int works;
	char row[4 * NR_CAPS + 1];
	int cap;

	ASSERT_LT(4, nr);
	TH_LOG("%d masks, + what is allowed and works, - what is denied and does not;", nr);
	TH_LOG("in the order of the bits, from %s to %s", caps[0].name,
	       caps[NR_CAPS - 1].name);
	for (i = 0; i < nr; i++) {
		ASSERT_TRUE(legal(self->masks[i]));
		nid = cdm_node_up(mask_text(self->masks[i]));
		ASSERT_LE(0, nid) {
			TH_LOG("%s", mask_text(self->masks[i]));
		}
		works = what_works();
		EXPECT_EQ(NULL, dead) {
			TH_LOG("%s does nothing at all", dead);
		}
		for (cap = 0; cap < NR_CAPS; cap++) {
			bool is = works & BIT(cap);
			bool ought = self->masks[i] & BIT(cap);

			snprintf(row + 3 * cap, sizeof(row) - 3 * cap, "  %c",
				 is != ought ? '!' : is ? '+' : '-');
		}
		TH_LOG("%04x %s", self->masks[i], row);
		EXPECT_EQ(self->masks[i], works) {
			TH_LOG("allowed: %s", mask_text(self->masks[i]));
			TH_LOG("works:   %s", mask_text(works));
		}
		ASSERT_EQ(0, cdm_node_down());
	}
}

TEST_HARNESS_MAIN
