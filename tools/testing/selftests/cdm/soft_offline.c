// SPDX-License-Identifier: GPL-2.0
/*
 * Capability "soft_offline": the kernel takes a page that might break out of
 * use, with its data moved elsewhere, only where the driver allows it. A page
 * that is broken is always taken out, and the node can leave all the same.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)16)
#define SEED		0x50f700UL
#define SOFT_OFFLINE	MEMORY_SYSFS "/soft_offline_page"

/* The two ways to ask; both return 0 or -errno */
static int by_madvise(void *addr, unsigned long pfn)
{
	return madvise(addr, PAGE_SIZE, MADV_SOFT_OFFLINE) ? -errno : 0;
}

static int by_sysfs(void *addr, unsigned long pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", pfn * PAGE_SIZE);
	return file_write(SOFT_OFFLINE, text);
}

FIXTURE(soft_offline)
{
	int nid;
};

FIXTURE_VARIANT(soft_offline)
{
	const char *caps;
	bool allowed;
	int (*ask)(void *addr, unsigned long pfn);
};

FIXTURE_VARIANT_ADD(soft_offline, denied_madvise)
{
	.caps = "migrate",
	.allowed = false,
	.ask = by_madvise,
};

FIXTURE_VARIANT_ADD(soft_offline, denied_sysfs)
{
	.caps = "migrate",
	.allowed = false,
	.ask = by_sysfs,
};

FIXTURE_VARIANT_ADD(soft_offline, allowed_madvise)
{
	.caps = "soft_offline",
	.allowed = true,
	.ask = by_madvise,
};

FIXTURE_VARIANT_ADD(soft_offline, allowed_sysfs)
{
	.caps = "soft_offline",
	.allowed = true,
	.ask = by_sysfs,
};

FIXTURE_SETUP(soft_offline)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
}

FIXTURE_TEARDOWN_PARENT(soft_offline)
{
	settings_restore();
}

static bool poisoned(unsigned long pfn)
{
	return page_flags_of(pfn) & KPF_HWPOISON;
}

TEST_F_TIMEOUT(soft_offline, page, CDM_TIMEOUT)
{
	char *pages = filled_pages_on(NR, self->nid, SEED);
	unsigned long pfn;

	ASSERT_NE(NULL, pages);
	pfn = page_pfn(pages);
	ASSERT_NE(0, pfn);

	EXPECT_EQ(variant->allowed ? 0 : -EOPNOTSUPP, variant->ask(pages, pfn));
	EXPECT_EQ(variant->allowed, poisoned(pfn));
	/* That page alone has gone, to RAM; the data is where it was */
	EXPECT_EQ(variant->allowed, page_node(pages) != self->nid);
	EXPECT_EQ(variant->allowed, page_pfn(pages) != pfn);
	EXPECT_EQ(NR - 1, pages_on(pages + PAGE_SIZE, NR - 1, PAGE_SIZE,
				   self->nid));
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));

	/* A node with a bad page can leave, and takes it along */
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

/* Control: the same on an ordinary node, while there is a device */
TEST_F_TIMEOUT(soft_offline, ordinary_page, CDM_TIMEOUT)
{
	char *pages = map_pages_on(NR, ram_node(0));
	unsigned long pfn;

	ASSERT_NE(NULL, pages);
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	pfn = page_pfn(pages);
	ASSERT_NE(0, pfn);

	EXPECT_EQ(0, variant->ask(pages, pfn));
	EXPECT_TRUE(poisoned(pfn));
	EXPECT_NE(pfn, page_pfn(pages));
	/* The policy says where, soft offline never brings it to a device */
	EXPECT_NE(self->nid, page_node(pages));
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));
	/*
	 * The page stays out of use: to unpoison it makes page_owner count its
	 * free twice.
	 */
}

static sigjmp_buf jump;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	bool says_why = info->si_code == BUS_MCEERR_AR ||
			info->si_code == BUS_MCEERR_AO;

	siglongjmp(jump, says_why ? 1 : 2);
}

/* 0 if it can be read, 1 for a SIGBUS that says why, 2 for another one */
static int touch(const char *addr)
{
	int how = sigsetjmp(jump, 1);

	if (!how)
		READ_ONCE(*addr);
	return how;
}

/* The same of breaking a page: who uses it gets the signal at once */
static int break_page(char *addr)
{
	int how = sigsetjmp(jump, 1);

	if (!how)
		return madvise(addr, PAGE_SIZE, MADV_HWPOISON) ? -errno : 0;
	return how;
}

/*
 * What is broken is taken out, whatever the mask says: one page by who uses it,
 * the next as the machine would say it, to nobody in particular.
 */
TEST_F_TIMEOUT(soft_offline, broken_page, CDM_TIMEOUT)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO,
	};
	char *pages = filled_pages_on(NR, self->nid, SEED);
	char *rest = pages + 2 * PAGE_SIZE, text[32];
	unsigned long pfn[2];
	int i;

	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, pages_pfns(pages, 2, PAGE_SIZE, pfn));
	ASSERT_EQ(0, sigaction(SIGBUS, &action, NULL));
	for (i = 0; i < 2; i++) {
		ASSERT_NE(0, pfn[i]);
		ASSERT_EQ(0, touch(pages + i * PAGE_SIZE));
	}

	ASSERT_EQ(1, break_page(pages));
	snprintf(text, sizeof(text), "%#lx", pfn[1]);
	ASSERT_EQ(0, file_write("/sys/kernel/debug/hwpoison/corrupt-pfn", text));
	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(poisoned(pfn[i]));
		EXPECT_EQ(1, touch(pages + i * PAGE_SIZE));
	}
	EXPECT_EQ(NR - 2, pages_intact(rest, NR - 2, PAGE_SIZE, SEED + 2));

	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
	for (i = 0; i < 2; i++)
		EXPECT_EQ(1, touch(pages + i * PAGE_SIZE));
	EXPECT_EQ(NR - 2, pages_intact(rest, NR - 2, PAGE_SIZE, SEED + 2));
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

TEST_HARNESS_MAIN
