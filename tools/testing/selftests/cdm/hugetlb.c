// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "hugetlb": the node has a pool of huge pages only where the driver
 * allows it, whichever file the admin writes to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	4
#define SIZE	"hugepages-2048kB"
#define GLOBAL	"/sys/kernel/mm/hugepages/" SIZE

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
	.caps = "hugetlb",
	.allowed = true,
};

static const char *pool_file(int nid, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/hugepages/" SIZE "/%s",
		 nid, name);
	return path;
}

static int pool_set(int nid, const char *nr)
{
	return file_write(pool_file(nid, "nr_hugepages"), nr);
}

static long long pool_size(int nid)
{
	return file_number(pool_file(nid, "nr_hugepages"));
}

FIXTURE_SETUP(hugetlb)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, pool_size(self->nid));
	ASSERT_EQ(0, setting(GLOBAL "/nr_hugepages", "0"));
}

FIXTURE_TEARDOWN_PARENT(hugetlb)
{
	settings_restore();
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
	ASSERT_EQ(0, file_write(GLOBAL "/nr_hugepages_mempolicy", "4"));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(variant->allowed ? NR : 0, pool_size(self->nid));

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

TEST_HARNESS_MAIN
