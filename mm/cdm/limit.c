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
#include <linux/memory_hotplug.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/pfn.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/vmalloc.h>

#include "../internal.h"
#include "glue.h"

#ifdef CONFIG_CGROUP_DMEM

/*
 * Of each page who is charged for it, or NULL; of a huge page of hugetlb, which
 * is charged as one, at its head. Each has references of the dmem controller.
 */
struct cdm_charges {
	struct dmem_cgroup_region *region;
	int nid;
	unsigned long start_pfn;
	unsigned long nr;
	struct dmem_cgroup_pool_state *pools[];
};

/*
 * Who has a page of a node finds its charge there. Only poison does not know, and
 * a page that breaks while it is freed: both look under RCU.
 */
static struct cdm_charges *cdm_charged[MAX_NUMNODES];

/* Pages that are looked at, or moved, at a time */
#define CDM_MOVE_BATCH		512

/*
 * Is a page charged to the cgroup of a pool, or to one below? Then isolate its folio.
 * Inside get_online_mems(). Return: pages.
 */
static unsigned long cdm_isolate_charged(struct cdm_charges *charges, unsigned long index,
					 struct dmem_cgroup_pool_state *top,
					 struct list_head *list)
{
	struct dmem_cgroup_pool_state *pool;
	unsigned long nr = 0;
	struct folio *folio;
	struct page *page;

	scoped_guard(rcu) {
		pool = READ_ONCE(charges->pools[index]);
		if (!pool || !dmem_cgroup_pool_is_within(pool, top))
			return 0;
	}
	page = pfn_to_online_page(charges->start_pfn + index);
	if (!page)
		return 0;
	folio = page_folio(page);
	if (!folio_try_get(folio))
		return 0;
	/* A huge page of hugetlb goes with its pool. */
	if (page_folio(page) == folio && !folio_test_hugetlb(folio) &&
	    isolate_folio_to_list(folio, list))
		nr = folio_nr_pages(folio);
	folio_put(folio);
	return nr;
}

/* Return: how many pages of a node have moved to RAM; -errno if a signal came. */
static long cdm_move_to_ram(int nid, struct list_head *list)
{
	nodemask_t nodes = node_states[N_MEMORY];
	struct migration_target_control mtc = {
		.nid = nid,
		.nmask = &nodes,
		.gfp_mask = GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL | __GFP_NOWARN,
		.reason = MR_SYSCALL,
	};
	unsigned int moved = 0;

	if (list_empty(list))
		return 0;
	migrate_pages(list, alloc_migration_target, NULL, (unsigned long)&mtc,
		      MIGRATE_SYNC, MR_SYSCALL, &moved);
	putback_movable_pages(list);
	return fatal_signal_pending(current) ? -EINTR : moved;
}

/*
 * dmem.max has been set below what a cgroup has: that much moves to RAM, if the
 * node allows it, as move_pages(2) would do it. Whom it belongs to keeps it.
 */
static int cdm_dmem_reclaim(struct dmem_cgroup_pool_state *pool, u64 bytes, void *data)
{
	const unsigned long wanted = DIV_ROUND_UP(bytes, PAGE_SIZE);
	struct cdm_charges *charges = data;
	unsigned long i = 0, end, isolated, moved = 0;
	LIST_HEAD(list);
	long ret;

	if (!node_allows(charges->nid, CDM_ALLOW_MIGRATE)) {
		cdm_note_denied(charges->nid, CDM_ALLOW_MIGRATE);
		return -EBUSY;
	}
	lru_add_drain_all();
	while (i < charges->nr && moved < wanted) {
		/* The memory map goes before the charges do. */
		get_online_mems();
		end = min(i + CDM_MOVE_BATCH, charges->nr);
		for (isolated = 0; i < end && moved + isolated < wanted; i++)
			isolated += cdm_isolate_charged(charges, i, pool, &list);
		put_online_mems();
		ret = cdm_move_to_ram(charges->nid, &list);
		if (ret < 0)
			return ret;
		moved += ret;
		cond_resched();
	}
	return moved ? 0 : -ENOSPC;
}

static const struct dmem_cgroup_ops cdm_dmem_ops = {
	.reclaim = cdm_dmem_reclaim,
};

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
	struct dmem_cgroup_init init = { .size = size, .ops = &cdm_dmem_ops };
	struct dmem_cgroup_region *region;
	struct cdm_charges *charges;

	if (!cgroup_subsys_enabled(dmem_cgrp_subsys))
		return 0;

	charges = vzalloc(struct_size(charges, pools, PHYS_PFN(size)));
	if (!charges)
		return -ENOMEM;
	charges->nid = nid;
	charges->start_pfn = PHYS_PFN(start);
	charges->nr = PHYS_PFN(size);
	init.reclaim_priv = charges;
	region = dmem_cgroup_register_region(&init, "cdm/node%d", nid);
	if (IS_ERR_OR_NULL(region)) {
		vfree(charges);
		return -ENOMEM;
	}
	charges->region = region;
	/* Whoever sees it sees it filled in. */
	smp_store_release(&cdm_charged[nid], charges);
	return 0;
}

/* Several pages in a row are mostly charged to one. Returns how many were charged. */
static unsigned long cdm_uncharge_range(struct cdm_charges *charges, unsigned long first,
					unsigned long nr)
{
	struct dmem_cgroup_pool_state *pool, *last = NULL;
	unsigned long i, charged = 0;
	unsigned int run = 0;

	for (i = first; i < first + nr; i++) {
		pool = READ_ONCE(charges->pools[i]);
		if (pool)
			pool = xchg(&charges->pools[i], NULL);
		charged += !!pool;
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
	return charged;
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
	unsigned long i, chunk, left = 0;

	if (!charges)
		return;
	WRITE_ONCE(cdm_charged[nid], NULL);
	synchronize_rcu();

	/*
	 * What has gone was freed before, or is broken: it is charged to nobody. A
	 * charge that is left would keep a cgroup for ever.
	 */
	for (i = 0; i < charges->nr; i += chunk) {
		chunk = min(charges->nr - i, 1UL << MAX_PAGE_ORDER);
		left += cdm_uncharge_range(charges, i, chunk);
		cond_resched();
	}
	VM_WARN_ON_ONCE(left);
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

#ifdef CONFIG_MEMCG
/*
 * A memcg is a cgroup where the dmem controller may not be enabled, then it is the
 * next one above that counts. With a reference; NULL for no memcg.
 */
static struct cgroup_subsys_state *cdm_get_css(struct mem_cgroup *memcg)
{
	return memcg ? cgroup_get_e_css(memcg->css.cgroup, &dmem_cgrp_subsys) : NULL;
}
#endif

/*
 * Who pays for a page that is allocated now: who cdm_pay_as_folio() or
 * cdm_pay_as_mm() said, else the current task.
 */
static struct cgroup_subsys_state *cdm_get_payer(void)
{
#ifdef CONFIG_MEMCG
	struct mem_cgroup *memcg = current->active_memcg;

	if (memcg && cgroup_subsys_on_dfl(memory_cgrp_subsys) &&
	    cgroup_subsys_on_dfl(dmem_cgrp_subsys))
		return cdm_get_css(memcg);
#endif
	return task_get_css(current, dmem_cgrp_id);
}

static struct dmem_cgroup_pool_state *
cdm_charge_payer(struct cdm_charges *charges, u64 unit, unsigned int nr, gfp_t gfp,
		 struct cgroup_subsys_state **limit)
{
	const gfp_t pool_gfp = (gfp & (GFP_KERNEL | __GFP_NORETRY)) | __GFP_NOWARN;
	struct cgroup_subsys_state *css = cdm_get_payer();
	struct dmem_cgroup_pool_state *pool;
	int ret;

	ret = dmem_cgroup_try_charge_units(css, charges->region, unit, nr, pool_gfp, &pool,
					   limit);
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
	pool = cdm_charge_payer(charges, PAGE_SIZE, 1U << order, gfp, NULL);
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
	pool = cdm_charge_payer(charges, folio_size(folio), 1, gfp, NULL);
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

/* See cdm_may_charge(). Whose limit is in the way @limit says, with a reference. */
static bool cdm_would_fit(int nid, unsigned int nr, struct cgroup_subsys_state **limit)
{
	struct dmem_cgroup_pool_state *pool;
	struct cdm_charges *charges;

	guard(rcu)();
	charges = READ_ONCE(cdm_charged[nid]);
	if (!charges)
		return true;
	pool = cdm_charge_payer(charges, PAGE_SIZE, nr, GFP_NOWAIT, limit);
	if (pool)
		dmem_cgroup_uncharge_units(pool, PAGE_SIZE, nr);
	return pool;
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
	return cdm_would_fit(nid, nr, NULL);
}

#ifdef CONFIG_MEMCG
/* Are there pages that will be free, or back on their LRU, when somebody is done? */
static bool cdm_node_reclaims(int nid)
{
	struct pglist_data *pgdat = NODE_DATA(nid);

	return node_allows(nid, CDM_ALLOW_RECLAIM) &&
	       (node_page_state(pgdat, NR_WRITEBACK) ||
		node_page_state(pgdat, NR_ISOLATED_ANON) ||
		node_page_state(pgdat, NR_ISOLATED_FILE));
}

/**
 * cdm_reclaim_to_charge - reclaim on devices what the task's own cgroup has there
 * @nodes: nodes on which the task may have pages
 * @gfp: of the allocation that a limit is in the way of
 * @in_vain: how often nothing was reclaimed yet
 *
 * Of the cgroup whose limit it is, and of those below. memcg knows their pages, if
 * it is enabled for the same cgroup; else there are other cgroups' among them, and
 * none is touched.
 *
 * Context: Process; may sleep, and reclaim.
 * Return: true if it is worth another try.
 */
bool cdm_reclaim_to_charge(const nodemask_t *nodes, gfp_t gfp, int *in_vain)
{
	bool at_limit = false, progress = false, busy = false, room = false;
	struct cgroup_subsys_state *limit, *css;
	int nid;

	/* Who is dying needs no page, and reclaim does not recur. */
	if ((current->flags & PF_MEMALLOC) || fatal_signal_pending(current))
		return false;

	for_each_node_mask(nid, *nodes) {
		struct zone *zone = NODE_DATA(nid)->node_zones + ZONE_MOVABLE;

		if (!node_is_cdm(nid))
			continue;
		limit = NULL;
		if (cdm_would_fit(nid, 1, &limit)) {
			room |= zone_page_state(zone, NR_FREE_PAGES) > low_wmark_pages(zone);
			continue;
		}
		if (!limit)
			continue;
		css = cgroup_get_e_css(limit->cgroup, &memory_cgrp_subsys);
		if (css->cgroup == limit->cgroup) {
			at_limit = true;
			/* What was free already, but for a CPU's list, is not reclaimed. */
			if (reclaim_memcg_on_node(mem_cgroup_from_css(css), nid, gfp) ||
			    cdm_may_charge(nid, 1))
				progress = true;
			else if (cdm_node_reclaims(nid))
				busy = true;
		}
		css_put(css);
		css_put(limit);
	}
	if (progress)
		return true;
	if (++*in_vain > MAX_RECLAIM_RETRIES)
		return false;
	/* Somebody else has made room, or was in the way for a moment. */
	if (!at_limit)
		return room;
	/* New pages wait on the CPUs' lists to come to an LRU. */
	if (*in_vain == 1) {
		lru_add_drain_all();
		return true;
	}
	if (busy)
		schedule_timeout_killable(HZ / 10);
	return busy;
}

/* See cdm_protection(). */
void __cdm_protection(int nid, struct mem_cgroup *root, struct mem_cgroup *memcg,
		      unsigned long *min, unsigned long *low, unsigned long *used)
{
	struct cgroup_subsys_state *root_css, *css;
	unsigned long dmem_min, dmem_low, dmem_used;
	struct cdm_charges *charges;

	if (!cgroup_subsys_on_dfl(memory_cgrp_subsys) ||
	    !cgroup_subsys_on_dfl(dmem_cgrp_subsys))
		return;
	css = cdm_get_css(memcg);
	if (!css)
		return;
	root_css = cdm_get_css(root);

	scoped_guard(rcu) {
		charges = READ_ONCE(cdm_charged[nid]);
		if (charges)
			dmem_cgroup_protection(root_css, css, charges->region, &dmem_min,
					       &dmem_low, &dmem_used);
	}
	if (charges && (dmem_min || dmem_low)) {
		*min = PHYS_PFN(dmem_min);
		*low = PHYS_PFN(dmem_low);
		*used = PHYS_PFN(dmem_used);
	}

	if (root_css)
		css_put(root_css);
	css_put(css);
}
#else
bool cdm_reclaim_to_charge(const nodemask_t *nodes, gfp_t gfp, int *in_vain)
{
	return false;
}

void __cdm_protection(int nid, struct mem_cgroup *root, struct mem_cgroup *memcg,
		      unsigned long *min, unsigned long *low, unsigned long *used)
{
}
#endif /* CONFIG_MEMCG */

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
