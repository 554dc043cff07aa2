// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "numa_balancing": when it is allowed, hinting faults are taken on
 * pages of the node and move them to the node that uses them; when it is not,
 * no page there is prepared for a fault and none moves. In each case the pages
 * in RAM of the same VMA follow their task from node to node: this is the
 * positive control, and the clock by which the pages between them are known to
 * have been scanned.
 *
 * VMAs under plain MPOL_BIND are never scanned, by no kernel, so these are
 * VMAs of the default policy and of MPOL_BIND | MPOL_F_NUMA_BALANCING.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)256)
#define SEED		0xba1a0000UL
#define ROUNDS		3
/* Faults on the stack, the program, libc while 256 pages are read */
#define NOISE		8
#define EVEN(p)		(p)
#define ODD(p)		((p) + PAGE_SIZE)
#define STRIDE		(2 * PAGE_SIZE)

FIXTURE(numa_balancing)
{
	int nid;
	int ram[2];
	unsigned long bind;	/* nodes, if any */
};

FIXTURE_VARIANT(numa_balancing)
{
	const char *caps;
	bool allowed;
	bool bind;
};

/* Pages that move_pages() put there, in a VMA that names no node */
FIXTURE_VARIANT_ADD(numa_balancing, denied_default_policy)
{
	.caps = "migrate",
	.allowed = false,
	.bind = false,
};

FIXTURE_VARIANT_ADD(numa_balancing, allowed_default_policy)
{
	.caps = "numa_balancing,migrate",
	.allowed = true,
	.bind = false,
};

/* A VMA that names the device and RAM, and asks for balancing between them */
FIXTURE_VARIANT_ADD(numa_balancing, denied_bind)
{
	.caps = "migrate",
	.allowed = false,
	.bind = true,
};

FIXTURE_VARIANT_ADD(numa_balancing, allowed_bind)
{
	.caps = "numa_balancing,migrate",
	.allowed = true,
	.bind = true,
};

FIXTURE_SETUP(numa_balancing)
{
	self->bind = 0;
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram[0] = ram_node(0);
	self->ram[1] = ram_node(1);
	ASSERT_LE(0, self->ram[0]);
	ASSERT_LE(0, self->ram[1]);
	if (variant->bind)
		self->bind = NODE_BIT(self->nid) | NODE_BIT(self->ram[0]) |
			     NODE_BIT(self->ram[1]);
	ASSERT_EQ(0, numab_start());
}

FIXTURE_TEARDOWN_PARENT(numa_balancing)
{
	settings_restore();
}

struct count {
	long even;	/* hinting faults on pages in RAM */
	long odd;	/* hinting faults on pages of the device */
	long most;	/* on pages of the device, in one pass over them */
};

/*
 * Use all pages from a CPU of this node, until those in RAM have followed and
 * hinting faults have been taken on them twice over.
 */
static bool follow(char *addr, int node, struct count *count)
{
	time_t end = time(NULL) + CDM_WAIT;
	long even = 0, odd;

	if (run_on_node(node))
		return false;
	while (time(NULL) < end) {
		drain_lru();
		even += touch_faults(EVEN(addr), NR, STRIDE);
		odd = touch_faults(ODD(addr), NR, STRIDE);
		count->odd += odd;
		if (odd > count->most)
			count->most = odd;
		if (even >= (long)NR &&
		    pages_on(EVEN(addr), NR, STRIDE, node) == NR) {
			count->even += even;
			return true;
		}
	}
	ksft_print_msg("after %d s: %zu of %zu pages on node %d, %ld faults\n",
		       CDM_WAIT, pages_on(EVEN(addr), NR, STRIDE, node), NR,
		       node, even);
	return false;
}

static char *mixed_vma(int ram, int nid, unsigned long bind)
{
	char *addr = map_pages(2 * NR);

	if (!addr)
		return NULL;
	if (bind && bind_pages(addr, 2 * NR, MPOL_BIND | MPOL_F_NUMA_BALANCING,
			       bind, 0))
		return NULL;
	if (run_on_node(ram))
		return NULL;
	fill_pages(addr, 2 * NR, PAGE_SIZE, SEED);
	if (move_to(EVEN(addr), NR, STRIDE, ram, NULL) ||
	    move_to(ODD(addr), NR, STRIDE, nid, NULL))
		return NULL;
	if (pages_on(EVEN(addr), NR, STRIDE, ram) != NR ||
	    pages_on(ODD(addr), NR, STRIDE, nid) != NR ||
	    count_vmas(addr, 2 * NR) != 1)
		return NULL;
	return addr;
}

TEST_F_TIMEOUT(numa_balancing, follow_the_task, CDM_TIMEOUT)
{
	struct count count = { 0 };
	char *addr;
	int i;

	addr = mixed_vma(self->ram[0], self->nid, self->bind);
	ASSERT_NE(NULL, addr);

	for (i = 1; i <= ROUNDS; i++)
		ASSERT_TRUE(follow(addr, self->ram[i % 2], &count));
	EXPECT_LE(ROUNDS * (long)NR, count.even);

	if (variant->allowed) {
		EXPECT_LE((long)NR, count.odd);
		EXPECT_EQ(0, pages_on(ODD(addr), NR, STRIDE, self->nid));
	} else {
		/* No page there was made inaccessible in any scan */
		EXPECT_GE(NOISE, count.most);
		EXPECT_EQ(NR, pages_on(ODD(addr), NR, STRIDE, self->nid));
	}
	EXPECT_EQ(2 * NR, pages_intact(addr, 2 * NR, PAGE_SIZE, SEED));
	EXPECT_EQ(1, count_vmas(addr, 2 * NR));
}

/*
 * Pages that are prepared for a hinting fault in RAM and then move in: the
 * fault, if it is still taken, must not move them back.
 */
TEST_F_TIMEOUT(numa_balancing, prepared_then_moved_in, CDM_TIMEOUT)
{
	struct count count = { 0 };
	long long updates;
	char *addr;
	int i, n;

	addr = mixed_vma(self->ram[0], self->nid, self->bind);
	ASSERT_NE(NULL, addr);
	for (i = 1; i <= ROUNDS; i++) {
		/* All in RAM, on the node that the task is about to leave */
		ASSERT_LE(0, move_to(EVEN(addr), NR, STRIDE,
				     self->ram[!(i % 2)], NULL));
		ASSERT_LE(0, move_to(ODD(addr), NR, STRIDE,
				     self->ram[!(i % 2)], NULL));
		ASSERT_EQ(0, run_on_node(self->ram[i % 2]));

		/* Burn time without touching the pages: they become prepared */
		updates = vm_event("numa_pte_updates");
		ASSERT_LE(0, updates);
		for (n = 0; n < CDM_WAIT * 10; n++) {
			clock_t until = clock() + CLOCKS_PER_SEC / 10;

			while (clock() < until)
				;
			if (vm_event("numa_pte_updates") >= updates + 2 * (long)NR)
				break;
		}
		ASSERT_LE(updates + 2 * (long)NR, vm_event("numa_pte_updates"));

		ASSERT_EQ(0, move_to(ODD(addr), NR, STRIDE, self->nid, NULL));
		ASSERT_EQ(NR, pages_on(ODD(addr), NR, STRIDE, self->nid));
		ASSERT_TRUE(follow(addr, self->ram[i % 2], &count));
		/* And another scan or two */
		ASSERT_TRUE(follow(addr, self->ram[!(i % 2)], &count));
		ASSERT_TRUE(follow(addr, self->ram[i % 2], &count));
		EXPECT_EQ(variant->allowed ? 0 : NR,
			  pages_on(ODD(addr), NR, STRIDE, self->nid));
	}
	EXPECT_EQ(2 * NR, pages_intact(addr, 2 * NR, PAGE_SIZE, SEED));
}

TEST_HARNESS_MAIN
