// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what a program cannot call, for 'make bench': GUP, the scan of NUMA
 * balancing, the allocators. Under -icount shift=0 the TSC counts instructions.
 */
#ifdef CONFIG_CDM
#include <linux/cdm.h>
#endif
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/memory_hotplug.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/range.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/tsc.h>

#include "../bench.h"

#define MAX_NR		4096

static unsigned long (*prot_numa)(struct vm_area_struct *vma,
				  unsigned long start, unsigned long end);

/* change_prot_numa() is not exported, and is what the scan costs. */
static int find_prot_numa(void)
{
	struct kprobe kp = { .symbol_name = "change_prot_numa" };
	int ret;

	ret = register_kprobe(&kp);
	if (ret)
		return ret;
	prot_numa = (void *)kp.addr;
	unregister_kprobe(&kp);
	/* With IBT the probe may sit behind the ENDBR: call the function's start. */
#ifdef CONFIG_X86_KERNEL_IBT
	if (!((unsigned long)prot_numa & 4))
		return 0;
	prot_numa = (void *)((unsigned long)prot_numa - 4);
#endif
	return 0;
}

static int bench_gup(unsigned int cmd, struct cdm_bench *b)
{
	struct page **pages;
	long done = 0, ret;
	u64 start;

	pages = kvcalloc(b->nr, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;

	start = rdtsc_ordered();
	switch (cmd) {
	case CDM_BENCH_GUP_FAST:
		done = get_user_pages_fast(b->addr, b->nr, FOLL_WRITE, pages);
		break;
	case CDM_BENCH_GUP_SLOW:
		done = get_user_pages_unlocked(b->addr, b->nr, pages, FOLL_WRITE);
		break;
	case CDM_BENCH_PIN_FAST:
		done = pin_user_pages_fast(b->addr, b->nr, FOLL_WRITE, pages);
		break;
	case CDM_BENCH_PIN_LONGTERM:
		done = pin_user_pages_fast(b->addr, b->nr,
					   FOLL_WRITE | FOLL_LONGTERM, pages);
		break;
	}
	b->ticks = rdtsc_ordered() - start;

	ret = done < 0 ? done : 0;
	b->done = ret ? 0 : done;
	if (done > 0) {
		if (cmd == CDM_BENCH_GUP_FAST || cmd == CDM_BENCH_GUP_SLOW)
			release_pages(pages, done);
		else
			unpin_user_pages(pages, done);
	}
	kvfree(pages);
	return ret;
}

static int bench_prot_numa(struct cdm_bench *b)
{
	struct mm_struct *mm = current->mm;
	unsigned long addr = b->addr, end = b->addr + b->nr * PAGE_SIZE, to;
	struct vm_area_struct *vma;
	u64 start;

	b->done = 0;
	mmap_read_lock(mm);
	start = rdtsc_ordered();
	while (addr < end) {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start >= end)
			break;
		to = min(end, vma->vm_end);
		b->done += prot_numa(vma, max(addr, vma->vm_start), to);
		addr = to;
	}
	b->ticks = rdtsc_ordered() - start;
	mmap_read_unlock(mm);
	return 0;
}

/*
 * One object at a time: with more, it would depend on how full the CPU's sheaf
 * happens to be how often that is changed for another.
 */
static int bench_kmalloc(struct cdm_bench *b)
{
	u64 start, i;
	void *p;

	start = rdtsc_ordered();
	for (i = 0; i < b->nr; i++) {
		p = kmalloc(256, GFP_KERNEL);
		if (!p)
			break;
		OPTIMIZER_HIDE_VAR(p);
		kfree(p);
	}
	b->ticks = rdtsc_ordered() - start;
	b->done = i;
	return i == b->nr ? 0 : -ENOMEM;
}

static int bench_page_alloc(struct cdm_bench *b, unsigned int order)
{
	LIST_HEAD(list);
	struct page *page, *next;
	u64 start, i;

	start = rdtsc_ordered();
	for (i = 0; i < b->nr; i++) {
		page = alloc_pages(GFP_KERNEL, order);
		if (!page)
			break;
		list_add(&page->lru, &list);
	}
	list_for_each_entry_safe(page, next, &list, lru)
		__free_pages(page, order);
	b->ticks = rdtsc_ordered() - start;
	b->done = i;
	return i == b->nr ? 0 : -ENOMEM;
}

#ifdef CONFIG_CDM
/* Any node id; coherent, and not to be erased: the memory is not what is measured. */
static int bench_register(struct cdm_bench *b)
{
	struct cdm_node_config config = {
		.start = b->addr,
		.size = b->nr,
		.nid = NUMA_NO_NODE,
		.allow = CDM_ALLOW_MIGRATE | CDM_ALLOW_GUP,
		.flags = CDM_NODE_COHERENT | CDM_NODE_P2PDMA | CDM_NODE_SCRUBS,
		.owner = THIS_MODULE,
	};
	int nid = cdm_register_node(&config);

	if (nid < 0)
		return nid;
	b->done = nid;
	return 0;
}

static int bench_unregister(struct cdm_bench *b)
{
	return cdm_unregister_node(b->nr);
}
#else
/* An ordinary node instead, of the same memory, as dax/kmem makes them */
static struct range ordinary[MAX_NUMNODES];

static int bench_register(struct cdm_bench *b)
{
	int nid, ret;

	for_each_node(nid)
		if (!node_state(nid, N_MEMORY))
			break;
	if (nid >= MAX_NUMNODES)
		return -ENOSPC;
	ret = add_memory_driver_managed(nid, b->addr, b->nr,
					"System RAM (cdm_bench)", MHP_NONE);
	if (ret)
		return ret;
	ordinary[nid] = (struct range){ b->addr, b->addr + b->nr - 1 };
	b->done = nid;
	return 0;
}

static int bench_unregister(struct cdm_bench *b)
{
	struct range *range;

	if (b->nr >= MAX_NUMNODES)
		return -EINVAL;
	range = &ordinary[b->nr];
	return offline_and_remove_memory(range->start, range_len(range));
}
#endif

static long bench_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct cdm_bench b;
	long ret;

	if (copy_from_user(&b, (void __user *)arg, sizeof(b)))
		return -EFAULT;
	if (!b.nr || (b.nr > MAX_NR && cmd != CDM_BENCH_REGISTER))
		return -EINVAL;
	switch (cmd) {
	case CDM_BENCH_REGISTER:
		ret = bench_register(&b);
		break;
	case CDM_BENCH_UNREGISTER:
		ret = bench_unregister(&b);
		break;
	case CDM_BENCH_GUP_FAST:
	case CDM_BENCH_GUP_SLOW:
	case CDM_BENCH_PIN_FAST:
	case CDM_BENCH_PIN_LONGTERM:
		ret = bench_gup(cmd, &b);
		break;
	case CDM_BENCH_PROT_NUMA:
		ret = bench_prot_numa(&b);
		break;
	case CDM_BENCH_KMALLOC:
		ret = bench_kmalloc(&b);
		break;
	case CDM_BENCH_PAGE_ALLOC:
		ret = bench_page_alloc(&b, 0);
		break;
	case CDM_BENCH_PAGE_ALLOC_HUGE:
		ret = bench_page_alloc(&b, HPAGE_PMD_ORDER);
		break;
	default:
		return -ENOTTY;
	}
	if (!ret && copy_to_user((void __user *)arg, &b, sizeof(b)))
		ret = -EFAULT;
	return ret;
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = bench_ioctl,
};

static struct miscdevice bench_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "cdm_bench",
	.fops = &bench_fops,
};

static int __init bench_init(void)
{
	int ret;

	ret = find_prot_numa();
	if (ret)
		return ret;
	return misc_register(&bench_dev);
}

static void __exit bench_exit(void)
{
	misc_deregister(&bench_dev);
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("Measurements for the CDM benchmark");
MODULE_LICENSE("GPL");
