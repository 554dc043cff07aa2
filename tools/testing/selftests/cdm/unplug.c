// SPDX-License-Identifier: GPL-2.0
/*
 * Somebody pulls the device out while tasks use its memory, and plugs it in
 * again: by the hypervisor, whose monitor is a port of this guest (tools/cdm/vm
 * --hotplug).
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"
#include "cdm_hold.h"

#define PCI_DEVICES	"/sys/bus/pci/devices"
#define PORTS		"/sys/class/virtio-ports/*/name"
#define PCIEHP_PORTS	"/sys/bus/pci_express/drivers/pciehp/*:pcie*"

static int monitor_open(void)
{
	char name[64], path[PATH_MAX];
	int fd = -1;
	glob_t ports;
	size_t i;

	if (glob(PORTS, 0, NULL, &ports))
		return -1;
	for (i = 0; i < ports.gl_pathc; i++) {
		if (file_read(ports.gl_pathv[i], name, sizeof(name)) <= 0 ||
		    strcmp(name, "cdm.qmp"))
			continue;
		snprintf(path, sizeof(path), "/dev/%s",
			 basename(dirname(ports.gl_pathv[i])));
		fd = open(path, O_RDWR);
		break;
	}
	globfree(&ports);
	return fd;
}

/* One command of QEMU's monitor: 0, or -EIO if it says that this is an error */
static int monitor(int fd, const char *command, const char *arguments)
{
	static int number;
	char line[4096], id[32], *end;
	size_t len = 0;
	ssize_t got;
	int ret;

	/* There may be events, and answers to what others asked. */
	snprintf(id, sizeof(id), "\"id\": %d", (getpid() << 8) + ++number);
	len = snprintf(line, sizeof(line), "{'execute': '%s', 'arguments': {%s}, %s}\n",
		       command, arguments, id);
	if (write(fd, line, len) != (ssize_t)len)
		return -errno;
	len = 0;
	for (;;) {
		got = read(fd, line + len, sizeof(line) - 1 - len);
		if (got <= 0)
			return -EPIPE;
		len += got;
		line[len] = '\0';
		while ((end = strchr(line, '\n'))) {
			*end++ = '\0';
			if (strstr(line, id)) {
				ret = strstr(line, "\"return\"") ? 0 : -EIO;
				if (ret)
					ksft_print_msg("%s\n", line);
				return ret;
			}
			len -= end - line;
			memmove(line, end, len + 1);
		}
		if (len == sizeof(line) - 1)
			len = 0;
	}
}

static bool has_pciehp(void)
{
	glob_t ports;
	bool has;

	has = !glob(PCIEHP_PORTS, 0, NULL, &ports);
	globfree(&ports);
	return has;
}

static bool device_is_there(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", name);
	return !access(path, F_OK);
}

/* Another device in its place: with other memory, or QEMU stumbles */
static int plug_in(int fd, const char *name, unsigned long size)
{
	char args[256];

	snprintf(args, sizeof(args),
		 "'qom-type': 'memory-backend-ram', 'id': 'mem%d', 'size': %lu, 'share': true",
		 getpid(), size);
	if (monitor(fd, "object-add", args))
		return -EIO;
	snprintf(args, sizeof(args),
		 "'driver': 'ivshmem-plain', 'id': 'cdm0', 'memdev': 'mem%d', 'bus': 'cdm0-port'",
		 getpid());
	/* QEMU lets go of the old one when it likes */
	if (!wait_for(!monitor(fd, "device_add", args)))
		return -ETIMEDOUT;
	if (!wait_for(device_is_there(name)))
		return -ENODEV;
	cdm_find_devices();
	return cdm_device(0) ? 0 : -ENODEV;
}

FIXTURE(unplug)
{
	int monitor;
	int nid;
	unsigned long size;
	char name[32];
	char text[64];
};

FIXTURE_SETUP(unplug)
{
	self->monitor = monitor_open();
	ASSERT_LE(0, self->monitor);
	ASSERT_FALSE(has_pciehp());
	/* It is said once, and wrong from then on */
	monitor(self->monitor, "qmp_capabilities", "");
	ASSERT_NE(NULL, cdm_device(0));
	strcpy(self->name, cdm_device(0)->name);
	self->size = cdm_device(0)->size;
	self->nid = cdm_node_up(HOLD_CAPS);
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "4000"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
}

FIXTURE_TEARDOWN_PARENT(unplug)
{
	settings_restore();
	EXPECT_TRUE(wait_for(!cdm_node_is_lost(self->nid)));
	EXPECT_EQ(0, cdm_node_down());
}

static int pull_out(int fd, const char *name)
{
	int ret = monitor(fd, "device_del", "'id': 'cdm0'");

	if (ret)
		return ret;
	return wait_for(!device_is_there(name)) ? 0 : -ETIMEDOUT;
}

TEST_F_TIMEOUT(unplug, movable, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, false));
	EXPECT_EQ(0, pull_out(self->monitor, self->name));
	EXPECT_FALSE(cdm_node_exists(self->nid));
	expect_saved();
	hold_end_all();
	EXPECT_EQ(0, plug_in(self->monitor, self->name, self->size));
	expect_node_again();
}

/* It comes back while something still refers to what it had */
TEST_F_TIMEOUT(unplug, held, CDM_TIMEOUT)
{
	ASSERT_TRUE(hold_all(self->nid, true));
	EXPECT_EQ(0, pull_out(self->monitor, self->name));
	expect_saved();
	ASSERT_LT(0, cdm_state(self->nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("lost", self->text);
	EXPECT_EQ(0, plug_in(self->monitor, self->name, self->size));
	expect_saved();
	EXPECT_EQ(-EBUSY, cdm_bind(HOLD_CAPS));
	expect_saved();
	hold_end_all();
	EXPECT_TRUE(wait_for(!cdm_node_exists(self->nid)));
	expect_node_again();
}

TEST_HARNESS_MAIN
