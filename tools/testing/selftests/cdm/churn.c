// SPDX-License-Identifier: GPL-2.0
/*
 * Register and unregister again and again while tasks fault on pages that are
 * bound to the node. Whatever moment the node comes or goes in, what they wrote
 * is what they read, and after each cycle everything is as after the first.
 * CDM_CYCLES in the environment is another number of cycles than 200.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define CALLS		"/sys/kernel/debug/cdm_test"
#define BLOCK		(128ULL << 20)
#define NR		((size_t)64)
#define NR_TASKS	2

struct progress {
	unsigned long rounds;	/* over all pages */
	unsigned long there;	/* pages seen on the node */
	unsigned long elsewhere; /* pages seen in RAM */
	unsigned long refused;	/* SIGBUS */
	unsigned long lost;	/* pages that did not hold what was written */
	char *addr;
	int nid;
	int stop;
};

FIXTURE(churn)
{
	int nid;
	int other;		/* node of the device that stays, or -1 */
	pid_t child[NR_TASKS];
	unsigned long cycles;
};

FIXTURE_VARIANT(churn)
{
	int (*up)(void);
	int (*down)(int nid);
	bool test_module;
	unsigned long part;	/* this fraction of the cycles */
};

static int call_unregister(int nid)
{
	char args[16];

	snprintf(args, sizeof(args), "%d", nid);
	return file_write(CALLS "/unregister", args);
}

static int call_register_device(int index)
{
	char args[128];

	/* Any node id; migrate; coherent, and not to be erased, to save time */
	snprintf(args, sizeof(args), "%#lx %#llx -1 0x8 0x5",
		 cdm_device(index)->start, BLOCK);
	return file_write(CALLS "/register", args);
}

static int call_register(void)
{
	return call_register_device(0);
}

static int driver_up(void)
{
	return cdm_bind("migrate");
}

static int driver_down(int nid)
{
	(void)nid;
	return cdm_node_down();
}

/*
 * By the driver interface, with one block: this is the fastest way. The node of
 * another device stays, so that the checks on pages are in force all the time;
 * and QEMU's TCG may miss it if a CPU patches an instruction while another one
 * comes to it, so that the int3 which stood there for a moment stays in force.
 */
FIXTURE_VARIANT_ADD(churn, register_unregister)
{
	.up = call_register,
	.down = call_unregister,
	.test_module = true,
	.part = 1,
};

/* By the driver, the whole device; the checks come and go with the node. */
FIXTURE_VARIANT_ADD(churn, bind_unbind)
{
	.up = driver_up,
	.down = driver_down,
	.test_module = false,
	.part = 20,
};

FIXTURE_SETUP(churn)
{
	const char *cycles = getenv("CDM_CYCLES");
	unsigned long nodes;

	memset(self->child, 0, sizeof(self->child));
	self->other = -1;
	self->cycles = cycles ? strtoul(cycles, NULL, 0) : 200;
	self->cycles = self->cycles / variant->part + 1;
	ASSERT_LT(1, self->cycles);
	ASSERT_EQ(0, cdm_node_down());
	if (variant->test_module) {
		ASSERT_NE(NULL, cdm_device(1));
		ASSERT_EQ(0, load_module("cdm_test", ""));
		ASSERT_EQ(0, call_register_device(1));
		nodes = node_list("has_coherent_memory");
		ASSERT_NE(0, nodes);
		self->other = __builtin_ctzl(nodes);
		ASSERT_EQ(NODE_BIT(self->other), nodes);
	}
}

FIXTURE_TEARDOWN_PARENT(churn)
{
	int i;

	for (i = 0; i < NR_TASKS; i++)
		kill_and_reap(self->child[i]);
	if (variant->test_module) {
		if (cdm_node() >= 0)
			call_unregister(cdm_node());
		if (self->other >= 0)
			EXPECT_EQ(0, call_unregister(self->other));
		EXPECT_EQ(0, unload_module("cdm_test"));
	} else {
		EXPECT_EQ(0, cdm_node_down());
	}
}

static sigjmp_buf again;
static struct progress *mine;

static void on_sigbus(int sig)
{
	(void)sig;
	mine->refused++;
	siglongjmp(again, 1);
}

/*
 * Write each page, read it back a round later, give some back so that they are
 * faulted in again. The seed says which round a page is from.
 */
static int worker(void *arg)
{
	static unsigned long written[NR];
	struct sigaction action = {
		.sa_handler = on_sigbus,
		.sa_flags = SA_NODEFER,
	};
	unsigned long seed;
	char *addr;
	size_t i;

	mine = arg;
	addr = mine->addr;
	sigaction(SIGBUS, &action, NULL);
	while (!mine->stop) {
		sigsetjmp(again, 1);
		for (i = 0; i < NR && !mine->stop; i++) {
			char *page = addr + i * PAGE_SIZE;

			seed = mine->rounds * NR + i + 1;
			if (written[i] && !page_is(page, written[i]))
				mine->lost++;
			if (written[i] && (i + mine->rounds) % 4 == 0) {
				written[i] = 0;
				madvise(page, PAGE_SIZE, MADV_DONTNEED);
			}
			fill_page(page, seed);
			written[i] = seed;
		}
		mine->there += pages_on(addr, NR, PAGE_SIZE, mine->nid);
		mine->elsewhere += NR - pages_on(addr, NR, PAGE_SIZE, mine->nid);
		mine->rounds++;
	}
	return 0;
}

TEST_F_TIMEOUT(churn, under_faults, CDM_TIMEOUT)
{
	struct progress *progress[NR_TASKS];
	unsigned long cycle, seen, full = 0;
	char *first = NULL, *after;
	int i, ret;

	ASSERT_EQ(0, variant->up());
	self->nid = cdm_node();
	ASSERT_LE(0, self->nid);
	for (i = 0; i < NR_TASKS; i++) {
		progress[i] = shared_page();
		ASSERT_NE(NULL, progress[i]);
		progress[i]->nid = self->nid;
		/* The policy is from a time when the node is there */
		progress[i]->addr = map_pages_on(NR, self->nid);
		ASSERT_NE(NULL, progress[i]->addr);
		self->child[i] = spawn(worker, progress[i]);
		ASSERT_LT(0, self->child[i]);
	}

	for (cycle = 0; cycle < self->cycles; cycle++) {
		/* Work goes on with the node; and, sometimes, without it */
		seen = progress[0]->rounds;
		ASSERT_TRUE(wait_for(progress[0]->rounds > seen));
		/* A page may be in the hands of somebody for a moment */
		ret = variant->down(self->nid);
		for (i = 0; ret == -EBUSY && i < 10; i++, full++)
			ret = variant->down(self->nid);
		ASSERT_EQ(0, ret);
		ASSERT_EQ(-1, cdm_node());
		after = cdm_snapshot();
		if (!first) {
			first = after;
		} else {
			ASSERT_TRUE(cdm_same_snapshot(first, after));
			free(after);
		}
		if (cycle % 8 == 0) {
			seen = progress[0]->rounds;
			ASSERT_TRUE(wait_for(progress[0]->rounds > seen));
		}
		ASSERT_EQ(0, variant->up());
		ASSERT_EQ(self->nid, cdm_node());
		for (i = 0; i < NR_TASKS; i++)
			ASSERT_EQ(0, waitpid(self->child[i], NULL, WNOHANG));
	}
	for (i = 0; i < NR_TASKS; i++) {
		progress[i]->stop = 1;
		EXPECT_EQ(0, reap(self->child[i]));
		self->child[i] = 0;
		TH_LOG("%lu cycles, %lu times busy; %lu rounds over the pages",
		       self->cycles, full, progress[i]->rounds);
		TH_LOG("%lu pages on the node, %lu in RAM, %lu SIGBUS",
		       progress[i]->there, progress[i]->elsewhere,
		       progress[i]->refused);
		EXPECT_EQ(0, progress[i]->lost);
		/* The node was never full: to leave is no reason for a signal */
		EXPECT_EQ(0, progress[i]->refused);
		/* Positive controls: the node was used, and so was RAM */
		EXPECT_LT(0, progress[i]->there);
		EXPECT_LT(0, progress[i]->elsewhere);
	}
	free(first);
}

TEST_HARNESS_MAIN
