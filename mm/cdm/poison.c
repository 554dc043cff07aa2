// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: the broken pages of a node.
 *
 * What core mm knows of a broken page is in its struct page, which is made anew
 * when a memory block comes online, and goes with the node. Here is a bit for
 * each page of the node as long as it exists; poison.rs remembers them for
 * longer, and tells the driver.
 */
#include <linux/bitmap.h>
#include <linux/cdm.h>
#include <linux/container_of.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/pfn.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "../internal.h"
#include "glue.h"

/**
 * struct cdm_bad_pages - the broken pages of one node
 * @first: page frame of the first page
 * @nr: number of pages, broken or not
 * @nid: the node
 * @count: how many are broken
 * @ignore: what is taken out of use from now on is not broken
 * @work: tells poison.rs of what is new
 * @bad: a bit for each page: it is broken
 * @told: poison.rs knows of it
 * @counted: core mm has counted it (HardwareCorrupted in /proc/meminfo)
 */
struct cdm_bad_pages {
	unsigned long first;
	unsigned long nr;
	int nid;
	atomic_long_t count;
	bool ignore;
	struct work_struct work;
	unsigned long *bad;
	unsigned long *told;
	unsigned long *counted;
};

/* RCU: core mm looks here from any context. */
static struct cdm_bad_pages __rcu *cdm_bad_pages[MAX_NUMNODES];

static void cdm_bad_pages_work(struct work_struct *work)
{
	struct cdm_bad_pages *pages = container_of(work, struct cdm_bad_pages,
						   work);

	cdm_core_poisoned(pages->nid, pages, pages->first, pages->nr);
}

/**
 * cdm_bad_pages_alloc - prepare for the broken pages of a node
 * @nid: a node that has no page yet
 * @start: first byte of its memory
 * @size: bytes
 *
 * Context: May sleep.
 * Return: to be freed by cdm_bad_pages_free(); NULL if there is no memory.
 */
struct cdm_bad_pages *cdm_bad_pages_alloc(int nid, u64 start, u64 size)
{
	struct cdm_bad_pages *pages;
	size_t longs;

	pages = kzalloc_obj(*pages);
	if (!pages)
		return NULL;

	pages->first = PHYS_PFN(start);
	pages->nr = PHYS_PFN(size);
	pages->nid = nid;
	longs = BITS_TO_LONGS(pages->nr);
	/* In one piece, and now: when a page breaks is no time to fail. */
	pages->bad = kvcalloc(3 * longs, sizeof(long), GFP_KERNEL);
	if (!pages->bad) {
		kfree(pages);
		return NULL;
	}
	pages->told = pages->bad + longs;
	pages->counted = pages->told + longs;
	INIT_WORK(&pages->work, cdm_bad_pages_work);
	rcu_assign_pointer(cdm_bad_pages[nid], pages);
	return pages;
}

/**
 * cdm_bad_pages_free - undo cdm_bad_pages_alloc()
 * @pages: the pages of a node whose memory has gone
 *
 * Context: May sleep: waits for cdm_core_poisoned().
 */
void cdm_bad_pages_free(struct cdm_bad_pages *pages)
{
	RCU_INIT_POINTER(cdm_bad_pages[pages->nid], NULL);
	synchronize_rcu();
	/* What broke last is to be remembered, too. */
	flush_work(&pages->work);
	kvfree(pages->bad);
	kfree(pages);
}

/**
 * cdm_bad_pages_ignore - what is taken out of use from now on is not broken
 * @pages: the pages of a node whose content is lost
 *
 * Who still reads there may get a machine check for each page. What was broken
 * before is so when the device comes back.
 *
 * Context: Any.
 */
void cdm_bad_pages_ignore(struct cdm_bad_pages *pages)
{
	WRITE_ONCE(pages->ignore, true);
}

/**
 * cdm_bad_pages_add - a page is broken that is not in use yet
 * @pages: the pages of a node whose memory has not been added
 * @pfn: the page; one that is not the node's is passed over
 *
 * Context: Any.
 * Return: true if that is news.
 */
bool cdm_bad_pages_add(struct cdm_bad_pages *pages, unsigned long pfn)
{
	unsigned long bit = pfn - pages->first;

	if (pfn < pages->first || bit >= pages->nr)
		return false;
	set_bit(bit, pages->told);
	if (test_and_set_bit(bit, pages->bad))
		return false;
	atomic_long_inc(&pages->count);
	return true;
}

/**
 * cdm_bad_pages_next - find a broken page
 * @pages: the pages of a node
 * @pfn: where to begin
 *
 * Context: Any.
 * Return: the first one that is not before @pfn, or ULONG_MAX.
 */
unsigned long cdm_bad_pages_next(const struct cdm_bad_pages *pages,
				 unsigned long pfn)
{
	unsigned long bit = pfn > pages->first ? pfn - pages->first : 0;

	bit = find_next_bit(pages->bad, pages->nr, bit);
	return bit < pages->nr ? pages->first + bit : ULONG_MAX;
}

/**
 * cdm_bad_pages_next_new - find a broken page that nobody has been told of
 * @pages: the pages of a node
 *
 * It counts as told then.
 *
 * Context: Any.
 * Return: a page frame, or ULONG_MAX.
 */
unsigned long cdm_bad_pages_next_new(struct cdm_bad_pages *pages)
{
	unsigned long bit = 0;

	for (;;) {
		bit = find_next_andnot_bit(pages->bad, pages->told, pages->nr,
					   bit);
		if (bit >= pages->nr)
			return ULONG_MAX;
		if (!test_and_set_bit(bit, pages->told))
			return pages->first + bit;
	}
}

unsigned long cdm_bad_pages_count(const struct cdm_bad_pages *pages)
{
	return atomic_long_read(&pages->count);
}

/* How many pages of a node are broken, for sysfs */
unsigned long cdm_count_bad_pages(int nid)
{
	struct cdm_bad_pages *pages;

	guard(rcu)();
	pages = rcu_dereference(cdm_bad_pages[nid]);
	return pages ? cdm_bad_pages_count(pages) : 0;
}

/**
 * cdm_count_idle_bad_pages - count broken pages that are neither free nor anybody's
 * @nid: a CDM node
 *
 * Context: Nobody allocates or frees pages meanwhile.
 * Return: pages that are online, and charged to no memcg.
 */
unsigned long cdm_count_idle_bad_pages(int nid)
{
	struct cdm_bad_pages *pages;
	unsigned long pfn, nr = 0;

	guard(rcu)();
	pages = rcu_dereference(cdm_bad_pages[nid]);
	if (!pages)
		return 0;
	for (pfn = cdm_bad_pages_next(pages, 0); pfn != ULONG_MAX;
	     pfn = cdm_bad_pages_next(pages, pfn + 1)) {
		struct page *page = pfn_to_online_page(pfn);

		if (page && PageHWPoison(page) && !PageBuddy(page) &&
		    !folio_memcg_charged(page_folio(page)))
			nr++;
	}
	return nr;
}

static struct cdm_bad_pages *cdm_bad_pages_around(unsigned long pfn)
{
	struct cdm_bad_pages *pages;
	int nid;

	for_each_node_mask(nid, cdm_nodes) {
		pages = rcu_dereference(cdm_bad_pages[nid]);
		if (pages && pfn >= pages->first &&
		    pfn - pages->first < pages->nr)
			return pages;
	}
	return NULL;
}

/* See cdm_has_pfn(). */
bool __cdm_has_pfn(unsigned long pfn)
{
	guard(rcu)();
	return cdm_bad_pages_around(pfn);
}

void __cdm_page_poisoned(unsigned long pfn)
{
	struct cdm_bad_pages *pages;
	unsigned long bit;

	guard(rcu)();
	pages = cdm_bad_pages_around(pfn);
	if (!pages)
		return;
	cdm_limit_poisoned(pfn);
	bit = pfn - pages->first;
	set_bit(bit, pages->counted);
	if (READ_ONCE(pages->ignore))
		return;
	if (!test_and_set_bit(bit, pages->bad)) {
		atomic_long_inc(&pages->count);
		queue_work(system_dfl_wq, &pages->work);
	}
}

void __cdm_page_unpoisoned(unsigned long pfn)
{
	struct cdm_bad_pages *pages;
	unsigned long bit;

	guard(rcu)();
	pages = cdm_bad_pages_around(pfn);
	if (!pages)
		return;
	bit = pfn - pages->first;
	clear_bit(bit, pages->counted);
	if (READ_ONCE(pages->ignore))
		return;
	clear_bit(bit, pages->told);
	if (test_and_clear_bit(bit, pages->bad)) {
		atomic_long_dec(&pages->count);
		queue_work(system_dfl_wq, &pages->work);
	}
}

/**
 * cdm_page_is_out_of_use - does core mm keep a page as poison?
 * @pfn: a page of a CDM node
 *
 * It has a reference of its own then, which it never drops.
 *
 * Context: Any.
 * Return: true if so.
 */
bool cdm_page_is_out_of_use(unsigned long pfn)
{
	struct cdm_bad_pages *pages;

	guard(rcu)();
	pages = cdm_bad_pages_around(pfn);
	return pages && test_bit(pfn - pages->first, pages->counted);
}

/**
 * cdm_poison_page - take a page out of use that its driver has found broken
 * @pfn: a page; nothing happens if it is not in use or known to be broken
 *
 * Context: May sleep.
 */
void cdm_poison_page(unsigned long pfn)
{
	struct cdm_bad_pages *pages;
	bool is_news = false;

	scoped_guard(rcu) {
		pages = cdm_bad_pages_around(pfn);
		is_news = pages && !test_bit(pfn - pages->first, pages->bad);
	}
	if (is_news)
		memory_failure(pfn, 0);
}

/**
 * cdm_retire_bad_pages - keep the broken pages of a block out of use
 * @pfn: first page of a block that is coming online
 * @nr: number of pages
 *
 * The pages are free, and still isolated: nobody has had one of them.
 *
 * Context: May sleep. Inside mem_hotplug_begin(), where memory_failure() cannot
 * be called: mf_mutex is taken before that.
 */
void cdm_retire_bad_pages(unsigned long pfn, unsigned long nr)
{
	const unsigned long end = pfn + nr;
	struct cdm_bad_pages *pages = NULL;

	if (!cdm_enabled())
		return;
	scoped_guard(rcu)
		pages = cdm_bad_pages_around(pfn);
	/* It goes when its memory has gone, and that is just coming. */
	if (!pages)
		return;

	for (pfn = cdm_bad_pages_next(pages, pfn); pfn < end;
	     pfn = cdm_bad_pages_next(pages, pfn + 1)) {
		struct page *page = pfn_to_page(pfn);

		SetPageHWPoison(page);
		if (WARN_ON_ONCE(!take_page_off_buddy(page)))
			continue;
		page_ref_inc(page);
		/* Not again for a block that had been online before. */
		if (!test_and_set_bit(pfn - pages->first, pages->counted))
			num_poisoned_pages_inc(pfn);
	}
}
