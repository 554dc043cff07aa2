// SPDX-License-Identifier: GPL-2.0
/*
 * Who names the node gets its pages: by mbind(), set_mempolicy(),
 * move_pages(), migrate_pages(), libnuma and numactl; read back in three ways.
 * And what happens when there is no page left, or no node.
 */
#include <libgen.h>
#include <limits.h>
#include <numa.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

#define NR	((size_t)128)
#define SEED	0x91ace000UL

FIXTURE(placement)
{
	int nid;
	int ram;
};

FIXTURE_SETUP(placement)
{
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
}

FIXTURE_TEARDOWN_PARENT(placement)
{
	settings_restore();
}

/* MPOL_BIND, read back by move_pages(), get_mempolicy() and numa_maps */
TEST_F_TIMEOUT(placement, mbind_bind, CDM_TIMEOUT)
{
	unsigned long nodes = 0;
	struct node_use use;
	char policy[64];
	char *addr;
	int node;

	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));

	ASSERT_EQ(0, get_mempolicy(&node, NULL, 0, addr,
				   MPOL_F_NODE | MPOL_F_ADDR));
	EXPECT_EQ(self->nid, node);
	ASSERT_EQ(0, get_mempolicy(&node, &nodes, 65, addr, MPOL_F_ADDR));
	EXPECT_EQ(MPOL_BIND, node);
	EXPECT_EQ(NODE_BIT(self->nid), nodes);
	EXPECT_EQ(NR, numa_maps_pages(addr, self->nid, policy, sizeof(policy)));
	EXPECT_EQ(0, strncmp(policy, "bind", 4));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_LE(NR, use.anon);
	EXPECT_LE((long long)(NR * PAGE_SIZE / 1024),
		  node_meminfo(self->nid, "AnonPages"));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));

	/* Control: the same without the policy */
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
}

TEST_F_TIMEOUT(placement, mbind_preferred, CDM_TIMEOUT)
{
	static const int modes[] = { MPOL_PREFERRED, MPOL_PREFERRED_MANY };
	size_t i;
	char *addr;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		addr = map_pages(NR);
		ASSERT_NE(NULL, addr);
		EXPECT_EQ(0, bind_pages(addr, NR, modes[i], NODE_BIT(self->nid),
					0));
		fill_pages(addr, NR, PAGE_SIZE, SEED);
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	}
}

TEST_F_TIMEOUT(placement, set_mempolicy, CDM_TIMEOUT)
{
	static const int modes[] = {
		MPOL_BIND, MPOL_PREFERRED, MPOL_PREFERRED_MANY,
	};
	unsigned long nodes = NODE_BIT(self->nid);
	char *addr;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		addr = map_pages(NR);
		ASSERT_NE(NULL, addr);
		ASSERT_EQ(0, set_mempolicy(modes[i], &nodes, 65));
		fill_pages(addr, NR, PAGE_SIZE, SEED);
		ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	}
}

/* Of several named nodes the nearest is first, as mbind(2) says: here, RAM */
TEST_F_TIMEOUT(placement, mixed_mask_nearest_first, CDM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, run_on_node(self->ram));
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_BIND,
				NODE_BIT(self->nid) | NODE_BIT(self->ram), 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->ram));
}

TEST_F_TIMEOUT(placement, move_pages, CDM_TIMEOUT)
{
	int status[NR];
	char *addr;

	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(0, move_to(addr, NR, PAGE_SIZE, self->nid, status));
	EXPECT_EQ(NR, count_status(status, NR, self->nid));
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
}

struct task {
	char *addr;
	int ready;
	int done;
	size_t there;
	size_t intact;
	int nid;
};

static int sleeper(void *arg)
{
	struct task *t = arg;

	t->addr = map_pages(NR);
	if (!t->addr)
		return 1;
	fill_pages(t->addr, NR, PAGE_SIZE, SEED);
	t->ready = 1;
	while (!t->done)
		usleep(10000);
	t->there = pages_on(t->addr, NR, PAGE_SIZE, t->nid);
	t->intact = pages_intact(t->addr, NR, PAGE_SIZE, SEED);
	return 0;
}

/* All pages of another process, there and back */
TEST_F_TIMEOUT(placement, migrate_pages, CDM_TIMEOUT)
{
	struct task *t = shared_page();
	unsigned long ram = node_list("has_memory");
	unsigned long device = NODE_BIT(self->nid);
	unsigned long home = NODE_BIT(self->ram);
	struct node_use use;
	pid_t pid;

	ASSERT_NE(NULL, t);
	t->nid = self->nid;
	pid = spawn(sleeper, t);
	ASSERT_LT(0, pid);
	EXPECT_TRUE(wait_for(t->ready));

	EXPECT_LE(0, migrate_pages(pid, 64, &ram, &device));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_LE(NR, use.anon);
	t->done = 1;
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(NR, t->there);
	EXPECT_EQ(NR, t->intact);

	t->done = 0;
	t->ready = 0;
	t->nid = self->ram;
	pid = spawn(sleeper, t);
	ASSERT_LT(0, pid);
	EXPECT_TRUE(wait_for(t->ready));
	EXPECT_LE(0, migrate_pages(pid, 64, &ram, &device));
	EXPECT_LE(0, migrate_pages(pid, 64, &device, &home));
	t->done = 1;
	EXPECT_EQ(0, reap(pid));
	EXPECT_EQ(NR, t->there);
	EXPECT_EQ(NR, t->intact);
}

/* Who has no privileges: each node that he may name is one that he may move to. */
static int unprivileged(void *arg)
{
	unsigned long ram = node_list("has_memory"), device = NODE_BIT(*(int *)arg);
	char *addr = map_pages(NR);

	if (!addr || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		return 1;
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	if (migrate_pages(0, 64, &ram, &device) < 0)
		return errno;
	/* What others use, too, as the program's text, is left where it is. */
	return pages_intact(addr, NR, PAGE_SIZE, SEED) == NR ? 0 : 2;
}

TEST_F_TIMEOUT(placement, migrate_pages_unprivileged, CDM_TIMEOUT)
{
	unsigned long allocations = node_allocations(self->nid);

	EXPECT_EQ(0, reap(spawn(unprivileged, &self->nid)));
	EXPECT_LE(allocations + NR, node_allocations(self->nid));
}

/*
 * libnuma, which uses MPOL_PREFERRED_MANY for this and ignores errors. It looks
 * at the nodes when it is loaded, so this is a new program.
 */
static int libnuma_child(int nid)
{
	char *addr;

	if (numa_available() < 0)
		return 3;
	addr = numa_alloc_onnode(NR * PAGE_SIZE, nid);
	if (!addr || madvise(addr, NR * PAGE_SIZE, MADV_NOHUGEPAGE))
		return 2;
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	return pages_on(addr, NR, PAGE_SIZE, nid) != NR;
}

static int run_self(const char *mode, int nid)
{
	char number[16];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", nid);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		setenv("CDM_LIBNUMA", number, 1);
		execl("/proc/self/exe", mode, NULL);
		_exit(127);
	}
	return reap(pid);
}

/*
 * A node that only who lists it may name, and no cpuset does: not even who had
 * named it before gets another page.
 */
TEST_F_TIMEOUT(placement, listed, CDM_TIMEOUT)
{
	char access[64], *addr, *next;

	snprintf(access, sizeof(access), NODE_SYSFS "/node%d/cdm_access", self->nid);
	addr = map_pages_on(2 * NR, self->nid);
	ASSERT_NE(NULL, addr);
	next = map_pages(NR);
	ASSERT_NE(NULL, next);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));

	ASSERT_EQ(0, setting(access, "listed"));
	EXPECT_EQ(-EINVAL, bind_pages(next, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(addr, 2 * NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, 2 * NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(2 * NR, pages_intact(addr, 2 * NR, PAGE_SIZE, SEED));

	ASSERT_EQ(0, setting(access, "all"));
	EXPECT_EQ(0, bind_pages(next, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(next, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(next, NR, PAGE_SIZE, self->nid));
}

TEST_F_TIMEOUT(placement, numa_alloc_onnode, CDM_TIMEOUT)
{
	EXPECT_EQ(0, run_self("libnuma", self->nid));
}

static int numactl(const char *node, const char *probe_node)
{
	char path[PATH_MAX - 16], probe[PATH_MAX];
	ssize_t len;
	pid_t pid;

	len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (len < 0)
		return -1;
	path[len] = '\0';
	snprintf(probe, sizeof(probe), "%s/cdm_probe", dirname(path));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		execlp("numactl", "numactl", "-a", node, probe, probe_node, "64",
		       NULL);
		_exit(127);
	}
	return reap(pid);
}

/* numactl -a --membind=N program */
TEST_F_TIMEOUT(placement, numactl_membind, CDM_TIMEOUT)
{
	char membind[32], node[16];

	snprintf(node, sizeof(node), "%d", self->nid);
	snprintf(membind, sizeof(membind), "--membind=%d", self->nid);
	EXPECT_EQ(0, numactl(membind, node));
	/* Control: bound to RAM, the probe says no */
	snprintf(membind, sizeof(membind), "--membind=%d", self->ram);
	EXPECT_EQ(1, numactl(membind, node));
}

FIXTURE(interleave)
{
	int nid;
	unsigned long nodes;
};

FIXTURE_VARIANT(interleave)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(interleave, denied)
{
	.caps = "migrate",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(interleave, allowed)
{
	.caps = "migrate,interleave",
	.allowed = true,
};

FIXTURE_SETUP(interleave)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->nodes = NODE_BIT(self->nid) | NODE_BIT(ram_node(0));
}

FIXTURE_TEARDOWN_PARENT(interleave)
{
	settings_restore();
}

/* A mask that names the node: refused, or really used for every other page */
TEST_F_TIMEOUT(interleave, naming, CDM_TIMEOUT)
{
	static const int modes[] = { MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE };
	unsigned long alone = NODE_BIT(self->nid);
	unsigned long ram = node_list("has_memory") & ~alone;
	int expected = variant->allowed ? 0 : -EINVAL;
	size_t there, i;
	char *addr;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		addr = map_pages(NR);
		ASSERT_NE(NULL, addr);
		EXPECT_EQ(expected, bind_pages(addr, NR, modes[i], alone, 0));
		EXPECT_EQ(expected, set_mempolicy(modes[i], &self->nodes, 65) ?
				    -errno : 0);
		set_mempolicy(MPOL_DEFAULT, NULL, 0);
		EXPECT_EQ(expected, bind_pages(addr, NR, modes[i], self->nodes, 0));
		/* Control: a mask of ordinary nodes is always good */
		if (!variant->allowed)
			EXPECT_EQ(0, bind_pages(addr, NR, modes[i], ram, 0));
		fill_pages(addr, NR, PAGE_SIZE, SEED);
		there = pages_on(addr, NR, PAGE_SIZE, self->nid);
		/* Weights may differ, turns may not */
		if (variant->allowed && modes[i] == MPOL_WEIGHTED_INTERLEAVE)
			EXPECT_TRUE(there > 0 && there < NR);
		if (variant->allowed && modes[i] == MPOL_INTERLEAVE)
			EXPECT_EQ(NR / 2, there);
		if (!variant->allowed)
			EXPECT_EQ(0, there);
	}
}

/* Of shared memory the file has the policy: the same answer, the same pages */
TEST_F_TIMEOUT(interleave, shared_memory, CDM_TIMEOUT)
{
	int fd = memfd_create("cdm", 0);
	char *addr;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	addr = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(variant->allowed ? 0 : -EINVAL,
		  bind_pages(addr, NR, MPOL_INTERLEAVE, self->nodes, 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(variant->allowed ? NR / 2 : 0,
		  pages_on(addr, NR, PAGE_SIZE, self->nid));

	/* Control: the other modes mean what they name */
	ASSERT_EQ(0, ftruncate(fd, 0));
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	EXPECT_EQ(0, bind_pages(addr, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	close(fd);
}

/* A policy that was good when it was made, and a device that comes back strict */
TEST_F_TIMEOUT(interleave, strict_again, CDM_TIMEOUT)
{
	char *addr[2];
	int fd, i;

	if (!variant->allowed)
		return;
	fd = memfd_create("cdm", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	addr[0] = map_pages(NR);
	ASSERT_NE(NULL, addr[0]);
	addr[1] = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, addr[1]);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, bind_pages(addr[i], NR, MPOL_INTERLEAVE, self->nodes, 0));

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate"));
	for (i = 0; i < 2; i++) {
		fill_pages(addr[i], NR / 2, PAGE_SIZE, SEED);
		EXPECT_EQ(0, pages_on(addr[i], NR / 2, PAGE_SIZE, self->nid));
	}
	EXPECT_EQ(NR / 2, (size_t)node_denied(self->nid, "interleave"));

	/* Control: the policy is still there */
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up(variant->caps));
	for (i = 0; i < 2; i++) {
		fill_pages(addr[i], NR, PAGE_SIZE, SEED);
		EXPECT_EQ(NR / 4, pages_on(addr[i], NR, PAGE_SIZE, self->nid));
	}
	close(fd);
}

/*
 * Full and gone
 */

FIXTURE(full)
{
	int nid;
	pid_t child;
	pid_t filler;
};

FIXTURE_SETUP(full)
{
	self->child = 0;
	self->filler = 0;
	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
}

FIXTURE_TEARDOWN_PARENT(full)
{
	kill_and_reap(self->child);
	kill_and_reap(self->filler);
	settings_restore();
}

struct fill {
	int nid;
	int ready;	/* the node is full */
	int shrink;	/* give some pages back */
	int shrunk;
	size_t pages;
	long long code;	/* of the signal */
	unsigned long fault;
	unsigned long expected;
};

static sigjmp_buf filler_full;
static struct fill *filling;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	filling->code = info->si_code;
	filling->fault = (unsigned long)info->si_addr;
	siglongjmp(filler_full, 1);
}

/* Take every page of the node, then stay */
static int fill_node(void *arg)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};
	size_t nr = cdm_device(0)->size / PAGE_SIZE + 1024;
	char *addr, *page;

	filling = arg;
	sigaction(SIGBUS, &action, NULL);
	addr = map_pages_on(nr, filling->nid);
	if (!addr)
		return 1;
	if (!sigsetjmp(filler_full, 1)) {
		while (filling->pages < nr) {
			page = addr + filling->pages * PAGE_SIZE;
			WRITE_ONCE(filling->expected, (unsigned long)page);
			WRITE_ONCE(*page, 1);
			WRITE_ONCE(filling->pages, filling->pages + 1);
		}
		return 2;	/* more than there is: not on the node */
	}
	filling->ready = 1;
	while (!filling->shrink)
		usleep(10000);
	madvise(addr, 1024 * PAGE_SIZE, MADV_DONTNEED);
	filling->shrunk = 1;
	for (;;)
		pause();
}

static int bystander(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

/* More than what may be on its way back from the lists of other CPUs */
#define SOME_MORE	256

static int some_more(void *arg)
{
	char *addr = map_pages_on(SOME_MORE, *(int *)arg);

	if (!addr)
		return 1;
	fill_pages(addr, SOME_MORE, PAGE_SIZE, SEED);
	return 0;
}

/*
 * A task bound to the full node gets SIGBUS at the address it touched, and
 * nobody else is bothered: the OOM killer is not called. What is no access by
 * user code gets an error.
 */
TEST_F_TIMEOUT(full, strict_binding, CDM_TIMEOUT)
{
	struct fill *fill = shared_page();
	size_t device = cdm_device(0)->size / PAGE_SIZE;
	long long killed = vm_event("oom_kill");
	int i, pipes[2], log = log_open();
	unsigned long both;
	char text[64];
	char *addr;

	ASSERT_NE(NULL, fill);
	ASSERT_LE(0, killed);
	ASSERT_LE(0, log);
	fill->nid = self->nid;
	self->child = spawn(bystander, NULL);
	self->filler = spawn(fill_node, fill);
	ASSERT_LT(0, self->filler);
	while (!fill->ready) {
		ASSERT_EQ(0, waitpid(self->filler, NULL, WNOHANG));
		usleep(50000);
	}
	EXPECT_LE(device / 10 * 9, fill->pages);
	EXPECT_EQ(BUS_ADRERR, fill->code);
	EXPECT_EQ(fill->expected, fill->fault);
	snprintf(text, sizeof(text), "[%d]: no page left on node %d,", self->filler,
		 self->nid);
	EXPECT_TRUE(log_has(log, text));
	close(log);

	/* Somebody without a handler ends by that signal */
	EXPECT_EQ(-SIGBUS, reap(spawn(some_more, &self->nid)));

	/* From kernel mode: no signal, no endless loop */
	addr = map_pages_on(SOME_MORE, self->nid);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(-1, madvise(addr, SOME_MORE * PAGE_SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(-1, mlock(addr, SOME_MORE * PAGE_SIZE));
	EXPECT_TRUE(errno == ENOMEM || errno == EAGAIN);
	munlock(addr, SOME_MORE * PAGE_SIZE);
	ASSERT_EQ(0, pipe(pipes));
	/* There may be a page on its way back here, too. */
	for (i = 0; i < SOME_MORE; i++) {
		ASSERT_EQ(5, write(pipes[1], "hello", 5));
		if (read(pipes[0], addr + i * PAGE_SIZE, 5) != 5)
			break;
	}
	EXPECT_GT(SOME_MORE, i);
	EXPECT_EQ(EFAULT, errno);
	/* Who only prefers the node, or names RAM as well, gets RAM */
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_PREFERRED, NODE_BIT(self->nid), 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_GE(NR / 2, pages_on(addr, NR, PAGE_SIZE, self->nid));
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	both = NODE_BIT(self->nid) | NODE_BIT(ram_node(0));
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_BIND, both, 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));

	/* Positive control: with some pages back it goes on */
	fill->shrink = 1;
	EXPECT_TRUE(wait_for(fill->shrunk));
	EXPECT_EQ(0, reap(spawn(some_more, &self->nid)));

	EXPECT_EQ(killed, vm_event("oom_kill"));
	EXPECT_EQ(0, waitpid(self->child, NULL, WNOHANG));
	EXPECT_EQ(0, waitpid(self->filler, NULL, WNOHANG));
}

/* Write to a page as one who may use reserves */
static int touch_by_reserves(void *addr)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", (unsigned long)addr);
	return file_write("/sys/kernel/debug/cdm_test/touch", text);
}

/*
 * Who may use reserves does so without the memory policy, which then means
 * nothing for devices either: not a page of their reserves.
 */
TEST_F_TIMEOUT(full, reserves, CDM_TIMEOUT)
{
	struct fill *fill = shared_page();
	long long reserve;
	char *addr;
	size_t i, got;

	ASSERT_NE(NULL, fill);
	/* What is left when the node is full; all of it would be had */
	reserve = node_zoneinfo(self->nid, "Movable", "min");
	ASSERT_LE(32, reserve);
	ASSERT_LE(reserve, NR);
	ASSERT_EQ(0, load_module("cdm_test", ""));

	/* Positive control: what needs no reserves is the policy's */
	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	for (i = 0; i < NR; i++)
		ASSERT_EQ(0, touch_by_reserves(addr + i * PAGE_SIZE));
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));

	fill->nid = self->nid;
	self->filler = spawn(fill_node, fill);
	ASSERT_LT(0, self->filler);
	while (!fill->ready) {
		ASSERT_EQ(0, waitpid(self->filler, NULL, WNOHANG));
		usleep(50000);
	}
	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	for (i = 0; i < NR; i++)
		ASSERT_EQ(0, touch_by_reserves(addr + i * PAGE_SIZE));
	got = pages_on(addr, NR, PAGE_SIZE, self->nid);
	/* A few may have come back from the lists of other CPUs */
	EXPECT_GT(reserve / 4, got);
	TH_LOG("%zu pages of a full node, whose reserve is %lld", got, reserve);
	EXPECT_EQ(0, unload_module("cdm_test"));
}

/* A policy whose node has gone is the default policy, and means it again later */
TEST_F_TIMEOUT(full, node_gone, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid);
	char *bound, *task;

	ASSERT_FALSE(cdm_control());
	bound = map_pages_on(3 * NR, self->nid);
	ASSERT_NE(NULL, bound);
	fill_pages(bound, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(bound, NR, PAGE_SIZE, self->nid));
	task = map_pages(NR);
	ASSERT_NE(NULL, task);

	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(NR, pages_intact(bound, NR, PAGE_SIZE, SEED));
	fill_pages(bound + NR * PAGE_SIZE, NR, PAGE_SIZE, SEED);
	fill_pages(task, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(0, pages_on(bound, 2 * NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(bound + NR * PAGE_SIZE, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_intact(task, NR, PAGE_SIZE, SEED));
	/* Naming a node that is not there is an error now */
	EXPECT_EQ(-EINVAL, bind_pages(task, NR, MPOL_BIND, nodes, 0));

	ASSERT_EQ(self->nid, cdm_node_up("none"));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	fill_pages(bound + 2 * NR * PAGE_SIZE, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(bound + 2 * NR * PAGE_SIZE, NR, PAGE_SIZE,
			       self->nid));
}

int main(int argc, char **argv)
{
	const char *nid = getenv("CDM_LIBNUMA");

	if (nid)
		return libnuma_child(atoi(nid));
	return test_harness_run(argc, argv);
}
