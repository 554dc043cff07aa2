// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "migrate": pages move onto and off the node when the driver
 * allows it; when it does not, each way to ask gets its own answer and no page
 * moves. The same code runs in both directions.
 */
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR	((size_t)128)
#define SEED	0xcd000000UL

FIXTURE(migrate)
{
	int nid;
	int ram;
	char *pages;
	int status[NR];
};

FIXTURE_VARIANT(migrate)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(migrate, denied)
{
	.caps = "none",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(migrate, allowed)
{
	.caps = "migrate",
	.allowed = true,
};

FIXTURE_SETUP(migrate)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
}

FIXTURE_TEARDOWN_PARENT(migrate)
{
	settings_restore();
}

/* move_pages() from the device to RAM */
TEST_F_TIMEOUT(migrate, move_pages_out, CDM_TIMEOUT)
{
	int expected = variant->allowed ? self->ram : -EOPNOTSUPP;
	int where = variant->allowed ? self->ram : self->nid;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->ram,
			     self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, expected));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* move_pages() from RAM to the device */
TEST_F_TIMEOUT(migrate, move_pages_in, CDM_TIMEOUT)
{
	int expected = variant->allowed ? self->nid : -EOPNOTSUPP;
	int where = variant->allowed ? self->nid : self->ram;

	self->pages = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->nid,
			     self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, expected));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* One call, pages of both kinds: each gets its own answer, the others move */
TEST_F_TIMEOUT(migrate, move_pages_answers_per_page, CDM_TIMEOUT)
{
	int other = ram_node(1);
	void *addr[4];
	int target[4];
	char *device, *ram;

	ASSERT_LE(0, other);
	device = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, device);
	ram = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, ram);
	self->pages = map_pages(1);
	ASSERT_NE(NULL, self->pages);

	addr[0] = ram;
	target[0] = other;
	addr[1] = device;
	target[1] = other;
	addr[2] = self->pages;
	target[2] = other;
	addr[3] = ram + PAGE_SIZE;
	target[3] = self->nid;
	EXPECT_EQ(0, move_pages(0, 4, addr, target, self->status,
				MPOL_MF_MOVE_ALL));
	EXPECT_EQ(other, self->status[0]);
	EXPECT_EQ(variant->allowed ? other : -EOPNOTSUPP, self->status[1]);
	/* Nothing is there: as on every kernel */
	EXPECT_EQ(-ENOENT, self->status[2]);
	EXPECT_EQ(variant->allowed ? self->nid : -EOPNOTSUPP, self->status[3]);
	EXPECT_EQ(other, page_node(ram));
	EXPECT_EQ(variant->allowed ? other : self->nid, page_node(device));
	EXPECT_EQ(variant->allowed ? self->nid : self->ram,
		  page_node(ram + PAGE_SIZE));
}

/* migrate_pages() of the whole process, off the device */
TEST_F_TIMEOUT(migrate, migrate_pages_out, CDM_TIMEOUT)
{
	unsigned long from = NODE_BIT(self->nid), to = NODE_BIT(self->ram);
	int where = variant->allowed ? self->ram : self->nid;
	long ret;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);

	ret = migrate_pages(0, 64, &from, &to);
	/* How many did not move */
	EXPECT_EQ(variant->allowed, ret == 0);
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* migrate_pages() of the whole process, onto the device */
TEST_F_TIMEOUT(migrate, migrate_pages_in, CDM_TIMEOUT)
{
	unsigned long from = NODE_BIT(self->ram), to = NODE_BIT(self->nid);
	int where = variant->allowed ? self->nid : self->ram;
	long ret;

	self->pages = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->pages);

	/* How many did not move; those of libraries never do, page cache is denied */
	ret = migrate_pages(0, 64, &from, &to);
	EXPECT_NE(-1, ret);
	if (!variant->allowed)
		EXPECT_LE((long)NR, ret);
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* mbind(MPOL_MF_STRICT | MPOL_MF_MOVE) must move everything or say -EIO */
TEST_F_TIMEOUT(migrate, mbind_strict_out, CDM_TIMEOUT)
{
	int where = variant->allowed ? self->ram : self->nid;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->ram),
			     MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(migrate, mbind_strict_in, CDM_TIMEOUT)
{
	int where = variant->allowed ? self->nid : self->ram;

	self->pages = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->nid),
			     MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Without MPOL_MF_STRICT, what cannot move stays and mbind() succeeds */
TEST_F_TIMEOUT(migrate, mbind_move, CDM_TIMEOUT)
{
	int out = variant->allowed ? self->ram : self->nid;
	int in = variant->allowed ? self->nid : self->ram;
	char *ram;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	ram = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, ram);

	EXPECT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND,
				NODE_BIT(self->ram), MPOL_MF_MOVE_ALL));
	EXPECT_EQ(0, bind_pages(ram, NR, MPOL_BIND, NODE_BIT(self->nid),
				MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, out));
	EXPECT_EQ(NR, pages_on(ram, NR, PAGE_SIZE, in));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_intact(ram, NR, PAGE_SIZE, SEED));
}

TEST_HARNESS_MAIN
