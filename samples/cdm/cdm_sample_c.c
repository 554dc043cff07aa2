// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: a driver in C.
 *
 * The memory is BAR 2, as that of QEMU's ivshmem device:
 *
 *   echo cdm_sample_c > /sys/bus/pci/devices/$DEVICE/driver_override
 *   echo $DEVICE > /sys/bus/pci/drivers/cdm_sample_c/bind
 *
 * A BAR of a plain PCI Express device is not cache-coherent with the CPUs, and
 * must not be handed over like this.
 */
#include <linux/cdm.h>
#include <linux/module.h>
#include <linux/pci.h>

#define SAMPLE_BAR	2

struct sample {
	int nid;
};

/* What a driver does about its memory when the device has been reset */
static ssize_t lost_store(struct device *dev, struct device_attribute *attr,
			  const char *buf, size_t count)
{
	struct sample *sample = dev_get_drvdata(dev);
	int nid;

	/* The node has ended with this call, whoever else writes here. */
	nid = xchg(&sample->nid, NUMA_NO_NODE);
	if (nid == NUMA_NO_NODE)
		return -ENODEV;
	cdm_node_lost(nid);
	return count;
}
static DEVICE_ATTR_WO(lost);

static struct attribute *sample_attrs[] = {
	&dev_attr_lost.attr,
	NULL
};
ATTRIBUTE_GROUPS(sample);

static int sample_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct cdm_node_config config = {
		.start = pci_resource_start(pdev, SAMPLE_BAR),
		.size = pci_resource_len(pdev, SAMPLE_BAR),
		.nid = NUMA_NO_NODE,
		.allow = CDM_ALLOW_MIGRATE | CDM_ALLOW_THP,
		.flags = CDM_NODE_COHERENT,
		.owner = THIS_MODULE,
		.dev = &pdev->dev,
	};
	struct sample *sample;
	int ret;

	sample = devm_kzalloc(&pdev->dev, sizeof(*sample), GFP_KERNEL);
	if (!sample)
		return -ENOMEM;
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;

	/* If it fails nothing is left behind, and the log says why. */
	sample->nid = cdm_register_node(&config);
	if (sample->nid < 0)
		return sample->nid;
	pci_set_drvdata(pdev, sample);
	return 0;
}

static void sample_remove(struct pci_dev *pdev)
{
	struct sample *sample = pci_get_drvdata(pdev);
	int nid = xchg(&sample->nid, NUMA_NO_NODE);

	/* Where tasks hold on to pages the core keeps the node for them. */
	if (nid != NUMA_NO_NODE)
		cdm_release_node(nid);
}

static const struct pci_device_id sample_ids[] = {
	{}
};

static struct pci_driver sample_driver = {
	.name = "cdm_sample_c",
	.id_table = sample_ids,
	.probe = sample_probe,
	.remove = sample_remove,
	.dev_groups = sample_groups,
};
module_pci_driver(sample_driver);

MODULE_DESCRIPTION("Coherent device memory: a driver in C");
MODULE_LICENSE("GPL");
