// SPDX-License-Identifier: GPL-2.0
/*
 * Capabilities "gup" and "longterm_pin": references to the pages of the node
 * that outlive a system call, or that a device gets, are handed out only where
 * the driver allows it; long pins in place only where it allows these. What the
 * CPU does for a task, copying from or to it, always works.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/memfd.h>
#include <linux/udmabuf.h>
#include <linux/io_uring.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"
#include "../../../../mm/gup_test.h"

#define NR		((size_t)32)
#define SEED		0x6009UL
#define SCRATCH		"/scratch/cdm-gup"

FIXTURE(gup)
{
	int nid;
	int ram;
	char *pages;
	char *ordinary;
};

FIXTURE_VARIANT(gup)
{
	const char *caps;
	bool gup;
	bool longterm;
	bool migrate;
};

FIXTURE_VARIANT_ADD(gup, denied)
{
	.caps = "migrate",
	.migrate = true,
};

FIXTURE_VARIANT_ADD(gup, allowed)
{
	.caps = "gup",
	.gup = true,
};

FIXTURE_VARIANT_ADD(gup, allowed_and_migrate)
{
	.caps = "gup,migrate",
	.gup = true,
	.migrate = true,
};

FIXTURE_VARIANT_ADD(gup, longterm_allowed)
{
	.caps = "gup,longterm_pin",
	.gup = true,
	.longterm = true,
};

FIXTURE_SETUP(gup)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	self->ordinary = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, self->ordinary);
}

FIXTURE_TEARDOWN_PARENT(gup)
{
	unlink(SCRATCH);
	settings_restore();
}

static const unsigned long short_modes[] = {
	GUP_FAST_BENCHMARK, PIN_FAST_BENCHMARK, GUP_BASIC_TEST, PIN_BASIC_TEST,
};

TEST_F_TIMEOUT(gup, short_references, CDM_TIMEOUT)
{
	size_t expected = variant->gup ? NR : 0;
	unsigned int i, write;

	for (i = 0; i < ARRAY_SIZE(short_modes); i++) {
		for (write = 0; write <= FOLL_WRITE; write++) {
			EXPECT_EQ(NR, gup_gets(short_modes[i], self->ordinary, NR,
					       write));
			EXPECT_EQ(expected, gup_gets(short_modes[i], self->pages,
						     NR, write)) {
				TH_LOG("mode %u write %u", i, write);
			}
		}
	}
	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/*
 * A pin for long: in place, or elsewhere after the page was moved, or not. The
 * pages' node after that shows which.
 */
TEST_F_TIMEOUT(gup, long_pins, CDM_TIMEOUT)
{
	bool moves = variant->gup && variant->migrate && !variant->longterm;
	bool works = variant->gup && (variant->longterm || variant->migrate);

	EXPECT_EQ(NR, gup_gets(PIN_LONGTERM_BENCHMARK, self->ordinary, NR,
			       FOLL_WRITE));
	EXPECT_EQ(works ? NR : 0, gup_gets(PIN_LONGTERM_BENCHMARK, self->pages, NR,
					   FOLL_WRITE));
	EXPECT_EQ(moves ? 0 : NR,
		  pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

/* The pin is what touches the memory first, as it is with RDMA */
TEST_F_TIMEOUT(gup, long_pins_of_fresh_memory, CDM_TIMEOUT)
{
	bool works = variant->gup && (variant->longterm || variant->migrate);
	char *fresh = map_pages_on(NR, self->nid);

	ASSERT_NE(NULL, fresh);
	EXPECT_EQ(works ? NR : 0, gup_gets(PIN_LONGTERM_BENCHMARK, fresh, NR,
					   FOLL_WRITE));
	if (works)
		EXPECT_EQ(variant->longterm ? NR : 0,
			  pages_on(fresh, NR, PAGE_SIZE, self->nid));
}

/* Direct I/O: the device of the block layer reads or writes the page itself */
TEST_F_TIMEOUT(gup, direct_io, CDM_TIMEOUT)
{
	const ssize_t size = NR * PAGE_SIZE;
	int fd;

	fd = open(SCRATCH, O_RDWR | O_CREAT | O_DIRECT, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(size, pwrite(fd, self->ordinary, size, 0));
	ASSERT_EQ(size, pread(fd, self->ordinary, size, 0));

	errno = 0;
	EXPECT_EQ(variant->gup ? size : -1, pwrite(fd, self->pages, size, 0));
	EXPECT_EQ(variant->gup ? 0 : EFAULT, errno);
	errno = 0;
	EXPECT_EQ(variant->gup ? size : -1, pread(fd, self->pages, size, 0));
	EXPECT_EQ(variant->gup ? 0 : EFAULT, errno);
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	close(fd);

	/* Through the page cache nobody has a reference */
	fd = open(SCRATCH, O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(size, pwrite(fd, self->pages, size, 0));
	EXPECT_EQ(size, pread(fd, self->pages, size, 0));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
	close(fd);
}

/* A buffer that io_uring keeps: a long pin */
static int register_buffer(void *addr, size_t size)
{
	struct io_uring_params params = {};
	struct iovec iov = { .iov_base = addr, .iov_len = size };
	int fd, ret;

	fd = syscall(__NR_io_uring_setup, 4, &params);
	if (fd < 0)
		return -errno;
	ret = syscall(__NR_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov,
		      1);
	ret = ret < 0 ? -errno : ret;
	close(fd);
	return ret;
}

TEST_F_TIMEOUT(gup, io_uring, CDM_TIMEOUT)
{
	bool works = variant->gup && (variant->longterm || variant->migrate);
	int expected = works ? 0 : variant->gup ? -EOPNOTSUPP : -EFAULT;

	ASSERT_EQ(0, register_buffer(self->ordinary, NR * PAGE_SIZE));
	EXPECT_EQ(expected, register_buffer(self->pages, NR * PAGE_SIZE));
	EXPECT_EQ(works && !variant->longterm ? 0 : NR,
		  pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(self->pages, NR, PAGE_SIZE, SEED));
}

TEST_F_TIMEOUT(gup, vmsplice, CDM_TIMEOUT)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	iov.iov_base = self->ordinary;
	ASSERT_EQ(PAGE_SIZE, vmsplice(fds[1], &iov, 1, 0));
	iov.iov_base = self->pages;
	errno = 0;
	EXPECT_EQ(variant->gup ? (ssize_t)PAGE_SIZE : -1,
		  vmsplice(fds[1], &iov, 1, 0));
	EXPECT_EQ(variant->gup ? 0 : EFAULT, errno);
}

/* A memfd whose pages are on the device */
static char *memfd_on(int nid, int *fd)
{
	char *pages;

	*fd = memfd_create("cdm-gup", MFD_ALLOW_SEALING);
	if (*fd < 0 || ftruncate(*fd, NR * PAGE_SIZE))
		return NULL;
	pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		     *fd, 0);
	if (pages == MAP_FAILED ||
	    bind_pages(pages, NR, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	return pages;
}

/*
 * What splice puts into a pipe are references to the pages, if it may: then a
 * later write to the memfd shows in the pipe. Else it is a copy.
 */
TEST_F_TIMEOUT(gup, splice_from_memfd, CDM_TIMEOUT)
{
	unsigned long word, before;
	loff_t offset = 0;
	int memfd, fds[2];
	char *pages;

	pages = memfd_on(self->nid, &memfd);
	ASSERT_NE(NULL, pages);
	ASSERT_EQ(NR, pages_on(pages, NR, PAGE_SIZE, self->nid));
	before = *(unsigned long *)pages;

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ((ssize_t)sizeof(word),
		  splice(memfd, &offset, fds[1], NULL, sizeof(word), 0));
	WRITE_ONCE(*(unsigned long *)pages, ~before);
	ASSERT_EQ((ssize_t)sizeof(word), read(fds[0], &word, sizeof(word)));
	EXPECT_EQ(variant->gup ? ~before : before, word);
}

/* The same of the page cache of a file, that was moved there */
TEST_F_TIMEOUT(gup, splice_from_file, CDM_TIMEOUT)
{
	unsigned long word, before;
	int fd, fds[2], status;
	loff_t offset = 0;
	char *page;

	self->nid = cdm_node_up(variant->gup ? "migrate,pagecache,gup" :
					       "migrate,pagecache");
	ASSERT_LE(0, self->nid);
	fd = open(SCRATCH, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(PAGE_SIZE, write(fd, self->ordinary, PAGE_SIZE));
	ASSERT_EQ(0, fsync(fd));
	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, page);
	before = READ_ONCE(*(unsigned long *)page);
	drain_lru();
	ASSERT_LE(0, move_to(page, 1, PAGE_SIZE, self->nid, &status));
	ASSERT_EQ(self->nid, page_node(page));

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ((ssize_t)sizeof(word),
		  splice(fd, &offset, fds[1], NULL, sizeof(word), 0));
	WRITE_ONCE(*(unsigned long *)page, ~before);
	ASSERT_EQ((ssize_t)sizeof(word), read(fds[0], &word, sizeof(word)));
	EXPECT_EQ(variant->gup ? ~before : before, word);
	ASSERT_EQ(self->nid, page_node(page));
	munmap(page, PAGE_SIZE);
}

/* All of it by sendfile: the data must be right either way */
TEST_F_TIMEOUT(gup, sendfile_from_memfd, CDM_TIMEOUT)
{
	ssize_t size = NR * PAGE_SIZE, done = 0, ret;
	char *pages, *copy;
	int memfd, fd;

	pages = memfd_on(self->nid, &memfd);
	ASSERT_NE(NULL, pages);
	fd = open(SCRATCH, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, fd);
	while (done < size) {
		ret = sendfile(fd, memfd, NULL, size - done);
		ASSERT_LT(0, ret);
		done += ret;
	}
	copy = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, copy);
	EXPECT_EQ(0, memcmp(copy, pages, size));
}

TEST_F_TIMEOUT(gup, udmabuf, CDM_TIMEOUT)
{
	bool works = variant->gup && (variant->longterm || variant->migrate);
	struct udmabuf_create create = { .size = NR * PAGE_SIZE };
	int memfd, dev, fd;
	char *pages;

	dev = open("/dev/udmabuf", O_RDWR);
	ASSERT_LE(0, dev);

	/* Control */
	ASSERT_NE(NULL, memfd_on(self->ram, &memfd));
	ASSERT_EQ(0, fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK));
	create.memfd = memfd;
	fd = ioctl(dev, UDMABUF_CREATE, &create);
	ASSERT_LE(0, fd);
	close(fd);

	pages = memfd_on(self->nid, &memfd);
	ASSERT_NE(NULL, pages);
	ASSERT_EQ(0, fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK));
	create.memfd = memfd;
	errno = 0;
	fd = ioctl(dev, UDMABUF_CREATE, &create);
	EXPECT_EQ(works, fd >= 0) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_EQ(works && !variant->longterm ? 0 : NR,
		  pages_on(pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));
	if (fd >= 0)
		close(fd);
}

/* What the CPU does for a task: works whatever the mask says */

static int sleep_for_ever(void *arg)
{
	for (;;)
		pause();
	return 0;
}

TEST_F_TIMEOUT(gup, process_vm, CDM_TIMEOUT)
{
	static char buffer[PAGE_SIZE];
	struct iovec local = { .iov_base = buffer, .iov_len = PAGE_SIZE };
	struct iovec remote = { .iov_base = self->pages, .iov_len = PAGE_SIZE };
	pid_t child = spawn(sleep_for_ever, NULL);

	ASSERT_LT(0, child);
	EXPECT_EQ(PAGE_SIZE, process_vm_readv(child, &local, 1, &remote, 1, 0));
	EXPECT_TRUE(page_is(buffer, SEED));
	remote.iov_base = self->pages + PAGE_SIZE;
	EXPECT_EQ(PAGE_SIZE, process_vm_writev(child, &local, 1, &remote, 1, 0));
	kill_and_reap(child);
}

TEST_F_TIMEOUT(gup, ptrace, CDM_TIMEOUT)
{
	pid_t child = spawn(sleep_for_ever, NULL);
	long word, expected = *(long *)self->pages;
	int status;

	ASSERT_LT(0, child);
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, child, NULL, NULL));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, child, NULL, NULL));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, child, self->pages, NULL);
	EXPECT_EQ(0, errno);
	EXPECT_EQ(expected, word);
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, child, self->pages, ~expected));
	EXPECT_EQ(~expected, ptrace(PTRACE_PEEKDATA, child, self->pages, NULL));
	ptrace(PTRACE_DETACH, child, NULL, NULL);
	kill_and_reap(child);
	EXPECT_EQ(expected, *(long *)self->pages);
}

static int wait_for_futex(void *arg)
{
	unsigned int *word = arg;

	while (!READ_ONCE(*word))
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	return 0;
}

/* A futex in memory that is shared: the key is made of the page */
TEST_F_TIMEOUT(gup, shared_futex, CDM_TIMEOUT)
{
	unsigned int *word;
	pid_t child;
	char *pages;

	pages = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pages);
	ASSERT_EQ(0, bind_pages(pages, 1, MPOL_BIND, NODE_BIT(self->nid), 0));
	word = (unsigned int *)pages;
	*word = 0;
	ASSERT_EQ(self->nid, page_node(pages));
	child = spawn(wait_for_futex, word);
	ASSERT_LT(0, child);
	/* The child sleeps: one waits, and is woken */
	EXPECT_TRUE(wait_for(syscall(SYS_futex, word, FUTEX_REQUEUE, 0, 1, word,
				     0) == 1 ||
			     syscall(SYS_futex, word, FUTEX_WAKE, 0, NULL, NULL,
				     0) >= 0));
	WRITE_ONCE(*word, 1);
	EXPECT_LE(0, syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(0, reap(child));
}

/* get_mempolicy() looks the page up to tell its node */
TEST_F_TIMEOUT(gup, get_mempolicy, CDM_TIMEOUT)
{
	int node = -1;

	EXPECT_EQ(0, get_mempolicy(&node, NULL, 0, self->pages,
				   MPOL_F_NODE | MPOL_F_ADDR));
	EXPECT_EQ(self->nid, node);
}

/* A core dump has the device's pages in it */
TEST_F_TIMEOUT(gup, core_dump, CDM_TIMEOUT)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	const unsigned long *needle = (unsigned long *)self->pages;
	bool found = false;
	struct stat st;
	char *core;
	size_t i;
	pid_t child;
	int fd, status;

	ASSERT_EQ(0, setting("/proc/sys/kernel/core_pattern", SCRATCH));
	ASSERT_EQ(0, setting("/proc/sys/kernel/core_uses_pid", "0"));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		setrlimit(RLIMIT_CORE, &unlimited);
		abort();
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	EXPECT_TRUE(WCOREDUMP(status));

	fd = open(SCRATCH, O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstat(fd, &st));
	core = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, core);
	for (i = 0; i + PAGE_SIZE <= (size_t)st.st_size && !found; i += PAGE_SIZE)
		found = *(unsigned long *)(core + i) == *needle &&
			page_is(core + i, SEED);
	EXPECT_TRUE(found);
}

TEST_HARNESS_MAIN
