// SPDX-License-Identifier: GPL-2.0
/*
 * A device that is short of memory is the affair of those who named it. Nobody
 * else is killed for it, loses caches, or waits; and nothing that the system does
 * for all fails for the sake of one who is bound to it.
 */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)1024)
#define SEED		0x4e160000UL
#define MB		((size_t)1 << 20)
#define SWAP		"/dev/zram0"
#define OTHER_SWAP	"/dev/vda"
#define SCRATCH		"/scratch/cdm-neighbour"
#define MIN_TTL		"/sys/kernel/mm/lru_gen/min_ttl_ms"
#define KHUGEPAGED	THP_SYSFS "/khugepaged"
/* A name that the C library may be too old for */
#define PAGEOUT		21

/* What the children do, and tell */
struct shared {
	int nid;
	char *pages;
	size_t nr;
	size_t done;
	bool ready;
	bool file;	/* the pages are of a file of shared memory */
};

/* Ordinary memory, and the first that the OOM killer would take */
static int bystander(void *arg)
{
	struct shared *shared = arg;
	char *pages = map_pages(NR);

	if (!pages || file_write("/proc/self/oom_score_adj", "1000"))
		return 1;
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	WRITE_ONCE(shared->ready, true);
	for (;;)
		pause();
}

/* Keeps all of a device, and asks for more that is not there. */
static int beggar(void *arg)
{
	struct shared *shared = arg;
	char *all, *more = map_pages_on(NR, shared->nid);

	shared->nr = node_meminfo(shared->nid, "MemFree") * 1024 / PAGE_SIZE - 64;
	all = map_pages_on(shared->nr, shared->nid);
	if (!all || !more)
		return 1;
	madvise(all, shared->nr * PAGE_SIZE, MADV_POPULATE_WRITE);
	WRITE_ONCE(shared->ready, true);
	for (;;) {
		madvise(more, NR * PAGE_SIZE, MADV_POPULATE_WRITE);
		madvise(more, NR * PAGE_SIZE, MADV_DONTNEED);
		shared->done++;
	}
}

/* Take each page of a device that is left, for good. */
static bool occupy(int nid)
{
	static const size_t sizes[] = { MB, PAGE_SIZE };
	char *pages;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		do {
			pages = map_pages_on(sizes[i] / PAGE_SIZE, nid);
			if (!pages)
				return false;
		} while (!mlock(pages, sizes[i]));
		munmap(pages, sizes[i]);
	}
	return true;
}

static int occupier(void *arg)
{
	struct shared *shared = arg;

	if (!occupy(shared->nid))
		return 1;
	WRITE_ONCE(shared->ready, true);
	for (;;)
		pause();
}

/*
 * All of a device in base pages, in huge pages' ranges that khugepaged may look
 * at as soon as the test says so. Whatever it tries there must fail.
 */
static int wants_huge(void *arg)
{
	struct shared *shared = arg;
	size_t len;
	char *addr;
	int fd;

	shared->nr = node_meminfo(shared->nid, "MemFree") * 1024 / HUGE - 1;
	len = shared->nr * HUGE;
	addr = map_huge_range(shared->nr);
	if (!addr)
		return 1;
	if (shared->file) {
		fd = memfd_create("cdm", 0);
		if (fd < 0 || ftruncate(fd, len) ||
		    mmap(addr, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 fd, 0) == MAP_FAILED)
			return 2;
	}
	if (madvise(addr, len, MADV_NOHUGEPAGE) ||
	    bind_pages(addr, len / PAGE_SIZE, MPOL_BIND, NODE_BIT(shared->nid), 0) ||
	    madvise(addr, len, MADV_POPULATE_WRITE) || !occupy(shared->nid) ||
	    madvise(addr, len, MADV_HUGEPAGE))
		return 3;
	WRITE_ONCE(shared->ready, true);
	for (;;)
		pause();
}

/* Pages on the device of which nothing is left there but what is on swap */
static int swapped_out(void *arg)
{
	struct shared *shared = arg;
	char *pages = filled_pages_on(NR, shared->nid, SEED);

	if (!pages ||
	    !wait_for((madvise(pages, NR * PAGE_SIZE, PAGEOUT), drain_lru(),
		       !pages_on(pages, NR, PAGE_SIZE, shared->nid))))
		return 1;
	WRITE_ONCE(shared->ready, true);
	if (!wait_for(READ_ONCE(shared->done)))
		return 2;
	shared->nr = pages_on(pages, NR, PAGE_SIZE, shared->nid);
	return pages_intact(pages, NR, PAGE_SIZE, SEED) == NR ? 0 : 3;
}

/* Two of each page on the device, of which KSM makes one */
static int merged(void *arg)
{
	struct shared *shared = arg;
	char *pages = map_pages_on(NR, shared->nid);
	bool intact;

	if (!pages || madvise(pages, NR * PAGE_SIZE, MADV_MERGEABLE))
		return 1;
	fill_pages(pages, NR / 2, PAGE_SIZE, SEED);
	fill_pages(pages + NR / 2 * PAGE_SIZE, NR / 2, PAGE_SIZE, SEED);
	if (!wait_for(pages_ksm(pages, NR, PAGE_SIZE) == NR))
		return 2;
	WRITE_ONCE(shared->ready, true);
	if (!wait_for(READ_ONCE(shared->done)))
		return 3;
	shared->nr = pages_on(pages, NR, PAGE_SIZE, shared->nid);
	intact = pages_intact(pages, NR / 2, PAGE_SIZE, SEED) == NR / 2 &&
		 pages_intact(pages + NR / 2 * PAGE_SIZE, NR / 2, PAGE_SIZE, SEED) == NR / 2;
	return intact && !pages_ksm(pages, NR, PAGE_SIZE) ? 0 : 4;
}

/* nop; ret */
static const unsigned char code[] = { 0x90, 0xc3 };

/* Has code of a file mapped, for which it names the device */
static int runs_code(void *arg)
{
	struct shared *shared = arg;
	int fd = open(SCRATCH, O_RDONLY);
	char *pages;

	pages = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	if (pages == MAP_FAILED ||
	    bind_pages(pages, 1, MPOL_BIND, NODE_BIT(shared->nid), 0))
		return 1;
	READ_ONCE(*pages);
	WRITE_ONCE(shared->ready, true);
	if (!wait_for(READ_ONCE(shared->done)))
		return 2;
	shared->nr = page_node(pages) == shared->nid;
	((void (*)(void))pages)();
	return 0;
}

/* More in RAM than its cgroup lets it have */
static int squeezed(void *arg)
{
	char *pages = map_pages(NR * 8);

	if (!pages || memcg_join())
		return 1;
	fill_pages(pages, NR * 8, PAGE_SIZE, SEED);
	return pages_intact(pages, NR * 8, PAGE_SIZE, SEED) == NR * 8 ? 0 : 2;
}

struct scene {
	int nid;
	pid_t child;
	pid_t second;
	struct shared *shared;
	struct shared *other;
};

static bool scene_begin(struct scene *scene)
{
	memset(scene, 0, sizeof(*scene));
	scene->shared = shared_page();
	scene->other = shared_page();
	return scene->shared && scene->other && !setting(KSM_SYSFS "/run", "0");
}

static void scene_end(struct scene *scene)
{
	kill_and_reap(scene->child);
	kill_and_reap(scene->second);
	settings_restore();
}

static bool node_up(struct scene *scene, const char *caps)
{
	scene->nid = cdm_node_up(caps);
	scene->shared->nid = scene->nid;
	scene->other->nid = scene->nid;
	return scene->nid >= 0;
}

/* A child, when it has done what it has to do first */
static pid_t start(int (*fn)(void *), struct shared *shared)
{
	pid_t pid;

	shared->ready = false;
	shared->done = 0;
	pid = spawn(fn, shared);
	if (pid > 0 && !wait_for(READ_ONCE(shared->ready) ||
				 waitpid(pid, NULL, WNOHANG)))
		return -1;
	return READ_ONCE(shared->ready) ? pid : -1;
}

static bool lives(pid_t pid)
{
	return pid > 0 && !waitpid(pid, NULL, WNOHANG);
}

/* Has kswapd failed so often that it waits for others to make room? */
static bool kswapd_gave_up(int nid)
{
	return node_zoneinfo(nid, NULL, "node_unreclaimable:") > 0;
}

/* Shortage: what kswapd does about it, with either LRU */
FIXTURE(kswapd)
{
	struct scene scene;
};

FIXTURE_VARIANT(kswapd)
{
	const char *caps;
	const char *lru_gen;
	const char *min_ttl;
	bool reclaim;
};

FIXTURE_VARIANT_ADD(kswapd, lru_gen)
{
	.caps = "migrate,reclaim,interleave",
	.lru_gen = "y",
	.min_ttl = "0",
	.reclaim = true,
};

/* As distributions for desktops set it */
FIXTURE_VARIANT_ADD(kswapd, min_ttl)
{
	.caps = "migrate,reclaim,interleave",
	.lru_gen = "y",
	.min_ttl = "1000",
	.reclaim = true,
};

FIXTURE_VARIANT_ADD(kswapd, min_ttl_denied)
{
	.caps = "migrate",
	.lru_gen = "y",
	.min_ttl = "1000",
};

FIXTURE_VARIANT_ADD(kswapd, classic_lru)
{
	.caps = "migrate,reclaim,interleave",
	.lru_gen = "n",
	.min_ttl = "1000",
	.reclaim = true,
};

FIXTURE_SETUP(kswapd)
{
	ASSERT_TRUE(scene_begin(&self->scene));
	ASSERT_EQ(0, setting("/sys/kernel/mm/lru_gen/enabled", variant->lru_gen));
	ASSERT_EQ(0, setting(MIN_TTL, variant->min_ttl));
	/* Begins with no failure, and no page used */
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_TRUE(node_up(&self->scene, variant->caps));
}

FIXTURE_TEARDOWN_PARENT(kswapd)
{
	scene_end(&self->scene);
}

TEST_F_TIMEOUT(kswapd, shortage, CDM_TIMEOUT)
{
	long long killed = vm_event("oom_kill"), scanned;
	struct scene *scene = &self->scene;

	scene->second = start(bystander, scene->other);
	ASSERT_LT(0, scene->second);
	scanned = vm_event("slabs_scanned");
	ASSERT_LE(0, scanned);
	scene->child = start(beggar, scene->shared);
	ASSERT_LT(0, scene->child);
	/* It has tried all that it can, if it may try at all. */
	if (variant->reclaim)
		EXPECT_TRUE(wait_for(kswapd_gave_up(scene->nid)));
	EXPECT_TRUE(wait_for(READ_ONCE(scene->shared->done) > 20));
	EXPECT_EQ(scanned, vm_event("slabs_scanned"));
	EXPECT_EQ(killed, vm_event("oom_kill"));
	EXPECT_TRUE(lives(scene->second));
	EXPECT_TRUE(lives(scene->child));

	/* Control: this is how it would have shown */
	ASSERT_EQ(0, file_write("/proc/sys/vm/drop_caches", "2"));
	EXPECT_LT(scanned, vm_event("slabs_scanned"));
}

/* What is the device's own to shrink still is: huge pages that are hardly used */
FIXTURE(neighbour)
{
	struct scene scene;
	bool swap_off[2];	/* SWAP and OTHER_SWAP */
};

FIXTURE_SETUP(neighbour)
{
	memset(self->swap_off, 0, sizeof(self->swap_off));
	ASSERT_TRUE(scene_begin(&self->scene));
}

FIXTURE_TEARDOWN_PARENT(neighbour)
{
	scene_end(&self->scene);
	memcg_remove();
	unlink(SCRATCH);
	if (self->swap_off[0])
		EXPECT_EQ(0, swapon(SWAP, SWAP_FLAG_PREFER | 1));
	if (self->swap_off[1])
		EXPECT_EQ(0, swapon(OTHER_SWAP, SWAP_FLAG_PREFER | 1));
}

static void huge_pages_are_split(struct __test_metadata *_metadata,
				 struct scene *scene, const char *caps)
{
	char *huge, *pages;
	size_t i, nr, half;

	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "always"));
	ASSERT_TRUE(node_up(scene, caps));
	nr = node_meminfo(scene->nid, "MemFree") * 1024 / HUGE - 2;
	half = nr / 2 * HUGE_NR;
	huge = map_huge_range(nr);
	ASSERT_NE(NULL, huge);
	ASSERT_EQ(0, bind_pages(huge, nr * HUGE_NR, MPOL_BIND, NODE_BIT(scene->nid), 0));
	for (i = 0; i < nr; i++)
		fill_page(huge + i * HUGE, SEED + i);
	/* One or the other may have found no huge page. */
	ASSERT_LT(nr * 3 / 4, pages_with(huge, nr, HUGE, KPF_THP));
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, madvise(huge + i * HUGE + PAGE_SIZE, HUGE - PAGE_SIZE,
				     MADV_DONTNEED));
	pages = map_pages_on(half, scene->nid);
	ASSERT_NE(NULL, pages);
	EXPECT_EQ(0, madvise(pages, half * PAGE_SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(nr, pages_intact(huge, nr, HUGE, SEED));
}

TEST_F_TIMEOUT(neighbour, huge_pages_are_split, CDM_TIMEOUT)
{
	huge_pages_are_split(_metadata, &self->scene, "migrate,thp,reclaim");
}

/* To use what was unmapped is not to reclaim it. */
TEST_F_TIMEOUT(neighbour, huge_pages_are_split_without_reclaim, CDM_TIMEOUT)
{
	huge_pages_are_split(_metadata, &self->scene, "migrate,thp");
}

/*
 * khugepaged meets ranges of a device that has no huge page left, and goes on
 * with those of others, whose memory is RAM.
 */
static void khugepaged_goes_on(struct __test_metadata *_metadata,
			       struct scene *scene, bool file)
{
	static const char alloc_failed[] = "thp_collapse_alloc_failed";
	size_t i, nr = 8;
	long long failed;
	char *pages;

	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "inherit"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	ASSERT_EQ(0, setting(THP_SYSFS "/shmem_enabled", "advise"));
	ASSERT_EQ(0, setting(KHUGEPAGED "/pages_to_scan", "65536"));
	ASSERT_EQ(0, setting(KHUGEPAGED "/scan_sleep_millisecs", "10"));
	/* Longer than anybody waits here */
	ASSERT_EQ(0, setting(KHUGEPAGED "/alloc_sleep_millisecs", "3600000"));
	ASSERT_TRUE(node_up(scene, "migrate,thp"));
	scene->shared->file = file;
	failed = vm_event(alloc_failed);
	scene->child = start(wants_huge, scene->shared);
	ASSERT_LT(0, scene->child);
	/* It has met more than one of them. */
	EXPECT_TRUE(wait_for(vm_event(alloc_failed) > failed + 3));

	pages = map_huge_range(nr);
	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, madvise(pages, nr * HUGE, MADV_NOHUGEPAGE));
	fill_pages(pages, nr * HUGE_NR, PAGE_SIZE, SEED);
	ASSERT_EQ(0, madvise(pages, nr * HUGE, MADV_HUGEPAGE));
	for (i = 0; i < nr; i++)
		EXPECT_TRUE(wait_for((drain_lru(),
				      pages_with(pages + i * HUGE, 1, PAGE_SIZE, KPF_THP))));
	EXPECT_EQ(nr * HUGE_NR, pages_intact(pages, nr * HUGE_NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(neighbour, khugepaged, CDM_TIMEOUT)
{
	khugepaged_goes_on(_metadata, &self->scene, false);
}

TEST_F_TIMEOUT(neighbour, khugepaged_shared_memory, CDM_TIMEOUT)
{
	khugepaged_goes_on(_metadata, &self->scene, true);
}

/*
 * What root does for all: with room on the device pages go where their owner is
 * bound to; with none, to ordinary memory, and it is done.
 */
TEST_F_TIMEOUT(neighbour, swapoff, CDM_TIMEOUT)
{
	struct scene *scene = &self->scene;
	int full;

	ASSERT_TRUE(node_up(scene, "migrate,reclaim,swap"));
	ASSERT_EQ(0, swapoff(OTHER_SWAP));
	self->swap_off[1] = true;
	for (full = 0; full < 2; full++) {
		scene->child = start(swapped_out, scene->shared);
		ASSERT_LT(0, scene->child);
		if (full)
			scene->second = start(occupier, scene->other);
		ASSERT_LE(0, scene->second);
		self->swap_off[0] = true;
		EXPECT_EQ(0, swapoff(SWAP)) TH_LOG("%s", strerror(errno));
		WRITE_ONCE(scene->shared->done, 1);
		EXPECT_EQ(0, reap(scene->child));
		scene->child = 0;
		/* One or the other page may be free for a moment. */
		EXPECT_GT(full ? NR / 16 : NR + 1, scene->shared->nr);
		EXPECT_LE(full ? 0 : NR, scene->shared->nr);
		ASSERT_EQ(0, swapon(SWAP, SWAP_FLAG_PREFER | 1));
		self->swap_off[0] = false;
	}
}

TEST_F_TIMEOUT(neighbour, unmerge, CDM_TIMEOUT)
{
	struct scene *scene = &self->scene;
	int full;

	ASSERT_TRUE(node_up(scene, "migrate,ksm"));
	for (full = 0; full < 2; full++) {
		ASSERT_EQ(0, ksm_start("1"));
		scene->child = start(merged, scene->shared);
		ASSERT_LT(0, scene->child);
		if (full)
			scene->second = start(occupier, scene->other);
		ASSERT_LE(0, scene->second);
		EXPECT_EQ(0, file_write(KSM_SYSFS "/run", "2"));
		WRITE_ONCE(scene->shared->done, 1);
		EXPECT_EQ(0, reap(scene->child));
		scene->child = 0;
		/* Copies are where there is room. */
		EXPECT_GT(full ? NR : NR + 1, scene->shared->nr);
		EXPECT_LE(full ? 0 : NR, scene->shared->nr);
	}
}

/*
 * A device's kswapd at work, with nobody waiting for it, is no pressure on the
 * machine: who watches that would free RAM for it, or kill.
 */
TEST_F_TIMEOUT(neighbour, pressure, CDM_TIMEOUT)
{
	static const char kswapd[] = "pgsteal_kswapd";
	struct scene *scene = &self->scene;
	long long before, stolen, waited;
	size_t i, nr, step = 64;
	char *pages;

	/* From where it begins to work to where others have to, 10 % of the node */
	ASSERT_EQ(0, setting("/proc/sys/vm/watermark_scale_factor", "1000"));
	ASSERT_TRUE(node_up(scene, "migrate,reclaim,swap"));
	nr = node_meminfo(scene->nid, "MemFree") * 1024 / PAGE_SIZE;
	pages = map_pages_on(nr, scene->nid);
	ASSERT_NE(NULL, pages);
	stolen = node_event(scene->nid, kswapd);
	waited = vm_event("allocstall_movable");
	ASSERT_LE(0, stolen);
	ASSERT_LE(0, waited);
	before = memory_stall();
	ASSERT_LE(0, before);
	for (i = 0; i + step <= nr && node_event(scene->nid, kswapd) == stolen; i += step)
		fill_pages(pages + i * PAGE_SIZE, step, PAGE_SIZE, SEED + i);
	EXPECT_TRUE(wait_for(node_event(scene->nid, kswapd) > stolen));
	EXPECT_EQ(waited, vm_event("allocstall_movable"));
	EXPECT_EQ(before, memory_stall());

	/* Control: this is pressure */
	ASSERT_EQ(0, memcg_create());
	ASSERT_EQ(0, memcg_set("memory.max", NR * PAGE_SIZE));
	EXPECT_EQ(0, reap(spawn(squeezed, NULL)));
	EXPECT_LT(before, memory_stall());
}

TEST_F_TIMEOUT(neighbour, uprobe, CDM_TIMEOUT)
{
	struct perf_event_attr attr = {
		.type = file_number("/sys/bus/event_source/devices/uprobe/type"),
		.size = sizeof(attr),
		.config1 = (unsigned long)SCRATCH,
	};
	struct scene *scene = &self->scene;
	int fd, event, full;

	ASSERT_TRUE(node_up(scene, "migrate"));
	unlink(SCRATCH);
	fd = open(SCRATCH, O_RDWR | O_CREAT | O_TRUNC, 0700);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE_SIZE));
	ASSERT_EQ(sizeof(code), pwrite(fd, code, sizeof(code), 0));
	close(fd);
	for (full = 0; full < 2; full++) {
		scene->child = start(runs_code, scene->shared);
		ASSERT_LT(0, scene->child);
		if (full)
			scene->second = start(occupier, scene->other);
		ASSERT_LE(0, scene->second);
		/* Of all tasks on one CPU, so it is set in each */
		event = syscall(__NR_perf_event_open, &attr, -1, 0, -1, 0);
		EXPECT_LE(0, event) TH_LOG("%s", strerror(errno));
		WRITE_ONCE(scene->shared->done, 1);
		EXPECT_EQ(0, reap(scene->child));
		scene->child = 0;
		EXPECT_EQ(!full, scene->shared->nr);
		close(event);
	}
}

TEST_HARNESS_MAIN
