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
/* So often DAMON is refused before it counts as not seeing anything */
#define REFUSALS	256

enum cap {
	NUMA, KSM, HUGETLB, MIGRATE, GUP, LONGTERM, THPS, PAGECACHE, RECLAIM,
	SWAP, DEMOTION, COMPACTION, INTERLEAVE, DAMON, OFFLINE, NR_CAPS
};

#define BIT(cap)	(1U << (cap))
/* What is tried on larger folios */
#define LARGE		(BIT(NUMA) | BIT(KSM) | BIT(MIGRATE) | BIT(GUP) |	\
			 BIT(LONGTERM) | BIT(RECLAIM) | BIT(SWAP) | BIT(OFFLINE))

/* The node that is tried, an ordinary one with the task, another one without */
static int nid, ram, far;

/* Pages are tried in folios of so many kB, or 0 for base pages; so many of them */
static size_t folio_kb;
static size_t nr_pages = NR;

/* What did not happen to ordinary pages either, and says nothing of the node */
static const char *dead;

/* What is tried on: filled pages of a node */
static char *pages_of(int node)
{
	return folio_kb ? large_folios_on(folio_kb, node, SEED) :
			  filled_pages_on(NR, node, SEED);
}

/* Folios are too few for their hinting faults to be counted: do they move? */
static bool try_numa_migration(void)
{
	char *device = pages_of(nid), *ordinary = pages_of(far);
	time_t end = time(NULL) + CDM_WAIT;
	int rounds = 0;
	bool moved;

	if (!device || !ordinary || numab_start() ||
	    bind_pages(device, nr_pages, MPOL_DEFAULT, 0, 0) ||
	    bind_pages(ordinary, nr_pages, MPOL_DEFAULT, 0, 0))
		return false;
	/* Ordinary ones do it four times before the device's count as not moving. */
	while (rounds < 4 && time(NULL) < end) {
		drain_lru();
		touch_faults(ordinary, nr_pages, PAGE_SIZE);
		touch_faults(device, nr_pages, PAGE_SIZE);
		if (pages_on(ordinary, nr_pages, PAGE_SIZE, ram) < nr_pages)
			continue;
		if (pages_on(device, nr_pages, PAGE_SIZE, ram) == nr_pages)
			break;
		rounds++;
		move_to(ordinary, nr_pages, PAGE_SIZE, far, NULL);
	}
	setting(NUMA_BALANCING, "0");
	moved = pages_on(device, nr_pages, PAGE_SIZE, ram);
	if (!moved && rounds < 4)
		dead = "NUMA balancing";
	unmap_pages(device, nr_pages);
	unmap_pages(ordinary, nr_pages);
	return moved;
}

/*
 * Hinting faults, while ordinary pages take theirs. Pages where the task runs
 * are not prepared for any, since they are in the right place.
 */
static bool try_hinting_faults(void)
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

static bool try_numa_balancing(void)
{
	return folio_kb ? try_numa_migration() : try_hinting_faults();
}

static bool try_ksm(void)
{
	char *device = pages_of(nid), *ordinary = pages_of(ram);
	bool merged;
	size_t i;

	if (!device || !ordinary || ksm_start("0"))
		return false;
	for (i = 0; i < nr_pages; i++) {
		fill_page(device + i * PAGE_SIZE, SEED + i % 4);
		fill_page(ordinary + i * PAGE_SIZE, SEED + i % 4);
	}
	if (madvise(device, nr_pages * PAGE_SIZE, MADV_MERGEABLE) ||
	    madvise(ordinary, nr_pages * PAGE_SIZE, MADV_MERGEABLE))
		return false;
	if (!wait_for(pages_ksm(ordinary, nr_pages, PAGE_SIZE) == nr_pages) || ksm_scans(2))
		dead = "ksmd";
	merged = pages_ksm(device, nr_pages, PAGE_SIZE);
	/* Where nothing is merged, nothing is split for it, either. */
	if (folio_kb && pages_in_folios(device, nr_pages, folio_kb) != nr_pages)
		merged = true;
	setting(KSM_SYSFS "/run", "2");
	setting(KSM_SYSFS "/run", "0");
	unmap_pages(device, nr_pages);
	unmap_pages(ordinary, nr_pages);
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
	char *pages = pages_of(nid);
	bool moved;

	if (!pages)
		return false;
	moved = !move_to(pages, nr_pages, PAGE_SIZE, ram, NULL) &&
		pages_on(pages, nr_pages, PAGE_SIZE, ram) == nr_pages;
	unmap_pages(pages, nr_pages);
	return moved;
}

static bool try_gup(void)
{
	char *pages = pages_of(nid);
	struct iovec iov = { .iov_base = pages, .iov_len = PAGE_SIZE };
	bool taken;
	int fds[2];

	if (!pages || pipe(fds))
		return false;
	taken = vmsplice(fds[1], &iov, 1, 0) == PAGE_SIZE;
	close(fds[0]);
	close(fds[1]);
	unmap_pages(pages, nr_pages);
	return taken;
}

/* In place */
static bool try_longterm_pin(void)
{
	char *pages = pages_of(nid);
	bool pinned;

	if (!pages)
		return false;
	pinned = gup_gets(PIN_LONGTERM_BENCHMARK, pages, nr_pages, FOLL_WRITE) == nr_pages &&
		 pages_on(pages, nr_pages, PAGE_SIZE, nid) == nr_pages;
	unmap_pages(pages, nr_pages);
	return pinned;
}

static bool try_thp(void)
{
	char *addr = map_huge_range(1);
	bool huge;

	if (!addr || setting(THP_SYSFS "/hugepages-2048kB/enabled", "madvise"))
		return false;
	if (madvise(addr, HUGE, MADV_HUGEPAGE) ||
	    bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return false;
	fill_page(addr, SEED);
	huge = pages_with(addr, HUGE_NR, PAGE_SIZE, KPF_THP) == HUGE_NR &&
	       page_node(addr) == nid;
	setting(THP_SYSFS "/hugepages-2048kB/enabled", "never");
	unmap_pages(addr, HUGE_NR);
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

/* There may be nothing to take that needs no swap, but to ask is legal. */
static bool try_reclaim(void)
{
	char path[128];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/reclaim", nid);
	return file_write(path, "4096") != -EOPNOTSUPP;
}

static bool try_swap(void)
{
	char *pages = pages_of(nid);
	size_t left;

	if (!pages)
		return false;
	drain_lru();
	madvise(pages, nr_pages * PAGE_SIZE, MADV_PAGEOUT);
	left = pages_on(pages, nr_pages, PAGE_SIZE, nid);
	if (pages_intact(pages, nr_pages, PAGE_SIZE, SEED) != nr_pages)
		ksft_print_msg("swap lost data\n");
	unmap_pages(pages, nr_pages);
	return left < nr_pages / 2;
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

/*
 * Does DAMON see that these pages are used all the time? As long as it looks at
 * other places it may take its time; refused so often, it has looked at them.
 */
static bool damon_sees(char *pages)
{
	long long seen = 0, refused = node_denied(nid, "damon") + REFUSALS;
	time_t end = time(NULL) + CDM_WAIT;
	int i;

	if (damon_start("vaddr", (unsigned long)pages, nr_pages * PAGE_SIZE, "stat",
			-1, 1))
		return false;
	while (seen <= 0 && time(NULL) < end && node_denied(nid, "damon") < refused) {
		for (i = 0; i < 100; i++) {
			flush_translations();
			touch_faults(pages, nr_pages, PAGE_SIZE);
			usleep(1000);
		}
		seen = damon_tried();
	}
	damon_stop();
	return seen > 0;
}

static bool try_damon(void)
{
	char *device = pages_of(nid);
	char *ordinary = pages_of(ram);
	bool seen = false;

	if (!device || !ordinary)
		return false;
	if (damon_sees(ordinary))
		seen = damon_sees(device);
	else
		dead = "DAMON";
	unmap_pages(device, nr_pages);
	unmap_pages(ordinary, nr_pages);
	return seen;
}

static bool try_soft_offline(void)
{
	char *pages = pages_of(nid);
	bool taken;

	if (!pages)
		return false;
	taken = !madvise(pages, PAGE_SIZE, MADV_SOFT_OFFLINE);
	unmap_pages(pages, nr_pages);
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

static unsigned int what_works(unsigned int tried)
{
	unsigned int works = 0;
	int i;

	dead = NULL;
	for (i = 0; i < NR_CAPS; i++)
		if (tried & BIT(i) && caps[i].works())
			works |= BIT(i);
	return works;
}

/*
 * What a node with this mask must have counted when all has been tried: what it
 * denies, but for what another one has refused before, and demotion: a node that
 * is in no tier is not asked.
 */
static bool counted_right(unsigned int mask)
{
	unsigned int silent = BIT(DEMOTION);
	bool right = true;
	int i;

	if (!(mask & BIT(GUP)))
		silent |= BIT(LONGTERM);
	if (!(mask & BIT(RECLAIM)))
		silent |= BIT(SWAP);
	for (i = 0; i < NR_CAPS; i++) {
		long long denied = node_denied(nid, caps[i].name);
		bool is_right = mask & BIT(i) ? !denied : denied > 0;

		if (is_right || (denied >= 0 && silent & ~mask & BIT(i)))
			continue;
		ksft_print_msg("%s was refused %lld times\n", caps[i].name, denied);
		right = false;
	}
	return right;
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
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

/* Control: all that can be tried does happen on a node like any other. */
TEST_F_TIMEOUT(masks, ordinary_node, CDM_TIMEOUT)
{
	unsigned int works;

	nid = far;
	/* Demotion is for nodes without a CPU. */
	works = what_works(~0U);
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
		works = what_works(~0U);
		EXPECT_EQ(NULL, dead) {
			TH_LOG("%s does nothing at all", dead);
		}
		EXPECT_TRUE(counted_right(self->masks[i])) {
			TH_LOG("allowed: %s", mask_text(self->masks[i]));
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

/*
 * The same of larger folios, for what is done to pages: under masks of which one
 * allows all, and the others deny each capability while those that it needs, or
 * that would refuse first, are allowed.
 */
TEST_F_TIMEOUT(masks, folio_sizes, 4 * CDM_TIMEOUT)
{
	static const size_t sizes[] = { 64, HUGE >> 10 };
	static const unsigned int allowed[] = {
		BIT(NR_CAPS) - 1,
		BIT(THPS) | BIT(MIGRATE) | BIT(GUP) | BIT(RECLAIM),
		BIT(THPS),
	};
	unsigned int works;
	size_t i, k;

	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	nr_pages = HUGE_NR;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		folio_kb = sizes[i];
		/* Control: an ordinary node */
		nid = far;
		works = what_works(LARGE);
		EXPECT_EQ(NULL, dead);
		EXPECT_EQ(LARGE, works) {
			TH_LOG("%zu kB, works: %s", folio_kb, mask_text(works));
		}
		for (k = 0; k < ARRAY_SIZE(allowed); k++) {
			nid = cdm_node_up(mask_text(allowed[k]));
			ASSERT_LE(0, nid);
			works = what_works(LARGE);
			EXPECT_EQ(NULL, dead) {
				TH_LOG("%s does nothing at all", dead);
			}
			EXPECT_EQ(allowed[k] & LARGE, works) {
				TH_LOG("%zu kB, allowed: %s", folio_kb,
				       mask_text(allowed[k]));
				TH_LOG("works: %s", mask_text(works));
			}
			ASSERT_EQ(0, cdm_node_down());
		}
	}
}

TEST_HARNESS_MAIN
