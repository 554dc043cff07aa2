// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: thin functions around memory hotplug and the resource
 * tree. In which order a node is built and taken down is in node.rs.
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/bitmap.h>
#include <linux/cdm.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/jiffies.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/node.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#include "glue.h"

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

void cdm_set_leave_timeout(unsigned int ms)
{
	WRITE_ONCE(cdm_leave_timeout_ms, ms);
}

static unsigned long cdm_deadline(void)
{
	return jiffies + msecs_to_jiffies(cdm_leave_timeout());
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
