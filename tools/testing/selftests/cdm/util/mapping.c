// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: mappings, and what is in their pages.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>

#include "../cdm_util.h"

/* So many huge pages' worth of addresses, on their boundary, nothing beside them */
char *map_huge_range(size_t nr)
{
	char *area, *addr;

	area = mmap(NULL, (nr + 1) * HUGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return NULL;
	addr = (char *)(((unsigned long)area + HUGE - 1) & ~(HUGE - 1));
	if (addr != area)
		munmap(area, addr - area);
	if (addr != area + HUGE)
		munmap(addr + nr * HUGE, area + HUGE - addr);
	return addr;
}

/* Pages of the pools of huge pages; flags: MAP_NORESERVE, MAP_SHARED */
char *map_huge(size_t nr, int flags)
{
	if (!(flags & MAP_SHARED))
		flags |= MAP_PRIVATE;
	return mmap(NULL, nr * HUGE, PROT_READ | PROT_WRITE,
		    flags | MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT,
		    -1, 0);
}

/* Base pages only, as the node may deny huge ones and KSM splits them */
void *map_pages(size_t nr)
{
	void *addr;

	addr = mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return NULL;
	if (madvise(addr, nr * PAGE_SIZE, MADV_NOHUGEPAGE)) {
		munmap(addr, nr * PAGE_SIZE);
		return NULL;
	}
	return addr;
}

void unmap_pages(void *addr, size_t nr)
{
	munmap(addr, nr * PAGE_SIZE);
}

/* The seed at both ends: equal seeds are equal pages, and a cut page shows */
void fill_page(void *addr, unsigned long seed)
{
	unsigned long *word = addr;

	word[0] = seed;
	word[PAGE_SIZE / sizeof(*word) - 1] = ~seed;
}

bool page_is(const void *addr, unsigned long seed)
{
	const unsigned long *word = addr;

	return READ_ONCE(word[0]) == seed &&
	       READ_ONCE(word[PAGE_SIZE / sizeof(*word) - 1]) == ~seed;
}

/* Pages that all differ: page i has seed + i */
void fill_pages(void *addr, size_t nr, size_t stride, unsigned long seed)
{
	size_t i;

	for (i = 0; i < nr; i++)
		fill_page((char *)addr + i * stride, seed + i);
}

size_t pages_intact(const void *addr, size_t nr, size_t stride, unsigned long seed)
{
	size_t i, intact = 0;

	for (i = 0; i < nr; i++)
		intact += page_is((const char *)addr + i * stride, seed + i);
	return intact;
}

/* The VMAs that cover a range, which must be mapped as a whole */
int count_vmas(const void *addr, size_t nr)
{
	unsigned long start = (unsigned long)addr, end = start + nr * PAGE_SIZE;
	unsigned long from, to;
	char line[512];
	int count = 0;
	FILE *f;

	f = fopen("/proc/self/maps", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		count += from < end && to > start;
	}
	fclose(f);
	return count;
}
