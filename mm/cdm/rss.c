// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: how much of what a process has mapped is on devices.
 *
 * Nobody needs to know but the OOM killer, so nothing is counted before it asks.
 * It cannot wait for mmap_lock, which its victim may hold. The page tables are
 * read as GUP-fast and perf do, which nobody can free while interrupts are off.
 */
#include <linux/cdm_limit.h>
#include <linux/irqflags.h>
#include <linux/leafops.h>
#include <linux/maple_tree.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>

struct cdm_rss {
	/* All memory that is looked for is between these */
	unsigned long first_pfn;
	unsigned long end_pfn;
	unsigned long pages;
	bool only_uncounted;
};

static void cdm_rss_init(struct cdm_rss *rss, bool only_uncounted)
{
	int nid;

	rss->first_pfn = ULONG_MAX;
	rss->end_pfn = 0;
	rss->pages = 0;
	rss->only_uncounted = only_uncounted;
	for_each_node_mask(nid, cdm_nodes) {
		if (only_uncounted && node_is_memcg_counted(nid))
			continue;
		rss->first_pfn = min(rss->first_pfn, node_start_pfn(nid));
		rss->end_pfn = max(rss->end_pfn, node_end_pfn(nid));
	}
}

/* No struct page is looked at: nothing keeps it from going away. */
static void cdm_rss_add(struct cdm_rss *rss, unsigned long pfn, unsigned long nr)
{
	int nid;

	if (pfn < rss->first_pfn || pfn >= rss->end_pfn)
		return;
	for_each_node_mask(nid, cdm_nodes) {
		if (pfn >= node_start_pfn(nid) && pfn < node_end_pfn(nid)) {
			if (!rss->only_uncounted || !node_is_memcg_counted(nid))
				rss->pages += nr;
			return;
		}
	}
}

/* A page that is being migrated still counts, where it comes from. */
static void cdm_rss_add_leaf(struct cdm_rss *rss, softleaf_t entry,
			     unsigned long offset, unsigned long nr)
{
	if (softleaf_has_pfn(entry) && !softleaf_is_hwpoison(entry))
		cdm_rss_add(rss, softleaf_to_pfn(entry) + offset, nr);
}

/*
 * Count what one page table maps, or one entry of a higher level. With interrupts
 * off. Return: the address after it.
 */
static unsigned long cdm_rss_step(struct cdm_rss *rss, struct mm_struct *mm,
				  unsigned long addr, unsigned long end)
{
	unsigned long next;
	pgd_t *pgdp, pgd;
	p4d_t *p4dp, p4d;
	pud_t *pudp, pud;
	pmd_t *pmdp, pmd;
	pte_t *ptep, *map, pte;

	pgdp = pgd_offset(mm, addr);
	pgd = pgdp_get(pgdp);
	if (!pgd_present(pgd))
		return pgd_addr_end(addr, end);

	p4dp = p4d_offset_lockless(pgdp, pgd, addr);
	p4d = p4dp_get(p4dp);
	if (!p4d_present(p4d))
		return p4d_addr_end(addr, end);

	pudp = pud_offset_lockless(p4dp, p4d, addr);
	pud = pudp_get(pudp);
	next = pud_addr_end(addr, end);
	if (!pud_present(pud))
		return next;
	if (pud_leaf(pud)) {
		if (!pud_special(pud))
			cdm_rss_add(rss, pud_pfn(pud) + PHYS_PFN(addr & ~PUD_MASK),
				    PHYS_PFN(next - addr));
		return next;
	}

	pmdp = pmd_offset_lockless(pudp, pud, addr);
	pmd = pmdp_get_lockless(pmdp);
	next = pmd_addr_end(addr, end);
	if (pmd_none(pmd))
		return next;
	if (!pmd_present(pmd)) {
		cdm_rss_add_leaf(rss, softleaf_from_pmd(pmd), PHYS_PFN(addr & ~PMD_MASK),
				 PHYS_PFN(next - addr));
		return next;
	}
	if (pmd_leaf(pmd)) {
		if (!pmd_special(pmd))
			cdm_rss_add(rss, pmd_pfn(pmd) + PHYS_PFN(addr & ~PMD_MASK),
				    PHYS_PFN(next - addr));
		return next;
	}

	map = pte_offset_map(&pmd, addr);
	if (!map)
		return next;
	for (ptep = map; addr < next; ptep++, addr += PAGE_SIZE) {
		pte = ptep_get_lockless(ptep);
		if (pte_none(pte))
			continue;
		if (!pte_present(pte))
			cdm_rss_add_leaf(rss, softleaf_from_pte(pte), 0, 1);
		else if (!pte_special(pte))
			cdm_rss_add(rss, pte_pfn(pte), 1);
	}
	pte_unmap(map);
	return next;
}

static void cdm_rss_add_range(struct cdm_rss *rss, struct mm_struct *mm,
			      unsigned long addr, unsigned long end)
{
	unsigned long flags;

	while (addr < end) {
		local_irq_save(flags);
		addr = cdm_rss_step(rss, mm, addr, end);
		local_irq_restore(flags);
	}
}

/*
 * VMAs come and go meanwhile. One that is gone is memory of a VMA still: its range
 * is looked at, and has nothing in it.
 */
static void cdm_rss_add_mm(struct cdm_rss *rss, struct mm_struct *mm)
{
	unsigned long index = 0;

	do {
		unsigned long start = 0, end = 0;
		struct vm_area_struct *vma;

		rcu_read_lock();
		vma = mt_find(&mm->mm_mt, &index, ULONG_MAX);
		/* Neither is a part of the RSS. */
		if (vma && !(READ_ONCE(vma->vm_flags) & (VM_HUGETLB | VM_PFNMAP))) {
			start = READ_ONCE(vma->vm_start);
			end = READ_ONCE(vma->vm_end);
		}
		rcu_read_unlock();
		if (!vma)
			break;
		cdm_rss_add_range(rss, mm, start, end);
	} while (index);
}

static unsigned long cdm_rss_of(struct task_struct *task, bool only_uncounted)
{
	struct cdm_rss rss;
	struct mm_struct *mm;

	cdm_rss_init(&rss, only_uncounted);
	if (!rss.end_pfn)
		return 0;
	task = find_lock_task_mm(task);
	if (!task)
		return 0;
	mm = task->mm;
	if (!mm_flags_test(MMF_HAS_CDM, mm)) {
		task_unlock(task);
		return 0;
	}
	/* Of an mm that is torn down meanwhile the page tables shrink. */
	mmgrab(mm);
	task_unlock(task);

	cdm_rss_add_mm(&rss, mm);
	rss.pages = min(rss.pages, get_mm_rss_sum(mm));
	mmdrop(mm);
	return rss.pages;
}

/* See cdm_task_pages(). */
unsigned long __cdm_task_pages(struct task_struct *task)
{
	return cdm_rss_of(task, false);
}

#ifdef CONFIG_MEMCG
unsigned long __cdm_task_uncounted_pages(struct task_struct *task)
{
	return cdm_rss_of(task, true);
}
#endif
