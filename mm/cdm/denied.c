// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: refusals, counted and traced.
 *
 * Core mm calls this when a node has denied a use of its pages, from any
 * context: in GUP-fast with interrupts off, under the page table lock, in a
 * module. What is allowed never comes here.
 */
#include <linux/bitops.h>
#include <linux/cdm.h>
#include <linux/cpumask.h>
#include <linux/export.h>
#include <linux/instruction_pointer.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>

#include "glue.h"

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/cdm.h>

struct cdm_denials {
	unsigned long count[CDM_NR_CAPS];
};

/*
 * Allocated with the node: for all possible nodes it would be 120 KiB per CPU
 * with NODES_SHIFT=10. A node can be asked about without a page of it being
 * held, so readers look under RCU.
 */
static struct cdm_denials __percpu *cdm_denials[MAX_NUMNODES];

/**
 * cdm_denials_attach - start to count what a node denies
 * @nid: a node without a mask yet
 *
 * Context: May sleep.
 * Return: 0 or -ENOMEM.
 */
int cdm_denials_attach(int nid)
{
	struct cdm_denials __percpu *denials;

	denials = alloc_percpu(struct cdm_denials);
	if (!denials)
		return -ENOMEM;
	/* Whoever sees the counters sees them zeroed. */
	smp_store_release(&cdm_denials[nid], denials);
	return 0;
}

/**
 * cdm_denials_detach - stop to count what a node denies
 * @nid: from cdm_denials_attach()
 *
 * Context: Any.
 * Return: the counters, to be freed after an RCU grace period.
 */
struct cdm_denials __percpu *cdm_denials_detach(int nid)
{
	struct cdm_denials __percpu *denials = cdm_denials[nid];

	WRITE_ONCE(cdm_denials[nid], NULL);
	return denials;
}

void cdm_denials_free(struct cdm_denials __percpu *denials)
{
	free_percpu(denials);
}

/**
 * cdm_denials_read - how often has a node denied something?
 * @nid: a node id
 * @bit: bit number of a CDM_ALLOW_*
 *
 * Context: Any.
 * Return: the count, which only grows while the node exists; 0 if it does not.
 */
unsigned long cdm_denials_read(int nid, unsigned int bit)
{
	struct cdm_denials __percpu *denials;
	unsigned long sum = 0;
	int cpu;

	rcu_read_lock();
	denials = READ_ONCE(cdm_denials[nid]);
	if (denials && bit < CDM_NR_CAPS) {
		for_each_possible_cpu(cpu)
			sum += READ_ONCE(per_cpu_ptr(denials, cpu)->count[bit]);
	}
	rcu_read_unlock();
	return sum;
}

static void cdm_denied(int nid, u32 cap, unsigned long pfn, unsigned int order,
		       unsigned long caller)
{
	struct cdm_denials __percpu *denials;
	unsigned long bits = cap;
	unsigned int bit;

	rcu_read_lock();
	denials = READ_ONCE(cdm_denials[nid]);
	if (denials) {
		for_each_set_bit(bit, &bits, CDM_NR_CAPS)
			this_cpu_inc(denials->count[bit]);
	}
	rcu_read_unlock();

	trace_cdm_denied(nid, cap, pfn, order, caller);
}

/**
 * cdm_folio_denied - a node has denied a use of a folio
 * @folio: a folio that was asked for, see folio_node_allows()
 * @cap: the CDM_ALLOW_* bits that were asked for and are denied
 *
 * Context: Any.
 */
void cdm_folio_denied(const struct folio *folio, u32 cap)
{
	cdm_denied(folio_nid(folio), cap, folio_pfn(folio), folio_order(folio),
		   _RET_IP_);
}
EXPORT_SYMBOL_GPL(cdm_folio_denied);

/**
 * cdm_page_denied - a node has denied a use of a page
 * @page: a page that was asked for, see page_node_allows()
 * @cap: the CDM_ALLOW_* bits that were asked for and are denied
 *
 * The page may be of a larger folio, which the caller need not know yet.
 *
 * Context: Any.
 */
void cdm_page_denied(const struct page *page, u32 cap)
{
	cdm_denied(page_to_nid(page), cap, page_to_pfn(page), 0, _RET_IP_);
}
EXPORT_SYMBOL_GPL(cdm_page_denied);

/**
 * cdm_node_denied - a node has denied a use of its pages, whichever
 * @nid: a valid node id
 * @cap: the CDM_ALLOW_* bits that were asked for and are denied
 *
 * Context: Any.
 */
void cdm_node_denied(int nid, u32 cap)
{
	cdm_denied(nid, cap, 0, 0, _RET_IP_);
}
EXPORT_SYMBOL_GPL(cdm_node_denied);
