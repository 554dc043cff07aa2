// SPDX-License-Identifier: GPL-2.0
/*
 * CDM selftests: KSM, NUMA balancing, and what makes them look.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kselftest.h"
#include "../cdm_util.h"

/* Nothing merged, then ksmd at full speed and with no shortcuts */
int ksm_start(const char *merge_across_nodes)
{
	static const char * const quick[][2] = {
		{ KSM_SYSFS "/use_zero_pages", "0" },
		{ KSM_SYSFS "/smart_scan", "0" },
		{ KSM_SYSFS "/advisor_mode", "none" },
		{ KSM_SYSFS "/pages_to_scan", "20000" },
		{ KSM_SYSFS "/sleep_millisecs", "5" },
	};
	size_t i;
	int ret;

	ret = setting(KSM_SYSFS "/run", "2");
	if (!ret)
		ret = setting(KSM_SYSFS "/merge_across_nodes",
			      merge_across_nodes);
	for (i = 0; !ret && i < ARRAY_SIZE(quick); i++)
		ret = setting(quick[i][0], quick[i][1]);
	if (!ret)
		ret = file_write(KSM_SYSFS "/run", "1");
	return ret;
}

/* Until ksmd has been over all pages another nr times */
int ksm_scans(int nr)
{
	long long end = file_number(KSM_SYSFS "/full_scans") + nr;

	if (!wait_for(file_number(KSM_SYSFS "/full_scans") >= end))
		return -ETIME;
	return 0;
}

/* What merge_across_nodes is can only be set while nothing is merged */
void ksm_stop(void)
{
	file_write(KSM_SYSFS "/run", "2");
	settings_restore();
}

/* NUMA balancing that looks at everything all the time */
int numab_start(void)
{
	static const char * const quick[][2] = {
		{ "/proc/sys/kernel/numa_balancing", "1" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "20" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "20" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "100" },
		{ "/sys/kernel/debug/sched/numa_balancing/scan_size_mb", "1024" },
	};
	size_t i;
	int ret = 0;

	for (i = 0; !ret && i < ARRAY_SIZE(quick); i++)
		ret = setting(quick[i][0], quick[i][1]);
	return ret;
}

/*
 * Read one byte of each page and say how many page faults that took. Of pages
 * that are present, a fault is a NUMA hinting fault.
 */
long touch_faults(const char *addr, size_t nr, size_t stride)
{
	struct rusage before, after;
	size_t i;

	getrusage(RUSAGE_THREAD, &before);
	for (i = 0; i < nr; i++)
		READ_ONCE(addr[i * stride]);
	getrusage(RUSAGE_THREAD, &after);
	return after.ru_minflt - before.ru_minflt;
}

/*
 * Makes the CPUs that run this process look at page tables again. Who clears
 * accessed bits, as DAMON does, does not flush for it, and a CPU with nothing
 * else to do may keep what it knows for minutes.
 */
int flush_translations(void)
{
	/* So many pages that all is flushed, not each of them */
	const size_t nr = 256;
	static char *pages;

	if (!pages) {
		pages = map_pages(nr);
		if (!pages)
			return -ENOMEM;
		fill_pages(pages, nr, PAGE_SIZE, 1);
	}
	if (mprotect(pages, nr * PAGE_SIZE, PROT_READ) ||
	    mprotect(pages, nr * PAGE_SIZE, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}
