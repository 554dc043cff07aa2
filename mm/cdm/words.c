// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: the words that core mm reads.
 *
 * Masks of nodes, what each node denies, and the counts of pages that are left
 * out of what there is for everybody. node.rs is the only writer, through
 * cdm_publish(), cdm_set_nameable() and cdm_withdraw().
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/cdm_limit.h>
#include <linux/cleanup.h>
#include <linux/cpuset.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/jump_label.h>
#include <linux/memory.h>
#include <linux/mmzone.h>
#include <linux/node.h>
#include <linux/nodemask.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/vmstat.h>

#include "glue.h"

u32 cdm_node_deny[MAX_NUMNODES] __read_mostly;
EXPORT_SYMBOL_GPL(cdm_node_deny);

nodemask_t cdm_nodes __read_mostly;
EXPORT_SYMBOL_GPL(cdm_nodes);

nodemask_t cdm_nameable_nodes __read_mostly;
EXPORT_SYMBOL_GPL(cdm_nameable_nodes);

nodemask_t cdm_listed_nodes __read_mostly;

nodemask_t cdm_known_nodes __read_mostly;

DEFINE_STATIC_KEY_FALSE(cdm_enabled_key);
EXPORT_SYMBOL_GPL(cdm_enabled_key);

void cdm_set_listed(int nid, bool listed)
{
	if (listed)
		node_set(nid, cdm_listed_nodes);
	else
		node_clear(nid, cdm_listed_nodes);
}

/**
 * cdm_publish - make a node's mask known to core mm
 * @nid: a node that has no page yet
 * @deny: CDM_ALLOW_* bits that its driver did not allow, maybe with CDM_UNCOUNTED
 * @listed: only who is in a cpuset that lists it may name it
 *
 * Context: May sleep. Takes cpu_hotplug_lock, so not inside mem_hotplug_begin().
 * Return: 0, or -ENOMEM and nothing has changed.
 */
int cdm_publish(int nid, u32 deny, bool listed)
{
	int ret;

	ret = cdm_denials_attach(nid);
	if (ret)
		return ret;
	WRITE_ONCE(cdm_node_deny[nid], deny);
	/* Whatever was said of another device that had this number */
	cdm_set_listed(nid, listed);
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

/**
 * cdm_mark_gone - say that there is nothing behind the pages of a node
 * @nid: a node whose content is lost
 *
 * Nothing is allowed any more, and to move pages out not even for hot-unplug.
 *
 * Context: May sleep.
 */
void cdm_mark_gone(int nid)
{
	WRITE_ONCE(cdm_node_deny[nid],
		   (cdm_node_deny[nid] & CDM_UNCOUNTED) | CDM_ALLOW_ALL | CDM_GONE);
	/* Who has asked before is done with the page by then, or holds its lock. */
	synchronize_rcu();
}

/*
 * A node can be named while it is open, which node.rs says, and has pages: its
 * blocks may be taken offline by hand.
 */
static nodemask_t cdm_open_nodes;
static nodemask_t cdm_filled_nodes;
static DEFINE_SPINLOCK(cdm_nameable_lock);

static void cdm_set_either(int nid, nodemask_t *which, bool value)
{
	guard(spinlock)(&cdm_nameable_lock);
	if (value)
		node_set(nid, *which);
	else
		node_clear(nid, *which);
	if (node_isset(nid, cdm_open_nodes) && node_isset(nid, cdm_filled_nodes))
		node_set(nid, cdm_nameable_nodes);
	else
		node_clear(nid, cdm_nameable_nodes);
}

/**
 * cdm_set_nameable - open a node, or close it
 * @nid: a CDM node
 * @nameable: it may be named, if it has a page
 *
 * Context: Any but interrupts.
 */
void cdm_set_nameable(int nid, bool nameable)
{
	cdm_set_either(nid, &cdm_open_nodes, nameable);
}

/* Has the node a page that is online? */
bool cdm_node_is_filled(int nid)
{
	return node_isset(nid, cdm_filled_nodes);
}

static int cdm_node_notify(struct notifier_block *nb, unsigned long action,
			   void *arg)
{
	const struct node_notify *node = arg;

	if (!node_is_cdm(node->nid))
		return NOTIFY_OK;

	switch (action) {
	case NODE_ADDED_FIRST_MEMORY:
	case NODE_CANCEL_REMOVING_LAST_MEMORY:
		cdm_set_either(node->nid, &cdm_filled_nodes, true);
		break;
	case NODE_REMOVING_LAST_MEMORY:
		/* Its last pages are about to move out: nobody brings new ones. */
		cdm_set_either(node->nid, &cdm_filled_nodes, false);
		break;
	}
	return NOTIFY_OK;
}

static int __init cdm_words_init(void)
{
	return hotplug_node_notifier(cdm_node_notify, DEFAULT_CALLBACK_PRI);
}
core_initcall(cdm_words_init);

/* See ordinary_zone_page_state(). */
unsigned long __cdm_zone_page_state(enum zone_stat_item item)
{
	unsigned long pages = 0;
	int nid;

	for_each_node_mask(nid, cdm_nodes)
		pages += sum_zone_node_page_state(nid, item);
	return pages;
}

unsigned long __cdm_node_page_state(enum node_stat_item item)
{
	unsigned long pages = 0;
	int nid;

	for_each_node_mask(nid, cdm_nodes)
		pages += node_page_state(NODE_DATA(nid), item);
	return pages;
}
EXPORT_SYMBOL_GPL(__cdm_node_page_state);

void __nodes_add_nameable(struct task_struct *task, nodemask_t *mask)
{
	nodemask_t nameable = cdm_nameable_nodes;

	cpuset_cdm_nodes_allowed(task, &nameable);
	nodes_or(*mask, *mask, nameable);
}

#define K(x) ((x) << (PAGE_SHIFT - 10))

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
