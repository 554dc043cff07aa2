// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: everything outside that a registration may change.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest.h"
#include "../cdm_util.h"

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
