// SPDX-License-Identifier: GPL-2.0
/*
 * What each form of a policy says about two devices' nodes: the modes and flags
 * that placement.c leaves out, a home node, policies of shared memory and of
 * tmpfs mounts, and whose pages a policy is about.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#ifndef __NR_set_mempolicy_home_node
#define __NR_set_mempolicy_home_node 450
#endif

#define NR		((size_t)128)
#define SEED		0x9011c000UL
#define MNT		"/run/cdm-policies"
#define WEIGHTS		"/sys/kernel/mm/mempolicy/weighted_interleave"

FIXTURE(policies)
{
	int nid;		/* of the first device */
	int other;		/* of the second */
	int ram;
	unsigned long devices;
	pid_t child;
};

FIXTURE_SETUP(policies)
{
	self->child = 0;
	ASSERT_NE(NULL, cdm_device(1));
	self->nid = cdm_node_up("migrate,interleave");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, cdm_bind_device(1, "migrate,interleave"));
	self->other = cdm_node_of(1);
	ASSERT_LE(0, self->other);
	self->devices = NODE_BIT(self->nid) | NODE_BIT(self->other);
	ASSERT_EQ(self->devices, node_list("has_coherent_memory"));
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	mkdir(MNT, 0700);
}

FIXTURE_TEARDOWN_PARENT(policies)
{
	kill_and_reap(self->child);
	umount2(MNT, MNT_DETACH);
	rmdir(MNT);
	cdm_unbind_device(1);
	settings_restore();
}

/* Pages of a new mapping with this policy: how many are on the node? */
static long with_policy(int mode, unsigned long nodes, int nid)
{
	char *addr = map_pages(NR);
	long ret;

	if (!addr)
		return -ENOMEM;
	ret = bind_pages(addr, NR, mode, nodes, 0);
	if (!ret) {
		fill_pages(addr, NR, PAGE_SIZE, SEED);
		ret = pages_on(addr, NR, PAGE_SIZE, nid);
	}
	unmap_pages(addr, NR);
	return ret;
}

static size_t on_devices(const void *addr, size_t nr, unsigned long devices)
{
	size_t there = 0;
	int nid;

	for (nid = 0; nid < 64; nid++)
		if (devices & NODE_BIT(nid))
			there += pages_on(addr, nr, PAGE_SIZE, nid);
	return there;
}

/* "Here" is a node with CPUs, whatever the task's policy or the range's was */
TEST_F_TIMEOUT(policies, local, CDM_TIMEOUT)
{
	static const int modes[] = { MPOL_DEFAULT, MPOL_LOCAL };
	unsigned long nodes = NODE_BIT(self->nid);
	size_t i;
	char *addr;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		EXPECT_EQ(NR, with_policy(modes[i], 0, self->ram));
		/* In place of one that named a device */
		addr = map_pages_on(NR, self->nid);
		ASSERT_NE(NULL, addr);
		ASSERT_EQ(0, bind_pages(addr, NR, modes[i], 0, 0));
		fill_pages(addr, NR, PAGE_SIZE, SEED);
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->ram));
		unmap_pages(addr, NR);
	}
	/* The range's word counts more than the task's; the default has none. */
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	EXPECT_EQ(NR, with_policy(MPOL_LOCAL, 0, self->ram));
	EXPECT_EQ(NR, with_policy(MPOL_DEFAULT, 0, self->nid));
	ASSERT_EQ(0, set_mempolicy(MPOL_LOCAL, NULL, 0));
	EXPECT_EQ(NR, with_policy(MPOL_DEFAULT, 0, self->ram));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
}

/* The nearest to the home node is first: a device if that is home */
TEST_F_TIMEOUT(policies, home_node, CDM_TIMEOUT)
{
	static const int modes[] = { MPOL_BIND, MPOL_PREFERRED_MANY };
	unsigned long nodes = NODE_BIT(self->ram) | self->devices;
	const int homes[] = { self->ram, self->nid, self->other };
	size_t i, j;
	char *addr;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		for (j = 0; j < ARRAY_SIZE(homes); j++) {
			addr = map_pages(NR);
			ASSERT_NE(NULL, addr);
			ASSERT_EQ(0, bind_pages(addr, NR, modes[i], nodes, 0));
			ASSERT_EQ(0, syscall(__NR_set_mempolicy_home_node, addr,
					     NR * PAGE_SIZE, homes[j], 0));
			fill_pages(addr, NR, PAGE_SIZE, SEED);
			EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, homes[j]))
				TH_LOG("mode %d, home %d", modes[i], homes[j]);
			unmap_pages(addr, NR);
		}
	}

	/* A home names nothing: the policy's nodes do. */
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_BIND, NODE_BIT(self->ram), 0));
	ASSERT_EQ(0, syscall(__NR_set_mempolicy_home_node, addr, NR * PAGE_SIZE,
			     self->nid, 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->ram));
}

/*
 * Static numbers are names. Relative ones count the nodes that the cpuset gives
 * to everybody, whatever their numbers, so no number leads to a device.
 */
TEST_F_TIMEOUT(policies, static_and_relative, CDM_TIMEOUT)
{
	static const int modes[] = { MPOL_BIND, MPOL_PREFERRED_MANY, MPOL_INTERLEAVE };
	unsigned long nodes;
	size_t i;
	char *addr;
	int nr;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		EXPECT_EQ(NR, with_policy(modes[i] | MPOL_F_STATIC_NODES,
					  NODE_BIT(self->nid), self->nid));
		for (nr = 0; nr < 8; nr++) {
			addr = map_pages(NR);
			ASSERT_NE(NULL, addr);
			ASSERT_EQ(0, bind_pages(addr, NR,
						modes[i] | MPOL_F_RELATIVE_NODES,
						NODE_BIT(nr), 0));
			fill_pages(addr, NR, PAGE_SIZE, SEED);
			EXPECT_EQ(0, on_devices(addr, NR, self->devices))
				TH_LOG("mode %d, relative node %d", modes[i], nr);
			unmap_pages(addr, NR);
		}
	}
	/* All of them */
	nodes = ~0UL;
	ASSERT_EQ(0, set_mempolicy(MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES, &nodes,
				   65));
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(0, on_devices(addr, NR, self->devices));
}

/* Several devices: interleaving gives each its turn, binding takes the nearest */
TEST_F_TIMEOUT(policies, two_devices, CDM_TIMEOUT)
{
	unsigned long all = self->devices | NODE_BIT(self->ram);
	char *addr;

	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_INTERLEAVE, self->devices, 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR / 2, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR / 2, pages_on(addr, NR, PAGE_SIZE, self->other));
	unmap_pages(addr, NR);

	addr = map_pages(3 * NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, 3 * NR, MPOL_INTERLEAVE, all, 0));
	fill_pages(addr, 3 * NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, 3 * NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_on(addr, 3 * NR, PAGE_SIZE, self->other));
	EXPECT_EQ(NR, pages_on(addr, 3 * NR, PAGE_SIZE, self->ram));
	unmap_pages(addr, 3 * NR);

	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_BIND, self->devices, 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, on_devices(addr, NR, self->devices));

	/* The first one goes: what was there moves out, what is new takes the other. */
	ASSERT_EQ(0, cdm_unbind());
	ASSERT_EQ(NODE_BIT(self->other), node_list("has_coherent_memory"));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	unmap_pages(addr, NR);
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(-EINVAL, bind_pages(addr, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	EXPECT_EQ(0, bind_pages(addr, NR, MPOL_BIND, self->devices, 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->other));
	EXPECT_EQ(self->nid, cdm_node_up("migrate,interleave"));
}

static int weight(int nid, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), WEIGHTS "/node%d", nid);
	return file_write(path, text);
}

/* Of every four pages the device takes three */
TEST_F_TIMEOUT(policies, weighted_interleave, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid) | NODE_BIT(self->ram);

	ASSERT_EQ(0, weight(self->ram, "1"));
	ASSERT_EQ(0, weight(self->nid, "3"));
	EXPECT_EQ(NR / 4 * 3, with_policy(MPOL_WEIGHTED_INTERLEAVE, nodes, self->nid));
	ASSERT_EQ(0, weight(self->nid, "1"));
	EXPECT_EQ(NR / 2, with_policy(MPOL_WEIGHTED_INTERLEAVE, nodes, self->nid));
}

struct sharer {
	int fd;
	int nid;
	size_t there;
	size_t intact;
};

/* Somebody who names nothing, and finds what the file says */
static int stranger(void *arg)
{
	struct sharer *s = arg;
	char *addr = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			  s->fd, 0);

	if (addr == MAP_FAILED || madvise(addr, NR * PAGE_SIZE, MADV_NOHUGEPAGE))
		return 1;
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	s->there = pages_on(addr, NR, PAGE_SIZE, s->nid);
	s->intact = pages_intact(addr, NR, PAGE_SIZE, SEED);
	return 0;
}

/* The policy of a range of a file is everybody's who maps it */
TEST_F_TIMEOUT(policies, shared_memory, CDM_TIMEOUT)
{
	struct sharer *s = shared_page();
	char *addr;
	size_t i;

	ASSERT_NE(NULL, s);
	s->nid = self->nid;
	s->fd = memfd_create("cdm", 0);
	ASSERT_LE(0, s->fd);
	ASSERT_EQ(0, ftruncate(s->fd, NR * PAGE_SIZE));
	addr = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	ASSERT_NE(MAP_FAILED, addr);
	/* One half of it */
	ASSERT_EQ(0, bind_pages(addr, NR / 2, MPOL_BIND, NODE_BIT(self->nid), 0));
	self->child = spawn(stranger, s);
	EXPECT_EQ(0, reap(self->child));
	EXPECT_EQ(NR / 2, s->there);
	EXPECT_EQ(NR, s->intact);
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR / 2, pages_on(addr, NR / 2, PAGE_SIZE, self->nid));

	/* Empty, it is filled by the kernel for somebody: by the file's policy, too */
	ASSERT_EQ(0, fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			       NR * PAGE_SIZE));
	ASSERT_EQ(0, fallocate(s->fd, 0, 0, NR * PAGE_SIZE));
	for (i = 0; i < NR; i++)
		READ_ONCE(addr[i * PAGE_SIZE]);
	EXPECT_EQ(NR / 2, pages_on(addr, NR, PAGE_SIZE, self->nid));
	unmap_pages(addr, NR);
	close(s->fd);
	self->child = 0;
}

static int tmpfs(const char *options)
{
	umount2(MNT, MNT_DETACH);
	return mount("none", MNT, "tmpfs", 0, options) ? -errno : 0;
}

/* Pages of a new file on the mount: written by a call, or touched in a mapping */
static long tmpfs_pages(bool touched, int nid)
{
	static char page[PAGE_SIZE];
	long ret = -EIO;
	char *addr;
	size_t i;
	int fd;

	fd = open(MNT "/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return -errno;
	for (i = 0; !touched && i < NR; i++)
		if (write(fd, page, sizeof(page)) != sizeof(page))
			goto out;
	if (ftruncate(fd, NR * PAGE_SIZE))
		goto out;
	addr = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED)
		goto out;
	for (i = 0; i < NR; i++)
		WRITE_ONCE(addr[i * PAGE_SIZE], 1);
	ret = pages_on(addr, NR, PAGE_SIZE, nid);
	munmap(addr, NR * PAGE_SIZE);
out:
	close(fd);
	unlink(MNT "/file");
	return ret;
}

/* mpol= of a mount, which only root can give */
TEST_F_TIMEOUT(policies, tmpfs_mount, CDM_TIMEOUT)
{
	static const char * const modes[] = { "bind", "prefer", "interleave" };
	char options[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		snprintf(options, sizeof(options), "mpol=%s:%d", modes[i], self->nid);
		ASSERT_EQ(0, tmpfs(options));
		EXPECT_EQ(NR, tmpfs_pages(true, self->nid));
		EXPECT_EQ(NR, tmpfs_pages(false, self->nid));
	}
	/* Who does not name a node, does not get one of a device. */
	ASSERT_EQ(0, tmpfs("mpol=interleave"));
	EXPECT_EQ(0, tmpfs_pages(true, self->nid));
	ASSERT_EQ(0, tmpfs("mpol=local"));
	EXPECT_EQ(0, tmpfs_pages(true, self->nid));
	ASSERT_EQ(0, tmpfs(""));
	EXPECT_EQ(0, tmpfs_pages(true, self->nid));

	/* Not what the driver does not allow, nor what is not there */
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	snprintf(options, sizeof(options), "mpol=interleave:%d", self->nid);
	EXPECT_EQ(-EINVAL, tmpfs(options));
	snprintf(options, sizeof(options), "mpol=bind:%d", self->nid);
	EXPECT_EQ(0, tmpfs(options));
	EXPECT_EQ(NR, tmpfs_pages(true, self->nid));
	/* Files stay when the device goes. */
	ASSERT_EQ(0, cdm_unbind());
	EXPECT_EQ(0, tmpfs_pages(true, self->nid));
	EXPECT_EQ(-EINVAL, tmpfs(options))
		TH_LOG("%s, devices %#lx", options, node_list("has_coherent_memory"));
}

/*
 * The policy of a task is about what the task touches. A file outlives the task
 * and is others' to map, so what write(2) and fallocate(2) put into it is not.
 */
TEST_F_TIMEOUT(policies, task_and_tmpfs, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid);
	long touched, written;

	ASSERT_EQ(0, tmpfs(""));
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	touched = tmpfs_pages(true, self->nid);
	written = tmpfs_pages(false, self->nid);
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(NR, touched);
	EXPECT_EQ(0, written);
}

struct target {
	char *addr;
	int done;
};

static int idle(void *arg)
{
	struct target *t = arg;

	while (!READ_ONCE(t->done))
		usleep(10000);
	return 0;
}

/* What a task writes into another is the other's, and placed by the other's word */
TEST_F_TIMEOUT(policies, foreign_memory, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid);
	struct target *t = shared_page();
	struct iovec local, remote;
	static char buf[4 * PAGE_SIZE];
	int status[4], mine;
	void *pages[4];
	char *named, *shared;
	size_t i;

	ASSERT_NE(NULL, t);
	t->addr = map_pages(4);
	ASSERT_NE(NULL, t->addr);
	shared = mmap(NULL, sizeof(buf), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	named = map_pages_on(4, self->other);
	ASSERT_NE(NULL, named);
	self->child = spawn(idle, t);
	ASSERT_LT(0, self->child);

	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	local.iov_base = buf;
	local.iov_len = sizeof(buf);
	remote.iov_len = sizeof(buf);
	remote.iov_base = t->addr;
	EXPECT_EQ(sizeof(buf), process_vm_writev(self->child, &local, 1, &remote, 1, 0));
	remote.iov_base = named;
	EXPECT_EQ(sizeof(buf), process_vm_writev(self->child, &local, 1, &remote, 1, 0));
	remote.iov_base = shared;
	EXPECT_EQ(sizeof(buf), process_vm_writev(self->child, &local, 1, &remote, 1, 0));
	/* Control: the same in its own memory */
	memcpy(t->addr, buf, sizeof(buf));
	mine = pages_on(t->addr, 4, PAGE_SIZE, self->nid);
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(4, mine);

	for (i = 0; i < 4; i++)
		pages[i] = t->addr + i * PAGE_SIZE;
	ASSERT_EQ(0, move_pages(self->child, 4, pages, NULL, status, 0));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(0, NODE_BIT(status[i]) & self->devices)
			TH_LOG("page %zu: %d", i, status[i]);
	for (i = 0; i < 4; i++)
		READ_ONCE(shared[i * PAGE_SIZE]);
	EXPECT_EQ(4, pages_on(shared, 4, PAGE_SIZE, self->ram));
	for (i = 0; i < 4; i++)
		pages[i] = named + i * PAGE_SIZE;
	ASSERT_EQ(0, move_pages(self->child, 4, pages, NULL, status, 0));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(self->other, status[i]);
	t->done = 1;
	EXPECT_EQ(0, reap(self->child));
	self->child = 0;
}

TEST_HARNESS_MAIN
