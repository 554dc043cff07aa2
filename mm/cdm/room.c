// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: is there room in RAM for what a node would leave there?
 *
 * Whoever finds out on the way has moved pages until there is no room for anybody
 * else, and has not got rid of the node.
 */
#include <linux/cdm.h>
#include <linux/gfp.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "../page_alloc.h"
#include "glue.h"

/**
 * cdm_pages_to_move - how many pages of a node are in use
 * @nid: a CDM node
 *
 * Context: May sleep.
 * Return: pages that would have to move for the node to leave.
 */
unsigned long cdm_pages_to_move(int nid)
{
	unsigned long used = 0, unused = cdm_count_bad_pages(nid);
	struct zone *zone;
	struct hstate *h;

	/* What a CPU keeps for its next allocation, or has not sorted yet */
	lru_add_drain_all();
	drain_all_pages(NULL);

	for_each_populated_zone(zone) {
		if (zone_to_nid(zone) != nid)
			continue;
		used += zone_managed_pages(zone);
		unused += zone_page_state(zone, NR_FREE_PAGES);
	}
	/* A free page of the pool needs no other one. */
	for_each_hstate(h)
		unused += h->free_huge_pages_node[nid] * pages_per_huge_page(h);

	return used - min(used, unused);
}

/**
 * cdm_room_in_ram - how many pages ordinary memory has room for
 *
 * As MemAvailable in /proc/meminfo says it: above the watermarks, and without a
 * page being swapped out for it. The limits of memory cgroups do not count: a page
 * that has to leave moves whatever they are.
 *
 * Context: Any. An estimate. Who holds device_hotplug_lock is the only one that
 * moves the pages of a node there.
 * Return: pages.
 */
unsigned long cdm_room_in_ram(void)
{
	return si_mem_available();
}
