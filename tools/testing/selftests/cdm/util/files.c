// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: files of sysfs, procfs and debugfs, settings that are put back, the kernel's log.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kselftest.h"
#include "../cdm_util.h"

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

/* The number behind a word of a file's first line that has it, or -1 */
long long file_field(const char *path, const char *field)
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
