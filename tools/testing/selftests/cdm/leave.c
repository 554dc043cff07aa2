// SPDX-License-Identifier: GPL-2.0
/*
 * Leaving is a request with an answer: 0, and what was on the node is in
 * ordinary memory; or -EBUSY within a bound, and the node is live. A driver
 * that goes all the same leaves an orphan, which can be asked again or adopted.
 */
#include <errno.h>
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

/*
 * All blocks are taken offline by hand: there is no page, so nobody can name the
 * node, and who has named it gets ordinary memory.
 */
TEST_F_TIMEOUT(leave, blocks_by_hand, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	char *addr = pages_in_use(self->nid), *next;
	unsigned long long size, nr;

	ASSERT_NE(NULL, addr);
	ASSERT_LT(0, file_read(MEMORY_SYSFS "/block_size_bytes", self->text,
			       sizeof(self->text)));
	size = strtoull(self->text, NULL, 16);
	next = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, next);
	for (nr = 0; nr < dev->size / size; nr++) {
		/* With one left it is a node as any other */
		ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
		EXPECT_STREQ("online", self->text);
		snprintf(self->path, sizeof(self->path), MEMORY_SYSFS "/memory%llu/state",
			 dev->start / size + nr);
		ASSERT_EQ(0, file_write(self->path, "offline"));
	}
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, pages_on(addr, NR, PAGE_SIZE, self->nid));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("offline", self->text);
	EXPECT_EQ(NULL, map_pages_on(NR, self->nid));
	fill_pages(next, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(NR, pages_intact(next, NR, PAGE_SIZE, SEED));
	unmap_pages(next, NR);

	/* Back online, and back in use: by who has named it before, too */
	for (nr = 0; nr < dev->size / size; nr++) {
		snprintf(self->path, sizeof(self->path), MEMORY_SYSFS "/memory%llu/state",
			 dev->start / size + nr);
		ASSERT_EQ(0, file_write(self->path, "online"));
		ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
		EXPECT_STREQ("online", self->text);
	}
	unmap_pages(addr, NR);
	EXPECT_NE(NULL, pages_in_use(self->nid));
}

/* Offline by hand, and then away: its driver can come back */
TEST_F_TIMEOUT(leave, offline_then_unplug, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	unsigned long long size, nr;

	ASSERT_LT(0, file_read(MEMORY_SYSFS "/block_size_bytes", self->text,
			       sizeof(self->text)));
	size = strtoull(self->text, NULL, 16);
	for (nr = 0; nr < dev->size / size; nr++) {
		snprintf(self->path, sizeof(self->path), MEMORY_SYSFS "/memory%llu/state",
			 dev->start / size + nr);
		ASSERT_EQ(0, file_write(self->path, "offline"));
	}
	EXPECT_EQ(0, cdm_unplug(self->nid));
	EXPECT_EQ(-1, cdm_node());
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(self->nid, cdm_node_up(variant->caps));
	EXPECT_NE(NULL, pages_in_use(self->nid));
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

FIXTURE(no_room)
{
	int nid;
	char text[256];
};

FIXTURE_SETUP(no_room)
{
	self->nid = cdm_node_up("thp,migrate");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", PLENTY));
}

FIXTURE_TEARDOWN_PARENT(no_room)
{
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

/* RAM has no room for what is there: that is said at once, and nothing has moved */
TEST_F_TIMEOUT(no_room, is_seen_first, CDM_TIMEOUT)
{
	const size_t nr = cdm_device(0)->size / PAGE_SIZE / 2;
	char *addr = map_huge_range(nr / HUGE_NR);
	time_t start;
	size_t i;
	int log;

	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, bind_pages(addr, nr, MPOL_BIND, NODE_BIT(self->nid), 0));
	ASSERT_EQ(0, madvise(addr, nr * PAGE_SIZE, MADV_HUGEPAGE));
	for (i = 0; i < nr; i++)
		addr[i * PAGE_SIZE] = 1;
	ASSERT_EQ(nr, pages_on(addr, nr, PAGE_SIZE, self->nid));

	/* As much as that is to stay free, which nobody is stopped for */
	ASSERT_EQ(0, setting("/proc/sys/vm/watermark_scale_factor", "3000"));
	for (i = 1; i < 4 && proc_meminfo("MemAvailable") > (long long)nr * 4; i++) {
		snprintf(self->text, sizeof(self->text), "%zu", i * 100000);
		ASSERT_EQ(0, setting("/proc/sys/vm/min_free_kbytes", self->text));
	}
	ASSERT_GT((long long)nr * 4, proc_meminfo("MemAvailable"));

	log = log_open();
	ASSERT_LE(0, log);
	start = now();
	EXPECT_EQ(-ENOMEM, cdm_unplug(self->nid));
	EXPECT_GE(BOUND, now() - start);
	EXPECT_TRUE(log_has(log, " kB are in use, and ordinary memory has room for "));
	close(log);
	EXPECT_EQ(nr, pages_on(addr, nr, PAGE_SIZE, self->nid));
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_NE(NULL, map_pages_on(NR, self->nid));

	/* Control: with room, all of it moves */
	settings_restore();
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", PLENTY));
	EXPECT_EQ(0, cdm_unplug(self->nid));
	EXPECT_EQ(0, pages_on(addr, nr, PAGE_SIZE, self->nid));
}

FIXTURE(held)
{
	int nid;
	char text[256];
};

FIXTURE_VARIANT(held)
{
	const char *how;
	const char *line;
	bool shared;
};

FIXTURE_VARIANT_ADD(held, locked)
{
	.how = "locked",
	.line = "1 held: 0 pinned, 1 locked, 0 under writeback",
};

FIXTURE_VARIANT_ADD(held, writeback)
{
	.how = "writeback",
	.line = "1 held: 0 pinned, 0 locked, 1 under writeback",
	.shared = true,
};

FIXTURE_SETUP(held)
{
	ASSERT_EQ(0, load_module("cdm_test", ""));
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "2000"));
}

FIXTURE_TEARDOWN_PARENT(held)
{
	cdm_call("hold", "0 none");
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, unload_module("cdm_test"));
}

static int unplug_node(void *arg)
{
	return -cdm_unplug(*(int *)arg);
}

/*
 * Somebody has a page locked, or writes it out, and does not come to an end: the
 * answer comes in time. Then he does, and the node leaves.
 */
TEST_F_TIMEOUT(held, answer_in_time, CDM_TIMEOUT)
{
	char *addr = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | (variant->shared ? MAP_SHARED : MAP_PRIVATE),
			  -1, 0);
	time_t end;
	int log;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_pages(addr, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	drain_lru();
	ASSERT_EQ(0, cdm_call("hold", "%#lx %s", page_pfn(addr), variant->how));

	log = log_open();
	ASSERT_LE(0, log);
	pid = spawn(unplug_node, &self->nid);
	end = now() + BOUND;
	while (!log_has(log, variant->line) && now() < end)
		usleep(20000);
	EXPECT_GT(end, now()) {
		TH_LOG("no answer, or one that does not say: %s", variant->line);
	}
	close(log);
	EXPECT_TRUE(now() >= end || reap(pid) == EBUSY);
	ASSERT_EQ(0, cdm_call("hold", "0 none"));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));

	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", PLENTY));
	EXPECT_EQ(0, cdm_node_down());
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
}

FIXTURE(pinned)
{
	int nid;
	int pipes[2];
	char text[256];
	char line[1024];
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

/* Nobody holds anything: now it may take as long as it takes here. */
#define unpin()								\
do {									\
	close(self->pipes[0]);						\
	close(self->pipes[1]);						\
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", PLENTY));	\
} while (0)

/*
 * The last line about the node with these words; how many there were, or -1 if
 * there is one about a page, as offline_pages() has them.
 */
static int read_log(int log, int nid, const char *words, char *line, size_t size)
{
	char record[1024], name[32];
	ssize_t len;
	int nr = 0;

	snprintf(name, sizeof(name), "node%d: ", nid);
	for (;;) {
		len = read(log, record, sizeof(record) - 1);
		if (len < 0 && errno == EPIPE)
			continue;
		if (len <= 0)
			return nr;
		record[len] = '\0';
		if (strstr(record, "page dumped because") || strstr(record, "migrating pfn"))
			return -1;
		if (!strstr(record, name) || !strstr(record, words))
			continue;
		snprintf(line, size, "%s", record);
		nr++;
	}
}

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
	/* Who looks into the log learns why, how many pages are held, and by whom */
	EXPECT_EQ(3, read_log(log, self->nid, "cannot leave: ", self->line,
			      sizeof(self->line)));
	close(log);
	EXPECT_NE(NULL, strstr(self->line, "not all pages have moved in 2000 ms; "));
	EXPECT_NE(NULL, strstr(self->line, "; 4 held: 0 pinned, 0 locked, ")) {
		TH_LOG("%s", self->line);
	}
	snprintf(self->text, sizeof(self->text), "; by pids %d; asked by pid %d (leave)",
		 getpid(), getpid());
	EXPECT_NE(NULL, strstr(self->line, self->text)) {
		TH_LOG("%s", self->line);
	}

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
