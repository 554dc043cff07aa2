// SPDX-License-Identifier: GPL-2.0
/*
 * CXL memory as a node, with the tools that its owner has: cxl and daxctl.
 *
 * To be run with two memory devices of 256 MiB below one window, whose memory the
 * firmware has left alone, and with dax_cdm.auto=migrate,thp and cdm_nodes=1 on
 * the kernel's command line, and with tables (HMAT, CDAT) that say how far it is.
 * Emulated, this memory is slow: few pages are used.
 */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define CXL_SYSFS	"/sys/bus/cxl/devices"
#define CDM_AUTO	"migrate thp"
#define SIZE		(256UL << 20)
#define TIER_UNKNOWN	22	/* of a device whose distance nobody knows */
#define NR		((size_t)128)
#define SEED		0xc81000UL

/* What a command said, and its exit status */
static char said[16384];

static int run(const char *fmt, ...)
{
	char command[512];
	va_list args;
	size_t len;
	int status;
	FILE *f;

	len = snprintf(command, sizeof(command), "exec 2>&1; ");
	va_start(args, fmt);
	vsnprintf(command + len, sizeof(command) - len, fmt, args);
	va_end(args);
	fflush(stdout);
	f = popen(command, "r");
	if (!f)
		return -1;
	len = fread(said, 1, sizeof(said) - 1, f);
	said[len] = '\0';
	status = pclose(f);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	if (status)
		ksft_print_msg("%s: status %d: %s\n", command, status, said);
	return status;
}

/*
 * Make a region, by way of memory devices. Returns its number: the dax device is
 * dax_name then.
 */
static int create_region(int ways, const char *memdevs)
{
	char *pos;
	int id;

	if (run("cxl create-region -m -t ram -d decoder0.0 -w %d %s", ways, memdevs))
		return -1;
	pos = strstr(said, "\"region\":\"region");
	if (!pos || sscanf(pos, "\"region\":\"region%d", &id) != 1)
		return -1;
	snprintf(dax_name, sizeof(dax_name), "dax%d.0", id);
	return wait_for(!access(dax_file("size"), F_OK)) ? id : -1;
}

static int destroy_region(int id)
{
	return run("cxl destroy-region -f region%d", id);
}

/* Is there a line in /proc/iomem with this? */
static bool iomem_has(const char *text)
{
	static char iomem[65536];

	return file_read("/proc/iomem", iomem, sizeof(iomem)) > 0 &&
		strstr(iomem, text);
}

FIXTURE(cxl)
{
	char *before;
	char text[256];
	int log;
	int nid;
};

FIXTURE_SETUP(cxl)
{
	char cmdline[4096];

	ASSERT_LT(0, file_read("/proc/cmdline", cmdline, sizeof(cmdline)));
	ASSERT_NE(NULL, strstr(cmdline, "dax_cdm.auto=migrate,thp"));
	ASSERT_TRUE(wait_for(!access(CXL_SYSFS "/mem0", F_OK) &&
			     !access(CXL_SYSFS "/mem1", F_OK)));
	/* What kmem gets is in a zone of the kernel at once, and cannot leave */
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks", "online"));
	/* The node of the window is the one after the ordinary ones */
	self->nid = 64 - __builtin_clzl(node_list("has_memory"));
	ASSERT_EQ(NODE_BIT(self->nid) | NODE_BIT(self->nid + 1),
		  node_list("possible") & ~node_list("has_memory"));
	self->before = cdm_snapshot();
	self->log = log_open();
	ASSERT_LE(0, self->log);
}

FIXTURE_TEARDOWN_PARENT(cxl)
{
	int id;

	if (!access(DAX_SYSFS "/drivers/cdm", F_OK))
		run("cxl destroy-region -f all");
	/* The next device of that name is another one */
	for (id = 0; id < 2; id++) {
		snprintf(dax_name, sizeof(dax_name), "dax%d.0", id);
		dax_forget_name();
	}
	settings_restore();
}

/* The device is a node that nobody has without naming it; the kernel never had it */
#define expect_isolated(caps, bytes)					\
do {									\
	unsigned long __allocations = node_allocations(self->nid);	\
	char *__anywhere;						\
									\
	EXPECT_STREQ("cdm", dax_driver());				\
	EXPECT_STREQ("online", dax_read("state"));			\
	EXPECT_STREQ(caps, dax_read("cdm_caps"));			\
	EXPECT_EQ(self->nid, file_number(dax_file("cdm_nid")));		\
	EXPECT_EQ(self->nid, file_number(dax_file("target_node")));	\
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory")); \
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(self->nid));	\
	EXPECT_EQ((bytes) / 1024, node_meminfo(self->nid, "MemTotal"));	\
	EXPECT_EQ(0, node_meminfo(self->nid, "Slab"));			\
	EXPECT_EQ(0, node_zoneinfo(self->nid, "Normal", "present"));	\
	EXPECT_FALSE(iomem_has("System RAM (kmem)"));			\
	__anywhere = filled_pages_anywhere(NR, SEED);			\
	ASSERT_NE(NULL, __anywhere);					\
	EXPECT_EQ(0, pages_on(__anywhere, NR, PAGE_SIZE, self->nid));	\
	EXPECT_EQ(__allocations, node_allocations(self->nid));		\
	unmap_pages(__anywhere, NR);					\
} while (0)

/* The pages of a task that were on the node, which has gone */
#define expect_moved(addr)						\
do {									\
	const char *__pages = (addr);					\
									\
	EXPECT_EQ(0, node_list("has_coherent_memory"));			\
	EXPECT_EQ(NR, pages_intact(__pages, NR, PAGE_SIZE, SEED));	\
	EXPECT_EQ(NR, pages_on(__pages, NR, PAGE_SIZE, ram_node(0)) +	\
		      pages_on(__pages, NR, PAGE_SIZE, ram_node(1)));	\
} while (0)

#define expect_nothing_left()						\
do {									\
	char *__after = cdm_snapshot();					\
									\
	EXPECT_TRUE(cdm_same_snapshot(self->before, __after));		\
	free(__after);							\
} while (0)

/*
 * From the boot on: kmem, which is there, does not get the device; the driver has
 * it as soon as it is loaded. The region is destroyed under a task.
 */
TEST_F_TIMEOUT(cxl, from_boot_on, CDM_TIMEOUT)
{
	char *addr;
	int id;

	ASSERT_EQ(0, access(DAX_SYSFS "/drivers/kmem", F_OK));
	ASSERT_NE(0, access("/sys/module/dax_cdm", F_OK));
	id = create_region(1, "mem0");
	ASSERT_LE(0, id);
	EXPECT_STREQ("", dax_driver());
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(self->nid));

	/* modprobe gives it what is on the command line */
	ASSERT_EQ(0, load_module("dax_cdm", ""));
	expect_isolated(CDM_AUTO, SIZE);
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, destroy_region(id));
	expect_moved(addr);
	expect_nothing_left();

	/* The next one is a node by itself, and the same */
	ASSERT_LE(0, create_region(1, "mem0"));
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	expect_isolated(CDM_AUTO, SIZE);
}

/* As whoever gives it to the driver says */
TEST_F_TIMEOUT(cxl, by_name, CDM_TIMEOUT)
{
	char *addr;
	int id;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	ASSERT_EQ(0, setting(DAX_SYSFS "/drivers_autoprobe", "0"));
	id = create_region(1, "mem1");
	ASSERT_LE(0, id);
	EXPECT_STREQ("", dax_driver());
	/* Less of it is faster left */
	ASSERT_EQ(0, dax_write("size", "134217728"));
	ASSERT_EQ(0, dax_give_to("cdm"));
	EXPECT_STREQ("unplugged", dax_read("state"));
	EXPECT_STREQ("", dax_read("cdm_caps"));
	ASSERT_EQ(0, dax_online("none"));
	expect_isolated("none", 128UL << 20);

	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(0, dax_write("state", "unplugged"));
	EXPECT_STREQ("unplugged", dax_read("state"));
	expect_moved(addr);
	EXPECT_EQ(0, dax_leave_driver());
	EXPECT_EQ(0, destroy_region(id));
	expect_nothing_left();
}

/* cxl disable-region does not ask; what it takes away comes back */
TEST_F_TIMEOUT(cxl, disabled, CDM_TIMEOUT)
{
	int id;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	id = create_region(1, "mem0");
	ASSERT_LE(0, id);
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
	/* It asks so for memory that is in use and cannot move */
	EXPECT_EQ(0, run("cxl disable-region region%d", id));
	EXPECT_EQ(0, node_list("has_coherent_memory"));
	EXPECT_NE(0, access(dax_file("size"), F_OK));
	EXPECT_EQ(0, run("cxl enable-region region%d", id));
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	expect_isolated(CDM_AUTO, SIZE);
	EXPECT_EQ(0, destroy_region(id));
	expect_nothing_left();
}

/* What was everybody's is cdm's again, and can go */
#define expect_back(addr, id)						\
do {									\
	ASSERT_EQ(0, dax_give_to("cdm"));				\
	ASSERT_EQ(0, dax_online("migrate"));				\
	expect_isolated("migrate", SIZE);				\
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));		\
	EXPECT_EQ(0, destroy_region(id));				\
	expect_nothing_left();						\
} while (0)

/* By kmem, to whom the administrator may give it, it is for all; and back */
TEST_F_TIMEOUT(cxl, from_kmem, CDM_TIMEOUT)
{
	char *addr;
	int id;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks",
			     "online_movable"));
	id = create_region(1, "mem0");
	ASSERT_LE(0, id);
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	EXPECT_EQ(0, run("daxctl list"));
	EXPECT_NE(NULL, strstr(said, "\"mode\":\"devdax\"")) {
		TH_LOG("%s", said);
	}

	ASSERT_EQ(0, dax_give_to("kmem"));
	EXPECT_EQ(0, node_list("has_coherent_memory"));
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_memory") & NODE_BIT(self->nid));
	EXPECT_TRUE(iomem_has("System RAM (kmem)"));
	EXPECT_EQ(0, run("daxctl list"));
	EXPECT_NE(NULL, strstr(said, "\"mode\":\"system-ram\"")) {
		TH_LOG("%s", said);
	}
	addr = filled_pages_anywhere(NR, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_LT(0, pages_on(addr, NR, PAGE_SIZE, self->nid));

	ASSERT_EQ(0, dax_write("state", "unplugged"));
	expect_back(addr, id);
}

/* daxctl gives it to kmem and takes it back; what it then is for is not its word */
TEST_F_TIMEOUT(cxl, daxctl, CDM_TIMEOUT)
{
	char *addr;
	int id;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	/* It makes sure of that before it gives memory to all */
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks", "offline"));
	id = create_region(1, "mem0");
	ASSERT_LE(0, id);
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);

	ASSERT_EQ(0, run("daxctl reconfigure-device -m system-ram %s", dax_name));
	EXPECT_NE(NULL, strstr(said, "\"mode\":\"system-ram\"")) {
		TH_LOG("%s", said);
	}
	EXPECT_STREQ("kmem", dax_driver());
	expect_moved(addr);
	EXPECT_EQ(NODE_BIT(self->nid), node_list("has_memory") & NODE_BIT(self->nid));
	EXPECT_EQ(SIZE / 1024, node_meminfo(self->nid, "MemTotal"));

	ASSERT_EQ(0, run("daxctl reconfigure-device -m devdax -f %s", dax_name));
	EXPECT_STREQ("device_dax", dax_driver());
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(self->nid));
	expect_back(addr, id);
}

/*
 * How far the memory is the firmware and the devices say, and where that puts it
 * does not depend on the driver
 */
TEST_F_TIMEOUT(cxl, distance, CDM_TIMEOUT)
{
	int id, tier;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks",
			     "online_movable"));
	id = create_region(1, "mem0");
	ASSERT_LE(0, id);
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	/* Nothing is demoted there */
	EXPECT_EQ(-1, tier_of(self->nid));

	ASSERT_EQ(0, dax_give_to("kmem"));
	tier = tier_of(self->nid);
	EXPECT_LT(tier_of(ram_node(0)), tier);
	EXPECT_NE(TIER_UNKNOWN, tier);
	ASSERT_EQ(0, dax_write("state", "unplugged"));

	ASSERT_EQ(0, dax_give_to("cdm"));
	ASSERT_EQ(0, dax_online("migrate,reclaim,demotion"));
	EXPECT_EQ(tier, tier_of(self->nid));
	ASSERT_EQ(0, dax_write("state", "unplugged"));
	EXPECT_EQ(-1, tier_of(self->nid));
	EXPECT_EQ(0, destroy_region(id));
	expect_nothing_left();
}

/* Two devices as one */
TEST_F_TIMEOUT(cxl, interleaved, CDM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	ASSERT_LE(0, create_region(2, "mem0 mem1"));
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	expect_isolated(CDM_AUTO, 2 * SIZE);
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	/* The device has nothing of it then, and leaves soon */
	ASSERT_EQ(0, munmap(addr, NR * PAGE_SIZE));
}

/* Two regions of a window have one target node, and are two nodes */
TEST_F_TIMEOUT(cxl, two_regions, CDM_TIMEOUT)
{
	int first, second;

	ASSERT_EQ(0, load_module("dax_cdm", ""));
	first = create_region(1, "mem0");
	ASSERT_LE(0, first);
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	expect_isolated(CDM_AUTO, SIZE);

	second = create_region(1, "mem1");
	ASSERT_LE(0, second);
	EXPECT_TRUE(wait_for(!strcmp("online", dax_read("state"))));
	EXPECT_EQ(self->nid, file_number(dax_file("target_node")));
	EXPECT_EQ(self->nid + 1, file_number(dax_file("cdm_nid")));
	EXPECT_EQ(NODE_BIT(self->nid) | NODE_BIT(self->nid + 1),
		  node_list("has_coherent_memory"));
	expect_logged("%s: node %d ", dax_name, self->nid);

	EXPECT_EQ(0, destroy_region(first));
	EXPECT_EQ(NODE_BIT(self->nid + 1), node_list("has_coherent_memory"));
	EXPECT_EQ(0, destroy_region(second));
	expect_nothing_left();
}

TEST_HARNESS_MAIN
