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
#include <linux/gfp_types.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

struct mem_cgroup;

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
