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
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define PCI_DRIVER	"/sys/bus/pci/drivers/dax_ivshmem"
#define TARGET_NID	"/sys/module/dax_ivshmem/parameters/nid"
#define CPUSET		"/sys/fs/cgroup/cdm-dax"
#define BLOCK		(128UL << 20)
#define NOBODY		65534
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
	rmdir(CPUSET);
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

static int open_file(int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", dax_name);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Pages of the device's file, of base pages; NULL and errno if there are none */
static char *map_file_at(void *at, int fd, size_t nr, size_t page, int flags)
{
	char *addr = mmap(at, nr * PAGE_SIZE, PROT_READ | PROT_WRITE, flags, fd,
			  page * PAGE_SIZE);

	return addr == MAP_FAILED ? NULL : addr;
}

static char *map_file(int fd, size_t nr)
{
	return map_file_at(NULL, fd, nr, 0, MAP_PRIVATE);
}

#define expect_not_mapped(error, fd)					\
do {									\
	errno = 0;							\
	EXPECT_EQ(NULL, map_file(fd, NR));				\
	EXPECT_EQ(error, errno);					\
} while (0)

/* Pages that are mapped, on the node as soon as they are touched */
#define expect_placed(addr, nr)						\
do {									\
	char *__placed = (addr);					\
	size_t __nr = (nr);						\
									\
	ASSERT_NE(NULL, __placed);					\
	fill_pages(__placed, __nr, PAGE_SIZE, SEED);			\
	EXPECT_EQ(__nr, pages_on(__placed, __nr, PAGE_SIZE, self->nid)); \
	EXPECT_EQ(__nr, pages_with(__placed, __nr, PAGE_SIZE, KPF_ANON)); \
} while (0)

/* Who has the file has pages of the node, whatever is said elsewhere */
TEST_F_TIMEOUT(dax, by_file, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(ram_node(0)) | NODE_BIT(ram_node(1));
	char policy[64], *addr;
	long long committed;
	int fd;

	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	expect_not_mapped(ENXIO, fd);

	ASSERT_EQ(0, dax_online("migrate"));
	addr = map_file(fd, NR);
	expect_placed(addr, NR);
	snprintf(self->text, sizeof(self->text), "bind:%d", self->nid);
	EXPECT_EQ(NR, numa_maps_pages(addr, self->nid, policy, sizeof(policy)));
	EXPECT_STREQ(self->text, policy);
	unmap_pages(addr, NR);

	ASSERT_EQ(0, set_mempolicy(MPOL_INTERLEAVE, &nodes, 65));
	expect_placed(map_file(fd, NR), NR);
	nodes = NODE_BIT(ram_node(0));
	ASSERT_EQ(0, set_mempolicy(MPOL_BIND, &nodes, 65));
	expect_placed(map_file(fd, NR), NR);
	/* As soon as it is mapped */
	addr = map_file_at(NULL, fd, NR, 0, MAP_PRIVATE | MAP_POPULATE);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	/* Control: what is not the file's is where the policy says */
	addr = map_pages(NR);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, ram_node(0)));
	ASSERT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));

	/* It counts as private memory does */
	committed = proc_meminfo("Committed_AS");
	addr = map_file(fd, BLOCK / PAGE_SIZE);
	ASSERT_NE(NULL, addr);
	committed = proc_meminfo("Committed_AS") - committed;
	EXPECT_LE((long long)(BLOCK / 1024 / 4 * 3), committed);
	unmap_pages(addr, BLOCK / PAGE_SIZE);

	EXPECT_EQ(NULL, map_file_at(NULL, fd, NR, 0, MAP_SHARED));
	EXPECT_EQ(EINVAL, errno);
	expect_logged("%s: dax[%d] may not map it: its pages are anonymous", dax_name,
		      getpid());
	EXPECT_EQ(NULL, map_file_at(NULL, fd, NR, 0, MAP_SHARED_VALIDATE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(fd, policy, sizeof(policy)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(fd, policy, sizeof(policy)));
	EXPECT_EQ(EINVAL, errno);
	close(fd);
	/* To read the file is what a private mapping takes, also to write to that */
	fd = open_file(O_RDONLY);
	ASSERT_LE(0, fd);
	expect_placed(map_file(fd, NR), NR);
	close(fd);
	fd = open_file(O_WRONLY);
	ASSERT_LE(0, fd);
	expect_not_mapped(EACCES, fd);
}

/* What becomes of a mapping is what becomes of any that is bound to the node */
TEST_F_TIMEOUT(dax, file_mapping, CDM_TIMEOUT)
{
	char *addr, *next;
	int fd, *copied;

	ASSERT_EQ(0, dax_online("migrate"));
	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	copied = shared_page();
	ASSERT_NE(NULL, copied);

	/* fork(): what the child writes to is copied on the node */
	addr = map_file(fd, 2 * NR);
	expect_placed(addr, NR);
	if (!fork()) {
		fill_pages(addr, 2 * NR, PAGE_SIZE, SEED + 1);
		*copied = pages_on(addr, 2 * NR, PAGE_SIZE, self->nid);
		_exit(0);
	}
	wait(NULL);
	EXPECT_EQ(2 * NR, *copied);
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));

	/* mremap(): it grows, elsewhere */
	addr = mremap(addr, 2 * NR * PAGE_SIZE, 4 * NR * PAGE_SIZE, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	expect_placed(addr, 4 * NR);

	/* mbind(): it is moved, and so is what comes */
	ASSERT_EQ(0, bind_pages(addr, 2 * NR, MPOL_BIND, NODE_BIT(ram_node(0)),
				MPOL_MF_MOVE));
	EXPECT_EQ(2 * NR, pages_on(addr, 2 * NR, PAGE_SIZE, ram_node(0)));
	EXPECT_EQ(2 * NR, pages_on(addr + 2 * NR * PAGE_SIZE, 2 * NR, PAGE_SIZE,
				   self->nid));
	unmap_pages(addr, 4 * NR);

	/* Side by side, and consecutive pages of the file, they are one */
	addr = map_file(fd, 2 * NR);
	ASSERT_NE(NULL, addr);
	next = addr + NR * PAGE_SIZE;
	unmap_pages(next, NR);
	ASSERT_EQ(next, map_file_at(next, fd, NR, NR, MAP_PRIVATE | MAP_FIXED));
	EXPECT_EQ(1, count_vmas(addr, 2 * NR));
	expect_placed(addr, 2 * NR);
	/* But not with one that is not bound any more: the new one is */
	unmap_pages(next, NR);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_DEFAULT, 0, 0));
	ASSERT_EQ(next, map_file_at(next, fd, NR, NR, MAP_PRIVATE | MAP_FIXED));
	EXPECT_EQ(2, count_vmas(addr, 2 * NR));
	expect_placed(next, NR);
	/* Nor does it map what cannot be mapped */
	unmap_pages(next, NR);
	ASSERT_EQ(0, dax_write("state", "unplugged"));
	EXPECT_EQ(NULL, map_file_at(next, fd, NR, NR, MAP_PRIVATE | MAP_FIXED));
	EXPECT_EQ(ENXIO, errno);
}

/* The flags of a mapping, as smaps has them */
static bool mapping_has(const void *addr, const char *flag)
{
	bool found = false, has = false;
	unsigned long start;
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "r");

	while (f && !has && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-", &start) == 1 && strchr(line, '-'))
			found = start == (unsigned long)addr;
		else if (found && !strncmp(line, "VmFlags:", 8))
			has = strstr(line, flag);
	}
	if (f)
		fclose(f);
	return has;
}

/* The mask is for pages that came by the file, too */
TEST_F_TIMEOUT(dax, file_caps, CDM_TIMEOUT)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	int fd, pipes[2], allowed;
	char *addr, page[PAGE_SIZE];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "always"));
	for (allowed = 0; allowed < 2; allowed++) {
		/* A file that device_dax has mapped is none of dax any more */
		ASSERT_EQ(0, dax_give_to("device_dax"));
		fd = open_file(O_RDWR);
		ASSERT_LE(0, fd);
		addr = map_file_at(NULL, fd, HUGE_NR, 0, MAP_SHARED);
		ASSERT_NE(NULL, addr);
		fill_page(addr, SEED);
		unmap_pages(addr, HUGE_NR);
		close(fd);

		ASSERT_EQ(0, dax_give_to("cdm"));
		ASSERT_EQ(0, dax_online(allowed ? "gup,thp,migrate" : "migrate"));
		fd = open_file(O_RDWR);
		ASSERT_LE(0, fd);
		addr = map_file(fd, 2 * HUGE_NR);
		expect_placed(addr, 2 * HUGE_NR);
		EXPECT_EQ(0, (unsigned long)addr % HUGE);
		EXPECT_EQ(allowed ? 2 * HUGE_NR : 0,
			  pages_with(addr, 2 * HUGE_NR, PAGE_SIZE, KPF_THP));
		iov.iov_base = addr;
		EXPECT_EQ(allowed ? (ssize_t)PAGE_SIZE : -1, vmsplice(pipes[1], &iov, 1, 0));
		EXPECT_EQ(0, madvise(addr, 2 * HUGE, MADV_MERGEABLE));
		EXPECT_TRUE(mapping_has(addr, " mg"));
		unmap_pages(addr, 2 * HUGE_NR);
		close(fd);
		if (allowed)
			EXPECT_EQ((ssize_t)PAGE_SIZE, read(pipes[0], page, PAGE_SIZE));
	}
}

/* Everybody's pages, and the device's file, when the node or the driver goes */
TEST_F_TIMEOUT(dax, file_gone, CDM_TIMEOUT)
{
	char *addr, *later;
	int fd;

	ASSERT_EQ(0, dax_online("migrate"));
	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	addr = map_file(fd, 2 * NR);
	expect_placed(addr, NR);
	later = addr + NR * PAGE_SIZE;

	ASSERT_EQ(0, dax_write("state", "unplugged"));
	expect_gone(addr);
	fill_pages(later, NR, PAGE_SIZE, SEED);
	expect_gone(later);
	expect_not_mapped(ENXIO, fd);
	ASSERT_EQ(0, dax_write("state", "online"));
	unmap_pages(addr, 2 * NR);

	/* By another hand */
	addr = map_file(fd, NR);
	expect_placed(addr, NR);
	ASSERT_EQ(0, cdm_unplug(self->nid));
	expect_gone(addr);
	expect_not_mapped(ENXIO, fd);
	ASSERT_EQ(0, dax_write("state", "online"));
	unmap_pages(addr, NR);

	/* The driver goes: the file is there as long as it is open, and no longer */
	addr = map_file(fd, NR);
	expect_placed(addr, NR);
	ASSERT_EQ(0, dax_leave_driver());
	expect_gone(addr);
	expect_not_mapped(ENXIO, fd);
	EXPECT_EQ(-ENXIO, open_file(O_RDWR));
	EXPECT_GT(0, unload_module("dax_cdm"));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	unmap_pages(addr, NR);
	expect_placed(map_file(fd, NR), NR);
	close(fd);
	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	addr = map_file(fd, NR);
	expect_placed(addr, NR);

	/* The device, too */
	ASSERT_EQ(0, file_write(PCI_DRIVER "/unbind", cdm_device(0)->name));
	expect_gone(addr);
	expect_not_mapped(ENXIO, fd);
	ASSERT_EQ(0, file_write(PCI_DRIVER "/bind", cdm_device(0)->name));
	ASSERT_EQ(0, find_device());
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	/* It is another one, and the old file is not its */
	expect_not_mapped(ENXIO, fd);
	close(fd);
	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	unmap_pages(addr, NR);
	expect_placed(map_file(fd, NR), NR);
	close(fd);

	/* Nobody has it open: the driver may go altogether */
	ASSERT_EQ(0, dax_leave_driver());
	EXPECT_EQ(-ENXIO, open_file(O_RDWR));
}

/* A number that has become another device's is none of the file's */
TEST_F_TIMEOUT(dax, file_other, CDM_TIMEOUT)
{
	char first[sizeof(dax_name)];
	int fd, fd_second;

	ASSERT_EQ(0, resize(2 * BLOCK));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	expect_placed(map_file(fd, NR), NR);
	ASSERT_EQ(0, dax_write("state", "unplugged"));

	/* The next device of the region, with the same target node */
	ASSERT_EQ(0, dax_write("../dax_region/create", "1"));
	strcpy(first, dax_name);
	strcpy(strchr(dax_name, '.'), ".1");
	snprintf(self->text, sizeof(self->text), "%lu", 2 * BLOCK);
	ASSERT_EQ(0, dax_write("size", self->text));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate"));
	ASSERT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	fd_second = open_file(O_RDWR);
	ASSERT_LE(0, fd_second);
	expect_placed(map_file(fd_second, NR), NR);
	expect_not_mapped(ENXIO, fd);
	close(fd_second);

	/* Nor when the driver has left the first one */
	ASSERT_EQ(0, dax_write("state", "unplugged"));
	strcpy(strchr(dax_name, '.'), ".0");
	ASSERT_EQ(0, dax_write("state", "online"));
	expect_placed(map_file(fd, NR), NR);
	ASSERT_EQ(0, dax_leave_driver());
	strcpy(strchr(dax_name, '.'), ".1");
	ASSERT_EQ(0, dax_write("state", "online"));
	ASSERT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	expect_not_mapped(ENXIO, fd);

	/* As it was: one device */
	ASSERT_EQ(0, resize(0));
	dax_forget_name();
	ASSERT_EQ(0, dax_write("../dax_region/delete", dax_name));
	strcpy(dax_name, first);
}

/* What is left behind by the driver is not for those who have the file */
TEST_F_TIMEOUT(dax, file_orphan, CDM_TIMEOUT)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	int fd, pipes[2];

	ASSERT_EQ(0, dax_online("gup,migrate"));
	fd = open_file(O_RDWR);
	ASSERT_LE(0, fd);
	iov.iov_base = map_file(fd, NR);
	expect_placed(iov.iov_base, NR);
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "2000"));

	/* It stays, and so does the file */
	EXPECT_EQ(-EBUSY, dax_write("state", "unplugged"));
	expect_placed(map_file(fd, NR), NR);
	EXPECT_EQ(0, dax_leave_driver());
	ASSERT_EQ(self->nid, cdm_node());
	expect_not_mapped(ENXIO, fd);
	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_STREQ("online", dax_read("state"));
	expect_placed(map_file(fd, NR), NR);

	close(pipes[0]);
	close(pipes[1]);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "60000"));
	EXPECT_EQ(0, dax_write("state", "unplugged"));
}

struct file_task {
	uid_t uid;
	bool in_cpuset;
	int nid;
	size_t nr;
};

/* 0 if somebody gets pages of the node by the file, or errno */
static int use_file(void *arg)
{
	const struct file_task *t = arg;
	char *addr;
	int fd;

	if (t->in_cpuset && file_write(CPUSET "/cgroup.procs", "0"))
		return 100;
	if (t->uid && (setgroups(0, NULL) || setgid(t->uid) || setuid(t->uid)))
		return 101;
	fd = open_file(O_RDONLY);
	if (fd < 0)
		return -fd;
	addr = map_file(fd, t->nr);
	if (!addr)
		return errno;
	fill_pages(addr, t->nr, PAGE_SIZE, SEED);
	return pages_on(addr, t->nr, PAGE_SIZE, t->nid) == t->nr ? 0 : 102;
}

/* The permissions of the file are the rule, and what the node says of cpusets */
TEST_F_TIMEOUT(dax, file_access, CDM_TIMEOUT)
{
	struct file_task t = { .nid = self->nid, .nr = NR };
	char path[64], access_file[128], ram[64];

	ASSERT_EQ(0, dax_online("migrate"));
	snprintf(path, sizeof(path), "/dev/%s", dax_name);
	snprintf(access_file, sizeof(access_file), NODE_SYSFS "/node%d/cdm_access",
		 self->nid);
	ASSERT_LT(0, file_read(NODE_SYSFS "/has_memory", ram, sizeof(ram)));
	ram[strcspn(ram, "\n")] = '\0';

	/* It is root's, until he says otherwise */
	EXPECT_EQ(0, reap(spawn(use_file, &t)));
	t.uid = NOBODY;
	EXPECT_EQ(EACCES, reap(spawn(use_file, &t)));
	ASSERT_EQ(0, chmod(path, 0640));
	EXPECT_EQ(EACCES, reap(spawn(use_file, &t)));
	ASSERT_EQ(0, chown(path, 0, NOBODY));
	EXPECT_EQ(0, reap(spawn(use_file, &t)));

	/* A cpuset that does not have the node, and one that has */
	file_write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset");
	ASSERT_EQ(0, mkdir(CPUSET, 0755));
	ASSERT_EQ(0, file_write(CPUSET "/cpuset.mems", ram));
	t.in_cpuset = true;
	EXPECT_EQ(EACCES, reap(spawn(use_file, &t)));
	snprintf(self->text, sizeof(self->text), "%d,%d", ram_node(0), self->nid);
	ASSERT_EQ(0, file_write(CPUSET "/cpuset.mems", self->text));
	EXPECT_EQ(0, reap(spawn(use_file, &t)));

	/* Where it has to be listed, who is in no cpuset has not the node */
	ASSERT_EQ(0, file_write(access_file, "listed"));
	EXPECT_EQ(0, reap(spawn(use_file, &t)));
	t.in_cpuset = false;
	EXPECT_EQ(EACCES, reap(spawn(use_file, &t)));
	t.uid = 0;
	EXPECT_EQ(EACCES, reap(spawn(use_file, &t)));
	ASSERT_EQ(0, file_write(access_file, "all"));
	EXPECT_EQ(0, reap(spawn(use_file, &t)));

	ASSERT_EQ(0, chown(path, 0, 0));
	ASSERT_EQ(0, chmod(path, 0600));
	EXPECT_EQ(0, rmdir(CPUSET));
}

/* There is no other memory for who has mapped the file */
TEST_F_TIMEOUT(dax, file_full, CDM_TIMEOUT)
{
	struct file_task t = { .nid = self->nid };

	ASSERT_EQ(0, resize(BLOCK));
	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("none"));
	t.nr = 5 * BLOCK / 4 / PAGE_SIZE;
	EXPECT_EQ(-SIGBUS, reap(spawn(use_file, &t)));
	expect_logged("no page left on node %d", self->nid);
	/* Control: there is all that there was */
	t.nr = BLOCK / 4 / PAGE_SIZE;
	EXPECT_EQ(0, reap(spawn(use_file, &t)));
}

TEST_HARNESS_MAIN
