// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: who holds the pages of a node, and who wants it to go.
 */
#include <linux/cdm.h>
#include <linux/device.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/pagemap.h>
#include <linux/pfn.h>
#include <linux/rmap.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/swap.h>

#include "glue.h"

#define CDM_RMAP_SAMPLES	256

struct cdm_census {
	struct cdm_users *users;
	unsigned int samples;
};

static int cdm_owner_pid(struct mm_struct *mm)
{
	int pid = 0;
#ifdef CONFIG_MEMCG
	struct task_struct *task;

	rcu_read_lock();
	task = rcu_dereference(mm->owner);
	if (task)
		pid = task_pid_nr(task);
	rcu_read_unlock();
#endif
	return pid;
}

static bool cdm_note_pid(struct folio *folio, struct vm_area_struct *vma,
			 unsigned long addr, void *arg)
{
	struct cdm_users *users = arg;
	int pid = cdm_owner_pid(vma->vm_mm);
	unsigned int i;

	for (i = 0; i < users->nr_pids; i++) {
		if (users->pids[i] == pid)
			return true;
	}
	if (pid)
		users->pids[users->nr_pids++] = pid;
	return users->nr_pids < ARRAY_SIZE(users->pids);
}

/* Does something keep it from moving? The caller has a reference. */
static bool cdm_folio_is_held(struct folio *folio)
{
	int expected = 1;

	if (folio_test_locked(folio) || folio_test_writeback(folio))
		return true;
	/* What is neither mapped nor in a file has been allocated by somebody. */
	if (folio_test_hugetlb(folio) || !page_has_type(&folio->page))
		expected += folio_expected_ref_count(folio);
	return folio_ref_count(folio) > expected;
}

static void cdm_count_folio(struct folio *folio, struct cdm_census *census)
{
	struct cdm_users *users = census->users;
	unsigned long nr = folio_nr_pages(folio);
	struct rmap_walk_control rwc = {
		.arg = users,
		.rmap_one = cdm_note_pid,
		.try_lock = true,
	};

	if (folio_test_hugetlb(folio))
		users->hugetlb += nr;
	else if (folio_test_anon(folio))
		users->anon += nr;
	else if (folio_mapping(folio))
		users->file += nr;
	else
		users->other += nr;

	if (!cdm_folio_is_held(folio))
		return;
	users->held += nr;
	if (folio_maybe_dma_pinned(folio))
		users->pinned += nr;
	if (folio_test_locked(folio))
		users->locked += nr;
	if (folio_test_writeback(folio))
		users->writeback += nr;

	if (!folio_mapped(folio) || folio_test_hugetlb(folio) ||
	    !census->samples || users->nr_pids == ARRAY_SIZE(users->pids))
		return;
	if (!folio_trylock(folio))
		return;
	census->samples--;
	rmap_walk(folio, &rwc);
	folio_unlock(folio);
}

/**
 * cdm_count_users - count who uses the pages of a node
 * @res: from cdm_region_request(); what of it is not online has no users
 * @users: where the counts go
 *
 * For a log line: pages come and go meanwhile.
 *
 * Context: May sleep.
 */
void cdm_count_users(const struct resource *res, struct cdm_users *users)
{
	unsigned long pfn = PHYS_PFN(res->start);
	const unsigned long end = PHYS_PFN(res->end + 1);
	struct cdm_census census = {
		.users = users,
		.samples = CDM_RMAP_SAMPLES,
	};

	memset(users, 0, sizeof(*users));
	/* What waits to be sorted is referred to, but not held. */
	lru_add_drain_all();

	while (pfn < end) {
		struct page *page = pfn_to_online_page(pfn);
		unsigned long next = pfn + 1;
		struct folio *folio;

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();

		if (!page) {
			/* What is offline is so by the section. */
			next = SECTION_ALIGN_UP(pfn + 1);
		} else if (PageHWPoison(page)) {
			users->held += cdm_bad_page_in_use(pfn);
		} else if (page_count(page)) {
			folio = page_folio(page);
			if (folio_try_get(folio)) {
				if (page_folio(page) == folio) {
					cdm_count_folio(folio, &census);
					next = folio_pfn(folio) +
					       folio_nr_pages(folio);
				}
				folio_put(folio);
			}
		}
		pfn = next;
	}
}

/**
 * cdm_who_asks - say who wants a node to leave
 * @asker: where the current task is described
 *
 * Context: Task.
 */
void cdm_who_asks(struct cdm_asker *asker)
{
	asker->pid = task_pid_nr(current);
	asker->hotplug = device_hotplug_locked_by_current();
	strscpy(asker->comm, current->comm);
}
