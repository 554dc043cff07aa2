// SPDX-License-Identifier: GPL-2.0
/*
 * cdm_probe NODE PAGES: touch that many pages with the policy this program was
 * given, say where they are. Exit status: 0 if all are on NODE, 1 if not, 2 if
 * something went wrong.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cdm_util.h"

int main(int argc, char **argv)
{
	size_t nr, there;
	char *addr;
	int nid;

	if (argc != 3) {
		fprintf(stderr, "usage: %s NODE PAGES\n", argv[0]);
		return 2;
	}
	nid = atoi(argv[1]);
	nr = strtoul(argv[2], NULL, 0);
	addr = map_pages(nr);
	if (!addr)
		return 2;
	fill_pages(addr, nr, PAGE_SIZE, nr);
	there = pages_on(addr, nr, PAGE_SIZE, nid);
	printf("# %zu of %zu pages are on node %d\n", there, nr, nid);
	if (pages_intact(addr, nr, PAGE_SIZE, nr) != nr)
		return 2;
	return there != nr;
}
