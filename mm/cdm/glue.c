// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: what has to be C.
 *
 * The words that core mm reads, and thin functions around memory hotplug, the
 * resource tree and sysfs. Decisions are made in Rust: config.rs says what may
 * be registered, node.rs in which order a node is built and taken down, and
 * registry.rs who may ask for it.
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/bitmap.h>
#include <linux/cdm.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/module.h>
#include <linux/node.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/timer.h>
#include <linux/topology.h>
#include <linux/workqueue.h>
#ifdef CONFIG_MTRR
#include <asm/mtrr.h>
#endif

#include "glue.h"

/* What core mm reads. node.rs is the only writer, through cdm_publish(). */

u32 cdm_node_deny[MAX_NUMNODES] __read_mostly;
EXPORT_SYMBOL_GPL(cdm_node_deny);

nodemask_t cdm_nodes __read_mostly;
EXPORT_SYMBOL_GPL(cdm_nodes);

nodemask_t cdm_nameable_nodes __read_mostly;
EXPORT_SYMBOL_GPL(cdm_nameable_nodes);

/* cdm_access_store() writes it. */
nodemask_t cdm_listed_nodes __read_mostly;

nodemask_t cdm_known_nodes __read_mostly;

DEFINE_STATIC_KEY_FALSE(cdm_enabled_key);
EXPORT_SYMBOL_GPL(cdm_enabled_key);

#define K(x) ((x) << (PAGE_SHIFT - 10))

/* Defined in cdm_core.rs, which cannot export by itself. */
EXPORT_SYMBOL_GPL(cdm_register_node);
EXPORT_SYMBOL_GPL(cdm_unregister_node);
EXPORT_SYMBOL_GPL(cdm_release_node);

/*
 * How long a node that shall leave may take, before the answer is -EBUSY. A
 * page that is pinned for good would otherwise keep offline_pages() busy for
 * ever.
 */
static unsigned int cdm_leave_timeout_ms __read_mostly = 5000;

unsigned int cdm_leave_timeout(void)
{
	return READ_ONCE(cdm_leave_timeout_ms);
}

static unsigned long cdm_deadline(void)
{
	return jiffies + msecs_to_jiffies(cdm_leave_timeout());
}

/**
 * cdm_publish - make a node's mask known to core mm
 * @nid: a node that has no page yet
 * @deny: CDM_ALLOW_* bits that its driver did not allow
 *
 * Context: May sleep. Takes cpu_hotplug_lock, so not inside mem_hotplug_begin().
 * Return: 0, or -ENOMEM and nothing has changed.
 */
int cdm_publish(int nid, u32 deny)
{
	int ret;

	ret = cdm_denials_attach(nid);
	if (ret)
		return ret;
	WRITE_ONCE(cdm_node_deny[nid], deny);
	/* What was said of the last device with this number goes with it. */
	node_clear(nid, cdm_listed_nodes);
	node_set(nid, cdm_known_nodes);
	node_set(nid, cdm_nodes);
	static_branch_inc(&cdm_enabled_key);
	return 0;
}

/**
 * cdm_withdraw - undo cdm_publish()
 * @nid: a node whose last page has gone
 *
 * Context: May sleep.
 */
void cdm_withdraw(int nid)
{
	struct cdm_denials __percpu *denials;

	node_clear(nid, cdm_nodes);
	denials = cdm_denials_detach(nid);
	/*
	 * A lockless walker may still look at a page that it saw before, or be
	 * about to count.
	 */
	synchronize_rcu();
	WRITE_ONCE(cdm_node_deny[nid], 0);
	static_branch_dec(&cdm_enabled_key);
	cdm_denials_free(denials);
}

void cdm_set_nameable(int nid, bool nameable)
{
	if (nameable)
		node_set(nid, cdm_nameable_nodes);
	else
		node_clear(nid, cdm_nameable_nodes);
}

unsigned long __cdm_free_pages(void)
{
	unsigned long pages = 0;
	int nid;

	for_each_node_mask(nid, cdm_nodes)
		pages += sum_zone_node_page_state(nid, NR_FREE_PAGES);
	return pages;
}

unsigned long __cdm_file_pages(void)
{
	unsigned long pages = 0;
	int nid;

	for_each_node_mask(nid, cdm_nodes)
		pages += node_page_state(NODE_DATA(nid), NR_ACTIVE_FILE) +
			 node_page_state(NODE_DATA(nid), NR_INACTIVE_FILE);
	return pages;
}

void __nodes_add_nameable(struct task_struct *task, nodemask_t *mask)
{
	nodemask_t nameable = cdm_nameable_nodes;

	cpuset_cdm_nodes_allowed(task, &nameable);
	nodes_or(*mask, *mask, nameable);
}

/* What is known about a node id or a range before it is taken. */

struct cdm_limits cdm_limits(void)
{
	struct range range = mhp_get_pluggable_range(true);

	return (struct cdm_limits) {
		.block = memory_block_size_bytes(),
		.first = range.start,
		.last = range.end,
	};
}

/* Where the firmware expects memory that is plugged at an address. */
int cdm_expected_nid(u64 start)
{
	return phys_to_target_node(start);
}

static int cdm_block_is_on_node(struct memory_block *block, void *arg)
{
	return block->nid == *(int *)arg;
}

/**
 * cdm_nid_facts - say what a node id is used for
 * @nid: 0 to %MAX_NUMNODES - 1
 *
 * Context: May sleep. The answer holds as long as device_hotplug_lock does.
 * Return: CDM_NID_* bits.
 */
u32 cdm_nid_facts(int nid)
{
	unsigned int cpu;
	u32 facts = 0;

	if (!node_possible(nid))
		return 0;

	facts |= CDM_NID_POSSIBLE;
	if (node_online(nid))
		facts |= CDM_NID_ONLINE;
	if (node_state(nid, N_GENERIC_INITIATOR))
		facts |= CDM_NID_INITIATOR;
	/* Memory that is added but not online is not spanned by the node. */
	if (node_spanned_pages(nid) ||
	    for_each_memory_block(&nid, cdm_block_is_on_node))
		facts |= CDM_NID_HAS_MEMORY;
	for_each_possible_cpu(cpu) {
		if (cpu_to_node(cpu) == nid) {
			facts |= CDM_NID_HAS_CPUS;
			break;
		}
	}
	return facts;
}

/**
 * cdm_range_is_write_back - do the CPUs cache this range?
 * @start: first byte
 * @size: bytes
 *
 * The direct map is write-back, so only the machine's own registers can
 * disagree. In a virtual machine they say nothing about the memory behind: the
 * firmware marks the window of all BARs uncached, the hypervisor maps RAM.
 *
 * Context: Any.
 * Return: true if they do, as far as the machine says.
 */
bool cdm_range_is_write_back(u64 start, u64 size)
{
#ifdef CONFIG_MTRR
	u8 uniform, type;

	if (boot_cpu_has(X86_FEATURE_HYPERVISOR))
		return true;

	type = mtrr_type_lookup(start, start + size, &uniform);
	return type == MTRR_TYPE_INVALID ||
	       (type == MTRR_TYPE_WRBACK && uniform);
#else
	return true;
#endif
}

/* The module whose device the memory is. */

bool cdm_owner_get(struct module *owner)
{
	return try_module_get(owner);
}

void cdm_owner_put(struct module *owner)
{
	module_put(owner);
}

/* The range in the resource tree. */

/**
 * cdm_region_request - claim a range of physical addresses
 * @start: first byte
 * @size: bytes
 *
 * Context: May sleep.
 * Return: the resource, or NULL if somebody uses a part of it.
 */
struct resource *cdm_region_request(u64 start, u64 size)
{
	struct resource *res;

	res = request_mem_region(start, size, "cdm");
	/*
	 * Not busy, and of a type that the memory resource below it may have:
	 * as dax/kmem does.
	 */
	if (res)
		res->flags = IORESOURCE_SYSTEM_RAM;
	return res;
}

void cdm_region_release(struct resource *res)
{
	remove_resource(res);
	kfree(res);
}

#define CDM_ERASE_CHUNK		SZ_16M
#define CDM_ERASE_ATTEMPTS	50

/**
 * cdm_region_erase - overwrite a range whose memory has been removed
 * @res: from cdm_region_request()
 *
 * The next user of the device must not read what a task left behind.
 *
 * Context: May sleep.
 * Return: 0, or -ENOMEM if the range could not be mapped.
 */
int cdm_region_erase(struct resource *res)
{
	resource_size_t pos, end = res->end + 1;

	for (pos = res->start; pos < end; pos += CDM_ERASE_CHUNK) {
		size_t len = min_t(u64, end - pos, CDM_ERASE_CHUNK);
		unsigned int attempt = 0;
		void *mapping;

		for (;;) {
			mapping = memremap(pos, len, MEMREMAP_WB);
			if (mapping)
				break;
			if (++attempt == CDM_ERASE_ATTEMPTS)
				return -ENOMEM;
			msleep(20);
		}
		memset(mapping, 0, len);
		memunmap(mapping);
		cond_resched();
	}
	return 0;
}

/* Memory hotplug. */

enum {
	CDM_HOTPLUG_BORROWED,
	CDM_HOTPLUG_TAKEN,
};

static int cdm_hotplug_lock_until(unsigned long deadline)
{
	while (!trylock_device_hotplug()) {
		if (time_after_eq(jiffies, deadline))
			return -EBUSY;
		msleep(20);
	}
	return 0;
}

/**
 * cdm_hotplug_lock - keep others from changing the machine's memory
 *
 * Probe and remove run under the device lock of a PCI device, and ACPI hot-plug
 * takes that lock under device_hotplug_lock: waiting for the latter here could
 * wait for ever. And it calls probe and remove itself, under both: then the lock
 * is borrowed from it.
 *
 * Context: May sleep, for at most cdm_leave_timeout().
 * Return: what to pass to cdm_hotplug_unlock(), or -EBUSY.
 */
int cdm_hotplug_lock(void)
{
	int ret;

	if (device_hotplug_locked_by_current())
		return CDM_HOTPLUG_BORROWED;

	ret = cdm_hotplug_lock_until(cdm_deadline());
	return ret ?: CDM_HOTPLUG_TAKEN;
}

void cdm_hotplug_unlock(int how)
{
	if (how == CDM_HOTPLUG_TAKEN)
		unlock_device_hotplug();
}

/*
 * The memory of one node. All that leaving needs is allocated when the node is
 * registered: leaving is what one does when memory is short.
 */
struct cdm_memory {
	u64 start;
	u64 size;
	int nid;
	int mgid;

	/* While it leaves. */
	struct work_struct work;
	struct timer_list timer;
	struct task_struct *task;
	unsigned long deadline;
	bool borrowed;
	int ret;
	unsigned long *offlined;	/* the blocks that this attempt took offline */
};

/* What the core itself is adding. Under device_hotplug_lock. */
static const struct cdm_memory *cdm_adding;

bool cdm_may_add_memory(int nid, u64 start, u64 size)
{
	if (!node_is_cdm(nid))
		return true;
	return cdm_adding && cdm_adding->nid == nid &&
	       cdm_adding->start == start && cdm_adding->size == size;
}

struct cdm_memory *cdm_memory_alloc(int nid, int mgid, u64 start, u64 size)
{
	struct cdm_memory *mem;

	mem = kzalloc_obj(*mem);
	if (!mem)
		return NULL;

	mem->offlined = bitmap_zalloc(size / memory_block_size_bytes(),
				      GFP_KERNEL);
	if (!mem->offlined) {
		kfree(mem);
		return NULL;
	}
	mem->start = start;
	mem->size = size;
	mem->nid = nid;
	mem->mgid = mgid;
	return mem;
}

void cdm_memory_free(struct cdm_memory *mem)
{
	bitmap_free(mem->offlined);
	kfree(mem);
}

/**
 * cdm_memory_add - add a node's memory, all or nothing
 * @mem: the memory, whose node has been published
 *
 * Context: May sleep. Under cdm_hotplug_lock().
 * Return: 0 or -errno.
 */
int cdm_memory_add(struct cdm_memory *mem)
{
	struct resource *res;
	int ret;

	res = __request_region(&iomem_resource, mem->start, mem->size,
			       "System RAM (cdm)",
			       IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY |
			       IORESOURCE_SYSRAM_DRIVER_MANAGED);
	if (!res)
		return -EBUSY;

	cdm_adding = mem;
	ret = add_memory_resource(mem->mgid, res, MHP_NID_IS_MGID);
	cdm_adding = NULL;

	if (ret < 0) {
		release_resource(res);
		kfree(res);
		return ret;
	}
	return 0;
}

struct cdm_online {
	int nid;
	u64 bytes;
};

static int cdm_online_block(struct memory_block *block, void *arg)
{
	struct cdm_online *online = arg;
	int ret;

	/* The machine's policy may have brought it online already. */
	if (dev_offline(&block->dev)) {
		block->online_type = MMOP_ONLINE_MOVABLE;
		ret = device_online(&block->dev);
		if (ret < 0)
			return ret;
	}

	if (block->nid != online->nid || !block->zone ||
	    zone_idx(block->zone) != ZONE_MOVABLE)
		return -EIO;

	online->bytes += memory_block_size_bytes();
	return 0;
}

/**
 * cdm_memory_online - bring all of a node's memory online
 * @mem: memory that has been added
 *
 * Adding memory ignores what becomes of onlining it, so this looks at every
 * block: a node with a hole, or with a block in a zone for kernel data, is not
 * what the driver registered.
 *
 * Context: May sleep. Under cdm_hotplug_lock().
 * Return: 0, -EIO if a block is in the wrong place, or what onlining it said.
 */
int cdm_memory_online(struct cdm_memory *mem)
{
	struct cdm_online online = { .nid = mem->nid };
	int ret;

	ret = walk_memory_blocks(mem->start, mem->size, &online,
				 cdm_online_block);
	if (ret)
		return ret;
	if (online.bytes != mem->size)
		return -EIO;
	/* It was the device here before that kswapd may have given up on. */
	kswapd_clear_hopeless(NODE_DATA(mem->nid), KSWAPD_CLEAR_HOPELESS_OTHER);
	return 0;
}

static unsigned int cdm_block_index(const struct cdm_memory *mem,
				    const struct memory_block *block)
{
	u64 start = PFN_PHYS(section_nr_to_pfn(block->start_section_nr));

	return (start - mem->start) / memory_block_size_bytes();
}

static int cdm_offline_block(struct memory_block *block, void *arg)
{
	struct cdm_memory *mem = arg;
	int ret;

	ret = device_offline(&block->dev);
	if (!ret)
		__set_bit(cdm_block_index(mem, block), mem->offlined);
	/* Above 0: somebody had it offline already. */
	return ret < 0 ? ret : 0;
}

static int cdm_reonline_block(struct memory_block *block, void *arg)
{
	struct cdm_memory *mem = arg;
	unsigned int index = cdm_block_index(mem, block);

	if (test_bit(index, mem->offlined)) {
		block->online_type = MMOP_ONLINE_MOVABLE;
		if (device_online(&block->dev) >= 0)
			__clear_bit(index, mem->offlined);
	}
	return 0;
}

static void cdm_leave_expired(struct timer_list *timer)
{
	struct cdm_memory *mem = timer_container_of(mem, timer, timer);

	/*
	 * Ends the loop in offline_pages(), which asks signal_pending(). It is
	 * not a signal: nothing is queued, and the flag goes with the attempt.
	 */
	set_notify_signal(mem->task);
}

static int cdm_offline_until(struct cdm_memory *mem)
{
	int ret;

	for (;;) {
		ret = walk_memory_blocks(mem->start, mem->size, mem,
					 cdm_offline_block);
		if (!ret || time_after_eq(jiffies, mem->deadline))
			return ret;
		/* A reference for a moment is enough to fail an attempt. */
		msleep(20);
	}
}

static void cdm_memory_remove_work(struct work_struct *work)
{
	struct cdm_memory *mem = container_of(work, struct cdm_memory, work);
	unsigned int attempt;

	if (!mem->borrowed) {
		mem->ret = cdm_hotplug_lock_until(mem->deadline);
		if (mem->ret)
			return;
	}

	mem->task = current;
	bitmap_zero(mem->offlined, mem->size / memory_block_size_bytes());
	timer_setup(&mem->timer, cdm_leave_expired, 0);
	mod_timer(&mem->timer, mem->deadline);

	mem->ret = cdm_offline_until(mem);

	timer_delete_sync(&mem->timer);
	clear_notify_signal();

	if (!mem->ret) {
		__remove_memory(mem->start, mem->size);
	} else {
		for (attempt = 0; attempt < 5; attempt++) {
			walk_memory_blocks(mem->start, mem->size, mem,
					   cdm_reonline_block);
			if (bitmap_empty(mem->offlined, mem->size /
					 memory_block_size_bytes()))
				break;
			msleep(20);
		}
		if (attempt == 5)
			pr_warn("node%d: blocks that were taken offline did not come back\n",
				mem->nid);
	}

	if (!mem->borrowed)
		unlock_device_hotplug();
}

/**
 * cdm_memory_remove - take a node's memory away, all or nothing
 * @mem: memory that has been added; its blocks may be online or not
 *
 * Runs in a worker, which has no signals of its own: neither does a signal of
 * the caller cut it short, nor does the end of the time disturb the caller.
 *
 * Context: May sleep, for about cdm_leave_timeout().
 * Return: 0, or -errno and all is as before, except that pages which had moved
 * already stay in ordinary memory.
 */
int cdm_memory_remove(struct cdm_memory *mem)
{
	mem->deadline = cdm_deadline();
	mem->borrowed = device_hotplug_locked_by_current();

	INIT_WORK(&mem->work, cdm_memory_remove_work);
	queue_work(system_dfl_wq, &mem->work);
	flush_work(&mem->work);
	return mem->ret;
}

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

	if (folio_maybe_dma_pinned(folio))
		users->pinned += nr;

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
 * cdm_memory_count_users - count who uses the pages of a node
 * @mem: memory that has been added
 * @users: where the counts go
 *
 * For a log line: pages come and go meanwhile.
 *
 * Context: May sleep.
 */
void cdm_memory_count_users(const struct cdm_memory *mem,
			    struct cdm_users *users)
{
	unsigned long pfn = PHYS_PFN(mem->start);
	const unsigned long end = PHYS_PFN(mem->start + mem->size);
	struct cdm_census census = {
		.users = users,
		.samples = CDM_RMAP_SAMPLES,
	};

	memset(users, 0, sizeof(*users));

	while (pfn < end) {
		struct page *page = pfn_to_online_page(pfn);
		unsigned long next = pfn + 1;
		struct folio *folio;

		if (!(pfn & (SZ_1K - 1)))
			cond_resched();

		if (page && page_count(page)) {
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
 * cdm_report_oom - say in an OOM report which nodes did not count
 *
 * Their memory may be free, and would not have helped: nobody gets it who does
 * not name it, and who does is not the OOM killer's business.
 *
 * Context: Any.
 */
void cdm_report_oom(void)
{
	int nid;

	for_each_node_mask(nid, cdm_nodes) {
		struct zone *zone = NODE_DATA(nid)->node_zones + ZONE_MOVABLE;

		pr_warn("Node %d does not count, it is a device's memory: free:%lukB managed:%lukB\n",
			nid, K(zone_page_state(zone, NR_FREE_PAGES)),
			K(zone_managed_pages(zone)));
	}
}

/* sysfs. */

static ssize_t cdm_caps_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	char names[CDM_NAMES_SIZE];

	cdm_core_name_caps(READ_ONCE(cdm_node_deny[dev->id]), names);
	return sysfs_emit(buf, "%s\n", names);
}
static DEVICE_ATTR_RO(cdm_caps);

static ssize_t cdm_denied_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	return cdm_core_emit_denied(dev->id, buf);
}
static DEVICE_ATTR_RO(cdm_denied);

/* Who may name the node: "all" whose cpuset does not say otherwise, or "listed". */
static const char * const cdm_access_names[] = { "all", "listed" };

static ssize_t cdm_access_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  cdm_access_names[node_is_cdm_listed(dev->id)]);
}

static ssize_t cdm_access_store(struct device *dev,
				struct device_attribute *attr,
				const char *buf, size_t count)
{
	int access = sysfs_match_string(cdm_access_names, buf);

	if (access < 0)
		return access;
	if (access)
		node_set(dev->id, cdm_listed_nodes);
	else
		node_clear(dev->id, cdm_listed_nodes);
	return count;
}
static DEVICE_ATTR_RW(cdm_access);

static struct attribute *cdm_node_attrs[] = {
	&dev_attr_cdm_caps.attr,
	&dev_attr_cdm_denied.attr,
	&dev_attr_cdm_access.attr,
	NULL
};

static umode_t cdm_node_attr_is_visible(struct kobject *kobj,
					struct attribute *attr, int n)
{
	return node_is_cdm(kobj_to_dev(kobj)->id) ? attr->mode : 0;
}

const struct attribute_group cdm_node_attr_group = {
	.attrs = cdm_node_attrs,
	.is_visible = cdm_node_attr_is_visible,
};

/**
 * cdm_show_attrs - see to it that a node has its attributes
 * @nid: a node whose memory is online
 *
 * A node that was online without memory, as a generic initiator is, has its
 * directory already; a new node's was made with the attributes in it.
 *
 * Context: May sleep. Under cdm_hotplug_lock().
 */
void cdm_show_attrs(int nid)
{
	if (!node_devices[nid])
		return;

	if (sysfs_update_group(&node_devices[nid]->dev.kobj,
			       &cdm_node_attr_group))
		pr_warn("node%d: its attributes could not be created\n", nid);
}

/* /sys/kernel/mm/cdm; its members send uevents of SUBSYSTEM=cdm. */
static struct kset *cdm_kset;

/* /sys/kernel/mm/cdm/nodeN */
struct cdm_dir {
	struct kobject kobj;
	const char *state;
	int nid;
	bool has_device;
	bool announced;
};

static struct cdm_dir *to_cdm_dir(struct kobject *kobj)
{
	return container_of(kobj, struct cdm_dir, kobj);
}

static ssize_t state_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	return sysfs_emit(buf, "%s\n", READ_ONCE(to_cdm_dir(kobj)->state));
}

static ssize_t state_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	struct cdm_dir *dir = to_cdm_dir(kobj);
	struct kernfs_node *kn;
	int ret;

	if (!sysfs_streq(buf, "unplugged"))
		return -EINVAL;

	/* Success removes this very file, which waits for its users. */
	kn = sysfs_break_active_protection(kobj, &attr->attr);
	if (!kn)
		return -ENODEV;
	ret = cdm_core_unplug(dir->nid, dir);
	sysfs_unbreak_active_protection(kn);

	return ret ?: count;
}

static struct kobj_attribute state_attr = __ATTR_RW(state);

static struct attribute *cdm_dir_attrs[] = {
	&state_attr.attr,
	NULL
};
ATTRIBUTE_GROUPS(cdm_dir);

static void cdm_dir_free(struct kobject *kobj)
{
	kfree(to_cdm_dir(kobj));
}

static const struct kobj_type cdm_dir_ktype = {
	.release = cdm_dir_free,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = cdm_dir_groups,
};

/**
 * cdm_dir_create - create /sys/kernel/mm/cdm/nodeN
 * @nid: N
 * @state: what its state attribute shows, a string that stays
 *
 * Context: May sleep.
 * Return: the directory, or NULL.
 */
struct cdm_dir *cdm_dir_create(int nid, const char *state)
{
	struct cdm_dir *dir;

	dir = kzalloc_obj(*dir);
	if (!dir)
		return NULL;

	dir->nid = nid;
	dir->state = state;
	dir->kobj.kset = cdm_kset;
	if (kobject_init_and_add(&dir->kobj, &cdm_dir_ktype, NULL, "node%d",
				 nid)) {
		kobject_put(&dir->kobj);
		return NULL;
	}
	return dir;
}

void cdm_dir_set_state(struct cdm_dir *dir, const char *state)
{
	WRITE_ONCE(dir->state, state);
}

/**
 * cdm_dir_set_device - say whose memory it is
 * @dir: the directory
 * @dev: a device that is bound to the node's driver; NULL if none is any more
 *
 * Context: May sleep.
 * Return: 0 or -errno.
 */
int cdm_dir_set_device(struct cdm_dir *dir, struct device *dev)
{
	int ret;

	if (dir->has_device)
		sysfs_remove_link(&dir->kobj, "device");
	dir->has_device = false;
	if (!dev)
		return 0;

	ret = sysfs_create_link(&dir->kobj, &dev->kobj, "device");
	if (!ret)
		dir->has_device = true;
	return ret;
}

/* What an event means to those who know add, change and remove only. */
static const struct {
	enum kobject_action action;
	char *env;
} cdm_uevents[] = {
	[CDM_EVENT_REGISTER]	= { KOBJ_ADD,    "CDM_EVENT=register" },
	[CDM_EVENT_ADOPT]	= { KOBJ_CHANGE, "CDM_EVENT=adopt" },
	[CDM_EVENT_UNREGISTER]	= { KOBJ_REMOVE, "CDM_EVENT=unregister" },
	[CDM_EVENT_ORPHAN]	= { KOBJ_CHANGE, "CDM_EVENT=orphan" },
};

/**
 * cdm_dir_announce - tell user space what has happened to a node
 * @dir: the node's directory
 * @event: CDM_EVENT_*, none that failed
 *
 * The node's mask must still be known: cdm_dir_uevent() names it.
 *
 * Context: May sleep.
 */
void cdm_dir_announce(struct cdm_dir *dir, u32 event)
{
	char *env[2] = { cdm_uevents[event].env };

	dir->announced = true;
	kobject_uevent_env(&dir->kobj, cdm_uevents[event].action, env);
}

static int cdm_dir_uevent(const struct kobject *kobj,
			  struct kobj_uevent_env *env)
{
	const struct cdm_dir *dir = container_of_const(kobj, struct cdm_dir,
						       kobj);
	char names[CDM_NAMES_SIZE];

	cdm_core_name_caps(READ_ONCE(cdm_node_deny[dir->nid]), names);
	return add_uevent_var(env, "CDM_NODE=%d", dir->nid) ?:
	       add_uevent_var(env, "CDM_CAPS=%s", names);
}

static const struct kset_uevent_ops cdm_uevent_ops = {
	.uevent = cdm_dir_uevent,
};

/**
 * cdm_dir_remove - remove what cdm_dir_create() made
 * @dir: the directory
 *
 * Context: May sleep: waits for whoever reads or writes there, so not under a
 * lock that they take.
 */
void cdm_dir_remove(struct cdm_dir *dir)
{
	/* Nobody hears that a node goes who has not heard that it came. */
	if (dir->announced)
		cdm_dir_announce(dir, CDM_EVENT_UNREGISTER);
	kobject_del(&dir->kobj);
	kobject_put(&dir->kobj);
}

static ssize_t capabilities_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	char names[CDM_NAMES_SIZE];

	cdm_core_name_caps(0, names);
	return sysfs_emit(buf, "%s\n", names);
}

static struct kobj_attribute capabilities_attr = __ATTR_RO(capabilities);

static ssize_t leave_timeout_ms_show(struct kobject *kobj,
				     struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", cdm_leave_timeout());
}

static ssize_t leave_timeout_ms_store(struct kobject *kobj,
				      struct kobj_attribute *attr,
				      const char *buf, size_t count)
{
	unsigned int ms;
	int ret;

	ret = kstrtouint(buf, 0, &ms);
	if (ret)
		return ret;
	if (!ms || ms > 10 * 60 * MSEC_PER_SEC)
		return -EINVAL;

	WRITE_ONCE(cdm_leave_timeout_ms, ms);
	return count;
}

static struct kobj_attribute leave_timeout_ms_attr = __ATTR_RW(leave_timeout_ms);

static struct attribute *cdm_attrs[] = {
	&capabilities_attr.attr,
	&leave_timeout_ms_attr.attr,
	NULL
};

static const struct attribute_group cdm_attr_group = {
	.attrs = cdm_attrs,
};

/* Before the device initcalls, in which drivers register. */
static int __init cdm_init(void)
{
	int ret;

	cdm_kset = kset_create_and_add("cdm", &cdm_uevent_ops, mm_kobj);
	if (!cdm_kset)
		return -ENOMEM;

	ret = sysfs_create_group(&cdm_kset->kobj, &cdm_attr_group);
	if (ret) {
		kset_unregister(cdm_kset);
		return ret;
	}

	/* Until here the core refuses to register anything. */
	cdm_core_init();
	return 0;
}
subsys_initcall(cdm_init);
