// SPDX-License-Identifier: GPL-2.0
/*
 * What a request for memory is compared with, in each mode of vm.overcommit_memory:
 * a device's memory is there for who may name it, and what is on it takes nothing
 * of what there is of RAM. Controls are the same requests without the node, by who
 * may not name it, and with the same pages in RAM.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define MB		((size_t)1 << 20)
/*
 * Mode 2: what a request is for, what is left of the limit before anything is on
 * the device, and what the counters of the CPUs may be off by
 */
#define PIECE		(64 * MB)
#define ROOM		(96 * MB)
#define SLACK		(16 * MB)
#define PIECES		2
#define GAP		(2 * MB)	/* what the kernel leaves below a stack */

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE	0x08
#endif

#define MODE		"/proc/sys/vm/overcommit_memory"
#define RATIO		"/proc/sys/vm/overcommit_ratio"
#define KBYTES		"/proc/sys/vm/overcommit_kbytes"
#define USER_RESERVE	"/proc/sys/vm/user_reserve_kbytes"
#define ADMIN_RESERVE	"/proc/sys/vm/admin_reserve_kbytes"

static char *map(size_t size, int prot, int flags)
{
	char *addr = mmap(NULL, size, prot, flags | MAP_ANONYMOUS, -1, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

/* All ways to ask for so many bytes. They say whether they got them, and give back. */
static bool ask_private(size_t size)
{
	char *addr = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	return addr && !munmap(addr, size);
}

static bool ask_shared(size_t size)
{
	char *addr = map(size, PROT_READ | PROT_WRITE, MAP_SHARED);

	return addr && !munmap(addr, size);
}

static bool ask_sysv(size_t size)
{
	int id = shmget(IPC_PRIVATE, size, 0600);

	return id >= 0 && !shmctl(id, IPC_RMID, NULL);
}

static bool ask_memfd(size_t size)
{
	int fd = memfd_create("cdm", 0);
	bool given;

	given = fd >= 0 && !fallocate(fd, 0, 0, size);
	close(fd);
	return given;
}

static bool ask_mremap(size_t size)
{
	char *addr = map(PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *grown;

	if (!addr)
		return false;
	grown = mremap(addr, PAGE_SIZE, size, MREMAP_MAYMOVE);
	if (grown == MAP_FAILED)
		return munmap(addr, PAGE_SIZE);
	return !munmap(grown, size);
}

static bool ask_mprotect(size_t size)
{
	char *addr = map(size, PROT_NONE, MAP_PRIVATE);
	bool given;

	if (!addr)
		return false;
	given = !mprotect(addr, size, PROT_READ | PROT_WRITE);
	return !munmap(addr, size) && given;
}

static bool ask_brk(size_t size)
{
	return sbrk(size) != (void *)-1 && sbrk(-(long)size) != (void *)-1;
}

/* What grows down grows by the access, here the kernel's, to say so. */
static bool ask_stack(size_t size)
{
	char *range = map(GAP + size, PROT_NONE, MAP_PRIVATE), *low, *top;
	bool given = false;
	int fd;

	if (!range || munmap(range, GAP + size))
		return false;
	low = range + GAP;
	top = mmap(low + size - PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE,
		   -1, 0);
	fd = open("/dev/zero", O_RDONLY);
	if (top == low + size - PAGE_SIZE && fd >= 0)
		given = read(fd, low, 1) == 1;
	close(fd);
	munmap(low, size);
	return given;
}

static const struct request {
	const char *name;
	bool (*ask)(size_t size);
	bool by_page;	/* the size is nothing to be refused, each page may be */
} requests[] = {
	{ "private mapping", ask_private },
	{ "shared mapping", ask_shared },
	{ "SysV shared memory", ask_sysv },
	{ "memfd", ask_memfd, true },
	{ "mremap", ask_mremap },
	{ "mprotect", ask_mprotect },
	{ "brk", ask_brk },
	{ "stack", ask_stack },
};

/* All get it, or none */
static void expect_all(struct __test_metadata *_metadata, const char *when,
		       size_t size, bool given, bool by_page)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		if (requests[i].by_page && !by_page)
			continue;
		EXPECT_EQ(given, requests[i].ask(size)) {
			TH_LOG("%s: %s of %zu MiB", when, requests[i].name, size / MB);
		}
	}
}

static int nothing(void *arg)
{
	return 0;
}

FIXTURE(overcommit)
{
	int nid;
	char access[128];
	size_t ram_and_swap;
	size_t device;
};

static bool begin(int *nid, char *access, size_t size)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	char state[32] = "", who[32] = "";

	if (setrlimit(RLIMIT_STACK, &unlimited))
		return false;
	*nid = cdm_node_up("migrate");
	snprintf(access, size, NODE_SYSFS "/node%d/cdm_access", *nid);
	if (*nid < 0)
		return false;
	if (status_list("Mems_allowed_coherent_list:") & NODE_BIT(*nid))
		return true;
	/* Whatever was said of the device before, or by whom else */
	cdm_state(*nid, state, sizeof(state));
	file_read(access, who, sizeof(who));
	ksft_print_msg("node %d cannot be named, by \"%s\": %s\n", *nid,
		       strtok(who, "\n"), strtok(state, "\n"));
	return false;
}

FIXTURE_SETUP(overcommit)
{
	struct sysinfo info;

	ASSERT_TRUE(begin(&self->nid, self->access, sizeof(self->access)));
	ASSERT_EQ(0, sysinfo(&info));
	self->ram_and_swap = (info.totalram + info.totalswap) * info.mem_unit;
	self->device = cdm_device(0)->size;
	ASSERT_LT(2 * SLACK, self->device);
}

FIXTURE_TEARDOWN_PARENT(overcommit)
{
	settings_restore();
}

/* What is obviously too much depends on what there is for this task. */
TEST_F_TIMEOUT(overcommit, guess, CDM_TIMEOUT)
{
	size_t edge = self->ram_and_swap;

	ASSERT_EQ(0, setting(MODE, "0"));
	expect_all(_metadata, "RAM", edge - SLACK, true, false);
	expect_all(_metadata, "more than RAM", edge + SLACK, true, false);
	expect_all(_metadata, "RAM and device", edge + self->device - SLACK, true, false);
	expect_all(_metadata, "more than both", edge + self->device + SLACK, false, false);

	/* Nor does it fit for who may not name the device */
	ASSERT_EQ(0, setting(self->access, "listed"));
	expect_all(_metadata, "listed: RAM", edge - SLACK, true, false);
	expect_all(_metadata, "listed: more than RAM", edge + SLACK, false, false);
	ASSERT_EQ(0, setting(self->access, "all"));
	expect_all(_metadata, "all: more than RAM", edge + SLACK, true, false);

	/* Control: without it */
	ASSERT_EQ(0, cdm_node_down());
	expect_all(_metadata, "no node: RAM", edge - SLACK, true, false);
	expect_all(_metadata, "no node: more than RAM", edge + SLACK, false, false);
}

/* And is then used as it was meant, by the children, too */
TEST_F_TIMEOUT(overcommit, guess_bound, CDM_TIMEOUT)
{
	size_t size = self->ram_and_swap + SLACK;
	char *pages;

	ASSERT_EQ(0, setting(MODE, "0"));
	pages = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, bind_pages(pages, size / PAGE_SIZE, MPOL_BIND,
				NODE_BIT(self->nid), 0));
	fill_page(pages, 1);
	fill_page(pages + size / PAGE_SIZE * PAGE_SIZE - PAGE_SIZE, 2);
	EXPECT_EQ(self->nid, page_node(pages));
	EXPECT_EQ(self->nid, page_node(pages + size / PAGE_SIZE * PAGE_SIZE - PAGE_SIZE));
	EXPECT_EQ(0, reap(spawn(nothing, NULL)));

	ASSERT_EQ(0, setting(self->access, "listed"));
	EXPECT_EQ(-1, spawn(nothing, NULL));
	EXPECT_EQ(ENOMEM, errno);
	munmap(pages, size);
	EXPECT_EQ(0, reap(spawn(nothing, NULL)));
}

TEST_F_TIMEOUT(overcommit, always, CDM_TIMEOUT)
{
	size_t size = self->ram_and_swap + self->device + SLACK;

	ASSERT_EQ(0, setting(MODE, "1"));
	expect_all(_metadata, "more than all", size, true, false);
	ASSERT_EQ(0, cdm_node_down());
	expect_all(_metadata, "no node: more than all", size, true, false);
}

/* Mode 2, with little left of the limit */
FIXTURE(strict)
{
	int nid;
	char access[128];
};

FIXTURE_VARIANT(strict)
{
	char *(*hold)(void);
	bool copied;		/* by fork(2) */
};

static char *hold_private(void)
{
	return map(PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static char *hold_shared(void)
{
	return map(PIECE, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static char *hold_sysv(void)
{
	int id = shmget(IPC_PRIVATE, PIECE, 0600);
	void *addr = shmat(id, NULL, 0);

	shmctl(id, IPC_RMID, NULL);
	return addr == (void *)-1 ? NULL : addr;
}

static char *hold_memfd(void)
{
	int fd = memfd_create("cdm", 0);
	char *addr = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, PIECE))
		addr = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return addr == MAP_FAILED ? NULL : addr;
}

FIXTURE_VARIANT_ADD(strict, private)
{
	.hold = hold_private,
	.copied = true,
};

FIXTURE_VARIANT_ADD(strict, shared)
{
	.hold = hold_shared,
};

FIXTURE_VARIANT_ADD(strict, sysv)
{
	.hold = hold_sysv,
};

FIXTURE_VARIANT_ADD(strict, memfd)
{
	.hold = hold_memfd,
};

/* A piece that is there, all of it, on a node */
static char *piece_on(char *(*hold)(void), int nid)
{
	char *addr = hold();

	if (addr && !bind_pages(addr, PIECE / PAGE_SIZE, MPOL_BIND, NODE_BIT(nid), 0) &&
	    !madvise(addr, PIECE, MADV_POPULATE_WRITE) &&
	    pages_on(addr, PIECE / PAGE_SIZE, PAGE_SIZE, nid) == PIECE / PAGE_SIZE)
		return addr;
	return NULL;
}

/* Mode 2, and of the limit as much is left as the tests say */
static void leave_room(struct __test_metadata *_metadata)
{
	long long left;

	ASSERT_EQ(0, setting(USER_RESERVE, "0"));
	ASSERT_EQ(0, setting(ADMIN_RESERVE, "0"));
	/* One is what the other is not: in this order, both are put back. */
	ASSERT_EQ(0, setting(RATIO, "50"));
	ASSERT_EQ(0, setting(KBYTES, "524288"));
	/* A shared mapping is no affair of fork(2). */
	left = (proc_meminfo("CommitLimit") - proc_meminfo("Committed_AS")) * 1024;
	ASSERT_LT((long long)ROOM, left);
	ASSERT_NE(NULL, map(left - ROOM, PROT_READ | PROT_WRITE, MAP_SHARED));
	ASSERT_EQ(0, setting(MODE, "2"));
}

FIXTURE_SETUP(strict)
{
	ASSERT_TRUE(begin(&self->nid, self->access, sizeof(self->access)));
	ASSERT_LT((PIECES + 1) * PIECE, cdm_device(0)->size);
	leave_room(_metadata);
}

FIXTURE_TEARDOWN_PARENT(strict)
{
	settings_restore();
}

static void expect_committed(struct __test_metadata *_metadata, const char *when,
			     long long kb)
{
	EXPECT_GE(SLACK / 1024, llabs(proc_meminfo("Committed_AS") - kb)) {
		TH_LOG("%s: %lld kB committed, not %lld", when,
		       proc_meminfo("Committed_AS"), kb);
	}
}

TEST_F_TIMEOUT(strict, limit, CDM_TIMEOUT)
{
	long long limit = proc_meminfo("CommitLimit"), committed;
	char *pieces[PIECES], *in_ram;
	int i;

	committed = proc_meminfo("Committed_AS");
	expect_all(_metadata, "empty", PIECE, true, true);
	expect_all(_metadata, "empty", ROOM + SLACK, false, true);

	/* Control: what is in RAM is taken from it */
	in_ram = piece_on(variant->hold, ram_node(0));
	ASSERT_NE(NULL, in_ram);
	expect_committed(_metadata, "RAM", committed + PIECE / 1024);
	expect_all(_metadata, "RAM", PIECE, false, true);
	munmap(in_ram, PIECE);

	/* More than what is left, piece by piece, and nothing is taken */
	for (i = 0; i < PIECES; i++) {
		pieces[i] = piece_on(variant->hold, self->nid);
		ASSERT_NE(NULL, pieces[i]);
	}
	EXPECT_EQ(limit, proc_meminfo("CommitLimit"));
	expect_committed(_metadata, "device", committed);
	expect_all(_metadata, "device", PIECE, true, true);
	/* But nor is more given than RAM has */
	expect_all(_metadata, "device", ROOM + SLACK, false, true);

	/* Who may not name it finds the same. */
	ASSERT_EQ(0, setting(self->access, "listed"));
	expect_all(_metadata, "listed", PIECE, true, true);
	expect_all(_metadata, "listed", ROOM + SLACK, false, true);
	ASSERT_EQ(0, setting(self->access, "all"));

	/* It is RAM's again when it comes back, */
	ASSERT_EQ(0, move_to(pieces[0], PIECE / PAGE_SIZE, PAGE_SIZE, ram_node(0), NULL));
	expect_committed(_metadata, "moved", committed + PIECE / 1024);
	expect_all(_metadata, "moved", PIECE, false, true);
	/* as when the device leaves. */
	munmap(pieces[0], PIECE);
	expect_all(_metadata, "unmapped", PIECE, true, true);
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(limit, proc_meminfo("CommitLimit"));
	expect_committed(_metadata, "gone", committed + PIECE / 1024);
	expect_all(_metadata, "gone", PIECE, false, true);
	munmap(pieces[1], PIECE);
	expect_all(_metadata, "nothing left", PIECE, true, true);
}

/* What a private mapping has is committed once more. */
TEST_F_TIMEOUT(strict, fork, CDM_TIMEOUT)
{
	char *piece = piece_on(variant->hold, ram_node(0));

	ASSERT_NE(NULL, piece);
	if (variant->copied) {
		EXPECT_EQ(-1, spawn(nothing, NULL));
		EXPECT_EQ(ENOMEM, errno);
	} else {
		EXPECT_EQ(0, reap(spawn(nothing, NULL)));
	}
	munmap(piece, PIECE);
	ASSERT_NE(NULL, piece_on(variant->hold, self->nid));
	EXPECT_EQ(0, reap(spawn(nothing, NULL)));
}

/* What may be dropped was never committed: where it is makes no difference. */
FIXTURE(dropped)
{
	int nid;
	char access[128];
};

FIXTURE_SETUP(dropped)
{
	ASSERT_TRUE(begin(&self->nid, self->access, sizeof(self->access)));
	leave_room(_metadata);
}

FIXTURE_TEARDOWN_PARENT(dropped)
{
	settings_restore();
}

static char *hold_droppable(void)
{
	char *addr = mmap(NULL, PIECE, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

TEST_F_TIMEOUT(dropped, limit, CDM_TIMEOUT)
{
	long long committed = proc_meminfo("Committed_AS");

	ASSERT_NE(NULL, piece_on(hold_droppable, self->nid));
	expect_committed(_metadata, "droppable", committed);
	expect_all(_metadata, "droppable", PIECE, true, true);
	expect_all(_metadata, "droppable", ROOM + SLACK, false, true);

	/* Control: what was committed counts, but where it is. */
	ASSERT_NE(NULL, piece_on(hold_private, self->nid));
	expect_committed(_metadata, "private", committed);
	expect_all(_metadata, "private", PIECE, true, true);
	ASSERT_NE(NULL, piece_on(hold_private, ram_node(0)));
	expect_committed(_metadata, "RAM", committed + PIECE / 1024);
	expect_all(_metadata, "RAM", PIECE, false, true);
}

TEST_HARNESS_MAIN
