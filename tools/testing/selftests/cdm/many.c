// SPDX-License-Identifier: GPL-2.0
/*
 * Eight devices, their memory above 1 TiB, in a machine of 34 nodes. Device
 * nodes have numbers between those of ordinary ones; each has a mask of its own,
 * and each comes and goes without the others' noticing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define DEVICES		8
#define POSSIBLE	34
#define NR		((size_t)64)
#define SEED		0x3a4e0000UL
#define TIB		0x10000000000UL

/* Every other device lets pages in */
#define CAPS(i)		((i) % 2 ? "ksm,interleave" : "migrate,interleave")

FIXTURE(many)
{
	int nids[DEVICES];
	unsigned long devices;
	unsigned long ordinary;
	long long total;
};

static long long mem_total(void)
{
	char text[256];

	if (file_read("/proc/meminfo", text, sizeof(text)) < 0)
		return -1;
	return strtoll(text + strlen("MemTotal:"), NULL, 10);
}

FIXTURE_SETUP(many)
{
	int i;

	ASSERT_NE(NULL, cdm_device(DEVICES - 1));
	self->total = mem_total();
	self->ordinary = node_list("has_memory");
	self->devices = 0;
	for (i = 0; i < DEVICES; i++) {
		ASSERT_EQ(0, cdm_bind_device(i, CAPS(i)));
		self->nids[i] = cdm_node_of(i);
		ASSERT_LE(0, self->nids[i]);
		ASSERT_EQ(0, self->devices & NODE_BIT(self->nids[i]));
		self->devices |= NODE_BIT(self->nids[i]);
	}
}

FIXTURE_TEARDOWN_PARENT(many)
{
	int i;

	for (i = 0; i < DEVICES; i++)
		EXPECT_EQ(0, cdm_unbind_device(i));
	EXPECT_EQ(0, node_list("has_coherent_memory"));
	settings_restore();
}

/*
 * The machine is what this test says that it is. A node has its number by what
 * firmware says of it: first those with CPUs, then initiators' (and so devices'),
 * then those of memory alone. Other tests have devices behind all others.
 */
TEST_F_TIMEOUT(many, machine, CDM_TIMEOUT)
{
	int first = __builtin_ctzl(self->ordinary);
	int last = 63 - __builtin_clzl(self->ordinary);
	int i;

	EXPECT_EQ((1UL << POSSIBLE) - 1, node_list("possible"));
	EXPECT_LE(3, __builtin_popcountl(self->ordinary));
	for (i = 0; i < DEVICES; i++) {
		EXPECT_LT(first, self->nids[i]);
		EXPECT_GT(last, self->nids[i]);
		EXPECT_LT(TIB, cdm_device(i)->start);
	}
}

/* Each can be named, and only who names it gets it. */
TEST_F_TIMEOUT(many, each_by_name, CDM_TIMEOUT)
{
	long long sum = 0;
	size_t there;
	char *addr;
	int i, j;

	EXPECT_EQ(self->devices, node_list("has_coherent_memory"));
	EXPECT_EQ(self->ordinary, node_list("has_memory"));
	EXPECT_EQ(self->total, mem_total());
	/* Who adds up the ordinary ones finds no more. */
	for (i = 0; i < 64; i++)
		if (self->ordinary & NODE_BIT(i))
			sum += node_meminfo(i, "MemTotal");
	EXPECT_EQ(self->total, sum);
	for (i = 0; i < DEVICES; i++) {
		addr = filled_pages_on(NR, self->nids[i], SEED + i);
		ASSERT_NE(NULL, addr);
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nids[i]));
		EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED + i));
		unmap_pages(addr, NR);
	}

	/* Nobody's, everybody's, and those of who says "all" */
	for (j = 0; j < 3; j++) {
		unsigned long all = ~0UL;

		addr = map_pages(4 * NR);
		ASSERT_NE(NULL, addr);
		if (j == 1)
			ASSERT_EQ(0, bind_pages(addr, 4 * NR, MPOL_INTERLEAVE,
						self->ordinary, 0));
		if (j == 2)
			ASSERT_EQ(0, bind_pages(addr, 4 * NR,
						MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES,
						all, 0));
		fill_pages(addr, 4 * NR, PAGE_SIZE, SEED);
		for (i = 0; i < DEVICES; i++)
			EXPECT_EQ(0, pages_on(addr, 4 * NR, PAGE_SIZE, self->nids[i]));
		unmap_pages(addr, 4 * NR);
	}

	/* All of the devices: each gets its share. */
	addr = map_pages(DEVICES * NR);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, DEVICES * NR, MPOL_INTERLEAVE, self->devices, 0));
	fill_pages(addr, DEVICES * NR, PAGE_SIZE, SEED);
	for (i = 0; i < DEVICES; i++) {
		there = pages_on(addr, DEVICES * NR, PAGE_SIZE, self->nids[i]);
		EXPECT_EQ(NR, there)
			TH_LOG("node %d has %zu", self->nids[i], there);
	}
}

/* The nearest of all ordinary nodes stays so, whatever numbers are among them. */
TEST_F_TIMEOUT(many, ordinary_nodes, CDM_TIMEOUT)
{
	char *addr;
	int nid;

	for (nid = 0; nid < 64; nid++) {
		if (!(self->ordinary & NODE_BIT(nid)))
			continue;
		addr = filled_pages_on(NR, nid, SEED);
		ASSERT_NE(NULL, addr);
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, nid));
		unmap_pages(addr, NR);
		if (run_on_node(nid))
			continue;	/* without CPUs */
		addr = map_pages(NR);
		ASSERT_NE(NULL, addr);
		fill_pages(addr, NR, PAGE_SIZE, SEED);
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, nid));
		unmap_pages(addr, NR);
	}
}

/* What one denies, its neighbour may allow, page by page in one call. */
TEST_F_TIMEOUT(many, masks_of_their_own, CDM_TIMEOUT)
{
	int nodes[DEVICES], status[DEVICES];
	void *pages[DEVICES];
	char *addr;
	int i;

	addr = map_pages(DEVICES);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, DEVICES, PAGE_SIZE, SEED);
	for (i = 0; i < DEVICES; i++) {
		pages[i] = addr + i * PAGE_SIZE;
		nodes[i] = self->nids[i];
	}
	ASSERT_LE(0, move_pages(0, DEVICES, pages, nodes, status, MPOL_MF_MOVE));
	ASSERT_EQ(0, move_pages(0, DEVICES, pages, NULL, status, 0));
	for (i = 0; i < DEVICES; i++) {
		if (i % 2) {
			EXPECT_NE(0, NODE_BIT(status[i]) & self->ordinary)
				TH_LOG("page %d is on node %d", i, status[i]);
		} else {
			EXPECT_EQ(self->nids[i], status[i]);
		}
	}
	EXPECT_EQ(DEVICES, pages_intact(addr, DEVICES, PAGE_SIZE, SEED));
}

/* In an order of no sense. Who is still there keeps its pages and its mask. */
TEST_F_TIMEOUT(many, leave_one_by_one, CDM_TIMEOUT)
{
	static const int order[DEVICES] = { 3, 0, 7, 4, 1, 6, 2, 5 };
	char *addr[DEVICES], path[128], caps[256], other[256];
	unsigned long left = self->devices;
	int i, j;

	for (i = 0; i < DEVICES; i++) {
		addr[i] = filled_pages_on(NR, self->nids[i], SEED + i);
		ASSERT_NE(NULL, addr[i]);
	}
	for (j = 0; j < DEVICES; j++) {
		ASSERT_EQ(0, cdm_unbind_device(order[j]));
		left &= ~NODE_BIT(self->nids[order[j]]);
		ASSERT_EQ(left, node_list("has_coherent_memory"));
		for (i = 0; i < DEVICES; i++) {
			ASSERT_EQ(NR, pages_intact(addr[i], NR, PAGE_SIZE, SEED + i));
			ASSERT_EQ(left & NODE_BIT(self->nids[i]) ? NR : 0,
				  pages_on(addr[i], NR, PAGE_SIZE, self->nids[i]));
		}
	}
	/* And back, the last one first: the same nodes with the same masks */
	for (j = DEVICES - 1; j >= 0; j--) {
		ASSERT_EQ(0, cdm_bind_device(order[j], CAPS(order[j])));
		EXPECT_EQ(self->nids[order[j]], cdm_node_of(order[j]));
	}
	for (i = 0; i < DEVICES; i++) {
		snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_caps",
			 self->nids[i]);
		ASSERT_LT(0, file_read(path, i % 2 ? other : caps, sizeof(caps)));
		EXPECT_EQ(!(i % 2), !!strstr(i % 2 ? other : caps, "migrate"));
		EXPECT_EQ(i % 2, !!strstr(i % 2 ? other : caps, "ksm"));
		unmap_pages(addr[i], NR);
	}
}

static int unbind_one(void *arg)
{
	return cdm_unbind_device(*(int *)arg) ? 1 : 0;
}

/* All at once: each waits for the others, and that is not its own time */
TEST_F_TIMEOUT(many, leave_together, CDM_TIMEOUT)
{
	struct timespec from, to;
	char *addr[DEVICES], text[32];
	int i, log, index[DEVICES];
	pid_t pids[DEVICES];
	long ms;

	for (i = 0; i < DEVICES; i++) {
		addr[i] = filled_pages_on(NR, self->nids[i], SEED + i);
		ASSERT_NE(NULL, addr[i]);
	}
	/* How long one takes here; all of them get no more than twice that */
	clock_gettime(CLOCK_MONOTONIC, &from);
	ASSERT_EQ(0, cdm_unbind_device(0));
	clock_gettime(CLOCK_MONOTONIC, &to);
	ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
	ASSERT_EQ(0, cdm_bind_device(0, CAPS(0)));
	snprintf(text, sizeof(text), "%ld", 2 * ms);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", text));

	log = log_open();
	ASSERT_LE(0, log);
	for (i = 0; i < DEVICES; i++) {
		index[i] = i;
		pids[i] = spawn(unbind_one, &index[i]);
	}
	for (i = 0; i < DEVICES; i++)
		EXPECT_EQ(0, reap(pids[i]));
	EXPECT_FALSE(log_has(log, "orphaned")) {
		TH_LOG("one takes %ld ms", ms);
	}
	close(log);
	EXPECT_EQ(0, node_list("has_coherent_memory"));
	for (i = 0; i < DEVICES; i++)
		EXPECT_EQ(NR, pages_intact(addr[i], NR, PAGE_SIZE, SEED + i));
}

TEST_HARNESS_MAIN
