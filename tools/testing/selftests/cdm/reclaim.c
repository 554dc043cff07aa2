// SPDX-License-Identifier: GPL-2.0
/*
 * Capabilities "reclaim" and "swap": what the kernel may take away from the
 * node to make room. Denied: nobody takes a page, by any way, but what its owner
 * gave up. With "reclaim" alone, what need not be kept goes. With both, pages are swapped out, and
 * come back with their content.
 *
 * All of it with both LRUs, and as a control on an ordinary node.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)256)
#define SEED		0x4ec10000UL
#define MB		((size_t)1 << 20)
/* Names that the C library may be too old for */
#define COLD		20
#define PAGEOUT		21

FIXTURE(reclaim)
{
	int nid;
	int ram;
	char *pages;
	pid_t child;
	pid_t bystander;
	long long stolen;
};

FIXTURE_VARIANT(reclaim)
{
	const char *caps;	/* NULL: an ordinary node */
	const char *lru_gen;
	bool reclaim;
	bool swap;
};

FIXTURE_VARIANT_ADD(reclaim, denied)
{
	.caps = "migrate",
	.lru_gen = "y",
};

FIXTURE_VARIANT_ADD(reclaim, denied_classic_lru)
{
	.caps = "migrate",
	.lru_gen = "n",
};

FIXTURE_VARIANT_ADD(reclaim, swap_denied)
{
	.caps = "migrate,reclaim",
	.lru_gen = "y",
	.reclaim = true,
};

FIXTURE_VARIANT_ADD(reclaim, swap_denied_classic_lru)
{
	.caps = "migrate,reclaim",
	.lru_gen = "n",
	.reclaim = true,
};

FIXTURE_VARIANT_ADD(reclaim, allowed)
{
	.caps = "migrate,reclaim,swap",
	.lru_gen = "y",
	.reclaim = true,
	.swap = true,
};

FIXTURE_VARIANT_ADD(reclaim, allowed_classic_lru)
{
	.caps = "migrate,reclaim,swap",
	.lru_gen = "n",
	.reclaim = true,
	.swap = true,
};

FIXTURE_VARIANT_ADD(reclaim, ordinary)
{
	.lru_gen = "y",
	.reclaim = true,
	.swap = true,
};

FIXTURE_VARIANT_ADD(reclaim, ordinary_classic_lru)
{
	.lru_gen = "n",
	.reclaim = true,
	.swap = true,
};

/* Pages that the node has lost to anybody who reclaims */
static long long node_stolen(int nid)
{
	return node_event(nid, "pgsteal_kswapd") +
	       node_event(nid, "pgsteal_direct") +
	       node_event(nid, "pgsteal_khugepaged") +
	       node_event(nid, "pgsteal_proactive");
}

FIXTURE_SETUP(reclaim)
{
	self->child = 0;
	self->bystander = 0;
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	self->nid = cdm_node_up(variant->caps ?: "migrate");
	ASSERT_LE(0, self->nid);
	if (!variant->caps)
		self->nid = self->ram;
	ASSERT_EQ(0, setting("/sys/kernel/mm/lru_gen/enabled", variant->lru_gen));
	ASSERT_EQ(0, memcg_create());
	self->stolen = node_stolen(self->nid);
	ASSERT_LE(0, self->stolen);
}

FIXTURE_TEARDOWN_PARENT(reclaim)
{
	kill_and_reap(self->child);
	kill_and_reap(self->bystander);
	memcg_remove();
	settings_restore();
}

/* Nobody got a page: in a node that denies it, nobody has even looked. */
#define expect_none_stolen()						\
do {									\
	if (variant->caps)						\
		EXPECT_EQ(self->stolen, node_stolen(self->nid));	\
} while (0)

static bool advise(void *addr, size_t nr, int advice)
{
	drain_lru();
	return !madvise(addr, nr * PAGE_SIZE, advice);
}

/* MADV_PAGEOUT. Pages that were swapped out come back to where the VMA says. */
TEST_F_TIMEOUT(reclaim, madvise_pageout, CDM_TIMEOUT)
{
	long long in;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	if (variant->swap) {
		EXPECT_TRUE(wait_for(advise(self->pages, NR, PAGEOUT) &&
				     !pages_on(self->pages, NR, PAGE_SIZE,
					       self->nid)));
	} else {
		EXPECT_TRUE(advise(self->pages, NR, COLD));
		EXPECT_TRUE(advise(self->pages, NR, PAGEOUT));
		EXPECT_TRUE(advise(self->pages, NR, PAGEOUT));
		EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
		expect_none_stolen();
	}
	in = vm_event("pswpin");
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	if (variant->swap)
		EXPECT_LE(in + (long long)NR / 2, vm_event("pswpin"));
}

/* What was put there by move_pages() only comes back to ordinary memory. */
TEST_F_TIMEOUT(reclaim, pageout_of_moved_pages, CDM_TIMEOUT)
{
	int back = variant->swap ? self->ram : self->nid;

	ASSERT_EQ(0, run_on_node(self->ram));
	self->pages = map_pages(NR);
	ASSERT_NE(NULL, self->pages);
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->nid, NULL));
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	if (variant->swap) {
		EXPECT_TRUE(wait_for(advise(self->pages, NR, PAGEOUT) &&
				     !pages_on(self->pages, NR, PAGE_SIZE,
					       self->nid)));
	} else {
		EXPECT_TRUE(advise(self->pages, NR, PAGEOUT));
	}
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	/* One or the other may not have got farther than the swap cache. */
	EXPECT_LE(NR - NR / 16, pages_on(self->pages, NR, PAGE_SIZE, back));
}

/* Shared memory: it has no other place than swap either. */
TEST_F_TIMEOUT(reclaim, shmem_pageout, CDM_TIMEOUT)
{
	int fd;

	fd = memfd_create("cdm", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	self->pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
	ASSERT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND,
				NODE_BIT(self->nid), 0));
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	if (variant->swap) {
		EXPECT_TRUE(wait_for(advise(self->pages, NR, PAGEOUT) &&
				     !pages_on(self->pages, NR, PAGE_SIZE,
					       self->nid)));
	} else {
		EXPECT_TRUE(advise(self->pages, NR, PAGEOUT));
		EXPECT_TRUE(advise(self->pages, NR, PAGEOUT));
		EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	}
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	close(fd);
}

/* memory.reclaim, which knows no zonelist but the CPU's own */
TEST_F_TIMEOUT(reclaim, memcg_proactive, CDM_TIMEOUT)
{
	size_t left;

	ASSERT_EQ(0, memcg_join());
	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	if (variant->swap) {
		EXPECT_TRUE(wait_for((memcg_set("memory.reclaim", NR * PAGE_SIZE),
				      left = pages_on(self->pages, NR, PAGE_SIZE,
						      self->nid),
				      left < NR / 2)));
	} else {
		EXPECT_EQ(-EAGAIN, memcg_set("memory.reclaim", NR * PAGE_SIZE));
		EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
		expect_none_stolen();
	}
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* memory.high, lowered below what is used: takes the surplus, or leaves it */
TEST_F_TIMEOUT(reclaim, memcg_high, CDM_TIMEOUT)
{
	size_t left;

	ASSERT_EQ(0, memcg_join());
	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	EXPECT_EQ(0, memcg_set("memory.high", NR / 4 * PAGE_SIZE));
	EXPECT_EQ(0, memcg_write("memory.high", "max"));
	left = pages_on(self->pages, NR, PAGE_SIZE, self->nid);
	EXPECT_TRUE(variant->swap ? left < NR / 4 * 3 : left == NR);
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

struct shared {
	int nid;
	size_t nr;
	size_t filled;
	size_t intact;
};

/* Join the cgroup, fill pages of the node, read them again. */
static int memcg_filler(void *arg)
{
	struct shared *shared = arg;
	char *pages;

	if (memcg_join())
		return 1;
	pages = map_pages_on(shared->nr, shared->nid);
	if (!pages)
		return 2;
	for (; shared->filled < shared->nr; shared->filled++)
		fill_page(pages + shared->filled * PAGE_SIZE,
			  SEED + shared->filled);
	shared->intact = pages_intact(pages, shared->nr, PAGE_SIZE, SEED);
	return 0;
}

/* Uses memory all the time, on the node and elsewhere. */
static int bystander(void *arg)
{
	struct shared *shared = arg;
	char *own = map_pages(NR), *device = map_pages_on(NR, shared->nid);

	file_write("/proc/self/oom_score_adj", "1000");
	if (!own || !device)
		return 1;
	for (;;) {
		fill_pages(own, NR, PAGE_SIZE, SEED);
		fill_pages(device, NR, PAGE_SIZE, SEED);
		madvise(own, NR * PAGE_SIZE, MADV_DONTNEED);
		usleep(1000);
	}
}

/*
 * All that is charged to a cgroup is on the node, and more than its limit.
 * Where nothing can be reclaimed its OOM killer ends that task, and no other,
 * however good a victim.
 */
TEST_F_TIMEOUT(reclaim, memcg_limit, CDM_TIMEOUT)
{
	struct shared *shared = shared_page();
	long long killed = vm_event("oom_kill");

	ASSERT_NE(NULL, shared);
	shared->nid = self->nid;
	shared->nr = 3 * MB / PAGE_SIZE;
	ASSERT_EQ(0, memcg_set("memory.max", 2 * MB));
	self->bystander = spawn(bystander, shared);
	ASSERT_LT(0, self->bystander);

	self->child = spawn(memcg_filler, shared);
	ASSERT_LT(0, self->child);
	if (variant->swap) {
		EXPECT_EQ(0, reap(self->child));
		EXPECT_EQ(shared->nr, shared->intact);
		EXPECT_EQ(killed, vm_event("oom_kill"));
	} else {
		EXPECT_EQ(-SIGKILL, reap(self->child));
		/* Not before it had to */
		EXPECT_LE(MB / PAGE_SIZE, shared->filled);
		EXPECT_EQ(1, memcg_number("memory.events", "oom_kill"));
		EXPECT_EQ(killed + 1, vm_event("oom_kill"));
	}
	self->child = 0;
	EXPECT_EQ(0, kill(self->bystander, 0));
	EXPECT_EQ(0, waitpid(self->bystander, NULL, WNOHANG));
}

/* What a thread has run for, in nanoseconds; found by its name */
static long long kthread_runtime(const char *name)
{
	long long runtime = -1;
	char path[64], comm[64];
	int pid;

	/* Threads of hot-added nodes are young. */
	for (pid = 2; pid < 32768 && runtime < 0; pid++) {
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		if (file_read(path, comm, sizeof(comm)) <= 0 ||
		    strcmp(comm, name))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
		runtime = file_number(path);
	}
	return runtime;
}

static int filler(void *arg)
{
	struct shared *shared = arg;
	char *pages;

	file_write("/proc/self/oom_score_adj", "1000");
	pages = map_pages_on(shared->nr, shared->nid);
	if (!pages)
		return 2;
	for (; shared->filled < shared->nr; shared->filled++)
		fill_page(pages + shared->filled * PAGE_SIZE,
			  SEED + shared->filled);
	shared->intact = pages_intact(pages, shared->nr, PAGE_SIZE, SEED);
	return 0;
}

/* Keeps asking for pages that are not there. */
static int beggar(void *arg)
{
	struct shared *shared = arg;
	char *pages = map_pages_on(NR, shared->nid);

	if (!pages)
		return 1;
	for (;;) {
		mlock(pages, NR * PAGE_SIZE);
		munlock(pages, NR * PAGE_SIZE);
		madvise(pages, NR * PAGE_SIZE, MADV_DONTNEED);
		shared->filled++;
	}
}

/* Nearly all pages of the node, so that it is below every watermark */
static char *fill_node(int nid, size_t *nr)
{
	char *pages;

	*nr = node_meminfo(nid, "MemFree") * 1024 / PAGE_SIZE - 64;
	pages = map_pages_on(*nr, nid);
	if (pages)
		madvise(pages, *nr * PAGE_SIZE, MADV_POPULATE_WRITE);
	return pages;
}

/* Has kswapd failed so often that it waits for others to make room? */
static bool kswapd_gave_up(int nid)
{
	return node_zoneinfo(nid, NULL, "node_unreclaimable:") > 0;
}

/*
 * The node is full. Where pages can be swapped out, kswapd and direct reclaim
 * make room for who needs some. Where not, he gets SIGBUS, as of every full
 * node, and kswapd knows that there is nothing to do, and sleeps.
 */
TEST_F_TIMEOUT(reclaim, node_full, CDM_TIMEOUT)
{
	struct shared *shared = shared_page();
	long long killed = vm_event("oom_kill");
	long long before, after;
	size_t asked, nr;
	char name[16];
	char *pages;

	if (!variant->caps)
		return;		/* would fill the machine; see isolation.c */
	ASSERT_NE(NULL, shared);
	pages = fill_node(self->nid, &nr);
	ASSERT_NE(NULL, pages);
	shared->nid = self->nid;
	shared->nr = 8 * MB / PAGE_SIZE;
	self->child = spawn(filler, shared);
	ASSERT_LT(0, self->child);
	if (variant->swap) {
		EXPECT_EQ(0, reap(self->child));
		self->child = 0;
		EXPECT_EQ(shared->nr, shared->intact);
		/* The rest was on lists of the CPUs, or below the watermarks. */
		EXPECT_LT(self->stolen + (long long)shared->nr / 2,
			  node_stolen(self->nid));
		EXPECT_LT(0, node_event(self->nid, "pgscan_kswapd"));
	} else {
		EXPECT_EQ(-SIGBUS, reap(self->child));
		expect_none_stolen();

		shared->filled = 0;
		self->child = spawn(beggar, shared);
		ASSERT_LT(0, self->child);
		EXPECT_TRUE(wait_for(shared->filled > 2));
		snprintf(name, sizeof(name), "kswapd%d", self->nid);
		before = kthread_runtime(name);
		asked = shared->filled;
		EXPECT_LE(0, before);
		sleep(2);
		after = kthread_runtime(name);
		EXPECT_TRUE(wait_for(shared->filled > asked));
		kill_and_reap(self->child);
		self->child = 0;
		TH_LOG("%s ran for %lld us of two seconds", name,
		       (after - before) / 1000);
		/* A tenth of it is not idle either, but no spinning. */
		EXPECT_GT(200000000LL, after - before);
		/* Where nothing may be reclaimed it has not even tried. */
		EXPECT_EQ(variant->reclaim, kswapd_gave_up(self->nid));
		expect_none_stolen();
	}
	EXPECT_EQ(killed, vm_event("oom_kill"));
	unmap_pages(pages, nr);
}

/* What it has given up on leaves; the next device with the id is another one. */
TEST_F_TIMEOUT(reclaim, kswapd_starts_anew, CDM_TIMEOUT)
{
	struct shared *shared = shared_page();
	char *pages;
	size_t nr;

	if (!variant->caps || !variant->swap)
		return;
	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate,reclaim"));
	EXPECT_FALSE(kswapd_gave_up(self->nid));
	pages = fill_node(self->nid, &nr);
	ASSERT_NE(NULL, pages);
	shared->nid = self->nid;
	shared->nr = 8 * MB / PAGE_SIZE;
	self->child = spawn(beggar, shared);
	ASSERT_LT(0, self->child);
	EXPECT_TRUE(wait_for(kswapd_gave_up(self->nid)));

	kill_and_reap(self->child);
	self->child = 0;
	unmap_pages(pages, nr);
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(variant->caps));
	EXPECT_FALSE(kswapd_gave_up(self->nid));
}

/* Keeps asking for huge pages that are not there. */
static int huge_beggar(void *arg)
{
	struct shared *shared = arg;
	char *addr = map_huge_range(1);

	if (!addr || madvise(addr, HUGE, MADV_HUGEPAGE) ||
	    bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(shared->nid), 0))
		return 1;
	for (;;) {
		madvise(addr, HUGE, MADV_POPULATE_WRITE);
		madvise(addr, HUGE, MADV_DONTNEED);
		shared->filled++;
		usleep(1000);
	}
}

/*
 * Who asks for a huge page wakes kswapd, too, where compaction may make one. If
 * nothing may be reclaimed, it has nothing to do there, and does not try.
 */
TEST_F_TIMEOUT(reclaim, kswapd_not_for_compaction, CDM_TIMEOUT)
{
	struct shared *shared = shared_page();
	char *pages;
	size_t nr;

	if (!variant->caps || variant->swap)
		return;
	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "madvise"));
	ASSERT_EQ(0, setting(THP_SYSFS "/defrag", "defer"));
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(variant->reclaim ?
					 "migrate,thp,compaction,reclaim" :
					 "migrate,thp,compaction"));
	pages = fill_node(self->nid, &nr);
	ASSERT_NE(NULL, pages);
	shared->nid = self->nid;
	self->child = spawn(huge_beggar, shared);
	ASSERT_LT(0, self->child);
	if (variant->reclaim) {
		/* Positive control: this one tries, in vain, until it gives up */
		EXPECT_TRUE(wait_for(kswapd_gave_up(self->nid)));
	} else {
		EXPECT_TRUE(wait_for(shared->filled > 1000));
		EXPECT_FALSE(kswapd_gave_up(self->nid));
	}
	kill_and_reap(self->child);
	self->child = 0;
	unmap_pages(pages, nr);
}

/* nodeN/reclaim */
TEST_F_TIMEOUT(reclaim, node_proactive, CDM_TIMEOUT)
{
	char path[128], text[32];
	int ret;

	if (!variant->caps)
		return;		/* has a threshold of page cache there */
	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/reclaim", self->nid);
	snprintf(text, sizeof(text), "%zu", NR * PAGE_SIZE);
	if (variant->swap) {
		EXPECT_TRUE(wait_for((ret = file_write(path, text),
				      ret != -EOPNOTSUPP &&
				      pages_on(self->pages, NR, PAGE_SIZE,
					       self->nid) < NR / 2)));
	} else {
		EXPECT_EQ(variant->reclaim ? -EAGAIN : -EOPNOTSUPP,
			  file_write(path, text));
		EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
		expect_none_stolen();
	}
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Eviction of a generation by hand, through debugfs */
TEST_F_TIMEOUT(reclaim, lru_gen_evict, CDM_TIMEOUT)
{
	static const char lru_gen[] = "/sys/kernel/debug/lru_gen";
	unsigned long long id;
	char text[64], line[256];
	bool found = false;
	int ret;
	FILE *f;

	f = fopen(lru_gen, "r");
	ASSERT_NE(NULL, f);
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "memcg %llu", &id) == 1;
	fclose(f);
	ASSERT_TRUE(found);
	snprintf(text, sizeof(text), "- %llu %d 0", id, self->nid);
	ret = file_write(lru_gen, text);
	EXPECT_EQ(variant->reclaim ? 0 : -EOPNOTSUPP, ret);
}

/* MADV_FREE: what its owner gave up is no loss to anybody, and needs no swap. */
TEST_F_TIMEOUT(reclaim, madvise_free, CDM_TIMEOUT)
{
	size_t half = NR / 2;
	char *lazy;

	ASSERT_EQ(0, memcg_join());
	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	lazy = self->pages + half * PAGE_SIZE;
	ASSERT_TRUE(advise(lazy, half, MADV_FREE));
	drain_lru();
	/* So it goes whatever the driver says of reclaim. */
	EXPECT_TRUE(wait_for((memcg_set("memory.reclaim", half * PAGE_SIZE),
			      pages_on(lazy, half, PAGE_SIZE, self->nid) < half / 4)));
	if (!variant->swap)
		EXPECT_EQ(half, pages_on(self->pages, half, PAGE_SIZE, self->nid));
	EXPECT_EQ(half, pages_intact(self->pages, half, PAGE_SIZE, SEED));
}

/* All of the node in pages that differ, but for what a few CPUs may hold back */
static char *filled_node(int nid, bool huge, size_t *nr)
{
	char *pages;

	*nr = (node_meminfo(nid, "MemFree") * 1024 / HUGE - 1) * HUGE_NR;
	pages = map_huge_range(*nr / HUGE_NR);
	if (!pages || bind_pages(pages, *nr, MPOL_BIND, NODE_BIT(nid), 0) ||
	    madvise(pages, *nr * PAGE_SIZE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) ||
	    madvise(pages, *nr * PAGE_SIZE, MADV_POPULATE_WRITE))
		return NULL;
	fill_pages(pages, *nr, PAGE_SIZE, SEED);
	return pages;
}

/*
 * A full node of which half was given up has room for who comes then, on any
 * mask. What was not given up, or was written to again, stays.
 */
static void freed_is_room(struct __test_metadata *_metadata, int nid, bool huge,
			  struct shared *shared, pid_t *child)
{
	long long killed = vm_event("oom_kill");
	size_t nr, quarter;
	char *pages, *kept;

	pages = filled_node(nid, huge, &nr);
	ASSERT_NE(NULL, pages);
	quarter = nr / HUGE_NR / 4 * HUGE_NR;
	kept = pages + 2 * quarter * PAGE_SIZE;
	ASSERT_EQ(0, madvise(pages, 3 * quarter * PAGE_SIZE, MADV_FREE));
	drain_lru();
	fill_pages(kept, quarter, PAGE_SIZE, ~SEED);

	shared->nid = nid;
	shared->nr = 3 * quarter / 2;
	*child = spawn(filler, shared);
	ASSERT_LT(0, *child);
	EXPECT_EQ(0, reap(*child));
	*child = 0;
	EXPECT_EQ(shared->nr, shared->intact);
	EXPECT_EQ(quarter, pages_intact(kept, quarter, PAGE_SIZE, ~SEED));
	EXPECT_EQ(nr - 3 * quarter,
		  pages_intact(kept + quarter * PAGE_SIZE, nr - 3 * quarter, PAGE_SIZE,
			       SEED + 3 * quarter));
	EXPECT_EQ(killed, vm_event("oom_kill"));
}

TEST_F_TIMEOUT(reclaim, freed_is_room, CDM_TIMEOUT)
{
	struct shared *shared = shared_page();

	if (!variant->caps)
		return;		/* would fill the machine */
	ASSERT_NE(NULL, shared);
	freed_is_room(_metadata, self->nid, false, shared, &self->child);
}

TEST_F_TIMEOUT(reclaim, freed_huge_pages_are_room, CDM_TIMEOUT)
{
	struct shared *shared = shared_page();

	if (!variant->caps || variant->swap)
		return;
	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "always"));
	self->nid = cdm_node_up(variant->reclaim ? "migrate,thp,reclaim" : "migrate,thp");
	ASSERT_LE(0, self->nid);
	freed_is_room(_metadata, self->nid, true, shared, &self->child);
}

/* It is anonymous memory still: to move it is not to move page cache. */
TEST_F_TIMEOUT(reclaim, freed_pages_move, CDM_TIMEOUT)
{
	int *status = calloc(NR, sizeof(*status));

	if (!variant->caps)
		return;
	ASSERT_NE(NULL, status);
	ASSERT_EQ(0, run_on_node(self->ram));
	self->pages = map_pages(NR);
	ASSERT_NE(NULL, self->pages);
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	drain_lru();
	ASSERT_TRUE(advise(self->pages, NR / 2, MADV_FREE));
	drain_lru();
	ASSERT_EQ(NR / 2, NR - pages_with(self->pages, NR, PAGE_SIZE, KPF_SWAPBACKED));
	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->nid, status));
	EXPECT_EQ(NR, count_status(status, NR, self->nid));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR / 2, pages_intact(self->pages + NR / 2 * PAGE_SIZE, NR / 2, PAGE_SIZE,
				       SEED + NR / 2));
	free(status);
}

/*
 * Whoever reads a page from swap reads its neighbours, too, and these may be
 * somebody else's: not to the device that only the reader has named. A zram
 * device, and readahead by virtual address, would never do so.
 */
FIXTURE(swapin)
{
	int nid;
	int ram;
	char *named;
	char *other;
};

FIXTURE_SETUP(swapin)
{
	ASSERT_EQ(0, swapoff("/dev/zram0"));
	ASSERT_EQ(0, setting("/sys/kernel/mm/swap/vma_ra_enabled", "0"));
	ASSERT_EQ(0, setting("/proc/sys/vm/page-cluster", "5"));
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	self->nid = cdm_node_up("migrate,reclaim,swap");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, memcg_create());
	ASSERT_EQ(0, memcg_join());
}

FIXTURE_TEARDOWN_PARENT(swapin)
{
	memcg_remove();
	EXPECT_EQ(0, swapon("/dev/zram0", SWAP_FLAG_PREFER | 1));
	settings_restore();
}

/*
 * Both areas in turns to the disk, each time so many pages that reading them in
 * their order looks worth some readahead.
 */
#define TURN	((size_t)8)

static bool swap_out_in_turns(char *a, char *b)
{
	size_t i;

	drain_lru();
	for (i = 0; i < NR; i += TURN) {
		madvise(a + i * PAGE_SIZE, TURN * PAGE_SIZE, PAGEOUT);
		madvise(b + i * PAGE_SIZE, TURN * PAGE_SIZE, PAGEOUT);
	}
	/* And out of the swap cache, where they stay when they are written */
	return wait_for((memcg_set("memory.reclaim", 2 * NR * PAGE_SIZE),
			 !memcg_number("memory.stat", "swapcached")));
}

/* How many pages of @neighbour come to @nid while those of @first are read? */
static size_t misplaced(char *first, char *neighbour, int nid)
{
	size_t i;

	for (i = 0; i < NR; i++)
		READ_ONCE(first[i * PAGE_SIZE]);
	return pages_intact(neighbour, NR, PAGE_SIZE, ~SEED) == NR ?
	       pages_on(neighbour, NR, PAGE_SIZE, nid) : ~0UL;
}

TEST_F_TIMEOUT(swapin, readahead_denied, CDM_TIMEOUT)
{
	long long ahead;
	int far;

	self->named = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->named);
	self->other = map_pages(NR);
	ASSERT_NE(NULL, self->other);
	fill_pages(self->other, NR, PAGE_SIZE, ~SEED);
	ASSERT_TRUE(swap_out_in_turns(self->named, self->other));
	ASSERT_GT(NR / 8, pages_on(self->named, NR, PAGE_SIZE, self->nid));
	ASSERT_GT(NR / 8, pages_on(self->other, NR, PAGE_SIZE, self->ram));

	EXPECT_EQ(0, misplaced(self->named, self->other, self->nid));
	EXPECT_EQ(NR, pages_on(self->named, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->named, NR, PAGE_SIZE, SEED));
	unmap_pages(self->named, NR);
	unmap_pages(self->other, NR);

	/* Control: this is what happens between ordinary nodes. */
	far = ram_node(1);
	ASSERT_LE(0, far);
	self->named = filled_pages_on(NR, far, SEED);
	ASSERT_NE(NULL, self->named);
	self->other = map_pages(NR);
	ASSERT_NE(NULL, self->other);
	fill_pages(self->other, NR, PAGE_SIZE, ~SEED);
	ahead = vm_event("swap_ra");
	ASSERT_TRUE(swap_out_in_turns(self->named, self->other));
	EXPECT_LT(0, misplaced(self->named, self->other, far));
	EXPECT_LT(ahead, vm_event("swap_ra"));
}

TEST_HARNESS_MAIN
