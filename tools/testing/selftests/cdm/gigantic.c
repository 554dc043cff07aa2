// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "hugetlb", pages of 1 GiB: this guest has a device of two such, and
 * an ordinary one in the pool from its boot on.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define SIZE		((size_t)1024 << 20)
#define SIZE_NR		(SIZE / PAGE_SIZE)
#define POOL		"hugepages-1048576kB"
#define GLOBAL		"/sys/kernel/mm/hugepages/"
#define MOVABLE		"/proc/sys/vm/movable_gigantic_pages"
#define SEED		0x61600000UL

FIXTURE(gigantic)
{
	int nid;
	int ram;
	long long small;	/* ordinary pages of 2 MiB */
};

FIXTURE_VARIANT(gigantic)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(gigantic, denied)
{
	.caps = "migrate,thp",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(gigantic, allowed)
{
	.caps = "hugetlb,migrate",
	.allowed = true,
};

static const char *gigantic_file(int nid, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/hugepages/" POOL "/%s",
		 nid, name);
	return path;
}

/* Each file of the pools that is about ordinary pages says the same as at first. */
#define expect_ordinary()						\
do {									\
	EXPECT_EQ(1, file_number(GLOBAL POOL "/nr_hugepages"));		\
	EXPECT_EQ(1, file_number(GLOBAL POOL "/free_hugepages"));	\
	EXPECT_EQ(self->small,						\
		  file_number(GLOBAL HUGETLB_SIZE "/nr_hugepages"));	\
	EXPECT_EQ(self->small, file_number("/proc/sys/vm/nr_hugepages")); \
} while (0)

static char *map_gigantic(int flags)
{
	return mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
		    flags | MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
		    30 << MAP_HUGE_SHIFT, -1, 0);
}

FIXTURE_SETUP(gigantic)
{
	ASSERT_FALSE(cdm_control());
	ASSERT_EQ(2 * SIZE, cdm_device(0)->size);
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	if (!file_number(gigantic_file(self->ram, "nr_hugepages")))
		self->ram = ram_node(1);
	ASSERT_EQ(1, file_number(gigantic_file(self->ram, "nr_hugepages")));
	self->small = file_number("/proc/sys/vm/nr_hugepages");
	expect_ordinary();

	/* A device's memory is movable, which such pages are if the admin says so. */
	ASSERT_EQ(0, setting(MOVABLE, "0"));
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP,
		  file_write(gigantic_file(self->nid, "nr_hugepages"), "1"));
	EXPECT_EQ(0, file_number(gigantic_file(self->nid, "nr_hugepages")));
	ASSERT_EQ(0, setting(MOVABLE, "1"));
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP,
		  file_write(gigantic_file(self->nid, "nr_hugepages"), "1"));
}

FIXTURE_TEARDOWN_PARENT(gigantic)
{
	if (cdm_node() >= 0) {
		file_write(gigantic_file(cdm_node(), "nr_hugepages"), "0");
		pool_set(cdm_node(), "0");
	}
	settings_restore();
}

TEST_F_TIMEOUT(gigantic, pool, CDM_TIMEOUT)
{
	struct node_use use;

	EXPECT_EQ(variant->allowed,
		  file_number(gigantic_file(self->nid, "nr_hugepages")));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_EQ(variant->allowed ? SIZE_NR : 0, use.huge);
	expect_ordinary();

	/* There is no third one. */
	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP,
		  file_write(gigantic_file(self->nid, "nr_hugepages"), "3"));
	EXPECT_EQ(variant->allowed ? 2 : 0,
		  file_number(gigantic_file(self->nid, "nr_hugepages")));

	EXPECT_EQ(0, file_write(gigantic_file(self->nid, "nr_hugepages"), "0"));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_EQ(0, use.huge);
	expect_ordinary();
}

/* Who names the node gets it; where there is none it is the ordinary one. */
TEST_F_TIMEOUT(gigantic, named, CDM_TIMEOUT)
{
	char *addr = map_gigantic(MAP_NORESERVE);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_pages(addr, SIZE_NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_page(addr, SEED);
	fill_page(addr + SIZE - PAGE_SIZE, SEED + 1);
	EXPECT_EQ(variant->allowed ? self->nid : self->ram, page_node(addr));
	EXPECT_EQ(!variant->allowed, !file_number(GLOBAL POOL "/free_hugepages"));
	EXPECT_TRUE(page_is(addr, SEED));
	EXPECT_TRUE(page_is(addr + SIZE - PAGE_SIZE, SEED + 1));
	munmap(addr, SIZE);
	EXPECT_EQ(variant->allowed,
		  file_number(gigantic_file(self->nid, "free_hugepages")));
	expect_ordinary();
}

/* In pieces of 2 MiB it is still the device's, and no reservation stands in the way. */
TEST_F_TIMEOUT(gigantic, demoted, CDM_TIMEOUT)
{
	char *addr = map_gigantic(0);

	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(1, file_number(GLOBAL POOL "/resv_hugepages"));
	EXPECT_EQ(0, file_write(gigantic_file(self->nid, "demote"), "1"));
	EXPECT_EQ(0, file_number(gigantic_file(self->nid, "nr_hugepages")));
	EXPECT_EQ(variant->allowed ? SIZE / HUGE : 0, pool_size(self->nid));
	EXPECT_EQ(1, file_number(GLOBAL POOL "/resv_hugepages"));
	munmap(addr, SIZE);
	expect_ordinary();
}

/* Free ones of 2 MiB, of which no pool but the node's knows, get out of the way. */
TEST_F_TIMEOUT(gigantic, small_ones_in_it, CDM_TIMEOUT)
{
	size_t nr = 2 * SIZE / HUGE, i, kept = 0;
	unsigned long gib[2];
	char *addr, *page[2];

	EXPECT_EQ(0, file_write(gigantic_file(self->nid, "nr_hugepages"), "0"));
	if (!variant->allowed)
		return;
	/* No free one in RAM tells that there are any. */
	ASSERT_EQ(0, setting("/proc/sys/vm/nr_hugepages", "0"));
	self->small = 0;
	/* All of them are in the pool; two stay, of which each GiB has one. */
	ASSERT_EQ(0, pool_set(self->nid, "1024"));
	nr = pool_size(self->nid);
	ASSERT_LT(SIZE / HUGE, nr);
	addr = map_huge(nr, MAP_NORESERVE);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_pages(addr, nr * HUGE_NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	for (i = 0; i < nr && kept < 2; i++) {
		addr[i * HUGE] = 1;
		gib[kept] = page_pfn(addr + i * HUGE) / SIZE_NR;
		if (!kept || gib[kept] != gib[0])
			page[kept++] = addr + i * HUGE;
	}
	ASSERT_EQ(2, kept);
	for (i = 0; i < nr; i++)
		if (addr + i * HUGE != page[0] && addr + i * HUGE != page[1])
			ASSERT_EQ(0, munmap(addr + i * HUGE, HUGE));
	ASSERT_EQ(0, pool_set(self->nid, "2"));
	ASSERT_EQ(0, munmap(page[0], HUGE));
	ASSERT_EQ(0, munmap(page[1], HUGE));
	ASSERT_EQ(2, file_number(pool_file(self->nid, "free_hugepages")));
	expect_ordinary();

	EXPECT_EQ(0, file_write(gigantic_file(self->nid, "nr_hugepages"), "1"));
	EXPECT_EQ(1, file_number(gigantic_file(self->nid, "nr_hugepages")));
	EXPECT_EQ(2, pool_size(self->nid));
	expect_ordinary();
}

TEST_HARNESS_MAIN
