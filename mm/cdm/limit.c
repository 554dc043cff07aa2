// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: how much of it a cgroup may have.
 *
 * Each node is a region of the dmem controller. Whoever hands out a page of the
 * node charges it here, and the allocator uncharges it when it is freed. To whom
 * a page is charged is remembered page by page, outside of struct page: whatever
 * becomes of a folio, of its memcg or of its cgroup in between does not matter.
 */
#include <linux/cdm_limit.h>
#include <linux/cgroup.h>
#include <linux/cgroup_dmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/pfn.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/vmalloc.h>

#include "glue.h"

#ifdef CONFIG_CGROUP_DMEM

/*
 * Of each page who is charged for it, or NULL; of a huge page of hugetlb, which
 * is charged as one, at its head. Each has references of the dmem controller.
 */
struct cdm_charges {
	struct dmem_cgroup_region *region;
	unsigned long start_pfn;
	unsigned long nr;
	struct dmem_cgroup_pool_state *pools[];
};

/*
 * Who has a page of a node finds its charge there. Only poison does not know, and
 * a page that breaks while it is freed: both look under RCU.
 */
static struct cdm_charges *cdm_charged[MAX_NUMNODES];

/**
 * cdm_limit_attach - let cgroups limit a node
 * @nid: a node without memory
 * @start: its first byte
 * @size: bytes
 *
 * Context: May sleep.
 * Return: 0 or -ENOMEM.
 */
int cdm_limit_attach(int nid, u64 start, u64 size)
{
	const struct dmem_cgroup_init init = { .size = size };
	struct dmem_cgroup_region *region;
	struct cdm_charges *charges;

	if (!cgroup_subsys_enabled(dmem_cgrp_subsys))
		return 0;

	charges = vzalloc(struct_size(charges, pools, PHYS_PFN(size)));
	if (!charges)
		return -ENOMEM;
	region = dmem_cgroup_register_region(&init, "cdm/node%d", nid);
	if (IS_ERR_OR_NULL(region)) {
		vfree(charges);
		return -ENOMEM;
	}
	charges->region = region;
	charges->start_pfn = PHYS_PFN(start);
	charges->nr = PHYS_PFN(size);
	/* Whoever sees it sees it filled in. */
	smp_store_release(&cdm_charged[nid], charges);
	return 0;
}

/* Several pages in a row are mostly charged to one. */
static void cdm_uncharge_range(struct cdm_charges *charges, unsigned long first,
			       unsigned long nr)
{
	struct dmem_cgroup_pool_state *pool, *last = NULL;
	unsigned int run = 0;
	unsigned long i;

	for (i = first; i < first + nr; i++) {
		pool = READ_ONCE(charges->pools[i]);
		if (pool)
			pool = xchg(&charges->pools[i], NULL);
		if (pool != last) {
			if (last)
				dmem_cgroup_uncharge_units(last, PAGE_SIZE, run);
			last = pool;
			run = 0;
		}
		run++;
	}
	if (last)
		dmem_cgroup_uncharge_units(last, PAGE_SIZE, run);
}

/**
 * cdm_limit_detach - undo cdm_limit_attach()
 * @nid: a node whose last page has gone
 *
 * Context: May sleep.
 */
void cdm_limit_detach(int nid)
{
	struct cdm_charges *charges = cdm_charged[nid];
	unsigned long i, chunk;

	if (!charges)
		return;
	WRITE_ONCE(cdm_charged[nid], NULL);
	synchronize_rcu();

	/* Pages of a device that was lost may not have been freed. */
	for (i = 0; i < charges->nr; i += chunk) {
		chunk = min(charges->nr - i, 1UL << MAX_PAGE_ORDER);
		cdm_uncharge_range(charges, i, chunk);
		cond_resched();
	}
	dmem_cgroup_unregister_region(charges->region);
	vfree(charges);
}

/*
 * The charges of the node of a page, and the page's place there. Under RCU, or with
 * a page that is not being freed.
 */
static struct cdm_charges *cdm_charges_of(const struct page *page, unsigned long *index)
{
	struct cdm_charges *charges = READ_ONCE(cdm_charged[page_to_nid(page)]);

	if (charges)
		*index = page_to_pfn(page) - charges->start_pfn;
	return charges;
}

/*
 * Who pays for a page that is allocated now: who cdm_pay_as_folio() or
 * cdm_pay_as_mm() said, else the current task. A memcg is a cgroup where the dmem
 * controller may not be enabled, then that is the next one above.
 */
static struct cgroup_subsys_state *cdm_get_payer(void)
{
#ifdef CONFIG_MEMCG
	struct mem_cgroup *memcg = current->active_memcg;

	if (memcg && cgroup_subsys_on_dfl(memory_cgrp_subsys) &&
	    cgroup_subsys_on_dfl(dmem_cgrp_subsys))
		return cgroup_get_e_css(memcg->css.cgroup, &dmem_cgrp_subsys);
#endif
	return task_get_css(current, dmem_cgrp_id);
}

static struct dmem_cgroup_pool_state *cdm_charge_payer(struct cdm_charges *charges, u64 unit,
						       unsigned int nr, gfp_t gfp)
{
	const gfp_t pool_gfp = (gfp & (GFP_KERNEL | __GFP_NORETRY)) | __GFP_NOWARN;
	struct cgroup_subsys_state *css = cdm_get_payer();
	struct dmem_cgroup_pool_state *pool;
	int ret;

	ret = dmem_cgroup_try_charge_units(css, charges->region, unit, nr, pool_gfp, &pool);
	css_put(css);
	return ret ? NULL : pool;
}

/* See cdm_try_charge(). */
bool __cdm_try_charge(struct page *page, unsigned int order, gfp_t gfp)
{
	struct dmem_cgroup_pool_state *pool;
	struct cdm_charges *charges;
	unsigned long i, index;

	charges = cdm_charges_of(page, &index);
	if (!charges)
		return true;
	pool = cdm_charge_payer(charges, PAGE_SIZE, 1U << order, gfp);
	if (!pool)
		return false;
	for (i = index; i < index + (1UL << order); i++)
		WRITE_ONCE(charges->pools[i], pool);
	return true;
}

/* See cdm_uncharge(). */
void __cdm_uncharge(struct page *page, unsigned int order)
{
	struct cdm_charges *charges;
	unsigned long index;

	guard(rcu)();
	charges = cdm_charges_of(page, &index);
	if (charges)
		cdm_uncharge_range(charges, index, 1UL << order);
}

/* See cdm_charge_copy(). */
void __cdm_charge_copy(struct folio *dst, struct folio *src)
{
	struct dmem_cgroup_pool_state *pool;
	struct cdm_charges *charges;
	unsigned long i, from, to;

	if (folio_nid(dst) != folio_nid(src))
		return;

	guard(rcu)();
	charges = cdm_charges_of(&dst->page, &to);
	if (!charges)
		return;
	cdm_charges_of(&src->page, &from);
	for (i = 0; i < folio_nr_pages(dst); i++) {
		pool = READ_ONCE(charges->pools[from + i]);
		/* It may have broken meanwhile, and be uncharged. */
		if (pool && dmem_cgroup_charge_again(pool, PAGE_SIZE))
			WRITE_ONCE(charges->pools[to + i], pool);
	}
}

/* See cdm_try_charge_hugetlb(). */
bool __cdm_try_charge_hugetlb(struct folio *folio, gfp_t gfp)
{
	struct dmem_cgroup_pool_state *pool;
	struct cdm_charges *charges;
	unsigned long index;

	charges = cdm_charges_of(&folio->page, &index);
	if (!charges)
		return true;
	pool = cdm_charge_payer(charges, folio_size(folio), 1, gfp);
	if (!pool)
		return false;
	WRITE_ONCE(charges->pools[index], pool);
	return true;
}

void __cdm_uncharge_hugetlb(struct folio *folio)
{
	struct dmem_cgroup_pool_state *pool;
	struct cdm_charges *charges;
	unsigned long index;

	guard(rcu)();
	charges = cdm_charges_of(&folio->page, &index);
	if (!charges)
		return;
	pool = xchg(&charges->pools[index], NULL);
	if (pool)
		dmem_cgroup_uncharge_units(pool, folio_size(folio), 1);
}

/**
 * cdm_limit_poisoned - a page is out of use for good
 * @pfn: a page that may be of a CDM node
 *
 * Something may refer to it for ever: it does not wait to be freed. A huge page of
 * hugetlb does.
 *
 * Context: Any.
 */
void cdm_limit_poisoned(unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);

	if (page && !folio_test_hugetlb(page_folio(page)))
		cdm_uncharge(page, 0);
}

/**
 * cdm_may_charge - would pages of a node be within the limits of who pays?
 * @nid: a valid node id
 * @nr: so many pages
 *
 * Context: Process; does not sleep.
 * Return: true if they would, now.
 */
bool cdm_may_charge(int nid, unsigned int nr)
{
	struct dmem_cgroup_pool_state *pool;
	struct cdm_charges *charges;

	guard(rcu)();
	charges = READ_ONCE(cdm_charged[nid]);
	if (!charges)
		return true;
	pool = cdm_charge_payer(charges, PAGE_SIZE, nr, GFP_NOWAIT);
	if (pool)
		dmem_cgroup_uncharge_units(pool, PAGE_SIZE, nr);
	return pool;
}

static void cdm_pay_as(struct cdm_payer *payer, struct mem_cgroup *memcg)
{
	payer->memcg = memcg;
	payer->before = set_active_memcg(memcg);
}

/**
 * cdm_pay_as_folio - let pages of a device be paid for by who pays for a folio
 * @payer: for cdm_pay_as_before()
 * @folio: a folio that is to be replaced by a page of a device
 *
 * Without memcg nobody knows, and the current task pays.
 *
 * Context: Process.
 */
void cdm_pay_as_folio(struct cdm_payer *payer, struct folio *folio)
{
	cdm_pay_as(payer, get_mem_cgroup_from_folio(folio));
}

/**
 * cdm_pay_as_mm - let pages of a device be paid for by an address space
 * @payer: for cdm_pay_as_before()
 * @mm: where pages are needed
 *
 * Context: Process.
 */
void cdm_pay_as_mm(struct cdm_payer *payer, struct mm_struct *mm)
{
	cdm_pay_as(payer, get_mem_cgroup_from_mm(mm));
}

/**
 * cdm_pay_as_before - undo cdm_pay_as_folio() or cdm_pay_as_mm()
 * @payer: what that was given
 *
 * Context: Process.
 */
void cdm_pay_as_before(struct cdm_payer *payer)
{
	set_active_memcg(payer->before);
	mem_cgroup_put(payer->memcg);
}

#else /* !CONFIG_CGROUP_DMEM */

int cdm_limit_attach(int nid, u64 start, u64 size)
{
	return 0;
}

void cdm_limit_detach(int nid)
{
}

void cdm_limit_poisoned(unsigned long pfn)
{
}

#endif /* CONFIG_CGROUP_DMEM */
