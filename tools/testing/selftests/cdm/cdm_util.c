// SPDX-License-Identifier: GPL-2.0
/*
 * What the CDM selftests share, see cdm_util.h.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "cdm_util.h"
#include "../../../../mm/gup_test.h"

#define PCI_SYSFS	"/sys/bus/pci/devices"
#define DRIVER_SYSFS	"/sys/bus/pci/drivers/cdm_ivshmem"
#define PARAM_SYSFS	"/sys/module/cdm_ivshmem/parameters"
#define BATCH		((size_t)1024)

/* /proc/self/pagemap */
#define PM_PRESENT	0x8000000000000000UL
#define PM_PFN		0x007fffffffffffffUL

int file_read(const char *path, char *buf, size_t size)
{
	ssize_t len, total = 0;
	int fd, err = 0;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -errno;
	while ((size_t)total < size - 1) {
		len = read(fd, buf + total, size - 1 - total);
		if (len < 0)
			err = -errno;
		if (len <= 0)
			break;
		total += len;
	}
	close(fd);
	if (err)
		return err;
	buf[total] = '\0';
	if (total && buf[total - 1] == '\n')
		buf[--total] = '\0';
	return total;
}

int file_write(const char *path, const char *text)
{
	int fd, err = 0;

	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* The number that a file holds, or -1: none of those used here is negative */
long long file_number(const char *path)
{
	char buf[64];

	if (file_read(path, buf, sizeof(buf)) <= 0)
		return -1;
	return strtoll(buf, NULL, 0);
}

static long long find_number(const char *path, const char *field)
{
	size_t len = strlen(field);
	long long value = -1;
	char line[256];
	char *pos;
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		pos = strstr(line, field);
		if (!pos || (pos != line && pos[-1] != ' '))
			continue;
		if (pos[len] != ' ' && pos[len] != ':')
			continue;
		value = strtoll(pos + len + 1, NULL, 10);
		break;
	}
	fclose(f);
	return value;
}

long long vm_event(const char *name)
{
	return find_number("/proc/vmstat", name);
}

/* A line of nodeN/meminfo, in kB, with what the CPUs have not yet added to it */
long long node_meminfo(int nid, const char *field)
{
	char path[PATH_MAX];

	if (file_write("/proc/sys/vm/stat_refresh", "1"))
		return -1;
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/meminfo", nid);
	return find_number(path, field);
}

/*
 * A field of /proc/zoneinfo ("low", "count:"), in the unit that it has there: of
 * one zone of the node, or NULL for the sum of all
 */
long long node_zoneinfo(int nid, const char *zone, const char *field)
{
	size_t len = strlen(field);
	char line[256], name[32];
	bool wanted = false;
	long long sum = 0;
	const char *text;
	int node;
	FILE *f;

	f = fopen("/proc/zoneinfo", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone %31s", &node, name) == 2) {
			wanted = node == nid && (!zone || !strcmp(zone, name));
			continue;
		}
		text = line + strspn(line, " ");
		if (wanted && !strncmp(text, field, len) && text[len] == ' ')
			sum += strtoll(text + len, NULL, 10);
	}
	fclose(f);
	return sum;
}

/*
 * How many allocations the node has ever served. It counts in the allocator,
 * so a page that came and went between two looks is seen too.
 */
unsigned long node_allocations(int nid)
{
	char path[PATH_MAX];
	long long hit, miss;

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/numastat", nid);
	hit = find_number(path, "numa_hit");
	miss = find_number(path, "numa_miss");
	if (hit < 0 || miss < 0) {
		ksft_print_msg("%s: no allocation counters\n", path);
		return ULONG_MAX;
	}
	return hit + miss;
}

/*
 * Settings. The table is shared between the test, which the harness forks,
 * and the process that restores after it, even if the test was killed.
 */
#define MAX_SETTINGS	64

struct setting {
	char path[192];
	char old[256];
};

static struct settings {
	int nr;
	struct setting setting[MAX_SETTINGS];
} *settings;

static void __attribute__((constructor)) settings_init(void)
{
	settings = mmap(NULL, sizeof(*settings), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (settings == MAP_FAILED)
		abort();
}

int setting(const char *path, const char *text)
{
	char old[sizeof(((struct setting *)0)->old)];
	struct setting *s;
	char *from, *to;
	int i, ret;

	for (i = 0; i < settings->nr; i++)
		if (!strcmp(settings->setting[i].path, path))
			goto write;

	ret = file_read(path, old, sizeof(old));
	if (ret < 0) {
		ksft_print_msg("%s: %s\n", path, strerror(-ret));
		return ret;
	}
	/* Of a choice, the one in brackets is on. */
	from = strchr(old, '[');
	if (from) {
		to = strchr(++from, ']');
		if (to)
			*to = '\0';
	} else {
		from = old;
	}
	if (settings->nr == MAX_SETTINGS)
		return -ENOSPC;
	s = &settings->setting[settings->nr];
	snprintf(s->path, sizeof(s->path), "%s", path);
	snprintf(s->old, sizeof(s->old), "%s", from);
	settings->nr++;
write:
	ret = file_write(path, text);
	if (ret)
		ksft_print_msg("%s <- %s: %s\n", path, text, strerror(-ret));
	return ret;
}

void settings_restore(void)
{
	while (settings->nr) {
		struct setting *s = &settings->setting[--settings->nr];

		if (file_write(s->path, s->old))
			ksft_print_msg("%s: not restored\n", s->path);
	}
}

/* "0-1,3" as a mask; the tests need no more than 64 nodes or CPUs */
unsigned long parse_list(const char *text)
{
	unsigned long mask = 0, from, to;
	char *end;

	while (*text) {
		from = strtoul(text, &end, 10);
		if (end == text)
			break;
		to = from;
		if (*end == '-')
			to = strtoul(end + 1, &end, 10);
		for (; from <= to && from < 64; from++)
			mask |= 1UL << from;
		text = *end == ',' ? end + 1 : end;
	}
	return mask;
}

/* A node state, such as "has_memory", as a mask; 0 if there is no such file */
unsigned long node_list(const char *name)
{
	char path[PATH_MAX], buf[256];

	snprintf(path, sizeof(path), NODE_SYSFS "/%s", name);
	if (file_read(path, buf, sizeof(buf)) < 0)
		return 0;
	return parse_list(buf);
}

/* The index-th node with CPUs and memory */
int ram_node(int index)
{
	unsigned long nodes = node_list("has_memory") & node_list("has_cpu");
	int nid;

	for (nid = 0; nid < 64; nid++)
		if (nodes & NODE_BIT(nid) && !index--)
			return nid;
	return -1;
}

/* Run on the CPUs of a node only */
int run_on_node(int nid)
{
	char path[PATH_MAX], buf[256];
	unsigned long cpus;
	cpu_set_t set;
	int cpu, ret;

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cpulist", nid);
	ret = file_read(path, buf, sizeof(buf));
	if (ret < 0)
		return ret;
	cpus = parse_list(buf);
	CPU_ZERO(&set);
	for (cpu = 0; cpu < 64; cpu++)
		if (cpus & (1UL << cpu))
			CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return -errno;
	return 0;
}

bool cdm_control(void)
{
	const char *control = getenv("CDM_CONTROL");

	return control && *control == '1';
}

static int device_parse(struct device *dev, const char *name)
{
	char path[PATH_MAX], buf[4096];
	unsigned long start, end;
	char *line = buf;
	int i;

	snprintf(path, sizeof(path), PCI_SYSFS "/%s/vendor", name);
	if (file_number(path) != 0x1af4)
		return -ENODEV;
	snprintf(path, sizeof(path), PCI_SYSFS "/%s/device", name);
	if (file_number(path) != 0x1110)
		return -ENODEV;

	/* One line for each BAR; the memory is BAR 2. */
	snprintf(path, sizeof(path), PCI_SYSFS "/%s/resource", name);
	if (file_read(path, buf, sizeof(buf)) < 0)
		return -ENODEV;
	for (i = 0; i < 2 && line; i++)
		line = strchr(line + 1, '\n');
	if (!line || sscanf(line, "%lx %lx", &start, &end) != 2 ||
	    end <= start)
		return -ENODEV;

	snprintf(dev->name, sizeof(dev->name), "%s", name);
	dev->start = start;
	dev->size = end + 1 - start;
	return 0;
}

static struct device devices[8];

static int nr_devices(void)
{
	static int nr = -1;
	struct dirent **list;
	int i, nr_list;

	if (nr >= 0)
		return nr;
	nr = 0;
	nr_list = scandir(PCI_SYSFS, &list, NULL, alphasort);
	for (i = 0; i < nr_list; i++) {
		if (nr < 8 && !device_parse(&devices[nr], list[i]->d_name))
			nr++;
		free(list[i]);
	}
	if (nr_list >= 0)
		free(list);
	return nr;
}

/* The index-th memory device, in the order of their PCI addresses */
const struct device *cdm_device(int index)
{
	if (index < nr_devices())
		return &devices[index];
	ksft_print_msg("no memory device %d (PCI 1af4:1110)\n", index);
	return NULL;
}

static unsigned long block_size(void)
{
	char buf[64];

	if (file_read(MEMORY_SYSFS "/block_size_bytes", buf, sizeof(buf)) < 0)
		return 0;
	return strtoull(buf, NULL, 16);
}

/* The node that a device's memory is, or -1 */
int cdm_node_of(int index)
{
	const struct device *dev = cdm_device(index);
	unsigned long block = block_size();
	char path[PATH_MAX];
	int nid;

	if (!dev || !block)
		return -1;
	/* Of the two links, one may be missing: the kernel goes on without. */
	for (nid = 0; nid < 64; nid++) {
		snprintf(path, sizeof(path), NODE_SYSFS "/node%d/memory%lu",
			 nid, dev->start / block);
		if (!access(path, F_OK))
			return nid;
		snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%lu/node%d",
			 dev->start / block, nid);
		if (!access(path, F_OK))
			return nid;
	}
	return -1;
}

int cdm_node(void)
{
	return cdm_node_of(0);
}

static int modprobe(const char *name, const char *params)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		execlp("modprobe", "modprobe", name,
		       *params ? params : NULL, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -ENOENT;
}

static int insmod(const char *path, const char *params)
{
	int fd, ret = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, params, 0))
		ret = -errno;
	close(fd);
	return ret == -EEXIST ? 0 : ret;
}

/*
 * Load a module: the test modules lie beside the tests, drivers where modprobe
 * finds them or in CDM_MODULES.
 */
int load_module(const char *name, const char *params)
{
	const char *dir = getenv("CDM_MODULES");
	char path[PATH_MAX], self[PATH_MAX];
	ssize_t len;
	int ret;

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	if (!access(path, F_OK))
		return 0;

	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len < 0)
		return -errno;
	self[len] = '\0';
	snprintf(path, sizeof(path), "%s/test_modules/%s.ko", dirname(self), name);
	ret = insmod(path, params);
	if (ret == -ENOENT && dir) {
		snprintf(path, sizeof(path), "%s/%s.ko", dir, name);
		ret = insmod(path, params);
	}
	if (ret == -ENOENT)
		ret = modprobe(name, params);
	if (ret)
		ksft_print_msg("module %s: %s\n", name, strerror(-ret));
	return ret;
}

int unload_module(const char *name)
{
	if (syscall(SYS_delete_module, name, O_NONBLOCK))
		return -errno;
	return 0;
}

/* Whether the driver has the device */
static bool driver_has(const struct device *dev)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DRIVER_SYSFS "/%s", dev->name);
	return !access(path, F_OK);
}

/* The driver takes all devices that it finds; the tests say which and how. */
static int driver_load(void)
{
	int i, ret;

	if (!access(DRIVER_SYSFS, F_OK))
		return 0;
	ret = load_module("cdm_ivshmem", "caps=none");
	for (i = 0; !ret && i < nr_devices(); i++)
		if (driver_has(cdm_device(i)))
			ret = file_write(DRIVER_SYSFS "/unbind",
					 cdm_device(i)->name);
	return ret;
}

static bool word_in(const char *word, const char *list)
{
	size_t len = strlen(word);
	const char *pos = list;

	while ((pos = strstr(pos, word))) {
		if ((pos == list || pos[-1] == ',') &&
		    (pos[len] == ',' || pos[len] == '\0'))
			return true;
		pos += len;
	}
	return false;
}

/*
 * Let the driver take the device, with these capabilities. Those that hand
 * pages to other devices need the driver's word that DMA reaches them.
 */
int cdm_bind_device(int index, const char *caps)
{
	static const char * const dma[] = {
		"all", "gup", "longterm_pin", "swap", "pagecache",
	};
	const struct device *dev = cdm_device(index);
	const char *p2pdma = "N";
	size_t i;
	int ret;

	if (!dev)
		return -ENODEV;
	ret = driver_load();
	if (ret)
		return ret;
	for (i = 0; i < ARRAY_SIZE(dma); i++)
		if (word_in(dma[i], caps))
			p2pdma = "Y";
	ret = file_write(PARAM_SYSFS "/caps", caps);
	if (!ret)
		ret = file_write(PARAM_SYSFS "/p2pdma", p2pdma);
	if (ret) {
		ksft_print_msg("module parameters: %s\n", strerror(-ret));
		return ret;
	}
	return file_write(DRIVER_SYSFS "/bind", dev->name);
}

int cdm_bind(const char *caps)
{
	return cdm_bind_device(0, caps);
}

/* Take the device from the driver, if the driver has it */
int cdm_unbind_device(int index)
{
	const struct device *dev = cdm_device(index);

	if (!dev)
		return -ENODEV;
	if (!driver_has(dev))
		return 0;
	return file_write(DRIVER_SYSFS "/unbind", dev->name);
}

int cdm_unbind(void)
{
	return cdm_unbind_device(0);
}

int cdm_state(int nid, char *buf, size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CDM_SYSFS "/node%d/state", nid);
	return file_read(path, buf, size);
}

/* Ask the node to leave: 0 or -EBUSY */
int cdm_unplug(int nid)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CDM_SYSFS "/node%d/state", nid);
	return file_write(path, "unplugged");
}

/* "ksm,migrate" and "migrate ksm" are the same set of words */
static bool same_caps(const char *wanted, const char *shown)
{
	char word[32], list[512];
	size_t nr_wanted = 0, nr_shown = 0;
	const char *pos;
	size_t len;
	char *c;

	if (!strcmp(wanted, "none") || !strcmp(shown, "none"))
		return !strcmp(wanted, shown);
	if (!strcmp(wanted, "all"))
		return false;	/* bind again; costs time only */

	snprintf(list, sizeof(list), "%s", shown);
	for (c = list; *c; c++)
		if (*c == ' ')
			*c = ',';
	for (pos = list; pos; pos = strchr(pos + 1, ','))
		nr_shown++;
	for (pos = wanted; *pos; pos += len + !!pos[len]) {
		len = strcspn(pos, ",");
		snprintf(word, sizeof(word), "%.*s", (int)len, pos);
		if (!word_in(word, list))
			return false;
		nr_wanted++;
	}
	return nr_wanted == nr_shown;
}

static int control_node_up(void)
{
	int ret;

	ret = file_write(MEMORY_SYSFS "/auto_online_blocks", "online_movable");
	if (ret)
		return ret;
	ret = load_module("dax_ivshmem", "");
	if (ret)
		return ret;
	if (!wait_for(cdm_node() >= 0))
		return -ENODEV;
	return cdm_node();
}

/*
 * Make the device's memory a node with exactly these capabilities. Returns
 * the node, or -errno. An ordinary node, as in the control, allows everything.
 */
int cdm_node_up(const char *caps)
{
	char path[PATH_MAX], shown[512], state[32];
	int nid, ret;

	if (!cdm_device(0))
		return -ENODEV;
	if (cdm_control())
		return control_node_up();

	ret = driver_load();
	if (ret)
		return ret;
	nid = cdm_node();
	if (nid >= 0) {
		snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_caps", nid);
		if (file_read(path, shown, sizeof(shown)) > 0 &&
		    cdm_state(nid, state, sizeof(state)) > 0 &&
		    !strcmp(state, "online") && same_caps(caps, shown))
			return nid;
	}
	ret = cdm_node_down();
	if (ret)
		return ret;
	ret = cdm_bind(caps);
	if (ret) {
		ksft_print_msg("bind with %s: %s\n", caps, strerror(-ret));
		return ret;
	}
	nid = cdm_node();
	return nid < 0 ? -ENODEV : nid;
}

int cdm_node_down(void)
{
	char state[32];
	int nid, ret;

	ret = cdm_unbind();
	if (ret)
		return ret;
	nid = cdm_node();
	if (nid < 0)
		return 0;
	/* The driver could not free it in time: it is an orphan. */
	if (cdm_state(nid, state, sizeof(state)) < 0)
		return -EBUSY;
	ret = cdm_unplug(nid);
	if (ret)
		ksft_print_msg("node %d (%s) does not leave: %s\n", nid, state,
			       strerror(-ret));
	return ret;
}

static void add_file(FILE *out, const char *path)
{
	char buf[16384];
	int ret;

	ret = file_read(path, buf, sizeof(buf));
	if (ret < 0)
		fprintf(out, "%s: %s\n", path, strerror(-ret));
	else
		fprintf(out, "%s:\n%s\n", path, buf);
}

static void add_directory(FILE *out, const char *path)
{
	struct dirent **list;
	int i, nr;

	nr = scandir(path, &list, NULL, alphasort);
	fprintf(out, "%s:%s\n", path, nr < 0 ? " none" : "");
	for (i = 0; i < nr; i++) {
		fprintf(out, "\t%s\n", list[i]->d_name);
		free(list[i]);
	}
	if (nr >= 0)
		free(list);
}

char *cdm_snapshot(void)
{
	static const char * const states[] = {
		"possible", "online", "has_memory", "has_normal_memory",
		"has_cpu", "has_coherent_memory",
	};
	char path[PATH_MAX];
	char *text = NULL;
	size_t i, size;
	FILE *out;

	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		snprintf(path, sizeof(path), NODE_SYSFS "/%s", states[i]);
		add_file(out, path);
	}
	add_file(out, "/proc/iomem");
	add_directory(out, NODE_SYSFS);
	for (i = 0; i < 8; i++) {
		snprintf(path, sizeof(path), NODE_SYSFS "/node%zu", i);
		add_directory(out, path);
	}
	add_directory(out, MEMORY_SYSFS);
	add_directory(out, CDM_SYSFS);
	fclose(out);
	return text;
}

bool cdm_same_snapshot(const char *before, const char *after)
{
	const char *b = before, *a = after;
	size_t blen, alen;

	if (!before || !after)
		return false;
	while (*b || *a) {
		blen = strcspn(b, "\n");
		alen = strcspn(a, "\n");
		if (blen != alen || strncmp(b, a, blen)) {
			ksft_print_msg("was: %.*s\n", (int)blen, b);
			ksft_print_msg("now: %.*s\n", (int)alen, a);
			return false;
		}
		b += blen + !!b[blen];
		a += alen + !!a[alen];
	}
	return true;
}

/* So many huge pages' worth of addresses, on their boundary, nothing beside them */
char *map_huge_range(size_t nr)
{
	char *area, *addr;

	area = mmap(NULL, (nr + 1) * HUGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return NULL;
	addr = (char *)(((unsigned long)area + HUGE - 1) & ~(HUGE - 1));
	if (addr != area)
		munmap(area, addr - area);
	if (addr != area + HUGE)
		munmap(addr + nr * HUGE, area + HUGE - addr);
	return addr;
}

/* Pages of the pools of huge pages; flags: MAP_NORESERVE, MAP_SHARED */
char *map_huge(size_t nr, int flags)
{
	if (!(flags & MAP_SHARED))
		flags |= MAP_PRIVATE;
	return mmap(NULL, nr * HUGE, PROT_READ | PROT_WRITE,
		    flags | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT,
		    -1, 0);
}

/* Base pages only, as the node may deny huge ones and KSM splits them */
void *map_pages(size_t nr)
{
	void *addr;

	addr = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return NULL;
	if (madvise(addr, nr * PAGE_SIZE, MADV_NOHUGEPAGE)) {
		munmap(addr, nr * PAGE_SIZE);
		return NULL;
	}
	return addr;
}

int bind_pages(void *addr, size_t nr, int mode, unsigned long nodes,
	       unsigned int flags)
{
	if (mbind(addr, nr * PAGE_SIZE, mode, nodes ? &nodes : NULL,
		  nodes ? 65 : 0, flags))
		return -errno;
	return 0;
}

void *map_pages_on(size_t nr, int nid)
{
	void *addr = map_pages(nr);

	if (addr && bind_pages(addr, nr, MPOL_BIND, NODE_BIT(nid), 0)) {
		munmap(addr, nr * PAGE_SIZE);
		return NULL;
	}
	return addr;
}

void unmap_pages(void *addr, size_t nr)
{
	munmap(addr, nr * PAGE_SIZE);
}

/* The seed at both ends: equal seeds are equal pages, and a cut page shows */
void fill_page(void *addr, unsigned long seed)
{
	unsigned long *word = addr;

	word[0] = seed;
	word[PAGE_SIZE / sizeof(*word) - 1] = ~seed;
}

bool page_is(const void *addr, unsigned long seed)
{
	const unsigned long *word = addr;

	return READ_ONCE(word[0]) == seed &&
	       READ_ONCE(word[PAGE_SIZE / sizeof(*word) - 1]) == ~seed;
}

/* Pages that all differ: page i has seed + i */
void fill_pages(void *addr, size_t nr, size_t stride, unsigned long seed)
{
	size_t i;

	for (i = 0; i < nr; i++)
		fill_page((char *)addr + i * stride, seed + i);
}

size_t pages_intact(const void *addr, size_t nr, size_t stride, unsigned long seed)
{
	size_t i, intact = 0;

	for (i = 0; i < nr; i++)
		intact += page_is((const char *)addr + i * stride, seed + i);
	return intact;
}

static long move_batches(int flags, const void *addr, size_t nr, size_t stride,
			 int nid, int *status)
{
	int targets[BATCH];
	void *pages[BATCH];
	long left = 0, ret;
	size_t i, done, n;

	for (done = 0; done < nr; done += n) {
		n = nr - done < BATCH ? nr - done : BATCH;
		for (i = 0; i < n; i++) {
			pages[i] = (char *)addr + (done + i) * stride;
			targets[i] = nid;
			status[done + i] = INT_MIN;
		}
		ret = move_pages(0, n, pages, nid < 0 ? NULL : targets,
				 status + done, flags);
		if (ret < 0)
			return -errno;
		left += ret;
	}
	return left;
}

/* The node of each page, or a negative errno (-ENOENT: not there) */
int pages_nodes(const void *addr, size_t nr, size_t stride, int *nodes)
{
	return move_batches(0, addr, nr, stride, -1, nodes);
}

size_t pages_on(const void *addr, size_t nr, size_t stride, int nid)
{
	size_t count = 0;
	int *nodes;

	nodes = calloc(nr, sizeof(*nodes));
	if (nodes && !pages_nodes(addr, nr, stride, nodes))
		count = count_status(nodes, nr, nid);
	free(nodes);
	return count;
}

/* Fresh pages of a node, filled, all of them really there; or NULL */
char *filled_pages_on(size_t nr, int nid, unsigned long seed)
{
	char *pages = map_pages_on(nr, nid);

	if (!pages)
		return NULL;
	fill_pages(pages, nr, PAGE_SIZE, seed);
	if (pages_on(pages, nr, PAGE_SIZE, nid) != nr) {
		unmap_pages(pages, nr);
		return NULL;
	}
	drain_lru();
	return pages;
}

int page_node(const void *addr)
{
	int node;

	if (pages_nodes(addr, 1, PAGE_SIZE, &node))
		return -1;
	return node;
}

/*
 * A huge page's worth of a node, filled, all of it in folios of so many kB and
 * really there; or NULL
 */
char *large_folios_on(size_t kb, int nid, unsigned long seed)
{
	char *addr = map_huge_range(1);
	bool large = false;
	char path[128];

	if (!addr)
		return NULL;
	snprintf(path, sizeof(path), THP_SYSFS "/hugepages-%zukB/enabled", kb);
	if (!madvise(addr, HUGE, MADV_HUGEPAGE) &&
	    !bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0) &&
	    !setting(THP_SYSFS "/hugepages-2048kB/enabled", "never") &&
	    !setting(path, "madvise")) {
		fill_pages(addr, HUGE_NR, PAGE_SIZE, seed);
		/* Nor does khugepaged make them larger */
		setting(path, "never");
		large = pages_in_folios(addr, HUGE_NR, kb) == HUGE_NR;
	}
	if (large && pages_on(addr, HUGE_NR, PAGE_SIZE, nid) == HUGE_NR) {
		drain_lru();
		return addr;
	}
	munmap(addr, HUGE);
	return NULL;
}

/* How many of the pages are in folios of so many kB, aligned and in one piece */
size_t pages_in_folios(const char *addr, size_t nr, size_t kb)
{
	size_t per = (kb << 10) / PAGE_SIZE, i, j, count = 0;
	unsigned long *pfn;
	bool whole;

	pfn = calloc(nr, sizeof(*pfn));
	if (!pfn)
		return 0;
	if (pages_pfns(addr, nr, PAGE_SIZE, pfn))
		nr = 0;
	for (i = 0; i + per <= nr; i += per) {
		whole = pfn[i] && !(pfn[i] % per);
		for (j = 0; whole && j < per; j++)
			whole = pfn[i + j] == pfn[i] + j &&
				page_flags_of(pfn[i + j]) & (j ? KPF_COMPOUND_TAIL :
							     KPF_COMPOUND_HEAD);
		if (whole)
			count += per;
	}
	free(pfn);
	return count;
}

/*
 * move_pages(), as root with MPOL_MF_MOVE_ALL: without it, a page that two
 * processes map is refused by every kernel. Returns what move_pages() returns.
 */
long move_to(void *addr, size_t nr, size_t stride, int nid, int *status)
{
	long ret;
	int *own;

	if (status)
		return move_batches(MPOL_MF_MOVE_ALL, addr, nr, stride, nid,
				    status);
	own = calloc(nr, sizeof(*own));
	if (!own)
		return -ENOMEM;
	ret = move_batches(MPOL_MF_MOVE_ALL, addr, nr, stride, nid, own);
	free(own);
	return ret;
}

size_t count_status(const int *status, size_t nr, int value)
{
	size_t i, count = 0;

	for (i = 0; i < nr; i++)
		count += status[i] == value;
	return count;
}

static unsigned long read_word(int fd, unsigned long index)
{
	unsigned long value;

	if (pread(fd, &value, sizeof(value), index * sizeof(value)) !=
	    sizeof(value))
		return 0;
	return value;
}

/* The page frame of each page, 0 for one that is not present */
int pages_pfns(const void *addr, size_t nr, size_t stride, unsigned long *pfn)
{
	unsigned long entry;
	size_t i;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return -errno;
	for (i = 0; i < nr; i++) {
		entry = read_word(fd, ((unsigned long)addr + i * stride) /
				      PAGE_SIZE);
		pfn[i] = entry & PM_PRESENT ? entry & PM_PFN : 0;
	}
	close(fd);
	return 0;
}

/* How many pages have all of these flags, KPF_* */
size_t pages_with(const void *addr, size_t nr, size_t stride,
		  unsigned long flags)
{
	size_t i, count = 0;
	unsigned long *pfn;
	int fd;

	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0)
		return 0;
	pfn = calloc(nr, sizeof(*pfn));
	if (pfn && !pages_pfns(addr, nr, stride, pfn))
		for (i = 0; i < nr; i++)
			count += pfn[i] &&
				 (read_word(fd, pfn[i]) & flags) == flags;
	free(pfn);
	close(fd);
	return count;
}

/* The page frame of a present page, or 0 */
unsigned long page_pfn(const void *addr)
{
	unsigned long pfn;

	return pages_pfns(addr, 1, PAGE_SIZE, &pfn) ? 0 : pfn;
}

/* What /proc/kpageflags says of a page frame, KPF_* bits */
unsigned long page_flags_of(unsigned long pfn)
{
	unsigned long flags;
	int fd;

	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0)
		return 0;
	flags = read_word(fd, pfn);
	close(fd);
	return flags;
}

size_t pages_ksm(const void *addr, size_t nr, size_t stride)
{
	return pages_with(addr, nr, stride, KPF_KSM);
}

static int compare_pfns(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;

	return x < y ? -1 : x > y;
}

size_t distinct_pfns(const void *addr, size_t nr, size_t stride)
{
	size_t i, count = 0;
	unsigned long *pfn;

	pfn = calloc(nr, sizeof(*pfn));
	if (!pfn)
		return 0;
	if (pages_pfns(addr, nr, stride, pfn))
		nr = 0;
	qsort(pfn, nr, sizeof(*pfn), compare_pfns);
	for (i = 0; i < nr; i++)
		count += !i || pfn[i] != pfn[i - 1];
	free(pfn);
	return count;
}

/* The VMAs that cover a range, which must be mapped as a whole */
int count_vmas(const void *addr, size_t nr)
{
	unsigned long start = (unsigned long)addr, end = start + nr * PAGE_SIZE;
	unsigned long from, to;
	char line[512];
	int count = 0;
	FILE *f;

	f = fopen("/proc/self/maps", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		count += from < end && to > start;
	}
	fclose(f);
	return count;
}

/* Look at every page of the device */
int device_use(struct node_use *use)
{
	static const unsigned long kernel = KPF_SLAB | KPF_PGTABLE;
	const struct device *dev = cdm_device(0);
	unsigned long flags[BATCH];
	unsigned long pfn, end;
	ssize_t len;
	int i, fd;

	memset(use, 0, sizeof(*use));
	if (!dev)
		return -ENODEV;
	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0)
		return -errno;
	pfn = dev->start / PAGE_SIZE;
	end = pfn + dev->size / PAGE_SIZE;
	while (pfn < end) {
		len = pread(fd, flags, sizeof(flags), pfn * sizeof(*flags));
		if (len <= 0) {
			close(fd);
			return -EIO;
		}
		for (i = 0; i < len / (ssize_t)sizeof(*flags) && pfn < end;
		     i++, pfn++) {
			unsigned long f = flags[i];

			if (f & KPF_NOPAGE)
				continue;
			use->total++;
			use->used += f && !(f & KPF_BUDDY);
			use->anon += !!(f & KPF_ANON);
			use->file += f & KPF_LRU && !(f & KPF_SWAPBACKED);
			use->kernel += !!(f & kernel);
			use->ksm += !!(f & KPF_KSM);
			use->huge += !!(f & (KPF_HUGE | KPF_THP));
		}
	}
	close(fd);
	return 0;
}

/* The pages on a node, and the policy, that numa_maps shows for a VMA */
int numa_maps_pages(const void *addr, int nid, char *policy, size_t size)
{
	char key[16], line[1024];
	unsigned long start;
	int pages = -1;
	char *pos;
	FILE *f;

	f = fopen("/proc/self/numa_maps", "r");
	if (!f)
		return -1;
	snprintf(key, sizeof(key), " N%d=", nid);
	while (fgets(line, sizeof(line), f)) {
		start = strtoul(line, &pos, 16);
		if (start != (unsigned long)addr)
			continue;
		if (policy)
			snprintf(policy, size, "%.*s",
				 (int)strcspn(pos + 1, "\n "), pos + 1);
		pos = strstr(pos, key);
		pages = pos ? atoi(pos + strlen(key)) : 0;
		break;
	}
	fclose(f);
	return pages;
}

pid_t spawn(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(126);
	_exit(fn(arg));
}

/* The exit code of a child, or minus the signal that ended it */
int reap(pid_t pid)
{
	int status;

	if (pid <= 0 || waitpid(pid, &status, 0) != pid)
		return -1000;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void kill_and_reap(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* A zeroed page that children share with the test */
void *shared_page(void)
{
	void *addr = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

/* A counter of nodeN/vmstat, with what the CPUs have not yet added to it */
long long node_event(int nid, const char *name)
{
	char path[PATH_MAX];

	if (file_write("/proc/sys/vm/stat_refresh", "1"))
		return -1;
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/vmstat", nid);
	return find_number(path, name);
}

/* How often the node has denied a capability, or -1 */
long long node_denied(int nid, const char *cap)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_denied", nid);
	return find_number(path, cap);
}

/* The kernel's log from here on; close() ends it */
int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* Is there a line with these words, of those that have not been read yet? */
bool log_has(int fd, const char *words)
{
	char line[2048];
	ssize_t len;

	for (;;) {
		len = read(fd, line, sizeof(line) - 1);
		/* Overwritten meanwhile: the next one is still there. */
		if (len < 0 && errno == EPIPE)
			continue;
		if (len <= 0)
			return false;
		line[len] = '\0';
		if (strstr(line, words))
			return true;
	}
}

/*
 * A memory cgroup of the test's own, beside the one that the tests run in. It
 * goes with memcg_remove(), which any process may call.
 */
#define MEMCG		"/sys/fs/cgroup/cdm_test"

int memcg_create(void)
{
	memcg_remove();
	if (mkdir(MEMCG, 0755))
		return -errno;
	return 0;
}

/* The caller and its children to come */
int memcg_join(void)
{
	return file_write(MEMCG "/cgroup.procs", "0");
}

void memcg_remove(void)
{
	if (access(MEMCG, F_OK))
		return;
	file_write(MEMCG "/cgroup.kill", "1");
	wait_for(!rmdir(MEMCG));
}

int memcg_write(const char *name, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), MEMCG "/%s", name);
	return file_write(path, text);
}

int memcg_set(const char *name, size_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", bytes);
	return memcg_write(name, text);
}

/* A line of a file of the cgroup such as memory.events */
long long memcg_number(const char *name, const char *field)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), MEMCG "/%s", name);
	return find_number(path, field);
}

/* Nothing merged, then ksmd at full speed and with no shortcuts */
int ksm_start(const char *merge_across_nodes)
{
	static const char * const quick[][2] = {
		{ KSM_SYSFS "/use_zero_pages", "0" },
		{ KSM_SYSFS "/smart_scan", "0" },
		{ KSM_SYSFS "/advisor_mode", "none" },
		{ KSM_SYSFS "/pages_to_scan", "20000" },
		{ KSM_SYSFS "/sleep_millisecs", "5" },
	};
	size_t i;
	int ret;

	ret = setting(KSM_SYSFS "/run", "2");
	if (!ret)
		ret = setting(KSM_SYSFS "/merge_across_nodes",
			      merge_across_nodes);
	for (i = 0; !ret && i < ARRAY_SIZE(quick); i++)
		ret = setting(quick[i][0], quick[i][1]);
	if (!ret)
		ret = file_write(KSM_SYSFS "/run", "1");
	return ret;
}

/* Until ksmd has been over all pages another nr times */
int ksm_scans(int nr)
{
	long long end = file_number(KSM_SYSFS "/full_scans") + nr;

	if (!wait_for(file_number(KSM_SYSFS "/full_scans") >= end))
		return -ETIME;
	return 0;
}

/* What merge_across_nodes is can only be set while nothing is merged */
void ksm_stop(void)
{
	file_write(KSM_SYSFS "/run", "2");
	settings_restore();
}

/* NUMA balancing that looks at everything all the time */
int numab_start(void)
{
	static const char * const quick[][2] = {
		{ "/proc/sys/kernel/numa_balancing", "1" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "20" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "20" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "100" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_size_mb", "1024" },
	};
	size_t i;
	int ret = 0;

	for (i = 0; !ret && i < ARRAY_SIZE(quick); i++)
		ret = setting(quick[i][0], quick[i][1]);
	return ret;
}

/*
 * A page that has just moved waits in a batch of the CPU it was moved by, and
 * nobody can take it from there. Moving any page empties the batches.
 */
void drain_lru(void)
{
	static char *page;

	if (!page) {
		page = map_pages(1);
		if (!page)
			return;
	}
	fill_page(page, 0);
	move_to(page, 1, PAGE_SIZE, page_node(page), NULL);
}

/*
 * Read one byte of each page and say how many page faults that took. Of pages
 * that are present, a fault is a NUMA hinting fault.
 */
long touch_faults(const char *addr, size_t nr, size_t stride)
{
	struct rusage before, after;
	size_t i;

	getrusage(RUSAGE_THREAD, &before);
	for (i = 0; i < nr; i++)
		READ_ONCE(addr[i * stride]);
	getrusage(RUSAGE_THREAD, &after);
	return after.ru_minflt - before.ru_minflt;
}

/*
 * Makes the CPUs that run this process look at page tables again. Who clears
 * accessed bits, as DAMON does, does not flush for it, and a CPU with nothing
 * else to do may keep what it knows for minutes.
 */
int flush_translations(void)
{
	/* So many pages that all is flushed, not each of them */
	const size_t nr = 256;
	static char *pages;

	if (!pages) {
		pages = map_pages(nr);
		if (!pages)
			return -ENOMEM;
		fill_pages(pages, nr, PAGE_SIZE, 1);
	}
	if (mprotect(pages, nr * PAGE_SIZE, PROT_READ) ||
	    mprotect(pages, nr * PAGE_SIZE, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

#define TIERS		"/sys/devices/virtual/memory_tiering"

/* Which tier has the node, or -1 */
int tier_of(int nid)
{
	char path[128], list[64];
	int tier;

	for (tier = 0; tier < 64; tier++) {
		snprintf(path, sizeof(path), TIERS "/memory_tier%d/nodelist", tier);
		if (file_read(path, list, sizeof(list)) > 0 &&
		    parse_list(list) & NODE_BIT(nid))
			return tier;
	}
	return -1;
}

#define GUP_TEST	"/sys/kernel/debug/gup_test"

/* How many of the pages one call of GUP gets, in one of gup_test's modes */
size_t gup_gets(unsigned long mode, void *addr, size_t nr, unsigned int flags)
{
	struct gup_test test = {
		.addr = (unsigned long)addr,
		.size = nr * PAGE_SIZE,
		.nr_pages_per_call = nr,
		.gup_flags = flags,
	};
	int fd, ret;

	fd = open(GUP_TEST, O_RDWR);
	if (fd < 0)
		return -1;
	ret = ioctl(fd, mode, &test);
	close(fd);
	return ret ? 0 : test.size / PAGE_SIZE;
}

#define DAMON	"/sys/kernel/mm/damon/admin/kdamonds"

/* Writes a value to a file below DAMON's directory, both made by printf rules */
static int damon_set(const char *value, const char *fmt, ...)
{
	char path[256] = DAMON "/";
	va_list args;

	va_start(args, fmt);
	vsnprintf(path + strlen(path), sizeof(path) - strlen(path), fmt, args);
	va_end(args);
	return file_write(path, value);
}

static int damon_set_number(unsigned long long number, const char *path)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", number);
	return damon_set(text, "%s", path);
}

void damon_stop(void)
{
	damon_set("off", "0/state");
	damon_set("0", "nr_kdamonds");
}

#define CTX	"0/contexts/0/"
#define SCHEME	CTX "schemes/0/"

/*
 * Starts DAMON on one region of this process, or with ops "paddr" of physical
 * memory, with one scheme for what is accessed at least min_accesses times.
 */
int damon_start(const char *ops, unsigned long long start,
		unsigned long long size, const char *action,
		int target_nid, unsigned int min_accesses)
{
	bool virtual = !strcmp(ops, "vaddr");
	int ret = 0;

	damon_stop();
	ret |= damon_set("1", "nr_kdamonds");
	ret |= damon_set("1", "0/contexts/nr_contexts");
	ret |= damon_set(ops, CTX "operations");
	ret |= damon_set("5000", CTX "monitoring_attrs/intervals/sample_us");
	ret |= damon_set("100000", CTX "monitoring_attrs/intervals/aggr_us");
	/* The region stays what it is, and does not become all of the process */
	ret |= damon_set("1000000000000", CTX "monitoring_attrs/intervals/update_us");
	/* Pieces that are not much smaller than what they are cut from */
	if (!strcmp(action, "collapse")) {
		ret |= damon_set("3", CTX "monitoring_attrs/nr_regions/min");
		ret |= damon_set("3", CTX "monitoring_attrs/nr_regions/max");
	}
	ret |= damon_set("1", CTX "targets/nr_targets");
	if (virtual)
		ret |= damon_set_number(getpid(), CTX "targets/0/pid_target");
	ret |= damon_set("1", CTX "targets/0/regions/nr_regions");
	ret |= damon_set_number(start, CTX "targets/0/regions/0/start");
	ret |= damon_set_number(start + size, CTX "targets/0/regions/0/end");
	ret |= damon_set("1", CTX "schemes/nr_schemes");
	ret |= damon_set(action, SCHEME "action");
	if (target_nid >= 0)
		ret |= damon_set_number(target_nid, SCHEME "target_nid");
	ret |= damon_set_number(~0ULL >> 1, SCHEME "access_pattern/sz/max");
	ret |= damon_set_number(min_accesses,
				SCHEME "access_pattern/nr_accesses/min");
	ret |= damon_set("1000000", SCHEME "access_pattern/nr_accesses/max");
	ret |= damon_set("1000000", SCHEME "access_pattern/age/max");
	ret |= damon_set("on", "0/state");
	return ret;
}

/* Bytes of regions that matched the scheme's pattern so far, or -errno */
long long damon_tried(void)
{
	int ret = damon_set("update_schemes_stats", "0/state");

	return ret ?: file_number(DAMON "/" SCHEME "stats/sz_tried");
}

/* Let the scheme's action be for anonymous pages only, which it then counts. */
int damon_only_anon(void)
{
	int ret = damon_set("1", SCHEME "ops_filters/nr_filters");

	ret |= damon_set("anon", SCHEME "ops_filters/0/type");
	ret |= damon_set("Y", SCHEME "ops_filters/0/matching");
	ret |= damon_set("Y", SCHEME "ops_filters/0/allow");
	return ret | damon_set("commit", "0/state");
}

/* Bytes that have passed the filter, or -errno */
long long damon_passed(void)
{
	int ret = damon_set("update_schemes_stats", "0/state");

	return ret ?: file_number(DAMON "/" SCHEME "stats/sz_ops_filter_passed");
}

/* Bytes of these to which the action was applied, or -errno */
long long damon_applied(void)
{
	int ret = damon_set("update_schemes_stats", "0/state");

	return ret ?: file_number(DAMON "/" SCHEME "stats/sz_applied");
}

/* The hugetlb pool of a node, for pages of 2 MiB; the path until the next call */
const char *pool_file(int nid, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/hugepages/" HUGETLB_SIZE "/%s",
		 nid, name);
	return path;
}

int pool_set(int nid, const char *nr)
{
	return file_write(pool_file(nid, "nr_hugepages"), nr);
}

long long pool_size(int nid)
{
	return file_number(pool_file(nid, "nr_hugepages"));
}
