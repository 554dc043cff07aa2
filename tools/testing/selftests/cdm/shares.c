// SPDX-License-Identifier: GPL-2.0
/*
 * A policy puts the same share of a mapping on a device as it would on an
 * ordinary node without CPUs, whatever size of folio is asked for first: where a
 * huge page cannot be had on the node of the policy, its base pages are on that
 * node. The ordinary node is the measure, in the same boot. Of several huge
 * pages, for the first says nothing about the next.
 */
#include <numa.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		(4 * HUGE_NR)
/* A share may be off by the folios at both ends */
#define SLACK		(HUGE_NR + 1)

/* How folios of more than one page come about */
static const struct folios {
	const char *name;
	const char *enabled;		/* huge pages */
	const char *smaller;		/* folios of 64 KiB */
	const char *shared;		/* huge pages of shared memory */
	bool advise;
} folios[] = {
	{ "no large folios", "never", "never", "never", false },
	{ "THP always", "always", "never", "always", false },
	{ "THP madvise", "madvise", "never", "advise", true },
	{ "mTHP of 64 KiB", "never", "always", "never", false },
};

static const struct policy {
	const char *name;
	int mode;
	bool both;			/* the task's node, too */
	bool home;			/* the node is the policy's home node */
} policies[] = {
	{ "bind", MPOL_BIND, false, false },
	{ "preferred", MPOL_PREFERRED, false, false },
	{ "preferred-many", MPOL_PREFERRED_MANY, false, false },
	{ "interleave", MPOL_INTERLEAVE, true, false },
	{ "interleave over one node", MPOL_INTERLEAVE, false, false },
	{ "weighted-interleave", MPOL_WEIGHTED_INTERLEAVE, true, false },
	{ "weighted-interleave over one node", MPOL_WEIGHTED_INTERLEAVE, false, false },
	{ "bind with a home node", MPOL_BIND, true, true },
};

FIXTURE(shares)
{
	int nid;
	int ram;		/* where the task runs */
	int far;		/* ordinary memory without CPUs */
};

FIXTURE_VARIANT(shares)
{
	const char *caps;
	bool thp;
};

FIXTURE_VARIANT_ADD(shares, thp_denied)
{
	.caps = "migrate,interleave",
	.thp = false,
};

FIXTURE_VARIANT_ADD(shares, thp_allowed)
{
	.caps = "migrate,interleave,thp",
	.thp = true,
};

FIXTURE_SETUP(shares)
{
	unsigned long cpuless = node_list("has_memory") & ~node_list("has_cpu");

	ASSERT_NE(0, cpuless);
	self->far = __builtin_ctzl(cpuless);
	self->ram = ram_node(0);
	ASSERT_NE(self->far, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting(THP_SYSFS "/defrag", "always"));
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
}

FIXTURE_TEARDOWN_PARENT(shares)
{
	settings_restore();
}

static int want_folios(const struct folios *f)
{
	int ret = setting(THP_SYSFS "/hugepages-2048kB/enabled", "inherit");

	if (!ret)
		ret = setting(THP_SYSFS "/enabled", f->enabled);
	if (!ret)
		ret = setting(THP_SYSFS "/hugepages-64kB/enabled", f->smaller);
	if (!ret)
		ret = setting(THP_SYSFS "/shmem_enabled", f->shared);
	return ret;
}

/* A mapping that begins with a huge page's address */
static char *map_aligned(int flags)
{
	char *addr = mmap(NULL, NR * PAGE_SIZE + HUGE, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | flags, -1, 0);
	size_t head;

	if (addr == MAP_FAILED)
		return NULL;
	head = -(unsigned long)addr & (HUGE - 1);
	if (head)
		munmap(addr, head);
	munmap(addr + head + NR * PAGE_SIZE, HUGE - head);
	return addr + head;
}

static void touch(char *addr)
{
	size_t i;

	for (i = 0; i < NR; i++)
		WRITE_ONCE(addr[i * PAGE_SIZE], 1);
}

struct share {
	size_t there;		/* pages on the node */
	size_t huge;		/* of these, in folios of two MiB */
};

/* What comes to the node by this policy; pages of nobody are -1 */
static int share_of(const struct policy *p, const struct folios *f, int flags,
		    int nid, int ram, struct share *share)
{
	unsigned long nodes = NODE_BIT(nid) | (p->both ? NODE_BIT(ram) : 0);
	char *addr = map_aligned(flags);
	int ret;

	if (!addr)
		return -ENOMEM;
	ret = bind_pages(addr, NR, p->mode, nodes, 0);
	if (!ret && p->home &&
	    syscall(__NR_set_mempolicy_home_node, addr, NR * PAGE_SIZE, nid, 0))
		ret = -errno;
	if (!ret && f->advise && madvise(addr, NR * PAGE_SIZE, MADV_HUGEPAGE))
		ret = -errno;
	if (!ret) {
		touch(addr);
		share->there = pages_on(addr, NR, PAGE_SIZE, nid);
		share->huge = pages_with(addr, NR, PAGE_SIZE, KPF_THP);
	}
	unmap_pages(addr, NR);
	return ret;
}

static bool about(size_t a, size_t b)
{
	return a < b + SLACK && b < a + SLACK;
}

static void expect_shares(struct __test_metadata *_metadata, int nid, int far,
			  int ram, int flags)
{
	struct share device = { }, ordinary[ARRAY_SIZE(policies)] = { };
	size_t i, j;

	/* The measure, and the control: these policies put something there. */
	ASSERT_EQ(0, want_folios(&folios[1]));
	for (j = 0; j < ARRAY_SIZE(policies); j++) {
		ASSERT_EQ(0, share_of(&policies[j], &folios[1], flags, far, ram,
				      &ordinary[j]));
		EXPECT_LE(NR / 2 - SLACK, ordinary[j].there);
	}

	for (i = 0; i < ARRAY_SIZE(folios); i++) {
		ASSERT_EQ(0, want_folios(&folios[i]));
		for (j = 0; j < ARRAY_SIZE(policies); j++) {
			ASSERT_EQ(0, share_of(&policies[j], &folios[i], flags, nid,
					      ram, &device));
			EXPECT_TRUE(about(ordinary[j].there, device.there)) {
				TH_LOG("%s, %s: %zu pages, and not %zu, of %zu",
				       policies[j].name, folios[i].name, device.there,
				       ordinary[j].there, NR);
			}
		}
	}
}

TEST_F_TIMEOUT(shares, private_memory, CDM_TIMEOUT)
{
	expect_shares(_metadata, self->nid, self->far, self->ram, MAP_PRIVATE);
}

TEST_F_TIMEOUT(shares, shared_memory, CDM_TIMEOUT)
{
	expect_shares(_metadata, self->nid, self->far, self->ram, MAP_SHARED);
}

/* Where huge pages are allowed they are used: the same as on the ordinary node */
TEST_F_TIMEOUT(shares, huge_pages, CDM_TIMEOUT)
{
	struct share device = { }, ordinary = { };

	ASSERT_EQ(0, want_folios(&folios[1]));
	ASSERT_EQ(0, share_of(&policies[1], &folios[1], MAP_PRIVATE, self->far,
			      self->ram, &ordinary));
	ASSERT_EQ(0, share_of(&policies[1], &folios[1], MAP_PRIVATE, self->nid,
			      self->ram, &device));
	EXPECT_EQ(NR, ordinary.huge);
	EXPECT_EQ(variant->thp ? NR : 0, device.huge);
	EXPECT_EQ(NR, device.there);
}

/* What libnuma and the task's own policy make of it, with huge pages always */
TEST_F_TIMEOUT(shares, libnuma_and_task, CDM_TIMEOUT)
{
	char *addr;

	ASSERT_EQ(0, want_folios(&folios[1]));
	addr = numa_alloc_onnode(NR * PAGE_SIZE, self->nid);
	ASSERT_NE(NULL, addr);
	touch(addr);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	numa_free(addr, NR * PAGE_SIZE);

	addr = map_aligned(MAP_PRIVATE);
	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, set_mempolicy(MPOL_PREFERRED, &(unsigned long){ NODE_BIT(self->nid) }, 65));
	touch(addr);
	EXPECT_EQ(0, set_mempolicy(MPOL_DEFAULT, NULL, 0));
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	unmap_pages(addr, NR);
}

/* A device without a free page is passed over, and huge pages come from RAM. */
TEST_F_TIMEOUT(shares, full, CDM_TIMEOUT)
{
	size_t nr = node_meminfo(self->nid, "MemFree") * 1024 / PAGE_SIZE + NR, i;
	struct share device = { };
	char *filler;

	/* More than there is: the rest is in RAM. */
	ASSERT_EQ(0, want_folios(&folios[0]));
	filler = map_pages(nr);
	ASSERT_NE(NULL, filler);
	ASSERT_EQ(0, bind_pages(filler, nr, MPOL_PREFERRED, NODE_BIT(self->nid), 0));
	for (i = 0; i < nr; i++)
		WRITE_ONCE(filler[i * PAGE_SIZE], 1);

	ASSERT_EQ(0, want_folios(&folios[1]));
	ASSERT_EQ(0, share_of(&policies[1], &folios[1], MAP_PRIVATE, self->nid,
			      self->ram, &device));
	EXPECT_GT(NR / 8, device.there);
	EXPECT_LE(NR / 2, device.huge);
	unmap_pages(filler, nr);
}

TEST_HARNESS_MAIN
