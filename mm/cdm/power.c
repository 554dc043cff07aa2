// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: a machine that goes to sleep.
 *
 * Power may be cut from a device in any sleep state, and only its driver could
 * tell; what is on it is in no image of a hibernation that a kernel without the
 * device could read back. So the machine stays awake while somebody has pages
 * on a node. An empty node does not matter: its struct pages are RAM's.
 *
 * This is asked twice. The notifier asks before anything has been done for the
 * sleep; a page may still come to a node after that, from a task, or by reclaim
 * for the image. prepare() is called when all tasks are frozen and the memory
 * for the image has been found.
 */
#include <linux/device.h>
#include <linux/init.h>
#include <linux/notifier.h>
#include <linux/pm.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/swap.h>

#include "glue.h"

static int cdm_may_sleep(void)
{
	/* What was unmapped or freed a moment ago is in nobody's use. */
	lru_add_drain_all();
	return cdm_core_may_sleep();
}

static int cdm_pm_event(struct notifier_block *nb, unsigned long event,
			void *unused)
{
	switch (event) {
	case PM_HIBERNATION_PREPARE:
	case PM_SUSPEND_PREPARE:
		return notifier_from_errno(cdm_may_sleep());
	default:
		return NOTIFY_DONE;
	}
}

static struct notifier_block cdm_pm_notifier = {
	.notifier_call = cdm_pm_event,
};

static int cdm_pm_prepare(struct device *dev)
{
	return cdm_may_sleep();
}

static const struct dev_pm_ops cdm_pm_ops = {
	.prepare = cdm_pm_prepare,
};

static const struct device_type cdm_pm_type = {
	.name = "cdm",
	.pm = &cdm_pm_ops,
};

static void cdm_pm_release(struct device *dev)
{
	kfree(dev);
}

static int __init cdm_pm_init(void)
{
	struct device *dev = kzalloc_obj(*dev);
	int ret;

	if (!dev)
		return -ENOMEM;

	device_initialize(dev);
	dev->type = &cdm_pm_type;
	dev->release = cdm_pm_release;
	ret = dev_set_name(dev, "cdm");
	if (!ret)
		ret = device_add(dev);
	if (ret) {
		put_device(dev);
		return ret;
	}

	return register_pm_notifier(&cdm_pm_notifier);
}
late_initcall(cdm_pm_init);
