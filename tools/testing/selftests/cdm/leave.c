// SPDX-License-Identifier: GPL-2.0
/*
 * Leaving is a request with an answer: 0, and what was on the node is in
 * ordinary memory; or -EBUSY within a bound, and the node is live. A driver
 * that goes all the same leaves an orphan, which can be asked again or adopted.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)512)
#define SEED		0x1eaf0000UL
/* Ten times what a request may take, and that for an emulated machine */
#define BOUND		50

/* Milliseconds in which an emulated machine empties a node, with others beside it */
#define PLENTY		"60000"

FIXTURE(leave)
{
	int nid;
	int pipes[2];
	char text[256];
	char path[PATH_MAX];
};

FIXTURE_VARIANT(leave)
{
	const char *caps;
};

/* Leaving is no migration that a driver could deny */
FIXTURE_VARIANT_ADD(leave, denied)
{
	.caps = "none",
};

FIXTURE_VARIANT_ADD(leave, allowed)
{
	.caps = "migrate,gup",
};

FIXTURE_SETUP(leave)
{
	self->pipes[0] = -1;
	self->pipes[1] = -1;
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", PLENTY));
}

FIXTURE_TEARDOWN_PARENT(leave)
{
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

static char *pages_in_use(int nid)
{
	char *addr = map_pages_on(NR, nid);

	if (!addr)
		return NULL;
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	if (pages_on(addr, NR, PAGE_SIZE, nid) != NR)
		return NULL;
	return addr;
}

#define expect_gone()							\
do {									\
	EXPECT_EQ(-1, cdm_node());					\
	EXPECT_EQ(0, node_list("has_coherent_memory") &			\
		     NODE_BIT(self->nid));				\
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));		\
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));		\
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, ram_node(0)) +	\
		      pages_on(addr, NR, PAGE_SIZE, ram_node(1)));	\
} while (0)

/* The driver is unbound; what was there is in RAM */
TEST_F_TIMEOUT(leave, unbind, CDM_TIMEOUT)
{
	char *addr = pages_in_use(self->nid);

	ASSERT_NE(NULL, addr);
	EXPECT_EQ(0, cdm_unbind());
	expect_gone();
}

/* The administrator asks; the driver keeps the device and can be unbound */
TEST_F_TIMEOUT(leave, unplug, CDM_TIMEOUT)
{
	char *addr = pages_in_use(self->nid);

	ASSERT_NE(NULL, addr);
	EXPECT_EQ(0, cdm_unplug(self->nid));
	expect_gone();
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(self->nid, cdm_node_up(variant->caps));
	unmap_pages(addr, NR);
	EXPECT_NE(NULL, pages_in_use(self->nid));
}

/* The blocks of the node are for movable memory, whatever root writes */
TEST_F_TIMEOUT(leave, online_kernel_refused, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	char block[64];
	unsigned long long size;

	ASSERT_LT(0, file_read(MEMORY_SYSFS "/block_size_bytes", self->text,
			       sizeof(self->text)));
	size = strtoull(self->text, NULL, 16);
	/* More than one, or the node would go with it */
	ASSERT_LE(2 * size, dev->size);
	snprintf(block, sizeof(block), MEMORY_SYSFS "/memory%llu",
		 (unsigned long long)(dev->start / size + 1));
	snprintf(self->path, sizeof(self->path), "%s/state", block);
	ASSERT_EQ(0, file_write(self->path, "offline"));
	EXPECT_EQ(-EINVAL, file_write(self->path, "online_kernel"));
	ASSERT_LT(0, file_read(self->path, self->text, sizeof(self->text)));
	EXPECT_STREQ("offline", self->text);
	/* Control: the default is a good choice, and that is the movable zone */
	EXPECT_EQ(0, file_write(self->path, "online"));
	ASSERT_LT(0, file_read(self->path, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	snprintf(self->path, sizeof(self->path), "%s/valid_zones", block);
	ASSERT_LT(0, file_read(self->path, self->text, sizeof(self->text)));
	EXPECT_STREQ("Movable", self->text);
}

/* While there is a node, the code that its driver is made of stays */
TEST_F_TIMEOUT(leave, module_stays, CDM_TIMEOUT)
{
	EXPECT_GT(0, unload_module("cdm_ivshmem"));
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_NE(NULL, pages_in_use(self->nid));
}

FIXTURE(pinned)
{
	int nid;
	int pipes[2];
	char text[256];
	char *addr;
};

FIXTURE_SETUP(pinned)
{
	struct iovec iov;

	self->pipes[0] = -1;
	self->pipes[1] = -1;
	self->nid = cdm_node_up("gup,migrate");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "2000"));

	self->addr = pages_in_use(self->nid);
	ASSERT_NE(NULL, self->addr);
	/* A pipe holds references to 4 pages until somebody reads it. */
	ASSERT_EQ(0, pipe(self->pipes));
	iov.iov_base = self->addr;
	iov.iov_len = 4 * PAGE_SIZE;
	ASSERT_EQ(4 * PAGE_SIZE, vmsplice(self->pipes[1], &iov, 1, 0));
}

FIXTURE_TEARDOWN_PARENT(pinned)
{
	/* The pipe has ended with the test. */
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Nobody holds anything: now it may take as long as it takes here. */
#define unpin()								\
do {									\
	close(self->pipes[0]);						\
	close(self->pipes[1]);						\
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", PLENTY));	\
} while (0)

/* What is held by somebody cannot move: -EBUSY, in time, and nothing has changed */
TEST_F_TIMEOUT(pinned, busy_then_gone, CDM_TIMEOUT)
{
	time_t start = now();
	int i, log = log_open();
	char *more;

	ASSERT_LE(0, log);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(-EBUSY, cdm_unplug(self->nid));
	EXPECT_GE(3 * BOUND, now() - start);
	/* Who looks into the log learns that pages are held, and of what kind */
	snprintf(self->text, sizeof(self->text), "node%d: cannot leave (", self->nid);
	EXPECT_TRUE(log_has(log, self->text));
	close(log);

	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_EQ(self->nid, cdm_node());
	EXPECT_EQ(NODE_BIT(self->nid),
		  node_list("has_coherent_memory") & NODE_BIT(self->nid));
	EXPECT_LE(4, pages_on(self->addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->addr, NR, PAGE_SIZE, SEED));
	/* It can be named, and has pages */
	more = pages_in_use(self->nid);
	EXPECT_NE(NULL, more);

	/* Control: with the pipe closed it goes */
	unpin();
	EXPECT_EQ(0, cdm_unplug(self->nid));
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(NR, pages_intact(self->addr, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_intact(more, NR, PAGE_SIZE, SEED));
}

/* A driver that is unbound has no choice: the node is the core's */
TEST_F_TIMEOUT(pinned, orphan_is_unplugged, CDM_TIMEOUT)
{
	time_t start = now();

	EXPECT_EQ(0, cdm_unbind());
	EXPECT_GE(BOUND, now() - start);
	ASSERT_EQ(self->nid, cdm_node());
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("orphaned", self->text);
	EXPECT_EQ(NR, pages_intact(self->addr, NR, PAGE_SIZE, SEED));
	EXPECT_GT(0, unload_module("cdm_ivshmem"));
	EXPECT_EQ(-EBUSY, cdm_unplug(self->nid));

	unpin();
	EXPECT_EQ(0, cdm_unplug(self->nid));
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(NR, pages_intact(self->addr, NR, PAGE_SIZE, SEED));
}

/* Its driver comes back with the same mask, or else it does not get it */
TEST_F_TIMEOUT(pinned, orphan_is_adopted, CDM_TIMEOUT)
{
	EXPECT_EQ(0, cdm_unbind());
	ASSERT_EQ(self->nid, cdm_node());
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	ASSERT_STREQ("orphaned", self->text);

	EXPECT_EQ(-EBUSY, cdm_bind("gup,migrate,ksm"));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("orphaned", self->text);

	EXPECT_EQ(0, cdm_bind("gup,migrate"));
	EXPECT_EQ(self->nid, cdm_node());
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_EQ(NR, pages_intact(self->addr, NR, PAGE_SIZE, SEED));
	EXPECT_NE(NULL, pages_in_use(self->nid));

	unpin();
	EXPECT_EQ(0, cdm_node_down());
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(NR, pages_intact(self->addr, NR, PAGE_SIZE, SEED));
}

TEST_HARNESS_MAIN
