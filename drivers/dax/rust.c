// SPDX-License-Identifier: GPL-2.0
/* What rust/kernel/dax.rs cannot say in Rust. */
#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/rwsem.h>

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
