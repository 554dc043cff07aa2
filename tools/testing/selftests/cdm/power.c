// SPDX-License-Identifier: GPL-2.0
/*
 * A machine does not sleep while there is something on a node: the device may
 * forget it. A node where nobody has pages is no reason to stay awake.
 *
 * And what another kernel gets of it that this one starts: nothing.
 *
 * What is tried is all of a sleep up to the frozen tasks, which is as far as
 * an error of a device has not been met (pm_test). For a hibernation the memory
 * for the image has been found by then.
 */
#ifdef __x86_64__
#include <asm/bootparam.h>
#endif
#include <fcntl.h>
#include <limits.h>
#include <linux/kexec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define NR		((size_t)64)
#define SEED		0x51ee9000UL
#define POWER		"/sys/power"

FIXTURE(power)
{
	int nid;
};

FIXTURE_VARIANT(power)
{
	const char *state;
};

FIXTURE_VARIANT_ADD(power, suspend)
{
	.state = "freeze",
};

FIXTURE_VARIANT_ADD(power, hibernation)
{
	.state = "disk",
};

FIXTURE_SETUP(power)
{
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting("/sys/module/suspend/parameters/pm_test_delay", "0"));
	ASSERT_EQ(0, setting(POWER "/pm_test", "freezer"));
}

FIXTURE_TEARDOWN_PARENT(power)
{
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

static int try_sleep(const char *state)
{
	return file_write(POWER "/state", state);
}

/* What is on the node keeps the machine awake, one line says so, and nothing is lost */
TEST_F_TIMEOUT(power, in_use, CDM_TIMEOUT)
{
	char words[80];
	char *addr;
	int log;

	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	log = log_open();
	ASSERT_LE(0, log);

	EXPECT_EQ(-EBUSY, try_sleep(variant->state));
	snprintf(words, sizeof(words),
		 "node%d: the machine cannot sleep: %zu pages in use: %zu anonymous",
		 self->nid, NR, NR);
	EXPECT_TRUE(log_has(log, words));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));

	/* They are the reason, and the only one */
	EXPECT_EQ(0, move_to(addr, NR, PAGE_SIZE, ram_node(0), NULL));
	EXPECT_EQ(0, try_sleep(variant->state));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	close(log);
}

/* An empty node is as it was when the machine wakes up */
TEST_F_TIMEOUT(power, empty, CDM_TIMEOUT)
{
	char *addr;

	EXPECT_EQ(0, try_sleep(variant->state));
	EXPECT_EQ(self->nid, cdm_node());
	addr = filled_pages_on(NR, self->nid, SEED);
	ASSERT_NE(NULL, addr);
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
	unmap_pages(addr, NR);
}

/* The same machine without a node, whatever its tasks have */
TEST_F_TIMEOUT(power, no_node, CDM_TIMEOUT)
{
	char *addr = filled_pages_on(NR, ram_node(0), SEED);

	ASSERT_NE(NULL, addr);
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, try_sleep(variant->state));
	EXPECT_EQ(NR, pages_intact(addr, NR, PAGE_SIZE, SEED));
}

static bool is_awake(const struct device *dev)
{
	char path[PATH_MAX], status[32];

	snprintf(path, sizeof(path),
		 "/sys/bus/pci/devices/%s/power/runtime_status", dev->name);
	return file_read(path, status, sizeof(status)) < 0 ||
	       strcmp(status, "suspended");
}

FIXTURE(runtime)
{
	int nid;
};

FIXTURE_SETUP(runtime)
{
	self->nid = cdm_node_up("gup");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "1000"));
}

FIXTURE_TEARDOWN_PARENT(runtime)
{
	settings_restore();
	EXPECT_EQ(0, cdm_node_down());
}

/* A device whose driver has gone may sleep, but not while its memory is used */
TEST_F_TIMEOUT(runtime, orphan, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	char path[PATH_MAX], state[32];
	struct iovec iov;
	int pipes[2];

	iov.iov_base = filled_pages_on(1, self->nid, SEED);
	iov.iov_len = PAGE_SIZE;
	ASSERT_NE(NULL, iov.iov_base);
	/* A pipe holds the page */
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_LT(0, cdm_state(self->nid, state, sizeof(state)));
	EXPECT_STREQ("orphaned", state);

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/power/control",
		 dev->name);
	ASSERT_EQ(0, setting(path, "auto"));
	sleep(2);
	EXPECT_TRUE(is_awake(dev));
	EXPECT_TRUE(page_is(iov.iov_base, SEED));

	close(pipes[0]);
	close(pipes[1]);
	EXPECT_EQ(0, cdm_unplug(self->nid));
	EXPECT_TRUE(wait_for(!is_awake(dev)));
	EXPECT_TRUE(page_is(iov.iov_base, SEED));
}

#define CALLS		"/sys/kernel/debug/cdm_test"
#define KERNEL_SIZE	((size_t)1 << 20)

#ifdef __x86_64__

FIXTURE(kexec)
{
	int nid;
	int kernel;
};

/* What looks like a kernel: it is loaded, and never runs. */
static int make_kernel(void)
{
	int fd = memfd_create("cdm-kernel", 0), ro;
	struct boot_params *image;
	struct setup_header *h;
	char path[32];

	if (fd < 0 || ftruncate(fd, KERNEL_SIZE))
		return -1;
	image = mmap(NULL, KERNEL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (image == MAP_FAILED)
		return -1;
	h = &image->hdr;
	h->setup_sects = sizeof(*image) / 512;
	h->boot_flag = 0xaa55;
	/* Its second byte is the size of the header. */
	h->jump = 0x6aeb;
	memcpy(&h->header, "HdrS", 4);
	h->version = 0x020f;
	h->loadflags = LOADED_HIGH;
	h->xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G | XLF_5LEVEL;
	h->cmdline_size = 2047;
	h->kernel_alignment = HUGE;
	h->init_size = KERNEL_SIZE;
	munmap(image, KERNEL_SIZE);
	/* Who could write to it must not be there when it is loaded. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY);
	close(fd);
	return ro;
}

static int load_kernel(int fd, unsigned long flags)
{
	if (syscall(__NR_kexec_file_load, fd, -1, 1UL, "", flags | KEXEC_FILE_NO_INITRAMFS))
		return -errno;
	return 0;
}

FIXTURE_SETUP(kexec)
{
	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, load_module("cdm_test", ""));
	self->kernel = make_kernel();
	ASSERT_LE(0, self->kernel);
}

FIXTURE_TEARDOWN_PARENT(kexec)
{
	EXPECT_EQ(0, load_kernel(-1, KEXEC_FILE_UNLOAD));
	EXPECT_EQ(0, load_kernel(-1, KEXEC_FILE_UNLOAD | KEXEC_FILE_ON_CRASH));
	EXPECT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, unload_module("cdm_test"));
}

static bool is_of_device(unsigned long start, unsigned long size)
{
	const struct device *dev = cdm_device(0);

	return start < dev->start + dev->size && dev->start < start + size;
}

/* How much memory a dump has; how much of that is the device's */
static int dumped(unsigned long *all, unsigned long *device)
{
	unsigned long start, size;
	FILE *f = fopen(CALLS "/crash_header", "r");
	int nr = 0;

	*all = 0;
	*device = 0;
	if (!f)
		return -errno;
	while (fscanf(f, "%lx %lx", &start, &size) == 2) {
		*all += size;
		if (is_of_device(start, size))
			*device += size;
		nr++;
	}
	fclose(f);
	return nr;
}

/* What a dump has of a node is not known to be there after a crash: nothing. */
TEST_F_TIMEOUT(kexec, dump, CDM_TIMEOUT)
{
	const unsigned long ram = proc_meminfo("MemTotal") << 10;
	unsigned long all, device;
	int i;

	/* The node is there first; it goes, and comes back. */
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(self->nid, cdm_node_up("migrate"));
		if (!i)
			ASSERT_EQ(0, load_kernel(self->kernel, KEXEC_FILE_ON_CRASH));
		EXPECT_LT(0, dumped(&all, &device));
		EXPECT_EQ(0, device);
		/* Control: ordinary memory is, all of it */
		EXPECT_LE(ram / 4 * 3, all);
		ASSERT_EQ(0, cdm_node_down());
	}
}

/* Where the next kernel is put, and what it takes for its memory */
TEST_F_TIMEOUT(kexec, image, CDM_TIMEOUT)
{
	unsigned long start, end, size, nr_segments = 0, nr_ranges = 0;
	char line[2048], *at;
	int log, type, i;
	ssize_t len;

	log = log_open();
	ASSERT_LE(0, log);
	ASSERT_EQ(0, load_kernel(self->kernel, KEXEC_FILE_DEBUG));
	/* A line each time; EPIPE: some have been overwritten. */
	while ((len = read(log, line, sizeof(line) - 1)) > 0 ||
	       (len < 0 && errno == EPIPE)) {
		line[len > 0 ? len : 0] = '\0';
		at = strstr(line, "segment[");
		at = at ? strstr(at, " mem=") : NULL;
		if (at && sscanf(at, " mem=%lx memsz=%lx", &start, &size) == 2) {
			nr_segments++;
			EXPECT_FALSE(is_of_device(start, size));
		}
		/* "start-end (type)" at its end */
		at = strrchr(line, '(');
		for (i = 0; at && at > line && i < 2; i++)
			for (at--; at > line && *at != ' '; at--)
				;
		if (at && sscanf(at, "%lx-%lx (%d)", &start, &end, &type) == 3) {
			nr_ranges += type == 1;
			EXPECT_FALSE(type == 1 && is_of_device(start, end + 1 - start));
		}
	}
	close(log);
	EXPECT_LE(3, nr_segments);
	EXPECT_LE(1, nr_ranges);
}

#endif /* __x86_64__: what looks like a kernel is one of that */

TEST_HARNESS_MAIN
