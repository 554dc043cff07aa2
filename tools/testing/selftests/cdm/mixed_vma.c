// SPDX-License-Identifier: GPL-2.0
/*
 * One VMA whose pages alternate between RAM and a device that denies KSM and
 * NUMA balancing: both run over it, merge and move the pages in RAM, and leave
 * those of the device alone. It stays one VMA: what may be done is asked at the
 * page, so neither 64k changes of place nor the agents split it.
 *
 * Of the even pages, which are in RAM, every other one has a twin to merge
 * with; the rest are all different and on the wrong node. CDM_MIXED_PAGES in
 * the environment is another number of pages than 65536.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define SEED	0x65536UL
#define TWIN	0x2222UL

FIXTURE(mixed_vma)
{
	size_t nr;
	int nid;
	int ram[2];
};

FIXTURE_SETUP(mixed_vma)
{
	const char *nr = getenv("CDM_MIXED_PAGES");

	self->nr = nr ? strtoul(nr, NULL, 0) : 65536;
	ASSERT_EQ(0, self->nr % 4);
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	self->ram[0] = ram_node(0);
	self->ram[1] = ram_node(1);
	ASSERT_LE(0, self->ram[0]);
	ASSERT_LE(0, self->ram[1]);
	ASSERT_EQ(0, ksm_start("1"));
	ASSERT_EQ(0, numab_start());
}

FIXTURE_TEARDOWN_PARENT(mixed_vma)
{
	ksm_stop();
}

TEST_F_TIMEOUT(mixed_vma, denied_alternating, CDM_TIMEOUT)
{
	size_t nr = self->nr, i, intact = 0, moved = 0, merged = 0;
	size_t stride = 4 * PAGE_SIZE;
	char *addr, *twin, *single, *device;
	struct node_use use;
	time_t end;
	long left;

	ASSERT_EQ(0, run_on_node(self->ram[0]));
	addr = map_pages(nr);
	ASSERT_NE(NULL, addr);
	twin = addr;			/* pages 0, 4, 8, ... */
	single = addr + 2 * PAGE_SIZE;	/* pages 2, 6, 10, ... */
	device = addr + PAGE_SIZE;	/* pages 1, 3, 5, ... */

	/* The device's pages have twins too, there and in RAM */
	for (i = 0; i < nr; i++)
		fill_page(addr + i * PAGE_SIZE, i % 4 == 2 ? SEED + i : TWIN);
	ASSERT_EQ(0, move_to(device, nr / 2, 2 * PAGE_SIZE, self->nid, NULL));
	/*
	 * That node may be short of memory, and kswapd be freeing some; and a page that
	 * KSM or kswapd looks at right now is nowhere.
	 */
	end = time(NULL) + CDM_WAIT;
	do {
		left = move_to(twin, nr / 2, 2 * PAGE_SIZE, self->ram[0], NULL);
		left |= nr / 2 - pages_on(twin, nr / 2, 2 * PAGE_SIZE, self->ram[0]);
	} while (left && time(NULL) < end);
	ASSERT_EQ(0, left);

	ASSERT_EQ(nr / 2, pages_on(device, nr / 2, 2 * PAGE_SIZE, self->nid));
	ASSERT_EQ(nr / 2, pages_on(addr, nr / 2, 2 * PAGE_SIZE, self->ram[0]));
	ASSERT_EQ(1, count_vmas(addr, nr));

	/* Now the task works from elsewhere, and everything may be merged. */
	ASSERT_EQ(0, run_on_node(self->ram[1]));
	ASSERT_EQ(0, madvise(addr, nr * PAGE_SIZE, MADV_MERGEABLE));
	end = time(NULL) + 2 * CDM_WAIT;
	while ((moved < nr / 8 || merged < nr / 8) && time(NULL) < end) {
		for (i = 0; i < 8; i++)
			touch_faults(addr, nr, PAGE_SIZE);
		moved = pages_on(single, nr / 4, stride, self->ram[1]);
		merged = pages_ksm(twin, nr / 4, stride);
	}
	/* Once more over everything */
	ASSERT_EQ(0, ksm_scans(2));
	for (i = 0; i < 32; i++)
		touch_faults(addr, nr, PAGE_SIZE);

	ASSERT_EQ(0, device_use(&use));
	TH_LOG("%zu pages in %d VMA: in RAM %zu moved, %zu merged", nr,
	       count_vmas(addr, nr), moved, merged);
	TH_LOG("on node %d %zu stayed, %zu merged", self->nid,
	       pages_on(device, nr / 2, 2 * PAGE_SIZE, self->nid),
	       pages_ksm(device, nr / 2, 2 * PAGE_SIZE));

	/* Positive controls */
	EXPECT_LE(nr / 8, moved);
	EXPECT_LE(nr / 8, merged);
	/* No odd page was merged, none moved */
	EXPECT_EQ(0, pages_ksm(device, nr / 2, 2 * PAGE_SIZE));
	EXPECT_EQ(0, use.ksm);
	EXPECT_EQ(nr / 2, pages_on(device, nr / 2, 2 * PAGE_SIZE, self->nid));
	EXPECT_EQ(nr / 2, distinct_pfns(device, nr / 2, 2 * PAGE_SIZE));
	EXPECT_EQ(1, count_vmas(addr, nr));
	for (i = 0; i < nr; i++)
		intact += page_is(addr + i * PAGE_SIZE,
				  i % 4 == 2 ? SEED + i : TWIN);
	EXPECT_EQ(nr, intact);
}

TEST_HARNESS_MAIN
