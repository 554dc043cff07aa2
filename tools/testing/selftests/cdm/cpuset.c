// SPDX-License-Identifier: GPL-2.0
/*
 * Who may name the node: the cpuset's mems, inherited or listed, and the node's
 * cdm_access. A change holds from the next fault on; pages that are there stay.
 *
 * The task under test is a child that does what it is told through shared memory.
 * The controls are the same child in a cpuset that has the node, and the same
 * calls with an ordinary node in place of the device's.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define V2		"/sys/fs/cgroup"
#define V1		"/run/cpuset"
#define NR		((size_t)16)
#define NR_STEPS	16
#define NR_HUGE		((size_t)4)
#define NR_COLD		((size_t)512)
#define DEMOTION	"/sys/kernel/mm/numa/demotion_enabled"

enum order {
	WAIT,
	NAME,		/* mbind() new pages to the node, and touch them */
	TOUCH,		/* touch more pages of a mapping that was bound at first */
	TOUCH_STATIC,	/* of another one, with MPOL_F_STATIC_NODES */
	TOUCH_HUGE,	/* one more huge page of a pool, bound at first likewise */
	COUNT,		/* how many of the pages touched first are on the node */
	POLICY,		/* set_mempolicy() */
	MOVE,		/* move_pages() of pages that were elsewhere */
	MIGRATE,	/* migrate_pages() of the same */
	COLD,		/* pages of no policy, for somebody to move */
	WHERE,		/* how many of those are on the node, and how many in RAM */
	DROP,		/* CAP_SYS_NICE */
	SPREAD,		/* file pages of a task that is bound, on the node and on each other */
	STATUS,		/* what /proc/self/status says, as a mask */
	LEAVE,
};

struct child {
	int nid;	/* of the device, or in its place */
	enum order order;
	int ret;	/* 0 or -errno of the call */
	size_t there;	/* pages on the node */
	size_t in_ram;
	char *cold;
	char *huge;	/* the page touched last of TOUCH_HUGE */
	unsigned long mems, coherent;
};

/* Pages on ordinary nodes */
static size_t pages_in_ram(const char *addr, size_t nr)
{
	unsigned long ram = node_list("has_memory");
	size_t sum = 0;
	int nid;

	for (nid = 0; nid < 64; nid++)
		if (ram & NODE_BIT(nid))
			sum += pages_on(addr, nr, PAGE_SIZE, nid);
	return sum;
}

/* Pages of a mapping, taken NR at a time */
struct bound {
	char *pages;
	size_t touched;
};

static void touch(struct child *c, struct bound *b, int mode)
{
	char *addr;

	if (!b->pages) {
		b->pages = map_pages(NR * NR_STEPS);
		c->ret = bind_pages(b->pages, NR * NR_STEPS, mode,
				    NODE_BIT(c->nid), 0);
	}
	addr = b->pages + b->touched * PAGE_SIZE;
	fill_pages(addr, NR, PAGE_SIZE, b->touched);
	b->touched += NR;
	c->there = pages_on(addr, NR, PAGE_SIZE, c->nid);
}

/* One more page of a mapping from the pools of huge pages */
static void touch_huge(struct child *c)
{
	static char *pages;
	static size_t touched;
	char *addr;

	if (!pages) {
		pages = map_huge(NR_HUGE, MAP_NORESERVE);
		if (pages == MAP_FAILED) {
			c->ret = -errno;
			return;
		}
		c->ret = bind_pages(pages, NR_HUGE * HUGE_NR, MPOL_BIND,
				    NODE_BIT(c->nid), 0);
	}
	addr = pages + touched++ * HUGE;
	fill_page(addr, touched);
	c->huge = addr;
	c->there = pages_on(addr, 1, HUGE, c->nid);
	c->in_ram = pages_in_ram(addr, 1);
}

/* With CAP_SYS_NICE, migrate_pages() does not mind the target's cpuset. */
static int drop_cap_sys_nice(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return -errno;
	data[0].effective &= ~(1U << CAP_SYS_NICE);
	data[0].permitted &= ~(1U << CAP_SYS_NICE);
	data[0].inheritable &= ~(1U << CAP_SYS_NICE);
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

#define SPREAD_FILE	"/scratch/cdm-spread"
#define NR_SPREAD	512

static long long file_pages(int nid)
{
	return node_meminfo(nid, "FilePages") * 1024 / (long long)PAGE_SIZE;
}

/* Page cache of a task that is bound to the device, by the nodes it is on */
static void write_file(struct child *c)
{
	long long before[2] = { file_pages(ram_node(0)), file_pages(ram_node(1)) };
	static char page[PAGE_SIZE];
	unsigned long node = NODE_BIT(c->nid);
	int fd = open(SPREAD_FILE, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int i;

	if (fd < 0 || set_mempolicy(MPOL_BIND, &node, 65))
		c->ret = -errno;
	for (i = 0; !c->ret && i < NR_SPREAD; i++)
		if (write(fd, page, sizeof(page)) != sizeof(page))
			c->ret = -EIO;
	set_mempolicy(MPOL_DEFAULT, NULL, 0);
	c->there = file_pages(c->nid);
	c->in_ram = file_pages(ram_node(0)) - before[0];
	if (file_pages(ram_node(1)) - before[1] < (long long)c->in_ram)
		c->in_ram = file_pages(ram_node(1)) - before[1];
	close(fd);
	unlink(SPREAD_FILE);
}

static void obey(struct child *c)
{
	static struct bound bound, bound_static;
	unsigned long node = NODE_BIT(c->nid);
	unsigned long others = node_list("has_memory") & ~node;
	int status[NR];
	char *addr;

	switch (c->order) {
	case NAME:
		addr = map_pages(NR);
		c->ret = bind_pages(addr, NR, MPOL_BIND, node, 0);
		fill_pages(addr, NR, PAGE_SIZE, 1);
		c->there = pages_on(addr, NR, PAGE_SIZE, c->nid);
		unmap_pages(addr, NR);
		break;
	case TOUCH:
		touch(c, &bound, MPOL_BIND);
		break;
	case TOUCH_STATIC:
		touch(c, &bound_static, MPOL_BIND | MPOL_F_STATIC_NODES);
		break;
	case TOUCH_HUGE:
		touch_huge(c);
		break;
	case COUNT:
		c->there = pages_on(bound.pages, NR, PAGE_SIZE, c->nid);
		break;
	case POLICY:
		addr = map_pages(NR);
		c->ret = set_mempolicy(MPOL_BIND, &node, 65) ? -errno : 0;
		fill_pages(addr, NR, PAGE_SIZE, 1);
		set_mempolicy(MPOL_DEFAULT, NULL, 0);
		c->there = pages_on(addr, NR, PAGE_SIZE, c->nid);
		unmap_pages(addr, NR);
		break;
	case MOVE:
	case MIGRATE:
		addr = map_pages(NR);
		bind_pages(addr, NR, MPOL_BIND, others, 0);
		fill_pages(addr, NR, PAGE_SIZE, 1);
		if (c->order == MOVE)
			c->ret = move_to(addr, NR, PAGE_SIZE, c->nid, status);
		else if (migrate_pages(0, 65, &others, &node) < 0)
			c->ret = -errno;
		c->there = pages_on(addr, NR, PAGE_SIZE, c->nid);
		unmap_pages(addr, NR);
		break;
	case COLD:
		if (c->cold)
			unmap_pages(c->cold, NR_COLD);
		c->cold = map_pages(NR_COLD);
		fill_pages(c->cold, NR_COLD, PAGE_SIZE, 1);
		drain_lru();
		__attribute__((fallthrough));
	case WHERE:
		c->there = pages_on(c->cold, NR_COLD, PAGE_SIZE, c->nid);
		c->in_ram = pages_in_ram(c->cold, NR_COLD);
		break;
	case DROP:
		c->ret = drop_cap_sys_nice();
		break;
	case SPREAD:
		write_file(c);
		break;
	case STATUS:
		c->mems = status_list("Mems_allowed_list:");
		c->coherent = status_list("Mems_allowed_coherent_list:");
		break;
	default:
		break;
	}
}

static int child_main(void *arg)
{
	struct child *c = arg;

	for (;;) {
		while (READ_ONCE(c->order) == WAIT)
			usleep(1000);
		if (c->order == LEAVE)
			return 0;
		c->ret = 0;
		c->there = 0;
		obey(c);
		WRITE_ONCE(c->order, WAIT);
	}
}

/* Let the child do it. Returns the pages on the node, or -errno of the call. */
static int tell(struct child *c, enum order order)
{
	WRITE_ONCE(c->order, order);
	if (!wait_for(READ_ONCE(c->order) == WAIT))
		return -ETIMEDOUT;
	return c->ret ? c->ret : (int)c->there;
}

FIXTURE(cpuset)
{
	int nid;
	unsigned long ram;	/* all ordinary nodes */
	char mems[64];		/* the same, as text */
	char with[80];		/* and the node */
	char access[PATH_MAX];
	struct child *c;
	pid_t pid;
};

static int put(const char *dir, const char *file, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return file_write(path, text);
}

static unsigned long get_list(const char *dir, const char *file)
{
	char path[PATH_MAX], text[256];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	if (file_read(path, text, sizeof(text)) < 0)
		return ~0UL;
	return parse_list(text);
}

static int put_pid(const char *dir, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return put(dir, "cgroup.procs", text);
}

static void remove_groups(void)
{
	static const char * const dirs[] = {
		V2 "/cdm/a/b", V2 "/cdm/a", V2 "/cdm/b", V2 "/cdm",
		V1 "/a/b", V1 "/a", V1 "/b",
	};
	size_t i;

	/* The child may not be quite dead. */
	for (i = 0; i < ARRAY_SIZE(dirs); i++)
		wait_for(!rmdir(dirs[i]) || errno == ENOENT);
}

FIXTURE_SETUP(cpuset)
{
	ASSERT_FALSE(cdm_control());
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	self->ram = node_list("has_memory");
	ASSERT_LT(0, file_read(NODE_SYSFS "/has_memory", self->mems,
			       sizeof(self->mems)));
	self->mems[strcspn(self->mems, "\n")] = '\0';
	snprintf(self->with, sizeof(self->with), "%s,%d", self->mems, self->nid);
	snprintf(self->access, sizeof(self->access), NODE_SYSFS "/node%d/cdm_access",
		 self->nid);
	self->c = shared_page();
	ASSERT_NE(NULL, self->c);
	self->c->nid = self->nid;
	self->pid = spawn(child_main, self->c);
	ASSERT_LT(0, self->pid);
}

FIXTURE_TEARDOWN_PARENT(cpuset)
{
	kill_and_reap(self->pid);
	if (self->nid >= 0) {
		file_write(self->access, "all");
		pool_set(self->nid, "0");
	}
	remove_groups();
	umount(V1);
	file_write(V2 "/cgroup.subtree_control", "+cpuset");
	settings_restore();
}

static void groups_v2(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, mkdir(V2 "/cdm", 0755));
	ASSERT_EQ(0, put(V2 "/cdm", "cgroup.subtree_control", "+cpuset"));
	ASSERT_EQ(0, mkdir(V2 "/cdm/a", 0755));
	ASSERT_EQ(0, put(V2 "/cdm/a", "cgroup.subtree_control", "+cpuset"));
	ASSERT_EQ(0, mkdir(V2 "/cdm/a/b", 0755));
	ASSERT_EQ(0, mkdir(V2 "/cdm/b", 0755));
}

static void expect_allowed(struct __test_metadata *_metadata, struct child *c)
{
	EXPECT_EQ(NR, tell(c, NAME));
	EXPECT_EQ(NR, tell(c, POLICY));
	EXPECT_EQ(NR, tell(c, MOVE));
	EXPECT_EQ(NR, tell(c, MIGRATE));
}

static void expect_forbidden(struct __test_metadata *_metadata, struct child *c)
{
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	EXPECT_EQ(0, c->there);
	EXPECT_EQ(-EINVAL, tell(c, POLICY));
	EXPECT_EQ(0, c->there);
	EXPECT_EQ(-EACCES, tell(c, MOVE));
	EXPECT_EQ(0, c->there);
	EXPECT_EQ(-EINVAL, tell(c, MIGRATE));
	EXPECT_EQ(0, c->there);
}

/* The control of controls: what an ordinary node that is not in mems gets */
TEST_F_TIMEOUT(cpuset, ordinary_node, CDM_TIMEOUT)
{
	struct child *c = self->c;
	char one[16];

	groups_v2(_metadata);
	ASSERT_LE(0, ram_node(1));
	c->nid = ram_node(1);
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	expect_allowed(_metadata, c);
	snprintf(one, sizeof(one), "%d", ram_node(0));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", one));
	expect_forbidden(_metadata, c);
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->mems));
	expect_allowed(_metadata, c);
}

/* Empty mems inherits, a list is what it says, the parent's is the limit */
TEST_F_TIMEOUT(cpuset, v2_inheritance, CDM_TIMEOUT)
{
	struct child *c = self->c;

	groups_v2(_metadata);
	/* Control: in the group that it was born in */
	EXPECT_EQ(NR, tell(c, NAME));

	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", self->pid));
	expect_allowed(_metadata, c);

	/* A list without the node, over mems that were all these by inheritance */
	ASSERT_EQ(0, put(V2 "/cdm/a/b", "cpuset.mems", self->mems));
	expect_forbidden(_metadata, c);

	ASSERT_EQ(0, put(V2 "/cdm/a/b", "cpuset.mems", self->with));
	expect_allowed(_metadata, c);
	/* The device's node is no ordinary memory for that */
	EXPECT_EQ(self->ram, get_list(V2 "/cdm/a/b", "cpuset.mems.effective"));

	/* The parent's is the limit, two levels up as well */
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->mems));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->with));
	EXPECT_EQ(NR, tell(c, NAME));
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->mems));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->with));
	EXPECT_EQ(NR, tell(c, NAME));

	/* A list of the device alone: ordinary memory is the parent's */
	snprintf(self->mems, sizeof(self->mems), "%d", self->nid);
	ASSERT_EQ(0, put(V2 "/cdm/a/b", "cpuset.mems", self->mems));
	EXPECT_EQ(NR, tell(c, NAME));
	EXPECT_EQ(self->ram, get_list(V2 "/cdm/a/b", "cpuset.mems.effective"));
}

/* A group that is made below a group without the node does not have it */
TEST_F_TIMEOUT(cpuset, v2_new_group, CDM_TIMEOUT)
{
	groups_v2(_metadata);
	ASSERT_EQ(0, rmdir(V2 "/cdm/a/b"));
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->mems));
	ASSERT_EQ(0, mkdir(V2 "/cdm/a/b", 0755));
	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", self->pid));
	EXPECT_EQ(-EINVAL, tell(self->c, NAME));
	/* Positive control */
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(NR, tell(self->c, NAME));
}

/*
 * Revoked by writing mems and by moving the task: what was bound before gets
 * ordinary pages from the next fault on, and the device's again when it may.
 */
TEST_F_TIMEOUT(cpuset, v2_revoke, CDM_TIMEOUT)
{
	struct child *c = self->c;

	groups_v2(_metadata);
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(NR, tell(c, TOUCH));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->mems));
	EXPECT_EQ(0, tell(c, TOUCH));
	/* What is there stays */
	EXPECT_EQ(NR, tell(c, COUNT));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	EXPECT_EQ(NR, tell(c, TOUCH));

	/* By moving the task: /cdm/a has not the node, the effective mems are the same */
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->mems));
	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", self->pid));
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(NR, tell(c, COUNT));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(NR, tell(c, TOUCH));

	/* By the parent */
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->mems));
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(NR, tell(c, COUNT));
}

/* The device's pool of huge pages likewise; while it may not, there is RAM's */
TEST_F_TIMEOUT(cpuset, v2_hugetlb, CDM_TIMEOUT)
{
	struct child *c = self->c;

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate,hugetlb"));
	ASSERT_EQ(0, pool_set(self->nid, "3"));
	groups_v2(_metadata);
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(1, tell(c, TOUCH_HUGE));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->mems));
	EXPECT_EQ(0, tell(c, TOUCH_HUGE));
	EXPECT_EQ(1, c->in_ram);
	EXPECT_EQ(2, file_number(pool_file(self->nid, "free_hugepages")));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	EXPECT_EQ(1, tell(c, TOUCH_HUGE));

	/* By cdm_access, from everybody */
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", "\n"));
	ASSERT_EQ(0, file_write(self->access, "listed"));
	EXPECT_EQ(0, tell(c, TOUCH_HUGE));
	EXPECT_EQ(1, c->in_ram);
	EXPECT_EQ(1, file_number(pool_file(self->nid, "free_hugepages")));
}

/* A rebind, and a device that comes and goes, keep what the policy and the group say */
TEST_F_TIMEOUT(cpuset, v2_hotplug, CDM_TIMEOUT)
{
	struct child *c = self->c;
	char one[16];

	groups_v2(_metadata);
	snprintf(one, sizeof(one), "%d", ram_node(0));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(NR, tell(c, TOUCH));
	EXPECT_EQ(NR, tell(c, TOUCH_STATIC));

	/* A rebind that drops the node does not lose the policy's, one that adds it back */
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", one));
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(0, tell(c, TOUCH_STATIC));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	EXPECT_EQ(NR, tell(c, TOUCH));
	EXPECT_EQ(NR, tell(c, TOUCH_STATIC));

	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(0, tell(c, TOUCH_STATIC));
	/* Listed while it is away */
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", one));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	EXPECT_EQ(0, tell(c, STATUS));
	EXPECT_EQ(0, c->coherent);
	ASSERT_EQ(self->nid, cdm_node_up("migrate"));
	EXPECT_EQ(NR, tell(c, TOUCH));
	EXPECT_EQ(NR, tell(c, TOUCH_STATIC));
	EXPECT_EQ(NR, tell(c, NAME));

	/* Not invented for a group without it */
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->mems));
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate"));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(0, tell(c, TOUCH_STATIC));
}

/* Somebody else moves the task's pages: both cpusets must let the node be had. */
TEST_F_TIMEOUT(cpuset, v2_moved_by_others, CDM_TIMEOUT)
{
	struct child *c = self->c;
	unsigned long to = NODE_BIT(self->nid);
	int status[NR], nodes[NR];
	void *pages[NR];
	size_t i;

	groups_v2(_metadata);
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->mems));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	ASSERT_EQ(0, tell(c, COLD));
	for (i = 0; i < NR; i++) {
		pages[i] = c->cold + i * PAGE_SIZE;
		nodes[i] = self->nid;
	}

	/* The task's own */
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->mems));
	EXPECT_EQ(-1, move_pages(self->pid, NR, pages, nodes, status, MPOL_MF_MOVE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(0, tell(c, WHERE));

	/* That of who moves: an ordinary node is no different */
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", 0));
	EXPECT_NE(0, move_pages(self->pid, NR, pages, nodes, status, MPOL_MF_MOVE));
	EXPECT_EQ(0, tell(c, WHERE));
	EXPECT_EQ(-1, migrate_pages(self->pid, 65, &self->ram, &to));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, tell(c, WHERE));

	/* Who inherits the node has not listed it. */
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->with));
	ASSERT_EQ(0, put_pid(V2, 0));
	ASSERT_EQ(0, file_write(self->access, "listed"));
	EXPECT_NE(0, move_pages(self->pid, NR, pages, nodes, status, MPOL_MF_MOVE));
	EXPECT_EQ(0, tell(c, WHERE));

	ASSERT_EQ(0, put_pid(V2 "/cdm/b", 0));
	EXPECT_EQ(0, move_pages(self->pid, NR, pages, nodes, status, MPOL_MF_MOVE));
	EXPECT_EQ(NR, tell(c, WHERE));
	ASSERT_EQ(0, file_write(self->access, "all"));

	/* migrate_pages() without privilege asks about the task, too */
	ASSERT_EQ(0, tell(c, DROP));
	ASSERT_EQ(0, tell(c, COLD));
	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", self->pid));
	ASSERT_EQ(0, drop_cap_sys_nice());
	EXPECT_EQ(-1, migrate_pages(self->pid, 65, &self->ram, &to));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, tell(c, WHERE));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_LE(0, migrate_pages(self->pid, 65, &self->ram, &to));
	EXPECT_EQ(NR_COLD, tell(c, WHERE));
}

/* And their huge pages, for which it is the pool that asks */
TEST_F_TIMEOUT(cpuset, v2_huge_page_moved_by_others, CDM_TIMEOUT)
{
	struct child *c = self->c;
	int status, node = self->nid;
	void *page;

	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate,hugetlb"));
	ASSERT_EQ(0, pool_set(self->nid, "1"));
	ASSERT_EQ(0, pool_set(ram_node(0), "1"));
	groups_v2(_metadata);
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->mems));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	c->nid = ram_node(0);
	ASSERT_EQ(1, tell(c, TOUCH_HUGE));
	page = c->huge;

	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", 0));
	EXPECT_NE(0, move_pages(self->pid, 1, &page, &node, &status, MPOL_MF_MOVE));
	EXPECT_EQ(1, file_number(pool_file(self->nid, "free_hugepages")));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", 0));
	EXPECT_EQ(0, move_pages(self->pid, 1, &page, &node, &status, MPOL_MF_MOVE));
	EXPECT_EQ(self->nid, status);
	EXPECT_EQ(0, file_number(pool_file(self->nid, "free_hugepages")));
	ASSERT_EQ(0, put_pid(V2, 0));
	kill_and_reap(self->pid);
	self->pid = -1;
	EXPECT_EQ(0, pool_set(ram_node(0), "0"));
}

/* Reclaim until half of the child's pages have left RAM. Those on the node */
static size_t demoted(struct __test_metadata *_metadata, struct child *c)
{
	char bytes[32];
	int i;

	snprintf(bytes, sizeof(bytes), "%zu", NR_COLD / 2 * PAGE_SIZE);
	tell(c, COLD);
	for (i = 0; i < 8 && c->in_ram > NR_COLD / 2; i++) {
		put(V2 "/cdm", "memory.reclaim", bytes);
		tell(c, WHERE);
	}
	TH_LOG("%zu of %zu pages on the node, %zu in RAM", c->there, NR_COLD,
	       c->in_ram);
	return c->there;
}

/* Nobody names anything, but mems and cdm_access hold for demotion, too */
TEST_F_TIMEOUT(cpuset, v2_demotion, CDM_TIMEOUT)
{
	struct child *c = self->c;

	ASSERT_EQ(self->nid, cdm_node_up("migrate,reclaim,swap,demotion"));
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(DEMOTION, "1"));
	ASSERT_EQ(0, mkdir(V2 "/cdm", 0755));
	ASSERT_EQ(0, put_pid(V2 "/cdm", self->pid));
	EXPECT_LT(NR_COLD / 4, demoted(_metadata, c));

	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->mems));
	EXPECT_EQ(0, demoted(_metadata, c));
	/* They went elsewhere */
	EXPECT_GT(NR_COLD, c->in_ram);
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->with));
	EXPECT_LT(NR_COLD / 4, demoted(_metadata, c));

	/* Who reclaims is in a group that does not list it; that does not matter. */
	ASSERT_EQ(0, file_write(self->access, "listed"));
	EXPECT_LT(NR_COLD / 4, demoted(_metadata, c));
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", "\n"));
	EXPECT_EQ(0, demoted(_metadata, c));
	EXPECT_GT(NR_COLD, c->in_ram);
}

/* /proc/PID/status */
TEST_F_TIMEOUT(cpuset, status, CDM_TIMEOUT)
{
	struct child *c = self->c;

	groups_v2(_metadata);
	EXPECT_EQ(0, tell(c, STATUS));
	EXPECT_EQ(NODE_BIT(self->nid), c->coherent);
	EXPECT_EQ(0, c->mems & NODE_BIT(self->nid));
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->mems));
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(0, tell(c, STATUS));
	EXPECT_EQ(0, c->coherent);
	EXPECT_EQ(self->ram, c->mems);
	ASSERT_EQ(0, put(V2 "/cdm/b", "cpuset.mems", self->with));
	EXPECT_EQ(0, tell(c, STATUS));
	EXPECT_EQ(NODE_BIT(self->nid), c->coherent);
	EXPECT_EQ(self->ram, c->mems);
}

/* "listed": to inherit is not enough, and each level from the top has to list it */
TEST_F_TIMEOUT(cpuset, access_listed, CDM_TIMEOUT)
{
	struct child *c = self->c;
	char text[16];

	groups_v2(_metadata);
	ASSERT_LT(0, file_read(self->access, text, sizeof(text)));
	EXPECT_STREQ("all", strtok(text, "\n"));
	EXPECT_EQ(-EINVAL, file_write(self->access, "some"));
	EXPECT_EQ(NR, tell(c, TOUCH));

	ASSERT_EQ(0, file_write(self->access, "listed"));
	ASSERT_LT(0, file_read(self->access, text, sizeof(text)));
	EXPECT_STREQ("listed", strtok(text, "\n"));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	EXPECT_EQ(-EACCES, tell(c, MOVE));
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(NR, tell(c, COUNT));

	/* Who owns the lower level only cannot give it to himself */
	ASSERT_EQ(0, put_pid(V2 "/cdm/a/b", self->pid));
	ASSERT_EQ(0, put(V2 "/cdm/a/b", "cpuset.mems", self->with));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	EXPECT_EQ(0, tell(c, TOUCH));
	ASSERT_EQ(0, put(V2 "/cdm/a", "cpuset.mems", self->with));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	ASSERT_EQ(0, put(V2 "/cdm", "cpuset.mems", self->with));
	EXPECT_EQ(NR, tell(c, NAME));
	EXPECT_EQ(NR, tell(c, TOUCH));
	/* Listed above, inherited below */
	ASSERT_EQ(0, put_pid(V2 "/cdm/b", self->pid));
	EXPECT_EQ(NR, tell(c, NAME));

	/* It holds for the device, not for as long as it has a driver */
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate"));
	ASSERT_LT(0, file_read(self->access, text, sizeof(text)));
	EXPECT_STREQ("listed", strtok(text, "\n"));
	ASSERT_EQ(0, put_pid(V2, self->pid));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	ASSERT_EQ(0, file_write(self->access, "all"));
	EXPECT_EQ(NR, tell(c, NAME));
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("migrate"));
	ASSERT_LT(0, file_read(self->access, text, sizeof(text)));
	EXPECT_STREQ("all", strtok(text, "\n"));
}

/*
 * The legacy hierarchy: mems must list the node, and shows it; nothing is
 * inherited.
 */
TEST_F_TIMEOUT(cpuset, v1, CDM_TIMEOUT)
{
	struct child *c = self->c;
	char text[256];

	ASSERT_EQ(0, file_write(V2 "/cgroup.subtree_control", "-cpuset"));
	mkdir(V1, 0755);
	ASSERT_TRUE(wait_for(!mount("cpuset", V1, "cgroup", 0, "cpuset")));
	EXPECT_EQ(NR, tell(c, NAME));

	ASSERT_EQ(0, mkdir(V1 "/a", 0755));
	ASSERT_LT(0, file_read(V1 "/cpuset.cpus", text, sizeof(text)));
	ASSERT_EQ(0, put(V1 "/a", "cpuset.cpus", text));
	/* Everybody copies the top's mems: it has no device */
	EXPECT_EQ(self->ram, get_list(V1, "cpuset.mems"));

	ASSERT_EQ(0, put(V1 "/a", "cpuset.mems", self->mems));
	ASSERT_EQ(0, put_pid(V1 "/a", self->pid));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	EXPECT_EQ(-EACCES, tell(c, MOVE));
	ASSERT_EQ(0, put(V1 "/a", "cpuset.mems", self->with));
	EXPECT_EQ(self->ram | NODE_BIT(self->nid), get_list(V1 "/a", "cpuset.mems"));
	EXPECT_EQ(self->ram, get_list(V1 "/a", "cpuset.effective_mems"));
	EXPECT_EQ(NR, tell(c, NAME));
	EXPECT_EQ(NR, tell(c, TOUCH));
	EXPECT_EQ(0, tell(c, STATUS));
	EXPECT_EQ(NODE_BIT(self->nid), c->coherent);
	EXPECT_EQ(self->ram, c->mems);

	/* Page cache in turns on all nodes, in this cpuset: on all ordinary ones */
	ASSERT_EQ(0, put(V1 "/a", "cpuset.memory_spread_page", "1"));
	EXPECT_EQ(0, tell(c, SPREAD));
	EXPECT_LE(NR_SPREAD / 4, c->in_ram);
	ASSERT_EQ(0, put(V1 "/a", "cpuset.memory_spread_page", "0"));

	/* A device that goes and comes back is still listed */
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(self->ram, get_list(V1 "/a", "cpuset.mems"));
	EXPECT_EQ(0, tell(c, TOUCH));
	ASSERT_EQ(self->nid, cdm_node_up("migrate"));
	EXPECT_EQ(self->ram | NODE_BIT(self->nid), get_list(V1 "/a", "cpuset.mems"));
	EXPECT_EQ(NR, tell(c, TOUCH));

	/* A child has no more than its parent, and loses it with it */
	ASSERT_EQ(0, mkdir(V1 "/a/b", 0755));
	ASSERT_EQ(0, put(V1 "/a/b", "cpuset.cpus", text));
	ASSERT_EQ(0, put(V1 "/a/b", "cpuset.mems", self->with));
	ASSERT_EQ(0, put_pid(V1 "/a/b", self->pid));
	EXPECT_EQ(NR, tell(c, TOUCH));
	ASSERT_EQ(0, put(V1 "/a", "cpuset.mems", self->mems));
	EXPECT_EQ(0, tell(c, TOUCH));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	ASSERT_EQ(0, put(V1 "/a/b", "cpuset.mems", self->mems));
	EXPECT_EQ(-EACCES, put(V1 "/a/b", "cpuset.mems", self->with));

	/* Listed there, all the same */
	ASSERT_EQ(0, put(V1 "/a", "cpuset.mems", self->with));
	ASSERT_EQ(0, put_pid(V1 "/a", self->pid));
	ASSERT_EQ(0, file_write(self->access, "listed"));
	EXPECT_EQ(NR, tell(c, NAME));
	ASSERT_EQ(0, put_pid(V1, self->pid));
	EXPECT_EQ(-EINVAL, tell(c, NAME));
	ASSERT_EQ(0, file_write(self->access, "all"));
	EXPECT_EQ(NR, tell(c, NAME));
}

TEST_HARNESS_MAIN
