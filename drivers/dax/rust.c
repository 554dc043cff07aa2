// SPDX-License-Identifier: GPL-2.0
/* What rust/kernel/dax.rs cannot say in Rust. */
#include <linux/cleanup.h>
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
