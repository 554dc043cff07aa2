// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: what is known about a node id or a range before it
 * is taken.
 */
#include <linux/cdm.h>
#include <linux/cpumask.h>
#include <linux/init.h>
#include <linux/kstrtox.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/node.h>
#include <linux/nodemask.h>
#include <linux/printk.h>
#include <linux/range.h>
#include <linux/topology.h>
#ifdef CONFIG_MTRR
#include <asm/mtrr.h>
#endif

#include "glue.h"

/* Node ids that no firmware knows. */
static nodemask_t cdm_spare_nids;
static unsigned int cdm_nr_spare_nids __initdata;

static int __init cdm_parse_nodes(char *arg)
{
	if (!arg || kstrtouint(arg, 0, &cdm_nr_spare_nids)) {
		pr_err("cdm: cdm_nodes= is no number: no node id is kept\n");
		cdm_nr_spare_nids = 0;
	}
	return 0;
}
early_param("cdm_nodes", cdm_parse_nodes);

/**
 * cdm_add_spare_nids - make the node ids possible that cdm_nodes= asks for
 * @possible: the firmware's, which there is no room for others in after boot
 *
 * They come after all others, so that none of these changes.
 *
 * Context: Boot, before anything has the size of nr_node_ids.
 */
void __init cdm_add_spare_nids(nodemask_t *possible)
{
	unsigned int i;
	int nid;

	/* Called again if one description of the machine turns out wrong. */
	nodes_clear(cdm_spare_nids);
	for (i = 0; i < cdm_nr_spare_nids; i++) {
		nid = find_last_bit(possible->bits, MAX_NUMNODES) + 1;
		if (nid >= MAX_NUMNODES) {
			pr_warn("cdm: cdm_nodes=%u: the kernel has node ids for %u\n",
				cdm_nr_spare_nids, i);
			break;
		}
		node_set(nid, *possible);
		node_set(nid, cdm_spare_nids);
	}
}

struct cdm_limits cdm_limits(void)
{
	struct range range = mhp_get_pluggable_range(true);

	return (struct cdm_limits) {
		.block = memory_block_size_bytes(),
		.first = range.start,
		.last = range.end,
	};
}

/* Where the firmware expects memory that is plugged at an address. */
int cdm_expected_nid(u64 start)
{
	return phys_to_target_node(start);
}

static int cdm_block_is_on_node(struct memory_block *block, void *arg)
{
	return block->nid == *(int *)arg;
}

/**
 * cdm_nid_facts - say what a node id is used for
 * @nid: 0 to %MAX_NUMNODES - 1
 *
 * Context: May sleep. The answer holds as long as device_hotplug_lock does.
 * Return: CDM_NID_* bits.
 */
u32 cdm_nid_facts(int nid)
{
	unsigned int cpu;
	u32 facts = 0;

	if (!node_possible(nid))
		return 0;

	facts |= CDM_NID_POSSIBLE;
	if (node_online(nid))
		facts |= CDM_NID_ONLINE;
	if (node_state(nid, N_GENERIC_INITIATOR))
		facts |= CDM_NID_INITIATOR;
	if (node_isset(nid, cdm_spare_nids))
		facts |= CDM_NID_SPARE;
	if (numa_nid_is_promised(nid))
		facts |= CDM_NID_PROMISED;
	/* Memory that is added but not online is not spanned by the node. */
	if (node_spanned_pages(nid) ||
	    for_each_memory_block(&nid, cdm_block_is_on_node))
		facts |= CDM_NID_HAS_MEMORY;
	for_each_possible_cpu(cpu) {
		if (cpu_to_node(cpu) == nid) {
			facts |= CDM_NID_HAS_CPUS;
			break;
		}
	}
	return facts;
}

/**
 * cdm_range_is_write_back - do the CPUs cache this range?
 * @start: first byte
 * @size: bytes
 *
 * The direct map is write-back, so only the machine's own registers can
 * disagree. In a virtual machine they say nothing about the memory behind: the
 * firmware marks the window of all BARs uncached, the hypervisor maps RAM.
 *
 * Context: Any.
 * Return: true if they do, as far as the machine says.
 */
bool cdm_range_is_write_back(u64 start, u64 size)
{
#ifdef CONFIG_MTRR
	u8 uniform, type;

	if (boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return true;

	type = mtrr_type_lookup(start, start + size, &uniform);
	return type == MTRR_TYPE_INVALID ||
	       (type == MTRR_TYPE_WRBACK && uniform);
#else
	return true;
#endif
}
