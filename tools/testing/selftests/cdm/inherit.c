// SPDX-License-Identifier: GPL-2.0
/*
 * Naming the node is part of a policy, and policies are inherited: by fork,
 * for new pages and for the copies that a write makes, and by exec.
 */
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	((size_t)64)
#define SEED	0xf0000000UL

FIXTURE(inherit)
{
	int nid;
	int ram;
	char probe[PATH_MAX];
};

FIXTURE_SETUP(inherit)
{
	char path[PATH_MAX - 16];
	ssize_t len;

	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	ASSERT_LT(0, len);
	path[len] = '\0';
	snprintf(self->probe, sizeof(self->probe), "%s/cdm_probe", dirname(path));
	ASSERT_EQ(0, access(self->probe, X_OK));
}

FIXTURE_TEARDOWN_PARENT(inherit)
{
	settings_restore();
}

struct family {
	char *addr;
	int nid;
	size_t untouched;
	size_t written;
	size_t fresh;
};

static int heir(void *arg)
{
	struct family *f = arg;

	f->untouched = pages_on(f->addr, NR, PAGE_SIZE, f->nid);
	if (pages_intact(f->addr, NR, PAGE_SIZE, SEED) != NR)
		return 2;
	/* Copies: the parent still has the pages */
	fill_pages(f->addr, NR, PAGE_SIZE, ~SEED);
	f->written = pages_on(f->addr, NR, PAGE_SIZE, f->nid);
	/* Pages that nobody had touched before the fork */
	fill_pages(f->addr + NR * PAGE_SIZE, NR, PAGE_SIZE, SEED);
	f->fresh = pages_on(f->addr + NR * PAGE_SIZE, NR, PAGE_SIZE, f->nid);
	return pages_intact(f->addr, NR, PAGE_SIZE, ~SEED) == NR ? 0 : 3;
}

/* mbind() before fork(): the child's copies and new pages are there as well */
TEST_F_TIMEOUT(inherit, fork_of_mbind, CDM_TIMEOUT)
{
	struct family *f = shared_page();
	struct node_use before, use;

	ASSERT_NE(NULL, f);
	f->nid = self->nid;
	f->addr = map_pages_on(2 * NR, self->nid);
	ASSERT_NE(NULL, f->addr);
	fill_pages(f->addr, NR, PAGE_SIZE, SEED);
	drain_lru();
	ASSERT_EQ(0, device_use(&before));

	EXPECT_EQ(0, reap(spawn(heir, f)));
	EXPECT_EQ(NR, f->untouched);
	EXPECT_EQ(NR, f->written);
	EXPECT_EQ(NR, f->fresh);
	EXPECT_EQ(NR, pages_on(f->addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(f->addr, NR, PAGE_SIZE, SEED));

	/* And what the child had is free again */
	drain_lru();
	ASSERT_EQ(0, device_use(&use));
	EXPECT_EQ(before.anon, use.anon);
}

/* A page that parent and child share, written by the parent */
static int holder(void *arg)
{
	struct family *f = arg;

	while (!READ_ONCE(f->fresh))
		usleep(10000);
	f->untouched = pages_on(f->addr, NR, PAGE_SIZE, f->nid);
	return pages_intact(f->addr, NR, PAGE_SIZE, SEED) == NR ? 0 : 2;
}

TEST_F_TIMEOUT(inherit, write_of_parent, CDM_TIMEOUT)
{
	struct family *f = shared_page();
	pid_t child;

	ASSERT_NE(NULL, f);
	f->nid = self->nid;
	f->addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, f->addr);
	fill_pages(f->addr, NR, PAGE_SIZE, SEED);
	child = spawn(holder, f);
	ASSERT_LT(0, child);
	fill_pages(f->addr, NR, PAGE_SIZE, ~SEED);
	EXPECT_EQ(NR, pages_on(f->addr, NR, PAGE_SIZE, self->nid));
	f->fresh = 1;
	EXPECT_EQ(0, reap(child));
	EXPECT_EQ(NR, f->untouched);
}

static int newcomer(void *arg)
{
	struct family *f = arg;

	f->addr = map_pages(NR);
	if (!f->addr)
		return 1;
	fill_pages(f->addr, NR, PAGE_SIZE, SEED);
	f->fresh = pages_on(f->addr, NR, PAGE_SIZE, f->nid);
	return 0;
}

/* set_mempolicy() before fork(): memory that the child maps is there */
TEST_F_TIMEOUT(inherit, fork_of_task_policy, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid);
	struct family *f = shared_page();

	ASSERT_NE(NULL, f);
	f->nid = self->nid;
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	EXPECT_EQ(0, reap(spawn(newcomer, f)));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(NR, f->fresh);

	/* Control: without the policy, the same child gets none */
	EXPECT_EQ(0, reap(spawn(newcomer, f)));
	EXPECT_EQ(0, f->fresh);
}

static int probe(const char *path, int nid)
{
	char node[16];
	pid_t pid;

	snprintf(node, sizeof(node), "%d", nid);
	pid = fork();
	if (!pid) {
		execl(path, path, node, "64", NULL);
		_exit(127);
	}
	return reap(pid);
}

/* set_mempolicy() before exec(): the new program's pages are there */
TEST_F_TIMEOUT(inherit, exec, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid);

	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	EXPECT_EQ(0, probe(self->probe, self->nid));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	/* Control: a program that inherits nothing gets none there */
	EXPECT_EQ(1, probe(self->probe, self->nid));
}

TEST_HARNESS_MAIN
