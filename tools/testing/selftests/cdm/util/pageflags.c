// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: page frames and their flags: pagemap and kpageflags.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cdm_util.h"

#define BATCH		((size_t)1024)

/* /proc/self/pagemap */
#define PM_PRESENT	0x8000000000000000UL
#define PM_PFN		0x007fffffffffffffUL

/* How many of the pages are in folios of so many kB, aligned and in one piece */
size_t pages_in_folios(const char *addr, size_t nr, size_t kb)
{
	size_t per = (kb << 10) / PAGE_SIZE, i, j, count = 0;
	unsigned long *pfn;
	bool whole;

	pfn = calloc(nr, sizeof(*pfn));
	if (!pfn)
		return 0;
	if (pages_pfns(addr, nr, PAGE_SIZE, pfn))
		nr = 0;
	for (i = 0; i + per <= nr; i += per) {
		whole = pfn[i] && !(pfn[i] % per);
		for (j = 0; whole && j < per; j++)
			whole = pfn[i + j] == pfn[i] + j &&
				page_flags_of(pfn[i + j]) & (j ? KPF_COMPOUND_TAIL :
							     KPF_COMPOUND_HEAD);
		if (whole)
			count += per;
	}
	free(pfn);
	return count;
}

static unsigned long read_word(int fd, unsigned long index)
{
	unsigned long value;

	if (pread(fd, &value, sizeof(value), index * sizeof(value)) !=
	    sizeof(value))
		return 0;
	return value;
}

/* The page frame of each page, 0 for one that is not present */
int pages_pfns(const void *addr, size_t nr, size_t stride, unsigned long *pfn)
{
	unsigned long entry;
	size_t i;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return -errno;
	for (i = 0; i < nr; i++) {
		entry = read_word(fd, ((unsigned long)addr + i * stride) /
				      PAGE_SIZE);
		pfn[i] = entry & PM_PRESENT ? entry & PM_PFN : 0;
	}
	close(fd);
	return 0;
}

/* How many pages have all of these flags, KPF_* */
size_t pages_with(const void *addr, size_t nr, size_t stride,
		  unsigned long flags)
{
	size_t i, count = 0;
	unsigned long *pfn;
	int fd;

	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0)
		return 0;
	pfn = calloc(nr, sizeof(*pfn));
	if (pfn && !pages_pfns(addr, nr, stride, pfn))
		for (i = 0; i < nr; i++)
			count += pfn[i] &&
				 (read_word(fd, pfn[i]) & flags) == flags;
	free(pfn);
	close(fd);
	return count;
}

/* The page frame of a present page, or 0 */
unsigned long page_pfn(const void *addr)
{
	unsigned long pfn;

	return pages_pfns(addr, 1, PAGE_SIZE, &pfn) ? 0 : pfn;
}

/* What /proc/kpageflags says of a page frame, KPF_* bits */
unsigned long page_flags_of(unsigned long pfn)
{
	unsigned long flags;
	int fd;

	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0)
		return 0;
	flags = read_word(fd, pfn);
	close(fd);
	return flags;
}

size_t pages_ksm(const void *addr, size_t nr, size_t stride)
{
	return pages_with(addr, nr, stride, KPF_KSM);
}

static int compare_pfns(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;

	return x < y ? -1 : x > y;
}

size_t distinct_pfns(const void *addr, size_t nr, size_t stride)
{
	size_t i, count = 0;
	unsigned long *pfn;

	pfn = calloc(nr, sizeof(*pfn));
	if (!pfn)
		return 0;
	if (pages_pfns(addr, nr, stride, pfn))
		nr = 0;
	qsort(pfn, nr, sizeof(*pfn), compare_pfns);
	for (i = 0; i < nr; i++)
		count += !i || pfn[i] != pfn[i - 1];
	free(pfn);
	return count;
}

/* Look at every page of the device */
int device_use(struct node_use *use)
{
	static const unsigned long kernel = KPF_SLAB | KPF_PGTABLE;
	const struct device *dev = cdm_device(0);
	unsigned long flags[BATCH];
	unsigned long pfn, end;
	ssize_t len;
	int i, fd;

	memset(use, 0, sizeof(*use));
	if (!dev)
		return -ENODEV;
	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0)
		return -errno;
	pfn = dev->start / PAGE_SIZE;
	end = pfn + dev->size / PAGE_SIZE;
	while (pfn < end) {
		len = pread(fd, flags, sizeof(flags), pfn * sizeof(*flags));
		if (len <= 0) {
			close(fd);
			return -EIO;
		}
		for (i = 0; i < len / (ssize_t)sizeof(*flags) && pfn < end;
		     i++, pfn++) {
			unsigned long f = flags[i];

			if (f & KPF_NOPAGE)
				continue;
			use->total++;
			use->used += f && !(f & (KPF_BUDDY | KPF_HWPOISON));
			use->anon += !!(f & KPF_ANON);
			use->file += f & KPF_LRU && !(f & KPF_SWAPBACKED);
			use->kernel += !!(f & kernel);
			use->ksm += !!(f & KPF_KSM);
			use->huge += !!(f & (KPF_HUGE | KPF_THP));
		}
	}
	close(fd);
	return 0;
}
