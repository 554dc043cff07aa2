// SPDX-License-Identifier: GPL-2.0
/*
 * The device is torn out while pages of it are in swap, or on the way there or
 * back. What is safe in a slot is read from there, and who has written to the page
 * since finds an error. swapoff(2) comes to an end, and no slot is left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"
#include "cdm_hold.h"

#define CALLS		"/sys/kernel/debug/cdm_test"
#define CAPS		"migrate,reclaim,swap,gup,thp"
#define NR		((size_t)32)
#define SEED		0x5a40000UL
#define NEWER		0x5a80000UL
#define NR_SWAPS	4

#define KPF_SWAPCACHE	KPF_BIT(13)
/* A name that the C library may be too old for */
#define PAGEOUT		21

FIXTURE(swapped)
{
	int nid;
	int ram;
	int fd;
	char *pages;
	char *huge;
	unsigned long *pfns;
	pid_t child;
	char name[32];
	char text[64];
	/* The first is a disk, and on; the others are off. */
	char swap[NR_SWAPS][64];
	int nr_swaps;
};

/* All that is swapped to, disks first */
static int find_swaps(char (*swap)[64])
{
	char line[256], name[64];
	int nr = 0, i;
	FILE *f;

	f = fopen("/proc/swaps", "r");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f) && nr < NR_SWAPS) {
		if (line[0] != '/' || sscanf(line, "%63s", name) != 1)
			continue;
		i = nr++;
		if (!strstr(name, "zram")) {
			strcpy(swap[i], swap[0]);
			i = 0;
		}
		strcpy(swap[i], name);
	}
	fclose(f);
	return nr;
}

/* Pages that are in a swap area, -1 if it is off */
static long long slots_used(const char *swap)
{
	long long kb, used = -1;
	char line[256], name[64];
	FILE *f;

	f = fopen("/proc/swaps", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %*s %*d %lld", name, &kb) == 2 &&
		    !strcmp(name, swap))
			used = kb * 1024 / PAGE_SIZE;
	fclose(f);
	return used;
}

static int swap_on(const char *swap)
{
	return swapon(swap, SWAP_FLAG_PREFER | 1) ? -errno : 0;
}

static int switch_off(void *swap)
{
	alarm(CDM_WAIT);
	return swapoff(swap) ? errno : 0;
}

/* 0, or what went wrong: -SIGALRM if it did not end */
static int swap_off(char *swap)
{
	return reap(spawn(switch_off, swap));
}

FIXTURE_SETUP(swapped)
{
	int i;

	self->fd = -1;
	self->child = 0;
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_NE(NULL, cdm_device(0));
	strcpy(self->name, cdm_device(0)->name);
	ASSERT_EQ(0, load_module("cdm_test", ""));
	self->nid = cdm_node_up(CAPS);
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "4000"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	ASSERT_EQ(0, setting(THP_SYSFS "/shmem_enabled", "advise"));

	/* A disk: it takes its time, and pages stay in the swap cache. */
	self->nr_swaps = find_swaps(self->swap);
	ASSERT_LT(0, self->nr_swaps);
	ASSERT_EQ(NULL, strstr(self->swap[0], "zram"));
	for (i = 0; i < self->nr_swaps; i++)
		ASSERT_EQ(0, swap_off(self->swap[i]));
	ASSERT_EQ(0, swap_on(self->swap[0]));
	ASSERT_EQ(0, slots_used(self->swap[0]));
}

FIXTURE_TEARDOWN_PARENT(swapped)
{
	int i;

	kill_and_reap(self->child);
	for (i = 0; i < self->nr_swaps; i++)
		if (slots_used(self->swap[i]) < 0)
			EXPECT_EQ(0, swap_on(self->swap[i]));
	file_write(CALLS "/keep", "0 none");
	settings_restore();
	file_write("/sys/bus/pci/rescan", "1");
	cdm_find_devices();
	EXPECT_NE(NULL, cdm_device(0));
	EXPECT_TRUE(wait_for(!cdm_node_is_lost(self->nid)));
	EXPECT_EQ(0, cdm_node_down());
}

/* Asks for all of them to be swapped out; true if nobody maps one any more */
static bool swap_out(char *addr, size_t nr, int nid)
{
	drain_lru();
	return !madvise(addr, nr * PAGE_SIZE, PAGEOUT) &&
	       !pages_on(addr, nr, PAGE_SIZE, nid);
}

/* Swapped out, and written */
static bool are_in_swap(char *addr, size_t nr, int nid)
{
	return wait_for(swap_out(addr, nr, nid)) &&
	       wait_for(!file_field("/proc/meminfo", "Writeback"));
}

/* Some, back on the node, are what a slot has, too. */
static bool are_read_back(char *addr, size_t nr, int nid, unsigned long seed)
{
	return pages_intact(addr, nr, PAGE_SIZE, seed) == nr &&
	       pages_on(addr, nr, PAGE_SIZE, nid) == nr &&
	       pages_with(addr, nr, PAGE_SIZE, KPF_SWAPCACHE) == nr;
}

static char *map_file_on(int fd, size_t nr, int nid)
{
	char *addr;

	if (ftruncate(fd, nr * PAGE_SIZE))
		return NULL;
	addr = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED ||
	    bind_pages(addr, nr, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	return addr;
}

/* What read(2) finds in a file */
static void judge_file(int fd, size_t first, size_t nr, unsigned long seed,
		       struct verdict *verdict)
{
	static unsigned long buf[4096 / sizeof(long)];
	size_t i;

	memset(verdict, 0, sizeof(*verdict));
	for (i = 0; i < nr; i++) {
		if (pread(fd, buf, PAGE_SIZE, (first + i) * PAGE_SIZE) !=
		    (ssize_t)PAGE_SIZE)
			verdict->error++;
		else if (page_is(buf, seed + i))
			verdict->own++;
		else
			verdict->other++;
	}
}

#define expect_own(addr, nr, seed)					\
do {									\
	struct verdict v = {};						\
	size_t own = (nr);						\
									\
	judge_pages(addr, own, PAGE_SIZE, seed, &v);			\
	EXPECT_EQ(own, v.own);						\
	EXPECT_EQ(0, v.other);						\
} while (0)

#define expect_error(addr, nr)						\
do {									\
	struct verdict v = {};						\
	size_t lost = (nr);						\
									\
	judge_pages(addr, lost, PAGE_SIZE, 0, &v);			\
	EXPECT_EQ(lost, v.error);					\
} while (0)

#define expect_file(first, nr, seed, nr_own)				\
do {									\
	size_t all = (nr), own = (nr_own);				\
	struct verdict v;						\
									\
	judge_file(self->fd, first, all, seed, &v);			\
	EXPECT_EQ(own, v.own);						\
	EXPECT_EQ(all - own, v.error);					\
	EXPECT_EQ(0, v.other);						\
} while (0)

#define expect_ends()							\
	EXPECT_TRUE(wait_for(!cdm_node_exists(self->nid)))

#define expect_swapoff()						\
do {									\
	EXPECT_LT(0, slots_used(self->swap[0]));			\
	EXPECT_EQ(0, swap_off(self->swap[0]));				\
	EXPECT_EQ(-1, slots_used(self->swap[0]));			\
} while (0)

static int has_them_too(void *arg)
{
	for (;;)
		pause();
}

/*
 * Of what was swapped out, some pages have been read again, and of these some
 * written to; beside them pages that swap has never seen, and a huge one.
 */
#define SLOT	(self->pages)
#define CLEAN	(self->pages + NR * PAGE_SIZE)
#define DIRTY	(self->pages + 2 * NR * PAGE_SIZE)
#define NEW	(self->pages + 3 * NR * PAGE_SIZE)

#define prepare_anon()							\
do {									\
	self->pages = map_pages_on(4 * NR, self->nid);			\
	ASSERT_NE(NULL, self->pages);					\
	fill_pages(self->pages, 3 * NR, PAGE_SIZE, SEED);		\
	self->huge = map_huge_range(1);					\
	ASSERT_NE(NULL, self->huge);					\
	ASSERT_EQ(0, madvise(self->huge, HUGE, MADV_HUGEPAGE));		\
	ASSERT_EQ(0, bind_pages(self->huge, HUGE_NR, MPOL_BIND,		\
				NODE_BIT(self->nid), 0));		\
	fill_pages(self->huge, HUGE_NR, PAGE_SIZE, NEWER);		\
	ASSERT_EQ(HUGE_NR, pages_with(self->huge, HUGE_NR, PAGE_SIZE, KPF_THP)); \
	ASSERT_TRUE(are_in_swap(self->pages, 3 * NR, self->nid));	\
	ASSERT_TRUE(are_in_swap(self->huge, HUGE_NR, self->nid));	\
	ASSERT_TRUE(are_read_back(CLEAN, 2 * NR, self->nid, SEED + NR)); \
	ASSERT_TRUE(are_read_back(self->huge, HUGE_NR / 2, self->nid, NEWER)); \
	fill_pages(DIRTY, 2 * NR, PAGE_SIZE, NEWER);			\
	ASSERT_EQ(NR, pages_with(DIRTY, NR, PAGE_SIZE, KPF_SWAPCACHE));	\
	ASSERT_EQ(2 * NR, pages_on(DIRTY, 2 * NR, PAGE_SIZE, self->nid)); \
	self->child = spawn(has_them_too, NULL);			\
	ASSERT_LT(0, self->child);					\
} while (0)

#define expect_anon()							\
do {									\
	unsigned long pfns[4 * NR];					\
									\
	expect_own(SLOT, 2 * NR, SEED);					\
	expect_error(DIRTY, 2 * NR);					\
	expect_own(self->huge, HUGE_NR, NEWER);				\
	EXPECT_EQ(0, pages_on(self->pages, 4 * NR, PAGE_SIZE, self->nid)); \
	/* Who looks at the page tables does not stumble. */		\
	EXPECT_EQ(0, pages_pfns(self->pages, 4 * NR, PAGE_SIZE, pfns));	\
} while (0)

/* The last who has a page that is lost and in the swap cache is told by its end. */
TEST_F_TIMEOUT(swapped, anon_exit, CDM_TIMEOUT)
{
	prepare_anon();
	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	expect_anon();
	kill_and_reap(self->child);
	self->child = 0;
	munmap(self->pages, 4 * NR * PAGE_SIZE);
	munmap(self->huge, HUGE);
	expect_ends();
	EXPECT_TRUE(wait_for(!slots_used(self->swap[0])));
}

/* Or by swapoff, which leaves nothing of the device in page tables. */
TEST_F_TIMEOUT(swapped, anon_swapoff, CDM_TIMEOUT)
{
	prepare_anon();
	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	expect_swapoff();
	expect_anon();
	expect_ends();
	expect_anon();
	EXPECT_EQ(0, swap_on(self->swap[0]));
	EXPECT_EQ(0, slots_used(self->swap[0]));
}

/* Shared memory: what is in the swap cache is in no file, and mapped by nobody. */
#define prepare_file()							\
do {									\
	size_t i, nr = 0;						\
									\
	self->fd = memfd_create("cdm-swapped", 0);			\
	ASSERT_LE(0, self->fd);						\
	self->pages = map_file_on(self->fd, 2 * NR, self->nid);		\
	ASSERT_NE(NULL, self->pages);					\
	fill_pages(self->pages, 2 * NR, PAGE_SIZE, SEED);		\
	self->pfns = calloc(NR, sizeof(*self->pfns));			\
	ASSERT_NE(NULL, self->pfns);					\
	ASSERT_EQ(0, pages_pfns(self->pages, NR, PAGE_SIZE, self->pfns)); \
	ASSERT_TRUE(are_in_swap(self->pages, NR, self->nid));		\
	ASSERT_EQ(NR, pages_on(self->pages + NR * PAGE_SIZE, NR, PAGE_SIZE, \
			       self->nid));				\
	for (i = 0; i < NR; i++)					\
		nr += !!(page_flags_of(self->pfns[i]) & KPF_SWAPCACHE);	\
	ASSERT_LT(0, nr);						\
} while (0)

#define expect_pages_of_file()						\
do {									\
	expect_file(0, NR, SEED, NR);					\
	expect_file(NR, NR, SEED + NR, 0);				\
	expect_own(self->pages, NR, SEED);				\
	expect_error(self->pages + NR * PAGE_SIZE, NR);			\
} while (0)

TEST_F_TIMEOUT(swapped, file, CDM_TIMEOUT)
{
	prepare_file();
	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	/* Nothing refers to the device, while the file is there. */
	expect_ends();
	expect_pages_of_file();
	munmap(self->pages, 2 * NR * PAGE_SIZE);
	close(self->fd);
	EXPECT_TRUE(wait_for(!slots_used(self->swap[0])));
}

TEST_F_TIMEOUT(swapped, file_swapoff, CDM_TIMEOUT)
{
	prepare_file();
	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	expect_swapoff();
	expect_ends();
	expect_pages_of_file();
	EXPECT_EQ(0, swap_on(self->swap[0]));
	EXPECT_EQ(0, slots_used(self->swap[0]));
}

/* A file that has lost pages is swapped out later, for the first time. */
TEST_F_TIMEOUT(swapped, file_later, CDM_TIMEOUT)
{
	char *ram;

	self->fd = memfd_create("cdm-swapped", 0);
	ASSERT_LE(0, self->fd);
	self->pages = map_file_on(self->fd, 2 * NR, self->nid);
	ASSERT_NE(NULL, self->pages);
	ram = self->pages + NR * PAGE_SIZE;
	ASSERT_EQ(0, bind_pages(ram, NR, MPOL_BIND, NODE_BIT(self->ram), 0));
	fill_pages(self->pages, 2 * NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(ram, NR, PAGE_SIZE, self->ram));

	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	expect_file(0, NR, SEED, 0);
	ASSERT_TRUE(are_in_swap(ram, NR, self->ram));
	expect_swapoff();
	expect_file(0, NR, SEED, 0);
	expect_file(NR, NR, SEED + NR, NR);
	expect_ends();
	EXPECT_EQ(0, swap_on(self->swap[0]));
	EXPECT_EQ(0, slots_used(self->swap[0]));
}

static int truncate_to_page(void *fd)
{
	return ftruncate(*(int *)fd, PAGE_SIZE) ? errno : 0;
}

/* A huge page of a file is lost: of its pages each may be truncated. */
TEST_F_TIMEOUT(swapped, huge_file, CDM_TIMEOUT)
{
	int fd = memfd_create("cdm-swapped", 0);
	unsigned long zero = ~0UL;

	ASSERT_LE(0, fd);
	self->fd = fd;
	self->pages = map_file_on(fd, HUGE_NR, self->nid);
	ASSERT_NE(NULL, self->pages);
	ASSERT_EQ(0, madvise(self->pages, HUGE, MADV_HUGEPAGE));
	fill_pages(self->pages, HUGE_NR, PAGE_SIZE, SEED);
	ASSERT_EQ(HUGE_NR, pages_with(self->pages, HUGE_NR, PAGE_SIZE, KPF_THP));
	ASSERT_EQ(HUGE_NR, pages_on(self->pages, HUGE_NR, PAGE_SIZE, self->nid));

	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	expect_ends();
	expect_file(0, HUGE_NR, SEED, 0);
	self->child = spawn(truncate_to_page, &fd);
	ASSERT_LT(0, self->child);
	ASSERT_TRUE(wait_for(waitpid(self->child, NULL, WNOHANG)));
	self->child = 0;
	ASSERT_EQ(0, ftruncate(fd, HUGE));
	/* What is left of it is lost, the rest is a hole, and of use */
	expect_file(0, 1, SEED, 0);
	EXPECT_EQ(sizeof(zero), pread(fd, &zero, sizeof(zero), PAGE_SIZE));
	EXPECT_EQ(0, zero);
	fill_pages(self->pages + PAGE_SIZE, HUGE_NR - 1, PAGE_SIZE, SEED);
	expect_file(1, HUGE_NR - 1, SEED, HUGE_NR - 1);
	expect_file(0, 1, SEED, 0);
}

/* Somebody has a page locked, or writes it, for longer than the device is waited for. */
TEST_F_TIMEOUT(swapped, held_meanwhile, CDM_TIMEOUT)
{
	char *locked, *writeback, *clean;
	struct verdict v;

	self->pages = map_pages_on(3, self->nid);
	ASSERT_NE(NULL, self->pages);
	locked = self->pages;
	writeback = self->pages + PAGE_SIZE;
	clean = self->pages + 2 * PAGE_SIZE;
	fill_pages(self->pages, 3, PAGE_SIZE, SEED);
	ASSERT_TRUE(are_in_swap(writeback, 2, self->nid));
	ASSERT_TRUE(are_read_back(writeback, 2, self->nid, SEED + 1));
	snprintf(self->text, sizeof(self->text), "%lu lock", page_pfn(locked));
	ASSERT_EQ(0, file_write(CALLS "/keep", self->text));
	snprintf(self->text, sizeof(self->text), "%lu writeback", page_pfn(writeback));
	ASSERT_EQ(0, file_write(CALLS "/keep", self->text));

	ASSERT_EQ(0, file_write(CALLS "/tear_out", self->name));
	EXPECT_TRUE(cdm_node_is_lost(self->nid));
	/* What is being written may be anything. */
	expect_error(writeback, 1);
	expect_own(clean, 1, SEED + 2);

	ASSERT_EQ(0, file_write(CALLS "/keep", "0 none"));
	EXPECT_TRUE(wait_for((memset(&v, 0, sizeof(v)),
			      judge_pages(locked, 1, PAGE_SIZE, SEED, &v),
			      v.error)));
	expect_error(writeback, 1);
	expect_own(clean, 1, SEED + 2);
	munmap(self->pages, 3 * PAGE_SIZE);
	expect_ends();
	EXPECT_TRUE(wait_for(!slots_used(self->swap[0])));
}

TEST_HARNESS_MAIN
