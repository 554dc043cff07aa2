// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: pages whose content is lost.
 *
 * A device that goes takes along what could not be moved in time, and a device
 * that was reset has forgotten everything. Nobody may read from there any more,
 * and nothing may be moved or written out: what would be copied is not what the
 * task wrote. So the pages are taken from those who have them, and what is left
 * in their place says so: a poison marker in page tables and in the page cache
 * of tmpfs, an error in the mapping of other files.
 *
 * A folio to which something in the kernel refers (a pipe, a buffer that was
 * registered with io_uring, a device that does DMA) cannot be taken away: there
 * would be no struct page to drop the reference on. It is marked as poison, and
 * its block stays until the last reference is dropped.
 */
#include <linux/cdm.h>
#include <linux/hugetlb.h>
#include <linux/init.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/notifier.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/pfn.h>
#include <linux/rmap.h>
#include <linux/sched.h>
#include <linux/shmem_fs.h>
#include <linux/sizes.h>
#include <linux/swap.h>
#include <linux/xarray.h>

#include "../internal.h"
#include "../swap.h"
#include "glue.h"

/* Nobody should have a page that is poison: before its content was lost, or since. */
static bool cdm_is_nobodys(unsigned long pfn, struct xarray *bad)
{
	return xa_load(bad, pfn) || cdm_page_is_out_of_use(pfn);
}

/* Core mm has a reference of its own to what is out of use; who has another one? */
static bool cdm_page_in_use(const struct page *page, bool out_of_use)
{
	return page_ref_count(page) > (out_of_use ? 1 : 0);
}

/* Tail pages of hugetlb folios may share their struct pages, read-only. */
static void cdm_poison_folio(struct folio *folio, bool poison)
{
	long i, nr = folio_test_hugetlb(folio) ? 1 : folio_nr_pages(folio);

	for (i = 0; i < nr; i++) {
		if (poison)
			SetPageHWPoison(folio_page(folio, i));
		else
			ClearPageHWPoison(folio_page(folio, i));
	}
}

static void cdm_unmap_folio(struct folio *folio, enum ttu_flags ttu)
{
	struct address_space *mapping;

	if (!folio_test_hugetlb(folio) || folio_test_anon(folio)) {
		try_to_unmap(folio, ttu | TTU_SPLIT_HUGE_PMD);
		return;
	}

	/* Page tables may be shared, see unmap_poisoned_folio(). */
	mapping = hugetlb_folio_mapping_lock_write(folio);
	if (mapping) {
		try_to_unmap(folio, ttu | TTU_RMAP_LOCKED);
		i_mmap_unlock_write(mapping);
	}
}

static void cdm_take_from_file(struct folio *folio,
			       struct address_space *mapping)
{
	if (shmem_mapping(mapping)) {
		shmem_lose_folio(folio);
		return;
	}

	/* Who wrote it learns by fsync(2) that it is not on the disk. */
	if (folio_test_dirty(folio))
		mapping_set_error(mapping, -EIO);
	/* hugetlbfs keeps it, and says that it is poison. */
	if (mapping->a_ops->error_remove_folio)
		mapping->a_ops->error_remove_folio(mapping, folio);
}

/*
 * A file of tmpfs keeps a page that broke, to know what is lost. It can do so without
 * the page.
 */
static void cdm_take_broken(struct page *page)
{
	struct folio *folio = page_folio(page);
	struct address_space *mapping;

	if (!folio_try_get(folio))
		return;
	if (folio_test_large(folio) || !folio_trylock(folio))
		goto put;
	mapping = folio_mapping(folio);
	if (mapping && shmem_mapping(mapping) && !folio_mapped(folio) &&
	    !folio_test_writeback(folio))
		shmem_lose_folio(folio);
	folio_unlock(folio);
put:
	folio_put(folio);
}

static bool cdm_folio_has_users(struct folio *folio)
{
	return folio_mapped(folio) || folio->mapping ||
	       folio_test_swapcache(folio);
}

/*
 * Take a folio from all who have it. The caller holds a reference, which is the
 * last one if this succeeds.
 */
static bool cdm_take_folio(struct folio *folio, unsigned long *taken)
{
	enum ttu_flags ttu = TTU_IGNORE_MLOCK | TTU_SYNC | TTU_HWPOISON;
	struct address_space *mapping;
	bool free;

	/* Somebody is at it, or about to map it: the next round finds it. */
	if (!folio_trylock(folio))
		return false;
	if (!cdm_folio_has_users(folio) && !folio_test_hwpoison(folio)) {
		folio_unlock(folio);
		return false;
	}

	if (folio_test_writeback(folio) && !folio_test_swapcache(folio)) {
		folio_unlock(folio);
		return false;
	}

	if (!folio_test_hwpoison(folio)) {
		cdm_poison_folio(folio, true);
		*taken += folio_nr_pages(folio);
	}
	/* A swap slot has the data, or had it before the last write. */
	if (folio_test_swapcache(folio)) {
		ttu &= ~TTU_HWPOISON;
		/* Who knows what is found there now, and written to the slot? */
		if (folio_test_writeback(folio))
			folio_set_dirty(folio);
	}
	if (folio_mapped(folio))
		cdm_unmap_folio(folio, ttu);

	mapping = folio_mapping(folio);
	if (!folio_mapped(folio)) {
		if (folio_test_swapcache(folio)) {
			if (!folio_test_dirty(folio))
				swap_cache_del_folio(folio);
			else
				/* It stays until who has the slot is told. */
				folio_clear_uptodate(folio);
		} else if (mapping && !folio_test_anon(folio)) {
			cdm_take_from_file(folio, mapping);
		}
	}

	free = folio_ref_count(folio) == 1;
	if (free)
		cdm_poison_folio(folio, false);
	folio_unlock(folio);
	return free;
}

/**
 * cdm_take_pages - take the pages of a range from all who have them
 * @start: first byte, of a node whose word says %CDM_GONE
 * @size: bytes
 * @bad: pages that were poison before, which nobody has
 * @lost: where is counted what was taken, and what something still refers to
 *
 * Context: May sleep.
 */
void cdm_take_pages(u64 start, u64 size, struct xarray *bad,
		    struct cdm_lost *lost)
{
	unsigned long pfn = PHYS_PFN(start);
	const unsigned long end = PHYS_PFN(start + size);

	lost->held = 0;
	/* What is on its way to a list of pages has a reference. */
	lru_add_drain_all();

	get_online_mems();
	while (pfn < end) {
		struct page *page = pfn_to_online_page(pfn);
		unsigned long next = pfn + 1;
		struct folio *folio;

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();

		if (!page || !page_count(page)) {
			pfn = next;
			continue;
		}
		if (cdm_is_nobodys(pfn, bad)) {
			if (cdm_page_in_use(page, true))
				cdm_take_broken(page);
		} else {
			folio = page_folio(page);
			if (folio_try_get(folio)) {
				if (page_folio(page) == folio) {
					long nr = folio_nr_pages(folio);

					if (!cdm_take_folio(folio, &lost->taken))
						lost->held += nr;
					next = folio_pfn(folio) + nr;
				}
				folio_put(folio);
			}
		}
		pfn = next;
	}
	put_online_mems();
}

/**
 * cdm_note_poison - remember which pages of a range are poison
 * @start: first byte
 * @size: bytes
 * @bad: where they go
 *
 * memory_failure() keeps a reference to each, and there is nothing to wait for.
 *
 * Context: May sleep.
 */
void cdm_note_poison(u64 start, u64 size, struct xarray *bad)
{
	unsigned long pfn;

	get_online_mems();
	for (pfn = PHYS_PFN(start); pfn < PHYS_PFN(start + size); pfn++) {
		struct page *page = pfn_to_online_page(pfn);

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();
		if (page && PageHWPoison(page))
			xa_store(bad, pfn, xa_mk_value(1),
				 GFP_KERNEL | __GFP_NOFAIL);
	}
	put_online_mems();
}

/**
 * cdm_pages_in_use - does anything refer to a page of this range?
 * @pfn: the first page, of memory that is not removed meanwhile
 * @nr: number of pages
 * @bad: pages that do not count
 *
 * Context: May sleep.
 * Return: true if so.
 */
bool cdm_pages_in_use(unsigned long pfn, unsigned long nr, struct xarray *bad)
{
	const unsigned long end = pfn + nr;

	for (; pfn < end; pfn++) {
		struct page *page = pfn_to_online_page(pfn);

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();
		if (page && page_ref_count(page) &&
		    cdm_page_in_use(page, cdm_is_nobodys(pfn, bad)))
			return true;
	}
	return false;
}

/**
 * cdm_bad_page_in_use - does anything refer to a broken page?
 * @pfn: a page of a CDM node that is broken, and online
 *
 * Context: Any.
 * Return: true if so.
 */
bool cdm_bad_page_in_use(unsigned long pfn)
{
	return cdm_page_in_use(pfn_to_page(pfn), cdm_page_is_out_of_use(pfn));
}

/* See cdm_bad_pages_in_use(). */
bool __cdm_bad_pages_in_use(unsigned long pfn, unsigned long nr)
{
	const unsigned long end = pfn + nr;

	for (; pfn < end; pfn++) {
		struct page *page = pfn_to_page(pfn);

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();
		if (!PageHWPoison(page) || !cdm_bad_page_in_use(pfn))
			continue;
		cdm_take_broken(page);
		if (cdm_bad_page_in_use(pfn))
			return true;
	}
	return false;
}

/*
 * Before memory hotplug has touched a page: it gives up on broken pages, and leaves
 * them with a reference that nobody drops.
 */
static int cdm_memory_notify(struct notifier_block *nb, unsigned long action, void *arg)
{
	const struct memory_notify *mem = arg;

	if (action == MEM_GOING_OFFLINE &&
	    cdm_bad_pages_in_use(pfn_to_nid(mem->start_pfn), mem->start_pfn, mem->nr_pages))
		return notifier_from_errno(-EBUSY);
	return NOTIFY_OK;
}

static int __init cdm_gone_init(void)
{
	return hotplug_memory_notifier(cdm_memory_notify, DEFAULT_CALLBACK_PRI);
}
core_initcall(cdm_gone_init);

/**
 * cdm_pages_escaped - did cdm_take_pages() leave pages to their users?
 * @pfn: the first page, of memory that is not removed meanwhile
 * @nr: number of pages
 * @bad: pages that do not count
 *
 * Somebody had locked them, or wrote them out, all the time.
 *
 * Context: May sleep.
 * Return: true if so.
 */
bool cdm_pages_escaped(unsigned long pfn, unsigned long nr, struct xarray *bad)
{
	const unsigned long end = pfn + nr;
	bool escaped = false;

	for (; pfn < end && !escaped; pfn++) {
		struct page *page = pfn_to_online_page(pfn);
		struct folio *folio;

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();
		if (!page || !page_count(page) || xa_load(bad, pfn))
			continue;

		folio = page_folio(page);
		if (!folio_try_get(folio))
			continue;
		escaped = folio_mapped(folio) ||
			  (cdm_folio_has_users(folio) &&
			   !folio_test_hwpoison(folio));
		folio_put(folio);
	}
	return escaped;
}
