// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: does the memory controller count it?
 *
 * memory.max, high, low and min are for RAM, which runs out for everybody. A device
 * has limits of its own, see limit.c, and by the administrator's choice these only.
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/cdm_limit.h>
#include <linux/cpumask.h>
#include <linux/mmzone.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/stop_machine.h>
#include <linux/vmstat.h>

#include "glue.h"

struct cdm_recount {
	int nid;
	bool uncounted;
	unsigned long used;
};

/*
 * Nobody is in the allocator meanwhile. What is not on its lists is somebody's, and
 * may have been counted. Who takes a page after this finds the new word.
 */
static int cdm_recount(void *data)
{
	struct cdm_recount *change = data;
	struct zone *zone = NODE_DATA(change->nid)->node_zones + ZONE_MOVABLE;
	unsigned long unused = cdm_count_idle_bad_pages(change->nid);
	u32 word = cdm_node_deny[change->nid];
	int cpu;

	unused += zone_page_state_snapshot(zone, NR_FREE_PAGES);
	for_each_online_cpu(cpu)
		unused += per_cpu_ptr(zone->per_cpu_pageset, cpu)->count;

	change->used = zone_managed_pages(zone) - min(unused, zone_managed_pages(zone));
	if (change->used)
		return -EBUSY;

	WRITE_ONCE(cdm_node_deny[change->nid],
		   change->uncounted ? word | CDM_UNCOUNTED : word & ~CDM_UNCOUNTED);
	return 0;
}

/**
 * cdm_set_uncounted - say whether memcg counts the pages of a node
 * @nid: a CDM node, which does not go meanwhile
 * @uncounted: it does not
 *
 * Context: May sleep. Takes cpu_hotplug_lock, and stops all CPUs for a moment.
 * Return: 0, or -EBUSY if there are pages in use, which a line in the log says.
 */
int cdm_set_uncounted(int nid, bool uncounted)
{
	struct cdm_recount change = {
		.nid = nid,
		.uncounted = uncounted,
	};
	int ret;

	if (uncounted == !!(READ_ONCE(cdm_node_deny[nid]) & CDM_UNCOUNTED))
		return 0;
	ret = stop_machine(cdm_recount, &change, NULL);
	if (ret)
		pr_warn("node %d: %lu pages are in use, memcg counts them as before\n",
			nid, change.used);
	return ret;
}
