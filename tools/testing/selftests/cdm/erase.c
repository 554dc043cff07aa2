// SPDX-License-Identifier: GPL-2.0
/*
 * What a task left on the device is not there for the next one to read, whichever
 * way the node went. The driver may erase the memory itself, where it is told
 * that the node has gone; then, and only then, the core leaves it alone.
 *
 * This looks at the memory itself when the node is gone: through the BAR.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)1024)
#define SEED		0xe7a5e0UL
#define BLOCK		((size_t)128 << 20)
#define BLOCK_NR	(BLOCK / PAGE_SIZE)

/* include/linux/cdm.h */
#define ALLOW_MIGRATE	0x0008
#define ALLOW_GUP	0x0010
#define COHERENT	0x0001
#define P2PDMA		0x0002
#define SCRUBS		0x0004

enum way {
	UNREGISTER,	/* the driver asks, and is told */
	RELEASE,	/* the driver goes, and is not */
	UNPLUG,		/* the administrator asks */
	ORPHAN,		/* the driver has gone before */
};

FIXTURE(erase)
{
	int nid;
	int pipes[2];
};

FIXTURE_VARIANT(erase)
{
	enum way way;
	unsigned int flags;
	bool erased;
};

FIXTURE_VARIANT_ADD(erase, unregister)
{
	.way = UNREGISTER,
	.flags = COHERENT | P2PDMA,
	.erased = true,
};

/* Control: what was there can be seen, and the core does trust a driver that knows */
FIXTURE_VARIANT_ADD(erase, unregister_scrubs)
{
	.way = UNREGISTER,
	.flags = COHERENT | P2PDMA | SCRUBS,
	.erased = false,
};

FIXTURE_VARIANT_ADD(erase, release_scrubs)
{
	.way = RELEASE,
	.flags = COHERENT | P2PDMA | SCRUBS,
	.erased = true,
};

FIXTURE_VARIANT_ADD(erase, unplug_scrubs)
{
	.way = UNPLUG,
	.flags = COHERENT | P2PDMA | SCRUBS,
	.erased = true,
};

FIXTURE_VARIANT_ADD(erase, orphan_scrubs)
{
	.way = ORPHAN,
	.flags = COHERENT | P2PDMA | SCRUBS,
	.erased = true,
};

static int node_with(unsigned int flags)
{
	int ret = cdm_call("register", "%#lx %#lx -1 %#x %#x", cdm_device(0)->start,
			   BLOCK, ALLOW_MIGRATE | ALLOW_GUP, flags);

	return ret ?: cdm_node();
}

FIXTURE_SETUP(erase)
{
	self->pipes[0] = -1;
	self->pipes[1] = -1;
	ASSERT_NE(NULL, cdm_device(0));
	ASSERT_LE(BLOCK, cdm_device(0)->size);
	/* All pages are erased now; none is left out for being broken. */
	ASSERT_EQ(0, cdm_forget_bad_pages());
	ASSERT_EQ(0, load_module("cdm_test", ""));
	self->nid = node_with(variant->flags);
	ASSERT_LE(0, self->nid);
}

FIXTURE_TEARDOWN_PARENT(erase)
{
	int nid = cdm_node();

	if (nid >= 0 && cdm_call("unregister", "%d", nid))
		cdm_unplug(nid);
	settings_restore();
	EXPECT_EQ(0, unload_module("cdm_test"));
}

TEST_F_TIMEOUT(erase, memory, CDM_TIMEOUT)
{
	char *addr = filled_pages_on(NR, self->nid, SEED), state[32];
	struct iovec iov = { addr, PAGE_SIZE };
	long used;

	ASSERT_NE(NULL, addr);
	switch (variant->way) {
	case UNREGISTER:
		EXPECT_EQ(0, cdm_call("unregister", "%d", self->nid));
		break;
	case RELEASE:
		EXPECT_EQ(0, cdm_call("release", "%d", self->nid));
		break;
	case UNPLUG:
		EXPECT_EQ(0, cdm_unplug(self->nid));
		/* The driver learns it when it asks */
		EXPECT_EQ(0, cdm_call("unregister", "%d", self->nid));
		break;
	case ORPHAN:
		ASSERT_EQ(0, pipe(self->pipes));
		ASSERT_EQ(PAGE_SIZE, vmsplice(self->pipes[1], &iov, 1, 0));
		ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "500"));
		EXPECT_EQ(0, cdm_call("release", "%d", self->nid));
		ASSERT_LT(0, cdm_state(self->nid, state, sizeof(state)));
		ASSERT_STREQ("orphaned", state);
		close(self->pipes[0]);
		close(self->pipes[1]);
		ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "60000"));
		EXPECT_EQ(0, cdm_unplug(self->nid));
		break;
	}
	ASSERT_EQ(-1, cdm_node());
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));

	used = raw_used(0, 0, BLOCK_NR);
	EXPECT_TRUE(variant->erased ? used == 0 : used >= (long)NR) {
		TH_LOG("%ld pages are not erased", used);
	}
	unmap_pages(addr, NR);

	/* As the driver would have done it: the next one is the core's to erase */
	if (!variant->erased) {
		self->nid = node_with(COHERENT | P2PDMA);
		ASSERT_LE(0, self->nid);
		EXPECT_EQ(0, cdm_call("unregister", "%d", self->nid));
		EXPECT_EQ(0, raw_used(0, 0, BLOCK_NR));
	}
}

TEST_HARNESS_MAIN
