// SPDX-License-Identifier: GPL-2.0
/*
 * The device goes, or what was in its memory: by remove in sysfs, torn out with
 * its memory switched off, or as its driver says. Tasks hold pages in every way;
 * what can be saved is, and in place of the rest they find an error, never what
 * they did not write. The node ends, and comes back with its id.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"
#include "cdm_hold.h"

#define PCI_SYSFS	"/sys/bus/pci"
#define CALLS		"/sys/kernel/debug/cdm_test"
#define HWPOISON	"/sys/kernel/debug/hwpoison"

#define CHECK_NR	((size_t)8)
#define CHECK_SEED	0xc4ec0UL

/* The judge itself: it knows what is its own, an error, and a violation. */
TEST(judge)
{
	struct verdict v = {};
	char *addr = map_pages(CHECK_NR);
	int empty = memfd_create("cdm-empty", 0);

	ASSERT_NE(NULL, addr);
	ASSERT_LE(0, empty);
	fill_pages(addr, CHECK_NR, PAGE_SIZE, CHECK_SEED);
	judge_pages(addr, CHECK_NR, PAGE_SIZE, CHECK_SEED, &v);
	EXPECT_EQ(CHECK_NR, v.own);
	EXPECT_EQ(0, v.error);
	EXPECT_EQ(0, v.other);

	/* A page that is not there; one of zeroes; another's; half of one */
	ASSERT_EQ(addr, mmap(addr, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0));
	ASSERT_NE(MAP_FAILED, mmap(addr + PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	fill_page(addr + 2 * PAGE_SIZE, CHECK_SEED + 1);
	addr[4 * PAGE_SIZE - 1] ^= 1;
	memset(&v, 0, sizeof(v));
	judge_pages(addr, CHECK_NR, PAGE_SIZE, CHECK_SEED, &v);
	EXPECT_EQ(CHECK_NR - 4, v.own);
	EXPECT_EQ(1, v.error);
	EXPECT_EQ(3, v.other);
}

FIXTURE(gone)
{
	int nid;
	char name[32];
	char path[PATH_MAX];
	char text[256];
};

FIXTURE_SETUP(gone)
{
	ASSERT_NE(NULL, cdm_device(0));
	ASSERT_EQ(0, load_module("cdm_test", ""));
	self->nid = cdm_node_up(HOLD_CAPS);
	ASSERT_LE(0, self->nid);
	strcpy(self->name, cdm_device(0)->name);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "4000"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
}

/* In the parent, where a device that the test forgot comes back */
FIXTURE_TEARDOWN_PARENT(gone)
{
	settings_restore();
	file_write(PCI_SYSFS "/rescan", "1");
	cdm_find_devices();
	EXPECT_NE(NULL, cdm_device(0));
	EXPECT_TRUE(wait_for(!cdm_node_is_lost(self->nid)));
	EXPECT_EQ(0, cdm_node_down());
}

static int pci_remove(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_SYSFS "/devices/%s/remove", name);
	return file_write(path, "1");
}

/* The device is back, maybe with its memory at another address */
static const struct device *pci_rescan(void)
{
	if (file_write(PCI_SYSFS "/rescan", "1"))
		return NULL;
	cdm_find_devices();
	return cdm_device(0);
}

#define expect_back()							\
do {									\
	ASSERT_NE(NULL, pci_rescan());					\
	expect_node_again();						\
} while (0)

/* Something in the kernel still refers to pages: to these only, and not for ever */
#define expect_held()							\
do {									\
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text))); \
	EXPECT_STREQ("lost", self->text);				\
	EXPECT_EQ(-EBUSY, cdm_unplug(self->nid));			\
	/* Its driver is not needed, and nobody can name it */		\
	EXPECT_EQ(0, unload_module("cdm_ivshmem"));			\
	EXPECT_EQ(NULL, map_pages_on(1, self->nid));			\
} while (0)

#define expect_ends_when_let_go()					\
do {									\
	hold_end_all();							\
	EXPECT_TRUE(wait_for(!cdm_node_exists(self->nid)));			\
	EXPECT_EQ(0, node_list("has_coherent_memory") & NODE_BIT(self->nid)); \
} while (0)

/* Nobody keeps a page where it is: nobody loses one */
TEST_F_TIMEOUT(gone, remove_movable, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, false));
	EXPECT_EQ(0, pci_remove(self->name));
	EXPECT_FALSE(cdm_node_exists(self->nid));
	expect_saved();
	EXPECT_EQ(0, unload_module("cdm_ivshmem"));
	hold_end_all();
	expect_back();
}

TEST_F_TIMEOUT(gone, remove_held, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, true));
	EXPECT_EQ(0, pci_remove(self->name));
	expect_saved();
	expect_held();
	expect_ends_when_let_go();
	expect_back();
}

/* What comes back while pages are held is not taken for what they were on */
TEST_F_TIMEOUT(gone, rescan_while_held, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_start(HOLD_PLAIN, self->nid));
	ASSERT_TRUE(hold_start(HOLD_SPLICED, self->nid));
	EXPECT_EQ(0, pci_remove(self->name));
	expect_saved();
	ASSERT_NE(NULL, pci_rescan());
	expect_saved();
	/* The number is the device's, but not yet */
	EXPECT_EQ(-EBUSY, cdm_bind(HOLD_CAPS));
	expect_saved();
	expect_ends_when_let_go();
	expect_back();
}

/* The driver went long ago, and left the node behind */
TEST_F_TIMEOUT(gone, orphan_removed, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, true));
	EXPECT_EQ(0, cdm_unbind());
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	ASSERT_STREQ("orphaned", self->text);
	/* To look for devices again moves none */
	ASSERT_NE(NULL, pci_rescan());
	EXPECT_EQ(self->nid, cdm_node());

	EXPECT_EQ(0, pci_remove(self->name));
	expect_saved();
	expect_held();
	expect_ends_when_let_go();
	expect_back();
}

/* Torn out: there are ones where the memory was, and nobody takes them for data */
TEST_F_TIMEOUT(gone, torn_out, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, true));
	EXPECT_EQ(0, file_write(CALLS "/tear_out", self->name));
	expect_lost();
	expect_held();
	expect_ends_when_let_go();
	expect_back();
}

/* An orphan's device */
TEST_F_TIMEOUT(gone, orphan_torn_out, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_start(HOLD_SPLICED, self->nid));
	EXPECT_EQ(0, cdm_unbind());
	ASSERT_TRUE(cdm_node_exists(self->nid));
	EXPECT_EQ(0, file_write(CALLS "/tear_out", self->name));
	EXPECT_TRUE(hold_judge_all());
	EXPECT_LE(4, hold_mapped(HOLD_SPLICED)->error);
	expect_ends_when_let_go();
	expect_back();
}

/* A driver that goes finds its device dead: nothing is moved */
TEST_F_TIMEOUT(gone, dead_when_unbound, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, true));
	EXPECT_EQ(0, file_write(CALLS "/switch_off", self->name));
	EXPECT_EQ(0, cdm_unbind());
	expect_lost();
	expect_held();
	expect_ends_when_let_go();
	EXPECT_EQ(0, pci_remove(self->name));
	expect_back();
}

/* Not even root gets at what tasks use, but who has the device may read it */
TEST_F_TIMEOUT(gone, bar_is_theirs, CDM_TIMEOUT)
{
	void *addr;
	int fd;

	snprintf(self->path, sizeof(self->path),
		 PCI_SYSFS "/devices/%s/resource2", self->name);
	fd = open(self->path, O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED, fd, 0));
	EXPECT_EQ(EINVAL, errno);

	/* Control: without a node it is anybody's */
	EXPECT_EQ(0, cdm_unbind());
	addr = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT_NE(MAP_FAILED, addr);
	close(fd);
}

/* A device whose memory is in use is not given to another driver */
TEST_F_TIMEOUT(gone, others_kept_off, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_start(HOLD_SPLICED, self->nid));
	EXPECT_EQ(0, cdm_unbind());
	ASSERT_TRUE(cdm_node_exists(self->nid));
	EXPECT_EQ(0, file_write(CALLS "/steal", self->name));
	EXPECT_EQ(-EBUSY, file_write(PCI_SYSFS "/drivers/cdm_thief/bind", self->name));
	EXPECT_TRUE(hold_judge_all());
	EXPECT_EQ(32, hold_mapped(HOLD_SPLICED)->own);
	hold_end_all();
	EXPECT_EQ(0, cdm_unplug(self->nid));
	/* Control */
	EXPECT_EQ(0, file_write(PCI_SYSFS "/drivers/cdm_thief/bind", self->name));
	EXPECT_EQ(0, file_write(PCI_SYSFS "/drivers/cdm_thief/unbind", self->name));
	EXPECT_EQ(0, file_write(CALLS "/steal", "none"));
}

/* The driver says that the content is lost: a reset, say */
TEST_F_TIMEOUT(gone, lost, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	char again[128];

	/* As cdm_ivshmem does, but by the test's own hand */
	EXPECT_EQ(0, cdm_node_down());
	snprintf(again, sizeof(again), "%#lx %#lx -1 %#x 0x3", dev->start, dev->size,
		 0x4 | 0x8 | 0x10 | 0x20 | 0x40);
	ASSERT_EQ(0, file_write(CALLS "/register", again));
	ASSERT_EQ(self->nid, cdm_node());

	ASSERT_TRUE(hold_all(self->nid, true));
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	EXPECT_EQ(0, file_write(CALLS "/lost", self->text));
	expect_lost();
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("lost", self->text);
	EXPECT_EQ(-EBUSY, file_write(CALLS "/register", again));
	/* The memory works; what was there before is not found in it */
	expect_ends_when_let_go();
	EXPECT_TRUE(wait_for(!file_write(CALLS "/register", again)));
	EXPECT_EQ(self->nid, cdm_node());
	snprintf(self->text, sizeof(self->text), "%d", self->nid);
	EXPECT_EQ(0, file_write(CALLS "/unregister", self->text));
}

static int pfn_call(const char *path, unsigned long pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", pfn);
	return file_write(path, text);
}

/* Whoever reads where no device is finds pages broken: they are not, in the end */
TEST_F_TIMEOUT(gone, dead_is_not_broken, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	unsigned long start = dev->start;
	unsigned long pfn = (start + dev->size / 2) / PAGE_SIZE;

	/* Control: one that broke while the device was there, and is remembered */
	ASSERT_EQ(0, pfn_call(HWPOISON "/corrupt-pfn", pfn));
	ASSERT_EQ(0, cdm_unbind());
	ASSERT_EQ(0, cdm_bind(HOLD_CAPS));
	ASSERT_EQ(self->nid, cdm_node());
	EXPECT_EQ(0, file_write(CALLS "/switch_off", self->name));
	ASSERT_EQ(0, pfn_call(HWPOISON "/corrupt-pfn", pfn + 1));
	EXPECT_TRUE(page_flags_of(pfn + 1) & KPF_HWPOISON);
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_FALSE(cdm_node_exists(self->nid));
	EXPECT_EQ(0, pci_remove(self->name));
	expect_back();
	ASSERT_EQ(start, cdm_device(0)->start);

	snprintf(self->path, sizeof(self->path), NODE_SYSFS "/node%d/cdm_bad_pages",
		 self->nid);
	EXPECT_EQ(1, file_number(self->path));
	EXPECT_TRUE(page_flags_of(pfn) & KPF_HWPOISON);
	EXPECT_FALSE(page_flags_of(pfn + 1) & KPF_HWPOISON);
	EXPECT_EQ(0, pfn_call(HWPOISON "/unpoison-pfn", pfn));
	EXPECT_EQ(0, file_number(self->path));
}

/* A page that breaks while a pipe has it is the pipe's until that lets go of it. */
TEST_F_TIMEOUT(gone, broken_while_held, CDM_TIMEOUT)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	char buf[PAGE_SIZE];
	unsigned long pfn;
	int pipes[2];

	iov.iov_base = filled_pages_on(1, self->nid, CHECK_SEED);
	ASSERT_NE(NULL, iov.iov_base);
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	pfn = page_pfn(iov.iov_base);
	pfn_call(HWPOISON "/corrupt-pfn", pfn);
	ASSERT_TRUE(page_flags_of(pfn) & KPF_HWPOISON);

	/* With the driver, by the administrator, with the device: its block stays */
	EXPECT_EQ(0, cdm_unbind());
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("orphaned", self->text);
	EXPECT_EQ(-EBUSY, cdm_unplug(self->nid));
	EXPECT_EQ(0, pci_remove(self->name));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("lost", self->text);
	EXPECT_EQ(-1, read(pipes[0], buf, PAGE_SIZE));
	EXPECT_EQ(EIO, errno);

	close(pipes[0]);
	close(pipes[1]);
	EXPECT_TRUE(wait_for(!cdm_node_exists(self->nid)));
	expect_back();
	EXPECT_EQ(0, cdm_forget_bad_pages());
}

/* A broken page of a file is out of the way, and an error for who has the file. */
TEST_F_TIMEOUT(gone, broken_in_file, CDM_TIMEOUT)
{
	const size_t nr = 4;
	char buf[PAGE_SIZE];
	struct verdict v = {};
	unsigned long pfn;
	char *addr;
	int fd;

	fd = memfd_create("cdm-broken", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, nr * PAGE_SIZE));
	addr = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_pages(addr, nr, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(addr, nr, PAGE_SIZE, CHECK_SEED);
	ASSERT_EQ(nr, pages_on(addr, nr, PAGE_SIZE, self->nid));
	pfn = page_pfn(addr);
	ASSERT_EQ(0, pfn_call(HWPOISON "/corrupt-pfn", pfn));

	EXPECT_EQ(0, cdm_unbind());
	EXPECT_FALSE(cdm_node_exists(self->nid));
	judge_pages(addr, nr, PAGE_SIZE, CHECK_SEED, &v);
	EXPECT_EQ(1, v.error);
	EXPECT_EQ(nr - 1, v.own);
	EXPECT_EQ(-1, pread(fd, buf, PAGE_SIZE, 0));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(PAGE_SIZE, pread(fd, buf, PAGE_SIZE, PAGE_SIZE));
	EXPECT_TRUE(page_is(buf, CHECK_SEED + 1));
	/* It goes when the file does */
	EXPECT_EQ(0, ftruncate(fd, 0));
	close(fd);
	expect_node_again();
	EXPECT_EQ(0, pfn_call(HWPOISON "/unpoison-pfn", pfn));
}

/* What is left of the node is not for the administrator to take offline. */
TEST_F_TIMEOUT(gone, by_hand, CDM_TIMEOUT)
{
	unsigned long size, nr, i, busy = 0;

	ASSERT_LT(0, file_read(MEMORY_SYSFS "/block_size_bytes", self->text,
			       sizeof(self->text)));
	size = strtoull(self->text, NULL, 16);
	nr = cdm_device(0)->size / size;
	ASSERT_TRUE(hold_start(HOLD_SPLICED, self->nid));
	EXPECT_EQ(0, pci_remove(self->name));
	expect_held();
	for (i = 0; i < nr; i++) {
		snprintf(self->path, sizeof(self->path), MEMORY_SYSFS "/memory%lu/state",
			 cdm_device(0)->start / size + i);
		if (!access(self->path, F_OK)) {
			EXPECT_EQ(-EBUSY, file_write(self->path, "offline"));
			busy++;
		}
	}
	EXPECT_EQ(1, busy);
	expect_saved();
	expect_ends_when_let_go();
	expect_back();
}

/* What the administrator has said of the device is said of it when it is back */
TEST_F_TIMEOUT(gone, access_is_kept, CDM_TIMEOUT)
{
	int i;

	snprintf(self->path, sizeof(self->path), NODE_SYSFS "/node%d/cdm_access",
		 self->nid);
	ASSERT_EQ(0, file_write(self->path, "listed"));
	for (i = 0; i < 2; i++) {
		/* With its memory, and torn out */
		EXPECT_EQ(0, i ? file_write(CALLS "/tear_out", self->name) :
				 pci_remove(self->name));
		EXPECT_FALSE(cdm_node_exists(self->nid));
		ASSERT_NE(NULL, pci_rescan());
		EXPECT_TRUE(wait_for(cdm_node_up(HOLD_CAPS) == self->nid));
		ASSERT_LT(0, file_read(self->path, self->text, sizeof(self->text)));
		EXPECT_STREQ("listed", self->text);
		EXPECT_EQ(NULL, map_pages_on(1, self->nid));
	}
	EXPECT_EQ(0, file_write(self->path, "all"));
	EXPECT_NE(NULL, map_pages_on(1, self->nid));
}

/* The driver plans a reset: nobody gets a page, who has some keeps them */
TEST_F_TIMEOUT(gone, frozen, CDM_TIMEOUT)
{
	char *bound = map_pages_on(2, self->nid), nid[16];

	ASSERT_NE(NULL, bound);
	fill_page(bound, CHECK_SEED);
	ASSERT_EQ(self->nid, page_node(bound));
	snprintf(nid, sizeof(nid), "%d", self->nid);
	ASSERT_EQ(0, file_write(CALLS "/freeze", nid));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("frozen", self->text);
	EXPECT_EQ(NULL, map_pages_on(1, self->nid));
	fill_page(bound + PAGE_SIZE, CHECK_SEED + 1);
	EXPECT_NE(self->nid, page_node(bound + PAGE_SIZE));
	EXPECT_EQ(self->nid, page_node(bound));

	EXPECT_EQ(0, file_write(CALLS "/thaw", nid));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_NE(NULL, map_pages_on(1, self->nid));
	EXPECT_EQ(2, pages_intact(bound, 2, PAGE_SIZE, CHECK_SEED));
}

TEST_HARNESS_MAIN
