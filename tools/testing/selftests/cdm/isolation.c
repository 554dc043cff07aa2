// SPDX-License-Identifier: GPL-2.0
/*
 * Nobody gets a page of the node who did not name it: not a hog that needs more
 * than there is, with and without swap, not a flood of processes, not the page
 * cache, not shared memory, not whoever says "all nodes".
 *
 * The judge is the allocator's own count for the node: a page that was there
 * for a moment only is counted too.
 */
#include <fcntl.h>
#include <limits.h>
#include <numa.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)256)
#define MB		((size_t)1 << 20)
#define RESERVE		(160 * MB)
#define NR_SWAPS	8

struct shared {
	size_t target;		/* bytes to take; or the node to keep off */
	size_t taken;
	int full;
};

FIXTURE(isolation)
{
	int nid;
	pid_t child;
	pid_t ballast;
	unsigned long allocations;
	char swap[NR_SWAPS][64];
	int nr_swaps;
	struct shared *shared;
};

/* Bytes that are free on the nodes that everybody may use */
static size_t ordinary_free(int except)
{
	unsigned long nodes = node_list("has_memory");
	size_t kb = 0;
	int nid;

	for (nid = 0; nid < 64; nid++)
		if (nodes & NODE_BIT(nid) && nid != except)
			kb += node_meminfo(nid, "MemFree");
	return kb * 1024;
}

/* Bytes of swap that are free */
static size_t swap_free(void)
{
	char line[256], name[64];
	size_t size, used, kb = 0;
	FILE *f;

	f = fopen("/proc/swaps", "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %*s %zu %zu", name, &size, &used) == 3)
			kb += size - used;
	fclose(f);
	return kb * 1024;
}

static int swap_off(char (*swap)[64])
{
	char line[256];
	int i, nr = 0;
	FILE *f;

	f = fopen("/proc/swaps", "r");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f) && nr < NR_SWAPS)
		if (line[0] == '/' && sscanf(line, "%63s", swap[nr]) == 1)
			nr++;
	fclose(f);
	for (i = 0; i < nr; i++)
		if (swapoff(swap[i]))
			return -errno;
	return nr;
}

static void first_in_line_to_die(void)
{
	file_write("/proc/self/oom_score_adj", "1000");
}

/*
 * Take memory, never give it back. Huge pages are faster, and whoever hands
 * them out may look at the node just the same.
 */
static int hog(void *arg)
{
	struct shared *shared = arg;
	size_t chunk = 4 * MB, i;
	char *addr;

	first_in_line_to_die();
	while (shared->taken < shared->target) {
		addr = mmap(NULL, chunk, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (addr == MAP_FAILED)
			return 1;
		if (shared->taken % (2 * chunk))
			madvise(addr, chunk, MADV_HUGEPAGE);
		else
			madvise(addr, chunk, MADV_NOHUGEPAGE);
		for (i = 0; i < chunk; i += PAGE_SIZE)
			addr[i] = i / PAGE_SIZE + 1;
		shared->taken += chunk;
	}
	return 0;
}

/*
 * Leave no more than RESERVE of ordinary memory free, and keep it so. This is
 * tight: what the kernel itself needs to make progress fits in, with watermarks
 * that are not raised for the sake of huge pages.
 */
static int ballast(void *arg)
{
	struct shared *shared = arg;
	size_t chunk = 4 * MB;
	char *addr;

	file_write("/proc/self/oom_score_adj", "-1000");
	while (ordinary_free(shared->target) > RESERVE) {
		addr = mmap(NULL, chunk, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (addr == MAP_FAILED)
			return 1;
		madvise(addr, chunk, MADV_HUGEPAGE);
		/* Not from the node, where it could have it */
		if (bind_pages(addr, chunk / PAGE_SIZE, MPOL_BIND,
			       node_list("has_memory") & ~NODE_BIT(shared->target),
			       0))
			return 1;
		if (mlock(addr, chunk))
			return 1;
	}
	shared->full = 1;
	for (;;)
		pause();
}

FIXTURE_SETUP(isolation)
{
	self->child = 0;
	self->ballast = 0;
	self->nr_swaps = 0;
	self->shared = shared_page();
	ASSERT_NE(NULL, self->shared);
	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting("/proc/sys/vm/min_free_kbytes", "8192"));
	ASSERT_EQ(0, setting("/proc/sys/vm/watermark_boost_factor", "0"));
	self->allocations = node_allocations(self->nid);
	ASSERT_NE(ULONG_MAX, self->allocations);
}

FIXTURE_TEARDOWN_PARENT(isolation)
{
	int i;

	kill_and_reap(self->child);
	kill_and_reap(self->ballast);
	for (i = 0; i < self->nr_swaps; i++)
		if (swapon(self->swap[i], 0))
			TH_LOG("%s is not in use again", self->swap[i]);
	settings_restore();
}

/* Nothing has ever been allocated there since the setup, and nothing is there */
#define expect_no_page()						\
do {									\
	struct node_use use;						\
									\
	EXPECT_EQ(self->allocations, node_allocations(self->nid));	\
	ASSERT_EQ(0, device_use(&use));					\
	EXPECT_LT(0, use.total);					\
	EXPECT_EQ(0, use.used);						\
	EXPECT_EQ(0, node_meminfo(self->nid, "AnonPages"));		\
	EXPECT_EQ(0, node_meminfo(self->nid, "FilePages"));		\
	EXPECT_EQ(0, node_meminfo(self->nid, "Shmem"));			\
	EXPECT_EQ(0, node_meminfo(self->nid, "Slab"));			\
	EXPECT_EQ(0, node_meminfo(self->nid, "KernelStack"));		\
	EXPECT_EQ(0, node_meminfo(self->nid, "PageTables"));		\
} while (0)

/* Ordinary memory is full but for RESERVE */
#define fill_ordinary_memory()						\
do {									\
	self->shared->target = self->nid;				\
	self->ballast = spawn(ballast, self->shared);			\
	ASSERT_LT(0, self->ballast);					\
	while (!self->shared->full) {			\
		ASSERT_EQ(0, waitpid(self->ballast, NULL, WNOHANG));	\
		usleep(50000);						\
	}								\
} while (0)

/* Positive control for all that follows: a task that names the node is seen */
TEST_F_TIMEOUT(isolation, named_task_is_seen, CDM_TIMEOUT)
{
	struct node_use use;
	char *addr;

	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, 1);
	EXPECT_EQ(self->allocations + NR, node_allocations(self->nid));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_EQ(NR, use.used);
	EXPECT_EQ(NR, use.anon);
	EXPECT_EQ(NR * PAGE_SIZE / 1024, node_meminfo(self->nid, "AnonPages"));
	/* All that the node has is free or there, and the walk saw all of it */
	EXPECT_EQ(cdm_device(0)->size / PAGE_SIZE, use.total);
	EXPECT_EQ((long long)cdm_device(0)->size / 1024,
		  node_meminfo(self->nid, "MemTotal"));
}

/* Half as much again as is free: the hog dies rather than spill over */
TEST_F_TIMEOUT(isolation, hog_swap_off_denied, CDM_TIMEOUT)
{
	long long killed;
	size_t before;
	int nr;

	/* Or else the machine may run for half an hour on what it reads again */
	ASSERT_EQ(0, setting("/sys/kernel/mm/lru_gen/min_ttl_ms", "1000"));
	nr = swap_off(self->swap);
	ASSERT_LE(0, nr);
	self->nr_swaps = nr;
	killed = vm_event("oom_kill");
	self->allocations = node_allocations(self->nid);

	before = ordinary_free(self->nid);
	self->shared->target = before / 2 * 3;
	self->child = spawn(hog, self->shared);
	ASSERT_LT(0, self->child);
	EXPECT_EQ(-SIGKILL, reap(self->child));
	self->child = 0;
	/* It really had most of what there was */
	EXPECT_LT(before / 4 * 3, self->shared->taken);
	EXPECT_LT(killed, vm_event("oom_kill"));
	expect_no_page();
}

/* The same with swap, of which it needs some */
TEST_F_TIMEOUT(isolation, hog_swap_on_denied, CDM_TIMEOUT)
{
	long long out = vm_event("pswpout");
	size_t swap = swap_free();

	ASSERT_LT(64 * MB, swap);
	self->shared->target = ordinary_free(self->nid) + swap / 4;
	self->child = spawn(hog, self->shared);
	ASSERT_LT(0, self->child);
	reap(self->child);
	self->child = 0;
	EXPECT_LT(self->shared->target / 2, self->shared->taken);
	/* Control: memory was short, or else this shows nothing */
	EXPECT_LT(out, vm_event("pswpout"));
	expect_no_page();
}

static int toucher(void *arg)
{
	size_t nr = 512, i;
	char *addr;

	(void)arg;
	first_in_line_to_die();
	addr = map_pages(nr);
	if (!addr)
		return 1;
	for (i = 0; i < nr; i++)
		addr[i * PAGE_SIZE] = 1;
	usleep(200000);
	return 0;
}

/* Children that touch memory, twice as much as is free: page tables, stacks */
TEST_F_TIMEOUT(isolation, fork_flood_denied, CDM_TIMEOUT)
{
	size_t nr = 2 * RESERVE / (512 * PAGE_SIZE), i, ended = 0;
	pid_t pid;

	fill_ordinary_memory();
	self->allocations = node_allocations(self->nid);
	for (i = 0; i < nr; i++) {
		pid = spawn(toucher, NULL);
		if (pid < 0)
			break;
	}
	/* Some end, some may be killed: no matter */
	while (ended < i && wait(NULL) > 0)
		ended++;
	EXPECT_LT(nr / 4, ended);
	expect_no_page();
}

/* A file larger than all that is free: written, and read again */
TEST_F_TIMEOUT(isolation, page_cache_denied, CDM_TIMEOUT)
{
	const char *dir = getenv("CDM_SCRATCH") ?: "/scratch";
	size_t size = RESERVE / 2 * 3, i;
	static char buf[65536];
	struct stat file, tmp;
	char path[256];
	unsigned long sum = 0;
	int fd;

	/* On a disk, not in memory */
	ASSERT_EQ(0, stat(dir, &file));
	ASSERT_EQ(0, stat("/dev/shm", &tmp));
	ASSERT_NE(tmp.st_dev, file.st_dev);
	ASSERT_EQ(0, stat("/", &tmp));
	ASSERT_NE(tmp.st_dev, file.st_dev);

	fill_ordinary_memory();
	self->allocations = node_allocations(self->nid);
	snprintf(path, sizeof(path), "%s/cdm_isolation", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, fd);
	unlink(path);
	memset(buf, 0x5a, sizeof(buf));
	for (i = 0; i < size; i += sizeof(buf))
		ASSERT_EQ(sizeof(buf), write(fd, buf, sizeof(buf)));
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	for (i = 0; i < size; i += sizeof(buf)) {
		ASSERT_EQ(sizeof(buf), read(fd, buf, sizeof(buf)));
		sum += buf[i % sizeof(buf)];
	}
	close(fd);
	EXPECT_EQ(0x5a * (size / sizeof(buf)), sum);
	expect_no_page();
}

/* tmpfs, written by nobody who names the node */
TEST_F_TIMEOUT(isolation, tmpfs_denied, CDM_TIMEOUT)
{
	static char buf[65536];
	size_t i;
	int fd;

	ASSERT_LT(64 * MB, swap_free());
	fill_ordinary_memory();
	self->allocations = node_allocations(self->nid);
	fd = memfd_create("cdm", 0);
	ASSERT_LE(0, fd);
	for (i = 0; i < RESERVE + 32 * MB; i += sizeof(buf))
		ASSERT_EQ(sizeof(buf), write(fd, buf, sizeof(buf)));
	close(fd);
	expect_no_page();
}

/* Whoever asks which nodes there are for him, and takes all of them */
TEST_F_TIMEOUT(isolation, all_allowed_nodes_denied, CDM_TIMEOUT)
{
	static const int modes[] = {
		MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE, MPOL_BIND,
		MPOL_PREFERRED_MANY,
	};
	char line[1024], status[1024] = "";
	unsigned long mems = 0;
	char *addr;
	size_t i;
	FILE *f;

	ASSERT_EQ(0, get_mempolicy(NULL, &mems, 65, NULL, MPOL_F_MEMS_ALLOWED));
	EXPECT_NE(0, mems);
	EXPECT_EQ(0, mems & NODE_BIT(self->nid));

	f = fopen("/proc/self/status", "r");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Mems_allowed_list: %1023s", status) == 1)
			break;
	fclose(f);
	EXPECT_NE(0, parse_list(status));
	EXPECT_EQ(0, parse_list(status) & NODE_BIT(self->nid));
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(self->nid));

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		addr = map_pages(NR);
		ASSERT_NE(NULL, addr);
		ASSERT_EQ(0, bind_pages(addr, NR, modes[i], mems, 0));
		fill_pages(addr, NR, PAGE_SIZE, 1);
		EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	}
	expect_no_page();
}

/* The memory is of a kind that can always be taken away */
TEST_F_TIMEOUT(isolation, all_movable, CDM_TIMEOUT)
{
	long long size = cdm_device(0)->size / PAGE_SIZE;

	EXPECT_EQ(size, node_zoneinfo(self->nid, "Movable", "present"));
	EXPECT_EQ(size, node_zoneinfo(self->nid, NULL, "present"));
}

TEST_HARNESS_MAIN
