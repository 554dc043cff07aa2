/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Coherent device memory: its limits, by the dmem controller.
 *
 * For those parts of mm that hand out pages of a device and take them back. A
 * page is charged where it is handed out, before memcg charges it: then there is
 * still another node to ask. It is uncharged where it is freed; mm/cdm/limit.c
 * remembers whom to. See Documentation/mm/cdm.rst.
 */
#ifndef _LINUX_CDM_LIMIT_H
#define _LINUX_CDM_LIMIT_H

#include <linux/cdm.h>
#include <linux/cgroup.h>
#include <linux/gfp_types.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

struct mem_cgroup;

/*
 * In the word of a node beside what it denies: what of it a memcg has is no part
 * of memory.current, and so of no limit or protection there. Only written while
 * no page of the node is in use.
 */
#define CDM_UNCOUNTED		0x40000000

#if defined(CONFIG_CDM) && defined(CONFIG_MEMCG)

/**
 * node_is_memcg_counted - is memory of this node a part of memory.current?
 * @nid: a valid node id
 *
 * In cgroup v1 that of each node is.
 *
 * Context: Any.
 * Return: true if it is; for who holds a page of the node it stays so, but for who
 * mounts the controller elsewhere meanwhile.
 */
static __always_inline bool node_is_memcg_counted(int nid)
{
	return !cdm_enabled() || !(READ_ONCE(cdm_node_deny[nid]) & CDM_UNCOUNTED) ||
	       !cgroup_subsys_on_dfl(memory_cgrp_subsys);
}

/**
 * folio_is_memcg_counted - node_is_memcg_counted() for the node of a folio
 * @folio: one that does not change its node meanwhile
 *
 * Context: Any.
 * Return: true if it is.
 */
static __always_inline bool folio_is_memcg_counted(const struct folio *folio)
{
	return !cdm_enabled() || node_is_memcg_counted(folio_nid(folio));
}

bool mem_cgroup_may_grow(struct folio *folio, unsigned long nr_pages);
unsigned long __cdm_task_uncounted_pages(struct task_struct *task);

/* As cdm_task_pages(), but of nodes only that memcg does not count */
static __always_inline unsigned long cdm_task_uncounted_pages(struct task_struct *task)
{
	return cdm_enabled() ? __cdm_task_uncounted_pages(task) : 0;
}

#else /* !CONFIG_CDM || !CONFIG_MEMCG */

static __always_inline bool node_is_memcg_counted(int nid)
{
	return true;
}

static __always_inline bool folio_is_memcg_counted(const struct folio *folio)
{
	return true;
}

static __always_inline unsigned long cdm_task_uncounted_pages(struct task_struct *task)
{
	return 0;
}

static inline bool mem_cgroup_may_grow(struct folio *folio, unsigned long nr_pages)
{
	return true;
}

#endif

/* Who pays for pages of a device instead of the current task, while it says so. */
struct cdm_payer {
	struct mem_cgroup *memcg;
	struct mem_cgroup *before;
};

#if defined(CONFIG_CDM) && defined(CONFIG_CGROUP_DMEM)

bool __cdm_try_charge(struct page *page, unsigned int order, gfp_t gfp);
void __cdm_uncharge(struct page *page, unsigned int order);
void __cdm_charge_copy(struct folio *dst, struct folio *src);
bool __cdm_try_charge_hugetlb(struct folio *folio, gfp_t gfp);
void __cdm_uncharge_hugetlb(struct folio *folio);
bool cdm_may_charge(int nid, unsigned int nr);
bool cdm_reclaim_to_charge(const nodemask_t *nodes, gfp_t gfp, int *in_vain);
void __cdm_protection(int nid, struct mem_cgroup *root, struct mem_cgroup *memcg,
		      unsigned long *min, unsigned long *low, unsigned long *used);

void cdm_pay_as_folio(struct cdm_payer *payer, struct folio *folio);
void cdm_pay_as_mm(struct cdm_payer *payer, struct mm_struct *mm);
void cdm_pay_as_before(struct cdm_payer *payer);

/**
 * cdm_try_charge - charge a page to who gets it, if a device gives it
 * @page: a page of any node that the caller has just got
 * @order: it is so large
 * @gfp: as it was allocated
 *
 * Context: Process; may sleep if @gfp lets it.
 * Return: false if a limit is in the way, and the page must be given back.
 */
static __always_inline bool cdm_try_charge(struct page *page, unsigned int order,
					   gfp_t gfp)
{
	return !node_is_cdm(page_to_nid(page)) || __cdm_try_charge(page, order, gfp);
}

/**
 * cdm_uncharge - give back what a page was charged for, if it was
 * @page: a page of any node that is being freed
 * @order: it is so large
 *
 * Context: Any.
 */
static __always_inline void cdm_uncharge(struct page *page, unsigned int order)
{
	if (cdm_enabled() && unlikely(node_isset(page_to_nid(page), cdm_nodes)))
		__cdm_uncharge(page, order);
}

/**
 * cdm_charge_copy - charge a folio to those who pay for what it replaces
 * @dst: a folio that has not been charged
 * @src: a folio of the same size, which is to be freed
 *
 * Limits don't matter: it is for a moment. For a move within a node, which takes
 * its free pages from nobody's allocator.
 *
 * Context: Any.
 */
static __always_inline void cdm_charge_copy(struct folio *dst, struct folio *src)
{
	if (cdm_enabled() && unlikely(node_isset(folio_nid(dst), cdm_nodes)))
		__cdm_charge_copy(dst, src);
}

/* A huge page is charged while somebody has it, and not in its pool. */
static __always_inline bool cdm_try_charge_hugetlb(struct folio *folio, gfp_t gfp)
{
	return !node_is_cdm(folio_nid(folio)) || __cdm_try_charge_hugetlb(folio, gfp);
}

static __always_inline void cdm_uncharge_hugetlb(struct folio *folio)
{
	if (cdm_enabled() && unlikely(node_isset(folio_nid(folio), cdm_nodes)))
		__cdm_uncharge_hugetlb(folio);
}

/**
 * cdm_protection - how much of a node is a memcg's to keep
 * @nid: a valid node id
 * @root: whose limit is the reason for the question, or NULL: the node is short
 * @memcg: one below
 * @min: set to what dmem.min of its cgroup protects
 * @low: set to what dmem.low does
 * @used: set to what it is charged for
 *
 * In pages. They stay as they are if dmem protects nothing, or it is no CDM node.
 *
 * Context: Any.
 */
static __always_inline void cdm_protection(int nid, struct mem_cgroup *root,
					   struct mem_cgroup *memcg, unsigned long *min,
					   unsigned long *low, unsigned long *used)
{
	if (node_is_cdm(nid))
		__cdm_protection(nid, root, memcg, min, low, used);
}

#else /* !CONFIG_CDM || !CONFIG_CGROUP_DMEM */

static __always_inline bool cdm_try_charge(struct page *page, unsigned int order,
					   gfp_t gfp)
{
	return true;
}

static __always_inline void cdm_uncharge(struct page *page, unsigned int order)
{
}

static __always_inline void cdm_charge_copy(struct folio *dst, struct folio *src)
{
}

static __always_inline bool cdm_try_charge_hugetlb(struct folio *folio, gfp_t gfp)
{
	return true;
}

static __always_inline void cdm_uncharge_hugetlb(struct folio *folio)
{
}

static inline bool cdm_may_charge(int nid, unsigned int nr)
{
	return true;
}

static inline bool cdm_reclaim_to_charge(const nodemask_t *nodes, gfp_t gfp, int *in_vain)
{
	return false;
}

static __always_inline void cdm_protection(int nid, struct mem_cgroup *root,
					   struct mem_cgroup *memcg, unsigned long *min,
					   unsigned long *low, unsigned long *used)
{
}

static inline void cdm_pay_as_folio(struct cdm_payer *payer, struct folio *folio)
{
}

static inline void cdm_pay_as_mm(struct cdm_payer *payer, struct mm_struct *mm)
{
}

static inline void cdm_pay_as_before(struct cdm_payer *payer)
{
}

#endif

#endif /* _LINUX_CDM_LIMIT_H */
