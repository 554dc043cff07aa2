// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "hugetlb": the node has a pool of huge pages only where the driver
 * allows it, whichever file the admin writes to. Where it has one, this is a
 * class of its own: who names the node gets pages of it, while the counters and
 * the reservations of the ordinary pool are as if there were no device.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	4
#define SEED	0x600d0000UL
#define GLOBAL	"/sys/kernel/mm/hugepages/" HUGETLB_SIZE

FIXTURE(hugetlb)
{
	int nid;
	int ram;
};

FIXTURE_VARIANT(hugetlb)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(hugetlb, denied)
{
	.caps = "migrate,thp",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(hugetlb, allowed)
{
	.caps = "hugetlb,migrate",
	.allowed = true,
};

static long long pool_free(int nid)
{
	return file_number(pool_file(nid, "free_hugepages"));
}

/* A line of /proc/meminfo */
static long long ordinary(const char *name)
{
	long long value = -1;
	char line[128];
	FILE *f;

	f = fopen("/proc/meminfo", "r");
	if (!f)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			value = strtoll(line + strlen(name) + 1, NULL, 10);
	fclose(f);
	return value;
}

/* The ordinary pool: pages, free, reserved, surplus */
#define expect_ordinary(total, free, rsvd, surplus)			\
do {									\
	EXPECT_EQ(total, ordinary("HugePages_Total"));			\
	EXPECT_EQ(free, ordinary("HugePages_Free"));			\
	EXPECT_EQ(rsvd, ordinary("HugePages_Rsvd"));			\
	EXPECT_EQ(surplus, ordinary("HugePages_Surp"));			\
} while (0)

/* The pool of the device: pages, free, surplus; of a denied node, nothing */
#define expect_device(total, free, surplus)				\
do {									\
	EXPECT_EQ(variant->allowed ? (total) : 0, pool_size(self->nid));	\
	EXPECT_EQ(variant->allowed ? (free) : 0, pool_free(self->nid));	\
	EXPECT_EQ(variant->allowed ? (surplus) : 0,			\
		  file_number(pool_file(self->nid, "surplus_hugepages")));	\
} while (0)

/* The pool that a device which allows it has in most tests */
#define fill_pool(nr)							\
	ASSERT_EQ(variant->allowed ? 0 : -EOPNOTSUPP, pool_set(self->nid, nr))

static int bind_huge(char *addr, size_t nr, int mode, int nid, int flags)
{
	return bind_pages(addr, nr * HUGE / PAGE_SIZE, mode, NODE_BIT(nid), flags);
}

static size_t huge_on(char *addr, size_t nr, int nid)
{
	return pages_on(addr, nr, HUGE, nid);
}

/* What a child does: map, bind if there is a mode, and write to each page */
struct work {
	size_t nr;
	int flags;
	int mode;
	int nid;
	size_t on;	/* so many must then be on the node */
};

static int map_and_write(void *arg)
{
	struct work *w = arg;
	char *addr = map_huge(w->nr, w->flags);

	if (addr == MAP_FAILED)
		return 10;
	if (w->mode && bind_huge(addr, w->nr, w->mode, w->nid, 0))
		return 11;
	fill_pages(addr, w->nr, HUGE, SEED);
	return huge_on(addr, w->nr, w->nid) == w->on ? 0 : 12;
}

FIXTURE_SETUP(hugetlb)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, pool_size(self->nid));
	ASSERT_EQ(0, setting(GLOBAL "/nr_hugepages", "0"));
	ASSERT_EQ(0, setting(GLOBAL "/nr_overcommit_hugepages", "0"));
}

FIXTURE_TEARDOWN_PARENT(hugetlb)
{
	memcg_remove();
	if (cdm_node() >= 0)
		EXPECT_EQ(0, pool_set(cdm_node(), "0"));
	settings_restore();
	/* Whatever happened, nothing is reserved or left over */
	EXPECT_EQ(0, ordinary("HugePages_Rsvd"));
	EXPECT_EQ(0, ordinary("HugePages_Surp"));
}

static int gigantic_set(int nid, const char *nr)
{
	char path[128];

	snprintf(path, sizeof(path),
		 NODE_SYSFS "/node%d/hugepages/hugepages-1048576kB/nr_hugepages", nid);
	return file_write(path, nr);
}

/* The file of the node */
TEST_F_TIMEOUT(hugetlb, node_pool, CDM_TIMEOUT)
{
	struct node_use use;

	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP, pool_set(self->nid, "4"));
	EXPECT_EQ(variant->allowed ? NR : 0, pool_size(self->nid));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_EQ(variant->allowed ? NR * 512 : 0, use.huge);
	/* Control: an ordinary node */
	EXPECT_EQ(0, pool_set(self->ram, "4"));
	EXPECT_EQ(NR, pool_size(self->ram));

	/* Neither are there gigantic ones, for which it would be too small anyway */
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP, gigantic_set(self->nid, "1"));
	EXPECT_EQ(0, gigantic_set(self->ram, "0"));

	/* To shrink is no use of the node */
	EXPECT_EQ(0, pool_set(self->nid, "0"));
	EXPECT_EQ(0, pool_size(self->nid));
	EXPECT_EQ(0, pool_set(self->ram, "0"));
}

/* The file for all nodes never means the device */
TEST_F_TIMEOUT(hugetlb, global_pool, CDM_TIMEOUT)
{
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "8"));
	EXPECT_EQ(0, pool_size(self->nid));
	EXPECT_LT(0, pool_size(self->ram));
}

/* The file that obeys the writer's policy, of a writer who names the node */
TEST_F_TIMEOUT(hugetlb, mempolicy_pool, CDM_TIMEOUT)
{
	unsigned long node = NODE_BIT(self->nid);

	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &node, 64));
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP,
		  file_write(GLOBAL "/nr_hugepages_mempolicy", "4"));
	expect_device(NR, NR, 0);
	/* It is the size that is written, not what to add */
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP,
		  file_write(GLOBAL "/nr_hugepages_mempolicy", "3"));
	expect_device(3, 3, 0);
	EXPECT_EQ(0, ordinary("HugePages_Total"));

	/* With ordinary nodes beside it, these are meant */
	node |= NODE_BIT(self->ram);
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &node, 64));
	EXPECT_EQ(0, file_write(GLOBAL "/nr_hugepages_mempolicy", "2"));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	expect_device(3, 3, 0);
	expect_ordinary(2, 2, 0, 0);

	/* Control: the same for an ordinary node */
	ASSERT_EQ(0, pool_set(self->nid, "0"));
	node = NODE_BIT(self->ram);
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &node, 64));
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages_mempolicy", "4"));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(NR, pool_size(self->ram));
}

/* A node leaves with the free pages of its pool */
TEST_F_TIMEOUT(hugetlb, pool_leaves, CDM_TIMEOUT)
{
	int ret = pool_set(self->nid, "4");

	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP, ret);
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(0, file_number(GLOBAL "/nr_hugepages"));
}

/* No global counter knows of the device, and no global file changes its pool */
TEST_F_TIMEOUT(hugetlb, counters, CDM_TIMEOUT)
{
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "2"));
	fill_pool("4");
	expect_ordinary(2, 2, 0, 0);
	expect_device(4, 4, 0);
	EXPECT_EQ(variant->allowed ? 4 : 0,
		  node_meminfo(self->nid, "HugePages_Total"));

	EXPECT_EQ(0, file_write(GLOBAL "/nr_hugepages", "3"));
	EXPECT_EQ(0, file_write("/proc/sys/vm/nr_hugepages", "4"));
	expect_ordinary(4, 4, 0, 0);
	expect_device(4, 4, 0);
	EXPECT_EQ(0, file_write(GLOBAL "/nr_hugepages", "1"));
	expect_ordinary(1, 1, 0, 0);
	expect_device(4, 4, 0);

	if (variant->allowed) {
		EXPECT_EQ(0, pool_set(self->nid, "2"));
		expect_device(2, 2, 0);
		EXPECT_EQ(0, pool_set(self->nid, "3"));
		expect_device(3, 3, 0);
	}
	expect_ordinary(1, 1, 0, 0);
	EXPECT_EQ(1, file_number("/proc/sys/vm/nr_hugepages"));
	EXPECT_EQ(1, file_number(GLOBAL "/nr_hugepages"));
	EXPECT_EQ(1, file_number(GLOBAL "/free_hugepages"));

	/* Control: what an ordinary node has counts */
	EXPECT_EQ(0, pool_set(self->ram, "0"));
	EXPECT_EQ(0, pool_set(ram_node(1), "0"));
	EXPECT_EQ(0, pool_set(self->ram, "4"));
	expect_ordinary(4, 4, 0, 0);
	expect_device(3, 3, 0);
	EXPECT_EQ(0, pool_set(self->nid, "0"));
	expect_ordinary(4, 4, 0, 0);
}

struct two {
	size_t nr;
	int mapped;
	int go;
};

static int map_wait_write(void *arg)
{
	struct two *t = arg;
	char *addr = map_huge(t->nr, 0);

	WRITE_ONCE(t->mapped, addr == MAP_FAILED ? -1 : 1);
	if (addr == MAP_FAILED || !wait_for(READ_ONCE(t->go)))
		return 10;
	fill_pages(addr, t->nr, HUGE, SEED);
	return huge_on(addr, t->nr, cdm_node()) ? 12 : 0;
}

/*
 * Two processes reserve one half of the ordinary pool and one half and a page.
 * The pages of the device do not make up for that page: the second mmap() fails,
 * and who has reserved pages gets them.
 */
TEST_F_TIMEOUT(hugetlb, half_and_half, CDM_TIMEOUT)
{
	struct two *t = shared_page();
	char *addr;
	pid_t pid;

	ASSERT_NE(NULL, t);
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "8"));
	fill_pool("8");
	t->nr = 4;
	pid = spawn(map_wait_write, t);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(wait_for(READ_ONCE(t->mapped)));
	EXPECT_EQ(1, t->mapped);
	expect_ordinary(8, 8, 4, 0);

	addr = map_huge(5, 0);
	EXPECT_EQ(MAP_FAILED, addr);
	EXPECT_EQ(ENOMEM, errno);
	expect_ordinary(8, 8, 4, 0);
	/* Control: one less is there */
	addr = map_huge(4, 0);
	ASSERT_NE(MAP_FAILED, addr);
	expect_ordinary(8, 8, 8, 0);
	fill_pages(addr, 4, HUGE, SEED);
	EXPECT_EQ(0, huge_on(addr, 4, self->nid));
	WRITE_ONCE(t->go, 1);
	EXPECT_EQ(0, reap(pid));
	expect_ordinary(8, 4, 0, 0);
	expect_device(8, 8, 0);
	munmap(addr, 4 * HUGE);
	expect_ordinary(8, 8, 0, 0);
}

/* Who does not name the node gets none of it, even if there is nothing else */
TEST_F_TIMEOUT(hugetlb, not_named, CDM_TIMEOUT)
{
	struct work w = { .nr = 1, .flags = MAP_NORESERVE };

	fill_pool("4");
	EXPECT_EQ(MAP_FAILED, map_huge(1, 0));
	EXPECT_EQ(-SIGBUS, reap(spawn(map_and_write, &w)));
	/* Nor does who names another */
	w.mode = MPOL_PREFERRED;
	w.nid = self->ram;
	EXPECT_EQ(-SIGBUS, reap(spawn(map_and_write, &w)));
	expect_device(4, 4, 0);

	/* Control: an ordinary page is for all */
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "1"));
	w.mode = MPOL_DEFAULT;
	w.nid = self->nid;
	EXPECT_EQ(0, reap(spawn(map_and_write, &w)));
	expect_ordinary(1, 1, 0, 0);
}

/* By the policy of the task: it needs no ordinary pages, and reserves none */
TEST_F_TIMEOUT(hugetlb, task_policy, CDM_TIMEOUT)
{
	unsigned long node = NODE_BIT(self->nid);
	char *addr, *more;

	fill_pool("4");
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &node, 64));
	addr = map_huge(2, 0);
	if (variant->allowed) {
		ASSERT_NE(MAP_FAILED, addr);
		expect_ordinary(0, 0, 0, 0);
		fill_pages(addr, 2, HUGE, SEED);
		EXPECT_EQ(2, huge_on(addr, 2, self->nid));
		expect_device(4, 2, 0);
		/* More than there is */
		EXPECT_EQ(MAP_FAILED, map_huge(3, 0));
		EXPECT_EQ(2, pages_intact(addr, 2, HUGE, SEED));
		munmap(addr, 2 * HUGE);
		expect_device(4, 4, 0);
	} else {
		EXPECT_EQ(MAP_FAILED, addr);
	}

	/* The same with ordinary pages at hand: only the denied node is no place */
	ASSERT_EQ(0, pool_set(self->ram, "4"));
	addr = map_huge(2, 0);
	ASSERT_NE(MAP_FAILED, addr);
	expect_ordinary(4, 4, variant->allowed ? 0 : 2, 0);
	fill_pages(addr, 2, HUGE, SEED);
	EXPECT_EQ(variant->allowed ? 2 : 0, huge_on(addr, 2, self->nid));
	expect_ordinary(4, variant->allowed ? 4 : 2, 0, 0);

	/* With an ordinary node beside it, nearer ones come first */
	node |= NODE_BIT(self->ram);
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &node, 64));
	more = map_huge(1, 0);
	ASSERT_NE(MAP_FAILED, more);
	fill_pages(more, 1, HUGE, SEED);
	EXPECT_EQ(0, huge_on(more, 1, self->nid));
	munmap(more, HUGE);
	munmap(addr, 2 * HUGE);
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	expect_ordinary(4, 4, 0, 0);
	expect_device(4, 4, 0);

	/* Control: who is bound to an ordinary node reserves as ever */
	node = NODE_BIT(self->ram);
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &node, 64));
	addr = map_huge(1, 0);
	ASSERT_NE(MAP_FAILED, addr);
	expect_ordinary(4, 4, 1, 0);
	munmap(addr, HUGE);
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	expect_ordinary(4, 4, 0, 0);
}

/*
 * By mbind(), after mmap() has reserved ordinary pages: each page from the device
 * gives one of these back, at once and only once.
 */
TEST_F_TIMEOUT(hugetlb, named_by_mbind, CDM_TIMEOUT)
{
	static const int kinds[] = { MAP_PRIVATE, MAP_SHARED };
	bool allowed = variant->allowed;
	char *addr, *other;
	size_t i;

	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "4"));
	fill_pool("4");
	for (i = 0; i < 2; i++) {
		addr = map_huge(4, kinds[i]);
		ASSERT_NE(MAP_FAILED, addr);
		expect_ordinary(4, 4, 4, 0);
		EXPECT_EQ(MAP_FAILED, map_huge(1, 0));
		ASSERT_EQ(0, bind_huge(addr, 4, MPOL_BIND, self->nid, 0));
		fill_pages(addr, 2, HUGE, SEED);
		EXPECT_EQ(allowed ? 2 : 0, huge_on(addr, 2, self->nid));
		expect_ordinary(4, allowed ? 4 : 2, 2, 0);
		expect_device(4, 2, 0);
		/* What was given back is for others */
		if (allowed) {
			other = map_huge(2, 0);
			ASSERT_NE(MAP_FAILED, other);
			fill_pages(other, 2, HUGE, SEED);
			EXPECT_EQ(0, huge_on(other, 2, self->nid));
			munmap(other, 2 * HUGE);
		}
		fill_pages(addr + 2 * HUGE, 2, HUGE, SEED);
		EXPECT_EQ(2, pages_intact(addr, 2, HUGE, SEED));
		expect_ordinary(4, allowed ? 4 : 0, 0, 0);
		expect_device(4, 0, 0);

		/* A page of the device is no ordinary one when it is free, either */
		if (kinds[i] == MAP_PRIVATE) {
			ASSERT_EQ(0, madvise(addr, 4 * HUGE, MADV_DONTNEED));
			expect_ordinary(4, 4, allowed ? 0 : 4, 0);
			expect_device(4, 4, 0);
			fill_pages(addr, 4, HUGE, SEED);
			EXPECT_EQ(allowed ? 4 : 0, huge_on(addr, 4, self->nid));
			expect_ordinary(4, allowed ? 4 : 0, 0, 0);
		}
		munmap(addr, 4 * HUGE);
		expect_ordinary(4, 4, 0, 0);
		expect_device(4, 4, 0);
	}
}

/* What was reserved and not used goes back with its task */
TEST_F_TIMEOUT(hugetlb, exit_gives_back, CDM_TIMEOUT)
{
	struct work w = { .nr = 4, .mode = MPOL_BIND, .nid = self->nid };

	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "4"));
	fill_pool("2");
	w.on = variant->allowed ? 4 : 0;
	/* The pool of the device is too small: its own error */
	EXPECT_EQ(variant->allowed ? -SIGBUS : 0, reap(spawn(map_and_write, &w)));
	expect_ordinary(4, 4, 0, 0);
	expect_device(2, 2, 0);
	/* Not so for who would rather have pages there */
	w.mode = MPOL_PREFERRED;
	w.on = variant->allowed ? 2 : 0;
	EXPECT_EQ(0, reap(spawn(map_and_write, &w)));
	expect_ordinary(4, 4, 0, 0);
	expect_device(2, 2, 0);
}

/* A page that is copied on write is copied to where the policy says */
TEST_F_TIMEOUT(hugetlb, copy_on_write, CDM_TIMEOUT)
{
	int *go = shared_page();
	char *addr;
	pid_t pid;

	ASSERT_NE(NULL, go);
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "2"));
	fill_pool("2");
	addr = map_huge(1, 0);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_huge(addr, 1, MPOL_BIND, self->nid, 0));
	fill_page(addr, SEED);
	expect_ordinary(2, variant->allowed ? 2 : 1, 0, 0);
	pid = fork();
	if (!pid)
		_exit(wait_for(READ_ONCE(*go)) && page_is(addr, SEED) ? 0 : 1);
	fill_page(addr, SEED + 1);
	EXPECT_EQ(variant->allowed ? 1 : 0, huge_on(addr, 1, self->nid));
	expect_device(2, 0, 0);
	WRITE_ONCE(*go, 1);
	EXPECT_EQ(0, reap(pid));
	EXPECT_TRUE(page_is(addr, SEED + 1));
	munmap(addr, HUGE);
	expect_ordinary(2, 2, 0, 0);
	expect_device(2, 2, 0);
}

/* Surplus pages are ordinary; a device has only those that had to stay */
TEST_F_TIMEOUT(hugetlb, surplus, CDM_TIMEOUT)
{
	char *addr;

	fill_pool("4");
	ASSERT_EQ(0, file_write(GLOBAL "/nr_overcommit_hugepages", "2"));
	addr = map_huge(2, 0);
	ASSERT_NE(MAP_FAILED, addr);
	expect_ordinary(2, 2, 2, 2);
	EXPECT_EQ(MAP_FAILED, map_huge(1, 0));
	ASSERT_EQ(0, bind_huge(addr, 2, MPOL_BIND, self->nid, 0));
	fill_pages(addr, 2, HUGE, SEED);
	if (variant->allowed)
		expect_ordinary(0, 0, 0, 0);
	else
		expect_ordinary(2, 0, 0, 2);
	expect_device(4, 2, 0);

	if (variant->allowed) {
		EXPECT_EQ(0, pool_set(self->nid, "1"));
		expect_device(2, 0, 1);
		EXPECT_EQ(0, pool_set(self->nid, "0"));
		expect_device(2, 0, 2);
		expect_ordinary(0, 0, 0, 0);
	}
	munmap(addr, 2 * HUGE);
	expect_device(0, 0, 0);
	expect_ordinary(0, 0, 0, 0);

	/* Control */
	addr = map_huge(2, 0);
	ASSERT_NE(MAP_FAILED, addr);
	fill_pages(addr, 2, HUGE, SEED);
	EXPECT_EQ(0, huge_on(addr, 2, self->nid));
	expect_ordinary(2, 0, 0, 2);
	munmap(addr, 2 * HUGE);
	expect_ordinary(0, 0, 0, 0);
}

/*
 * A device leaves though all ordinary pages are reserved. What was in use is in
 * ordinary memory, and the ordinary pool has its size when that has gone.
 */
TEST_F_TIMEOUT(hugetlb, pages_leave, CDM_TIMEOUT)
{
	char *addr, *other;

	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "2"));
	fill_pool("4");
	other = map_huge(2, 0);
	ASSERT_NE(MAP_FAILED, other);
	addr = map_huge(2, MAP_NORESERVE);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_huge(addr, 2, MPOL_BIND, self->nid, 0));
	if (variant->allowed)
		fill_pages(addr, 2, HUGE, SEED);
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
	if (variant->allowed) {
		EXPECT_EQ(2, pages_intact(addr, 2, HUGE, SEED));
		EXPECT_EQ(2, huge_on(addr, 2, ram_node(0)) +
			     huge_on(addr, 2, ram_node(1)));
		expect_ordinary(4, 2, 2, 2);
	} else {
		expect_ordinary(2, 2, 2, 0);
	}
	/* Nobody has got what others had reserved */
	fill_pages(other, 2, HUGE, SEED);
	munmap(addr, 2 * HUGE);
	expect_ordinary(2, 0, 0, 0);
	munmap(other, 2 * HUGE);
	expect_ordinary(2, 2, 0, 0);
	EXPECT_EQ(2, file_number("/proc/sys/vm/nr_hugepages"));
	/* The node comes back as it was at first */
	EXPECT_EQ(self->nid, cdm_node_up(variant->caps));
	EXPECT_EQ(0, pool_size(self->nid));
	EXPECT_EQ(0, pool_free(self->nid));
}

/* A page moves from pool to pool, which keep their sizes */
TEST_F_TIMEOUT(hugetlb, moves, CDM_TIMEOUT)
{
	char *addr, *other;
	int status[1];

	/* All of one node, which the way back is to */
	ASSERT_EQ(0, pool_set(self->ram, "2"));
	fill_pool("1");
	addr = map_huge(2, 0);
	ASSERT_NE(MAP_FAILED, addr);
	fill_pages(addr, 2, HUGE, SEED);
	move_to(addr, 1, HUGE, self->nid, status);
	EXPECT_EQ(variant->allowed ? self->nid : -EOPNOTSUPP, status[0]);
	EXPECT_EQ(variant->allowed ? 1 : 0, huge_on(addr, 2, self->nid));
	expect_ordinary(2, variant->allowed ? 1 : 0, 0, 0);
	expect_device(1, 0, 0);
	/* That was the only one */
	move_to(addr + HUGE, 1, HUGE, self->nid, status);
	EXPECT_EQ(0, huge_on(addr + HUGE, 1, self->nid));
	EXPECT_EQ(2, pages_intact(addr, 2, HUGE, SEED));
	expect_ordinary(2, variant->allowed ? 1 : 0, 0, 0);

	if (variant->allowed) {
		/* Nor is there a way back while all ordinary ones are taken */
		other = map_huge(1, 0);
		ASSERT_NE(MAP_FAILED, other);
		fill_pages(other, 1, HUGE, SEED);
		move_to(addr, 1, HUGE, self->ram, status);
		EXPECT_EQ(1, huge_on(addr, 1, self->nid));
		expect_ordinary(2, 0, 0, 0);
		munmap(other, HUGE);
		move_to(addr, 1, HUGE, self->ram, status);
		EXPECT_EQ(0, huge_on(addr, 1, self->nid));
		expect_ordinary(2, 0, 0, 0);
		expect_device(1, 1, 0);
	}

	/* By mbind() */
	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_huge(addr, 1, MPOL_BIND, self->nid,
			    MPOL_MF_MOVE | MPOL_MF_STRICT));
	EXPECT_EQ(variant->allowed ? 1 : 0, huge_on(addr, 1, self->nid));
	EXPECT_EQ(2, pages_intact(addr, 2, HUGE, SEED));
	expect_ordinary(2, variant->allowed ? 1 : 0, 0, 0);
	expect_device(1, 0, 0);
	munmap(addr, 2 * HUGE);
	expect_ordinary(2, 2, 0, 0);
	expect_device(1, 1, 0);
}

/* What a mount of hugetlbfs has set aside for its files is ordinary */
TEST_F_TIMEOUT(hugetlb, mount_minimum, CDM_TIMEOUT)
{
	char dir[] = "/tmp/cdm-hugetlb-XXXXXX", path[64];
	int fd, status[1];
	char *addr;

	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "4"));
	fill_pool("4");
	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("none", dir, "hugetlbfs", 0, "pagesize=2M,min_size=4M"));
	expect_ordinary(4, 4, 2, 0);
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	EXPECT_LE(0, fd);
	addr = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT_NE(MAP_FAILED, addr);
	if (addr != MAP_FAILED) {
		EXPECT_EQ(0, bind_huge(addr, 2, MPOL_BIND, self->nid, 0));
		fill_pages(addr, 2, HUGE, SEED);
		EXPECT_EQ(0, huge_on(addr, 2, self->nid));
		move_to(addr, 1, HUGE, self->nid, status);
		EXPECT_EQ(-EOPNOTSUPP, status[0]);
		expect_ordinary(4, 2, 0, 0);
		munmap(addr, 2 * HUGE);
	}
	close(fd);
	unlink(path);
	expect_ordinary(4, 4, 2, 0);
	EXPECT_EQ(0, umount(dir));
	rmdir(dir);
	expect_ordinary(4, 4, 0, 0);
	expect_device(4, 4, 0);
}

/* Pages that userfaultfd fills are no others than those of a fault. */
TEST_F_TIMEOUT(hugetlb, userfaultfd, CDM_TIMEOUT)
{
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_copy copy = { .len = HUGE };
	char *addr, *source;
	int fd, i;

	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages", "3"));
	fill_pool("2");
	source = filled_pages_on(HUGE_NR, self->ram, SEED);
	ASSERT_NE(NULL, source);
	addr = map_huge(2, 0);
	ASSERT_NE(MAP_FAILED, addr);
	expect_ordinary(3, 3, 2, 0);
	ASSERT_EQ(0, bind_huge(addr, 2, MPOL_BIND, self->nid, 0));
	fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	range.range.start = (unsigned long)addr;
	range.range.len = 2 * HUGE;
	ASSERT_EQ(0, ioctl(fd, UFFDIO_REGISTER, &range));
	for (i = 0; i < 2; i++) {
		copy.src = (unsigned long)source;
		copy.dst = (unsigned long)addr + i * HUGE;
		copy.copy = 0;
		ASSERT_EQ(0, ioctl(fd, UFFDIO_COPY, &copy));
		EXPECT_EQ(HUGE_NR, pages_intact(addr + i * HUGE, HUGE_NR, PAGE_SIZE,
						SEED));
	}
	close(fd);
	EXPECT_EQ(variant->allowed ? 2 : 0, huge_on(addr, 2, self->nid));
	expect_ordinary(3, variant->allowed ? 3 : 1, 0, 0);
	expect_device(2, 0, 0);
	munmap(addr, 2 * HUGE);
	expect_ordinary(3, 3, 0, 0);
	expect_device(2, 2, 0);
}

/* Pages of the node that are charged to the cgroup, or -1 */
static long long cgroup_pages_on(int nid)
{
	char text[1024], node[16], *pos;

	if (file_read("/sys/fs/cgroup/cdm_test/hugetlb.2MB.numa_stat", text,
		      sizeof(text)) < 0)
		return -1;
	snprintf(node, sizeof(node), " N%d=", nid);
	pos = strstr(text, node);
	return pos ? strtoll(pos + strlen(node), NULL, 10) / (long long)HUGE : -1;
}

struct limited {
	int nid;
	int mode;
	size_t filled;
	long long charged;
	long long on;
};

/* One more than the cgroup may have */
static int limited(void *arg)
{
	struct limited *l = arg;
	char *addr;

	if (memcg_join())
		return 10;
	addr = map_huge(3, MAP_NORESERVE);
	if (addr == MAP_FAILED || bind_huge(addr, 3, l->mode, l->nid, 0))
		return 11;
	for (; l->filled < 3; l->filled++) {
		fill_page(addr + l->filled * HUGE, SEED);
		l->charged = file_number("/sys/fs/cgroup/cdm_test/hugetlb.2MB.current");
		l->on = cgroup_pages_on(l->nid);
	}
	return 0;
}

/* Whoever limits huge pages limits those of a device, too. */
TEST_F_TIMEOUT(hugetlb, cgroup_limit, CDM_TIMEOUT)
{
	struct limited *l = shared_page();
	int i;

	ASSERT_NE(NULL, l);
	ASSERT_EQ(0, pool_set(self->ram, "4"));
	fill_pool("4");
	for (i = 0; i < 2; i++) {
		/* Control: the node of RAM */
		*l = (struct limited) {
			.nid = i ? self->ram : self->nid,
			.mode = MPOL_BIND,
		};
		ASSERT_EQ(0, memcg_create());
		ASSERT_EQ(0, memcg_set("hugetlb.2MB.max", 2 * HUGE));
		EXPECT_EQ(-SIGBUS, reap(spawn(limited, l)));
		EXPECT_EQ(2, l->filled);
		EXPECT_EQ(2 * (long long)HUGE, l->charged);
		EXPECT_EQ(i || variant->allowed ? 2 : 0, l->on);
		EXPECT_EQ(0, cgroup_pages_on(l->nid));
		memcg_remove();
	}
	expect_device(4, 4, 0);
}

/*
 * What else the mask says holds for pages of the pool, too: here the pool is
 * allowed in each case, and the rest or nothing.
 */
FIXTURE(hugetlb_page)
{
	int nid;
	int ram;
	char *addr;
	char *other;
};

FIXTURE_VARIANT(hugetlb_page)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(hugetlb_page, denied)
{
	.caps = "hugetlb",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(hugetlb_page, allowed)
{
	.caps = "hugetlb,migrate,soft_offline",
	.allowed = true,
};

/* One page of the device, one of RAM, and room for them elsewhere */
FIXTURE_SETUP(hugetlb_page)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, setting(GLOBAL "/nr_hugepages", "0"));
	ASSERT_EQ(0, pool_set(self->ram, "3"));
	ASSERT_EQ(0, pool_set(ram_node(1), "2"));
	ASSERT_EQ(0, pool_set(self->nid, "2"));
	self->addr = map_huge(1, MAP_NORESERVE);
	ASSERT_NE(MAP_FAILED, self->addr);
	ASSERT_EQ(0, bind_huge(self->addr, 1, MPOL_BIND, self->nid, 0));
	fill_pages(self->addr, HUGE_NR, PAGE_SIZE, SEED);
	ASSERT_EQ(1, huge_on(self->addr, 1, self->nid));
	self->other = map_huge(1, MAP_NORESERVE);
	ASSERT_NE(MAP_FAILED, self->other);
	ASSERT_EQ(0, bind_huge(self->other, 1, MPOL_BIND, self->ram, 0));
	fill_pages(self->other, HUGE_NR, PAGE_SIZE, SEED);
	ASSERT_EQ(1, huge_on(self->other, 1, self->ram));
}

FIXTURE_TEARDOWN_PARENT(hugetlb_page)
{
	if (cdm_node() >= 0)
		pool_set(cdm_node(), "0");
	settings_restore();
}

TEST_F_TIMEOUT(hugetlb_page, moves, CDM_TIMEOUT)
{
	int far = ram_node(1), status[1];

	/* Control */
	move_to(self->other, 1, HUGE, far, status);
	EXPECT_EQ(far, status[0]);
	EXPECT_EQ(1, huge_on(self->other, 1, far));

	move_to(self->addr, 1, HUGE, self->ram, status);
	EXPECT_EQ(variant->allowed ? self->ram : -EOPNOTSUPP, status[0]);
	EXPECT_EQ(variant->allowed ? 0 : 1, huge_on(self->addr, 1, self->nid));
	move_to(self->other, 1, HUGE, self->nid, status);
	EXPECT_EQ(variant->allowed ? self->nid : -EOPNOTSUPP, status[0]);
	EXPECT_EQ(variant->allowed ? 1 : 0, huge_on(self->other, 1, self->nid));
	/* By a policy: nobody asks before there is a page for it. */
	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_huge(self->other, 1, MPOL_BIND, self->nid,
			    MPOL_MF_MOVE | MPOL_MF_STRICT));
	EXPECT_EQ(variant->allowed ? 1 : 0, huge_on(self->other, 1, self->nid));
	EXPECT_EQ(HUGE_NR, pages_intact(self->addr, HUGE_NR, PAGE_SIZE, SEED));
	EXPECT_EQ(HUGE_NR, pages_intact(self->other, HUGE_NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(hugetlb_page, soft_offline, CDM_TIMEOUT)
{
	errno = 0;
	EXPECT_EQ(variant->allowed ? 0 : -1,
		  madvise(self->addr, PAGE_SIZE, MADV_SOFT_OFFLINE));
	EXPECT_EQ(variant->allowed ? 0 : EOPNOTSUPP, errno);
	EXPECT_EQ(variant->allowed ? 0 : 1, huge_on(self->addr, 1, self->nid));
	EXPECT_EQ(HUGE_NR, pages_intact(self->addr, HUGE_NR, PAGE_SIZE, SEED));
	/* The node leaves with what is out of use. */
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(HUGE_NR, pages_intact(self->addr, HUGE_NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

static int break_own(void *arg)
{
	char *addr = map_huge(1, MAP_NORESERVE);
	int nid = *(int *)arg;

	if (addr == MAP_FAILED || bind_huge(addr, 1, MPOL_BIND, nid, 0))
		return 10;
	fill_page(addr, SEED);
	if (huge_on(addr, 1, nid) != 1)
		return 11;
	if (madvise(addr, PAGE_SIZE, MADV_HWPOISON))
		return 12;
	READ_ONCE(*addr);
	return 0;
}

/* What is broken is taken out, whatever the mask says, and goes with the node */
TEST_F_TIMEOUT(hugetlb_page, broken, CDM_TIMEOUT)
{
	EXPECT_EQ(-SIGBUS, reap(spawn(break_own, &self->nid)));
	EXPECT_EQ(HUGE_NR, pages_intact(self->addr, HUGE_NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(HUGE_NR, pages_intact(self->addr, HUGE_NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, ordinary("HugePages_Rsvd"));
	EXPECT_EQ(self->nid, cdm_node_up(variant->caps));
	EXPECT_EQ(0, pool_size(self->nid));
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

TEST_HARNESS_MAIN
