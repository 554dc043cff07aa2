// SPDX-License-Identifier: GPL-2.0
/*
 * The C driver interface of CDM, at the hands of the selftests: each write to
 * a file in debugfs is one call, and the write fails with the call's errno.
 *
 *	cdm_test/register	start size nid allow flags [broken page ...]
 *	cdm_test/unregister	nid
 *	cdm_test/release	nid
 *	cdm_test/add_memory	nid start size
 *	cdm_test/cpu_node	cpu nid
 *	cdm_test/plant		nid kind
 *	cdm_test/keep		pfn lock|writeback
 *	cdm_test/touch		address
 *	cdm_test/lost		nid
 *	cdm_test/freeze		nid
 *	cdm_test/thaw		nid
 *	cdm_test/switch_off	PCI device
 *	cdm_test/tear_out	PCI device
 *	cdm_test/steal		PCI device
 *	cdm_test/hold		pfn how
 *	cdm_test/crash_header	(read) what the kernel that is loaded for a crash will
 *				find in /proc/vmcore: start and size of each range
 *	cdm_test/poisoned	(read) what the driver has been told, and what it is
 *				when it asks: the addresses of broken pages
 *
 * cpu_node says of a CPU that is offline on which node it is, as ACPI does of
 * one that has just been plugged in.
 *
 * plant allocates a page on the node without having named it, and makes it look
 * like one of the kind: cdm-oracle must find it. The kind "none" frees it.
 *
 * keep locks a page that somebody uses, or makes it look like one that is being
 * written out, and has a reference to it; with "0 none" that has come to an end.
 *
 * touch writes to the caller's address space as one who may use reserves does,
 * and so may do without a memory policy.
 *
 * switch_off makes the memory of a device disappear: reads give ones. tear_out
 * does that and removes the device as hot-plug does if it was pulled out. steal
 * says that there is another driver, cdm_thief, who can have it ("none": no).
 * hold keeps the folio of a page "locked" or under "writeback", as somebody does
 * who waits for a disk, until it is called with another page or with "none". It
 * has no reference.
 */
#include <linux/cdm.h>
#include <linux/cpu.h>
#include <linux/debugfs.h>
#include <linux/elf.h>
#include <linux/gfp.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/numa.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/topology.h>
#include <linux/uaccess.h>

static struct dentry *dir;

/* The pages that were reported as broken since the last registration */
static u64 told[8];
static unsigned int nr_told;
static int registered = NUMA_NO_NODE;

static void note_poisoned(void *data, u64 addr)
{
	unsigned int *nr = data;

	if (*nr < ARRAY_SIZE(told))
		told[(*nr)++] = addr;
}

static const struct cdm_node_ops ops = {
	.poisoned = note_poisoned,
};

static int poisoned_show(struct seq_file *m, void *unused)
{
	u64 bad[8];
	int i, nr;

	for (i = 0; i < READ_ONCE(nr_told); i++)
		seq_printf(m, "told %#llx\n", told[i]);
	nr = cdm_node_bad_pages(registered, bad, ARRAY_SIZE(bad));
	for (i = 0; i < min_t(int, nr, ARRAY_SIZE(bad)); i++)
		seq_printf(m, "bad %#llx\n", bad[i]);
	return nr < 0 ? nr : 0;
}
DEFINE_SHOW_ATTRIBUTE(poisoned);

static int note_range(struct resource *res, void *arg)
{
	*(struct resource *)arg = *res;
	return 1;
}

/* In the memory that was reserved at boot; nobody says where. */
static int crash_header_show(struct seq_file *m, void *unused)
{
	struct resource res;
	u64 addr;

	if (walk_iomem_res_desc(IORES_DESC_CRASH_KERNEL, IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY,
				0, -1, &res, note_range) != 1)
		return -ENODEV;
	for (addr = res.start; addr < res.end; addr += PAGE_SIZE) {
		const struct elf64_hdr *elf = phys_to_virt(addr);
		struct elf64_phdr *phdr = (void *)(elf + 1);
		unsigned int i;

		if (memcmp(elf->e_ident, ELFMAG, SELFMAG) || elf->e_type != ET_CORE)
			continue;
		for (i = 0; i < elf->e_phnum && (u64)virt_to_phys(phdr + i) < res.end; i++) {
			if (phdr[i].p_type == PT_LOAD)
				seq_printf(m, "%#llx %#llx\n", phdr[i].p_paddr, phdr[i].p_memsz);
		}
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(crash_header);

static int do_register(const char *args)
{
	u64 bad[8];
	struct cdm_node_config config = {
		.owner = THIS_MODULE,
		.bad_pages = bad,
		.ops = &ops,
		.data = &nr_told,
	};
	int nid, end;

	if (sscanf(args, "%lli %lli %i %i %i%n", &config.start, &config.size,
		   &config.nid, &config.allow, &config.flags, &end) != 5)
		return -EBADMSG;
	for (args += end; config.nr_bad_pages < ARRAY_SIZE(bad); args += end) {
		if (sscanf(args, "%lli%n", &bad[config.nr_bad_pages], &end) != 1)
			break;
		config.nr_bad_pages++;
	}
	nr_told = 0;
	nid = cdm_register_node(&config);
	registered = nid;
	return nid < 0 ? nid : 0;
}

static int do_unregister(const char *args)
{
	int nid, ret;

	ret = kstrtoint(strim((char *)args), 0, &nid);
	return ret ? -EBADMSG : cdm_unregister_node(nid);
}

static int do_release(const char *args)
{
	int nid, ret;

	ret = kstrtoint(strim((char *)args), 0, &nid);
	if (ret)
		return -EBADMSG;
	cdm_release_node(nid);
	return 0;
}

/* What another driver would do to a node that is not its own */
static int do_add_memory(const char *args)
{
	u64 start, size;
	int nid;

	if (sscanf(args, "%i %lli %lli", &nid, &start, &size) != 3)
		return -EBADMSG;
	return add_memory(nid, start, size, MHP_NONE);
}

static int do_cpu_node(const char *args)
{
	unsigned int cpu;
	int nid, ret = 0;

	if (sscanf(args, "%u %i", &cpu, &nid) != 2 || cpu >= nr_cpu_ids ||
	    !node_possible(nid))
		return -EBADMSG;
	cpus_read_lock();
	if (cpu_online(cpu))
		ret = -EBUSY;
	else
		set_cpu_numa_node(cpu, nid);
	cpus_read_unlock();
	return ret;
}

static DEFINE_MUTEX(plant_lock);
static struct folio *planted;
static char planted_kind[16];

static void mark_planted(bool on)
{
	struct page *page = &planted->page;

	if (!strcmp(planted_kind, "slab")) {
		if (on)
			__SetPageSlab(page);
		else
			__ClearPageSlab(page);
	} else if (!strcmp(planted_kind, "table")) {
		if (on)
			__SetPageTable(page);
		else
			__ClearPageTable(page);
	} else if (!strcmp(planted_kind, "reserved")) {
		if (on)
			SetPageReserved(page);
		else
			ClearPageReserved(page);
	} else if (!strcmp(planted_kind, "hugetlb")) {
		if (on)
			__folio_set_hugetlb(planted);
		else
			__folio_clear_hugetlb(planted);
	} else if (!strcmp(planted_kind, "ksm")) {
		planted->mapping = on ? (void *)FOLIO_MAPPING_KSM : NULL;
	} else if (!strcmp(planted_kind, "file")) {
		if (on)
			folio_set_lru(planted);
		else
			folio_clear_lru(planted);
	}
}

static void unplant(void)
{
	if (!planted)
		return;
	mark_planted(false);
	folio_put(planted);
	planted = NULL;
}

static int do_plant(const char *args)
{
	unsigned int order = 0;
	char kind[16];
	int nid;

	if (sscanf(args, "%i %15s", &nid, kind) != 2)
		return -EBADMSG;
	guard(mutex)(&plant_lock);
	unplant();
	if (!strcmp(kind, "none"))
		return 0;
	if (!strcmp(kind, "thp") || !strcmp(kind, "hugetlb"))
		order = 4;
	/* As if page_owner had no memory for the stack */
	current->in_page_owner = !strcmp(kind, "unknown");
	planted = __folio_alloc_node(GFP_HIGHUSER_MOVABLE | __GFP_THISNODE,
				     order, nid);
	current->in_page_owner = 0;
	if (!planted)
		return -ENOMEM;
	strscpy(planted_kind, kind);
	mark_planted(true);
	return 0;
}

static struct folio *kept[2];

static void let_go(void)
{
	if (kept[0]) {
		folio_unlock(kept[0]);
		folio_put(kept[0]);
	}
	if (kept[1]) {
		folio_end_writeback(kept[1]);
		folio_put(kept[1]);
	}
	memset(kept, 0, sizeof(kept));
}

static int do_keep(const char *args)
{
	struct folio *folio;
	unsigned long pfn;
	char how[16];

	if (sscanf(args, "%lu %15s", &pfn, how) != 2)
		return -EBADMSG;
	guard(mutex)(&plant_lock);
	if (!strcmp(how, "none")) {
		let_go();
		return 0;
	}
	if (!pfn_to_online_page(pfn))
		return -ENXIO;
	folio = pfn_folio(pfn);
	if (kept[!strcmp(how, "writeback")] || !folio_try_get(folio))
		return -EBUSY;
	folio_lock(folio);
	if (!strcmp(how, "writeback")) {
		folio_start_writeback(folio);
		folio_unlock(folio);
		kept[1] = folio;
	} else {
		kept[0] = folio;
	}
	return 0;
}

static int do_touch(const char *args)
{
	unsigned int flags;
	unsigned long addr;
	int ret;

	if (kstrtoul(args, 0, &addr))
		return -EBADMSG;
	flags = memalloc_noreclaim_save();
	ret = put_user(1, (char __user *)addr);
	memalloc_noreclaim_restore(flags);
	return ret;
}

static int do_lost(const char *args)
{
	int nid, ret;

	ret = kstrtoint(strim((char *)args), 0, &nid);
	if (ret)
		return -EBADMSG;
	cdm_node_lost(nid);
	return 0;
}

static int do_freeze(const char *args)
{
	int nid, ret;

	ret = kstrtoint(strim((char *)args), 0, &nid);
	return ret ? -EBADMSG : cdm_freeze_node(nid);
}

static int do_thaw(const char *args)
{
	int nid, ret;

	ret = kstrtoint(strim((char *)args), 0, &nid);
	return ret ? -EBADMSG : cdm_thaw_node(nid);
}

static struct pci_dev *pci_dev_named(const char *name)
{
	unsigned int domain, bus, slot, func;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &func) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, func));
}

static int switch_off(const char *args, bool torn_out)
{
	struct pci_dev *pdev = pci_dev_named(args);
	u16 command;

	if (!pdev)
		return -ENODEV;
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	pci_write_config_word(pdev, PCI_COMMAND, command & ~PCI_COMMAND_MEMORY);
	if (torn_out) {
		/* As pciehp does */
		pdev->error_state = pci_channel_io_perm_failure;
		pci_stop_and_remove_bus_device_locked(pdev);
	}
	pci_dev_put(pdev);
	return 0;
}

static int do_switch_off(const char *args)
{
	return switch_off(args, false);
}

static int do_tear_out(const char *args)
{
	return switch_off(args, true);
}

/* Matches nothing but what it is told to */
static const struct pci_device_id thief_ids[] = {
	{ }
};

static int thief_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return 0;
}

static struct pci_driver thief = {
	.name = "cdm_thief",
	.id_table = thief_ids,
	.probe = thief_probe,
};

static int do_steal(const char *args)
{
	struct pci_dev *pdev;
	static bool registered;
	int ret;

	if (!strcmp(args, "none")) {
		if (registered)
			pci_unregister_driver(&thief);
		registered = false;
		return 0;
	}
	pdev = pci_dev_named(args);
	if (!pdev)
		return -ENODEV;
	ret = registered ? 0 : pci_register_driver(&thief);
	registered = !ret;
	if (!ret)
		ret = pci_add_dynid(&thief, pdev->vendor, pdev->device,
				    PCI_ANY_ID, PCI_ANY_ID, 0, 0, 0);
	pci_dev_put(pdev);
	return ret;
}

static DEFINE_MUTEX(held_lock);
static struct folio *held;
static bool held_writeback;

static void unhold(void)
{
	if (!held)
		return;
	if (held_writeback)
		folio_end_writeback(held);
	else
		folio_unlock(held);
	held = NULL;
}

/* No reference is kept: that alone would keep the folio where it is. */
static int do_hold(const char *args)
{
	struct folio *folio;
	unsigned long pfn;
	struct page *page;
	char how[16];

	if (sscanf(args, "%li %15s", &pfn, how) != 2)
		return -EBADMSG;
	guard(mutex)(&held_lock);
	unhold();
	if (!strcmp(how, "none"))
		return 0;
	page = pfn_to_online_page(pfn);
	if (!page || !get_page_unless_zero(page))
		return -ENXIO;
	folio = page_folio(page);
	folio_lock(folio);
	held_writeback = !strcmp(how, "writeback");
	if (held_writeback) {
		folio_start_writeback(folio);
		folio_unlock(folio);
	}
	held = folio;
	folio_put(folio);
	return 0;
}

static ssize_t call(const char __user *ubuf, size_t len,
		    int (*fn)(const char *args))
{
	char *args;
	int ret;

	args = memdup_user_nul(ubuf, len);
	if (IS_ERR(args))
		return PTR_ERR(args);
	ret = fn(args);
	kfree(args);
	return ret ?: len;
}

#define CDM_TEST_FILE(name)						\
static ssize_t name##_write(struct file *file, const char __user *ubuf,	\
			    size_t len, loff_t *pos)			\
{									\
	return call(ubuf, len, do_##name);				\
}									\
									\
static const struct file_operations name##_fops = {			\
	.owner = THIS_MODULE,						\
	.write = name##_write,						\
}

CDM_TEST_FILE(register);
CDM_TEST_FILE(unregister);
CDM_TEST_FILE(release);
CDM_TEST_FILE(add_memory);
CDM_TEST_FILE(cpu_node);
CDM_TEST_FILE(plant);
CDM_TEST_FILE(keep);
CDM_TEST_FILE(touch);
CDM_TEST_FILE(lost);
CDM_TEST_FILE(freeze);
CDM_TEST_FILE(thaw);
CDM_TEST_FILE(switch_off);
CDM_TEST_FILE(tear_out);
CDM_TEST_FILE(steal);
CDM_TEST_FILE(hold);

static int __init cdm_test_init(void)
{
	dir = debugfs_create_dir("cdm_test", NULL);
	debugfs_create_file("register", 0200, dir, NULL, &register_fops);
	debugfs_create_file("unregister", 0200, dir, NULL, &unregister_fops);
	debugfs_create_file("release", 0200, dir, NULL, &release_fops);
	debugfs_create_file("add_memory", 0200, dir, NULL, &add_memory_fops);
	debugfs_create_file("cpu_node", 0200, dir, NULL, &cpu_node_fops);
	debugfs_create_file("plant", 0200, dir, NULL, &plant_fops);
	debugfs_create_file("keep", 0200, dir, NULL, &keep_fops);
	debugfs_create_file("touch", 0200, dir, NULL, &touch_fops);
	debugfs_create_file("lost", 0200, dir, NULL, &lost_fops);
	debugfs_create_file("freeze", 0200, dir, NULL, &freeze_fops);
	debugfs_create_file("thaw", 0200, dir, NULL, &thaw_fops);
	debugfs_create_file("switch_off", 0200, dir, NULL, &switch_off_fops);
	debugfs_create_file("tear_out", 0200, dir, NULL, &tear_out_fops);
	debugfs_create_file("steal", 0200, dir, NULL, &steal_fops);
	debugfs_create_file("hold", 0200, dir, NULL, &hold_fops);
	debugfs_create_file("poisoned", 0400, dir, NULL, &poisoned_fops);
	debugfs_create_file("crash_header", 0400, dir, NULL, &crash_header_fops);
	return 0;
}
module_init(cdm_test_init);

static void __exit cdm_test_exit(void)
{
	debugfs_remove(dir);
	do_steal("none");
	let_go();
	unplant();
	unhold();
}
module_exit(cdm_test_exit);

MODULE_DESCRIPTION("The driver interface of CDM for its selftests");
MODULE_LICENSE("GPL");
