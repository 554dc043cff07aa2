// SPDX-License-Identifier: GPL-2.0
/*
 * What the system says it has for everybody does not change when a node comes,
 * nor when it is filled; what it says of the node does, and in all places alike.
 * CDM_CONTROL=1: with the same memory added by dax/kmem all of it does change.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define TMPFS		"/run/cdm-accounting"
/*
 * 256 MiB of the device's 512: many times what KASAN's quarantine and the like
 * hold back of free memory meanwhile
 */
#define NR		((size_t)65536)
#define SEED		0xacc00000UL

/* All in KiB */
struct system {
	/* exact */
	long long total, commit_limit, sysinfo_total, tmpfs;
	long long user_reserve, admin_reserve;
	/* about */
	long long free, available, sysinfo_free, dirty, committed;
	/* What is taken off the former, of what there is for everybody */
	long long cached, shmem, sysinfo_shared, anon, mapped, lru, used;
};

/*
 * What else may happen to free memory meanwhile. When the node comes, its memory
 * map is taken from it, and under KASAN an eighth of the device's size; later it
 * is other programs, and page tables. The dirty limit is a fifth of it.
 */
#define SLACK_COMING	((long long)cdm_device(0)->size / 1024 / 4)
#define SLACK_FILLING	((long long)NR * 4 / 3)
/* What changes between two looks */
#define SLACK_SUM	8192

FIXTURE(accounting)
{
	int nid;
	struct system before;	/* without the node */
	struct system up;	/* with it */
	char *pages;
};

static long long system_meminfo(const char *field)
{
	char text[8192], *line;
	char key[64];

	if (file_read("/proc/meminfo", text, sizeof(text)) <= 0)
		return -1;
	snprintf(key, sizeof(key), "%s:", field);
	line = strstr(text, key);
	return line ? strtoll(line + strlen(key), NULL, 10) : -1;
}

/*
 * KiB of ordinary nodes on the lists of CPUs: free, but not in MemFree, and a
 * tenth of the memory of a small machine. A memory map that is freed goes there.
 */
static long long on_cpu_lists(void)
{
	unsigned long ordinary = node_list("has_memory");
	long long pages = 0;
	int nid;

	for (nid = 0; nid < 64; nid++)
		if (ordinary & NODE_BIT(nid))
			pages += node_zoneinfo(nid, NULL, "count:");
	return pages * (long long)PAGE_SIZE / 1024;
}

static bool look(struct system *s)
{
	long long listed = on_cpu_lists();
	struct sysinfo info;
	struct statfs fs;

	/* The counters of each CPU, added up */
	if (file_write("/proc/sys/vm/stat_refresh", "1") || sysinfo(&info) ||
	    (mkdir(TMPFS, 0700) && errno != EEXIST) ||
	    mount("none", TMPFS, "tmpfs", 0, NULL))
		return false;
	if (statfs(TMPFS, &fs)) {
		umount(TMPFS);
		return false;
	}
	umount(TMPFS);
	s->total = system_meminfo("MemTotal");
	s->commit_limit = system_meminfo("CommitLimit");
	s->sysinfo_total = info.totalram * info.mem_unit / 1024;
	s->user_reserve = file_number("/proc/sys/vm/user_reserve_kbytes");
	s->admin_reserve = file_number("/proc/sys/vm/admin_reserve_kbytes");
	s->committed = system_meminfo("Committed_AS");
	s->tmpfs = fs.f_blocks * fs.f_bsize / 1024;
	s->free = system_meminfo("MemFree") + listed;
	s->available = system_meminfo("MemAvailable") + listed;
	s->sysinfo_free = info.freeram * info.mem_unit / 1024 + listed;
	s->dirty = vm_event("nr_dirty_threshold") * (long long)PAGE_SIZE / 1024 +
		   listed * file_number("/proc/sys/vm/dirty_ratio") / 100;
	s->cached = system_meminfo("Cached");
	s->shmem = system_meminfo("Shmem");
	s->sysinfo_shared = info.sharedram * info.mem_unit / 1024;
	s->anon = system_meminfo("AnonPages");
	s->mapped = system_meminfo("Mapped");
	s->lru = system_meminfo("Active") + system_meminfo("Inactive") +
		 system_meminfo("Unevictable");
	/* As free(1) and busybox compute it */
	s->used = s->total - s->free - system_meminfo("Buffers") - s->cached -
		  system_meminfo("SReclaimable");
	return s->total > 0 && s->commit_limit > 0 && s->free > 0 &&
	       s->available > 0 && s->dirty > 0;
}

static void expect_about(struct __test_metadata *_metadata, const char *what,
			 long long before, long long after, long long slack)
{
	EXPECT_GE(slack, llabs(after - before)) {
		TH_LOG("%s: %lld KiB became %lld", what, before, after);
	}
}

/*
 * What tools make of /proc/meminfo is neither less than nothing nor more than all,
 * and what they add up of the ordinary nodes is what it says.
 */
static void expect_sane(struct __test_metadata *_metadata)
{
	static const char * const parts[] = {
		"MemTotal", "MemFree", "AnonPages", "Mapped", "Shmem", "Dirty",
		"Active", "Inactive", "Unevictable", "Mlocked",
	};
	long long total, cache, sum, is, all, used;
	unsigned long ordinary = node_list("has_memory");
	unsigned long nodes = ordinary | node_list("has_coherent_memory");
	size_t i;
	int nid;

	ASSERT_EQ(0, file_write("/proc/sys/vm/stat_refresh", "1"));
	total = system_meminfo("MemTotal");
	cache = system_meminfo("Cached") + system_meminfo("SReclaimable");
	all = system_meminfo("MemFree") + system_meminfo("Buffers") +
	      system_meminfo("Cached");
	const struct {
		const char *tool;
		long long value;
	} formulas[] = {
		{ "free of procps 4 and dashboards: used",
		  total - system_meminfo("MemAvailable") },
		{ "free of procps 3 and busybox, top: used",
		  total - all - system_meminfo("SReclaimable") },
		{ "free and vmstat: buff/cache", cache + system_meminfo("Buffers") },
		{ "htop: cache", cache - system_meminfo("Shmem") },
		{ "dashboards of node_exporter: used", total - all },
		{ "dashboards of node_exporter: apps",
		  total - all - system_meminfo("Slab") - system_meminfo("PageTables") -
		  system_meminfo("SwapCached") },
		{ "vmstat -a: active, inactive",
		  system_meminfo("Active") + system_meminfo("Inactive") },
		{ "anonymous and mapped",
		  system_meminfo("AnonPages") + system_meminfo("Mapped") },
	};

	for (i = 0; i < ARRAY_SIZE(formulas); i++) {
		EXPECT_LE(0, formulas[i].value)
			TH_LOG("%s", formulas[i].tool);
		EXPECT_GE(total, formulas[i].value)
			TH_LOG("%s", formulas[i].tool);
	}

	/* cAdvisor, numastat -m */
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		sum = 0;
		for (nid = 0; nid < 64; nid++)
			if (ordinary & NODE_BIT(nid))
				sum += node_meminfo(nid, parts[i]);
		is = system_meminfo(parts[i]);
		expect_about(_metadata, parts[i], is, sum, i ? SLACK_SUM : 0);
	}
	for (nid = 0; nid < 64; nid++) {
		if (!(nodes & NODE_BIT(nid)))
			continue;
		all = node_meminfo(nid, "MemTotal");
		used = node_meminfo(nid, "MemUsed");
		EXPECT_LE(0, used);
		EXPECT_GE(all, used);
		EXPECT_GE(used, node_meminfo(nid, "FilePages"));
		EXPECT_GE(used, node_meminfo(nid, "AnonPages"));
	}
}

static void expect_same(struct __test_metadata *_metadata,
			const struct system *before, const struct system *after,
			long long slack)
{
	EXPECT_EQ(before->total, after->total);
	EXPECT_EQ(before->commit_limit, after->commit_limit);
	EXPECT_EQ(before->sysinfo_total, after->sysinfo_total);
	EXPECT_EQ(before->tmpfs, after->tmpfs);
	EXPECT_EQ(before->user_reserve, after->user_reserve);
	EXPECT_EQ(before->admin_reserve, after->admin_reserve);
	expect_about(_metadata, "Committed_AS", before->committed, after->committed, slack);
	expect_about(_metadata, "MemFree", before->free, after->free, slack);
	expect_about(_metadata, "MemAvailable", before->available,
		     after->available, slack);
	expect_about(_metadata, "freeram", before->sysinfo_free,
		     after->sysinfo_free, slack);
	expect_about(_metadata, "nr_dirty_threshold", before->dirty,
		     after->dirty, slack / 5);
	expect_about(_metadata, "Cached", before->cached, after->cached, slack);
	expect_about(_metadata, "Shmem", before->shmem, after->shmem, slack);
	expect_about(_metadata, "sharedram", before->sysinfo_shared,
		     after->sysinfo_shared, slack);
	expect_about(_metadata, "AnonPages", before->anon, after->anon, slack);
	expect_about(_metadata, "Mapped", before->mapped, after->mapped, slack);
	expect_about(_metadata, "on the LRUs", before->lru, after->lru, slack);
	expect_about(_metadata, "used", before->used, after->used, slack);
	expect_sane(_metadata);
}

FIXTURE_SETUP(accounting)
{
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_LE(2 * NR * PAGE_SIZE, cdm_device(0)->size);
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	/* Nothing that is about to be written or freed */
	ASSERT_EQ(0, file_write("/proc/sys/vm/drop_caches", "3"));
	ASSERT_TRUE(look(&self->before));
	self->nid = cdm_node_up("migrate,reclaim,thp,pagecache");
	ASSERT_LE(0, self->nid);
	ASSERT_TRUE(look(&self->up));
}

FIXTURE_TEARDOWN_PARENT(accounting)
{
	umount(TMPFS);
	rmdir(TMPFS);
	memcg_remove();
	settings_restore();
	cdm_node_down();
}

TEST_F_TIMEOUT(accounting, registered, CDM_TIMEOUT)
{
	struct system after;

	ASSERT_TRUE(look(&after));
	expect_same(_metadata, &self->before, &after, SLACK_COMING);
	/* Positive control: the node has come, with all that it has */
	EXPECT_EQ(cdm_device(0)->size / 1024, node_meminfo(self->nid, "MemTotal"));
	EXPECT_LT(cdm_device(0)->size / 1024 * 9 / 10,
		  node_meminfo(self->nid, "MemFree"));

	/* And nothing is taken off when it goes */
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_TRUE(look(&after));
	expect_same(_metadata, &self->before, &after, SLACK_COMING);
}

/* KiB, beyond what is free, that can be had without swapping */
static long long to_be_had(void)
{
	return system_meminfo("MemAvailable") - system_meminfo("MemFree");
}

/* Page cache in RAM, which need not be written any more */
static char *clean_file(void)
{
	int fd = open("/scratch", O_RDWR | O_TMPFILE, 0600);
	char *pages = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, NR * PAGE_SIZE))
		pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_SHARED, fd, 0);
	if (pages != MAP_FAILED)
		fill_pages(pages, NR, PAGE_SIZE, SEED);
	if (pages != MAP_FAILED && fsync(fd)) {
		munmap(pages, NR * PAGE_SIZE);
		pages = MAP_FAILED;
	}
	if (fd >= 0)
		close(fd);
	return pages;
}

/*
 * What a zone keeps free is taken off MemAvailable, once of what is free and
 * once of the page cache if there is more of that; what the device's keeps is not.
 */
TEST_F_TIMEOUT(accounting, reserves, CDM_TIMEOUT)
{
	long long with, kept;

	self->pages = clean_file();
	ASSERT_NE(MAP_FAILED, self->pages);
	ASSERT_EQ(0, setting("/proc/sys/vm/watermark_scale_factor", "300"));
	kept = node_zoneinfo(self->nid, NULL, "low") * (long long)PAGE_SIZE / 1024;
	with = to_be_had();
	ASSERT_EQ(0, cdm_node_down());
	/* What the machine does meanwhile comes and goes, what is counted wrong stays. */
	wait_for(llabs(to_be_had() - with) < kept / 2);
	expect_about(_metadata, "MemAvailable - MemFree", with, to_be_had(), kept / 2);
	/* Positive control: it keeps the three percent */
	EXPECT_LT((long long)cdm_device(0)->size / 1024 * 3 / 100, kept);
}

TEST_F_TIMEOUT(accounting, filled, CDM_TIMEOUT)
{
	long long free = node_meminfo(self->nid, "MemFree");
	struct system after;

	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	ASSERT_TRUE(look(&after));
	expect_same(_metadata, &self->up, &after, SLACK_FILLING);
	/* Positive control */
	EXPECT_LE((long long)NR * 4, free - node_meminfo(self->nid, "MemFree"));
}

/* Shared memory, which is a part of Cached, too */
TEST_F_TIMEOUT(accounting, shared_memory, CDM_TIMEOUT)
{
	long long used, others;
	int fields;
	struct system after;
	char line[128];
	int fd;
	FILE *f;

	fd = memfd_create("cdm", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR * PAGE_SIZE));
	self->pages = mmap(NULL, NR * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   fd, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
	ASSERT_EQ(0, bind_pages(self->pages, NR, MPOL_BIND, NODE_BIT(self->nid), 0));
	fill_pages(self->pages, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	ASSERT_TRUE(look(&after));
	expect_same(_metadata, &self->up, &after, SLACK_FILLING);

	/* The tool itself, which asks both /proc/meminfo and sysinfo(2) */
	f = popen("busybox free -k", "r");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f) && strncmp(line, "Mem:", 4))
		;
	pclose(f);
	fields = sscanf(line, "Mem: %*d %lld %*d %lld", &used, &others);
	ASSERT_EQ(2, fields);
	EXPECT_LE(0, used);
	EXPECT_GT(after.total, used);
	expect_about(_metadata, "free: shared", self->up.shmem, others, SLACK_FILLING);

	/* Positive control: of the node it is said */
	EXPECT_LE((long long)NR * 4, node_meminfo(self->nid, "Shmem"));
	EXPECT_LE((long long)NR * 4, node_meminfo(self->nid, "FilePages"));

	/* And in RAM it counts for all. */
	munmap(self->pages, NR * PAGE_SIZE);
	close(fd);
	fd = memfd_create("cdm", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, NR / 4 * PAGE_SIZE));
	self->pages = mmap(NULL, NR / 4 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   fd, 0);
	ASSERT_NE(MAP_FAILED, self->pages);
	fill_pages(self->pages, NR / 4, PAGE_SIZE, SEED);
	ASSERT_TRUE(look(&after));
	expect_about(_metadata, "Shmem in RAM", self->up.shmem + (long long)NR,
		     after.shmem, 4096);
	expect_about(_metadata, "Cached in RAM", self->up.cached + (long long)NR,
		     after.cached, SLACK_FILLING / 8);
	close(fd);
}

/* A report of who has pages may be about the node, as about any that has some */
TEST_F_TIMEOUT(accounting, page_owner, CDM_TIMEOUT)
{
	char filter[16];
	int fd;

	fd = open("/sys/kernel/debug/page_owner", O_RDWR);
	ASSERT_LE(0, fd);
	snprintf(filter, sizeof(filter), "nid=%d", self->nid);
	EXPECT_EQ(strlen(filter), write(fd, filter, strlen(filter)));
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(-1, write(fd, filter, strlen(filter)));
	EXPECT_EQ(EINVAL, errno);
	close(fd);
}

/* All nodes that have memory of each cgroup, however little is read at a time */
TEST_F_TIMEOUT(accounting, lru_gen, CDM_TIMEOUT)
{
	unsigned long nodes = node_list("has_memory") | NODE_BIT(self->nid);
	static const size_t sizes[] = { 32, 65536 };
	static char text[4 * 65536];
	int cgroups, fd, nid, at;
	ssize_t len, total;
	char *line;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		fd = open("/sys/kernel/debug/lru_gen", O_RDONLY);
		ASSERT_LE(0, fd);
		total = 0;
		do {
			len = read(fd, text + total, sizes[i]);
			ASSERT_LE(0, len);
			total += len;
			ASSERT_GE(sizeof(text) - sizes[i], total);
		} while (len);
		close(fd);
		text[total] = '\0';

		cgroups = 0;
		at = 64;
		for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
			if (!strncmp(line, "memcg ", 6)) {
				EXPECT_EQ(64, at);
				cgroups++;
				at = 0;
			} else if (sscanf(line, " node %d", &nid) == 1) {
				while (at < 64 && !(nodes & NODE_BIT(at)))
					at++;
				EXPECT_EQ(at, nid);
				for (at++; at < 64 && !(nodes & NODE_BIT(at)); at++)
					;
			}
		}
		EXPECT_EQ(64, at);
		EXPECT_LT(1, cgroups);
	}
}

/* Page cache that was moved there is not RAM's to give back, or to make dirty */
TEST_F_TIMEOUT(accounting, page_cache, CDM_TIMEOUT)
{
	struct system after;
	long left;
	size_t i;

	self->pages = clean_file();
	ASSERT_NE(MAP_FAILED, self->pages);
	/*
	 * Who writes back may hold some for a moment, and what was huge is
	 * mapped anew. A page that is held keeps what follows it in its batch.
	 */
	wait_for((left = move_to(self->pages, NR, PAGE_SIZE, self->nid, NULL)) < 0 ||
		 (pages_intact(self->pages, NR, PAGE_SIZE, SEED) == NR &&
		  pages_on(self->pages, NR, PAGE_SIZE, self->nid) == NR));
	ASSERT_LE(0, left);
	for (i = 0; i < NR && page_node(self->pages + i * PAGE_SIZE) == self->nid; i++)
		;
	ASSERT_EQ(NR, i)
		TH_LOG("on node %d, flags %#lx", page_node(self->pages + i * PAGE_SIZE),
		       page_flags_of(page_pfn(self->pages + i * PAGE_SIZE)));
	ASSERT_TRUE(look(&after));
	expect_same(_metadata, &self->up, &after, SLACK_FILLING);
	/* Positive control */
	EXPECT_LE((long long)NR * 4,
		  node_meminfo(self->nid, "FilePages"));
}

/* Of memory.numa_stat: the bytes of anonymous memory on a node */
static long long memcg_anon(int nid)
{
	char text[8192], key[16], *line, *end;

	if (file_read("/sys/fs/cgroup/cdm_test/memory.numa_stat", text,
		      sizeof(text)) <= 0)
		return -1;
	line = strstr(text, "anon ");
	if (!line)
		return -1;
	end = strchrnul(line, '\n');
	*end = '\0';
	snprintf(key, sizeof(key), " N%d=", nid);
	line = strstr(line, key);
	return line ? strtoll(line + strlen(key), NULL, 10) : -1;
}

/* KiB in use on the node, without what waits on lists of the CPUs */
static long long node_used(int nid)
{
	long long listed = node_zoneinfo(nid, NULL, "count:") * (long long)PAGE_SIZE / 1024;

	return node_meminfo(nid, "MemUsed") - listed;
}

/* What all say of the same pages */
TEST_F_TIMEOUT(accounting, agree, CDM_TIMEOUT)
{
	long long used, anon, allocations;

	ASSERT_EQ(0, memcg_create());
	ASSERT_EQ(0, memcg_join());
	used = node_used(self->nid);
	anon = node_meminfo(self->nid, "AnonPages");
	allocations = node_allocations(self->nid);
	self->pages = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, self->pages);
	drain_lru();

	EXPECT_EQ(NR, pages_on(self->pages, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, numa_maps_pages(self->pages, self->nid, NULL, 0));
	EXPECT_EQ((long long)NR * 4,
		  node_meminfo(self->nid, "AnonPages") - anon);
	expect_about(_metadata, "MemUsed", used + (long long)NR * 4,
		     node_used(self->nid), 4096);
	EXPECT_LE(allocations + NR, node_allocations(self->nid));
	EXPECT_EQ((long long)(NR * PAGE_SIZE), memcg_anon(self->nid));
}

TEST_HARNESS_MAIN
