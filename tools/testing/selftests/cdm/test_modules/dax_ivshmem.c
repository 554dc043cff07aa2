// SPDX-License-Identifier: GPL-2.0
/*
 * The control of the CDM selftests: the memory of an ivshmem device as an
 * ordinary node, added by dax/kmem. On a kernel without CDM, every denial
 * that the selftests look for must be missing there.
 */
#include <linux/dax.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "bus.h"

#define IVSHMEM_VENDOR	0x1af4
#define IVSHMEM_DEVICE	0x1110
#define IVSHMEM_BAR	2

static int nid = 2;
module_param(nid, int, 0644);
MODULE_PARM_DESC(nid, "node that the memory of the next device becomes");

static int dax_ivshmem_probe(struct pci_dev *pdev,
			     const struct pci_device_id *id)
{
	struct dev_dax_data data = { .id = -1 };
	struct range range = {
		.start = pci_resource_start(pdev, IVSHMEM_BAR),
		.end = pci_resource_end(pdev, IVSHMEM_BAR),
	};

	data.size = range_len(&range);
	data.dax_region = alloc_dax_region(&pdev->dev, pci_dev_id(pdev), &range,
					   nid, PMD_SIZE, IORESOURCE_DAX_KMEM);
	if (!data.dax_region)
		return -ENOMEM;
	return PTR_ERR_OR_ZERO(devm_create_dev_dax(&data));
}

static const struct pci_device_id dax_ivshmem_ids[] = {
	{ PCI_DEVICE(IVSHMEM_VENDOR, IVSHMEM_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, dax_ivshmem_ids);

static struct pci_driver dax_ivshmem_driver = {
	.name = "dax_ivshmem",
	.id_table = dax_ivshmem_ids,
	.probe = dax_ivshmem_probe,
};
module_pci_driver(dax_ivshmem_driver);

MODULE_DESCRIPTION("Memory of an ivshmem device as an ordinary node");
MODULE_LICENSE("GPL");
