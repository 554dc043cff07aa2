// SPDX-License-Identifier: GPL-2.0
/*
 * Whom the OOM killer takes. What a task has on a device is no help when ordinary
 * memory is short, and does not count then; for the limit of a memory cgroup, to
 * which it is charged, it does. /proc/PID/oom_score says so beforehand.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define MB		((size_t)1 << 20)
#define NR		(32 * MB / PAGE_SIZE)
#define SEED		0x00400000UL

FIXTURE(oom)
{
	int nid;
	int ram;
	pid_t on_device;
	pid_t in_ram;
	struct shared *shared;
};

/* What the children do, and tell */
struct shared {
	int nid;
	size_t nr;
	size_t ready;
	bool join;
	char *pages;
	long long score[2];
};

FIXTURE_SETUP(oom)
{
	self->on_device = 0;
	self->in_ram = 0;
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting(THP_SYSFS "/hugepages-2048kB/enabled", "always"));
	self->nid = cdm_node_up("migrate,thp,hugetlb");
	ASSERT_LE(0, self->nid);
	self->shared = shared_page();
	ASSERT_NE(NULL, self->shared);
	self->shared->nid = self->nid;
	ASSERT_EQ(0, memcg_create());
}

FIXTURE_TEARDOWN_PARENT(oom)
{
	kill_and_reap(self->on_device);
	kill_and_reap(self->in_ram);
	pool_set(self->nid, "0");
	memcg_remove();
	settings_restore();
}

static int sits(struct shared *shared, char *pages, size_t nr)
{
	if (!pages)
		return 1;
	fill_pages(pages, nr, PAGE_SIZE, SEED);
	__atomic_add_fetch(&shared->ready, 1, __ATOMIC_RELAXED);
	for (;;)
		pause();
}

static int on_device(void *arg)
{
	struct shared *shared = arg;

	if (shared->join && memcg_join())
		return 2;
	return sits(shared, map_pages_on(2 * NR, shared->nid), 2 * NR);
}

static int in_ram(void *arg)
{
	struct shared *shared = arg;

	if (shared->join && memcg_join())
		return 2;
	return sits(shared, map_pages(NR), NR);
}

static bool both_sit(struct _test_data_oom *self)
{
	self->shared->ready = 0;
	self->on_device = spawn(on_device, self->shared);
	self->in_ram = spawn(in_ram, self->shared);
	return self->on_device > 0 && self->in_ram > 0 &&
	       wait_for(READ_ONCE(self->shared->ready) == 2);
}

/* Which of the two has been killed? It is 0 then. */
static pid_t victim(struct _test_data_oom *self)
{
	pid_t *sitting[] = { &self->on_device, &self->in_ram }, pid;
	int status;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sitting); i++) {
		pid = *sitting[i];
		if (waitpid(pid, &status, WNOHANG) == pid) {
			*sitting[i] = 0;
			return pid;
		}
	}
	return 0;
}

/* The machine is out of memory, as the administrator says: SysRq-f */
TEST_F_TIMEOUT(oom, shortage, CDM_TIMEOUT)
{
	long long killed = vm_event("oom_kill");
	pid_t in_ram, who;

	ASSERT_TRUE(both_sit(self));
	in_ram = self->in_ram;
	ASSERT_EQ(0, file_write("/proc/sysrq-trigger", "f"));
	/* That with half as much, all of which can be had, and not the other. */
	EXPECT_TRUE(wait_for((who = victim(self))));
	EXPECT_EQ(in_ram, who);
	EXPECT_EQ(0, victim(self));
	EXPECT_EQ(killed + 1, vm_event("oom_kill"));
}

/*
 * A cgroup's limit, below what the greater of the two alone is charged for. It is
 * the first to go; until it has given back all the limit may take the other, too.
 */
TEST_F_TIMEOUT(oom, memcg_limit, CDM_TIMEOUT)
{
	char on_device[32], in_ram[32];
	int log[2], i;

	self->shared->join = true;
	ASSERT_TRUE(both_sit(self));
	snprintf(on_device, sizeof(on_device), "Killed process %d ", self->on_device);
	snprintf(in_ram, sizeof(in_ram), "Killed process %d ", self->in_ram);
	for (i = 0; i < 2; i++) {
		log[i] = log_open();
		ASSERT_LE(0, log[i]);
	}
	EXPECT_EQ(0, memcg_set("memory.max", 2 * NR * PAGE_SIZE - 8 * MB));
	EXPECT_TRUE(wait_for(victim(self)));
	EXPECT_TRUE(wait_for(log_has(log[0], on_device)));
	EXPECT_FALSE(log_has(log[1], in_ram) && log_has(log[1], on_device));
	for (i = 0; i < 2; i++)
		close(log[i]);
}

static long long score_of(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/oom_score", pid);
	return file_number(path);
}

static long long score(void)
{
	return score_of(getpid());
}

static long long memory_kb(const char *field)
{
	char text[8192], *line;

	if (file_read("/proc/meminfo", text, sizeof(text)) <= 0)
		return -1;
	line = strstr(text, field);
	return line ? strtoll(line + strlen(field), NULL, 10) : -1;
}

/* By how much so many pages of ordinary memory raise it */
static long long worth(size_t nr)
{
	long long total = memory_kb("MemTotal:") + memory_kb("SwapTotal:");

	return nr * (PAGE_SIZE / 1024) * 1000 / total * 2 / 3;
}

/*
 * Two for what is rounded, and a quarter for page tables, what the C library does
 * meanwhile and what each CPU has counted by itself.
 */
#define EXPECT_SCORE(expected, seen)					\
do {									\
	long long wanted_ = (expected), found_ = (seen);		\
									\
	EXPECT_GE(2 + worth(NR) / 4, llabs(wanted_ - found_)) {		\
		TH_LOG("%lld where %lld was expected", found_, wanted_); \
	}								\
} while (0)

/* Has all mapped that its parent has, and then copies of it */
static int forked(void *arg)
{
	struct shared *shared = arg;

	shared->score[0] = score();
	fill_pages(shared->pages, NR, PAGE_SIZE, ~SEED);
	shared->score[1] = score();
	return pages_on(shared->pages, NR, PAGE_SIZE, shared->nid) != NR;
}

TEST_F_TIMEOUT(oom, score, CDM_TIMEOUT)
{
	long long empty, in_ram = worth(NR);
	char *pages;
	pid_t child;
	int fd;

	/* Otherwise nothing would show. */
	ASSERT_LT(4, in_ram);
	pages = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, pages);
	empty = score();
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	EXPECT_SCORE(empty, score());

	/* Migrated both ways. Positive control: in RAM they do count. */
	ASSERT_EQ(0, move_to(pages, NR, PAGE_SIZE, self->ram, NULL));
	EXPECT_SCORE(empty + in_ram, score());
	ASSERT_EQ(0, move_to(pages, NR, PAGE_SIZE, self->nid, NULL));
	EXPECT_SCORE(empty, score());
	/* Half of them */
	ASSERT_EQ(0, move_to(pages, NR / 2, 2 * PAGE_SIZE, self->ram, NULL));
	EXPECT_SCORE(empty + in_ram / 2, score());
	ASSERT_EQ(0, move_to(pages, NR / 2, 2 * PAGE_SIZE, self->nid, NULL));

	/* Forked, and copied on write */
	self->shared->pages = pages;
	child = spawn(forked, self->shared);
	ASSERT_LT(0, child);
	EXPECT_EQ(0, reap(child));
	EXPECT_SCORE(empty, self->shared->score[0]);
	EXPECT_SCORE(empty, self->shared->score[1]);
	EXPECT_SCORE(empty, score());

	/* Given back */
	ASSERT_EQ(0, madvise(pages, NR * PAGE_SIZE, MADV_DONTNEED));
	EXPECT_SCORE(empty, score());
	ASSERT_EQ(0, bind_pages(pages, NR, MPOL_DEFAULT, 0, 0));
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	EXPECT_SCORE(empty + in_ram, score());
	unmap_pages(pages, NR);

	/* Huge pages, whole and in parts */
	pages = map_huge_range(NR / HUGE_NR);
	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, bind_pages(pages, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	ASSERT_LT(NR / 2, pages_with(pages, NR, PAGE_SIZE, KPF_THP));
	EXPECT_SCORE(empty, score());
	ASSERT_EQ(0, mprotect(pages + HUGE / 2, NR * PAGE_SIZE - HUGE, PROT_READ));
	EXPECT_SCORE(empty, score());
	munmap(pages, NR * PAGE_SIZE);

	/* Shared memory */
	fd = memfd_create("cdm", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, pages);
	ASSERT_EQ(0, bind_pages(pages, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(pages, NR, PAGE_SIZE, self->nid));
	EXPECT_SCORE(empty, score());
	munmap(pages, NR * PAGE_SIZE);
	close(fd);
	EXPECT_SCORE(empty, score());
}

/* Pages of a pool are no part of the RSS: nothing is to be taken off for them. */
TEST_F_TIMEOUT(oom, score_with_hugetlb, CDM_TIMEOUT)
{
	long long empty = score();
	char *huge, *pages;
	char nr[16];

	snprintf(nr, sizeof(nr), "%zu", NR / HUGE_NR);
	ASSERT_EQ(0, pool_set(self->nid, nr));
	ASSERT_EQ(NR / HUGE_NR, pool_size(self->nid));
	pages = map_pages(NR);
	ASSERT_NE(NULL, pages);
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	EXPECT_SCORE(empty + worth(NR), score());
	huge = map_huge(NR / HUGE_NR, MAP_NORESERVE);
	ASSERT_NE(MAP_FAILED, huge);
	ASSERT_EQ(0, bind_pages(huge, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(huge, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(huge, NR, PAGE_SIZE, self->nid));
	EXPECT_SCORE(empty + worth(NR), score());
	munmap(huge, NR * PAGE_SIZE);
}

TEST_HARNESS_MAIN
