// SPDX-License-Identifier: GPL-2.0
/* What rust/kernel/dax.rs cannot say in Rust. */
#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/numa.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched.h>

#include "dax-private.h"
#include "bus.h"

/**
 * dev_dax_get_range - look up a range of a device
 * @dev_dax: the device
 * @i: number of the range, from 0
 * @range: where to put it
 *
 * While a driver has the device, daxX.Y/mapping may add a range, and move the
 * array of them.
 *
 * Context: May sleep.
 * Return: false if there is no such range.
 */
bool dev_dax_get_range(struct dev_dax *dev_dax, int i, struct range *range)
{
	guard(rwsem_read)(&dax_dev_rwsem);

	if (i >= dev_dax->nr_range)
		return false;
	*range = dev_dax->ranges[i].range;
	return true;
}

/**
 * dev_dax_add_file - let tasks open /dev/daxX.Y
 * @dev_dax: a device that is bound to the caller
 * @fops: its operations; open is dev_dax_open_file()
 *
 * It is not the cdev that device_dax initialises anew whenever it is bound:
 * somebody may have that open yet, or this one when the device is bound again.
 *
 * Context: May sleep.
 * Return: 0, -EBUSY if the driver has added one already, or what cdev_add() says.
 */
int dev_dax_add_file(struct dev_dax *dev_dax, const struct file_operations *fops)
{
	struct cdev *cdev = cdev_alloc();
	int ret = -EBUSY;

	if (!cdev)
		return -ENOMEM;
	cdev->owner = fops->owner;
	cdev->ops = fops;

	if (cmpxchg(&dev_dax->file, NULL, cdev))
		goto put;
	WRITE_ONCE(dev_dax->file_nid, NUMA_NO_NODE);
	cdev_set_parent(cdev, &dev_dax->dev.kobj);
	ret = cdev_add(cdev, dev_dax->dev.devt, 1);
	if (!ret)
		return 0;

	/* cdev_add() would have taken the reference that goes with it */
	cdev->kobj.parent = NULL;
	WRITE_ONCE(dev_dax->file, NULL);
put:
	kobject_put(&cdev->kobj);
	return ret;
}
EXPORT_SYMBOL_GPL(dev_dax_add_file);

/**
 * dev_dax_del_file - undo dev_dax_add_file()
 * @dev_dax: the device
 *
 * Who has it open keeps the operations and the device, and gets no pages until that
 * has a file and a node again.
 *
 * Context: May sleep.
 */
void dev_dax_del_file(struct dev_dax *dev_dax)
{
	struct cdev *cdev = dev_dax->file;

	WRITE_ONCE(dev_dax->file_nid, NUMA_NO_NODE);
	WRITE_ONCE(dev_dax->file, NULL);
	cdev_del(cdev);
}

/**
 * dev_dax_open_file - open() of the file of a device
 * @inode: of the file
 * @file: the file; its private data are the device, which stays while it is open
 *
 * Context: May sleep.
 * Return: 0, or -ENXIO if the driver has gone: the inode may remember the cdev.
 */
int dev_dax_open_file(struct inode *inode, struct file *file)
{
	struct device *dev = kobj_to_dev(inode->i_cdev->kobj.parent);
	struct dev_dax *dev_dax = to_dev_dax(dev);

	if (!READ_ONCE(dev_dax->file))
		return -ENXIO;

	/* What device_dax has made of the inode, if it had the device before */
	inode->i_mapping = &inode->i_data;
	inode->i_flags &= ~S_DAX;
	file->f_mapping = inode->i_mapping;
	file->f_wb_err = filemap_sample_wb_err(file->f_mapping);
	file->f_sb_err = file_sample_sb_err(file);
	file->private_data = dev_dax;
	return 0;
}
EXPORT_SYMBOL_GPL(dev_dax_open_file);

bool dax_mapping_is_shared(const struct vm_area_desc *desc)
{
	return vma_desc_test(desc, VMA_MAYSHARE_BIT);
}

/**
 * dev_dax_refuse_mapping - tell the log why a task may not map the file
 * @dev_dax: the device
 * @why: the reason
 *
 * Context: May sleep.
 */
void dev_dax_refuse_mapping(struct dev_dax *dev_dax, const char *why)
{
	dev_info_ratelimited(&dev_dax->dev, "%s[%d] may not map it: %s\n",
			     current->comm, task_pid_nr(current), why);
}

static atomic_t nr_reservations = ATOMIC_INIT(0);

/**
 * dax_reserve - keep from kmem what it would get by itself
 *
 * It is for drivers of DAXDRV_RESERVED_TYPE then, whether there is one or not.
 * Counts for devices and drivers that come; who has a device has it.
 */
void dax_reserve(void)
{
	atomic_inc(&nr_reservations);
}
EXPORT_SYMBOL_GPL(dax_reserve);

/**
 * dax_unreserve - take a dax_reserve() back
 */
void dax_unreserve(void)
{
	atomic_dec(&nr_reservations);
}
EXPORT_SYMBOL_GPL(dax_unreserve);

bool dax_is_reserved(void)
{
	return atomic_read(&nr_reservations) > 0;
}

/*
 * The parameter of a driver that may be a module. Kmem may have the devices by the
 * time that this is loaded, so it counts from the first of them on.
 */
static int __init dax_cdm_auto(char *caps)
{
	if (caps && *caps)
		dax_reserve();
	return 0;
}
early_param("dax_cdm.auto", dax_cdm_auto);
