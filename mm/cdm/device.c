// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: the devices that it is on.
 *
 * A driver may go and leave its node behind; the device may then go, too, or
 * instead. Who knows is the bus.
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/cdm.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/device/bus.h>
#include <linux/ioport.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/slab.h>

#include "glue.h"

/* A device with a node, bound to its driver or not. */
struct cdm_device {
	struct list_head list;
	struct device *dev;
	const struct device_driver *drv;
	struct resource *region;
};

static LIST_HEAD(cdm_devices);
static DEFINE_MUTEX(cdm_devices_lock);

/* A bus that has had such a device. There are few, and they stay. */
struct cdm_bus {
	struct list_head list;
	const struct bus_type *bus;
	struct notifier_block nb;
};

static LIST_HEAD(cdm_buses);
static DEFINE_MUTEX(cdm_buses_lock);

#ifdef CONFIG_PCI
/*
 * The PCI core takes the windows of a device out of the resource tree, and all
 * that is below them. What cannot go yet has to stay, or an online block would
 * be a hole and somebody else could be given its addresses: so it moves up.
 */
static void cdm_move_regions_up(struct device *dev)
{
	struct cdm_device *owner;
	struct resource *res;

	if (!dev_is_pci(dev))
		return;

	guard(mutex)(&cdm_devices_lock);
	list_for_each_entry(owner, &cdm_devices, list) {
		pci_dev_for_each_resource(to_pci_dev(dev), res) {
			if (owner->region->parent == res) {
				remove_resource(res);
				break;
			}
		}
	}
}

static bool cdm_pci_answers(struct pci_dev *pdev)
{
	u16 command;

	if (pci_channel_offline(pdev) || !pci_device_is_present(pdev))
		return false;
	/* Of a virtual function the bit means nothing. */
	return pdev->is_virtfn ||
	       (!pci_read_config_word(pdev, PCI_COMMAND, &command) &&
		(command & PCI_COMMAND_MEMORY));
}
#else
static void cdm_move_regions_up(struct device *dev)
{
}

static bool cdm_pci_answers(struct pci_dev *pdev)
{
	return true;
}
#endif

static int cdm_bus_notify(struct notifier_block *nb, unsigned long action,
			  void *data)
{
	struct device *dev = data;

	/* Its resources are there yet, its driver is not if the bus is PCI. */
	if (action == BUS_NOTIFY_DEL_DEVICE) {
		cdm_core_device_gone(dev);
		cdm_move_regions_up(dev);
	}
	return NOTIFY_DONE;
}

/**
 * cdm_watch_bus - ask a bus to say which devices go
 * @dev: a device on it, or NULL
 *
 * Context: May sleep. Not under a lock that cdm_core_device_gone() takes.
 * Return: 0 or -errno.
 */
int cdm_watch_bus(struct device *dev)
{
	struct cdm_bus *bus;
	int ret;

	if (!dev || !dev->bus)
		return 0;

	guard(mutex)(&cdm_buses_lock);
	list_for_each_entry(bus, &cdm_buses, list) {
		if (bus->bus == dev->bus)
			return 0;
	}

	bus = kzalloc_obj(*bus);
	if (!bus)
		return -ENOMEM;
	bus->bus = dev->bus;
	bus->nb.notifier_call = cdm_bus_notify;
	ret = bus_register_notifier(bus->bus, &bus->nb);
	if (ret) {
		kfree(bus);
		return ret;
	}
	list_add(&bus->list, &cdm_buses);
	return 0;
}

/**
 * cdm_device_hold - keep a device as it is while it has a node
 * @dev: a device that is bound, or being bound, to the node's driver
 * @region: the node's, from cdm_region_request()
 *
 * The device stays awake, and is not given to another driver.
 *
 * Context: May sleep.
 * Return: what to pass to cdm_device_let_go(), or NULL if memory is short.
 */
struct cdm_device *cdm_device_hold(struct device *dev, struct resource *region)
{
	struct cdm_device *owner;

	owner = kzalloc_obj(*owner);
	if (!owner)
		return NULL;

	owner->dev = get_device(dev);
	owner->drv = dev->driver;
	owner->region = region;
	pm_runtime_get_sync(dev);
	scoped_guard(mutex, &cdm_devices_lock)
		list_add(&owner->list, &cdm_devices);
	return owner;
}

/**
 * cdm_device_let_go - undo cdm_device_hold()
 * @owner: from there
 *
 * Context: May sleep.
 */
void cdm_device_let_go(struct cdm_device *owner)
{
	scoped_guard(mutex, &cdm_devices_lock)
		list_del(&owner->list);
	pm_runtime_put(owner->dev);
	put_device(owner->dev);
	kfree(owner);
}

/**
 * cdm_device_answers - can the memory of a device be read?
 * @owner: from cdm_device_hold()
 *
 * Context: May sleep.
 * Return: false if it is known that it cannot: the device was pulled out, or its
 * memory switched off.
 */
bool cdm_device_answers(const struct cdm_device *owner)
{
	return !dev_is_pci(owner->dev) ||
	       cdm_pci_answers(to_pci_dev(owner->dev));
}

/**
 * __cdm_device_may_bind - may this driver have the device?
 * @dev: the device
 * @drv: the driver
 *
 * The node of a device is left alone by its driver, and by no other: the memory
 * that tasks use must neither be reset nor mapped.
 *
 * Context: May sleep.
 * Return: true if it may.
 */
bool __cdm_device_may_bind(struct device *dev, const struct device_driver *drv)
{
	struct cdm_device *owner;

	guard(mutex)(&cdm_devices_lock);
	list_for_each_entry(owner, &cdm_devices, list) {
		if (owner->dev == dev && owner->drv && owner->drv != drv) {
			dev_err(dev, "tasks use its memory, which %s has left behind: not given to %s\n",
				owner->drv->name, drv->name);
			return false;
		}
	}
	return true;
}
