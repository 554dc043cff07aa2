// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: a memory cgroup of the test's own.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../cdm_util.h"

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
	return file_field(path, field);
}
