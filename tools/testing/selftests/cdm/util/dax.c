// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: a device of the dax bus, and the drivers that have it.
 */
#define _GNU_SOURCE
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"
#include "../cdm_util.h"

char dax_name[32];

const char *dax_file(const char *file)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), DAX_SYSFS "/devices/%s/%s", dax_name, file);
	return path;
}

int dax_write(const char *file, const char *text)
{
	return file_write(dax_file(file), text);
}

/* What a file says, or why it does not */
const char *dax_read(const char *file)
{
	static char text[256];
	int ret = file_read(dax_file(file), text, sizeof(text));

	return ret < 0 ? strerror(-ret) : text;
}

const char *dax_driver(void)
{
	static char target[PATH_MAX];
	ssize_t len = readlink(dax_file("driver"), target, sizeof(target) - 1);

	if (len < 0)
		return "";
	target[len] = '\0';
	return basename(target);
}

int dax_leave_driver(void)
{
	char path[PATH_MAX];

	if (!*dax_driver())
		return 0;
	snprintf(path, sizeof(path), DAX_SYSFS "/drivers/%s/unbind", dax_driver());
	return file_write(path, dax_name);
}

/* Give the device to a driver that is asked to take it: 0 or -ENODEV */
int dax_give_to(const char *driver)
{
	char path[PATH_MAX];
	int ret = dax_leave_driver();

	snprintf(path, sizeof(path), DAX_SYSFS "/drivers/%s/new_id", driver);
	if (!ret)
		ret = file_write(path, dax_name);
	if (ret)
		return ret;
	return strcmp(dax_driver(), driver) ? -ENODEV : 0;
}

/* No driver shall know the name when the test is over */
void dax_forget_name(void)
{
	static const char * const drivers[] = { "cdm", "kmem", "device_dax" };
	char path[PATH_MAX];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(drivers); i++) {
		snprintf(path, sizeof(path), DAX_SYSFS "/drivers/%s/remove_id",
			 drivers[i]);
		file_write(path, dax_name);
	}
}

int dax_online(const char *caps)
{
	int ret = dax_write("cdm_caps", caps);

	return ret ?: dax_write("state", "online");
}
