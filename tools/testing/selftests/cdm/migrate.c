// SPDX-License-Identifier: GPL-2.0
/*
 * Capabilities "migrate" and "pagecache": pages, and those of files, move onto
 * and off the node when the driver allows it; when it does not, each way to ask
 * gets its own answer and no page moves. The same code runs in both directions.
 */
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "../../../../lib/test_hmm_uapi.h"
#include "cdm_util.h"

#define NR	((size_t)128)
#define SEED	0xcd000000UL
#define SCRATCH	"/scratch/cdm-migrate"

FIXTURE(migrate)
{
	int nid;
	int ram;
	char *pages;
	int status[NR];
};

FIXTURE_VARIANT(migrate)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(migrate, denied)
{
	.caps = "none",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(migrate, allowed)
{
	.caps = "migrate",
	.allowed = true,
};

FIXTURE_SETUP(migrate)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
}

FIXTURE_TEARDOWN_PARENT(migrate)
{
	unload_module("test_hmm");
	settings_restore();
}

/* move_pages() from the device to RAM */
TEST_F_TIMEOUT(migrate, move_pages_out, CDM_TIMEOUT)
{
	int expected = variant->allowed ? self->ram : -EOPNOTSUPP;
	int where = variant->allowed ? self->ram : self->nid;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->ram,
			     self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, expected));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Let another driver take the pages into memory that no CPU can reach. */
static int to_private_memory(int fd, char *pages, size_t nr)
{
	struct hmm_dmirror_cmd cmd = { .addr = (unsigned long)pages, .npages = nr };
	int ret = 0;

	cmd.ptr = (unsigned long)malloc(nr * PAGE_SIZE);
	if (!cmd.ptr || ioctl(fd, HMM_DMIRROR_MIGRATE_TO_DEV, &cmd))
		ret = -errno;
	free((void *)(unsigned long)cmd.ptr);
	return ret;
}

/* Device-private memory takes pages by migrate_vma_setup(), in its own way. */
TEST_F_TIMEOUT(migrate, private_memory, CDM_TIMEOUT)
{
	const size_t sizes[] = { NR, HUGE_NR };
	char *device, *ordinary;
	size_t i, nr;
	int fd;

	ASSERT_EQ(self->nid, cdm_node_up(variant->allowed ? "migrate,thp" : "thp"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	ASSERT_EQ(0, load_module("test_hmm", ""));
	fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		nr = sizes[i];
		if (nr == HUGE_NR) {
			device = large_folios_on(HUGE >> 10, self->nid, SEED);
			ordinary = large_folios_on(HUGE >> 10, self->ram, SEED);
		} else {
			device = filled_pages_on(nr, self->nid, SEED);
			ordinary = filled_pages_on(nr, self->ram, SEED);
		}
		ASSERT_NE(NULL, device);
		ASSERT_NE(NULL, ordinary);
		/* Control */
		EXPECT_EQ(0, to_private_memory(fd, ordinary, nr));
		EXPECT_EQ(0, pages_on(ordinary, nr, PAGE_SIZE, self->ram));
		EXPECT_EQ(nr, pages_intact(ordinary, nr, PAGE_SIZE, SEED));

		EXPECT_EQ(variant->allowed ? 0 : -ENOENT,
			  to_private_memory(fd, device, nr));
		EXPECT_EQ(variant->allowed ? 0 : nr,
			  pages_on(device, nr, PAGE_SIZE, self->nid));
		/* Who touches them gets them back, to where the policy says. */
		EXPECT_EQ(nr, pages_intact(device, nr, PAGE_SIZE, SEED));
		EXPECT_EQ(nr, pages_on(device, nr, PAGE_SIZE, self->nid));
		unmap_pages(device, nr);
		unmap_pages(ordinary, nr);
	}
	close(fd);
}

/* move_pages() from RAM to the device */
TEST_F_TIMEOUT(migrate, move_pages_in, CDM_TIMEOUT)
{
	int expected = variant->allowed ? self->nid : -EOPNOTSUPP;
	int where = variant->allowed ? self->nid : self->ram;

	self->pages = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->nid,
			     self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, expected));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* One call, pages of both kinds: each gets its own answer, the others move */
TEST_F_TIMEOUT(migrate, move_pages_answers_per_page, CDM_TIMEOUT)
{
	int other = ram_node(1);
	void *addr[4];
	int target[4];
	char *device, *ram;

	ASSERT_LE(0, other);
	device = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, device);
	ram = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, ram);
	self->pages = map_pages(1);
	ASSERT_NE(NULL, self->pages);

	addr[0] = ram;
	target[0] = other;
	addr[1] = device;
	target[1] = other;
	addr[2] = self->pages;
	target[2] = other;
	addr[3] = ram + PAGE_SIZE;
	target[3] = self->nid;
	EXPECT_EQ(0, move_pages(0, 4, addr, target, self->status,
				MPOL_MF_MOVE_ALL));
	EXPECT_EQ(other, self->status[0]);
	EXPECT_EQ(variant->allowed ? other : -EOPNOTSUPP, self->status[1]);
	/* Nothing is there: as on every kernel */
	EXPECT_EQ(-ENOENT, self->status[2]);
	EXPECT_EQ(variant->allowed ? self->nid : -EOPNOTSUPP, self->status[3]);
	EXPECT_EQ(other, page_node(ram));
	EXPECT_EQ(variant->allowed ? other : self->nid, page_node(device));
	EXPECT_EQ(variant->allowed ? self->nid : self->ram,
		  page_node(ram + PAGE_SIZE));
}

/* migrate_pages() of the whole process, off the device */
TEST_F_TIMEOUT(migrate, migrate_pages_out, CDM_TIMEOUT)
{
	unsigned long from = NODE_BIT(self->nid), to = NODE_BIT(self->ram);
	int where = variant->allowed ? self->ram : self->nid;
	long ret;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);

	ret = migrate_pages(0, 64, &from, &to);
	/* How many did not move */
	EXPECT_EQ(variant->allowed, ret == 0);
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* migrate_pages() of the whole process, onto the device */
TEST_F_TIMEOUT(migrate, migrate_pages_in, CDM_TIMEOUT)
{
	unsigned long from = NODE_BIT(self->ram), to = NODE_BIT(self->nid);
	int where = variant->allowed ? self->nid : self->ram;
	long ret;

	self->pages = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->pages);

	/* How many did not move; those of libraries never do, page cache is denied */
	ret = migrate_pages(0, 64, &from, &to);
	EXPECT_NE(-1, ret);
	if (!variant->allowed)
		EXPECT_LE((long)NR, ret);
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* mbind(MPOL_MF_STRICT | MPOL_MF_MOVE) must move everything or say -EIO */
TEST_F_TIMEOUT(migrate, mbind_strict_out, CDM_TIMEOUT)
{
	int where = variant->allowed ? self->ram : self->nid;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->ram),
			     MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(migrate, mbind_strict_in, CDM_TIMEOUT)
{
	int where = variant->allowed ? self->nid : self->ram;

	self->pages = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->pages);

	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->nid),
			     MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Without MPOL_MF_STRICT, what cannot move stays and mbind() succeeds */
TEST_F_TIMEOUT(migrate, mbind_move, CDM_TIMEOUT)
{
	int out = variant->allowed ? self->ram : self->nid;
	int in = variant->allowed ? self->nid : self->ram;
	char *ram;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	ram = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, ram);

	EXPECT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND,
				NODE_BIT(self->ram), MPOL_MF_MOVE_ALL));
	EXPECT_EQ(0, bind_pages(ram, NR, MPOL_BIND, NODE_BIT(self->nid),
				MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, out));
	EXPECT_EQ(NR, pages_on(ram, NR, PAGE_SIZE, in));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_intact(ram, NR, PAGE_SIZE, SEED));
}

FIXTURE(pagecache)
{
	int nid;
	int ram;
	int fd;
	char *pages;
	int status[NR];
};

FIXTURE_VARIANT(pagecache)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(pagecache, denied)
{
	.caps = "migrate",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(pagecache, allowed)
{
	.caps = "migrate,pagecache",
	.allowed = true,
};

FIXTURE_SETUP(pagecache)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	/* A regular file, all of it in the page cache and clean */
	self->fd = open(SCRATCH, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ftruncate(self->fd, NR * PAGE_SIZE));
	self->pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(0, msync(self->pages, NR * PAGE_SIZE, MS_SYNC));
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));
	drain_lru();
}

FIXTURE_TEARDOWN_PARENT(pagecache)
{
	unlink(SCRATCH);
	settings_restore();
}

static int read_page(int fd, size_t index, unsigned long seed)
{
	static char page[PAGE_SIZE];

	if (pread(fd, page, PAGE_SIZE, index * PAGE_SIZE) != (ssize_t)PAGE_SIZE)
		return -errno;
	return page_is(page, seed);
}

/* move_pages() into the device, and what the pages are good for there */
TEST_F_TIMEOUT(pagecache, move_pages, CDM_TIMEOUT)
{
	int expected = variant->allowed ? self->nid : -EOPNOTSUPP;
	int where = variant->allowed ? self->nid : self->ram;
	int other = ram_node(1);
	char page[PAGE_SIZE];
	size_t i;

	/* Control: to another ordinary node, and back */
	ASSERT_LE(0, other);
	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, other, self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, other));
	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->ram, self->status));
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));

	EXPECT_EQ(0, move_to(self->pages, NR, PAGE_SIZE, self->nid, self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, expected));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));

	/* What one way of access writes the other reads, and the disk has */
	fill_page(page, SEED);
	for (i = 0; i < NR; i++) {
		ASSERT_EQ(1, read_page(self->fd, i, SEED + i));
		fill_page(page, SEED + 2 * i);
		ASSERT_EQ((ssize_t)PAGE_SIZE, pwrite(self->fd, page, PAGE_SIZE,
						     i * PAGE_SIZE));
		ASSERT_TRUE(page_is(self->pages + i * PAGE_SIZE, SEED + 2 * i));
	}
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	ASSERT_EQ(0, fsync(self->fd));
	munmap(self->pages, NR * PAGE_SIZE);
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED));
	self->pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
	for (i = 0; i < NR; i++)
		ASSERT_TRUE(page_is(self->pages + i * PAGE_SIZE, SEED + 2 * i));
	/* Read again, it is in ordinary memory: nobody has moved it this time. */
	EXPECT_EQ(0, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
}

/* The policy of the range says nothing of a file, but what is there moves */
TEST_F_TIMEOUT(pagecache, mbind_strict, CDM_TIMEOUT)
{
	int where = variant->allowed ? self->nid : self->ram;

	EXPECT_EQ(variant->allowed ? 0 : -EIO,
		  bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->nid),
			     MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	/* The way out is open to what has come in. */
	EXPECT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->ram),
				MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->ram));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Of a whole process, whose anonymous pages come in each case */
TEST_F_TIMEOUT(pagecache, migrate_pages, CDM_TIMEOUT)
{
	unsigned long from = NODE_BIT(self->ram), to = NODE_BIT(self->nid);
	int where = variant->allowed ? self->nid : self->ram;
	char *own;

	own = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, own);
	EXPECT_NE(-1, migrate_pages(0, 64, &from, &to));
	EXPECT_EQ(NR, pages_on(own, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, where));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* Shared memory has no file that it could be read from again: no page cache */
TEST_F_TIMEOUT(pagecache, memfd_is_none, CDM_TIMEOUT)
{
	int fd = memfd_create("cdm", 0);
	char *pages;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, pages);
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	drain_lru();
	EXPECT_EQ(0, move_to(pages, NR, PAGE_SIZE, self->nid, self->status));
	EXPECT_EQ(NR, count_status(self->status, NR, self->nid));
	EXPECT_EQ(NR, pages_on(pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));
	close(fd);
}

TEST_HARNESS_MAIN
