// SPDX-License-Identifier: GPL-2.0
/*
 * Registration and its errors, by the C interface: what must be refused is
 * refused with its errno and leaves nothing behind, and the next good one
 * works. test_modules/cdm_test.c makes the calls.
 *
 * This needs two memory devices and two node ids for them, and no driver on
 * the first one.
 */
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define CALLS		"/sys/kernel/debug/cdm_test"
#define CPU_SYSFS	"/sys/devices/system/cpu"
#define BLOCK		(128ULL << 20)
#define NR		((size_t)64)

/* include/linux/cdm.h */
#define ALLOW_NUMA		0x0001
#define ALLOW_KSM		0x0002
#define ALLOW_MIGRATE		0x0008
#define ALLOW_GUP		0x0010
#define ALLOW_LONGTERM_PIN	0x0020
#define ALLOW_PAGECACHE		0x0080
#define ALLOW_RECLAIM		0x0100
#define ALLOW_SWAP		0x0200
#define ALLOW_DEMOTION		0x0400
#define ALLOW_COMPACTION	0x0800
#define ALLOW_ALL		0x7fff
#define COHERENT		0x0001
#define P2PDMA			0x0002
#define SCRUBS			0x0004

struct config {
	unsigned long start;
	unsigned long size;
	int nid;
	unsigned int allow;
	unsigned int flags;
};

static int do_register(const struct config *c)
{
	char args[128];

	snprintf(args, sizeof(args), "%#lx %#lx %d %#x %#x",
		 c->start, c->size, c->nid, c->allow, c->flags);
	return file_write(CALLS "/register", args);
}

static int do_unregister(int nid)
{
	char args[16];

	snprintf(args, sizeof(args), "%d", nid);
	return file_write(CALLS "/unregister", args);
}

FIXTURE(registration)
{
	struct config good;
	int nid;
	char *before;
	char text[256];
};

/* After one registration, since a node that was online before may be gone then */
FIXTURE_SETUP(registration)
{
	const struct device *dev = cdm_device(0);

	ASSERT_NE(NULL, dev);
	/* One block for the test, one beside it */
	ASSERT_LE(2 * BLOCK, dev->size);
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(0, load_module("cdm_test", ""));

	self->good = (struct config) {
		.start = dev->start,
		.size = BLOCK,
		.nid = -1,
		.allow = ALLOW_MIGRATE,
		.flags = COHERENT,
	};
	ASSERT_EQ(0, do_register(&self->good));
	self->nid = cdm_node();
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, do_unregister(self->nid));
	ASSERT_EQ(-1, cdm_node());
	self->before = cdm_snapshot();
	ASSERT_NE(NULL, self->before);
}

FIXTURE_TEARDOWN_PARENT(registration)
{
	int nid = cdm_node();

	if (nid >= 0)
		do_unregister(nid);
	settings_restore();
	EXPECT_EQ(0, unload_module("cdm_test"));
}

/* Nothing is left, and nothing is in the way of the next one */
#define expect_nothing_left()						\
do {									\
	char *after = cdm_snapshot();					\
									\
	EXPECT_TRUE(cdm_same_snapshot(self->before, after));		\
	free(after);							\
} while (0)

#define expect_refused(error, name, ...)				\
do {									\
	struct config bad = self->good;					\
	int ret;							\
									\
	__VA_ARGS__;							\
	ret = do_register(&bad);					\
	EXPECT_EQ((error), ret) {					\
		TH_LOG("%s: %s", name, strerror(-ret));			\
		if (!ret)						\
			do_unregister(cdm_node());			\
	}								\
	expect_nothing_left();						\
} while (0)

#define expect_good()							\
do {									\
	EXPECT_EQ(0, do_register(&self->good));				\
	EXPECT_EQ(self->nid, cdm_node());				\
	EXPECT_EQ(0, do_unregister(self->nid));				\
	expect_nothing_left();						\
} while (0)

/* Positive control: its pages are there to be had, and it goes again */
TEST_F_TIMEOUT(registration, good, CDM_TIMEOUT)
{
	static const unsigned int allow[] = { 0, ALLOW_MIGRATE, ALLOW_ALL };
	char *addr, *while_up;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(allow); i++) {
		self->good.allow = allow[i];
		self->good.flags = COHERENT | P2PDMA | (i ? SCRUBS : 0);
		self->good.nid = i ? self->nid : -1;
		ASSERT_EQ(0, do_register(&self->good));
		ASSERT_EQ(self->nid, cdm_node());
		EXPECT_EQ(NODE_BIT(self->nid), node_list("has_coherent_memory"));
		while_up = cdm_snapshot();
		EXPECT_STRNE(self->before, while_up);
		free(while_up);

		addr = map_pages_on(NR, self->nid);
		ASSERT_NE(NULL, addr);
		fill_pages(addr, NR, PAGE_SIZE, i);
		EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
		unmap_pages(addr, NR);

		EXPECT_EQ(0, do_unregister(self->nid));
		expect_nothing_left();
	}
}

/* Whatever the admin has new memory become, a device's is movable. */
TEST_F_TIMEOUT(registration, online_policies, CDM_TIMEOUT)
{
	static const char * const policies[] = {
		"offline", "online", "online_kernel", "online_movable",
	};
	const struct device *dev = cdm_device(0);
	unsigned long long size;
	char path[128], text[64];
	size_t i;

	ASSERT_LT(0, file_read(MEMORY_SYSFS "/block_size_bytes", text, sizeof(text)));
	size = strtoull(text, NULL, 16);
	for (i = 0; i < ARRAY_SIZE(policies); i++) {
		ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks", policies[i]));
		EXPECT_EQ(0, do_register(&self->good)) {
			TH_LOG("with the policy %s", policies[i]);
		}
		ASSERT_LE(0, cdm_node());
		snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%llu/valid_zones",
			 (unsigned long long)(dev->start / size));
		ASSERT_LT(0, file_read(path, text, sizeof(text)));
		EXPECT_STREQ("Movable", strtok(text, "\n"));
		EXPECT_EQ(0, do_unregister(cdm_node()));
	}
}

TEST_F_TIMEOUT(registration, bad_range, CDM_TIMEOUT)
{
	expect_refused(-EINVAL, "start between blocks",
		       bad.start += BLOCK / 2);
	expect_refused(-EINVAL, "start between pages", bad.start += 2048);
	expect_refused(-EINVAL, "half a block", bad.size = BLOCK / 2);
	expect_refused(-EINVAL, "a block and a page", bad.size = BLOCK + 4096);
	expect_refused(-EINVAL, "nothing", bad.size = 0);
	expect_refused(-E2BIG, "beyond what can be mapped",
		       bad.start = 1ULL << 56);
	expect_refused(-E2BIG, "reaching beyond what can be mapped",
		       bad.size = 1ULL << 56);
	expect_refused(-E2BIG, "around the end", bad.size = 0 - BLOCK);
	expect_refused(-EBUSY, "memory of the machine", bad.start = BLOCK);
	expect_good();
}

TEST_F_TIMEOUT(registration, bad_mask, CDM_TIMEOUT)
{
	static const struct {
		unsigned int allow;
		const char *name;	/* of a rule, as the log says it */
	} rules[] = {
		{ ALLOW_LONGTERM_PIN, "longterm_pin needs gup" },
		{ ALLOW_NUMA, "numa_balancing needs migrate" },
		{ ALLOW_COMPACTION, "compaction needs migrate" },
		{ ALLOW_PAGECACHE, "pagecache needs migrate" },
		{ ALLOW_DEMOTION | ALLOW_RECLAIM, "demotion needs migrate" },
		{ ALLOW_DEMOTION | ALLOW_MIGRATE, "demotion needs reclaim" },
		{ ALLOW_SWAP, "swap needs reclaim" },
	}, dma[] = {
		{ ALLOW_GUP, "gup without DMA" },
		{ ALLOW_GUP | ALLOW_LONGTERM_PIN, "longterm_pin without DMA" },
		{ ALLOW_SWAP | ALLOW_RECLAIM, "swap without DMA" },
		{ ALLOW_PAGECACHE | ALLOW_MIGRATE, "pagecache without DMA" },
	};
	int bit, log;
	size_t i;

	for (bit = 15; bit < 32; bit += 4)
		expect_refused(-EINVAL, "unknown capability",
			       bad.allow = 1U << bit);
	for (i = 0; i < ARRAY_SIZE(rules); i++) {
		log = log_open();
		ASSERT_LE(0, log);
		expect_refused(-EINVAL, rules[i].name,
			       bad.allow = rules[i].allow,
			       bad.flags = COHERENT | P2PDMA);
		EXPECT_TRUE(log_has(log, rules[i].name)) {
			TH_LOG("the log does not say \"%s\"", rules[i].name);
		}
		close(log);
	}
	/* The same mask is good with the word that DMA reaches the memory */
	for (i = 0; i < ARRAY_SIZE(dma); i++)
		expect_refused(-EINVAL, dma[i].name, bad.allow = dma[i].allow);
	expect_refused(-EINVAL, "not coherent", bad.flags = 0);
	expect_refused(-EINVAL, "unknown flag", bad.flags = COHERENT | 1U << 5);
	expect_refused(-EINVAL, "unknown flag",
		       bad.flags = COHERENT | 1U << 31);

	expect_good();
	for (i = 0; i < ARRAY_SIZE(dma); i++) {
		struct config good = self->good;

		good.allow = dma[i].allow;
		good.flags = COHERENT | P2PDMA;
		EXPECT_EQ(0, do_register(&good));
		EXPECT_EQ(0, do_unregister(cdm_node()));
	}
	expect_nothing_left();
}

TEST_F_TIMEOUT(registration, bad_node, CDM_TIMEOUT)
{
	expect_refused(-EINVAL, "node with CPUs", bad.nid = ram_node(0));
	expect_refused(-EINVAL, "node with CPUs", bad.nid = ram_node(1));
	expect_refused(-EINVAL, "below -1", bad.nid = -2);
	expect_refused(-EINVAL, "no such node", bad.nid = 1 << 20);
	ASSERT_EQ(0, node_list("possible") & NODE_BIT(63));
	expect_refused(-EINVAL, "impossible node", bad.nid = 63);
	expect_good();
}

/* A node id that firmware has for a device, beside the first one */
static int spare_node(int except)
{
	unsigned long nodes = node_list("has_generic_initiator") &
			      ~node_list("has_coherent_memory") &
			      ~node_list("has_memory");
	int nid;

	for (nid = 0; nid < 64; nid++)
		if (nodes & NODE_BIT(nid) && nid != except)
			return nid;
	return -1;
}

/* A node with memory and no CPU: dax/kmem makes one of the second device */
TEST_F_TIMEOUT(registration, node_with_memory, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	int nid = spare_node(self->nid);
	char path[128], param[32];
	glob_t kmem;

	ASSERT_NE(NULL, cdm_device(1));
	ASSERT_LE(0, nid);
	snprintf(param, sizeof(param), "nid=%d", nid);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override",
		 dev->name);
	ASSERT_EQ(0, setting(MEMORY_SYSFS "/auto_online_blocks",
			     "online_movable"));
	/* Only the second device is for it */
	ASSERT_EQ(0, file_write(path, "cdm_ivshmem"));
	EXPECT_EQ(0, load_module("dax_ivshmem", param));
	EXPECT_EQ(0, file_write(path, "\n"));
	ASSERT_TRUE(wait_for(node_list("has_memory") & NODE_BIT(nid)));
	free(self->before);
	self->before = cdm_snapshot();

	expect_refused(-EBUSY, "node with memory", bad.nid = nid);
	expect_good();

	ASSERT_EQ(0, glob("/sys/bus/dax/devices/*/state", 0, NULL, &kmem));
	EXPECT_EQ(1, kmem.gl_pathc);
	EXPECT_EQ(0, file_write(kmem.gl_pathv[0], "unplugged"));
	globfree(&kmem);
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(nid));
	EXPECT_EQ(0, unload_module("dax_ivshmem"));
}

/* While one is registered: what is its own is not given to another */
TEST_F_TIMEOUT(registration, twice, CDM_TIMEOUT)
{
	const struct device *other = cdm_device(1);
	struct config bad;
	char *up, *after;
	char args[128];
	int nid = spare_node(self->nid);

	ASSERT_NE(NULL, other);
	/* A node id that would do, to be refused for the range alone */
	ASSERT_LE(0, nid);

	self->good.size = 2 * BLOCK;
	ASSERT_EQ(0, do_register(&self->good));
	ASSERT_EQ(self->nid, cdm_node());
	up = cdm_snapshot();

	EXPECT_EQ(-EBUSY, do_register(&self->good));
	bad = self->good;
	bad.nid = self->nid;
	EXPECT_EQ(-EBUSY, do_register(&bad));
	/* The node, with memory that nobody has */
	bad.start = other->start;
	bad.size = BLOCK;
	EXPECT_EQ(-EBUSY, do_register(&bad));
	/* Another node, with memory that somebody has */
	bad = self->good;
	bad.nid = nid;
	EXPECT_EQ(-EBUSY, do_register(&bad));
	bad.size = BLOCK;
	EXPECT_EQ(-EBUSY, do_register(&bad));
	bad.start += BLOCK;
	EXPECT_EQ(-EBUSY, do_register(&bad));
	/* What another driver may not add to it */
	snprintf(args, sizeof(args), "%d %#lx %#llx", self->nid,
		 other->start, BLOCK);
	EXPECT_EQ(-EBUSY, file_write(CALLS "/add_memory", args));

	after = cdm_snapshot();
	EXPECT_TRUE(cdm_same_snapshot(up, after));
	free(after);
	free(up);

	EXPECT_EQ(0, do_unregister(self->nid));
	expect_nothing_left();
	EXPECT_EQ(-ENODEV, do_unregister(self->nid));
	EXPECT_EQ(-ENODEV, do_unregister(ram_node(0)));
	EXPECT_EQ(-ENODEV, do_unregister(-1));
	EXPECT_EQ(-ENODEV, do_unregister(1 << 20));
	expect_nothing_left();
}

/* A CPU there would have the device for its local memory. */
TEST_F_TIMEOUT(registration, cpu_plugged_in, CDM_TIMEOUT)
{
	unsigned long cpus;
	char there[32], back[32], path[64];
	int cpu, home = ram_node(1);

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cpulist", home);
	ASSERT_LT(0, file_read(path, self->text, sizeof(self->text)));
	cpus = parse_list(self->text);
	ASSERT_NE(0, cpus);
	for (cpu = 63; !(cpus & 1UL << cpu); cpu--)
		;
	snprintf(there, sizeof(there), "%d %d", cpu, self->nid);
	snprintf(back, sizeof(back), "%d %d", cpu, home);
	snprintf(path, sizeof(path), CPU_SYSFS "/cpu%d/online", cpu);

	ASSERT_EQ(0, do_register(&self->good));
	ASSERT_EQ(0, file_write(path, "0"));
	ASSERT_EQ(0, file_write(CALLS "/cpu_node", there));
	EXPECT_EQ(-EBUSY, file_write(path, "1"));
	EXPECT_EQ(0, file_number(path));
	/* Control: elsewhere it may, and there, when the device has gone */
	EXPECT_EQ(0, file_write(CALLS "/cpu_node", back));
	EXPECT_EQ(0, file_write(path, "1"));
	EXPECT_EQ(0, file_write(path, "0"));
	EXPECT_EQ(0, file_write(CALLS "/cpu_node", there));
	EXPECT_EQ(0, do_unregister(self->nid));
	EXPECT_EQ(0, file_write(path, "1"));
	EXPECT_EQ(0, file_write(path, "0"));
	EXPECT_EQ(0, file_write(CALLS "/cpu_node", back));
	EXPECT_EQ(0, file_write(path, "1"));
}

static int read_access(int nid, char *text, size_t size)
{
	char path[128];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_access", nid);
	return file_read(path, text, size);
}

/* Who may name a device's node is decided before the first one could */
TEST_F_TIMEOUT(registration, default_access, CDM_TIMEOUT)
{
	char path[128];

	ASSERT_LT(0, file_read(CDM_SYSFS "/default_access", self->text,
			       sizeof(self->text)));
	EXPECT_STREQ("all", self->text);
	EXPECT_EQ(-EINVAL, file_write(CDM_SYSFS "/default_access", "some"));
	ASSERT_EQ(0, setting(CDM_SYSFS "/default_access", "listed"));

	/* One of which nobody has said anything yet */
	self->good.start += BLOCK;
	self->good.nid = self->nid;
	ASSERT_EQ(0, do_register(&self->good));
	ASSERT_LT(0, read_access(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("listed", self->text);
	EXPECT_EQ(NULL, map_pages_on(NR, self->nid));
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_access", self->nid);
	ASSERT_EQ(0, file_write(path, "all"));
	EXPECT_NE(NULL, map_pages_on(NR, self->nid));
	EXPECT_EQ(0, do_unregister(self->nid));

	/* What was said of it counts, and not for another one with its number */
	ASSERT_EQ(0, do_register(&self->good));
	ASSERT_LT(0, read_access(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("all", self->text);
	EXPECT_EQ(0, do_unregister(self->nid));
	self->good.start -= BLOCK;
	ASSERT_EQ(0, do_register(&self->good));
	ASSERT_LT(0, read_access(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("listed", self->text);
	EXPECT_EQ(0, do_unregister(self->nid));

	ASSERT_EQ(0, setting(CDM_SYSFS "/default_access", "all"));
	ASSERT_EQ(0, do_register(&self->good));
	ASSERT_LT(0, read_access(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("all", self->text);
	EXPECT_EQ(0, do_unregister(self->nid));
}

/* Whose module has a node stays */
TEST_F_TIMEOUT(registration, module_stays, CDM_TIMEOUT)
{
	ASSERT_EQ(0, do_register(&self->good));
	EXPECT_EQ(-EAGAIN, unload_module("cdm_test"));
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_EQ(0, do_unregister(self->nid));
	/* The fixture unloads it */
}

TEST_HARNESS_MAIN
