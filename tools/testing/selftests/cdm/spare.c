// SPDX-License-Identifier: GPL-2.0
/*
 * A machine whose firmware knows nothing of its devices: all nodes are taken, and
 * cdm_nodes=1 on the kernel's command line keeps an id for one more. To be run
 * with two devices.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	((size_t)64)
#define SEED	0x59a4e000UL

FIXTURE(spare)
{
	unsigned long ordinary;
	int nid;
};

FIXTURE_SETUP(spare)
{
	char text[64];

	ASSERT_NE(NULL, cdm_device(1));
	/* One id after the last ordinary one */
	self->ordinary = node_list("has_memory");
	ASSERT_NE(0, self->ordinary);
	self->nid = 64 - __builtin_clzl(self->ordinary);
	snprintf(text, sizeof(text), "0-%d", self->nid);
	ASSERT_EQ(parse_list(text), node_list("possible"));
}

FIXTURE_TEARDOWN_PARENT(spare)
{
	EXPECT_EQ(0, cdm_unbind_device(1));
	EXPECT_EQ(0, cdm_unbind_device(0));
}

/* The one id is good for a node like any other */
TEST_F_TIMEOUT(spare, is_taken, CDM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, cdm_bind_device(0, "migrate"));
	EXPECT_EQ(self->nid, cdm_node_of(0));
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	EXPECT_EQ(self->ordinary, node_list("has_memory"));

	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(0, cdm_unbind_device(0));
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, node_list("has_coherent_memory"));
}

/* There is one, and the log says how to have two */
TEST_F_TIMEOUT(spare, is_the_only_one, CDM_TIMEOUT)
{
	int log = log_open();

	ASSERT_LE(0, log);
	ASSERT_EQ(0, cdm_bind_device(0, "migrate"));
	EXPECT_EQ(self->nid, cdm_node_of(0));
	EXPECT_EQ(-ENOSPC, cdm_bind_device(1, "migrate"));
	EXPECT_TRUE(log_has(log, "is not registered: no node id is free (cdm_nodes=N"));
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));

	/* Nobody has it: rather another device's than none */
	EXPECT_EQ(0, cdm_unbind_device(0));
	EXPECT_EQ(0, cdm_bind_device(1, "migrate"));
	EXPECT_EQ(self->nid, cdm_node_of(1));
	EXPECT_EQ(-ENOSPC, cdm_bind_device(0, "migrate"));
	close(log);
}

TEST_HARNESS_MAIN
