// SPDX-License-Identifier: GPL-2.0
/*
 * A failure at any step of registering leaves nothing behind; one while leaving
 * leaves the node as it was. /proc/self/fail-nth makes the n-th allocation of
 * the call fail, n from 1 until no allocation is left to fail; the memory
 * notifier's error injection makes others veto.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define CALLS		"/sys/kernel/debug/cdm_test"
#define FAULTS		"/sys/kernel/debug"
#define VETO		"/sys/kernel/debug/notifier-error-inject/memory/actions"
#define FAIL_NTH	"/proc/self/fail-nth"
#define BLOCK		(128ULL << 20)
#define NR		((size_t)64)

FIXTURE(fault)
{
	int nid;
	char *before;
	char args[128];
};

static int call(const char *name, const char *args)
{
	char path[64];

	snprintf(path, sizeof(path), CALLS "/%s", name);
	return file_write(path, args);
}

static int call_unregister(int nid)
{
	char args[16];

	snprintf(args, sizeof(args), "%d", nid);
	return call("unregister", args);
}

FIXTURE_SETUP(fault)
{
	static const char * const injector[][2] = {
		{ FAULTS "/failslab/ignore-gfp-wait", "N" },
		{ FAULTS "/failslab/verbose", "0" },
		{ FAULTS "/fail_page_alloc/ignore-gfp-wait", "N" },
		{ FAULTS "/fail_page_alloc/ignore-gfp-highmem", "N" },
		{ FAULTS "/fail_page_alloc/min-order", "0" },
		{ FAULTS "/fail_page_alloc/verbose", "0" },
	};
	size_t i;

	/* Two blocks: one may be there when the other fails */
	ASSERT_LE(2 * BLOCK, cdm_device(0)->size);
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(0, load_module("cdm_test", ""));
	for (i = 0; i < ARRAY_SIZE(injector); i++)
		ASSERT_EQ(0, setting(injector[i][0], injector[i][1]));
	/* Any node id; migrate; coherent, and not to be erased, to save time */
	snprintf(self->args, sizeof(self->args), "%#lx %#llx -1 0x8 0x5",
		 cdm_device(0)->start, 2 * BLOCK);
	ASSERT_EQ(0, call("register", self->args));
	self->nid = cdm_node();
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, call_unregister(self->nid));
	self->before = cdm_snapshot();
	ASSERT_NE(NULL, self->before);
}

FIXTURE_TEARDOWN_PARENT(fault)
{
	file_write(FAIL_NTH, "0");
	file_write(VETO "/MEM_GOING_ONLINE/error", "0");
	file_write(VETO "/MEM_GOING_OFFLINE/error", "0");
	settings_restore();
	if (cdm_node() >= 0)
		call_unregister(cdm_node());
	EXPECT_EQ(0, unload_module("cdm_test"));
}

/* Is the node whole: its pages can be had? */
static bool node_works(int nid)
{
	char *addr = map_pages_on(NR, nid);
	bool works;

	if (!addr)
		return false;
	fill_pages(addr, NR, PAGE_SIZE, 1);
	works = pages_on(addr, NR, PAGE_SIZE, nid) == NR;
	unmap_pages(addr, NR);
	return works;
}

static int with_failure(unsigned long nth, const char *name, const char *args,
			bool *injected)
{
	char text[32];
	int ret;

	snprintf(text, sizeof(text), "%lu", nth);
	ret = file_write(FAIL_NTH, text);
	if (ret)
		return ret;
	ret = call(name, args);
	/* What is left of the count: 0 if it has come to that allocation */
	*injected = file_number(FAIL_NTH) == 0;
	file_write(FAIL_NTH, "0");
	return ret;
}

/* All of the first ones, then ever fewer of the many that are alike */
static unsigned long next_nth(unsigned long nth, unsigned long all)
{
	return nth < all ? nth + 1 : nth + nth / 8;
}

TEST_F_TIMEOUT(fault, allocations_of_register, CDM_TIMEOUT)
{
	unsigned long nth, failed = 0, survived = 0;
	bool injected = true;
	char *after;
	int ret;

	for (nth = 1; nth < 1000000; nth = next_nth(nth, 160)) {
		ret = with_failure(nth, "register", self->args, &injected);
		if (!ret) {
			/* Either nothing failed, or it was not needed */
			ASSERT_EQ(self->nid, cdm_node());
			ASSERT_TRUE(node_works(self->nid));
			ASSERT_EQ(0, call_unregister(self->nid));
			survived += injected;
		} else {
			ASSERT_TRUE(injected);
			failed++;
		}
		after = cdm_snapshot();
		ASSERT_TRUE(cdm_same_snapshot(self->before, after)) {
			TH_LOG("after the failure of allocation %lu (%s)", nth,
			       strerror(-ret));
		}
		free(after);
		if (!injected)
			break;
	}
	TH_LOG("%lu of %lu allocations tried: %lu registrations failed, %lu went on without",
	       failed + survived, nth, failed, survived);
	/* It has come to the end, and on the way it did fail */
	EXPECT_FALSE(injected);
	EXPECT_LT(10, failed);
}

TEST_F_TIMEOUT(fault, allocations_of_unregister, CDM_TIMEOUT)
{
	unsigned long nth, failed = 0, survived = 0;
	bool injected = true;
	char number[16];
	char *addr;
	int ret;

	/* Something to move */
	ASSERT_EQ(0, call("register", self->args));
	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, 7);

	snprintf(number, sizeof(number), "%d", self->nid);
	for (nth = 1; nth < 1000000; nth = next_nth(nth, 24)) {
		ret = with_failure(nth, "unregister", number, &injected);
		ASSERT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, 7));
		if (ret) {
			ASSERT_TRUE(injected);
			failed++;
			/* It is as live as before */
			ASSERT_EQ(self->nid, cdm_node());
			ASSERT_TRUE(node_works(self->nid));
		} else {
			survived += injected;
			ASSERT_EQ(-1, cdm_node());
			if (!injected)
				break;
			ASSERT_EQ(0, call("register", self->args));
			ASSERT_LE(0, move_to(addr, NR, PAGE_SIZE, self->nid, NULL));
		}
	}
	TH_LOG("%lu of %lu allocations tried: %lu attempts failed, %lu went on without",
	       failed + survived, nth, failed, survived);
	EXPECT_FALSE(injected);
	EXPECT_LT(3, failed + survived);
}

/* Somebody who watches memory does not want it online */
TEST_F_TIMEOUT(fault, veto_of_online, CDM_TIMEOUT)
{
	char *after;

	ASSERT_EQ(0, file_write(VETO "/MEM_GOING_ONLINE/error", "-12"));
	EXPECT_GT(0, call("register", self->args));
	after = cdm_snapshot();
	EXPECT_TRUE(cdm_same_snapshot(self->before, after));
	free(after);

	/* Control: without the veto it works */
	ASSERT_EQ(0, file_write(VETO "/MEM_GOING_ONLINE/error", "0"));
	ASSERT_EQ(0, call("register", self->args));
	EXPECT_TRUE(node_works(self->nid));
	EXPECT_EQ(0, call_unregister(self->nid));
}

/* Or does not want it to go */
TEST_F_TIMEOUT(fault, veto_of_offline, CDM_TIMEOUT)
{
	char *up, *after;
	char *addr;

	/* Who does not let go is asked again until then */
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "2000"));
	ASSERT_EQ(0, call("register", self->args));
	up = cdm_snapshot();
	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, 7);

	ASSERT_EQ(0, file_write(VETO "/MEM_GOING_OFFLINE/error", "-16"));
	EXPECT_EQ(-EBUSY, call_unregister(self->nid));
	EXPECT_EQ(self->nid, cdm_node());
	after = cdm_snapshot();
	EXPECT_TRUE(cdm_same_snapshot(up, after));
	EXPECT_TRUE(node_works(self->nid));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, 7));
	free(after);
	free(up);

	ASSERT_EQ(0, file_write(VETO "/MEM_GOING_OFFLINE/error", "0"));
	settings_restore();
	EXPECT_EQ(0, call_unregister(self->nid));
	after = cdm_snapshot();
	EXPECT_TRUE(cdm_same_snapshot(self->before, after));
	free(after);
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, 7));
}

TEST_HARNESS_MAIN
