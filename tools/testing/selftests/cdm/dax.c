// SPDX-License-Identifier: GPL-2.0
/*
 * The memory of any dax device is a node, as the administrator says: by the
 * driver "cdm" of the dax bus, beside kmem and device_dax.
 *
 * The dax device is made of a memory device by test_modules/dax_ivshmem.c, in
 * a dynamic region as that of CXL: no driver but kmem takes it by itself.
 */
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define PCI_DRIVER	"/sys/bus/pci/drivers/dax_ivshmem"
#define TARGET_NID	"/sys/module/dax_ivshmem/parameters/nid"
#define BLOCK		(128UL << 20)
#define NR		((size_t)512)
#define SEED		0xda00000UL

/* The dax device on the memory of the first memory device */
static int find_device(void)
{
	const struct device *dev = cdm_device(0);
	char path[PATH_MAX];
	glob_t found;
	size_t i;

	dax_name[0] = '\0';
	if (!dev || glob(DAX_SYSFS "/devices/dax*", 0, NULL, &found))
		return -ENODEV;
	for (i = 0; i < found.gl_pathc; i++) {
		snprintf(path, sizeof(path), "%s/resource", found.gl_pathv[i]);
		if ((unsigned long)file_number(path) - dev->start < dev->size)
			snprintf(dax_name, sizeof(dax_name), "%s",
				 basename(found.gl_pathv[i]));
	}
	globfree(&found);
	return *dax_name ? 0 : -ENODEV;
}

/* Make a new one, whose memory has this node */
static int new_device(const char *nid)
{
	const struct device *dev = cdm_device(0);
	int ret = file_write(TARGET_NID, nid);

	if (!ret)
		ret = file_write(PCI_DRIVER "/unbind", dev->name);
	if (!ret)
		ret = file_write(PCI_DRIVER "/bind", dev->name);
	return ret ?: find_device();
}

FIXTURE(dax)
{
	int nid;
	int log;
	char *before;
	char text[256];
};

FIXTURE_SETUP(dax)
{
	const struct device *dev = cdm_device(0);

	ASSERT_NE(NULL, dev);
	ASSERT_LE(4 * BLOCK, dev->size);
	/* A node that the firmware knows is online from the boot on, until it leaves */
	if (node_list("online") & ~node_list("has_memory"))
		ASSERT_LE(0, cdm_node_up("none"));
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(0, load_module("dax_cdm", ""));
	/* The driver takes nothing by itself, and kmem shall not */
	ASSERT_EQ(0, setting(DAX_SYSFS "/drivers_autoprobe", "0"));
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks",
			     "online_movable"));
	ASSERT_EQ(0, load_module("dax_ivshmem", ""));
	ASSERT_EQ(0, find_device());
	ASSERT_STREQ("", dax_driver());
	self->nid = file_number(dax_file("target_node"));
	ASSERT_LT(0, self->nid);
	ASSERT_EQ(0, dax_give_to("cdm"));
	self->before = cdm_snapshot();
	self->log = log_open();
	ASSERT_LE(0, self->log);
}

FIXTURE_TEARDOWN_PARENT(dax)
{
	/* The test, which is another process, may have found a new one */
	EXPECT_EQ(0, find_device());
	EXPECT_EQ(0, dax_leave_driver());
	if (cdm_node() >= 0)
		EXPECT_EQ(0, cdm_unplug(cdm_node()));
	dax_forget_name();
	EXPECT_EQ(0, unload_module("dax_ivshmem"));
	/* Its parameter is for one test only */
	if (!access("/sys/module/dax_cdm", F_OK))
		EXPECT_EQ(0, unload_module("dax_cdm"));
	settings_restore();
}

#define expect_nothing_left()						\
do {									\
	char *after = cdm_snapshot();					\
									\
	EXPECT_TRUE(cdm_same_snapshot(self->before, after));		\
	free(after);							\
	EXPECT_STREQ("unplugged", dax_read("state"));			\
} while (0)

#define expect_gone(addr)						\
do {									\
	const char *pages = (addr);					\
									\
	EXPECT_EQ(-1, cdm_node());					\
	EXPECT_EQ(0, node_list("has_coherent_memory"));			\
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));	\
	EXPECT_EQ(NR, pages_on(pages, NR, PAGE_SIZE, ram_node(0)) +	\
		      pages_on(pages, NR, PAGE_SIZE, ram_node(1)));	\
} while (0)

/* The memory is a node with this mask; who names it is there, nobody else is */
TEST_F_TIMEOUT(dax, node, CDM_TIMEOUT)
{
	unsigned long allocations;
	char *addr, path[128];

	EXPECT_STREQ("unplugged", dax_read("state"));
	EXPECT_STREQ("auto", dax_read("cdm_nid"));
	EXPECT_STREQ("", dax_read("cdm_caps"));
	EXPECT_EQ(0, dax_write("cdm_caps", "thp,migrate"));
	EXPECT_STREQ("migrate thp", dax_read("cdm_caps"));
	ASSERT_EQ(0, dax_write("state", "online"));

	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_EQ(self->nid, file_number(dax_file("cdm_nid")));
	EXPECT_STREQ("migrate thp", dax_read("cdm_caps"));
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(self->nid));
	EXPECT_EQ(cdm_device(0)->size / 1024, node_meminfo(self->nid, "MemTotal"));
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_caps", self->nid);
	ASSERT_LT(0, file_read(path, self->text, sizeof(self->text)));
	EXPECT_STREQ("migrate thp", self->text);
	snprintf(path, sizeof(path), CDM_SYSFS "/node%d/device/state", self->nid);
	ASSERT_LT(0, file_read(path, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);

	allocations = node_allocations(self->nid);
	addr = filled_pages_anywhere(NR, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(allocations, node_allocations(self->nid));
	unmap_pages(addr, NR);
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));

	EXPECT_EQ(0, dax_write("state", "unplugged"));
	EXPECT_STREQ("auto", dax_read("cdm_nid"));
	EXPECT_STREQ("migrate thp", dax_read("cdm_caps"));
	expect_gone(addr);
	expect_nothing_left();
	/* It is what was asked for */
	EXPECT_EQ(0, dax_write("state", "unplugged"));
	/* With another mask, in another way of writing the same node */
	EXPECT_EQ(0, dax_write("cdm_caps", "none"));
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	EXPECT_EQ(0, dax_write("cdm_nid", self->text));
	EXPECT_STREQ(self->text, dax_read("cdm_nid"));
	EXPECT_EQ(0, dax_write("state", "online"));
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_STREQ("none", dax_read("cdm_caps"));
}

/*
 * Control: by kmem the same memory is for everybody. Then the way that an
 * administrator goes whose device kmem has taken.
 */
TEST_F_TIMEOUT(dax, from_kmem, CDM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, dax_give_to("kmem"));
	ASSERT_EQ(self->nid, cdm_node());
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_memory") & NODE_BIT(self->nid));
	EXPECT_EQ(0, node_list("has_coherent_memory"));
	addr = filled_pages_anywhere(NR, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_LT(0, pages_on(addr, NR, PAGE_SIZE, self->nid));

	ASSERT_EQ(0, dax_write("state", "unplugged"));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(dax, refusals, CDM_TIMEOUT)
{
	EXPECT_EQ(-EINVAL, dax_write("cdm_caps", "migrate,banana"));
	expect_logged("%s: cdm_caps: not the names", dax_name);
	EXPECT_EQ(-EINVAL, dax_write("cdm_caps", "\n"));
	EXPECT_EQ(-EINVAL, dax_write("cdm_nid", "banana"));
	expect_logged("%s: cdm_nid: neither", dax_name);
	EXPECT_EQ(-EINVAL, dax_write("cdm_nid", "-1"));
	EXPECT_EQ(-EINVAL, dax_write("cdm_nid", "100000"));
	EXPECT_EQ(-EINVAL, dax_write("state", "banana"));
	EXPECT_EQ(-EINVAL, dax_write("state", "online_movable"));
	EXPECT_STREQ("", dax_read("cdm_caps"));
	EXPECT_STREQ("auto", dax_read("cdm_nid"));

	/* There is no default */
	EXPECT_EQ(-EINVAL, dax_write("state", "online"));
	expect_logged("%s: not online: write to cdm_caps", dax_name);
	/* The rules are those of any registration */
	EXPECT_EQ(0, dax_write("cdm_caps", "longterm_pin"));
	EXPECT_EQ(-EINVAL, dax_write("state", "online"));
	expect_logged("%s is not registered: longterm_pin needs gup", dax_name);
	EXPECT_EQ(0, dax_write("cdm_caps", "migrate"));
	snprintf(self->text, sizeof(self->text), "%d", ram_node(0));
	EXPECT_EQ(0, dax_write("cdm_nid", self->text));
	EXPECT_EQ(-EINVAL, dax_write("state", "online"));
	expect_logged("is not registered: node %d has CPUs", ram_node(0));
	ASSERT_EQ(0, node_list("possible") & NODE_BIT(63));
	EXPECT_EQ(0, dax_write("cdm_nid", "63"));
	EXPECT_EQ(-EINVAL, dax_write("state", "online"));
	expect_logged("is not registered: node 63 is not possible");
	expect_nothing_left();

	/* Control: nothing is in the way of a good one */
	EXPECT_EQ(0, dax_write("cdm_nid", "auto"));
	ASSERT_EQ(0, dax_write("state", "online"));
	EXPECT_EQ(self->nid, cdm_node());

	EXPECT_EQ(-EBUSY, dax_write("state", "online"));
	EXPECT_EQ(-EBUSY, dax_write("cdm_caps", "ksm"));
	EXPECT_EQ(-EBUSY, dax_write("cdm_nid", "auto"));
	EXPECT_STREQ("migrate", dax_read("cdm_caps"));
	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_GT(0, unload_module("dax_cdm"));
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_EQ(0, dax_write("state", "unplugged"));
	EXPECT_EQ(0, dax_write("cdm_caps", "ksm"));
}

/* Unbinding is leaving, and the device is as any: others can have it */
TEST_F_TIMEOUT(dax, unbind, CDM_TIMEOUT)
{
	char *addr;
	char path[64];
	int fd;

	ASSERT_EQ(0, dax_online("migrate"));
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(0, dax_leave_driver());
	expect_gone(addr);
	EXPECT_NE(0, access(dax_file("state"), F_OK));
	EXPECT_NE(0, access(dax_file("cdm_caps"), F_OK));

	/* Nothing of what was there */
	EXPECT_EQ(0, raw_used(0, 0, 2 * HUGE_NR));

	ASSERT_EQ(0, dax_give_to("device_dax"));
	snprintf(path, sizeof(path), "/dev/%s", dax_name);
	fd = open(path, O_RDWR);
	EXPECT_LE(0, fd);
	close(fd);

	ASSERT_EQ(0, dax_give_to("cdm"));
	/* It is a new binding */
	EXPECT_STREQ("", dax_read("cdm_caps"));
	EXPECT_STREQ("unplugged", dax_read("state"));
	ASSERT_EQ(0, dax_online("none"));
	EXPECT_EQ(self->nid, cdm_node());
}

/* The administrator unplugs the node where nodes are: the device says so */
TEST_F_TIMEOUT(dax, unplugged_elsewhere, CDM_TIMEOUT)
{
	ASSERT_EQ(0, dax_online("migrate"));
	ASSERT_EQ(0, cdm_unplug(self->nid));
	EXPECT_STREQ("unplugged", dax_read("state"));
	EXPECT_EQ(0, dax_write("state", "unplugged"));
	EXPECT_EQ(0, dax_write("cdm_caps", "ksm"));
	EXPECT_EQ(0, dax_write("state", "online"));
	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_EQ(self->nid, cdm_node());
	ASSERT_EQ(0, cdm_unplug(self->nid));
	EXPECT_EQ(0, dax_leave_driver());
	EXPECT_EQ(-1, cdm_node());
}

/* Who is held stays, is nobody else's, and is the driver's again when that is back */
TEST_F_TIMEOUT(dax, orphan, CDM_TIMEOUT)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	int pipes[2];

	ASSERT_EQ(0, dax_online("gup,migrate"));
	iov.iov_base = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, iov.iov_base);
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "2000"));

	EXPECT_EQ(-EBUSY, dax_write("state", "unplugged"));
	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_EQ(0, dax_leave_driver());
	ASSERT_EQ(self->nid, cdm_node());
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("orphaned", self->text);
	EXPECT_EQ(-ENODEV, dax_give_to("device_dax"));
	expect_logged("not given to device_dax");

	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_STREQ("migrate gup", dax_read("cdm_caps"));
	EXPECT_EQ(self->nid, file_number(dax_file("cdm_nid")));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_EQ(-EBUSY, dax_write("state", "unplugged"));

	close(pipes[0]);
	close(pipes[1]);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "60000"));
	EXPECT_EQ(0, dax_write("state", "unplugged"));
	expect_gone(iov.iov_base);
	/* Control: nothing is in the way of another driver any more */
	EXPECT_EQ(0, dax_give_to("device_dax"));
}

static int resize(unsigned long size)
{
	char text[32];
	int ret = dax_leave_driver();

	snprintf(text, sizeof(text), "%lu", size);
	return ret ?: dax_write("size", text);
}

static int add_mapping(unsigned long from, unsigned long size)
{
	const struct device *dev = cdm_device(0);
	char text[64];

	snprintf(text, sizeof(text), "%lx-%lx", dev->start + from,
		 dev->start + from + size - 1);
	return dax_write("mapping", text);
}

/* What is no whole block is lost, and the log says how much */
TEST_F_TIMEOUT(dax, trimmed, CDM_TIMEOUT)
{
	ASSERT_EQ(0, resize(2 * BLOCK + HUGE));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	expect_logged("%s: 2 MiB of 258 MiB are not whole", dax_name);
	EXPECT_EQ(2 * BLOCK / 1024, node_meminfo(self->nid, "MemTotal"));
	EXPECT_NE(NULL, filled_pages_on(NR, self->nid, SEED));

	ASSERT_EQ(0, resize(0));
	ASSERT_EQ(0, add_mapping(HUGE, 2 * BLOCK));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	expect_logged("%s: 128 MiB of 256 MiB are not whole", dax_name);
	EXPECT_EQ(BLOCK / 1024, node_meminfo(self->nid, "MemTotal"));

	ASSERT_EQ(0, resize(0));
	ASSERT_EQ(0, add_mapping(HUGE, BLOCK));
	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_EQ(-EINVAL, dax_online("migrate"));
	expect_logged("%s: not online: no whole memory block of 128 MiB in its 128 MiB", dax_name);
	EXPECT_EQ(-1, cdm_node());
}

/* Ranges side by side are one; a node of several is refused */
TEST_F_TIMEOUT(dax, ranges, CDM_TIMEOUT)
{
	ASSERT_EQ(0, resize(0));
	ASSERT_EQ(0, add_mapping(2 * BLOCK, BLOCK));
	ASSERT_EQ(0, add_mapping(0, BLOCK));
	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_EQ(-EOPNOTSUPP, dax_online("migrate"));
	expect_logged("%s: not online: its memory is 2 ranges apart", dax_name);
	EXPECT_EQ(-1, cdm_node());

	/* What is between them, while the driver has it */
	ASSERT_EQ(0, add_mapping(BLOCK, BLOCK));
	EXPECT_EQ(0, dax_online("migrate"));
	EXPECT_EQ(3 * BLOCK / 1024, node_meminfo(self->nid, "MemTotal"));
}

/* The node that the firmware has for the memory cannot be it */
TEST_F_TIMEOUT(dax, other_node, CDM_TIMEOUT)
{
	snprintf(self->text, sizeof(self->text), "%d", ram_node(0));
	ASSERT_EQ(0, new_device(self->text));
	EXPECT_EQ(ram_node(0), file_number(dax_file("target_node")));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	EXPECT_EQ(self->nid, cdm_node());
	expect_logged("%s: node %d has CPUs: node %d instead", dax_name, ram_node(0),
		      self->nid);

	ASSERT_EQ(0, new_device("-1"));
	EXPECT_NE(0, access(dax_file("target_node"), F_OK));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	EXPECT_EQ(self->nid, cdm_node());
	expect_logged("%s: it has no target node", dax_name);
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	EXPECT_EQ(0, new_device(self->text));
}

/* The dax device goes, as that of a region of CXL that is destroyed */
TEST_F_TIMEOUT(dax, device_goes, CDM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, dax_online("migrate"));
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, file_write(PCI_DRIVER "/unbind", cdm_device(0)->name));
	expect_gone(addr);
	EXPECT_EQ(-ENODEV, find_device());

	ASSERT_EQ(0, file_write(PCI_DRIVER "/bind", cdm_device(0)->name));
	ASSERT_EQ(0, find_device());
	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_EQ(0, dax_online("migrate"));
	EXPECT_EQ(self->nid, cdm_node());
}

static int reload_driver(const char *params)
{
	int ret = dax_leave_driver();

	return ret ?: unload_module("dax_cdm") ?: load_module("dax_cdm", params);
}

/* With the parameter "auto" the driver takes what kmem would, and makes a node of it */
TEST_F_TIMEOUT(dax, by_itself, CDM_TIMEOUT)
{
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	dax_forget_name();
	ASSERT_EQ(0, file_write(DAX_SYSFS "/drivers_autoprobe", "1"));
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks", "offline"));
	ASSERT_EQ(0, reload_driver(""));
	EXPECT_STREQ("", dax_driver());
	/* Control: without it, that is kmem */
	ASSERT_EQ(0, new_device(self->text));
	EXPECT_STREQ("kmem", dax_driver());
	ASSERT_EQ(0, dax_write("state", "unplugged"));

	/* One that nobody has */
	ASSERT_EQ(0, reload_driver("auto=thp,migrate"));
	EXPECT_STREQ("cdm", dax_driver());
	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_STREQ("migrate thp", dax_read("cdm_caps"));
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	/* One that comes */
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	ASSERT_EQ(0, new_device(self->text));
	EXPECT_STREQ("cdm", dax_driver());
	EXPECT_STREQ("online", dax_read("state"));
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(self->nid));

	/* What is given by name is as whoever gives it says */
	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_STREQ("unplugged", dax_read("state"));
	EXPECT_STREQ("", dax_read("cdm_caps"));
	ASSERT_EQ(0, dax_give_to("kmem"));
	EXPECT_EQ(self->nid, cdm_node());
	ASSERT_EQ(0, dax_write("state", "unplugged"));
	dax_forget_name();

	/* What cannot be is not kmem's either */
	ASSERT_EQ(0, reload_driver("auto=migrate,banana"));
	EXPECT_STREQ("cdm", dax_driver());
	EXPECT_STREQ("unplugged", dax_read("state"));
	EXPECT_STREQ("", dax_read("cdm_caps"));
	expect_logged("%s: auto: \"banana\" is no capability", dax_name);
	ASSERT_EQ(0, reload_driver("auto=longterm_pin"));
	EXPECT_STREQ("cdm", dax_driver());
	EXPECT_STREQ("unplugged", dax_read("state"));
	EXPECT_STREQ("longterm_pin", dax_read("cdm_caps"));
	expect_logged("%s is not registered: longterm_pin needs gup", dax_name);
	EXPECT_EQ(0, dax_online("migrate"));
	EXPECT_EQ(self->nid, cdm_node());

	/* And without the driver it is kmem's again */
	ASSERT_EQ(0, dax_leave_driver());
	ASSERT_EQ(0, unload_module("dax_cdm"));
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	ASSERT_EQ(0, new_device(self->text));
	EXPECT_STREQ("kmem", dax_driver());
	ASSERT_EQ(0, dax_write("state", "unplugged"));
}

TEST_HARNESS_MAIN
