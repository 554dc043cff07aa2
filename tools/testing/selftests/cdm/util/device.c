// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: the device and its node: bound, unbound, with these capabilities.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"
#include "../cdm_util.h"

#define PCI_SYSFS	"/sys/bus/pci/devices"
#define DRIVER_SYSFS	"/sys/bus/pci/drivers/cdm_ivshmem"
#define PARAM_SYSFS	"/sys/module/cdm_ivshmem/parameters"

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
static int nr_known = -1;

/* Look for them again: one may have come or gone, or be at another address */
void cdm_find_devices(void)
{
	nr_known = -1;
}

static int nr_devices(void)
{
	struct dirent **list;
	int i, nr, nr_list;

	if (nr_known >= 0)
		return nr_known;
	nr = 0;
	nr_list = scandir(PCI_SYSFS, &list, NULL, alphasort);
	for (i = 0; i < nr_list; i++) {
		if (nr < 8 && !device_parse(&devices[nr], list[i]->d_name))
			nr++;
		free(list[i]);
	}
	if (nr_list >= 0)
		free(list);
	nr_known = nr;
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

bool cdm_node_exists(int nid)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CDM_SYSFS "/node%d", nid);
	return !access(path, F_OK);
}

/* Does what is left of it wait for somebody to let go? */
bool cdm_node_is_lost(int nid)
{
	char state[32];

	return cdm_state(nid, state, sizeof(state)) > 0 && !strcmp(state, "lost");
}

/* Ask the node to leave: 0 or -EBUSY */
int cdm_unplug(int nid)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CDM_SYSFS "/node%d/state", nid);
	return file_write(path, "unplugged");
}

/* A call of test_modules/cdm_test.c, with arguments as it wants them: 0 or -errno */
int cdm_call(const char *call, const char *fmt, ...)
{
	char path[PATH_MAX], text[256];
	va_list args;

	snprintf(path, sizeof(path), "/sys/kernel/debug/cdm_test/%s", call);
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return file_write(path, text);
}

/*
 * Broken pages are remembered for longer than a test runs. Forget those of the
 * device, as if a driver had said that it has none; takes the node down.
 */
int cdm_forget_bad_pages(void)
{
	const struct device *dev = cdm_device(0);
	int nid, ret;

	if (!dev)
		return -ENODEV;
	if (cdm_control())
		return 0;
	ret = cdm_node_down();
	if (ret)
		return ret;
	ret = load_module("cdm_test", "");
	if (ret)
		return ret;
	/* Any node; CDM_ALLOW_MIGRATE; CDM_COHERENT, CDM_P2PDMA, CDM_ALL_BAD_PAGES */
	ret = cdm_call("register", "%#lx %#lx -1 0x8 0xb", dev->start, dev->size);
	nid = cdm_node();
	if (nid >= 0)
		ret = cdm_call("unregister", "%d", nid) ?: ret;
	return unload_module("cdm_test") ?: ret;
}

/*
 * How many pages of a device's memory are not all zeroes, without a node and
 * past the kernel: through the BAR. The offset is in bytes.
 */
long raw_used(int index, size_t offset, size_t nr)
{
	const struct device *dev = cdm_device(index);
	static const char zeroes[PAGE_SIZE];
	char path[PATH_MAX], *raw;
	long used = 0;
	size_t i;
	int fd;

	if (!dev)
		return -ENODEV;
	snprintf(path, sizeof(path), PCI_SYSFS "/%s/resource2", dev->name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -errno;
	raw = mmap(NULL, nr * PAGE_SIZE, PROT_READ, MAP_SHARED, fd, offset);
	close(fd);
	if (raw == MAP_FAILED)
		return -errno;
	for (i = 0; i < nr; i++)
		used += !!memcmp(raw + i * PAGE_SIZE, zeroes, PAGE_SIZE);
	munmap(raw, nr * PAGE_SIZE);
	return used;
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
