// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: what is known about a node id or a range before it
 * is taken.
 */
#include <linux/cdm.h>
#include <linux/cpumask.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/node.h>
#include <linux/nodemask.h>
#include <linux/range.h>
#include <linux/topology.h>
#ifdef CONFIG_MTRR
#include <asm/mtrr.h>
#endif

#include "glue.h"

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
