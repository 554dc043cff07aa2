/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Coherent device memory (CDM): a driver's memory as a NUMA node of its own,
 * with a mask that says what the kernel may do with the pages that live there.
 *
 * Core mm asks at the page, with folio_node_allows(). Drivers register with
 * cdm_register_node(). See Documentation/mm/cdm.rst and
 * Documentation/driver-api/cdm.rst.
 */
#ifndef _LINUX_CDM_H
#define _LINUX_CDM_H

#include <linux/bits.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/page-isolation.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/vmstat.h>

/*
 * What a node may allow. The order is ABI: cdm_caps in sysfs prints the names
 * in this order. Ordinary nodes allow everything.
 */
#define CDM_ALLOW_NUMA		0x1	/* numa_balancing */
#define CDM_ALLOW_KSM		0x2	/* ksm */
#define CDM_ALLOW_HUGETLB	0x4	/* hugetlb */
#define CDM_ALLOW_MIGRATE	0x8	/* migrate */
#define CDM_ALLOW_GUP		0x10	/* gup */
#define CDM_ALLOW_LONGTERM_PIN	0x20	/* longterm_pin */
#define CDM_ALLOW_THP		0x40	/* thp */
#define CDM_ALLOW_PAGECACHE	0x80	/* pagecache */
#define CDM_ALLOW_RECLAIM	0x100	/* reclaim */
#define CDM_ALLOW_SWAP		0x200	/* swap */
#define CDM_ALLOW_DEMOTION	0x400	/* demotion */
#define CDM_ALLOW_COMPACTION	0x800	/* compaction */
#define CDM_ALLOW_INTERLEAVE	0x1000	/* interleave */
#define CDM_ALLOW_DAMON		0x2000	/* damon */
#define CDM_ALLOW_SOFT_OFFLINE	0x4000	/* soft_offline */
#define CDM_NR_CAPS		15
#define CDM_ALLOW_ALL		0x7fff

/*
 * In the word of a node beside what it denies: there is nothing behind its pages
 * any more. Not even to take the device out may they be read or moved.
 */
#define CDM_GONE		0x80000000

/* What the driver asserts about its memory, &struct cdm_node_config.flags. */
#define CDM_NODE_COHERENT	0x1	/* cache-coherent with all CPUs; mandatory */
#define CDM_NODE_P2PDMA		0x2	/* other devices reach it by DMA */
#define CDM_NODE_SCRUBS		0x4	/* the driver erases it when cdm_unregister_node() says 0 */
#define CDM_NODE_ALL_BAD_PAGES	0x8	/* bad_pages names all, whatever broke before */
#define CDM_NODE_NID_WISH	0x10	/* if @nid cannot be, another node will do */
#define CDM_NODE_FLAGS_ALL	0x1f

/* What happens to a node, in the tracepoint cdm:cdm_node and in uevents. */
#define CDM_EVENT_REGISTER		1
#define CDM_EVENT_ADOPT			2	/* its driver came back */
#define CDM_EVENT_UNREGISTER		3
#define CDM_EVENT_ORPHAN		4	/* its driver went, and it could not */
#define CDM_EVENT_REGISTER_FAILED	5
#define CDM_EVENT_UNREGISTER_FAILED	6
#define CDM_EVENT_LOST			7	/* its content, and so its pages */

/*
 * Counts the changes of what a driver has to write, for drivers that are built
 * for several kernels.
 */
#define CDM_INTERFACE		1

struct attribute_group;
struct cgroup;
struct device;
struct device_driver;
struct mempolicy;
struct module;
struct shrinker;

/**
 * struct cdm_node_ops - what a driver is told of its node
 * @poisoned: the page at a physical address is broken and out of use, for as long
 *	as the machine runs. Not called for what is known when the node is
 *	registered: cdm_node_bad_pages() has all
 *
 * Any may be missing. They are called one at a time, with &struct
 * cdm_node_config.data, and not any more when cdm_unregister_node() has said 0 or
 * cdm_release_node() has returned, which they must not call.
 *
 * Context: A worker; may sleep.
 */
struct cdm_node_ops {
	void (*poisoned)(void *data, u64 addr);
};

/**
 * struct cdm_node_config - what a driver says about its memory
 * @start: first byte, a physical address, aligned to memory_block_size_bytes()
 * @size: bytes, a multiple of memory_block_size_bytes()
 * @nid: node to become, or %NUMA_NO_NODE: the core chooses
 * @allow: CDM_ALLOW_* bits; what is not named is denied
 * @flags: CDM_NODE_* bits
 * @owner: module that is pinned while the node exists
 * @dev: device for log lines, may be NULL
 * @bad_pages: physical addresses, in any order: nobody gets the pages they are
 *	in. Nor one that has been found broken before, at this address, by
 *	whomever: unless @flags say that these are all
 * @nr_bad_pages: how many @bad_pages there are
 * @ops: what the driver wants to be told, may be NULL
 * @data: for @ops
 */
struct cdm_node_config {
	u64 start;
	u64 size;
	int nid;
	u32 allow;
	u32 flags;
	struct module *owner;
	struct device *dev;
	const u64 *bad_pages;
	unsigned int nr_bad_pages;
	const struct cdm_node_ops *ops;
	void *data;
};

/*
 * One word per node, 0 for every ordinary node. Written before the first page
 * of a CDM node exists and cleared after its last page has gone, so whoever
 * holds a page reads a stable word without a lock.
 */
extern u32 cdm_node_deny[MAX_NUMNODES];

/* Nodes that belong to CDM, from before their first page to after their last. */
extern nodemask_t cdm_nodes;

/*
 * Nodes that a memory policy or a move_pages() may name now: set when the node
 * is complete, cleared before it starts to leave.
 */
extern nodemask_t cdm_nameable_nodes;

/* Of the CDM nodes, those that a cpuset must list: cdm_access says "listed". */
extern nodemask_t cdm_listed_nodes;

/* Node ids that devices have, or had: it may come back, and policies still name it. */
extern nodemask_t cdm_known_nodes;

/*
 * For get_user_pages() and its kin, beside the FOLL_* of mm_types.h: the page is
 * for the CPU alone and the reference goes with the call, to copy from or to the
 * page or to look at it. What a node says about CDM_ALLOW_GUP does not matter.
 */
#ifdef CONFIG_CDM
#define FOLL_CPU_ONLY		BIT(13)
#else
#define FOLL_CPU_ONLY		0
#endif

/* Is there memory, of whatever kind, on all of these nodes? */
static __always_inline bool nodes_have_any_memory(const nodemask_t *nodes)
{
#ifdef CONFIG_CDM
	nodemask_t all;

	nodes_or(all, node_states[N_MEMORY], node_states[N_COHERENT_MEMORY]);
	return nodes_subset(*nodes, all);
#else
	return nodes_subset(*nodes, node_states[N_MEMORY]);
#endif
}

#ifdef CONFIG_CDM

DECLARE_STATIC_KEY_FALSE(cdm_enabled_key);

/**
 * cdm_enabled - is there a CDM node?
 *
 * Context: Any. A nop in the instruction stream while there is none.
 * Return: true if there is.
 */
static __always_inline bool cdm_enabled(void)
{
	return static_branch_unlikely(&cdm_enabled_key);
}

/**
 * node_is_cdm - does this node belong to CDM?
 * @nid: a valid node id
 *
 * Context: Any.
 * Return: true from before its first page exists until after the last has gone.
 */
static __always_inline bool node_is_cdm(int nid)
{
	return cdm_enabled() && node_isset(nid, cdm_nodes);
}

/* A refusal is counted and traced out of line; mm/cdm/denied.c. */
void __cold cdm_folio_denied(const struct folio *folio, u32 cap);
void __cold cdm_page_denied(const struct page *page, u32 cap);
void __cold cdm_node_denied(int nid, u32 cap);

/**
 * node_allows - does this node's driver allow a use of its pages?
 * @nid: a valid node id
 * @cap: one CDM_ALLOW_* bit; of several, all must be allowed
 *
 * A question without a consequence: who refuses something for the answer says
 * so with cdm_note_denied().
 *
 * Context: Any.
 * Return: true if it does, as every ordinary node does.
 */
static __always_inline bool node_allows(int nid, u32 cap)
{
	return !cdm_enabled() || !(READ_ONCE(cdm_node_deny[nid]) & cap);
}

/**
 * folio_node_would_allow - node_allows() for the node of a folio
 * @folio: see folio_node_allows()
 * @cap: CDM_ALLOW_* bit; of several, all must be allowed
 *
 * node_allows(folio_nid()) would look up the node even if there is no CDM node.
 *
 * Context: Any.
 * Return: true if it does.
 */
static __always_inline bool folio_node_would_allow(const struct folio *folio, u32 cap)
{
	return !cdm_enabled() || !(READ_ONCE(cdm_node_deny[folio_nid(folio)]) & cap);
}

/**
 * page_node_would_allow - folio_node_would_allow() for a page
 * @page: see folio_node_allows()
 * @cap: CDM_ALLOW_* bit; of several, all must be allowed
 *
 * Context: Any.
 * Return: true if it does.
 */
static __always_inline bool page_node_would_allow(const struct page *page, u32 cap)
{
	return !cdm_enabled() || !(READ_ONCE(cdm_node_deny[page_to_nid(page)]) & cap);
}

/**
 * cdm_note_denied - count and trace a refusal that node_allows() decided
 * @nid: the node that was asked
 * @cap: the CDM_ALLOW_* bits that were asked for; those that it denies count
 *
 * folio_node_allows() and page_node_allows() do that themselves.
 *
 * Context: Any.
 */
static __always_inline void cdm_note_denied(int nid, u32 cap)
{
	u32 denied;

	if (!cdm_enabled())
		return;
	denied = READ_ONCE(cdm_node_deny[nid]) & cap;
	if (denied) {
		cdm_node_denied(nid, denied);
		/* No tail call: its return address tells who asked. */
		barrier();
	}
}

/**
 * folio_node_allows - may the kernel do this with the folio, where it lives?
 * @folio: a folio that cannot change its node or go away meanwhile: referenced,
 *         isolated, locked, or mapped under the page table lock
 * @cap: CDM_ALLOW_* bit; of several, all must be allowed
 *
 * For whoever is about to do it: a refusal is counted and traced.
 *
 * Context: Any.
 * Return: true if its node allows it.
 */
static __always_inline bool folio_node_allows(const struct folio *folio, u32 cap)
{
	u32 denied;

	if (!cdm_enabled())
		return true;
	denied = READ_ONCE(cdm_node_deny[folio_nid(folio)]) & cap;
	if (likely(!denied))
		return true;
	cdm_folio_denied(folio, denied);
	barrier();
	return false;
}

/**
 * page_node_allows - folio_node_allows() for a page
 * @page: see folio_node_allows()
 * @cap: CDM_ALLOW_* bit; of several, all must be allowed
 *
 * Context: Any.
 * Return: true if its node allows it.
 */
static __always_inline bool page_node_allows(const struct page *page, u32 cap)
{
	u32 denied;

	if (!cdm_enabled())
		return true;
	denied = READ_ONCE(cdm_node_deny[page_to_nid(page)]) & cap;
	if (likely(!denied))
		return true;
	cdm_page_denied(page, denied);
	barrier();
	return false;
}

/**
 * folio_may_stay_pinned - may it be pinned where it is for as long as it takes?
 * @folio: a folio that is pinned, or mapped and cannot go away meanwhile
 *
 * folio_is_longterm_pinnable(), but for the folios of a device's node, which are
 * movable for its driver's sake: the driver decides whether that goes first.
 *
 * Context: Any.
 * Return: true if it may.
 */
static inline bool folio_may_stay_pinned(struct folio *folio)
{
	if (cdm_enabled() && node_isset(folio_nid(folio), cdm_nodes))
		return !is_migrate_isolate(folio_migratetype(folio)) &&
		       folio_node_allows(folio, CDM_ALLOW_LONGTERM_PIN);
	return folio_is_longterm_pinnable(folio);
}

/**
 * node_is_nameable - can this node be named as a place for pages?
 * @nid: a valid node id
 *
 * By whom is another question, see nodes_add_nameable_by().
 *
 * Context: Any.
 * Return: true if it can; false for ordinary nodes, which have rules of their own.
 */
static __always_inline bool node_is_nameable(int nid)
{
	return cdm_enabled() && node_isset(nid, cdm_nameable_nodes);
}

/**
 * node_is_cdm_listed - is this a node that a cpuset must list?
 * @nid: a valid node id
 *
 * Context: Any.
 * Return: true if it is not enough that the cpuset does not say otherwise.
 */
static __always_inline bool node_is_cdm_listed(int nid)
{
	return node_isset(nid, cdm_listed_nodes);
}

#ifdef CONFIG_CPUSETS
bool cpuset_cdm_node_allowed(struct task_struct *tsk, int nid);
void cpuset_cdm_nodes_allowed(struct task_struct *tsk, nodemask_t *mask);
void cpuset_add_cdm_nodes_allowed(struct cgroup *cgroup, nodemask_t *mask);
#else
/* There is none that lists a node. */
static inline bool cpuset_cdm_node_allowed(struct task_struct *tsk, int nid)
{
	return !node_is_cdm_listed(nid);
}

static inline void cpuset_cdm_nodes_allowed(struct task_struct *tsk, nodemask_t *mask)
{
	nodes_andnot(*mask, *mask, cdm_listed_nodes);
}

static inline void cpuset_add_cdm_nodes_allowed(struct cgroup *cgroup,
						nodemask_t *mask)
{
	nodemask_t all;

	nodes_andnot(all, cdm_nodes, cdm_listed_nodes);
	nodes_or(*mask, *mask, all);
}
#endif

/**
 * current_may_use_cdm_node - does a cpuset let a page be taken from this node?
 * @nid: a CDM node
 *
 * The question of the allocator, for a node that somebody has named. Kernel
 * threads and whoever reclaims name none: they move the pages of others, and
 * have asked the cpuset of those, see mem_cgroup_node_filter_allowed().
 *
 * Context: Any. Takes no lock.
 * Return: true if it does.
 */
static inline bool current_may_use_cdm_node(int nid)
{
	return (current->flags & (PF_KTHREAD | PF_MEMALLOC)) ||
	       cpuset_cdm_node_allowed(current, nid);
}

void __nodes_add_nameable(struct task_struct *task, nodemask_t *mask);

/**
 * nodes_add_nameable_by - add what a task may name beyond its ordinary nodes
 * @task: the task
 * @mask: nodes with ordinary memory that the task may use
 *
 * Context: Any. Takes no lock.
 */
static __always_inline void nodes_add_nameable_by(struct task_struct *task,
						  nodemask_t *mask)
{
	if (cdm_enabled())
		__nodes_add_nameable(task, mask);
}

static __always_inline void nodes_add_nameable(nodemask_t *mask)
{
	nodes_add_nameable_by(current, mask);
}

/*
 * A strict policy that names device nodes only and finds them full fails with
 * VM_FAULT_OOM, which nothing that the OOM killer could do would cure. In a
 * fault from user mode it is the task's own error, as a full hugetlb pool is.
 * For GUP and other faults in the kernel it stays -ENOMEM.
 */
static __always_inline void cdm_enter_fault(void)
{
	if (cdm_enabled())
		current->cdm_exhausted = 0;
}

static __always_inline vm_fault_t cdm_exit_user_fault(vm_fault_t ret)
{
	if (cdm_enabled() && (ret & VM_FAULT_OOM) && current->cdm_exhausted)
		ret = (ret & ~VM_FAULT_OOM) | VM_FAULT_SIGBUS;
	return ret;
}

bool __cdm_policy(struct mempolicy *pol);

/* Does the policy name a device, there or leaving? */
static __always_inline bool cdm_policy(struct mempolicy *pol)
{
	return cdm_enabled() && __cdm_policy(pol);
}

struct mempolicy *__cdm_file_policy(struct mempolicy *pol);

/* A page of a shmem file is wanted for a fault in @mm. */
static __always_inline void cdm_enter_file_fault(struct mm_struct *mm)
{
	if (cdm_enabled())
		current->cdm_in_own_fault = mm == current->mm;
}

static __always_inline void cdm_exit_file_fault(void)
{
	if (cdm_enabled())
		current->cdm_in_own_fault = 0;
}

/*
 * The policy for a page of a shmem file that has none of its own. A task names
 * nodes for what it touches. What write(2), fallocate(2), ptrace(2) and the kernel
 * put into a file stays when the task is gone, and is others' to map.
 */
static __always_inline struct mempolicy *cdm_file_policy(struct mempolicy *pol)
{
	if (cdm_enabled() && !current->cdm_in_own_fault)
		return __cdm_file_policy(pol);
	return pol;
}

/* Pages of a CDM node for a move that names it, mm/mempolicy.c. */
struct folio *folio_alloc_cdm_node(gfp_t gfp, unsigned int order, int nid);

unsigned long __cdm_zone_page_state(enum zone_stat_item item);
unsigned long __cdm_node_page_state(enum node_stat_item item);

/**
 * ordinary_zone_page_state - global_zone_page_state() without CDM nodes
 * @item: the counter
 *
 * Who asks how much memory there is means memory that he can have without
 * naming a node. totalram_pages() is of that, so what is compared with it, or
 * subtracted from it, has to be, too.
 *
 * Context: Any.
 * Return: pages; as exact as the counter is, and never below 0.
 */
static __always_inline unsigned long ordinary_zone_page_state(enum zone_stat_item item)
{
	unsigned long pages = global_zone_page_state(item);

	if (cdm_enabled())
		pages -= min(pages, __cdm_zone_page_state(item));
	return pages;
}

/**
 * ordinary_node_page_state - global_node_page_state() without CDM nodes
 * @item: the counter, one that is in pages
 *
 * See ordinary_zone_page_state().
 *
 * Context: Any.
 * Return: pages; as exact as the counter is, and never below 0.
 */
static __always_inline unsigned long ordinary_node_page_state(enum node_stat_item item)
{
	unsigned long pages = global_node_page_state(item);

	if (cdm_enabled())
		pages -= min(pages, __cdm_node_page_state(item));
	return pages;
}

/*
 * Of struct mm_struct, beside those of mm_types.h: it has mapped a device's page.
 * Never cleared.
 */
#define MMF_HAS_CDM		32

/*
 * Only address spaces that have ever mapped a device's page are looked through
 * for them, see cdm_task_pages(). fork(2) copies mappings.
 */
static __always_inline void cdm_note_mapped(const struct folio *folio,
					    struct mm_struct *mm)
{
	if (cdm_enabled() && node_isset(folio_nid(folio), cdm_nodes) &&
	    !mm_flags_test(MMF_HAS_CDM, mm))
		mm_flags_set(MMF_HAS_CDM, mm);
}

static __always_inline void cdm_dup_mm(struct mm_struct *mm, struct mm_struct *oldmm)
{
	if (cdm_enabled() && mm_flags_test(MMF_HAS_CDM, oldmm))
		mm_flags_set(MMF_HAS_CDM, mm);
}

unsigned long __cdm_task_pages(struct task_struct *task);

/**
 * cdm_task_pages - how much of a task's RSS is on CDM nodes
 * @task: a task of the process
 *
 * Counted when it is asked for, so that mapping and unmapping cost nothing: the
 * time is that of a walk through the page tables of a process that has, or had,
 * a device's page.
 *
 * Context: Process, also under rcu_read_lock(). Takes task_lock().
 * Return: pages; exact for what is not being mapped or unmapped meanwhile, and
 * never more than the RSS.
 */
static __always_inline unsigned long cdm_task_pages(struct task_struct *task)
{
	return cdm_enabled() ? __cdm_task_pages(task) : 0;
}

/* nodeN/cdm_caps and nodeN/cdm_access, for drivers/base/node.c */
extern const struct attribute_group cdm_node_attr_group;

/* For mm/numa_memblks.c, and from there */
void cdm_add_spare_nids(nodemask_t *possible);
#ifdef CONFIG_NUMA_KEEP_MEMINFO
bool numa_nid_is_promised(int nid);
#else
static inline bool numa_nid_is_promised(int nid)
{
	return false;
}
#endif

/* For mm/memory_hotplug.c: memory that the core itself does not add is refused. */
bool cdm_may_add_memory(int nid, u64 start, u64 size);

/* For mm/memory-failure.c: what is out of use stays so when the node comes again. */
void __cdm_page_poisoned(unsigned long pfn);
void __cdm_page_unpoisoned(unsigned long pfn);

static __always_inline void cdm_page_poisoned(unsigned long pfn)
{
	if (cdm_enabled())
		__cdm_page_poisoned(pfn);
}

static __always_inline void cdm_page_unpoisoned(unsigned long pfn)
{
	if (cdm_enabled())
		__cdm_page_unpoisoned(pfn);
}

/* For mm/memory_hotplug.c: before a page of the block can be had. */
void cdm_retire_bad_pages(unsigned long pfn, unsigned long nr);
bool __cdm_bad_pages_in_use(unsigned long pfn, unsigned long nr);
bool __cdm_has_pfn(unsigned long pfn);

/**
 * cdm_has_pfn - is this page frame memory of a device?
 * @pfn: any, online or not
 *
 * Context: Any.
 * Return: true if it belongs to a CDM node.
 */
static inline bool cdm_has_pfn(unsigned long pfn)
{
	return cdm_enabled() && __cdm_has_pfn(pfn);
}

/**
 * cdm_bad_pages_in_use - does anything refer to a broken page of a device?
 * @nid: the node of a block that goes offline
 * @pfn: its first page
 * @nr: number of pages
 *
 * To be broken does not keep a page in its block. A pipe that has it does: it needs
 * the struct page.
 *
 * Context: May sleep.
 * Return: true if so.
 */
static inline bool cdm_bad_pages_in_use(int nid, unsigned long pfn, unsigned long nr)
{
	return node_is_cdm(nid) && __cdm_bad_pages_in_use(pfn, nr);
}

/* For mm/oom_kill.c: the nodes that did not count. */
void cdm_report_oom(void);

bool __cdm_device_may_bind(struct device *dev, const struct device_driver *drv);

/* For drivers/base/dd.c: tasks may still use the memory of an unbound device. */
static inline bool cdm_device_may_bind(struct device *dev,
				       const struct device_driver *drv)
{
	return !cdm_enabled() || __cdm_device_may_bind(dev, drv);
}

/* For mm/shrinker.c: does it free pages of the node, which has no slab? */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
bool shrinker_is_for_cdm(const struct shrinker *shrinker);
bool node_has_deferred_splits(int nid);
#else
static inline bool shrinker_is_for_cdm(const struct shrinker *shrinker)
{
	return false;
}

static inline bool node_has_deferred_splits(int nid)
{
	return false;
}
#endif

/* The driver interface, mm/cdm/; see Documentation/driver-api/cdm.rst. */
int cdm_register_node(const struct cdm_node_config *config);
int cdm_unregister_node(int nid);
void cdm_release_node(int nid);
int cdm_take_back_node(struct cdm_node_config *config);
bool cdm_node_is_up(int nid);
void cdm_node_lost(int nid);
int cdm_freeze_node(int nid);
int cdm_thaw_node(int nid);
int cdm_node_bad_pages(int nid, u64 *addrs, unsigned int nr);

#else /* !CONFIG_CDM */

static __always_inline bool cdm_enabled(void)
{
	return false;
}

static __always_inline bool node_is_cdm(int nid)
{
	return false;
}

static __always_inline bool node_allows(int nid, u32 cap)
{
	return true;
}

static __always_inline void cdm_note_denied(int nid, u32 cap)
{
}

static __always_inline bool folio_node_would_allow(const struct folio *folio, u32 cap)
{
	return true;
}

static __always_inline bool page_node_would_allow(const struct page *page, u32 cap)
{
	return true;
}

static __always_inline bool folio_node_allows(const struct folio *folio, u32 cap)
{
	return true;
}

static __always_inline bool page_node_allows(const struct page *page, u32 cap)
{
	return true;
}

static inline bool folio_may_stay_pinned(struct folio *folio)
{
	return folio_is_longterm_pinnable(folio);
}

static __always_inline bool node_is_nameable(int nid)
{
	return false;
}

static inline void cpuset_add_cdm_nodes_allowed(struct cgroup *cgroup,
						nodemask_t *mask)
{
}

static inline bool current_may_use_cdm_node(int nid)
{
	return false;
}

static __always_inline unsigned long ordinary_zone_page_state(enum zone_stat_item item)
{
	return global_zone_page_state(item);
}

static __always_inline unsigned long ordinary_node_page_state(enum node_stat_item item)
{
	return global_node_page_state(item);
}

static __always_inline void cdm_note_mapped(const struct folio *folio,
					    struct mm_struct *mm)
{
}

static __always_inline void cdm_dup_mm(struct mm_struct *mm, struct mm_struct *oldmm)
{
}

static __always_inline unsigned long cdm_task_pages(struct task_struct *task)
{
	return 0;
}

static __always_inline void nodes_add_nameable_by(struct task_struct *task,
						  nodemask_t *mask)
{
}

static __always_inline void nodes_add_nameable(nodemask_t *mask)
{
}

static __always_inline void cdm_enter_fault(void)
{
}

static __always_inline vm_fault_t cdm_exit_user_fault(vm_fault_t ret)
{
	return ret;
}

static __always_inline bool cdm_policy(struct mempolicy *pol)
{
	return false;
}

static __always_inline void cdm_enter_file_fault(struct mm_struct *mm)
{
}

static __always_inline void cdm_exit_file_fault(void)
{
}

static __always_inline struct mempolicy *cdm_file_policy(struct mempolicy *pol)
{
	return pol;
}

static inline struct folio *folio_alloc_cdm_node(gfp_t gfp, unsigned int order,
						 int nid)
{
	return NULL;
}

static inline void cdm_add_spare_nids(nodemask_t *possible)
{
}

static inline bool cdm_may_add_memory(int nid, u64 start, u64 size)
{
	return true;
}

static __always_inline void cdm_page_poisoned(unsigned long pfn)
{
}

static __always_inline void cdm_page_unpoisoned(unsigned long pfn)
{
}

static inline void cdm_retire_bad_pages(unsigned long pfn, unsigned long nr)
{
}

static inline bool cdm_bad_pages_in_use(int nid, unsigned long pfn, unsigned long nr)
{
	return false;
}

static inline bool cdm_has_pfn(unsigned long pfn)
{
	return false;
}

static inline void cdm_report_oom(void)
{
}

static inline bool shrinker_is_for_cdm(const struct shrinker *shrinker)
{
	return false;
}

static inline bool node_has_deferred_splits(int nid)
{
	return false;
}

static inline int cdm_register_node(const struct cdm_node_config *config)
{
	return -EOPNOTSUPP;
}

static inline int cdm_unregister_node(int nid)
{
	return -EOPNOTSUPP;
}

static inline void cdm_release_node(int nid)
{
}

static inline int cdm_take_back_node(struct cdm_node_config *config)
{
	return -EOPNOTSUPP;
}

static inline bool cdm_node_is_up(int nid)
{
	return false;
}

static inline void cdm_node_lost(int nid)
{
}

static inline int cdm_node_bad_pages(int nid, u64 *addrs, unsigned int nr)
{
	return -EOPNOTSUPP;
}

static inline int cdm_freeze_node(int nid)
{
	return -EOPNOTSUPP;
}

static inline int cdm_thaw_node(int nid)
{
	return -EOPNOTSUPP;
}

static inline bool cdm_device_may_bind(struct device *dev,
				       const struct device_driver *drv)
{
	return true;
}

#endif /* CONFIG_CDM */

#endif /* _LINUX_CDM_H */
