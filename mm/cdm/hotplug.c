// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: thin functions around memory hotplug and the resource
 * tree. In which order a node is built and taken down is in node.rs.
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/backing-dev.h>
#include <linux/bitmap.h>
#include <linux/cdm.h>
#include <linux/completion.h>
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
#include <linux/writeback.h>
#include <linux/xarray.h>

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

static unsigned long cdm_deadline(unsigned int ms)
{
	return jiffies + msecs_to_jiffies(ms);
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
	 * as dax/kmem does. Nobody maps what tasks use, by resourceN of the PCI
	 * device or by /dev/mem.
	 */
	if (res)
		res->flags = IORESOURCE_SYSTEM_RAM | IORESOURCE_EXCLUSIVE;
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
 * @bad: its broken pages, which are not touched: not even mapped
 *
 * The next user of the device must not read what a task left behind.
 *
 * Context: May sleep.
 * Return: 0, or -ENOMEM if the range could not be mapped.
 */
int cdm_region_erase(struct resource *res, const struct cdm_bad_pages *bad)
{
	resource_size_t pos, next, end = res->end + 1;

	for (pos = res->start; pos < end; pos = next) {
		unsigned long bad_pfn = cdm_bad_pages_next(bad, PHYS_PFN(pos));
		unsigned int attempt = 0;
		void *mapping;
		size_t len;

		if (bad_pfn == PHYS_PFN(pos)) {
			next = pos + PAGE_SIZE;
			continue;
		}
		next = min(end, pos + CDM_ERASE_CHUNK);
		if (bad_pfn < PHYS_PFN(next))
			next = PFN_PHYS(bad_pfn);
		len = next - pos;

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

/* A node is being registered, or leaves, and does so in a bounded time. */
static bool cdm_hotplug_is_ours;

/*
 * Nodes wait for each other, one after the other. For somebody else they wait as
 * long as a node may take to leave.
 */
static int cdm_hotplug_lock_wait(void)
{
	unsigned long deadline = cdm_deadline(cdm_leave_timeout());

	while (!trylock_device_hotplug()) {
		if (READ_ONCE(cdm_hotplug_is_ours))
			deadline = cdm_deadline(cdm_leave_timeout());
		else if (time_after_eq(jiffies, deadline))
			return -EBUSY;
		msleep(20);
	}
	WRITE_ONCE(cdm_hotplug_is_ours, true);
	return 0;
}

static void cdm_hotplug_lock_release(void)
{
	WRITE_ONCE(cdm_hotplug_is_ours, false);
	unlock_device_hotplug();
}

/**
 * cdm_hotplug_lock - keep others from changing the machine's memory
 *
 * Probe and remove run under the device lock of a PCI device, and ACPI hot-plug
 * takes that lock under device_hotplug_lock: waiting for the latter here could
 * wait for ever. And it calls probe and remove itself, under both: then the lock
 * is borrowed from it.
 *
 * Context: May sleep: as long as other nodes need, and cdm_leave_timeout() more.
 * Return: what to pass to cdm_hotplug_unlock(), or -EBUSY.
 */
int cdm_hotplug_lock(void)
{
	int ret;

	if (device_hotplug_locked_by_current())
		return CDM_HOTPLUG_BORROWED;

	ret = cdm_hotplug_lock_wait();
	return ret ?: CDM_HOTPLUG_TAKEN;
}

void cdm_hotplug_unlock(int how)
{
	if (how == CDM_HOTPLUG_TAKEN)
		cdm_hotplug_lock_release();
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
	struct completion done;
	struct timer_list timer;
	struct task_struct *task;
	unsigned long deadline;
	bool borrowed;
	int ret;
	struct cdm_obstacle obstacle;
	unsigned long *offlined;	/* the blocks that this attempt took offline */

	/* After its content was lost: block by block. */
	bool is_lost;
	unsigned long *removed;
	struct xarray bad;		/* pages that were poison before */
	struct cdm_lost lost;
};

static unsigned long cdm_nr_blocks(const struct cdm_memory *mem)
{
	return mem->size / memory_block_size_bytes();
}

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

	mem->size = size;
	mem->offlined = bitmap_zalloc(cdm_nr_blocks(mem), GFP_KERNEL);
	mem->removed = bitmap_zalloc(cdm_nr_blocks(mem), GFP_KERNEL);
	xa_init(&mem->bad);
	if (!mem->offlined || !mem->removed) {
		cdm_memory_free(mem);
		return NULL;
	}
	mem->start = start;
	mem->nid = nid;
	mem->mgid = mgid;
	return mem;
}

void cdm_memory_free(struct cdm_memory *mem)
{
	xa_destroy(&mem->bad);
	bitmap_free(mem->removed);
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

static void cdm_offline_until(struct cdm_memory *mem)
{
	int ret;

	for (;;) {
		ret = walk_memory_blocks(mem->start, mem->size, mem,
					 cdm_offline_block);
		if (!ret)
			return;
		if (time_after_eq(jiffies, mem->deadline))
			break;
		/* A reference for a moment is enough to fail an attempt. */
		msleep(20);
	}
	mem->obstacle.what = CDM_STAYS_TIME;
	mem->obstacle.error = ret;
}

/* Before the first page moves. */
static bool cdm_has_room(struct cdm_memory *mem)
{
	struct cdm_obstacle *obstacle = &mem->obstacle;

	obstacle->need = cdm_pages_to_move(mem->nid);
	obstacle->room = cdm_room_in_ram();
	if (obstacle->need <= obstacle->room)
		return true;
	obstacle->what = CDM_STAYS_ROOM;
	return false;
}

static void cdm_leave_begin(struct cdm_memory *mem)
{
	mem->task = current;
	bitmap_zero(mem->offlined, cdm_nr_blocks(mem));
	timer_setup(&mem->timer, cdm_leave_expired, 0);
	mod_timer(&mem->timer, mem->deadline);
	/* Nobody waits for the page that is under writeback: it has to begin. */
	if (!mem->is_lost && node_page_state(NODE_DATA(mem->nid), NR_FILE_DIRTY))
		wakeup_flusher_threads(WB_REASON_SYNC);
}

static void cdm_leave_end(struct cdm_memory *mem)
{
	timer_delete_sync(&mem->timer);
	clear_notify_signal();
}

static void cdm_memory_remove_work(struct work_struct *work)
{
	struct cdm_memory *mem = container_of(work, struct cdm_memory, work);
	unsigned int attempt;

	if (!mem->borrowed && cdm_hotplug_lock_wait()) {
		mem->obstacle.what = CDM_STAYS_HOTPLUG;
		goto done;
	}
	if (!cdm_has_room(mem))
		goto unlock;

	mem->deadline = cdm_deadline(mem->obstacle.timeout_ms);
	cdm_leave_begin(mem);
	cdm_offline_until(mem);
	cdm_leave_end(mem);

	if (!mem->obstacle.what) {
		__remove_memory(mem->start, mem->size);
	} else {
		for (attempt = 0; attempt < 5; attempt++) {
			walk_memory_blocks(mem->start, mem->size, mem,
					   cdm_reonline_block);
			if (bitmap_empty(mem->offlined, cdm_nr_blocks(mem)))
				break;
			msleep(20);
		}
		if (attempt == 5)
			pr_warn("node%d: blocks that were taken offline did not come back\n",
				mem->nid);
	}

unlock:
	if (!mem->borrowed)
		cdm_hotplug_lock_release();
done:
	complete(&mem->done);
}

/*
 * Runs in a worker, which has no signals of its own: neither does a signal of
 * the caller cut it short, nor does the end of the time disturb the caller.
 *
 * The caller may be in a notifier of the device's bus. Removing a block calls
 * those of another bus, which lockdep cannot tell apart: no flush_work().
 */
static int cdm_memory_run(struct cdm_memory *mem, work_func_t fn)
{
	mem->borrowed = device_hotplug_locked_by_current();
	mem->ret = 0;

	init_completion(&mem->done);
	INIT_WORK(&mem->work, fn);
	queue_work(system_dfl_wq, &mem->work);
	wait_for_completion(&mem->done);
	return mem->ret;
}

/**
 * cdm_memory_remove - take a node's memory away, all or nothing
 * @mem: memory that has been added; its blocks may be online or not
 * @timeout_ms: how long it may take, from when the machine's memory is its own
 * @obstacle: where is said why it stays
 *
 * Context: May sleep, for about @timeout_ms, and for cdm_hotplug_lock().
 * Return: true, or false and all is as before, except that pages which had moved
 * already stay in ordinary memory.
 */
bool cdm_memory_remove(struct cdm_memory *mem, unsigned int timeout_ms,
		       struct cdm_obstacle *obstacle)
{
	mem->obstacle = (struct cdm_obstacle) { .timeout_ms = timeout_ms };
	cdm_memory_run(mem, cdm_memory_remove_work);
	*obstacle = mem->obstacle;
	return !mem->obstacle.what;
}

static void cdm_remove_offlined(struct cdm_memory *mem)
{
	const unsigned long size = memory_block_size_bytes();
	unsigned long i;

	for_each_set_bit(i, mem->offlined, cdm_nr_blocks(mem)) {
		__remove_memory(mem->start + i * size, size);
		__set_bit(i, mem->removed);
	}
	bitmap_zero(mem->offlined, cdm_nr_blocks(mem));
}

static int cdm_evacuate_block(struct memory_block *block, void *arg)
{
	struct cdm_memory *mem = arg;
	unsigned int index = cdm_block_index(mem, block);
	unsigned long left = mem->deadline - jiffies;

	/* Each its share: what cannot move is in one block, maybe the first. */
	if (time_after_eq(jiffies, mem->deadline))
		left = 0;
	mod_timer(&mem->timer, jiffies + left / (cdm_nr_blocks(mem) - index));
	if (device_offline(&block->dev) < 0)
		mem->ret = -EBUSY;
	else
		__set_bit(index, mem->offlined);
	timer_delete_sync(&mem->timer);
	clear_notify_signal();
	return 0;
}

static void cdm_memory_evacuate_work(struct work_struct *work)
{
	struct cdm_memory *mem = container_of(work, struct cdm_memory, work);

	if (!mem->borrowed) {
		mem->ret = cdm_hotplug_lock_wait();
		if (mem->ret)
			goto done;
	}

	mem->deadline = cdm_deadline(cdm_leave_timeout());
	cdm_leave_begin(mem);
	walk_memory_blocks(mem->start, mem->size, mem, cdm_evacuate_block);
	cdm_remove_offlined(mem);
	cdm_leave_end(mem);

	if (!mem->borrowed)
		cdm_hotplug_lock_release();
done:
	complete(&mem->done);
}

/**
 * cdm_memory_evacuate - take away as much of a node's memory as can be moved out
 * @mem: memory that has been added, of a device that goes in any case
 *
 * Context: May sleep, for about cdm_leave_timeout().
 * Return: 0, or -EBUSY if some blocks are left, for cdm_memory_lose().
 */
int cdm_memory_evacuate(struct cdm_memory *mem)
{
	return cdm_memory_run(mem, cdm_memory_evacuate_work);
}

/* How long what refers to a page for a moment is waited for */
#define CDM_LOSE_SETTLE		HZ

static int cdm_lose_block(struct memory_block *block, void *arg)
{
	struct cdm_memory *mem = arg;

	/* Offline it would have no struct pages to drop references on. */
	if (cdm_pages_in_use(section_nr_to_pfn(block->start_section_nr),
			     PHYS_PFN(memory_block_size_bytes()), &mem->bad) ||
	    device_offline(&block->dev) < 0)
		mem->ret = -EBUSY;
	else
		__set_bit(cdm_block_index(mem, block), mem->offlined);
	return 0;
}

static void cdm_memory_lose_work(struct work_struct *work)
{
	struct cdm_memory *mem = container_of(work, struct cdm_memory, work);
	unsigned long settled;

	/* Whatever becomes of the memory: nobody has these pages any more. */
	cdm_take_pages(mem->start, mem->size, &mem->bad, &mem->lost);

	if (!mem->borrowed) {
		mem->ret = cdm_hotplug_lock_wait();
		if (mem->ret)
			goto done;
	}

	mem->deadline = cdm_deadline(cdm_leave_timeout());
	cdm_leave_begin(mem);
	settled = jiffies + CDM_LOSE_SETTLE;
	for (;;) {
		mem->ret = 0;
		walk_memory_blocks(mem->start, mem->size, mem, cdm_lose_block);
		cdm_remove_offlined(mem);
		if (!mem->ret || time_after_eq(jiffies, settled) ||
		    time_after_eq(jiffies, mem->deadline))
			break;
		msleep(20);
		cdm_take_pages(mem->start, mem->size, &mem->bad, &mem->lost);
	}
	cdm_leave_end(mem);

	if (!mem->borrowed)
		cdm_hotplug_lock_release();
done:
	complete(&mem->done);
}

/**
 * cdm_memory_lose - take a node's memory away, whose content is lost
 * @mem: memory that has been added, of a node whose word says %CDM_GONE
 * @lost: where is counted what that meant
 *
 * Nothing is read, moved or erased. Blocks to whose pages something refers stay
 * until it is called again.
 *
 * Context: May sleep, for about cdm_leave_timeout().
 * Return: 0, or -EBUSY if some blocks are left.
 */
int cdm_memory_lose(struct cdm_memory *mem, struct cdm_lost *lost)
{
	if (!mem->is_lost)
		cdm_note_poison(mem->start, mem->size, &mem->bad);
	mem->is_lost = true;

	cdm_memory_run(mem, cdm_memory_lose_work);
	*lost = mem->lost;
	return mem->ret;
}

/**
 * cdm_memory_is_held - does something refer to a page of each block that is left?
 * @mem: memory for which cdm_memory_lose() said -EBUSY
 *
 * What its users still have is to be taken, and is not meant.
 *
 * Context: May sleep.
 * Return: true if it is too early to try again.
 */
bool cdm_memory_is_held(struct cdm_memory *mem)
{
	const unsigned long size = memory_block_size_bytes();
	bool held = true;
	unsigned long i;

	get_online_mems();
	for_each_clear_bit(i, mem->removed, cdm_nr_blocks(mem)) {
		unsigned long pfn = PHYS_PFN(mem->start + i * size);

		if (!cdm_pages_in_use(pfn, PHYS_PFN(size), &mem->bad) ||
		    cdm_pages_escaped(pfn, PHYS_PFN(size), &mem->bad)) {
			held = false;
			break;
		}
	}
	put_online_mems();
	return held;
}

/* What could not go is looked at now and then. */

#define CDM_RETRY_INTERVAL	HZ

static void cdm_retry(struct work_struct *work);
static DECLARE_DELAYED_WORK(cdm_retry_work, cdm_retry);

static void cdm_retry(struct work_struct *work)
{
	if (cdm_core_retry())
		cdm_retry_later();
}

void cdm_retry_later(void)
{
	queue_delayed_work(system_dfl_long_wq, &cdm_retry_work,
			   CDM_RETRY_INTERVAL);
}
