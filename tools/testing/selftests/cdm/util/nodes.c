// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: nodes: lists of them, their CPUs, tiers and pools of huge pages.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cdm_util.h"

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

/* A list in /proc/self/status, as a mask */
unsigned long status_list(const char *name)
{
	char text[8192], *line;

	if (file_read("/proc/self/status", text, sizeof(text)) <= 0)
		return ~0UL;
	line = strstr(text, name);
	if (!line)
		return ~0UL;
	line += strlen(name);
	*strchrnul(line, '\n') = '\0';
	return parse_list(line + strspn(line, " \t"));
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
