// SPDX-License-Identifier: GPL-2.0
/*
 * The programs of tools/cdm/guest/story, as one: what a user of the memory does, and
 * what somebody does who is not. Prints what happened; exit status 0 if that is
 * what should have happened.
 *
 *	cdm_story hog NODE		fill RAM until killed, look at NODE
 *	cdm_story bind NODE		mbind() a buffer
 *	cdm_story mixed NODE		one VMA of RAM and device pages, KSM, NUMA balancing
 *	cdm_story move NODE allowed|denied	move_pages() out and in
 *	cdm_story stay NODE		hold pages there until the node has gone
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define MIB		0x100000UL
#define NR_MIXED	65536UL
#define NR_MOVE		1024UL
#define NR_BIND		16384UL		/* 64 MiB */
#define PATIENCE	240		/* seconds, for what the kernel does by itself */
#define KPF_KSM		0x200000UL

static int nid;
static int statuses[NR_MIXED];
static void *addresses[NR_MIXED];
static int targets[NR_MIXED];

static noreturn void die(const char *what)
{
	printf("    %s: %s\n", what, strerror(errno));
	exit(2);
}

static void set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* The number behind the last ' ' or ':' of the line that has this name in it */
static long number(const char *path, const char *name)
{
	char line[256];
	long value = -1;
	char *pos;
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		die(path);
	while (value < 0 && fgets(line, sizeof(line), f)) {
		pos = strstr(line, name);
		if (pos)
			value = strtol(pos + strlen(name) +
				       strspn(pos + strlen(name), " :"), NULL, 10);
	}
	fclose(f);
	if (value < 0)
		die(name);
	return value;
}

static long node_number(int node, const char *file, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/%s", node,
		 file);
	return number(path, name);
}

/* Base pages, so that each has a place of its own */
static char *map(unsigned long nr)
{
	char *addr = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED || madvise(addr, nr * PAGE, MADV_NOHUGEPAGE))
		die("mmap");
	return addr;
}

static void bind_to(char *addr, unsigned long nr, int node)
{
	unsigned long nodes = 1UL << node;

	if (mbind(addr, nr * PAGE, MPOL_BIND, &nodes, 65, 0))
		die("mbind");
}

static void fill(char *addr, unsigned long nr, unsigned long stride,
		 unsigned long seed)
{
	unsigned long i;

	for (i = 0; i < nr; i++)
		*(unsigned long *)(addr + i * stride) = seed + i;
}

static unsigned long intact(const char *addr, unsigned long nr,
			    unsigned long stride, unsigned long seed)
{
	unsigned long i, count = 0;

	for (i = 0; i < nr; i++)
		count += *(const unsigned long *)(addr + i * stride) == seed + i;
	return count;
}

/* move_pages(); without a node it only says in statuses[] where the pages are */
static void query_or_move(char *addr, unsigned long nr, unsigned long stride,
			  int node)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		addresses[i] = addr + i * stride;
		targets[i] = node;
		statuses[i] = -1000;
	}
	if (move_pages(0, nr, addresses, node < 0 ? NULL : targets, statuses,
		       node < 0 ? 0 : MPOL_MF_MOVE_ALL) < 0)
		die("move_pages");
}

static unsigned long count(unsigned long nr, int value)
{
	unsigned long i, same = 0;

	for (i = 0; i < nr; i++)
		same += statuses[i] == value;
	return same;
}

static unsigned long pages_on(char *addr, unsigned long nr,
			      unsigned long stride, int node)
{
	query_or_move(addr, nr, stride, -1);
	return count(nr, node);
}

static unsigned long pages_ksm(char *addr, unsigned long nr, unsigned long stride)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int flags = open("/proc/kpageflags", O_RDONLY);
	unsigned long i, entry, kpf, merged = 0;

	if (pagemap < 0 || flags < 0)
		die("/proc/self/pagemap");
	for (i = 0; i < nr; i++) {
		if (pread(pagemap, &entry, 8, ((unsigned long)addr + i * stride) /
					      PAGE * 8) != 8)
			die("/proc/self/pagemap");
		entry &= (1UL << 55) - 1;
		if (!entry)
			continue;
		if (pread(flags, &kpf, 8, entry * 8) != 8)
			die("/proc/kpageflags");
		merged += !!(kpf & KPF_KSM);
	}
	close(pagemap);
	close(flags);
	return merged;
}

static int count_vmas(char *addr, unsigned long nr)
{
	unsigned long start = (unsigned long)addr, from, to;
	char line[256];
	int vmas = 0;
	FILE *f;

	f = fopen("/proc/self/maps", "r");
	if (!f)
		die("/proc/self/maps");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		    from < start + nr * PAGE && to > start)
			vmas++;
	fclose(f);
	return vmas;
}

static void run_on_cpu(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("sched_setaffinity");
}

/* The lowest CPU of a node */
static int cpu_of(int node)
{
	char path[64];
	int cpu;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist",
		 node);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%d", &cpu) != 1)
		die(path);
	fclose(f);
	return cpu;
}

static long served(void)
{
	return node_number(nid, "numastat", "numa_hit") +
	       node_number(nid, "numastat", "numa_miss");
}

static void eat(unsigned long *eaten)
{
	unsigned long i, chunk = 4 * MIB;
	char *addr;

	set("/proc/self/oom_score_adj", "1000");
	for (;;) {
		addr = mmap(NULL, chunk, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (addr == MAP_FAILED)
			exit(1);
		for (i = 0; i < chunk; i += PAGE)
			addr[i] = (char)(i / PAGE + 1);
		*eaten += chunk;
	}
}

static int hog_ram(void)
{
	long before = served(), after;
	unsigned long *eaten;
	int status;
	pid_t pid;

	eaten = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (eaten == MAP_FAILED)
		die("mmap");
	pid = fork();
	if (!pid)
		eat(eaten);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork");
	after = served();
	printf("    A hog touched %lu MiB, filled RAM and swap, and was %s.\n",
	       *eaten / MIB, WIFSIGNALED(status) ? "killed" : "not killed");
	printf("    Node %d had %ld MiB free meanwhile and served %ld allocations.\n",
	       nid, node_number(nid, "meminfo", "MemFree") / 1024, after - before);
	return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
		 after == before);
}

static int bind_buffer(void)
{
	char line[512], key[32];
	char *addr = map(NR_BIND);
	long pages = -1;
	char *pos;
	FILE *f;

	bind_to(addr, NR_BIND, nid);
	fill(addr, NR_BIND, PAGE, 1);
	f = fopen("/proc/self/numa_maps", "r");
	if (!f)
		die("/proc/self/numa_maps");
	snprintf(key, sizeof(key), " N%d=", nid);
	while (fgets(line, sizeof(line), f)) {
		if (strtoul(line, NULL, 16) != (unsigned long)addr)
			continue;
		printf("    numa_maps: %s", line);
		pos = strstr(line, key);
		if (pos)
			pages = strtol(pos + strlen(key), NULL, 10);
	}
	fclose(f);
	printf("    mbind() to node %d: %ld of %lu pages are there.\n", nid, pages,
	       NR_BIND);
	return !(pages == (long)NR_BIND &&
		 pages_on(addr, NR_BIND, PAGE, nid) == NR_BIND);
}

static void start_agents(void)
{
	set("/sys/kernel/mm/ksm/run", "1");
	set("/sys/kernel/mm/ksm/pages_to_scan", "20000");
	set("/sys/kernel/mm/ksm/sleep_millisecs", "10");
	set("/sys/kernel/mm/ksm/smart_scan", "0");
	set("/proc/sys/kernel/numa_balancing", "1");
	if (access("/sys/kernel/debug/sched/numa_balancing", F_OK))
		return;
	set("/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "20");
	set("/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "20");
	set("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "100");
	set("/sys/kernel/debug/sched/numa_balancing/scan_size_mb", "1024");
}

/*
 * Odd pages on the device. Of the even ones, every other has a twin for KSM,
 * the rest are on the wrong node for a task that then works elsewhere.
 */
static int mixed(void)
{
	unsigned long nr = NR_MIXED, i, moved = 0, merged = 0, stayed, odd_merged;
	long scans = 0;
	char *addr, *odd, *twin, *single;
	int before, after;
	time_t end;

	run_on_cpu(cpu_of(0));
	addr = map(nr);
	odd = addr + PAGE;
	twin = addr;
	single = addr + 2 * PAGE;
	for (i = 0; i < nr; i++)
		*(unsigned long *)(addr + i * PAGE) = i % 4 == 2 ? i : ~0UL;
	query_or_move(addr, nr / 2, 2 * PAGE, 0);
	query_or_move(odd, nr / 2, 2 * PAGE, nid);
	if (pages_on(odd, nr / 2, 2 * PAGE, nid) != nr / 2 ||
	    pages_on(addr, nr / 2, 2 * PAGE, 0) != nr / 2) {
		printf("    The pages are not where they should be.\n");
		return 1;
	}
	before = count_vmas(addr, nr);
	printf("    %lu pages in %d VMA: odd ones on node %d, even ones in RAM.\n",
	       nr, before, nid);
	fflush(stdout);

	start_agents();
	run_on_cpu(cpu_of(1));
	if (madvise(addr, nr * PAGE, MADV_MERGEABLE))
		die("madvise");
	end = time(NULL) + PATIENCE;
	while ((moved < nr / 8 || merged < nr / 8) && time(NULL) < end) {
		for (i = 0; i < nr; i++)
			__atomic_load_n(addr + i * PAGE, __ATOMIC_RELAXED);
		moved = pages_on(single, nr / 4, 4 * PAGE, 1);
		merged = pages_ksm(twin, nr / 4, 4 * PAGE);
		scans = number("/sys/kernel/mm/ksm/full_scans", "");
	}
	/* Two more passes of both over everything */
	while (number("/sys/kernel/mm/ksm/full_scans", "") < scans + 2 &&
	       time(NULL) < end)
		for (i = 0; i < nr; i++)
			__atomic_load_n(addr + i * PAGE, __ATOMIC_RELAXED);

	after = count_vmas(addr, nr);
	moved = pages_on(single, nr / 4, 4 * PAGE, 1);
	merged = pages_ksm(twin, nr / 4, 4 * PAGE);
	stayed = pages_on(odd, nr / 2, 2 * PAGE, nid);
	odd_merged = pages_ksm(odd, nr / 2, 2 * PAGE);
	for (i = 0; i < nr; i++)
		if (*(unsigned long *)(addr + i * PAGE) !=
		    (i % 4 == 2 ? i : ~0UL))
			break;
	printf("    Even pages: of %lu that have twins, KSM merged %lu;\n",
	       nr / 4, merged);
	printf("    of %lu others, NUMA balancing moved %lu to the task's node.\n",
	       nr / 4, moved);
	printf("    Odd pages: of %lu, %lu were merged and %lu moved.\n", nr / 2,
	       odd_merged, nr / 2 - stayed);
	printf("    Still %d VMA; the data is %s.\n", after,
	       i == nr ? "intact" : "LOST");
	return !(merged >= nr / 8 && moved >= nr / 8 && !odd_merged &&
		 stayed == nr / 2 && before == 1 && after == 1 && i == nr);
}

static int move(bool allowed)
{
	char *device = map(NR_MOVE), *ram = map(NR_MOVE);
	int wanted, bad = 0;
	unsigned long same;

	bind_to(device, NR_MOVE, nid);
	bind_to(ram, NR_MOVE, 0);
	fill(device, NR_MOVE, PAGE, 1);
	fill(ram, NR_MOVE, PAGE, 1);

	wanted = allowed ? 0 : -EOPNOTSUPP;
	query_or_move(device, NR_MOVE, PAGE, 0);
	same = count(NR_MOVE, wanted);
	printf("    move_pages() from node %d: status %d%s for %lu of %lu pages; ",
	       nid, wanted, allowed ? "" : " (EOPNOTSUPP)", same, NR_MOVE);
	bad |= same != NR_MOVE;
	same = pages_on(device, NR_MOVE, PAGE, allowed ? 0 : nid);
	printf("%lu are on node %d.\n", same, allowed ? 0 : nid);
	bad |= same != NR_MOVE;

	wanted = allowed ? nid : -EOPNOTSUPP;
	query_or_move(ram, NR_MOVE, PAGE, nid);
	same = count(NR_MOVE, wanted);
	printf("    move_pages() to node %d: status %d%s for %lu of %lu pages; ", nid,
	       wanted, allowed ? "" : " (EOPNOTSUPP)", same, NR_MOVE);
	bad |= same != NR_MOVE;
	same = pages_on(ram, NR_MOVE, PAGE, allowed ? nid : 0);
	printf("%lu are on node %d.\n", same, allowed ? nid : 0);
	bad |= same != NR_MOVE;

	bad |= intact(device, NR_MOVE, PAGE, 1) != NR_MOVE;
	bad |= intact(ram, NR_MOVE, PAGE, 1) != NR_MOVE;
	return bad;
}

static int stay(void)
{
	char *addr = map(NR_BIND);
	unsigned long there, ram, data;
	char path[64];
	time_t end;
	int fd;

	bind_to(addr, NR_BIND, nid);
	fill(addr, NR_BIND, PAGE, 1);
	there = pages_on(addr, NR_BIND, PAGE, nid);
	printf("    A task has %lu pages on node %d.\n", there, nid);
	fflush(stdout);
	/* tools/cdm/guest/story waits for this */
	fd = open("/run/story.ready", O_WRONLY | O_CREAT, 0600);
	if (fd < 0)
		die("/run/story.ready");
	close(fd);

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cdm_caps", nid);
	end = time(NULL) + PATIENCE;
	while (!access(path, F_OK) && time(NULL) < end)
		usleep(50000);
	ram = pages_on(addr, NR_BIND, PAGE, 0);
	ram += pages_on(addr, NR_BIND, PAGE, 1);
	data = intact(addr, NR_BIND, PAGE, 1);
	printf("    The node has gone: %lu of its %lu pages are in RAM, %lu with their data.\n",
	       ram, there, data);
	return !(there == NR_BIND && ram == NR_BIND && data == NR_BIND);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	nid = atoi(argv[2]);
	if (!strcmp(argv[1], "hog"))
		return hog_ram();
	if (!strcmp(argv[1], "bind"))
		return bind_buffer();
	if (!strcmp(argv[1], "mixed"))
		return mixed();
	if (!strcmp(argv[1], "move") && argc == 4)
		return move(!strcmp(argv[3], "allowed"));
	if (!strcmp(argv[1], "stay"))
		return stay();
	return 2;
}
