/* SPDX-License-Identifier: GPL-2.0 */
/* What the module measures for the program: ioctl()s of /dev/cdm_bench. */
#ifndef _CDM_BENCH_H
#define _CDM_BENCH_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct cdm_bench - one measurement
 * @addr: first page, for what works on pages of the caller
 * @nr: pages or calls
 * @ticks: out: TSC ticks that they took
 * @done: out: pages or calls that had an effect
 */
struct cdm_bench {
	__u64 addr;
	__u64 nr;
	__u64 ticks;
	__u64 done;
};

#define CDM_BENCH_GUP_FAST	_IOWR('B', 1, struct cdm_bench)
#define CDM_BENCH_GUP_SLOW	_IOWR('B', 2, struct cdm_bench)
#define CDM_BENCH_PIN_LONGTERM	_IOWR('B', 3, struct cdm_bench)
#define CDM_BENCH_PROT_NUMA	_IOWR('B', 4, struct cdm_bench)
#define CDM_BENCH_KMALLOC	_IOWR('B', 5, struct cdm_bench)
#define CDM_BENCH_PAGE_ALLOC	_IOWR('B', 6, struct cdm_bench)
#define CDM_BENCH_PIN_FAST	_IOWR('B', 7, struct cdm_bench)
#define CDM_BENCH_PAGE_ALLOC_HUGE _IOWR('B', 8, struct cdm_bench)
/* @addr and @nr in bytes: a node of physical memory; its id in @done */
#define CDM_BENCH_REGISTER	_IOWR('B', 9, struct cdm_bench)
/* @nr is the node */
#define CDM_BENCH_UNREGISTER	_IOWR('B', 10, struct cdm_bench)

#endif /* _CDM_BENCH_H */
