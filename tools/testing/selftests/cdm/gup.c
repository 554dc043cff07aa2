// SPDX-License-Identifier: GPL-2.0
/*
 * Capabilities "gup" and "longterm_pin": references to the pages of the node
 * that outlive a system call, or that a device gets, are handed out only where
 * the driver allows it; long pins in place only where it allows these. What the
 * CPU does for a task, copying from or to it, always works.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <signal.h>
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
#define CORE_SEED	0xc04e000UL
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

/*
 * The same of larger folios, which GUP takes by their parts, or at one go by the
 * entry of a huge page. Where they move, they move as a whole.
 */
FIXTURE(gup_folio)
{
	int nid;
	int ram;
};

FIXTURE_VARIANT(gup_folio)
{
	const char *caps;
	bool gup;
	bool longterm;
	bool migrate;
};

FIXTURE_VARIANT_ADD(gup_folio, denied)
{
	.caps = "thp,hugetlb,migrate",
	.migrate = true,
};

FIXTURE_VARIANT_ADD(gup_folio, allowed)
{
	.caps = "thp,hugetlb,gup",
	.gup = true,
};

FIXTURE_VARIANT_ADD(gup_folio, allowed_and_migrate)
{
	.caps = "thp,hugetlb,gup,migrate",
	.gup = true,
	.migrate = true,
};

FIXTURE_VARIANT_ADD(gup_folio, longterm_allowed)
{
	.caps = "thp,hugetlb,gup,longterm_pin",
	.gup = true,
	.longterm = true,
};

FIXTURE_SETUP(gup_folio)
{
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	/* Nothing is collapsed, nor moved, while the test looks */
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting(pool_file(self->ram, "nr_hugepages"), "4"));
	ASSERT_EQ(0, pool_set(self->nid, "1"));
}

FIXTURE_TEARDOWN_PARENT(gup_folio)
{
	if (cdm_node() >= 0)
		pool_set(cdm_node(), "0");
	settings_restore();
}

/* One huge page of a pool: 0 kB stands for that */
static char *folios_on(size_t kb, int nid)
{
	char *addr;

	if (kb)
		return large_folios_on(kb, nid, SEED);
	addr = map_huge(1, MAP_NORESERVE);
	if (addr == MAP_FAILED ||
	    bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_pages(addr, HUGE_NR, PAGE_SIZE, SEED);
	return pages_on(addr, HUGE_NR, PAGE_SIZE, nid) == HUGE_NR ? addr : NULL;
}

static const size_t folio_kb[] = { 64, 2048, 0 };

TEST_F_TIMEOUT(gup_folio, short_references, CDM_TIMEOUT)
{
	size_t expected = variant->gup ? HUGE_NR : 0;
	unsigned int i, k, write;
	char *device, *ordinary;

	for (k = 0; k < ARRAY_SIZE(folio_kb); k++) {
		device = folios_on(folio_kb[k], self->nid);
		ordinary = folios_on(folio_kb[k], self->ram);
		ASSERT_NE(NULL, device);
		ASSERT_NE(NULL, ordinary);
		for (i = 0; i < ARRAY_SIZE(short_modes); i++) {
			for (write = 0; write <= FOLL_WRITE; write++) {
				EXPECT_EQ(HUGE_NR,
					  gup_gets(short_modes[i], ordinary,
						   HUGE_NR, write));
				EXPECT_EQ(expected,
					  gup_gets(short_modes[i], device,
						   HUGE_NR, write)) {
					TH_LOG("%zu kB, mode %u, write %u",
					       folio_kb[k], i, write);
				}
			}
		}
		EXPECT_EQ(HUGE_NR, pages_on(device, HUGE_NR, PAGE_SIZE, self->nid));
		EXPECT_EQ(HUGE_NR, pages_intact(device, HUGE_NR, PAGE_SIZE, SEED));
		munmap(device, HUGE);
		munmap(ordinary, HUGE);
	}
}

TEST_F_TIMEOUT(gup_folio, long_pins, CDM_TIMEOUT)
{
	bool moves = variant->gup && variant->migrate && !variant->longterm;
	bool works = variant->gup && (variant->longterm || variant->migrate);
	char *device, *ordinary;
	size_t k, kb;

	for (k = 0; k < ARRAY_SIZE(folio_kb); k++) {
		kb = folio_kb[k] ?: HUGE >> 10;
		device = folios_on(folio_kb[k], self->nid);
		ordinary = folios_on(folio_kb[k], self->ram);
		ASSERT_NE(NULL, device);
		ASSERT_NE(NULL, ordinary);
		EXPECT_EQ(HUGE_NR, gup_gets(PIN_LONGTERM_BENCHMARK, ordinary,
					    HUGE_NR, FOLL_WRITE));
		EXPECT_EQ(works ? HUGE_NR : 0,
			  gup_gets(PIN_LONGTERM_BENCHMARK, device, HUGE_NR,
				   FOLL_WRITE)) {
			TH_LOG("%zu kB", folio_kb[k]);
		}
		EXPECT_EQ(moves ? 0 : HUGE_NR,
			  pages_on(device, HUGE_NR, PAGE_SIZE, self->nid)) {
			TH_LOG("%zu kB", folio_kb[k]);
		}
		EXPECT_EQ(HUGE_NR, pages_in_folios(device, HUGE_NR, kb)) {
			TH_LOG("%zu kB", folio_kb[k]);
		}
		EXPECT_EQ(HUGE_NR, pages_intact(device, HUGE_NR, PAGE_SIZE, SEED));
		munmap(device, HUGE);
		munmap(ordinary, HUGE);
	}
}

/* A huge page of a pool that nobody has touched: the pin is the first to want it. */
TEST_F_TIMEOUT(gup_folio, long_pin_of_untouched, CDM_TIMEOUT)
{
	bool moves = variant->gup && variant->migrate && !variant->longterm;
	bool works = variant->gup && (variant->longterm || variant->migrate);
	char *addr = map_huge(1, MAP_NORESERVE);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	EXPECT_EQ(works ? HUGE_NR : 0,
		  gup_gets(PIN_LONGTERM_BENCHMARK, addr, HUGE_NR, FOLL_WRITE));
	EXPECT_EQ(moves ? 0 : HUGE_NR,
		  pages_on(addr, HUGE_NR, PAGE_SIZE, self->nid));
	munmap(addr, HUGE);
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

/* A virtual machine whose memory from GUEST on are these pages */
struct vm {
	int kvm;
	int fd;
	int cpu;
	struct kvm_run *run;
	size_t run_size;
};

#define GUEST	0x1000UL

/* In its first page: a byte of the second goes to the third, and to a port */
static const unsigned char guest_code[] = {
	0xa0, 0x00, 0x20,	/* mov 0x2000, %al */
	0xa2, 0x00, 0x30,	/* mov %al, 0x3000 */
	0xe6, 0x10,		/* out %al, $0x10 */
};

static void vm_destroy(struct vm *vm)
{
	if (vm->run && vm->run != MAP_FAILED)
		munmap(vm->run, vm->run_size);
	close(vm->cpu);
	close(vm->fd);
	close(vm->kvm);
}

/*
 * With an interrupt controller in the kernel and interrupts on, KVM does not
 * wait for a page itself but has somebody else get it.
 */
static int vm_create(struct vm *vm, char *pages, size_t nr, bool async)
{
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = GUEST,
		.memory_size = nr * PAGE_SIZE,
		.userspace_addr = (unsigned long)pages,
	};
	struct kvm_regs regs = { .rip = GUEST, .rflags = async ? 0x202 : 0x2 };
	struct kvm_sregs sregs;

	memset(vm, -1, sizeof(*vm));
	vm->run = NULL;
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return -errno;
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd < 0 || (async && ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0)) ||
	    ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
		return -errno;
	vm->cpu = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	if (vm->cpu < 0)
		return -errno;
	vm->run_size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		       vm->cpu, 0);
	if (vm->run == MAP_FAILED || ioctl(vm->cpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vm->cpu, KVM_SET_SREGS, &sregs) ||
	    ioctl(vm->cpu, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

static void on_alarm(int sig)
{
}

/* The byte that the guest says, or -errno; -EINTR if it never says anything */
static int run_guest(char *pages, bool async)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct vm vm;
	int ret;

	memcpy(pages, guest_code, sizeof(guest_code));
	ret = vm_create(&vm, pages, NR, async);
	if (!ret) {
		sigaction(SIGALRM, &action, NULL);
		alarm(60);
		ret = ioctl(vm.cpu, KVM_RUN, 0) ? -errno : 0;
		alarm(0);
	}
	if (!ret)
		ret = vm.run->exit_reason != KVM_EXIT_IO ? -EIO :
		      *((unsigned char *)vm.run + vm.run->io.data_offset);
	vm_destroy(&vm);
	return ret;
}

/* The memory of a guest: its page tables are no CPU that acts for the task */
TEST_F_TIMEOUT(gup, kvm, CDM_TIMEOUT)
{
	int async, byte = (unsigned char)self->pages[PAGE_SIZE];

	ASSERT_EQ(0, load_module("kvm_amd", ""));
	ASSERT_NE(byte, (unsigned char)self->pages[2 * PAGE_SIZE]);
	for (async = 0; async <= 1; async++) {
		ASSERT_EQ(byte, run_guest(self->ordinary, async));
		ASSERT_EQ(byte, (unsigned char)self->ordinary[2 * PAGE_SIZE]);

		fill_pages(self->pages, NR, PAGE_SIZE, SEED);
		EXPECT_EQ(variant->gup ? byte : -EFAULT,
			  run_guest(self->pages, async)) {
			TH_LOG("%s interrupts", async ? "with" : "without");
		}
		EXPECT_EQ(variant->gup,
			  byte == (unsigned char)self->pages[2 * PAGE_SIZE]);
		EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
		EXPECT_EQ(NR - 3, pages_intact(self->pages + 3 * PAGE_SIZE, NR - 3,
					       PAGE_SIZE, SEED + 3));
	}
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
	/* To wait needs no write access: but to be told that the value differs */
	ASSERT_EQ(0, mprotect(pages, PAGE_SIZE, PROT_READ));
	errno = 0;
	EXPECT_EQ(-1, syscall(SYS_futex, word, FUTEX_WAIT, 1, NULL, NULL, 0));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, mprotect(pages, PAGE_SIZE, PROT_READ | PROT_WRITE));
	/* To change it needs that. */
	EXPECT_EQ(0, syscall(SYS_futex, word, FUTEX_WAKE_OP, 1, 1, word + 1,
			     FUTEX_OP(FUTEX_OP_ADD, 7, FUTEX_OP_CMP_EQ, 0)));
	EXPECT_EQ(7, word[1]);
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

/* What a breakpoint in pages of a node does, in bytes of them, and then */
struct probed {
	int error;
	int nodes[2];		/* of the code and of the semaphore */
	int armed;		/* the semaphore while there is a breakpoint */
	long long hits;
	int code;		/* the first byte, after so many hits */
	int disarmed;
	bool restored;
};

/*
 * The nop that the kernel makes a call of, of which the last five bytes are then
 * not as they were; ret
 */
static const unsigned char probed_code[] = {
	0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc3,
};

#define PREFIX	5
#define LEA	0x48	/* The first byte of what stands there instead */
#define HITS	8

static struct probed probe(int nid)
{
	struct perf_event_attr attr = {
		.type = file_number("/sys/bus/event_source/devices/uprobe/type"),
		.size = sizeof(attr),
		/* The semaphore is at the start of the second page. */
		.config = PAGE_SIZE << 32,
		.config1 = (unsigned long)SCRATCH,
	};
	struct probed probed = { .error = -EIO };
	unsigned short *semaphore;
	unsigned char *code;
	int fd, event, i;

	unlink(SCRATCH);
	fd = open(SCRATCH, O_RDWR | O_CREAT | O_TRUNC, 0700);
	if (fd < 0 || ftruncate(fd, 2 * PAGE_SIZE) ||
	    pwrite(fd, probed_code, sizeof(probed_code), 0) < 0)
		return probed;
	code = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	semaphore = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
			 PAGE_SIZE);
	close(fd);
	if (code == MAP_FAILED || semaphore == MAP_FAILED ||
	    bind_pages(code, 1, MPOL_BIND, NODE_BIT(nid), 0) ||
	    bind_pages(semaphore, 1, MPOL_BIND, NODE_BIT(nid), 0))
		return probed;
	WRITE_ONCE(*semaphore, 0);
	READ_ONCE(*code);

	event = syscall(__NR_perf_event_open, &attr, 0, -1, -1, 0);
	probed.error = event < 0 ? -errno : 0;
	probed.nodes[0] = page_node(code);
	probed.nodes[1] = page_node(semaphore);
	probed.armed = READ_ONCE(*semaphore);
	for (i = 0; i < HITS; i++)
		((void (*)(void))code)();
	if (event >= 0 && read(event, &probed.hits, sizeof(probed.hits)) < 0)
		probed.error = -errno;
	probed.code = READ_ONCE(*code);
	close(event);
	probed.disarmed = READ_ONCE(*semaphore);
	probed.restored = !memcmp(code, probed_code, PREFIX);
	munmap(code, PAGE_SIZE);
	munmap(semaphore, PAGE_SIZE);
	return probed;
}

/* A breakpoint is written to a page of the policy of where the code is mapped */
TEST_F_TIMEOUT(gup, uprobe, CDM_TIMEOUT)
{
	struct probed ordinary, device;

	ordinary = probe(self->ram);
	ASSERT_EQ(0, ordinary.error);
	ASSERT_EQ(self->ram, ordinary.nodes[0]);
	ASSERT_EQ(self->ram, ordinary.nodes[1]);
	ASSERT_EQ(1, ordinary.armed);
	ASSERT_EQ(HITS, ordinary.hits);
	ASSERT_EQ(LEA, ordinary.code);
	ASSERT_EQ(0, ordinary.disarmed);
	ASSERT_TRUE(ordinary.restored);

	device = probe(self->nid);
	EXPECT_EQ(0, device.error);
	EXPECT_EQ(self->nid, device.nodes[0]);
	EXPECT_EQ(self->nid, device.nodes[1]);
	EXPECT_EQ(1, device.armed);
	EXPECT_EQ(HITS, device.hits);
	EXPECT_EQ(ordinary.code, device.code);
	EXPECT_EQ(0, device.disarmed);
	EXPECT_TRUE(device.restored);
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
	size_t found = 0;
	struct stat st;
	char *core;
	size_t i;
	pid_t child;
	int fd, status;

	ASSERT_EQ(0, setting("/proc/sys/kernel/core_pattern", SCRATCH));
	ASSERT_EQ(0, setting("/proc/sys/kernel/core_uses_pid", "0"));
	/* The ordinary pages are in the core, too, and have had the same content. */
	fill_pages(self->pages, NR, PAGE_SIZE, CORE_SEED);
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
	for (i = 0; i + NR * PAGE_SIZE <= (size_t)st.st_size && !found; i += PAGE_SIZE)
		if (*(unsigned long *)(core + i) == *needle)
			found = pages_intact(core + i, NR, PAGE_SIZE, CORE_SEED);
	EXPECT_EQ(NR, found);
}

TEST_HARNESS_MAIN
