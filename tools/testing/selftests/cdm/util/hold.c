// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: tasks that hold pages in every way, and what they find there.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "../cdm_util.h"
#include "../cdm_hold.h"

#define NR		((size_t)32)
#define NR_SPLICED	((size_t)4)
#define FROZEN		"/sys/fs/cgroup/cdm_frozen"

static const char * const names[HOLD_KINDS] = {
	"plain", "locked", "stopped", "frozen", "forked", "thp", "tmpfs",
	"hugetlb", "spliced", "registered",
};

/* What a holder says to the test, in memory that both have */
struct said {
	bool ready;
	bool judged;
	struct verdict mapped;
	struct verdict referred;
};

static struct holder {
	pid_t pid;
	int go;
	struct said *said;
} holders[HOLD_KINDS];

static sigjmp_buf on_sigbus;

static void caught_sigbus(int sig)
{
	siglongjmp(on_sigbus, 1);
}

static void judge_page(const char *page, unsigned long seed,
		       struct verdict *verdict)
{
	if (sigsetjmp(on_sigbus, 1))
		verdict->error++;
	else if (page_is(page, seed))
		verdict->own++;
	else
		verdict->other++;
}

/* Every page: the seed is written at its beginning and its end */
void judge_pages(const char *addr, size_t nr, size_t stride, unsigned long seed,
		 struct verdict *verdict)
{
	struct sigaction old, catch = { .sa_handler = caught_sigbus };
	size_t i;

	sigaction(SIGBUS, &catch, &old);
	for (i = 0; i < nr; i++)
		judge_page(addr + i * stride, seed + i, verdict);
	sigaction(SIGBUS, &old, NULL);
}

static void judge_buffer(const void *buf, ssize_t len, unsigned long seed,
			 struct verdict *verdict)
{
	if (len != (ssize_t)PAGE_SIZE)
		verdict->error++;
	else if (page_is(buf, seed))
		verdict->own++;
	else
		verdict->other++;
}

static void judge_pipe(int fd, struct verdict *verdict)
{
	static unsigned long buf[4096 / sizeof(long)];
	size_t i;

	for (i = 0; i < NR_SPLICED; i++) {
		ssize_t len = read(fd, buf, PAGE_SIZE);

		judge_buffer(buf, len, HOLD_SEED + i, verdict);
		if (len <= 0) {
			/* It stays at the head of the pipe. */
			verdict->error += NR_SPLICED - i - 1;
			return;
		}
	}
}

/* Before and after a loss: what a file has is not what its mappings have */
static void judge_file(int fd, struct verdict *verdict)
{
	static unsigned long buf[4096 / sizeof(long)];
	size_t i;

	for (i = 0; i < NR; i++)
		judge_buffer(buf, pread(fd, buf, PAGE_SIZE, i * PAGE_SIZE),
			     HOLD_SEED + i, verdict);
}

/* A ring with the least that one request needs */
struct ring {
	int fd;
	char *sq;
	char *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params params;
};

static bool ring_open(struct ring *ring)
{
	struct io_uring_params *p = &ring->params;

	memset(ring, 0, sizeof(*ring));
	ring->fd = syscall(__NR_io_uring_setup, 4, p);
	if (ring->fd < 0)
		return false;
	ring->sq = mmap(NULL, p->sq_off.array + p->sq_entries * sizeof(__u32),
			PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			ring->fd, IORING_OFF_SQ_RING);
	ring->cq = mmap(NULL, p->cq_off.cqes +
			p->cq_entries * sizeof(struct io_uring_cqe),
			PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, p->sq_entries * sizeof(*ring->sqes),
			  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			  ring->fd, IORING_OFF_SQES);
	return ring->sq != MAP_FAILED && ring->cq != MAP_FAILED &&
	       (void *)ring->sqes != MAP_FAILED;
}

/* Write a page of the registered buffer to a file: what the kernel says */
static int ring_write(struct ring *ring, int fd, const char *page)
{
	struct io_uring_params *p = &ring->params;
	__u32 *sq_tail = (__u32 *)(ring->sq + p->sq_off.tail);
	__u32 *array = (__u32 *)(ring->sq + p->sq_off.array);
	__u32 *cq_head = (__u32 *)(ring->cq + p->cq_off.head);
	struct io_uring_cqe *cqes = (void *)(ring->cq + p->cq_off.cqes);
	__u32 index = *sq_tail & (p->sq_entries - 1);
	struct io_uring_sqe *sqe = &ring->sqes[index];
	int res;

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_WRITE_FIXED;
	sqe->fd = fd;
	sqe->addr = (unsigned long)page;
	sqe->len = PAGE_SIZE;
	array[index] = index;
	__atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring->fd, 1, 1,
		    IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return -1;
	res = cqes[*cq_head & (p->cq_entries - 1)].res;
	__atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
	return res;
}

static void judge_registered(struct ring *ring, const char *addr,
			     struct verdict *verdict)
{
	static unsigned long buf[4096 / sizeof(long)];
	int fd = memfd_create("cdm-registered", 0);
	size_t i;

	for (i = 0; i < NR; i++) {
		ssize_t len = ring_write(ring, fd, addr + i * PAGE_SIZE);

		if (len == (ssize_t)PAGE_SIZE)
			len = pread(fd, buf, PAGE_SIZE, 0);
		judge_buffer(buf, len, HOLD_SEED + i, verdict);
	}
	close(fd);
}

static char *pages_of_kind(enum hold_kind kind, int nid, int *fd)
{
	size_t nr = hold_pages(kind);
	char *addr;

	switch (kind) {
	case HOLD_THP:
		addr = map_huge_range(1);
		if (addr && madvise(addr, HUGE, MADV_HUGEPAGE))
			return NULL;
		break;
	case HOLD_HUGETLB:
		addr = map_huge(1, MAP_NORESERVE);
		break;
	case HOLD_TMPFS:
		*fd = memfd_create("cdm-hold", 0);
		if (*fd < 0 || ftruncate(*fd, nr * PAGE_SIZE))
			return NULL;
		addr = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED, *fd, 0);
		break;
	default:
		addr = map_pages(nr);
	}
	if (!addr || addr == MAP_FAILED ||
	    bind_pages(addr, nr, MPOL_BIND, NODE_BIT(nid), 0))
		return NULL;
	fill_pages(addr, nr, PAGE_SIZE, HOLD_SEED);
	if (pages_on(addr, nr, PAGE_SIZE, nid) != nr)
		return NULL;
	if (kind == HOLD_THP &&
	    pages_with(addr, nr, PAGE_SIZE, KPF_THP) != nr)
		return NULL;
	return addr;
}

static struct {
	enum hold_kind kind;
	int nid;
	int go;
	struct said *said;
} job;

static int hold(void *arg)
{
	struct verdict *referred = &job.said->referred;
	size_t nr = hold_pages(job.kind);
	struct iovec iov;
	unsigned long pfn;
	struct ring ring;
	int fd = -1, pipes[2];
	pid_t child = 0;
	char *addr, c;

	addr = pages_of_kind(job.kind, job.nid, &fd);
	if (!addr)
		return 1;
	iov.iov_base = addr;
	switch (job.kind) {
	case HOLD_LOCKED:
		if (mlock(addr, nr * PAGE_SIZE))
			return 2;
		break;
	case HOLD_FORKED:
		child = fork();
		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pause();
			_exit(0);
		}
		break;
	case HOLD_FROZEN:
		if (file_write(FROZEN "/cgroup.procs", "0"))
			return 3;
		break;
	case HOLD_SPLICED:
		iov.iov_len = NR_SPLICED * PAGE_SIZE;
		if (pipe(pipes) || vmsplice(pipes[1], &iov, 1, 0) !=
				   (ssize_t)iov.iov_len)
			return 4;
		break;
	case HOLD_REGISTERED:
		iov.iov_len = nr * PAGE_SIZE;
		if (!ring_open(&ring) ||
		    syscall(__NR_io_uring_register, ring.fd,
			    IORING_REGISTER_BUFFERS, &iov, 1))
			return 5;
		if (pages_on(addr, nr, PAGE_SIZE, job.nid) != nr)
			return 6;
		break;
	default:
		break;
	}
	WRITE_ONCE(job.said->ready, true);

	/* Each byte asks for a verdict; the end of the file ends the holder. */
	while (read(job.go, &c, 1) == 1) {
		memset(&job.said->mapped, 0, sizeof(job.said->mapped));
		memset(referred, 0, sizeof(*referred));
		judge_pages(addr, nr, PAGE_SIZE, HOLD_SEED, &job.said->mapped);
		if (job.kind == HOLD_SPLICED)
			judge_pipe(pipes[0], referred);
		else if (job.kind == HOLD_REGISTERED)
			judge_registered(&ring, addr, referred);
		else if (job.kind == HOLD_TMPFS)
			judge_file(fd, referred);
		/* Who looks at the page tables does not stumble either. */
		pages_pfns(addr, 1, PAGE_SIZE, &pfn);
		WRITE_ONCE(job.said->judged, true);
	}
	if (child > 0)
		kill_and_reap(child);
	return 0;
}

size_t hold_pages(enum hold_kind kind)
{
	return kind == HOLD_THP || kind == HOLD_HUGETLB ? HUGE_NR : NR;
}

const char *hold_name(enum hold_kind kind)
{
	return names[kind];
}

/* To so many of its pages something in the kernel refers: they cannot move. */
size_t hold_pinned(enum hold_kind kind)
{
	switch (kind) {
	case HOLD_SPLICED:
		return NR_SPLICED;
	case HOLD_REGISTERED:
		return NR;
	default:
		return 0;
	}
}

bool hold_has(enum hold_kind kind)
{
	return holders[kind].pid > 0;
}

bool hold_start(enum hold_kind kind, int nid)
{
	struct holder *h = &holders[kind];
	int fds[2];

	if (!h->said)
		h->said = shared_page();
	if (!h->said || pipe(fds))
		return false;
	memset(h->said, 0, sizeof(*h->said));
	if (kind == HOLD_FROZEN && mkdir(FROZEN, 0755) &&
	    access(FROZEN "/cgroup.freeze", F_OK))
		return false;
	if (kind == HOLD_HUGETLB && pool_set(nid, "1"))
		return false;

	job.kind = kind;
	job.nid = nid;
	job.go = fds[0];
	job.said = h->said;
	/* Others must not keep it open. */
	fcntl(fds[1], F_SETFD, FD_CLOEXEC);
	h->pid = fork();
	if (!h->pid) {
		int i;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[1]);
		for (i = 0; i < HOLD_KINDS; i++)
			if (i != (int)kind && holders[i].pid > 0)
				close(holders[i].go);
		_exit(hold(NULL));
	}
	close(fds[0]);
	h->go = fds[1];
	if (!wait_for(READ_ONCE(h->said->ready) ||
		      waitpid(h->pid, NULL, WNOHANG))) {
		ksft_print_msg("%s: not in time\n", names[kind]);
		return false;
	}
	if (!READ_ONCE(h->said->ready)) {
		ksft_print_msg("%s: the holder has ended\n", names[kind]);
		h->pid = 0;
		close(h->go);
		return false;
	}
	if (kind == HOLD_STOPPED)
		kill(h->pid, SIGSTOP);
	if (kind == HOLD_FROZEN)
		return !file_write(FROZEN "/cgroup.freeze", "1");
	return true;
}

/* All kinds, or those that can move */
bool hold_all(int nid, bool pinned)
{
	int kind;

	for (kind = 0; kind < HOLD_KINDS; kind++)
		if ((pinned || !hold_pinned(kind)) && !hold_start(kind, nid))
			return false;
	return true;
}

/* Each says what it finds now; false if one does not, or finds something else */
bool hold_judge_all(void)
{
	bool good = true;
	int kind;

	for (kind = 0; kind < HOLD_KINDS; kind++) {
		struct holder *h = &holders[kind];
		struct said *said = h->said;

		if (h->pid <= 0)
			continue;
		if (kind == HOLD_STOPPED)
			kill(h->pid, SIGCONT);
		if (kind == HOLD_FROZEN)
			file_write(FROZEN "/cgroup.freeze", "0");
		WRITE_ONCE(said->judged, false);
		if (write(h->go, "?", 1) != 1 ||
		    !wait_for(READ_ONCE(said->judged) ||
			      waitpid(h->pid, NULL, WNOHANG))) {
			ksft_print_msg("%s: no verdict\n", names[kind]);
			good = false;
			continue;
		}
		if (!READ_ONCE(said->judged)) {
			ksft_print_msg("%s: the holder has ended\n", names[kind]);
			h->pid = 0;
			good = false;
			continue;
		}
		ksft_print_msg("%s: own %zu, SIGBUS %zu, other %zu; by reference %zu, %zu, %zu\n",
			       names[kind], said->mapped.own,
			       said->mapped.error, said->mapped.other,
			       said->referred.own, said->referred.error,
			       said->referred.other);
		if (said->mapped.other || said->referred.other)
			good = false;
	}
	return good;
}

const struct verdict *hold_mapped(enum hold_kind kind)
{
	return &holders[kind].said->mapped;
}

const struct verdict *hold_referred(enum hold_kind kind)
{
	return &holders[kind].said->referred;
}

void hold_end(enum hold_kind kind)
{
	struct holder *h = &holders[kind];

	if (h->pid <= 0)
		return;
	close(h->go);
	if (kind == HOLD_FROZEN)
		file_write(FROZEN "/cgroup.freeze", "0");
	kill_and_reap(h->pid);
	h->pid = 0;
	if (kind == HOLD_FROZEN)
		rmdir(FROZEN);
}

void hold_end_all(void)
{
	int kind;

	for (kind = 0; kind < HOLD_KINDS; kind++)
		hold_end(kind);
}
