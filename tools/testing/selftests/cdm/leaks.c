// SPDX-License-Identifier: GPL-2.0
/*
 * Ways round the rules that belong to no single agent: calls that act in another
 * process's name, that hand pages or ranges on, or that must put pages somewhere
 * in a hurry. Each with pages on the device and with pages in RAM, side by side.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE	67
#endif
#ifndef UFFDIO_MOVE
#define UFFDIO_MOVE		_IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFD_FEATURE_MOVE	0x10000
#endif

#define NR		((size_t)64)
#define SEED		0x1ea50000UL
#define SAME		0x5a3e5a3eUL
#define ZRAM		"/dev/zram0"
#define ZSWAP		"/sys/module/zswap/parameters/enabled"

FIXTURE(leaks)
{
	int nid;
	int ram;
	pid_t child;
	bool zram_off;
};

FIXTURE_SETUP(leaks)
{
	self->child = 0;
	self->zram_off = false;
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, run_on_node(self->ram));
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
}

FIXTURE_TEARDOWN_PARENT(leaks)
{
	kill_and_reap(self->child);
	if (self->zram_off)
		swapon(ZRAM, SWAP_FLAG_PREFER | 1);
	settings_restore();
}

static int uffd_open(void *addr, size_t len, unsigned long long features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register range = {
		.range = { .start = (unsigned long)addr, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

/* A copy goes where the target range says, wherever the source is. */
TEST_F_TIMEOUT(leaks, uffd_copy, CDM_TIMEOUT)
{
	const int from[] = { self->nid, self->ram };
	const int to[] = { self->ram, self->nid };
	struct uffdio_copy copy = { .len = NR * PAGE_SIZE };
	char *source, *target;
	size_t i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(from); i++) {
		source = filled_pages_on(NR, from[i], SEED);
		ASSERT_NE(NULL, source);
		target = to[i] == self->nid ? map_pages_on(NR, to[i]) : map_pages(NR);
		ASSERT_NE(NULL, target);
		fd = uffd_open(target, NR * PAGE_SIZE, 0);
		ASSERT_LE(0, fd);
		copy.src = (unsigned long)source;
		copy.dst = (unsigned long)target;
		ASSERT_EQ(0, ioctl(fd, UFFDIO_COPY, &copy));
		EXPECT_EQ(NR, pages_on(target, NR, PAGE_SIZE, to[i]));
		EXPECT_EQ(NR, pages_on(source, NR, PAGE_SIZE, from[i]));
		EXPECT_EQ(NR, pages_intact(target, NR, PAGE_SIZE, SEED));
		close(fd);
		unmap_pages(source, NR);
		unmap_pages(target, NR);
	}
}

/*
 * What is handed on by UFFDIO_MOVE or mremap() is the page itself: it stays where
 * it was, and so does what the node says about it.
 */
TEST_F_TIMEOUT(leaks, uffd_move, CDM_TIMEOUT)
{
	struct uffdio_move move = { .len = NR * PAGE_SIZE };
	char *source, *target;
	int fd;

	source = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, source);
	target = map_pages(NR);
	ASSERT_NE(NULL, target);
	fd = uffd_open(target, NR * PAGE_SIZE, UFFD_FEATURE_MOVE);
	ASSERT_LE(0, fd);
	move.src = (unsigned long)source;
	move.dst = (unsigned long)target;
	ASSERT_EQ(0, ioctl(fd, UFFDIO_MOVE, &move));
	close(fd);
	EXPECT_EQ(NR, pages_on(target, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(target, NR, PAGE_SIZE, SEED));
	/* The node denies reclaim, whichever range its pages are in. */
	EXPECT_EQ(0, madvise(target, NR * PAGE_SIZE, MADV_PAGEOUT));
	EXPECT_EQ(NR, pages_on(target, NR, PAGE_SIZE, self->nid));
}

TEST_F_TIMEOUT(leaks, mremap, CDM_TIMEOUT)
{
	char *named, *plain;

	named = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, named);
	plain = map_pages(NR);
	ASSERT_NE(NULL, plain);
	fill_pages(plain, NR, PAGE_SIZE, SEED);

	/* The policy goes along, for the pages to come as well. */
	named = mremap(named, NR * PAGE_SIZE, 2 * NR * PAGE_SIZE, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, named);
	plain = mremap(plain, NR * PAGE_SIZE, 2 * NR * PAGE_SIZE, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, plain);
	fill_pages(named + NR * PAGE_SIZE, NR, PAGE_SIZE, SEED);
	fill_pages(plain + NR * PAGE_SIZE, NR, PAGE_SIZE, SEED);
	EXPECT_EQ(2 * NR, pages_on(named, 2 * NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(0, pages_on(plain, 2 * NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(named, NR, PAGE_SIZE, SEED));
}

struct target {
	char *named;
	char *plain;
	int done;
	size_t intact;
};

static int idle(void *arg)
{
	struct target *t = arg;

	while (!READ_ONCE(t->done))
		usleep(10000);
	t->intact = pages_intact(t->named, NR, PAGE_SIZE, SEED) +
		    pages_intact(t->plain, NR, PAGE_SIZE, SEED);
	return 0;
}

/* Somebody else's advice moves no page that the node keeps. */
TEST_F_TIMEOUT(leaks, process_madvise_denied, CDM_TIMEOUT)
{
	struct target *t = shared_page();
	struct iovec range[2];
	long long out;
	int pidfd;

	ASSERT_NE(NULL, t);
	/* Only the child has them: pages that are shared are left alone anyway. */
	t->named = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, t->named);
	t->plain = filled_pages_on(NR, self->ram, SEED);
	ASSERT_NE(NULL, t->plain);
	self->child = spawn(idle, t);
	ASSERT_LT(0, self->child);
	range[0].iov_base = t->named;
	range[1].iov_base = t->plain;
	range[0].iov_len = NR * PAGE_SIZE;
	range[1].iov_len = NR * PAGE_SIZE;
	unmap_pages(t->named, NR);
	unmap_pages(t->plain, NR);

	pidfd = syscall(__NR_pidfd_open, self->child, 0);
	ASSERT_LE(0, pidfd);
	out = vm_event("pswpout");
	/* Positive control: the RAM pages go. */
	EXPECT_TRUE(wait_for((drain_lru(),
			      syscall(__NR_process_madvise, pidfd, range, 2,
				      MADV_PAGEOUT, 0) >= 0) &&
			     vm_event("pswpout") >= out + (long long)NR / 2));
	{
		void *pages[NR];
		int status[NR];
		size_t i;

		for (i = 0; i < NR; i++)
			pages[i] = t->named + i * PAGE_SIZE;
		ASSERT_EQ(0, move_pages(self->child, NR, pages, NULL, status, 0));
		EXPECT_EQ(NR, count_status(status, NR, self->nid));
	}
	close(pidfd);
	t->done = 1;
	EXPECT_EQ(0, reap(self->child));
	self->child = 0;
	EXPECT_EQ(2 * NR, t->intact);
}

/* Every range of the process is for KSM, and the node still says no. */
TEST_F_TIMEOUT(leaks, memory_merge_denied, CDM_TIMEOUT)
{
	char *named, *plain;
	size_t i;

	ASSERT_EQ(0, ksm_start("1"));
	named = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, named);
	plain = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, plain);
	for (i = 0; i < NR; i++) {
		fill_page(named + i * PAGE_SIZE, SAME);
		fill_page(plain + i * PAGE_SIZE, SAME);
	}
	ASSERT_EQ(0, prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0));
	/* Positive control */
	EXPECT_TRUE(wait_for(pages_ksm(plain, NR, PAGE_SIZE) == NR));
	EXPECT_EQ(0, ksm_scans(4));
	EXPECT_EQ(0, pages_ksm(named, NR, PAGE_SIZE));
	EXPECT_EQ(NR, pages_on(named, NR, PAGE_SIZE, self->nid));
	prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
	ksm_stop();
}

struct swapper {
	int nid;
	char *plain;
};

static int swap_off_bound(void *arg)
{
	struct swapper *s = arg;
	unsigned long nodes = NODE_BIT(s->nid);

	/* What is its own, too, it may bring where it wants. */
	unmap_pages(s->plain, 4 * NR);
	if (set_mempolicy(MPOL_BIND, &nodes, 65))
		return 1;
	return swapoff(ZRAM) ? 2 : 0;
}

/* swapoff(8) under "numactl --membind" brings everybody's pages in, not there. */
TEST_F_TIMEOUT(leaks, swapoff_denied, CDM_TIMEOUT)
{
	struct swapper *s = shared_page();
	char *plain, *shared;
	long long in;

	ASSERT_NE(NULL, s);
	s->nid = self->nid;
	/* For more to be on the one that goes than on the other */
	plain = map_pages(4 * NR);
	ASSERT_NE(NULL, plain);
	s->plain = plain;
	fill_pages(plain, 4 * NR, PAGE_SIZE, SEED);
	shared = mmap(NULL, 4 * NR * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	fill_pages(shared, 4 * NR, PAGE_SIZE, ~SEED);
	drain_lru();
	ASSERT_EQ(0, madvise(plain, 4 * NR * PAGE_SIZE, MADV_PAGEOUT));
	ASSERT_EQ(0, madvise(shared, 4 * NR * PAGE_SIZE, MADV_PAGEOUT));
	ASSERT_GT(4 * NR, pages_on(plain, 4 * NR, PAGE_SIZE, self->ram));

	in = vm_event("pswpin");
	self->zram_off = true;
	self->child = spawn(swap_off_bound, s);
	EXPECT_EQ(0, reap(self->child));
	self->child = 0;
	/* Positive control: it did read pages. */
	EXPECT_LT(in, vm_event("pswpin"));
	EXPECT_EQ(4 * NR, pages_intact(plain, 4 * NR, PAGE_SIZE, SEED));
	EXPECT_EQ(4 * NR, pages_intact(shared, 4 * NR, PAGE_SIZE, ~SEED));
	EXPECT_EQ(0, pages_on(plain, 4 * NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(0, pages_on(shared, 4 * NR, PAGE_SIZE, self->nid));
}

/* What zswap makes of device pages is the kernel's own, and in RAM. */
TEST_F_TIMEOUT(leaks, zswap, CDM_TIMEOUT)
{
	long long stored;
	struct node_use use;
	char *named;

	ASSERT_EQ(0, setting(ZSWAP, "Y"));
	self->nid = cdm_node_up("migrate,reclaim,swap");
	ASSERT_LE(0, self->nid);
	named = filled_pages_on(4 * NR, self->nid, SEED);
	ASSERT_NE(NULL, named);
	stored = vm_event("zswpout");
	drain_lru();
	EXPECT_TRUE(wait_for(!madvise(named, 4 * NR * PAGE_SIZE, MADV_PAGEOUT) &&
			     vm_event("zswpout") >= stored + (long long)NR));
	ASSERT_EQ(0, device_use(&use));
	EXPECT_GT(4 * NR, use.used);
	EXPECT_EQ(use.anon, use.used);
	EXPECT_EQ(4 * NR, pages_intact(named, 4 * NR, PAGE_SIZE, SEED));
	EXPECT_EQ(4 * NR, pages_on(named, 4 * NR, PAGE_SIZE, self->nid));
}

struct family {
	char *named;
	char *plain;
	int nid;
	int ram;
	int stop;
	size_t moved;
};

static int mover(void *arg)
{
	struct family *f = arg;
	int nodes[NR], status[NR];
	void *pages[NR];
	int nid = f->nid;
	size_t i;

	for (i = 0; i < NR; i++)
		pages[i] = f->named + i * PAGE_SIZE;
	while (!READ_ONCE(f->stop)) {
		nid = nid == f->nid ? f->ram : f->nid;
		for (i = 0; i < NR; i++)
			nodes[i] = nid;
		/* They are mapped by its family, too. */
		if (move_pages(0, NR, pages, nodes, status, MPOL_MF_MOVE_ALL) < 0)
			return 1;
		f->moved += count_status(status, NR, nid);
	}
	return 0;
}

static int brief(void *arg)
{
	struct family *f = arg;

	if (pages_intact(f->named, NR, PAGE_SIZE, SEED) != NR ||
	    pages_intact(f->plain, NR, PAGE_SIZE, SEED) != NR)
		return 2;
	fill_pages(f->plain, NR, PAGE_SIZE, ~SEED);
	return pages_on(f->plain, NR, PAGE_SIZE, f->nid) ? 3 : 0;
}

/* Processes are born while their pages move: no content is lost, no page strays. */
TEST_F_TIMEOUT(leaks, fork_while_moving, CDM_TIMEOUT)
{
	struct family *f = shared_page();
	int i;

	ASSERT_NE(NULL, f);
	f->nid = self->nid;
	f->ram = self->ram;
	f->named = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, f->named);
	f->plain = map_pages(NR);
	ASSERT_NE(NULL, f->plain);
	fill_pages(f->plain, NR, PAGE_SIZE, SEED);
	self->child = spawn(mover, f);
	ASSERT_LT(0, self->child);
	for (i = 0; i < 50; i++)
		ASSERT_EQ(0, reap(spawn(brief, f)));
	f->stop = 1;
	EXPECT_EQ(0, reap(self->child));
	self->child = 0;
	/* Positive control */
	EXPECT_LE(NR, f->moved);
	EXPECT_EQ(NR, pages_intact(f->named, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(0, pages_on(f->plain, NR, PAGE_SIZE, self->nid));
}

/* Pages of a guest's private memory, which do not move: none is for a device */
static char *guest_memfd(int vm, int nid, int *fd)
{
	struct kvm_create_guest_memfd create = {
		.size = NR * PAGE_SIZE,
		.flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
	};
	char *pages;

	*fd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &create);
	if (*fd < 0)
		return NULL;
	pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (pages == MAP_FAILED || bind_pages(pages, NR, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_pages(pages, NR, PAGE_SIZE, SEED);
	return pages;
}

TEST_F_TIMEOUT(leaks, guest_memfd_denied, CDM_TIMEOUT)
{
	unsigned long allocations = node_allocations(self->nid);
	int kvm, vm, fd, far = ram_node(1);
	char *pages;

	ASSERT_EQ(0, load_module("kvm_amd", ""));
	kvm = open("/dev/kvm", O_RDWR);
	ASSERT_LE(0, kvm);
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	ASSERT_LE(0, vm);
	pages = guest_memfd(vm, self->nid, &fd);
	ASSERT_NE(NULL, pages);
	EXPECT_EQ(0, pages_on(pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(allocations, node_allocations(self->nid));
	EXPECT_EQ(NR, pages_intact(pages, NR, PAGE_SIZE, SEED));
	/* Nor do they move there */
	move_to(pages, NR, PAGE_SIZE, self->nid, NULL);
	EXPECT_EQ(0, pages_on(pages, NR, PAGE_SIZE, self->nid));
	unmap_pages(pages, NR);
	close(fd);

	/* Control: an ordinary node is not where the task runs, but what it names. */
	pages = guest_memfd(vm, far, &fd);
	ASSERT_NE(NULL, pages);
	EXPECT_EQ(NR, pages_on(pages, NR, PAGE_SIZE, far));
	unmap_pages(pages, NR);
	close(fd);
	close(vm);
	close(kvm);
}

TEST_HARNESS_MAIN
