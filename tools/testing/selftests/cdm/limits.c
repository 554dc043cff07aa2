// SPDX-License-Identifier: GPL-2.0
/*
 * How much of a device a cgroup may have: dmem.capacity, current and max. Each page
 * is counted from where it is handed out to where it is freed, for the cgroup whose
 * page it is, whoever brings it there. At the limit a task finds the device full, if
 * nothing of its own can be reclaimed there. And whether memory.current has it, too.
 *
 * The task under test is a child in a cgroup, that does what it is told through
 * shared memory. The controls are the same child with the limit raised, the same
 * steps in ordinary memory, and a cgroup beside.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define CGROUP		"/sys/fs/cgroup"
#define TOP		"cdm_limits"
#define ONE		TOP "/one"
#define TWO		TOP "/two"
#define CAPS		"migrate,thp,reclaim,compaction,hugetlb,gup"
#define SWAP_CAPS	CAPS ",swap"
#define UNPOISON	"/sys/kernel/debug/hwpoison/unpoison-pfn"
#define CORRUPT		"/sys/kernel/debug/hwpoison/corrupt-pfn"
#define SEED		0x11a0000UL

#ifndef __NR_set_mempolicy_home_node
#define __NR_set_mempolicy_home_node 450
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

#define NR		((size_t)256)		/* a portion */
#define LIMIT_NR	((size_t)640)		/* of a limit; a huge page, and some */
#define OVER		(LIMIT_NR + NR)

/* What the child does, and what it has found */
struct worker {
	const char *group;
	void (*work)(struct worker *w);
	unsigned int told, done;
	int nid, ram;
	pid_t other;		/* a worker, whose memory is at addr */
	char *addr;		/* of what it has */
	size_t nr;		/* pages it is to take */
	size_t got;		/* that it could */
	size_t there, in_ram;	/* where they are */
	long ret;
	size_t failed;		/* pages of a move, by their status */
	bool intact;
};

FIXTURE(limits)
{
	int nid;
	int ram;
	struct worker *w[2];
	pid_t pid[2];
};

static const char *file_of(const char *group, const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), CGROUP "/%s/%s", group, name);
	return path;
}

/* Bytes; -1 if there is no such line */
static long long dmem(int nid, const char *group, const char *name)
{
	char region[32];

	snprintf(region, sizeof(region), "cdm/node%d", nid);
	return file_field(file_of(group, name), region);
}

static int dmem_set(int nid, const char *group, const char *name, size_t nr)
{
	char text[64];

	snprintf(text, sizeof(text), "cdm/node%d %zu", nid, nr * PAGE_SIZE);
	return file_write(file_of(group, name), text);
}

static int dmem_no_max(int nid, const char *group)
{
	char text[64];

	snprintf(text, sizeof(text), "cdm/node%d max", nid);
	return file_write(file_of(group, "dmem.max"), text);
}

/* Pages that CPUs are about to put on lists are freed when they do. */
static bool settles(int nid, const char *group, size_t nr)
{
	long long now = -1;
	bool met;

	met = wait_for((drain_lru(), now = dmem(nid, group, "dmem.current")) ==
		       (long long)(nr * PAGE_SIZE));
	if (!met)
		ksft_print_msg("%s: %lld bytes, not %zu\n", group, now, nr * PAGE_SIZE);
	return met;
}

#define EXPECT_PAGES(group, nr)	EXPECT_TRUE(settles(self->nid, group, nr))

/* For counters that CPUs and tables of pages have a share in */
#define EXPECT_NEAR(expected, seen, tolerance)				\
do {									\
	long long _expected = (expected), _seen = (seen);		\
	EXPECT_TRUE(llabs(_expected - _seen) < (tolerance)) {		\
		TH_LOG("%lld, not %lld", _seen, _expected);		\
	}								\
} while (0)

/* As many as are in use on the device, whatever they are: the judge is kpageflags. */
static bool agrees(int nid)
{
	struct node_use use = { .used = 0 };
	long long now = -1;
	bool met;

	met = wait_for((drain_lru(), !device_use(&use)) &&
		       (now = dmem(nid, "", "dmem.current")) ==
		       (long long)(use.used * PAGE_SIZE));
	if (!met)
		ksft_print_msg("%lld bytes, and %zu pages are used\n", now, use.used);
	return met;
}

static sigjmp_buf bus;
static bool touching;
static size_t touched;

static void on_bus(int sig)
{
	/* Nothing else is to find the device full. */
	if (!READ_ONCE(touching))
		_exit(sig);
	siglongjmp(bus, 1);
}

/* Touches pages one by one, up to the first that is not to be had */
static size_t touch(char *addr, size_t nr)
{
	size_t i;

	if (sigsetjmp(bus, 1)) {
		WRITE_ONCE(touching, false);
		return READ_ONCE(touched);
	}
	WRITE_ONCE(touching, true);
	for (i = 0; i < nr; i++) {
		WRITE_ONCE(touched, i);
		fill_page(addr + i * PAGE_SIZE, SEED + i);
	}
	WRITE_ONCE(touching, false);
	return nr;
}

static void look(struct worker *w)
{
	w->there = pages_on(w->addr, w->nr, PAGE_SIZE, w->nid);
	w->in_ram = pages_on(w->addr, w->nr, PAGE_SIZE, w->ram);
	w->intact = pages_intact(w->addr, w->got, PAGE_SIZE, SEED) == w->got;
}

/* As look(), but touches nothing */
static void where(struct worker *w)
{
	w->there = pages_on(w->addr, w->nr, PAGE_SIZE, w->nid);
}

static int work(void *arg)
{
	struct sigaction sa = { .sa_handler = on_bus };
	struct worker *w = arg;

	sigaction(SIGBUS, &sa, NULL);
	if (file_write(file_of(w->group, "cgroup.procs"), "0"))
		return 1;
	if (run_on_node(w->ram))
		return 2;
	for (;;) {
		while (__atomic_load_n(&w->told, __ATOMIC_ACQUIRE) == w->done)
			usleep(1000);
		w->work(w);
		__atomic_store_n(&w->done, w->done + 1, __ATOMIC_RELEASE);
	}
}

static bool tell(struct worker *w, void (*what)(struct worker *w))
{
	w->work = what;
	__atomic_store_n(&w->told, w->told + 1, __ATOMIC_RELEASE);
	return wait_for(__atomic_load_n(&w->done, __ATOMIC_ACQUIRE) == w->told);
}

#define TELL(what)	ASSERT_TRUE(tell(w, what))

static const char *node_file(int nid, const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/%s", nid, name);
	return path;
}

/* A page on a CPU's list of those that are about to be on an LRU is in use. */
static int set_memcg(int nid, const char *how)
{
	int ret;

	wait_for((drain_lru(), ret = file_write(node_file(nid, "cdm_memcg"), how)) != -EBUSY);
	return ret;
}

/* Pages */
static long long memcg_current(const char *group)
{
	return file_number(file_of(group, "memory.current")) / (long long)PAGE_SIZE;
}

static int memcg_bytes(const char *group, const char *name, size_t nr)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", nr * PAGE_SIZE);
	return file_write(file_of(group, name), text);
}

static void remove_groups(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(CGROUP "/" TOP);
	if (!dir)
		return;
	file_write(file_of(TOP, "cgroup.kill"), "1");
	while ((entry = readdir(dir)))
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			wait_for(!unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR));
	closedir(dir);
	wait_for(!rmdir(CGROUP "/" TOP));
}

FIXTURE_SETUP(limits)
{
	static const char *const groups[] = { ONE, TWO };
	int i;

	self->pid[0] = 0;
	self->pid[1] = 0;
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "madvise"));
	ASSERT_EQ(0, setting(THP_SYSFS "/khugepaged/defrag", "0"));
	remove_groups();
	self->nid = cdm_node_up(CAPS);
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, set_memcg(self->nid, "counted"));

	ASSERT_EQ(0, file_write(CGROUP "/cgroup.subtree_control", "+memory +dmem"));
	ASSERT_EQ(0, mkdir(CGROUP "/" TOP, 0755));
	ASSERT_EQ(0, file_write(file_of(TOP, "cgroup.subtree_control"), "+memory +dmem"));
	for (i = 0; i < 2; i++) {
		struct worker *w = shared_page();

		ASSERT_NE(NULL, w);
		ASSERT_EQ(0, mkdir(file_of(groups[i], ""), 0755));
		w->group = groups[i];
		w->nid = self->nid;
		w->ram = self->ram;
		w->nr = NR;
		self->w[i] = w;
		self->pid[i] = spawn(work, w);
		ASSERT_LT(0, self->pid[i]);
	}
}

FIXTURE_TEARDOWN_PARENT(limits)
{
	file_write("/sys/bus/pci/rescan", "1");
	cdm_find_devices();
	kill_and_reap(self->pid[0]);
	kill_and_reap(self->pid[1]);
	pool_set(self->nid, "0");
	remove_groups();
	/* It is kept for the device, also for the programs to come. */
	file_write(node_file(self->nid, "reclaim"), "64M");
	set_memcg(self->nid, "counted");
	file_write(CGROUP "/cgroup.subtree_control", "-dmem");
	settings_restore();
}

/* Steps of the child. What it has is at addr. */

static void take(struct worker *w)
{
	w->addr = map_pages_on(w->nr, w->nid);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static void take_more(struct worker *w)
{
	w->got += touch(w->addr + w->got * PAGE_SIZE, w->nr - w->got);
	w->there = pages_on(w->addr, w->nr, PAGE_SIZE, w->nid);
}

static void take_in_ram(struct worker *w)
{
	w->addr = map_pages(w->nr);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static void take_preferred(struct worker *w)
{
	w->addr = map_pages(w->nr);
	w->ret = bind_pages(w->addr, w->nr, MPOL_PREFERRED, NODE_BIT(w->nid), 0);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static void take_either(struct worker *w)
{
	w->addr = map_pages(w->nr);
	w->ret = bind_pages(w->addr, w->nr, MPOL_BIND,
			    NODE_BIT(w->nid) | NODE_BIT(w->ram), 0);
	w->ret = w->ret ?: syscall(__NR_set_mempolicy_home_node, w->addr,
				   w->nr * PAGE_SIZE, w->nid, 0);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static void take_huge(struct worker *w)
{
	w->addr = map_huge_range(1);
	w->ret = madvise(w->addr, HUGE, MADV_HUGEPAGE) ?:
		 bind_pages(w->addr, HUGE_NR, MPOL_BIND, NODE_BIT(w->nid), 0);
	w->nr = HUGE_NR;
	w->got = touch(w->addr, w->nr);
	look(w);
	w->ret = w->ret ?: (long)pages_in_folios(w->addr, HUGE_NR, 2048) - (long)HUGE_NR;
}

static void take_shmem(struct worker *w)
{
	w->addr = mmap(NULL, w->nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	w->ret = bind_pages(w->addr, w->nr, MPOL_BIND, NODE_BIT(w->nid), 0);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static int file = -1;

static void take_file(struct worker *w)
{
	file = memfd_create("limits", 0);
	w->ret = ftruncate(file, w->nr * PAGE_SIZE);
	w->addr = mmap(NULL, w->nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	w->ret = w->ret ?: bind_pages(w->addr, w->nr, MPOL_BIND, NODE_BIT(w->nid), 0);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static void truncate_file(struct worker *w)
{
	w->ret = ftruncate(file, 0);
}

static void take_pool(struct worker *w)
{
	w->addr = map_huge(w->nr / HUGE_NR, MAP_NORESERVE);
	w->ret = bind_pages(w->addr, w->nr, MPOL_BIND, NODE_BIT(w->nid), 0);
	w->got = touch(w->addr, w->nr);
	look(w);
}

static void take_pool_preferred(struct worker *w)
{
	w->addr = map_huge(w->nr / HUGE_NR, 0);
	w->ret = bind_pages(w->addr, w->nr, MPOL_PREFERRED, NODE_BIT(w->nid), 0);
	w->got = touch(w->addr, w->nr);
	look(w);
}

/* Something else at addr from now on */
static char *kept;

static void keep(struct worker *w)
{
	kept = w->addr;
}

static void give_kept(struct worker *w)
{
	w->ret = munmap(kept, w->nr * PAGE_SIZE);
}

static void give(struct worker *w)
{
	w->ret = munmap(w->addr, w->nr * PAGE_SIZE);
}

/* Every other page, or the second half of a huge page */
static void give_every_other(struct worker *w)
{
	size_t i;

	for (i = 0; i < w->nr; i += 2)
		w->ret |= madvise(w->addr + i * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED);
}

static void give_half(struct worker *w)
{
	w->ret = madvise(w->addr + w->nr / 2 * PAGE_SIZE, w->nr / 2 * PAGE_SIZE,
			 MADV_DONTNEED);
}

static void move(struct worker *w, int nid)
{
	int *status = calloc(w->nr, sizeof(*status));

	w->ret = move_to(w->addr, w->nr, PAGE_SIZE, nid, status);
	w->failed = count_status(status, w->nr, -ENOMEM);
	free(status);
	look(w);
}

static void move_in(struct worker *w)
{
	move(w, w->nid);
}

static void move_out(struct worker *w)
{
	move(w, w->ram);
}

static void bind_and_move(struct worker *w)
{
	w->ret = bind_pages(w->addr, w->nr, MPOL_BIND, NODE_BIT(w->nid), MPOL_MF_MOVE);
	look(w);
}

static void page_out(struct worker *w)
{
	w->ret = madvise(w->addr, w->nr * PAGE_SIZE, MADV_PAGEOUT);
	w->there = pages_on(w->addr, w->nr, PAGE_SIZE, w->nid);
}

static void page_in(struct worker *w)
{
	w->intact = pages_intact(w->addr, w->nr, PAGE_SIZE, SEED) == w->nr;
	w->there = pages_on(w->addr, w->nr, PAGE_SIZE, w->nid);
}

static void collapse(struct worker *w)
{
	w->ret = madvise(w->addr, HUGE, MADV_HUGEPAGE) ?:
		 madvise(w->addr, HUGE, MADV_COLLAPSE);
	w->ret = w->ret ?: (long)pages_in_folios(w->addr, HUGE_NR, 2048) - (long)HUGE_NR;
	look(w);
}

static void collapse_others(struct worker *w)
{
	struct iovec range = { .iov_base = w->addr, .iov_len = HUGE };
	int pidfd = syscall(__NR_pidfd_open, w->other, 0);

	w->ret = syscall(__NR_process_madvise, pidfd, &range, 1, MADV_COLLAPSE, 0);
	close(pidfd);
}

static void map(struct worker *w)
{
	w->addr = map_pages_on(w->nr, w->nid);
}

static void fill_others(struct worker *w)
{
	struct iovec local = { .iov_len = w->nr * PAGE_SIZE };
	struct iovec remote = { .iov_base = w->addr, .iov_len = local.iov_len };

	local.iov_base = map_pages_on(w->nr, w->ram);
	fill_pages(local.iov_base, w->nr, PAGE_SIZE, SEED);
	w->ret = process_vm_writev(w->other, &local, 1, &remote, 1, 0);
	munmap(local.iov_base, local.iov_len);
}

/* A child of the child shares the pages, and stays; then it writes to them. */
static struct worker *grandchild;
static pid_t grandchild_pid;

static int inherits(void *arg)
{
	struct worker *g = arg;

	for (;;) {
		while (__atomic_load_n(&g->told, __ATOMIC_ACQUIRE) == g->done)
			usleep(1000);
		g->got = touch(g->addr, g->nr);
		look(g);
		__atomic_store_n(&g->done, g->done + 1, __ATOMIC_RELEASE);
	}
	return 0;
}

static void fork_child(struct worker *w)
{
	grandchild = shared_page();
	*grandchild = *w;
	grandchild->told = 0;
	grandchild->done = 0;
	grandchild_pid = spawn(inherits, grandchild);
	w->ret = grandchild_pid < 0;
}

static void grandchild_writes(struct worker *w)
{
	w->ret = !tell(grandchild, NULL);
	w->there = grandchild->there;
	w->got = grandchild->got;
}

static void end_grandchild(struct worker *w)
{
	kill_and_reap(grandchild_pid);
}

/* The files are there with the node, and say what it is. */
TEST_F_TIMEOUT(limits, region, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);

	ASSERT_NE(NULL, dev);
	EXPECT_EQ((long long)dev->size, dmem(self->nid, "", "dmem.capacity"));
	EXPECT_EQ(0, dmem(self->nid, ONE, "dmem.current"));
	EXPECT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", NR));
	EXPECT_EQ((long long)(NR * PAGE_SIZE), dmem(self->nid, ONE, "dmem.max"));
	EXPECT_EQ(0, dmem_set(self->nid, ONE, "dmem.low", NR));
	EXPECT_EQ((long long)(NR * PAGE_SIZE), dmem(self->nid, ONE, "dmem.low"));
	EXPECT_EQ(0, dmem_set(self->nid, ONE, "dmem.min", NR));
	EXPECT_EQ((long long)(NR * PAGE_SIZE), dmem(self->nid, ONE, "dmem.min"));

	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(-1, dmem(self->nid, "", "dmem.capacity"));
	EXPECT_EQ(-1, dmem(self->nid, ONE, "dmem.max"));
	EXPECT_EQ(-EINVAL, dmem_set(self->nid, ONE, "dmem.max", NR));

	/* What was said about another node that had the number does not hold. */
	ASSERT_EQ(self->nid, cdm_node_up(CAPS));
	EXPECT_EQ((long long)dev->size, dmem(self->nid, "", "dmem.capacity"));
	EXPECT_EQ(0, dmem_no_max(self->nid, TWO));
}

/* Faults and what undoes them, for the cgroup, those above it and nobody else */
TEST_F_TIMEOUT(limits, counted, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	/* Control: in ordinary memory */
	TELL(take_in_ram);
	EXPECT_EQ(NR, w->in_ram);
	EXPECT_PAGES(ONE, 0);
	TELL(give);

	TELL(take);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, NR);
	EXPECT_PAGES(TOP, NR);
	EXPECT_PAGES("", NR);
	EXPECT_PAGES(TWO, 0);
	TELL(give_half);
	EXPECT_PAGES(ONE, NR / 2);
	TELL(give);
	EXPECT_PAGES(ONE, 0);

	TELL(take_huge);
	EXPECT_EQ(0, w->ret);
	EXPECT_PAGES(ONE, HUGE_NR);
	/* The folio is split, or waits for that; then it is not. */
	TELL(give_half);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
	EXPECT_PAGES("", 0);
}

/* Copy on write, in a child of the child and back */
TEST_F_TIMEOUT(limits, forked, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	TELL(take);
	TELL(fork_child);
	ASSERT_EQ(0, w->ret);
	EXPECT_PAGES(ONE, NR);
	TELL(grandchild_writes);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, 2 * NR);
	TELL(give);
	EXPECT_PAGES(ONE, NR);
	TELL(end_grandchild);
	EXPECT_PAGES(ONE, 0);

	/* At the limit it finds the device full, and the other keeps what it has. */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", NR + NR / 2));
	TELL(take);
	TELL(fork_child);
	TELL(grandchild_writes);
	EXPECT_EQ(NR / 2, w->got);
	EXPECT_PAGES(ONE, NR + NR / 2);
	TELL(end_grandchild);
	EXPECT_PAGES(ONE, NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* Moved in and out, by the task itself and by somebody in another cgroup */
TEST_F_TIMEOUT(limits, moved, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];
	void *pages[NR];
	int nodes[NR], status[NR];
	long long root;
	size_t i;

	TELL(take_in_ram);
	TELL(move_in);
	EXPECT_EQ(NR, w->there);
	EXPECT_TRUE(w->intact);
	EXPECT_PAGES(ONE, NR);
	TELL(move_out);
	EXPECT_EQ(NR, w->in_ram);
	EXPECT_PAGES(ONE, 0);
	TELL(bind_and_move);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, NR);
	TELL(move_out);
	EXPECT_PAGES(ONE, 0);

	root = dmem(self->nid, "", "dmem.current");
	for (i = 0; i < NR; i++) {
		pages[i] = w->addr + i * PAGE_SIZE;
		nodes[i] = self->nid;
	}
	EXPECT_EQ(0, move_pages(self->pid[0], NR, pages, nodes, status, MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, count_status(status, NR, self->nid));
	EXPECT_PAGES(ONE, NR);
	EXPECT_EQ(root + (long long)(NR * PAGE_SIZE), dmem(self->nid, "", "dmem.current"));
	TELL(move_out);
	EXPECT_PAGES(ONE, 0);

	/* By who moves without a limit: it is that of the pages that counts. */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", NR / 2));
	EXPECT_NE(0, move_pages(self->pid[0], NR, pages, nodes, status, MPOL_MF_MOVE_ALL));
	EXPECT_PAGES(ONE, NR / 2);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* To swap and back */
TEST_F_TIMEOUT(limits, swapped, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(SWAP_CAPS));
	TELL(take);
	EXPECT_TRUE(agrees(self->nid));
	TELL(page_out);
	EXPECT_EQ(0, w->there);
	/* What has been written to a disk may be there still, in the swap cache. */
	EXPECT_TRUE(agrees(self->nid));
	TELL(page_in);
	EXPECT_TRUE(w->intact);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, NR);
	EXPECT_TRUE(agrees(self->nid));
	TELL(page_out);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* Base pages become a huge one */
TEST_F_TIMEOUT(limits, collapsed, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	w->nr = HUGE_NR;
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "never"));
	TELL(take_huge);
	EXPECT_EQ(HUGE_NR, w->there);
	EXPECT_PAGES(ONE, HUGE_NR);
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "madvise"));
	TELL(collapse);
	EXPECT_EQ(0, w->ret);
	EXPECT_TRUE(w->intact);
	EXPECT_PAGES(ONE, HUGE_NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* Who works in another's address space has the owner pay, and be within his limit. */
TEST_F_TIMEOUT(limits, for_another, CDM_TIMEOUT)
{
	struct worker *owner = self->w[0], *w = self->w[1];

	owner->nr = HUGE_NR;
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "never"));
	ASSERT_TRUE(tell(owner, take_huge));
	EXPECT_EQ(HUGE_NR, owner->there);
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "madvise"));
	w->other = self->pid[0];
	w->addr = owner->addr;

	/* Both are there for a moment: not within his limit, whatever the other's is */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	TELL(collapse_others);
	EXPECT_EQ(-1, w->ret);
	ASSERT_EQ(0, dmem_no_max(self->nid, ONE));
	/* Control: it is his limit, and not the other's. */
	ASSERT_EQ(0, dmem_set(self->nid, TWO, "dmem.max", 0));
	TELL(collapse_others);
	EXPECT_EQ((long)HUGE, w->ret);
	EXPECT_PAGES(ONE, HUGE_NR);
	EXPECT_PAGES(TWO, 0);
	ASSERT_TRUE(tell(owner, look));
	EXPECT_TRUE(owner->intact);
	EXPECT_EQ(HUGE_NR, owner->there);
	ASSERT_TRUE(tell(owner, give));
	EXPECT_PAGES(ONE, 0);

	owner->nr = NR;
	ASSERT_TRUE(tell(owner, map));
	w->addr = owner->addr;
	w->nr = NR;
	TELL(fill_others);
	EXPECT_EQ((long)(NR * PAGE_SIZE), w->ret);
	EXPECT_PAGES(ONE, NR);
	EXPECT_PAGES(TWO, 0);
	owner->got = NR;
	ASSERT_TRUE(tell(owner, look));
	EXPECT_TRUE(owner->intact);
	EXPECT_EQ(NR, owner->there);
	ASSERT_EQ(0, dmem_no_max(self->nid, TWO));
	ASSERT_TRUE(tell(owner, give));
	EXPECT_PAGES(ONE, 0);
}

/* Files of tmpfs: mapped, truncated */
TEST_F_TIMEOUT(limits, shmem, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	TELL(take_file);
	EXPECT_EQ(0, w->ret);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, NR);
	TELL(truncate_file);
	EXPECT_PAGES(ONE, 0);

	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	w->nr = OVER;
	TELL(take_shmem);
	EXPECT_EQ(LIMIT_NR, w->got);
	EXPECT_EQ(LIMIT_NR, w->there);
	EXPECT_PAGES(ONE, LIMIT_NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* Huge pages of the device's pool, while somebody has them */
TEST_F_TIMEOUT(limits, hugetlb, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	ASSERT_EQ(0, pool_set(self->nid, "3"));
	ASSERT_EQ(3, pool_size(self->nid));
	EXPECT_PAGES("", 0);

	w->nr = 3 * HUGE_NR;
	TELL(take_pool);
	EXPECT_EQ(3 * HUGE_NR, w->there);
	EXPECT_PAGES(ONE, 3 * HUGE_NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);

	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", 2 * HUGE_NR));
	TELL(take_pool);
	EXPECT_EQ(2 * HUGE_NR, w->got);
	EXPECT_PAGES(ONE, 2 * HUGE_NR);
	TELL(give);
	TELL(take_pool_preferred);
	EXPECT_EQ(0, w->ret);
	EXPECT_EQ(3 * HUGE_NR, w->got);
	EXPECT_EQ(2 * HUGE_NR, w->there);
	EXPECT_PAGES(ONE, 2 * HUGE_NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* At the limit the device is full for the task, and for nobody else. */
TEST_F_TIMEOUT(limits, max, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];
	long long killed = vm_event("oom_kill");
	int log = log_open();
	char text[64];

	ASSERT_LE(0, log);
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	w->nr = OVER;
	TELL(take);
	snprintf(text, sizeof(text), "[%d]: no page within dmem.max of node %d,",
		 self->pid[0], self->nid);
	EXPECT_TRUE(log_has(log, text));
	close(log);
	EXPECT_EQ(LIMIT_NR, w->got);
	EXPECT_EQ(LIMIT_NR, w->there);
	EXPECT_EQ(0, w->in_ram);
	EXPECT_TRUE(w->intact);
	EXPECT_PAGES(ONE, LIMIT_NR);

	/* Somebody else, meanwhile */
	self->w[1]->nr = OVER;
	ASSERT_TRUE(tell(self->w[1], take));
	EXPECT_EQ(OVER, self->w[1]->there);
	EXPECT_PAGES(TWO, OVER);

	/* Raised */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", OVER));
	TELL(take_more);
	EXPECT_EQ(OVER, w->there);
	TELL(give);

	/* Huge pages, and base pages where there is no room for one */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	TELL(take_huge);
	EXPECT_EQ(0, w->ret);
	TELL(give);
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", HUGE_NR - 1));
	TELL(take_huge);
	EXPECT_NE(0, w->ret);
	EXPECT_EQ(HUGE_NR - 1, w->got);
	EXPECT_EQ(HUGE_NR - 1, w->there);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
	EXPECT_EQ(killed, vm_event("oom_kill"));
}

/* A move is refused as to a full node, and a preference finds another one. */
TEST_F_TIMEOUT(limits, falls_back, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	w->nr = OVER;
	TELL(take_preferred);
	EXPECT_EQ(0, w->ret);
	EXPECT_EQ(OVER, w->got);
	EXPECT_EQ(LIMIT_NR, w->there);
	EXPECT_PAGES(ONE, LIMIT_NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);

	/* Bound to both: the other one has room */
	TELL(take_either);
	EXPECT_EQ(0, w->ret);
	EXPECT_EQ(OVER, w->got);
	EXPECT_EQ(LIMIT_NR, w->there);
	EXPECT_EQ(NR, w->in_ram);
	TELL(give);
	EXPECT_PAGES(ONE, 0);

	TELL(take_in_ram);
	TELL(move_in);
	EXPECT_NE(0, w->ret);
	EXPECT_EQ(LIMIT_NR, w->there);
	EXPECT_EQ(OVER, w->got);
	EXPECT_TRUE(w->intact);
	EXPECT_PAGES(ONE, LIMIT_NR);
	/* Control */
	ASSERT_EQ(0, dmem_no_max(self->nid, ONE));
	TELL(move_in);
	EXPECT_EQ(0, w->ret);
	EXPECT_EQ(OVER, w->there);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
}

/* What is above limits all below together. */
TEST_F_TIMEOUT(limits, hierarchy, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	ASSERT_EQ(0, dmem_set(self->nid, TOP, "dmem.max", LIMIT_NR));
	TELL(take);
	EXPECT_EQ(NR, w->there);
	self->w[1]->nr = LIMIT_NR;
	ASSERT_TRUE(tell(self->w[1], take));
	EXPECT_EQ(LIMIT_NR - NR, self->w[1]->got);
	EXPECT_PAGES(ONE, NR);
	EXPECT_PAGES(TWO, LIMIT_NR - NR);
	EXPECT_PAGES(TOP, LIMIT_NR);
	/* What one gives, the other gets. */
	TELL(give);
	EXPECT_PAGES(TOP, LIMIT_NR - NR);
	ASSERT_TRUE(tell(self->w[1], take_more));
	EXPECT_EQ(LIMIT_NR, self->w[1]->got);
	ASSERT_TRUE(tell(self->w[1], give));
	EXPECT_PAGES(TOP, 0);
}

static void fill_shared(struct worker *w)
{
	w->got = touch(w->addr, w->nr);
	look(w);
}

/* Pages outlive their cgroup, and count above it until they go. */
TEST_F_TIMEOUT(limits, removed_group, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];
	char *shared;

	shared = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, bind_pages(shared, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	/* It is told where; the mapping came with a fork of its own. */
	kill_and_reap(self->pid[0]);
	w->told = 0;
	w->done = 0;
	w->addr = shared;
	self->pid[0] = spawn(work, w);
	TELL(fill_shared);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, NR);

	kill_and_reap(self->pid[0]);
	self->pid[0] = 0;
	ASSERT_TRUE(wait_for(!rmdir(CGROUP "/" ONE)));
	EXPECT_PAGES(TOP, NR);
	EXPECT_PAGES("", NR);
	/* A limit above counts them. */
	ASSERT_EQ(0, dmem_set(self->nid, TOP, "dmem.max", NR + 1));
	ASSERT_TRUE(tell(self->w[1], take));
	EXPECT_EQ(1, self->w[1]->got);
	ASSERT_TRUE(tell(self->w[1], give));
	EXPECT_PAGES(TOP, NR);
	munmap(shared, NR * PAGE_SIZE);
	EXPECT_PAGES(TOP, 0);
	EXPECT_PAGES("", 0);
}

/* The device leaves, and what was on it is ordinary memory. */
TEST_F_TIMEOUT(limits, unbound, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	TELL(take);
	EXPECT_PAGES(ONE, NR);
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(-1, dmem(self->nid, ONE, "dmem.current"));
	TELL(look);
	EXPECT_TRUE(w->intact);
	EXPECT_EQ(0, w->there);

	ASSERT_EQ(self->nid, cdm_node_up(CAPS));
	EXPECT_PAGES(ONE, 0);
	TELL(move_in);
	EXPECT_EQ(NR, w->there);
	EXPECT_PAGES(ONE, NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
	EXPECT_PAGES("", 0);
}

static int pipes[2] = { -1, -1 };

static void hold(struct worker *w)
{
	struct iovec iov = { w->addr, w->nr * PAGE_SIZE };

	w->ret = vmsplice(pipes[1], &iov, 1, 0) - (long)iov.iov_len;
}

static long long dying(const char *group)
{
	return file_field(file_of(group, "cgroup.stat"), "nr_dying_subsys_dmem");
}

/*
 * The device goes, or is torn out. What something refers to yet counts until that
 * lets go, and then neither the pages nor the region keeps the cgroup.
 */
TEST_F_TIMEOUT(limits, lost, CDM_TIMEOUT)
{
	const size_t nr_held = 4 + HUGE_NR;
	char name[32], path[PATH_MAX];
	int i;

	ASSERT_EQ(0, load_module("cdm_test", ""));
	snprintf(name, sizeof(name), "%s", cdm_device(0)->name);
	for (i = 0; i < 2; i++) {
		struct worker *w = self->w[i];

		ASSERT_EQ(0, pool_set(self->nid, "1"));
		ASSERT_EQ(0, pipe(pipes));
		/* The other end is here. */
		kill_and_reap(self->pid[i]);
		w->told = 0;
		w->done = 0;
		self->pid[i] = spawn(work, w);
		TELL(take);
		EXPECT_EQ(NR, w->there);
		w->nr = HUGE_NR;
		TELL(take_pool);
		EXPECT_EQ(HUGE_NR, w->there);
		w->nr = 1;
		TELL(hold);
		EXPECT_EQ(0, w->ret);
		w->nr = 4;
		TELL(take);
		TELL(hold);
		EXPECT_EQ(0, w->ret);
		EXPECT_PAGES(w->group, NR + nr_held);

		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", name);
		EXPECT_EQ(0, i ? cdm_call("tear_out", "%s", name) : file_write(path, "1"));
		EXPECT_TRUE(cdm_node_is_lost(self->nid));
		EXPECT_PAGES(w->group, nr_held);
		kill_and_reap(self->pid[i]);
		self->pid[i] = 0;
		EXPECT_PAGES(w->group, nr_held);
		ASSERT_TRUE(wait_for(!rmdir(file_of(w->group, ""))));
		EXPECT_PAGES(TOP, nr_held);
		/* Control: these pages keep it, and that can be seen. */
		EXPECT_TRUE(wait_for(dying(TOP) == 1));

		close(pipes[0]);
		close(pipes[1]);
		/* The region goes last. */
		EXPECT_TRUE(wait_for(dmem(self->nid, "", "dmem.current") == -1));
		EXPECT_EQ(-1, dmem(self->nid, TOP, "dmem.current"));
		EXPECT_TRUE(wait_for(!dying(TOP)));

		ASSERT_EQ(0, file_write("/sys/bus/pci/rescan", "1"));
		cdm_find_devices();
		ASSERT_NE(NULL, cdm_device(0));
		EXPECT_TRUE(wait_for(cdm_node_up(CAPS) == self->nid));
		EXPECT_PAGES("", 0);
		EXPECT_PAGES(TOP, 0);
	}
	EXPECT_EQ(0, unload_module("cdm_test"));
}

/* A task that is killed gives back all it has. */
TEST_F_TIMEOUT(limits, killed, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	TELL(take);
	TELL(take_huge);
	w->nr = NR;
	TELL(take_shmem);
	EXPECT_PAGES(ONE, 2 * NR + HUGE_NR);
	kill_and_reap(self->pid[0]);
	self->pid[0] = 0;
	EXPECT_PAGES(ONE, 0);
	EXPECT_PAGES("", 0);
}

/* A page that breaks is nobody's any more, mapped or not. */
TEST_F_TIMEOUT(limits, poisoned, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];
	unsigned long pfn;
	char *shared, text[32];

	shared = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, bind_pages(shared, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	ASSERT_EQ(NR, touch(shared, NR));
	EXPECT_PAGES("", NR);
	pfn = page_pfn(shared);
	ASSERT_NE(0, pfn);
	snprintf(text, sizeof(text), "%#lx", pfn);
	ASSERT_EQ(0, file_write(CORRUPT, text));
	EXPECT_PAGES("", NR - 1);
	munmap(shared, NR * PAGE_SIZE);
	EXPECT_PAGES("", 0);
	EXPECT_EQ(0, file_write(UNPOISON, text));
	/* It can be had again, and counts. */
	TELL(take);
	EXPECT_PAGES(ONE, NR);
	TELL(give);
	EXPECT_PAGES(ONE, 0);
	EXPECT_PAGES("", 0);
}

/* Compaction takes free pages past the allocator. */
TEST_F_TIMEOUT(limits, compacted, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];
	long long moved = vm_event("compact_migrate_scanned");
	char path[128];

	w->nr = 4096;
	TELL(take);
	EXPECT_EQ(w->nr, w->there);
	TELL(give_every_other);
	EXPECT_PAGES(ONE, w->nr / 2);
	/* Nor does the limit keep pages from being moved about. */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", w->nr / 2));
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/compact", self->nid);
	ASSERT_EQ(0, file_write(path, "1"));
	EXPECT_LT(moved, vm_event("compact_migrate_scanned"));
	EXPECT_PAGES(ONE, w->nr / 2);
	EXPECT_TRUE(agrees(self->nid));
	TELL(give);
	EXPECT_PAGES(ONE, 0);
	EXPECT_PAGES("", 0);
}

/* Much of all that at a time, at a limit that is hit over and over */
static void stir(struct worker *w)
{
	unsigned int seed = getpid();
	size_t nr = w->nr;
	int i;

	for (i = 0; i < 30; i++) {
		w->nr = nr;
		switch (rand_r(&seed) % 4) {
		case 0:
			take(w);
			break;
		case 1:
			take_in_ram(w);
			move_in(w);
			break;
		case 2:
			take_huge(w);
			break;
		case 3:
			take_shmem(w);
			break;
		}
		switch (rand_r(&seed) % 4) {
		case 0:
			move_out(w);
			break;
		case 1:
			give_half(w);
			break;
		case 2:
			page_out(w);
			break;
		}
		give(w);
	}
	w->nr = nr;
}

TEST_F_TIMEOUT(limits, stirred, CDM_TIMEOUT)
{
	int i;

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(SWAP_CAPS));
	ASSERT_EQ(0, dmem_set(self->nid, TOP, "dmem.max", LIMIT_NR));
	for (i = 0; i < 2; i++) {
		self->w[i]->work = stir;
		__atomic_store_n(&self->w[i]->told, self->w[i]->told + 1, __ATOMIC_RELEASE);
	}
	for (i = 0; i < 2; i++)
		EXPECT_TRUE(wait_for(__atomic_load_n(&self->w[i]->done, __ATOMIC_ACQUIRE) ==
				     self->w[i]->told));
	/* What the other was reclaiming when it was given is in the swap cache yet. */
	file_write(node_file(self->nid, "reclaim"), "64M");
	EXPECT_PAGES(ONE, 0);
	EXPECT_PAGES(TWO, 0);
	EXPECT_PAGES("", 0);
	/* And all of the limit can be had. */
	self->w[0]->nr = OVER;
	ASSERT_TRUE(tell(self->w[0], take));
	EXPECT_EQ(OVER, self->w[0]->got);
	EXPECT_TRUE(self->w[0]->intact);
	EXPECT_GE((long long)(LIMIT_NR * PAGE_SIZE), dmem(self->nid, TOP, "dmem.current"));
	EXPECT_TRUE(agrees(self->nid));
}

/* At the limit a task takes the room from its own cgroup, by reclaim. */
TEST_F_TIMEOUT(limits, reclaimed, CDM_TIMEOUT)
{
	long long killed = vm_event("oom_kill");
	struct worker *w = self->w[0];

	/* Control: what may not be swapped stays, and there is no room */
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	w->nr = OVER;
	TELL(take);
	EXPECT_EQ(LIMIT_NR, w->got);
	TELL(give);

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(SWAP_CAPS));
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", LIMIT_NR));
	self->w[1]->nr = OVER;
	ASSERT_TRUE(tell(self->w[1], take));
	ASSERT_EQ(OVER, self->w[1]->there);

	TELL(take);
	EXPECT_EQ(OVER, w->got);
	EXPECT_GE(LIMIT_NR, w->there);
	EXPECT_LE(LIMIT_NR / 2, w->there);
	EXPECT_EQ(0, w->in_ram);
	EXPECT_GE((long long)(LIMIT_NR * PAGE_SIZE), dmem(self->nid, ONE, "dmem.current"));
	/* The others keep theirs. */
	ASSERT_TRUE(tell(self->w[1], look));
	EXPECT_EQ(OVER, self->w[1]->there);
	TELL(give);
	EXPECT_PAGES(ONE, 0);

	/* A limit above both: what the other one has is taken, too. */
	ASSERT_EQ(0, dmem_no_max(self->nid, ONE));
	ASSERT_EQ(0, dmem_set(self->nid, TOP, "dmem.max", OVER));
	TELL(take);
	EXPECT_EQ(OVER, w->got);
	EXPECT_LT(0, w->there);
	ASSERT_TRUE(tell(self->w[1], look));
	EXPECT_GT(OVER, self->w[1]->there);
	EXPECT_TRUE(self->w[1]->intact);
	EXPECT_GE((long long)(OVER * PAGE_SIZE), dmem(self->nid, TOP, "dmem.current"));

	/* dmem.low is no reason to fail. */
	TELL(give);
	ASSERT_TRUE(tell(self->w[1], give));
	ASSERT_TRUE(tell(self->w[1], take));
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.low", OVER));
	ASSERT_EQ(0, dmem_set(self->nid, TWO, "dmem.low", OVER));
	TELL(take);
	EXPECT_EQ(OVER, w->got);
	EXPECT_EQ(killed, vm_event("oom_kill"));
}

/* A limit that is lowered: what is above it goes to RAM, if it may. */
TEST_F_TIMEOUT(limits, lowered, CDM_TIMEOUT)
{
	struct worker *w = self->w[0];

	w->nr = OVER;
	TELL(take);
	ASSERT_TRUE(tell(self->w[1], take));
	EXPECT_PAGES(ONE, OVER);
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", NR));
	EXPECT_GE((long long)(NR * PAGE_SIZE), dmem(self->nid, ONE, "dmem.current"));
	TELL(look);
	EXPECT_EQ(OVER, w->there + w->in_ram);
	EXPECT_GE(NR, w->there);
	EXPECT_TRUE(w->intact);
	ASSERT_TRUE(tell(self->w[1], look));
	EXPECT_EQ(NR, self->w[1]->there);
	TELL(give);

	/* By a limit above, those of both */
	TELL(take_huge);
	ASSERT_EQ(0, dmem_set(self->nid, TOP, "dmem.max", 0));
	EXPECT_PAGES(TOP, 0);
	ASSERT_TRUE(tell(self->w[1], look));
	EXPECT_EQ(NR, self->w[1]->in_ram);
	EXPECT_TRUE(self->w[1]->intact);
	TELL(give);

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("thp,reclaim,gup"));
	w->nr = OVER;
	TELL(take);
	ASSERT_EQ(0, dmem_set(self->nid, ONE, "dmem.max", NR));
	EXPECT_PAGES(ONE, OVER);
	TELL(look);
	EXPECT_EQ(OVER, w->there);
	TELL(give);
	TELL(take);
	EXPECT_EQ(NR, w->got);
}

/* Who takes too much from the node gives first: dmem.min and low */
static void protect(struct __test_metadata *_metadata, int nid, struct worker **w,
		    const char *name, bool is_hard)
{
	const size_t nr = 4096;
	struct worker *loser;
	char bytes[32];
	int i;

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(nid, cdm_node_up(SWAP_CAPS));
	if (name) {
		/* No more than that: what nobody claims protects the other one. */
		ASSERT_EQ(0, dmem_set(nid, TOP, name, nr));
		ASSERT_EQ(0, dmem_set(nid, ONE, name, nr));
	}
	for (i = 0; i < 2; i++) {
		w[i]->nr = nr;
		ASSERT_TRUE(tell(w[i], take));
		ASSERT_EQ(nr, w[i]->there);
	}
	drain_lru();
	/* What is young now is old then. */
	snprintf(bytes, sizeof(bytes), "%zu", nr / 2 * PAGE_SIZE);
	loser = w[name ? 1 : 0];
	for (i = 0; i < 10 && loser->there == nr; i++) {
		file_write(node_file(nid, "reclaim"), bytes);
		ASSERT_TRUE(tell(loser, where));
	}
	EXPECT_GT(nr, loser->there);
	ASSERT_TRUE(tell(w[0], where));
	TH_LOG("%s: %zu of %zu are there", name ?: "control", w[0]->there, nr);
	if (name && is_hard)
		EXPECT_EQ(nr, w[0]->there);
	/* dmem.low is for as long as there is something else, which may be hard to get. */
	if (name && !is_hard)
		EXPECT_LE(loser->there, w[0]->there);
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(tell(w[i], give));
}

TEST_F_TIMEOUT(limits, protected, CDM_TIMEOUT)
{
	protect(_metadata, self->nid, self->w, NULL, false);
	protect(_metadata, self->nid, self->w, "dmem.min", true);
	protect(_metadata, self->nid, self->w, "dmem.low", false);
}

/* memory.current has the pages of the device or not, wherever they come from or go */
TEST_F_TIMEOUT(limits, memcg_counts, CDM_TIMEOUT)
{
	static const char *const how[] = { "counted", "uncounted" };
	const long long nr = 4096, some = nr / 4;
	struct worker *w = self->w[0];
	char text[64];
	size_t i;

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(SWAP_CAPS));
	for (i = 0; i < ARRAY_SIZE(how); i++) {
		const long long all = i ? 0 : nr;
		long long before;

		w->nr = nr;
		ASSERT_EQ(0, set_memcg(self->nid, how[i]));
		before = memcg_current(ONE);
		TELL(take);
		EXPECT_NEAR(before + all, memcg_current(ONE), some);
		TELL(move_out);
		EXPECT_EQ(nr, w->in_ram);
		EXPECT_NEAR(before + nr, memcg_current(ONE), some);
		TELL(move_in);
		EXPECT_EQ(nr, w->there);
		EXPECT_NEAR(before + all, memcg_current(ONE), some);
		/* While there are pages that are counted, or not, this stays. */
		EXPECT_EQ(-EBUSY, file_write(node_file(self->nid, "cdm_memcg"), how[!i]));
		TELL(page_out);
		TELL(page_in);
		EXPECT_TRUE(w->intact);
		EXPECT_NEAR(before + all, memcg_current(ONE), some);
		TELL(fork_child);
		TELL(grandchild_writes);
		EXPECT_NEAR(before + 2 * all, memcg_current(ONE), some);
		TELL(end_grandchild);
		TELL(give);
		EXPECT_NEAR(before, memcg_current(ONE), some);

		TELL(take_huge);
		EXPECT_EQ(0, w->ret);
		TELL(give);
		w->nr = nr;
		TELL(take_shmem);
		EXPECT_NEAR(before + all, memcg_current(ONE), some);
		TELL(give);
		EXPECT_NEAR(before, memcg_current(ONE), some);
		ASSERT_LT(0, file_read(node_file(self->nid, "cdm_memcg"), text, sizeof(text)));
		EXPECT_EQ(0, strncmp(text, how[i], strlen(how[i])));
	}

	/* It is the device's, and goes with it; and RAM's if the device goes. */
	TELL(take);
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(SWAP_CAPS));
	ASSERT_LT(0, file_read(node_file(self->nid, "cdm_memcg"), text, sizeof(text)));
	EXPECT_EQ(0, strncmp(text, "uncounted", 9));
	EXPECT_LT(nr - some, memcg_current(ONE));
	TELL(give);
	EXPECT_EQ(-EINVAL, file_write(node_file(self->nid, "cdm_memcg"), "all"));
}

/* What a job has on a device is its neighbour's business, or not. */
TEST_F_TIMEOUT(limits, memcg_max, CDM_TIMEOUT)
{
	const size_t nr = 8192;
	struct worker *w = self->w[0];
	long long killed;

	w->nr = nr;
	self->w[1]->nr = nr;
	ASSERT_EQ(0, set_memcg(self->nid, "uncounted"));
	ASSERT_EQ(0, memcg_bytes(TOP, "memory.max", nr + nr / 2));
	ASSERT_EQ(0, file_write(file_of(TOP, "memory.swap.max"), "0"));
	killed = vm_event("oom_kill");
	TELL(take);
	EXPECT_EQ(nr, w->there);
	ASSERT_TRUE(tell(self->w[1], take_in_ram));
	EXPECT_EQ(nr, self->w[1]->got);
	EXPECT_EQ(killed, vm_event("oom_kill"));
	/* Nor is it a way past the limit. */
	TELL(move_out);
	EXPECT_GE(nr / 2, w->in_ram);
	EXPECT_EQ(nr, w->in_ram + w->there);
	EXPECT_GE((long long)(nr + nr / 2), memcg_current(TOP));
	TELL(move_in);
	EXPECT_EQ(nr, w->there);
	/* Who runs out of RAM is killed, and not who has more on a device. */
	self->w[1]->nr = nr;
	self->w[1]->work = take_in_ram;
	__atomic_store_n(&self->w[1]->told, self->w[1]->told + 1, __ATOMIC_RELEASE);
	EXPECT_TRUE(wait_for(vm_event("oom_kill") == killed + 1));
	TELL(look);
	EXPECT_EQ(nr, w->there);
	EXPECT_TRUE(w->intact);
	TELL(give);
	kill_and_reap(self->pid[1]);

	/* Control: it is as it was */
	self->w[1]->told = 0;
	self->w[1]->done = 0;
	ASSERT_EQ(0, set_memcg(self->nid, "counted"));
	self->pid[1] = spawn(work, self->w[1]);
	TELL(take);
	self->w[1]->nr = nr;
	self->w[1]->work = take_in_ram;
	__atomic_store_n(&self->w[1]->told, 1, __ATOMIC_RELEASE);
	EXPECT_TRUE(wait_for(vm_event("oom_kill") == killed + 2));
}

/* memory.min is there for RAM, and not used up by a device. */
TEST_F_TIMEOUT(limits, memcg_min, CDM_TIMEOUT)
{
	static const char *const how[] = { "counted", "uncounted" };
	const size_t nr = 8192;
	struct worker *w = self->w[0];
	char bytes[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		ASSERT_EQ(0, set_memcg(self->nid, how[i]));
		ASSERT_EQ(0, memcg_bytes(ONE, "memory.min", nr + nr / 4));
		w->nr = nr;
		TELL(take);
		EXPECT_EQ(nr, w->there);
		TELL(keep);
		TELL(take_in_ram);
		EXPECT_EQ(nr, w->in_ram);
		drain_lru();
		snprintf(bytes, sizeof(bytes), "%zu", nr / 2 * PAGE_SIZE);
		file_write(file_of(TOP, "memory.reclaim"), bytes);
		TELL(look);
		EXPECT_EQ(i == 1, w->in_ram == nr) {
			TH_LOG("%s: %zu of %zu are in RAM", how[i], w->in_ram, nr);
		}
		TELL(give);
		TELL(give_kept);
	}
}

#define MEMBERS		100
#define ROUNDS		6
#define MEMBER_MAX	((size_t)64)	/* pages: the limit of every fourth */

/* A child in a group of its own, that takes and gives at random */
struct member {
	struct worker w;
	char group[64];
	unsigned int seed;
	size_t refused;		/* times that it did not get all it wanted */
	pid_t pid;
	int go[2];
	unsigned long inode;	/* of the group */
};

static int reports[2];

static void stray(struct member *m)
{
	static void (*const begin[])(struct worker *w) = {
		take, take, take_shmem, take_in_ram, take_huge,
	};
	static void (*const go_on[])(struct worker *w) = {
		give, give_half, give_every_other, move_in, move_out,
	};
	struct worker *w = &m->w;
	int r = rand_r(&m->seed);

	if (!w->addr) {
		w->nr = 1 + r / 8 % 192;
		begin[r % ARRAY_SIZE(begin)](w);
		m->refused += w->got < w->nr;
		return;
	}
	go_on[r % ARRAY_SIZE(go_on)](w);
	if (go_on[r % ARRAY_SIZE(go_on)] == give)
		w->addr = NULL;
}

static int be_member(void *arg)
{
	struct sigaction sa = { .sa_handler = on_bus };
	struct member *m = arg;
	char c;

	sigaction(SIGBUS, &sa, NULL);
	if (file_write(file_of(m->group, "cgroup.procs"), "0"))
		return 1;
	if (run_on_node(m->w.ram))
		return 2;
	while (read(m->go[0], &c, 1) == 1) {
		stray(m);
		if (write(reports[1], &c, 1) != 1)
			return 3;
	}
	return 0;
}

static bool join(struct member *m, int nid, int ram, bool limited)
{
	struct stat st;

	if (mkdir(file_of(m->group, ""), 0755) || stat(file_of(m->group, ""), &st))
		return false;
	if (limited && dmem_set(nid, m->group, "dmem.max", MEMBER_MAX))
		return false;
	m->inode = st.st_ino;
	m->w = (struct worker){ .nid = nid, .ram = ram };
	m->pid = spawn(be_member, m);
	return m->pid > 0;
}

static bool all_stray(struct member *members)
{
	struct pollfd poll_for = { .fd = reports[0], .events = POLLIN };
	char c = 0;
	int i;

	for (i = 0; i < MEMBERS; i++)
		if (write(members[i].go[1], &c, 1) != 1)
			return false;
	for (i = 0; i < MEMBERS; i++)
		if (poll(&poll_for, 1, CDM_WAIT * 1000) != 1 || read(reports[0], &c, 1) != 1)
			return false;
	return true;
}

/*
 * How many pages of the device each member's group has, by kpagecgroup, which goes by
 * whom memcg has charged: the judge. Returns how many others have, or < 0.
 */
static long pages_of_members(struct member *members, size_t *has)
{
	size_t nr = cdm_device(0)->size / PAGE_SIZE, i;
	unsigned long *inodes;
	int m, fd, last = 0;
	long others = 0;

	fd = open("/proc/kpagecgroup", O_RDONLY);
	inodes = malloc(nr * sizeof(*inodes));
	if (fd < 0 || !inodes ||
	    pread(fd, inodes, nr * sizeof(*inodes),
		  cdm_device(0)->start / PAGE_SIZE * sizeof(*inodes)) !=
	    (ssize_t)(nr * sizeof(*inodes)))
		others = -1;
	memset(has, 0, MEMBERS * sizeof(*has));
	for (i = 0; !others && i < nr; i++) {
		if (!inodes[i])
			continue;
		for (m = last; m < last + MEMBERS; m++)
			if (members[m % MEMBERS].inode == inodes[i])
				break;
		if (m == last + MEMBERS) {
			others++;
			continue;
		}
		last = m % MEMBERS;
		has[last]++;
	}
	free(inodes);
	close(fd);
	return others;
}

/* Returns how many pages they have if all counters say what the judge says, else < 0. */
static long members_agree(int nid, struct member *members, bool tell_why)
{
	size_t has[MEMBERS], all = 0;
	bool agreed = true;
	long others;
	int i;

	drain_lru();
	others = pages_of_members(members, has);
	for (i = 0; i < MEMBERS; i++) {
		long long now = dmem(nid, members[i].group, "dmem.current");

		all += has[i];
		if (now == (long long)(has[i] * PAGE_SIZE))
			continue;
		agreed = false;
		if (tell_why)
			ksft_print_msg("%s: %lld bytes, and %zu pages\n", members[i].group,
				       now, has[i]);
	}
	if (tell_why)
		ksft_print_msg("%zu pages, and %ld of others\n", all, others);
	if (others || dmem(nid, TOP, "dmem.current") != (long long)(all * PAGE_SIZE) ||
	    dmem(nid, "", "dmem.current") != (long long)(all * PAGE_SIZE))
		agreed = false;
	return agreed ? (long)all : -1;
}

/* The owners of all pages are added up and compared with every counter. */
TEST_F_TIMEOUT(limits, hundred_groups, CDM_TIMEOUT)
{
	size_t refused = 0;
	struct member *members;
	long all, most = 0;
	int i, round;

	members = mmap(NULL, MEMBERS * sizeof(*members), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, members);
	ASSERT_EQ(0, pipe(reports));
	srand(time(NULL));
	for (i = 0; i < MEMBERS; i++) {
		struct member *m = &members[i];

		m->seed = rand();
		snprintf(m->group, sizeof(m->group), TOP "/member%d", i);
		ASSERT_EQ(0, pipe(m->go));
		ASSERT_TRUE(join(m, self->nid, self->ram, i % 4 == 0));
	}
	for (round = 0; round < ROUNDS; round++) {
		struct member *m = &members[rand() % MEMBERS];

		ASSERT_TRUE(all_stray(members));
		all = -1;
		EXPECT_TRUE(wait_for((all = members_agree(self->nid, members, false)) >= 0)) {
			members_agree(self->nid, members, true);
			TH_LOG("round %d", round);
		}
		most = all > most ? all : most;
		for (i = 0; i < MEMBERS; i += 4)
			EXPECT_GE((long long)(MEMBER_MAX * PAGE_SIZE),
				  dmem(self->nid, members[i].group, "dmem.current"));
		/* One goes with his group, and another comes. */
		kill_and_reap(m->pid);
		EXPECT_TRUE(wait_for(!rmdir(file_of(m->group, ""))));
		ASSERT_TRUE(join(m, self->nid, self->ram, (m - members) % 4 == 0));
	}
	for (i = 0; i < MEMBERS; i++) {
		refused += members[i].refused;
		kill_and_reap(members[i].pid);
	}
	TH_LOG("at most %ld pages of all, and %zu times not all that was wanted", most, refused);
	/* Controls: there was something to agree on, and limits in the way. */
	EXPECT_LT(MEMBERS * 10, most);
	EXPECT_LT(0, refused);
	EXPECT_PAGES(TOP, 0);
	EXPECT_PAGES("", 0);
}

TEST_HARNESS_MAIN
