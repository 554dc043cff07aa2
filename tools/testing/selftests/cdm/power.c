// SPDX-License-Identifier: GPL-2.0
/*
 * A machine does not sleep while there is something on a node: the device may
 * forget it. A node where nobody has pages is no reason to stay awake.
 *
 * What is tried is all of a sleep up to the frozen tasks, which is as far as
 * an error of a device has not been met (pm_test). For a hibernation the memory
 * for the image has been found by then.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)64)
#define SEED		0x51ee9000UL
#define POWER		"/sys/power"

FIXTURE(power)
{
	int nid;
};

FIXTURE_VARIANT(power)
{
	const char *state;
};

FIXTURE_VARIANT_ADD(power, suspend)
{
	.state = "freeze",
};

FIXTURE_VARIANT_ADD(power, hibernation)
{
	.state = "disk",
};

FIXTURE_SETUP(power)
{
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting("/sys/module/suspend/parameters/pm_test_delay", "0"));
	ASSERT_EQ(0, setting(POWER "/pm_test", "freezer"));
}

FIXTURE_TEARDOWN_PARENT(power)
{
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

static int try_sleep(const char *state)
{
	return file_write(POWER "/state", state);
}

/* What is on the node keeps the machine awake, one line says so, and nothing is lost */
TEST_F_TIMEOUT(power, in_use, CDM_TIMEOUT)
{
	char words[80];
	char *addr;
	int log;

	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	log = log_open();
	ASSERT_LE(0, log);

	EXPECT_EQ(-EBUSY, try_sleep(variant->state));
	snprintf(words, sizeof(words),
		 "node%d: the machine cannot sleep: %zu pages in use: %zu anonymous",
		 self->nid, NR, NR);
	EXPECT_TRUE(log_has(log, words));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));

	/* They are the reason, and the only one */
	EXPECT_EQ(0, move_to(addr, NR, PAGE_SIZE, ram_node(0), NULL));
	EXPECT_EQ(0, try_sleep(variant->state));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	close(log);
}

/* An empty node is as it was when the machine wakes up */
TEST_F_TIMEOUT(power, empty, CDM_TIMEOUT)
{
	char *addr;

	EXPECT_EQ(0, try_sleep(variant->state));
	EXPECT_EQ(self->nid, cdm_node());
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	unmap_pages(addr, NR);
}

/* The same machine without a node, whatever its tasks have */
TEST_F_TIMEOUT(power, no_node, CDM_TIMEOUT)
{
	char *addr = filled_pages_on(NR, ram_node(0), SEED);

	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, try_sleep(variant->state));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
}

static bool is_awake(const struct device *dev)
{
	char path[PATH_MAX], status[32];

	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%s/power/runtime_status", dev->name);
	return file_read(path, status, sizeof(status)) < 0 ||
	       strcmp(status, "suspended");
}

FIXTURE(runtime)
{
	int nid;
};

FIXTURE_SETUP(runtime)
{
	self->nid = cdm_node_up("gup");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "1000"));
}

FIXTURE_TEARDOWN_PARENT(runtime)
{
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

/* A device whose driver has gone may sleep, but not while its memory is used */
TEST_F_TIMEOUT(runtime, orphan, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	char path[PATH_MAX], state[32];
	struct iovec iov;
	int pipes[2];

	iov.iov_base = filled_pages_on(1, self->nid, SEED);
	iov.iov_len = PAGE_SIZE;
	ASSERT_NE(NULL, iov.iov_base);
	/* A pipe holds the page */
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_LT(0, cdm_state(self->nid, state, sizeof(state)));
	EXPECT_STREQ("orphaned", state);

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/power/control",
		 dev->name);
	ASSERT_EQ(0, setting(path, "auto"));
	sleep(2);
	EXPECT_TRUE(is_awake(dev));
	EXPECT_TRUE(page_is(iov.iov_base, SEED));

	close(pipes[0]);
	close(pipes[1]);
	EXPECT_EQ(0, cdm_unplug(self->nid));
	EXPECT_TRUE(wait_for(!is_awake(dev)));
	EXPECT_TRUE(page_is(iov.iov_base, SEED));
}

TEST_HARNESS_MAIN
