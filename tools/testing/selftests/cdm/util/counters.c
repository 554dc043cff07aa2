// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: what the kernel counts: of the system, a node, a zone.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest.h"
#include "../cdm_util.h"

long long vm_event(const char *name)
{
	return file_field("/proc/vmstat", name);
}

/* The time, in microseconds, that some task has lost for lack of memory */
long long memory_stall(void)
{
	char text[256], *total;

	if (file_read("/proc/pressure/memory", text, sizeof(text)) <= 0)
		return -1;
	total = strstr(text, "total=");
	return total ? strtoll(total + strlen("total="), NULL, 10) : -1;
}

/* A line of /proc/meminfo, in kB */
long long proc_meminfo(const char *field)
{
	return file_field("/proc/meminfo", field);
}

/* A line of nodeN/meminfo, in kB, with what the CPUs have not yet added to it */
long long node_meminfo(int nid, const char *field)
{
	char path[PATH_MAX];

	if (file_write("/proc/sys/vm/stat_refresh", "1"))
		return -1;
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/meminfo", nid);
	return file_field(path, field);
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
	hit = file_field(path, "numa_hit");
	miss = file_field(path, "numa_miss");
	if (hit < 0 || miss < 0) {
		ksft_print_msg("%s: no allocation counters\n", path);
		return ULONG_MAX;
	}
	return hit + miss;
}

/* A counter of nodeN/vmstat, with what the CPUs have not yet added to it */
long long node_event(int nid, const char *name)
{
	char path[PATH_MAX];

	if (file_write("/proc/sys/vm/stat_refresh", "1"))
		return -1;
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/vmstat", nid);
	return file_field(path, name);
}

/* How often the node has denied a capability, or -1 */
long long node_denied(int nid, const char *cap)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_denied", nid);
	return file_field(path, cap);
}
