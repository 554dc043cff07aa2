// SPDX-License-Identifier: GPL-2.0
/*
 * The workloads of 'make bench': PID 1 of a guest with one CPU, run under
 * -icount shift=0,sleep=off, where a TSC tick is an instruction. The host reads
 * the results from the second serial port:
 *
 *	I NAME VALUE			what machine this is, and what came of the work
 *	R NAME MEDIAN MEAN BATCHES	instructions per page or call
 *	E TEXT				something that does not work
 *	D				done
 *
 * Each workload runs many short batches. Their median is what the work takes
 * without the timer ticks that hit some of them; the mean is with them.
 *
 * What sleeps (kernel threads, memory hotplug) is measured by the run time of
 * the threads: while the CPU idles, the guest's time jumps to the next timer.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <linux/mempolicy.h>
#include <linux/perf_event.h>

#include "bench.h"

#define PAGE	4096UL
#define BATCH	512UL			/* pages of a batch: one page table */
#define HUGE	(BATCH * PAGE)
#define MAX_BATCHES	512

/*
 * Linux numbers the nodes in the order in which it meets them in the SRAT: those
 * with CPUs, with devices, with memory.
 */
#define NODE_RAM	0		/* has the CPU */
#define NODE_DEV	1		/* the first of 8 devices */
#define NODE_FAR	9		/* ordinary memory, no CPU */
#define str(x)		#x
#define xstr(x)		str(x)

#define PCI		"/sys/bus/pci/"
#define KSM		"/sys/kernel/mm/ksm/"
#define THP		"/sys/kernel/mm/transparent_hugepage/"

static int out, module;
static const char *mode = "none";	/* none, kmem, cdm */
static int nr_devices;
static bool quick;			/* fewer batches */
static bool perf;			/* also what the CPU counts */

/* Results of a workload, shared with children */
static struct batches {
	unsigned int nr;
	double value[MAX_BATCHES];
} *batches;

static void say(const char *fmt, ...)
{
	char line[512];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (write(out, line, len) != len)
		_exit(1);
}

#define fail(fmt, ...)							\
do {									\
	say("E %s:%d: " fmt ": %s\n", __func__, __LINE__,		\
	    ##__VA_ARGS__, strerror(errno));				\
	_exit(1);							\
} while (0)

#define check(cond)							\
do {									\
	if (!(cond))							\
		fail("%s", #cond);					\
} while (0)

static inline unsigned long ticks(void)
{
	unsigned int lo, hi;

	asm volatile("lfence; rdtsc; lfence" : "=a" (lo), "=d" (hi) : : "memory");
	return lo | (unsigned long)hi << 32;
}

/* One batch: what each of its pages or calls took */
static void batch(unsigned long took, unsigned long nr)
{
	check(batches->nr < MAX_BATCHES);
	batches->value[batches->nr++] = (double)took / nr;
}

/* How many batches of @nr a run does */
static int rounds(int nr)
{
	return !quick || nr <= 4 ? nr : nr < 32 ? 4 : nr / 8;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *name)
{
	unsigned int i, nr = batches->nr;
	double sum = 0;

	if (!nr) {
		say("E %s: no result\n", name);
		return;
	}
	for (i = 0; i < nr; i++)
		sum += batches->value[i];
	qsort(batches->value, nr, sizeof(double), compare);
	say("R %s %.3f %.3f %u\n", name,
	    (batches->value[(nr - 1) / 2] + batches->value[nr / 2]) / 2, sum / nr, nr);
	batches->nr = 0;
}

/* Files */

static void file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail("%s <- %s", path, text);
	close(fd);
}

static int file_read(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY), len;

	if (fd < 0)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len < 0)
		return -1;
	buf[len] = '\0';
	return len;
}

static unsigned long file_number(const char *path)
{
	char buf[64];

	if (file_read(path, buf, sizeof(buf)) < 0)
		fail("%s", path);
	return strtoul(buf, NULL, 10);
}

/* Threads */

static pid_t kthread(const char *name)
{
	char path[300], comm[64];
	struct dirent *entry;
	pid_t pid = 0;
	DIR *dir;

	dir = opendir("/proc");
	check(dir);
	while (!pid && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (atoi(entry->d_name) && file_read(path, comm, sizeof(comm)) > 0) {
			comm[strcspn(comm, "\n")] = '\0';
			if (!strcmp(comm, name))
				pid = atoi(entry->d_name);
		}
	}
	closedir(dir);
	if (!pid)
		fail("no thread %s", name);
	return pid;
}

/* What a thread that sleeps now has run, in ns */
static unsigned long run_time(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	return file_number(path);
}

static unsigned long own_run_time(void)
{
	struct timespec ts;

	check(!clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts));
	return ts.tv_sec * 1000000000UL + ts.tv_nsec;
}

static unsigned long others_run_time(void)
{
	unsigned long sum = 0;
	struct dirent *entry;
	DIR *dir;

	dir = opendir("/proc");
	check(dir);
	while ((entry = readdir(dir)))
		if (atoi(entry->d_name) && atoi(entry->d_name) != getpid())
			sum += run_time(atoi(entry->d_name));
	closedir(dir);
	return sum;
}

/* What the caller and all others run between two looks, in ns */
struct span {
	unsigned long others, own;
};

static struct span span_start(void)
{
	struct span span = { .others = others_run_time() };

	span.own = own_run_time();
	return span;
}

static unsigned long span_end(struct span span)
{
	unsigned long own = own_run_time() - span.own;

	return own + others_run_time() - span.others;
}

static unsigned long write_run_time(const char *path, const char *text)
{
	struct span span = span_start();

	file_write(path, text);
	return span_end(span);
}

static void nap(unsigned long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

/* Pages */

static char *map(unsigned long pages, int nid)
{
	char *addr, *start;

	/* On a boundary of page tables, whatever the address is */
	addr = mmap(NULL, pages * PAGE + HUGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(addr != MAP_FAILED);
	start = (char *)(((unsigned long)addr + HUGE - 1) & ~(HUGE - 1));
	if (start != addr)
		check(!munmap(addr, start - addr));
	if (addr + HUGE != start)
		check(!munmap(start + pages * PAGE, addr + HUGE - start));
	check(!madvise(start, pages * PAGE, MADV_NOHUGEPAGE));
	if (nid >= 0) {
		unsigned long mask = 1UL << nid;

		if (syscall(SYS_mbind, start, pages * PAGE, MPOL_BIND, &mask, 64, 0))
			fail("mbind to node %d", nid);
	}
	return start;
}

static void touch(char *addr, unsigned long pages)
{
	unsigned long i;

	for (i = 0; i < pages; i++)
		*(volatile char *)(addr + i * PAGE) = 1;
}

/* Different content in each page, with the same one in those that are @twin apart */
static void fill(char *addr, unsigned long pages, unsigned long twin)
{
	unsigned long i;

	for (i = 0; i < pages; i++)
		*(volatile unsigned long *)(addr + i * PAGE) =
			((twin ? i % twin : i) + 1) * 0x9e3779b97f4a7c15UL;
}

static void *addresses[MAX_BATCHES * BATCH];
static int nodes[MAX_BATCHES * BATCH], status[MAX_BATCHES * BATCH];

/* Moves each stride-th page; returns how many are there then */
static unsigned long move(char *addr, unsigned long pages, unsigned long stride,
			  int nid, unsigned long *took)
{
	unsigned long i, nr = 0, there = 0, start;

	for (i = 0; i < pages; i += stride) {
		addresses[nr] = addr + i * PAGE;
		nodes[nr++] = nid;
	}
	start = ticks();
	if (syscall(SYS_move_pages, 0, nr, addresses, nodes, status, MPOL_MF_MOVE) < 0)
		fail("move_pages to node %d", nid);
	if (took)
		*took = ticks() - start;
	for (i = 0; i < nr; i++)
		there += status[i] == nid;
	return there;
}

/* Workloads. Each runs in a child, so that it finds a fresh address space. */

static void calibrate(void)
{
	unsigned long start, n;
	int i;

	for (i = 0; i < 64; i++) {
		n = 10000;
		start = ticks();
		asm volatile("1: dec %0; jnz 1b" : "+r" (n));
		batch(ticks() - start, 10000);
	}
	report("calibration");
}

static void fault_on(const char *name, const char *exit_name, int nid, int nr)
{
	char *addr = map(nr * BATCH, nid);
	unsigned long start;
	int i;

	for (i = 0; i < nr; i++) {
		start = ticks();
		touch(addr + i * HUGE, BATCH);
		batch(ticks() - start, BATCH);
	}
	report(name);
	for (i = 0; i < nr; i++) {
		start = ticks();
		check(!munmap(addr + i * HUGE, HUGE));
		batch(ticks() - start, BATCH);
	}
	report(exit_name);
}

static void fault(void)
{
	fault_on("fault_4k", "unmap_4k", -1, rounds(96));
}

static void fault_far(void)
{
	fault_on("fault_bind_far", "unmap_far", NODE_FAR, rounds(48));
}

static void fault_dev(void)
{
	fault_on("fault_bind_dev", "unmap_dev", NODE_DEV, rounds(48));
}

static void fault_thp_on(const char *name, int nid)
{
	int i, nr = rounds(24);
	char *addr = map(nr * BATCH, nid);
	unsigned long start;

	check(!madvise(addr, nr * HUGE, MADV_HUGEPAGE));
	for (i = 0; i < nr; i++) {
		start = ticks();
		touch(addr + i * HUGE, 1);
		batch(ticks() - start, 1);
	}
	report(name);
}

static void fault_thp(void)
{
	fault_thp_on("fault_thp", -1);
}

static void fault_thp_dev(void)
{
	fault_thp_on("fault_thp_dev", NODE_DEV);
}

static void fork_on(const char *fork_name, const char *cow_name,
		    const char *exit_name, int nid)
{
	const unsigned long nr = 8;
	char *addr = map(nr * BATCH, nid);
	struct shared {
		unsigned long cow[8], end;
	} *shared;
	unsigned long start, forked, ended, i;
	struct sched_param first = { .sched_priority = 1 }, ordinary = {};
	double cow[24 * 8], left[24];
	pid_t pid;
	int round, nr_rounds = rounds(24);

	shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED);
	touch(addr, nr * BATCH);
	memset(shared, 0, sizeof(*shared));
	/* The child, which is not real-time, waits until its parent does. */
	check(!sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first));
	for (round = 0; round < nr_rounds; round++) {
		start = ticks();
		pid = fork();
		if (!pid) {
			for (i = 0; i < nr; i++) {
				start = ticks();
				touch(addr + i * HUGE, BATCH);
				shared->cow[i] = ticks() - start;
			}
			shared->end = ticks();
			_exit(0);
		}
		forked = ticks();
		check(pid > 0 && waitpid(pid, NULL, 0) == pid);
		ended = ticks();
		batch(forked - start, nr * BATCH);
		for (i = 0; i < nr; i++)
			cow[round * nr + i] = shared->cow[i];
		left[round] = ended - shared->end;
	}
	check(!sched_setscheduler(0, SCHED_OTHER, &ordinary));
	report(fork_name);
	for (i = 0; i < nr_rounds * nr; i++)
		batch(cow[i], BATCH);
	report(cow_name);
	for (i = 0; i < (unsigned long)nr_rounds; i++)
		batch(left[i], nr * BATCH);
	report(exit_name);
}

static void forks(void)
{
	fork_on("fork", "cow", "exit", -1);
}

static void forks_dev(void)
{
	fork_on("fork_dev", "cow_dev", "exit_dev", NODE_DEV);
}

static void page_cache(void)
{
	const unsigned long nr = rounds(64);
	unsigned long start, i, round;
	char *buf = map(BATCH, -1), *addr;
	int fd;

	check(!mkdir("/ramfs", 0700) && !mount("ramfs", "/ramfs", "ramfs", 0, NULL));
	fd = open("/ramfs/file", O_RDWR | O_CREAT, 0600);
	check(fd >= 0);
	touch(buf, BATCH);
	for (i = 0; i < nr; i++) {
		start = ticks();
		check(pwrite(fd, buf, HUGE, i * HUGE) == HUGE);
		batch(ticks() - start, BATCH);
	}
	report("file_write_new");
	for (i = 0; i < nr; i++) {
		start = ticks();
		check(pread(fd, buf, HUGE, i * HUGE) == HUGE);
		batch(ticks() - start, BATCH);
	}
	report("file_read");
	/* A page a call, with little of it copied: the search weighs more. */
	for (round = 0; round < nr; round++) {
		start = ticks();
		for (i = 0; i < BATCH; i++)
			if (pread(fd, buf, 64, (round * BATCH + i) * PAGE) != 64)
				fail("pread");
		batch(ticks() - start, BATCH);
	}
	report("file_read_64b");
	addr = mmap(NULL, nr * HUGE, PROT_READ, MAP_SHARED, fd, 0);
	check(addr != MAP_FAILED);
	check(!madvise(addr, nr * HUGE, MADV_RANDOM));
	for (round = 0; round < nr; round++) {
		start = ticks();
		for (i = 0; i < BATCH; i++)
			*(volatile char *)(addr + round * HUGE + i * PAGE);
		batch(ticks() - start, BATCH);
	}
	report("file_fault");
	check(!munmap(addr, nr * HUGE));
	for (i = nr; i-- > 0; ) {
		start = ticks();
		check(!ftruncate(fd, i * HUGE));
		batch(ticks() - start, BATCH);
	}
	report("file_truncate");
	close(fd);
}

static void call(const char *name, unsigned long cmd, char *addr,
		 unsigned long nr, int calls)
{
	struct cdm_bench b = { .nr = nr };
	int i;

	calls = rounds(calls);
	for (i = 0; i < calls; i++) {
		b.addr = (unsigned long)addr;
		if (ioctl(module, cmd, &b) || b.done != nr)
			fail("%s: %llu of %lu", name, b.done, nr);
		/* The first ones fill caches. */
		if (i >= calls / 8)
			batch(b.ticks, nr);
	}
	report(name);
}

static void gup_on(const char *suffix, int nid)
{
	static const struct {
		const char *name;
		unsigned long cmd;
	} calls[] = {
		{ "gup_fast", CDM_BENCH_GUP_FAST },
		{ "gup_slow", CDM_BENCH_GUP_SLOW },
		{ "pin_fast", CDM_BENCH_PIN_FAST },
	};
	char *addr = map(BATCH, nid), name[32];
	unsigned int i;

	touch(addr, BATCH);
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", calls[i].name, suffix);
		call(name, calls[i].cmd, addr, BATCH, 128);
	}
	/* A page of a movable zone would move at the first pin. */
	if (nid < 0)
		call("pin_longterm", CDM_BENCH_PIN_LONGTERM, addr, BATCH, 128);
}

static void gup(void)
{
	gup_on("", -1);
}

static void gup_dev(void)
{
	gup_on("_dev", NODE_DEV);
}

static void allocator(void)
{
	call("kmalloc", CDM_BENCH_KMALLOC, NULL, 1024, 128);
	call("page_alloc", CDM_BENCH_PAGE_ALLOC, NULL, 1024, 128);
	call("page_alloc_thp", CDM_BENCH_PAGE_ALLOC_HUGE, NULL, 16, 128);
}

static void numa_scan_on(const char *name, int nid, bool mixed)
{
	struct cdm_bench b = { .nr = BATCH };
	unsigned long marked = 0;
	int i, nr = rounds(48);
	char *addr;

	for (i = 0; i < nr; i++) {
		addr = map(BATCH, mixed ? NODE_FAR : nid);
		touch(addr, BATCH);
		if (mixed && move(addr, BATCH, 2, nid, NULL) != BATCH / 2)
			fail("mixed: not moved");
		b.addr = (unsigned long)addr;
		check(!ioctl(module, CDM_BENCH_PROT_NUMA, &b));
		batch(b.ticks, BATCH);
		marked += b.done;
		check(!munmap(addr, HUGE));
	}
	report(name);
	say("I marked:%s %.3f\n", name, (double)marked / (nr * BATCH));
}

static void numa_scan(void)
{
	file_write("/proc/sys/kernel/numa_balancing", "1");
	numa_scan_on("numa_scan_local", NODE_RAM, false);
	numa_scan_on("numa_scan_far", NODE_FAR, false);
	file_write("/proc/sys/kernel/numa_balancing", "0");
}

static void numa_scan_dev(void)
{
	file_write("/proc/sys/kernel/numa_balancing", "1");
	numa_scan_on("numa_scan_dev", NODE_DEV, false);
	numa_scan_on("numa_scan_mixed", NODE_DEV, true);
	file_write("/proc/sys/kernel/numa_balancing", "0");
}

static void move_between(const char *there, const char *back, int nid)
{
	char *addr = map(BATCH, -1);
	double took_back[32];
	unsigned long took;
	int i, nr = rounds(32);

	touch(addr, BATCH);
	for (i = 0; i < nr; i++) {
		check(move(addr, BATCH, 1, nid, &took) == BATCH);
		batch(took, BATCH);
		check(move(addr, BATCH, 1, NODE_RAM, &took) == BATCH);
		took_back[i] = took;
	}
	report(there);
	for (i = 0; i < nr; i++)
		batch(took_back[i], BATCH);
	report(back);
}

static void move_pages(void)
{
	move_between("move_pages_out", "move_pages_back", NODE_FAR);
}

static void move_pages_dev(void)
{
	move_between("move_pages_to_dev", "move_pages_from_dev", NODE_DEV);
}

static void migrate_between(const char *there, const char *back, int nid)
{
	char *addr = map(8 * BATCH, -1);
	unsigned long from = 1UL << NODE_RAM, to = 1UL << nid, start;
	double took_back[12];
	int i, nr = rounds(12);

	touch(addr, 8 * BATCH);
	for (i = 0; i < nr; i++) {
		start = ticks();
		check(syscall(SYS_migrate_pages, 0, 64, &from, &to) >= 0);
		batch(ticks() - start, 8 * BATCH);
		start = ticks();
		check(syscall(SYS_migrate_pages, 0, 64, &to, &from) >= 0);
		took_back[i] = ticks() - start;
	}
	report(there);
	for (i = 0; i < nr; i++)
		batch(took_back[i], 8 * BATCH);
	report(back);
}

static void migrate_pages(void)
{
	migrate_between("migrate_pages_out", "migrate_pages_back", NODE_FAR);
}

static void migrate_pages_dev(void)
{
	migrate_between("migrate_pages_to_dev", "migrate_pages_from_dev", NODE_DEV);
}

/*
 * Three scans of ksmd; returns what it has run, in ns. The first takes checksums,
 * the second finds who is alike, the third finds all done. A batch of ksmd ends
 * with a scan, if it is long enough, and then ksmd sleeps.
 */
static unsigned long ksm_scans(void)
{
	pid_t ksmd = kthread("ksmd");
	unsigned long start = run_time(ksmd), scans = file_number(KSM "full_scans");
	int i;

	file_write(KSM "run", "1");
	for (i = 0; file_number(KSM "full_scans") < scans + 3; i++) {
		if (i > 100000)
			fail("ksmd does not scan");
		nap(2000);
	}
	file_write(KSM "run", "0");
	scans = file_number(KSM "full_scans") - scans;
	if (scans != 3)
		fail("%lu scans", scans);
	return run_time(ksmd) - start;
}

static void ksm_on(const char *name, int nid, bool mixed, bool twins)
{
	const unsigned long nr = 4 * BATCH;
	unsigned long merged = 0;
	char *addr;
	int round;

	for (round = 0; round < 3; round++) {
		addr = map(nr, mixed ? NODE_RAM : nid);
		fill(addr, nr, twins ? nr / 2 : 0);
		if (mixed && move(addr, nr, 2, nid, NULL) != nr / 2)
			fail("mixed: not moved");
		check(!madvise(addr, nr * PAGE, MADV_MERGEABLE));
		batch(ksm_scans(), 3 * nr);
		merged = file_number(KSM "pages_sharing");
		/* Unmerged by this, too */
		check(!munmap(addr, nr * PAGE));
		file_write(KSM "run", "2");
		file_write(KSM "run", "0");
	}
	report(name);
	say("I merged:%s %.3f\n", name, (double)merged / (nr / 2));
}

static void ksm_setup(void)
{
	char *page = map(1, -1);

	/*
	 * A page that is like no other. ksmd forgets a process, and never ends a
	 * scan, if there is nothing at all that it may look at.
	 */
	memset(page, 0xa5, PAGE);
	check(!madvise(page, PAGE, MADV_MERGEABLE));
	file_write(KSM "pages_to_scan", "1000000");
	file_write(KSM "sleep_millisecs", "200");
	file_write(KSM "smart_scan", "0");
}

static void ksm(void)
{
	ksm_setup();
	ksm_on("ksm_unique", -1, false, false);
	ksm_on("ksm_twins", -1, false, true);
}

static void ksm_dev(void)
{
	ksm_setup();
	ksm_on("ksm_dev_unique", NODE_DEV, false, false);
	ksm_on("ksm_dev_twins", NODE_DEV, false, true);
	ksm_on("ksm_mixed_unique", NODE_DEV, true, false);
	ksm_on("ksm_mixed_twins", NODE_DEV, true, true);
}

/* Mixed areas: every other page is the device's. How large does it get? */

static unsigned long meminfo(const char *field)
{
	char buf[8192], *pos;

	file_write("/proc/sys/vm/stat_refresh", "1");
	if (file_read("/proc/meminfo", buf, sizeof(buf)) < 0)
		fail("meminfo");
	pos = strstr(buf, field);
	check(pos);
	return strtoul(pos + strlen(field), NULL, 10);
}

static unsigned long count_vmas(char *addr, unsigned long pages)
{
	unsigned long vmas = 0, start;
	char line[512];
	FILE *f;

	f = fopen("/proc/self/maps", "r");
	check(f);
	while (fgets(line, sizeof(line), f)) {
		start = strtoul(line, NULL, 16);
		vmas += start >= (unsigned long)addr &&
			start < (unsigned long)addr + pages * PAGE;
	}
	fclose(f);
	return vmas;
}

static unsigned long scan(char *addr, unsigned long pages, unsigned long *marked)
{
	unsigned long i, took = 0;

	*marked = 0;
	for (i = 0; i < pages; i += BATCH) {
		struct cdm_bench b = {
			.addr = (unsigned long)(addr + i * PAGE),
			.nr = pages - i < BATCH ? pages - i : BATCH,
		};

		check(!ioctl(module, CDM_BENCH_PROT_NUMA, &b));
		took += b.ticks;
		*marked += b.done;
	}
	return took;
}

/*
 * @split: each device page is bound by a call of its own, so that it has a VMA
 * of its own; else one call asks for the pages in turn, and there is one VMA.
 * Of the pages in RAM two at a time are alike, and so are those of the device.
 */
static void sweep_on(unsigned long nr, bool split)
{
	unsigned long device = 1UL << NODE_DEV, both = device | 1UL << NODE_FAR;
	unsigned long i, start, setup, slab, vmas, took, marked, there = 0, ksm;
	char *addr;

	slab = meminfo("Slab:");
	/* On the far node: those of the own one need not follow the task. */
	addr = map(nr, split ? NODE_FAR : -1);
	start = ticks();
	if (split) {
		for (i = 1; i < nr; i += 2)
			check(!syscall(SYS_mbind, addr + i * PAGE, PAGE, MPOL_BIND,
				       &device, 64, 0));
	} else {
		check(!syscall(SYS_mbind, addr, nr * PAGE, MPOL_INTERLEAVE, &both, 64, 0));
	}
	touch(addr, nr);
	setup = ticks() - start;
	slab = meminfo("Slab:") - slab;
	vmas = count_vmas(addr, nr);

	for (i = 0; i < nr; i++)
		addresses[i] = addr + i * PAGE;
	check(!syscall(SYS_move_pages, 0, nr, addresses, NULL, status, 0));
	for (i = 0; i < nr; i++)
		there += status[i] == NODE_DEV;
	if (there != nr / 2)
		fail("%lu of %lu pages on the device", there, nr);

	file_write("/proc/sys/kernel/numa_balancing", "1");
	took = scan(addr, nr, &marked);
	file_write("/proc/sys/kernel/numa_balancing", "0");
	fill(addr, nr, nr / 2);
	check(!madvise(addr, nr * PAGE, MADV_MERGEABLE));
	ksm = ksm_scans();
	say("I sweep:%s:%lu vmas=%lu slab_kb=%ld setup=%.1f scan=%.1f ksm=%.1f marked=%lu merged=%lu\n",
	    split ? "split" : "one", nr, vmas, (long)slab, (double)setup / nr,
	    (double)took / nr, (double)ksm / (3 * nr), marked,
	    file_number(KSM "pages_sharing"));
	check(!munmap(addr, nr * PAGE));
	file_write(KSM "run", "2");
	file_write(KSM "run", "0");
}

static void sweep(void)
{
	unsigned long nr, most = quick ? 1UL << 10 : 1UL << 18;

	ksm_setup();
	file_write("/proc/sys/vm/max_map_count", "1000000");
	for (nr = 2; nr <= most; nr *= nr == 2 ? 2 : 4) {
		sweep_on(nr, false);
		sweep_on(nr, true);
	}
}

/* What grows with the number of VMAs or tasks */

static void scale_vmas(void)
{
	unsigned long nr = 4096, vmas, i, start, faults, marked, scanned;
	char *addr;

	file_write("/proc/sys/kernel/numa_balancing", "1");
	for (vmas = 1; vmas <= nr; vmas *= 8) {
		addr = map(nr, -1);
		/* Every other one has another protection, and is not merged. */
		for (i = 1; i < vmas; i += 2)
			check(!mprotect(addr + i * (nr / vmas) * PAGE, nr / vmas * PAGE,
					PROT_READ | PROT_WRITE | PROT_EXEC));
		start = ticks();
		touch(addr, nr);
		faults = ticks() - start;
		scanned = scan(addr, nr, &marked);
		say("I scale:vmas:%lu fault=%.1f scan=%.1f\n", vmas,
		    (double)faults / nr, (double)scanned / nr);
		check(!munmap(addr, nr * PAGE));
	}
	file_write("/proc/sys/kernel/numa_balancing", "0");
}

static void scale_tasks(void)
{
	int tasks, i, most = 64;
	unsigned long start, *took;
	char *addr;

	took = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(took != MAP_FAILED);
	for (tasks = 1; tasks <= most; tasks *= 4) {
		*took = 0;
		for (i = 0; i < tasks; i++) {
			if (fork())
				continue;
			addr = map(4 * BATCH, -1);
			start = own_run_time();
			touch(addr, 4 * BATCH);
			__atomic_fetch_add(took, own_run_time() - start, __ATOMIC_RELAXED);
			_exit(0);
		}
		for (i = 0; i < tasks; i++)
			check(wait(NULL) > 0);
		say("I scale:tasks:%d fault=%.1f\n", tasks,
		    (double)*took / (tasks * 4 * BATCH));
	}
}

/* Reclaim: pages with the same word all over, which zram keeps as this word */

static void swap_on(void)
{
	static unsigned int page[PAGE / sizeof(int)];
	int fd;

	file_write("/sys/block/zram0/disksize", "268435456");
	fd = open("/dev/zram0", O_RDWR);
	check(fd >= 0);
	page[256] = 1;				/* version */
	page[257] = (256UL << 20) / PAGE - 1;	/* last page */
	memcpy((char *)page + PAGE - 10, "SWAPSPACE2", 10);
	check(write(fd, page, PAGE) == (ssize_t)PAGE && !fsync(fd));
	close(fd);
	check(!swapon("/dev/zram0", 0));
}

static void pageout_on(const char *out_name, const char *in_name, int nid)
{
	unsigned long start, away;
	int i, nr = rounds(32);
	char *addr = map(nr * BATCH, nid);
	double in[32];

	for (i = 0; i < nr; i++) {
		touch(addr + i * HUGE, BATCH);
		start = ticks();
		check(!madvise(addr + i * HUGE, HUGE, MADV_PAGEOUT));
		batch(ticks() - start, BATCH);
		/* At the second call some are still on their way to the LRU. */
		check(!madvise(addr + i * HUGE, HUGE, MADV_PAGEOUT));
		away = meminfo("SwapFree:");
		start = ticks();
		touch(addr + i * HUGE, BATCH);
		in[i] = ticks() - start;
		away = meminfo("SwapFree:") - away;
		if (away * 1024 < HUGE / 2 && i > 1)
			fail("%s: %lu kB were out", out_name, away);
	}
	report(out_name);
	for (i = 0; i < nr; i++)
		batch(in[i], BATCH);
	report(in_name);
	check(!munmap(addr, nr * HUGE));
}

static void pageout(void)
{
	pageout_on("pageout", "swapin", -1);
}

static void pageout_dev(void)
{
	pageout_on("pageout_dev", "swapin_dev", NODE_DEV);
}

/* The pass of a shrinker over the LRU, asked for by a memory cgroup */
static void reclaim(void)
{
	unsigned long start, took, nr = 16 * BATCH, left;
	char text[32], *addr;
	int i, calls = rounds(16);

	if (mkdir("/cgroup", 0755) || mount("cgroup2", "/cgroup", "cgroup2", 0, NULL))
		fail("cgroup2");
	file_write("/cgroup/cgroup.subtree_control", "+memory");
	check(!mkdir("/cgroup/job", 0755));
	file_write("/cgroup/job/cgroup.procs", "0");
	addr = map(nr, -1);
	snprintf(text, sizeof(text), "%lu", HUGE);
	for (i = 0; i < calls; i++) {
		touch(addr, nr);
		/* All alike: which of them a call takes, and how it ages them, is no matter */
		check(!madvise(addr, nr * PAGE, MADV_COLD));
		left = file_number("/cgroup/job/memory.current");
		start = ticks();
		file_write("/cgroup/job/memory.reclaim", text);
		took = ticks() - start;
		left -= file_number("/cgroup/job/memory.current");
		check(left >= HUGE);
		batch(took, left / PAGE);
	}
	report("reclaim");
	file_write("/cgroup/cgroup.procs", "0");
	check(!munmap(addr, nr * PAGE));
}

/* What a page costs for whom it is counted: after reclaim(), which makes the group */
static void fault_memcg(void)
{
	file_write("/cgroup/job/cgroup.procs", "0");
	fault_on("fault_memcg", "unmap_memcg", -1, rounds(48));
	file_write("/cgroup/cgroup.procs", "0");
}

static void fault_dmem_dev(void)
{
	file_write("/cgroup/job/cgroup.procs", "0");
	fault_on("fault_memcg_dev", "unmap_memcg_dev", NODE_DEV, rounds(48));
	file_write("/cgroup/cgroup.subtree_control", "+dmem");
	fault_on("fault_dmem_dev", "unmap_dmem_dev", NODE_DEV, rounds(48));
	file_write("/cgroup/cgroup.procs", "0");
	file_write("/cgroup/cgroup.subtree_control", "-dmem");
}

/* khugepaged finds nothing to do: each page table has a page that it denies. */
static void khugepaged(void)
{
	const unsigned long nr = 16;
	pid_t pid = kthread("khugepaged");
	char *addr = map(nr * BATCH, -1);
	unsigned long start, scans, i;
	int n;

	touch(addr, nr * BATCH);
	file_write(THP "khugepaged/scan_sleep_millisecs", "100");
	file_write(THP "khugepaged/alloc_sleep_millisecs", "100");
	file_write(THP "khugepaged/pages_to_scan", "1000000");
	file_write(THP "khugepaged/max_ptes_shared", "0");
	file_write(THP "khugepaged/max_ptes_none", "0");
	for (i = 0; i < nr; i++)
		check(!madvise(addr + i * HUGE + (BATCH - 1) * PAGE, PAGE, MADV_DONTNEED));
	check(!madvise(addr, nr * HUGE, MADV_HUGEPAGE));
	for (i = 0; i < 8; i++) {
		scans = file_number(THP "khugepaged/full_scans");
		for (n = 0; file_number(THP "khugepaged/full_scans") == scans; n++) {
			check(n < 20000);
			nap(1000);
		}
		nap(50000);
		if (i)
			batch(run_time(pid) - start, nr * BATCH);
		start = run_time(pid);
	}
	report("khugepaged");
	file_write(THP "khugepaged/scan_sleep_millisecs", "100000000");
}

/* Devices. They are in the order of their addresses, as their nodes are. */

static int devices(char names[16][32])
{
	struct dirent **list;
	char path[320];
	int i, n, nr = 0;

	n = scandir(PCI "devices", &list, NULL, alphasort);
	for (i = 0; i < n; i++) {
		snprintf(path, sizeof(path), PCI "devices/%s/device", list[i]->d_name);
		if (list[i]->d_name[0] != '.' && nr < 16) {
			char id[16];

			if (file_read(path, id, sizeof(id)) > 0 && strtoul(id, NULL, 16) == 0x1110)
				snprintf(names[nr++], 32, "%.31s", list[i]->d_name);
		}
	}
	return nr;
}

static void load(const char *path, const char *params)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0 || syscall(SYS_finit_module, fd, params, 0))
		fail("%s %s", path, params);
	close(fd);
}

static unsigned long node_bytes(int nid)
{
	char path[64], buf[4096], *pos;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", nid);
	if (file_read(path, buf, sizeof(buf)) < 0)
		return 0;
	pos = strstr(buf, "MemTotal:");
	return pos ? strtoul(pos + 9, NULL, 10) * 1024 : 0;
}

static void bind_devices(void)
{
	const char *driver = !strcmp(mode, "cdm") ? "cdm_ivshmem" : "dax_ivshmem";
	char names[16][32], path[128];
	unsigned long took, gib = 1UL << 30, bytes;
	double gone[5];
	int i, nr = devices(names);

	check(nr >= nr_devices);
	file_write(PCI "drivers_autoprobe", "0");
	file_write("/sys/devices/system/memory/auto_online_blocks", "online_movable");
	if (!strcmp(mode, "cdm")) {
		load("/cdm_ivshmem.ko",
		     "caps=migrate,gup,longterm_pin,thp,reclaim,swap,interleave");
	} else {
		load("/dax_ivshmem.ko", "nid=" xstr(NODE_DEV));
	}
	snprintf(path, sizeof(path), PCI "drivers/%s/bind", driver);
	took = write_run_time(path, names[0]);
	bytes = node_bytes(NODE_DEV);
	if (!bytes)
		fail("no node %d", NODE_DEV);
	batch((double)took * gib / bytes, 1);
	report("register_gib");
	/* kmem keeps memory that it cannot offline: nothing to compare with later */
	for (i = 0; i < 5 && !strcmp(mode, "cdm"); i++) {
		snprintf(path, sizeof(path), PCI "drivers/%s/unbind", driver);
		gone[i] = (double)write_run_time(path, names[0]) * gib / bytes;
		snprintf(path, sizeof(path), PCI "drivers/%s/bind", driver);
		batch((double)write_run_time(path, names[0]) * gib / bytes, 1);
	}
	if (i) {
		report("register_again_gib");
		for (i = 0; i < 5; i++)
			batch(gone[i], 1);
		report("unregister_gib");
	}
	for (i = 1; i < nr_devices; i++) {
		if (!strcmp(mode, "kmem")) {
			char nid[16];

			snprintf(nid, sizeof(nid), "%d", NODE_DEV + i);
			file_write("/sys/module/dax_ivshmem/parameters/nid", nid);
		}
		snprintf(path, sizeof(path), PCI "drivers/%s/bind", driver);
		file_write(path, names[i]);
	}
	for (i = 0; i < nr_devices; i++)
		if (!node_bytes(NODE_DEV + i))
			fail("no node %d", NODE_DEV + i);
}

/* What grows with the number of nodes, and with their size: bench_mode=scale */

#define BLOCK	(128UL << 20)
#define NODE_FAR_SCALE	63

/* Free memory of the ordinary nodes, in kB: MemFree has the devices', too */
static long ordinary_free(void)
{
	static const int nid[] = { NODE_RAM, NODE_FAR_SCALE };
	char path[64], buf[4096], *pos;
	long sum = 0;
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", nid[i]);
		check(file_read(path, buf, sizeof(buf)) > 0);
		pos = strstr(buf, "MemFree:");
		check(pos);
		sum += strtol(pos + strlen("MemFree:"), NULL, 10);
	}
	return sum;
}

static unsigned long device_start(unsigned long *size)
{
	unsigned long start, end;
	char names[16][32], path[128], buf[4096], *pos;
	int i;

	check(devices(names) > 0);
	snprintf(path, sizeof(path), PCI "devices/%s/resource", names[0]);
	check(file_read(path, buf, sizeof(buf)) > 0);
	for (i = 0, pos = buf; i < 2; i++)
		pos = strchr(pos, '\n') + 1;
	check(sscanf(pos, "%lx %lx", &start, &end) == 2);
	*size = end + 1 - start;
	return start;
}

static int node_register(unsigned long start, unsigned long size, unsigned long *took)
{
	struct cdm_bench b = { .addr = start, .nr = size };
	struct span span = span_start();

	if (ioctl(module, CDM_BENCH_REGISTER, &b))
		fail("register %#lx %#lx", start, size);
	*took = span_end(span);
	return b.done;
}

static void node_unregister(int nid, unsigned long *took)
{
	struct cdm_bench b = { .nr = nid };
	struct span span = span_start();

	if (ioctl(module, CDM_BENCH_UNREGISTER, &b))
		fail("unregister %d", nid);
	*took = span_end(span);
}

static unsigned long fault_cost(int nid)
{
	char *addr = map(4 * BATCH, nid);
	unsigned long took = 0, least = -1UL;
	int i;

	for (i = 0; i < 4; i++) {
		took = ticks();
		touch(addr + i * HUGE, BATCH);
		took = ticks() - took;
		if (took < least)
			least = took;
	}
	check(!munmap(addr, 4 * HUGE));
	return least;
}

static void scale_nodes(void)
{
	struct cdm_bench gup = { .nr = BATCH };
	unsigned long start, size, took, fault, fault_dev, scanned, marked, forked;
	long before = ordinary_free();
	int nid[64], nr = 0, wanted, i;
	char *addr = map(BATCH, -1);
	pid_t pid;

	start = device_start(&size);
	touch(addr, BATCH);
	for (wanted = 0; wanted <= 62; wanted = wanted ? wanted < 32 ? 2 * wanted : wanted + 30 : 1) {
		took = 0;
		while (nr < wanted && (nr + 1) * BLOCK <= size) {
			nid[nr] = node_register(start + nr * BLOCK, BLOCK, &took);
			nr++;
		}
		if (nr < wanted)
			break;
		fault = fault_cost(-1);
		fault_dev = nr ? fault_cost(nid[nr - 1]) : 0;
		gup.addr = (unsigned long)addr;
		for (i = 0; i < 4; i++)
			check(!ioctl(module, CDM_BENCH_GUP_FAST, &gup));
		file_write("/proc/sys/kernel/numa_balancing", "1");
		for (i = 0, scanned = -1UL; i < 4; i++) {
			unsigned long once = scan(addr, BATCH, &marked);

			if (once < scanned)
				scanned = once;
			touch(addr, BATCH);
		}
		file_write("/proc/sys/kernel/numa_balancing", "0");
		for (i = 0, forked = -1UL; i < 32; i++) {
			unsigned long began = ticks();

			pid = fork();
			if (!pid)
				_exit(0);
			began = ticks() - began;
			check(pid > 0 && waitpid(pid, NULL, 0) == pid);
			if (began < forked)
				forked = began;
		}
		say("I scale:nodes:%d fault=%.1f fault_dev=%.1f gup=%.1f scan=%.1f fork=%.1f register=%lu memory_kb=%ld\n",
		    nr, (double)fault / BATCH, (double)fault_dev / BATCH,
		    (double)gup.ticks / BATCH, (double)scanned / BATCH,
		    (double)forked / BATCH, took, before - ordinary_free());
	}
	while (nr)
		node_unregister(nid[--nr], &took);
}

static void scale_size(void)
{
	unsigned long start, size, gib, came, left;
	long before, after;
	int nid;

	start = device_start(&size);
	for (gib = 1; gib << 30 <= size; gib *= 2) {
		before = ordinary_free();
		nid = node_register(start, gib << 30, &came);
		after = ordinary_free();
		node_unregister(nid, &left);
		say("I scale:size:%lu register=%.1f unregister=%.1f memory_kb=%ld\n", gib,
		    (double)came / gib, (double)left / gib, before - after);
	}
}

/* What the CPU counts in the kernel, where there is one that counts: bench_perf=1 */

static const struct {
	const char *name;
	__u64 config;
} events[] = {
	{ "cycles", PERF_COUNT_HW_CPU_CYCLES },
	{ "instructions", PERF_COUNT_HW_INSTRUCTIONS },
	{ "cache_misses", PERF_COUNT_HW_CACHE_MISSES },
	{ "branch_misses", PERF_COUNT_HW_BRANCH_MISSES },
};

#define NR_EVENTS	(sizeof(events) / sizeof(events[0]))

static void perf_start(int fd[NR_EVENTS])
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.exclude_user = 1,
		.exclude_hv = 1,
	};
	unsigned int i;

	for (i = 0; i < NR_EVENTS; i++) {
		attr.config = events[i].config;
		/* Of all that the CPU does: the work of kernel threads counts. */
		fd[i] = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);
		if (fd[i] < 0)
			fail("the CPU does not count %s", events[i].name);
	}
}

static void perf_end(const char *name, int fd[NR_EVENTS])
{
	__u64 count[NR_EVENTS];
	unsigned int i;

	for (i = 0; i < NR_EVENTS; i++)
		check(read(fd[i], &count[i], sizeof(count[i])) == sizeof(count[i]));
	for (i = 0; i < NR_EVENTS; i++)
		say("I perf:%s:%s count=%llu\n", name, events[i].name, count[i]);
}

struct workload {
	const char *name;
	void (*run)(void);
};

#define WORKLOAD(function)	{ #function, function }

static void run(const struct workload *workload)
{
	int ret, fd[NR_EVENTS];
	pid_t pid;

	batches->nr = 0;
	pid = fork();
	if (!pid) {
		if (perf)
			perf_start(fd);
		workload->run();
		if (perf)
			perf_end(workload->name, fd);
		_exit(0);
	}
	check(pid > 0 && waitpid(pid, &ret, 0) == pid);
	if (ret)
		say("E %s ended with %#x\n", workload->name, ret);
}

static void info(const char *name, const char *path)
{
	char buf[4096];

	if (file_read(path, buf, sizeof(buf)) < 0)
		return;
	buf[strcspn(buf, "\n")] = '\0';
	say("I %s %s\n", name, buf);
}

int main(void)
{
	static const struct workload always[] = {
		WORKLOAD(calibrate), WORKLOAD(fault), WORKLOAD(fault_thp),
		WORKLOAD(fault_far), WORKLOAD(forks), WORKLOAD(page_cache),
		WORKLOAD(gup), WORKLOAD(allocator), WORKLOAD(numa_scan),
		WORKLOAD(move_pages), WORKLOAD(migrate_pages), WORKLOAD(ksm),
		WORKLOAD(khugepaged), WORKLOAD(pageout), WORKLOAD(reclaim),
		WORKLOAD(scale_vmas), WORKLOAD(scale_tasks), WORKLOAD(fault_memcg),
	}, with_device[] = {
		WORKLOAD(fault_dev), WORKLOAD(fault_thp_dev), WORKLOAD(forks_dev),
		WORKLOAD(gup_dev), WORKLOAD(numa_scan_dev), WORKLOAD(move_pages_dev),
		WORKLOAD(migrate_pages_dev), WORKLOAD(ksm_dev), WORKLOAD(pageout_dev),
		WORKLOAD(sweep), WORKLOAD(fault_dmem_dev),
	}, nodes_of_scale = WORKLOAD(scale_nodes), sizes_of_scale = WORKLOAD(scale_size),
	bind = WORKLOAD(bind_devices);
	struct termios raw;
	unsigned int i;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	out = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
	if (out < 0)
		return 1;
	if (!tcgetattr(out, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(out, TCSANOW, &raw);
	}
	/* What stands on the command line and is no parameter of the kernel */
	if (getenv("bench_mode"))
		mode = getenv("bench_mode");
	quick = getenv("bench_quick");
	perf = getenv("bench_perf");
	if (getenv("bench_devices"))
		nr_devices = atoi(getenv("bench_devices"));

	batches = mmap(NULL, sizeof(*batches), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(batches != MAP_FAILED);
	info("kernel", "/proc/version");
	info("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource");

	/* What the kernel takes before there is a device */
	say("I boot:memory:0 total_kb=%lu slab_kb=%lu percpu_kb=%lu\n",
	    meminfo("MemTotal:"), meminfo("Slab:"), meminfo("Percpu:"));

	/*
	 * Each boot with other free lists: what a workload takes depends a little
	 * on where in a batch of the allocator it begins, and how much shows only so.
	 */
	if (getenv("bench_boot")) {
		unsigned long pages = atoi(getenv("bench_boot")) * 1237UL;

		/* In a process of their own: the workloads fork, and migrate all they have. */
		if (!fork()) {
			touch(map(pages, -1), pages);
			pause();
		}
	}

	/* Nobody works but who is measured. */
	file_write("/proc/sys/kernel/numa_balancing", "0");
	file_write(THP "enabled", "madvise");
	file_write(THP "khugepaged/scan_sleep_millisecs", "100000000");
	file_write(KSM "run", "0");

	load("/cdm_bench.ko", "");
	module = open("/dev/cdm_bench", O_RDWR);
	check(module >= 0);

	if (!strcmp(mode, "scale")) {
		file_write("/sys/devices/system/memory/auto_online_blocks", "online_movable");
		run(&nodes_of_scale);
		run(&sizes_of_scale);
		goto done;
	}
	swap_on();
	if (nr_devices)
		run(&bind);
	info("has_memory", "/sys/devices/system/node/has_memory");
	info("has_coherent_memory", "/sys/devices/system/node/has_coherent_memory");
	info("cdm_caps", "/sys/devices/system/node/node" xstr(NODE_DEV) "/cdm_caps");
	for (i = 0; i < sizeof(always) / sizeof(always[0]); i++)
		run(&always[i]);
	if (nr_devices)
		for (i = 0; i < sizeof(with_device) / sizeof(with_device[0]); i++)
			run(&with_device[i]);
done:
	say("D\n");
	tcdrain(out);
	reboot(RB_POWER_OFF);
	return 0;
}
