// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: DAMON, on one region with one scheme.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../cdm_util.h"

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
