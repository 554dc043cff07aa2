// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: references to pages, taken by gup_test.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../cdm_util.h"
#include "../../../../../mm/gup_test.h"

#define GUP_TEST	"/sys/kernel/debug/gup_test"

/* How many of the pages one call of GUP gets, in one of gup_test's modes */
size_t gup_gets(unsigned long mode, void *addr, size_t nr, unsigned int flags)
{
	struct gup_test test = {
		.addr = (unsigned long)addr,
		.size = nr * PAGE_SIZE,
		.nr_pages_per_call = nr,
		.gup_flags = flags,
	};
	int fd, ret;

	fd = open(GUP_TEST, O_RDWR);
	if (fd < 0)
		return -1;
	ret = ioctl(fd, mode, &test);
	close(fd);
	return ret ? 0 : test.size / PAGE_SIZE;
}
