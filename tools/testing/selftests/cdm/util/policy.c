// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: policies, and where pages are: mbind(), move_pages(), numa_maps.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../cdm_util.h"

#define BATCH		((size_t)1024)

int bind_pages(void *addr, size_t nr, int mode, unsigned long nodes,
	       unsigned int flags)
{
	if (mbind(addr, nr * PAGE_SIZE, mode, nodes ? &nodes : NULL,
		  nodes ? 65 : 0, flags))
		return -errno;
	return 0;
}

void *map_pages_on(size_t nr, int nid)
{
	void *addr = map_pages(nr);

	if (addr && bind_pages(addr, nr, MPOL_BIND, NODE_BIT(nid), 0)) {
		munmap(addr, nr * PAGE_SIZE);
		return NULL;
	}
	return addr;
}

static long move_batches(int flags, const void *addr, size_t nr, size_t stride,
			 int nid, int *status)
{
	int targets[BATCH];
	void *pages[BATCH];
	long left = 0, ret;
	size_t i, done, n;

	for (done = 0; done < nr; done += n) {
		n = nr - done < BATCH ? nr - done : BATCH;
		for (i = 0; i < n; i++) {
			pages[i] = (char *)addr + (done + i) * stride;
			targets[i] = nid;
			status[done + i] = INT_MIN;
		}
		ret = move_pages(0, n, pages, nid < 0 ? NULL : targets,
				 status + done, flags);
		if (ret < 0)
			return -errno;
		left += ret;
	}
	return left;
}

/* The node of each page, or a negative errno (-ENOENT: not there) */
int pages_nodes(const void *addr, size_t nr, size_t stride, int *nodes)
{
	return move_batches(0, addr, nr, stride, -1, nodes);
}

size_t pages_on(const void *addr, size_t nr, size_t stride, int nid)
{
	size_t count = 0;
	int *nodes;

	nodes = calloc(nr, sizeof(*nodes));
	if (nodes && !pages_nodes(addr, nr, stride, nodes))
		count = count_status(nodes, nr, nid);
	free(nodes);
	return count;
}

/* Fresh pages of a node, filled, all of them really there; or NULL */
char *filled_pages_on(size_t nr, int nid, unsigned long seed)
{
	char *pages = map_pages_on(nr, nid);

	if (!pages)
		return NULL;
	fill_pages(pages, nr, PAGE_SIZE, seed);
	if (pages_on(pages, nr, PAGE_SIZE, nid) != nr) {
		unmap_pages(pages, nr);
		return NULL;
	}
	drain_lru();
	return pages;
}

/* Filled pages of somebody who says: on all nodes with memory */
char *filled_pages_anywhere(size_t nr, unsigned long seed)
{
	char *addr = map_pages(nr);

	if (!addr || bind_pages(addr, nr, MPOL_INTERLEAVE,
				node_list("has_memory"), 0))
		return NULL;
	fill_pages(addr, nr, PAGE_SIZE, seed);
	return addr;
}

int page_node(const void *addr)
{
	int node;

	if (pages_nodes(addr, 1, PAGE_SIZE, &node))
		return -1;
	return node;
}

/*
 * A huge page's worth of a node, filled, all of it in folios of so many kB and
 * really there; or NULL
 */
char *large_folios_on(size_t kb, int nid, unsigned long seed)
{
	char *addr = map_huge_range(1);
	bool large = false;
	char path[128];

	if (!addr)
		return NULL;
	snprintf(path, sizeof(path), THP_SYSFS "/hugepages-%zukB/enabled", kb);
	if (!madvise(addr, HUGE, MADV_HUGEPAGE) &&
	    !bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0) &&
	    !setting(THP_SYSFS "/hugepages-2048kB/enabled", "never") &&
	    !setting(path, "madvise")) {
		fill_pages(addr, HUGE_NR, PAGE_SIZE, seed);
		/* Nor does khugepaged make them larger */
		setting(path, "never");
		large = pages_in_folios(addr, HUGE_NR, kb) == HUGE_NR;
	}
	if (large && pages_on(addr, HUGE_NR, PAGE_SIZE, nid) == HUGE_NR) {
		drain_lru();
		return addr;
	}
	munmap(addr, HUGE);
	return NULL;
}

/*
 * move_pages(), as root with MPOL_MF_MOVE_ALL: without it, a page that two
 * processes map is refused by every kernel. Returns what move_pages() returns.
 */
long move_to(void *addr, size_t nr, size_t stride, int nid, int *status)
{
	long ret;
	int *own;

	if (status)
		return move_batches(MPOL_MF_MOVE_ALL, addr, nr, stride, nid,
				    status);
	own = calloc(nr, sizeof(*own));
	if (!own)
		return -ENOMEM;
	ret = move_batches(MPOL_MF_MOVE_ALL, addr, nr, stride, nid, own);
	free(own);
	return ret;
}

size_t count_status(const int *status, size_t nr, int value)
{
	size_t i, count = 0;

	for (i = 0; i < nr; i++)
		count += status[i] == value;
	return count;
}

/* The pages on a node, and the policy, that numa_maps shows for a VMA */
int numa_maps_pages(const void *addr, int nid, char *policy, size_t size)
{
	char key[16], line[1024];
	unsigned long start;
	int pages = -1;
	char *pos;
	FILE *f;

	f = fopen("/proc/self/numa_maps", "r");
	if (!f)
		return -1;
	snprintf(key, sizeof(key), " N%d=", nid);
	while (fgets(line, sizeof(line), f)) {
		start = strtoul(line, &pos, 16);
		if (start != (unsigned long)addr)
			continue;
		if (policy)
			snprintf(policy, size, "%.*s",
				 (int)strcspn(pos + 1, "\n "), pos + 1);
		pos = strstr(pos, key);
		pages = pos ? atoi(pos + strlen(key)) : 0;
		break;
	}
	fclose(f);
	return pages;
}

/*
 * A page that has just moved waits in a batch of the CPU it was moved by, and
 * nobody can take it from there. Moving any page empties the batches.
 */
void drain_lru(void)
{
	static char *page;

	if (!page) {
		page = map_pages(1);
		if (!page)
			return;
	}
	fill_page(page, 0);
	move_to(page, 1, PAGE_SIZE, page_node(page), NULL);
}
