/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the CDM selftests share: the device and its node, where pages are, and
 * the settings of the agents (KSM, NUMA balancing, fault injection) that the
 * tests turn up and put back.
 *
 * CDM_CONTROL=1 in the environment runs a test against the same memory added
 * by dax/kmem (see test_modules/dax_ivshmem.c), on a kernel that knows nothing
 * of CDM. Every denial must fail there: this shows that the test can fail.
 */
#ifndef _CDM_UTIL_H
#define _CDM_UTIL_H

#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#define CDM_SYSFS		"/sys/kernel/mm/cdm"
#define NODE_SYSFS		"/sys/devices/system/node"
#define MEMORY_SYSFS		"/sys/devices/system/memory"
#define DAX_SYSFS		"/sys/bus/dax"
#define KSM_SYSFS		"/sys/kernel/mm/ksm"
#define THP_SYSFS		"/sys/kernel/mm/transparent_hugepage"

/* All of these tests move much memory in guests that may be emulated. */
#define CDM_TIMEOUT		1800
#define CDM_WAIT		300

#define PAGE_SIZE		((size_t)4096)
#define HUGE			((size_t)2 << 20)
#define HUGE_NR			(HUGE / PAGE_SIZE)
#define HUGETLB_SIZE		"hugepages-2048kB"
#define NODE_BIT(nid)		(1UL << (nid))

/* Accesses that the compiler leaves as they are */
#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, val)	__atomic_store_n(&(x), val, __ATOMIC_RELAXED)

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

/* Bits of /proc/kpageflags */
#define KPF_BIT(nr)		(1UL << (nr))
#define KPF_LRU			KPF_BIT(5)
#define KPF_SLAB		KPF_BIT(7)
#define KPF_BUDDY		KPF_BIT(10)
#define KPF_ANON		KPF_BIT(12)
#define KPF_SWAPBACKED		KPF_BIT(14)
#define KPF_COMPOUND_HEAD	KPF_BIT(15)
#define KPF_COMPOUND_TAIL	KPF_BIT(16)
#define KPF_HUGE		KPF_BIT(17)
#define KPF_HWPOISON		KPF_BIT(19)
#define KPF_NOPAGE		KPF_BIT(20)
#define KPF_KSM			KPF_BIT(21)
#define KPF_THP			KPF_BIT(22)
#define KPF_PGTABLE		KPF_BIT(26)

/* Wait for a condition that another task or the kernel brings about. */
#define wait_for(cond)							\
({									\
	time_t __end = time(NULL) + CDM_WAIT;				\
	bool __met;							\
									\
	while (!(__met = (cond)) && time(NULL) < __end)			\
		usleep(20000);						\
	__met;								\
})

/**
 * struct device - the memory device under test
 * @name: PCI address
 * @start: physical address of its memory
 * @size: bytes of memory
 */
struct device {
	char name[32];
	unsigned long start;
	unsigned long size;
};

/**
 * struct node_use - what the device's pages are used for
 * @total: pages looked at
 * @used: pages that are not free, nor out of use
 * @anon: anonymous pages
 * @file: pages of the page cache
 * @kernel: slab and page tables
 * @ksm: KSM pages
 * @huge: pages of huge folios
 */
struct node_use {
	size_t total;
	size_t used;
	size_t anon;
	size_t file;
	size_t kernel;
	size_t ksm;
	size_t huge;
};

/* util/files.c: files of sysfs, procfs, debugfs: 0 or bytes read, else -errno */
int file_read(const char *path, char *buf, size_t size);
int file_write(const char *path, const char *text);
long long file_number(const char *path);
long long file_field(const char *path, const char *field);
int log_open(void);
bool log_has(int fd, const char *words);

/* For a fixture of kselftest_harness.h that has log and text */
#define expect_logged(...)						\
do {									\
	snprintf(self->text, sizeof(self->text), __VA_ARGS__);		\
	EXPECT_TRUE(log_has(self->log, self->text)) {			\
		TH_LOG("the log does not say \"%s\"", self->text);	\
	}								\
} while (0)

/* Change a setting; settings_restore() brings back what was there first */
int setting(const char *path, const char *text);
void settings_restore(void);

/* util/counters.c: what the kernel counts */
long long vm_event(const char *name);
long long memory_stall(void);
long long proc_meminfo(const char *field);
long long node_meminfo(int nid, const char *field);
long long node_zoneinfo(int nid, const char *zone, const char *field);
unsigned long node_allocations(int nid);
long long node_event(int nid, const char *name);
long long node_denied(int nid, const char *cap);

/* util/nodes.c: nodes, their CPUs, tiers, and pools of huge pages */
unsigned long parse_list(const char *text);
unsigned long node_list(const char *name);
unsigned long status_list(const char *name);
int ram_node(int index);
int run_on_node(int nid);
int tier_of(int nid);
const char *pool_file(int nid, const char *name);
int pool_set(int nid, const char *nr);
long long pool_size(int nid);

/* util/device.c: the device and its node */
bool cdm_control(void);
const struct device *cdm_device(int index);
void cdm_find_devices(void);
int cdm_node(void);
int cdm_node_of(int index);
int cdm_node_up(const char *caps);
int cdm_node_down(void);
int cdm_bind(const char *caps);
int cdm_unbind(void);
int cdm_bind_device(int index, const char *caps);
int cdm_unbind_device(int index);
int cdm_state(int nid, char *buf, size_t size);
bool cdm_node_exists(int nid);
bool cdm_node_is_lost(int nid);
int cdm_unplug(int nid);
int cdm_call(const char *call, const char *fmt, ...);
int cdm_forget_bad_pages(void);
long raw_used(int index, size_t offset, size_t nr);
int load_module(const char *name, const char *params);
int unload_module(const char *name);

/* util/dax.c: a device of the dax bus, "daxX.Y", and its drivers */
extern char dax_name[32];
const char *dax_file(const char *file);
int dax_write(const char *file, const char *text);
const char *dax_read(const char *file);
const char *dax_driver(void);
int dax_leave_driver(void);
int dax_give_to(const char *driver);
void dax_forget_name(void);
int dax_online(const char *caps);

/*
 * util/snapshot.c: everything outside that a registration may change, as text:
 * compare two of them to see that a failure has left nothing behind. To be freed.
 */
char *cdm_snapshot(void);
bool cdm_same_snapshot(const char *before, const char *after);

/*
 * util/mapping.c: mappings and what is in them. Here and below, the addresses
 * of pages are base + i * stride for i in [0, nr).
 */
void *map_pages(size_t nr);
char *map_huge_range(size_t nr);
char *map_huge(size_t nr, int flags);
void unmap_pages(void *addr, size_t nr);
void fill_page(void *addr, unsigned long seed);
bool page_is(const void *addr, unsigned long seed);
void fill_pages(void *addr, size_t nr, size_t stride, unsigned long seed);
size_t pages_intact(const void *addr, size_t nr, size_t stride, unsigned long seed);
int count_vmas(const void *addr, size_t nr);

/* util/policy.c: policies, and on which node pages are */
int bind_pages(void *addr, size_t nr, int mode, unsigned long nodes,
	       unsigned int flags);
void *map_pages_on(size_t nr, int nid);
char *filled_pages_on(size_t nr, int nid, unsigned long seed);
char *filled_pages_anywhere(size_t nr, unsigned long seed);
char *large_folios_on(size_t kb, int nid, unsigned long seed);
int pages_nodes(const void *addr, size_t nr, size_t stride, int *nodes);
size_t pages_on(const void *addr, size_t nr, size_t stride, int nid);
int page_node(const void *addr);
long move_to(void *addr, size_t nr, size_t stride, int nid, int *status);
size_t count_status(const int *status, size_t nr, int value);
void drain_lru(void);
int numa_maps_pages(const void *addr, int nid, char *policy, size_t size);

/* util/pageflags.c: page frames, and what is known of them */
int pages_pfns(const void *addr, size_t nr, size_t stride, unsigned long *pfn);
unsigned long page_pfn(const void *addr);
size_t distinct_pfns(const void *addr, size_t nr, size_t stride);
unsigned long page_flags_of(unsigned long pfn);
size_t pages_with(const void *addr, size_t nr, size_t stride,
		  unsigned long flags);
size_t pages_ksm(const void *addr, size_t nr, size_t stride);
size_t pages_in_folios(const char *addr, size_t nr, size_t kb);
int device_use(struct node_use *use);

/* util/child.c: children that die with the test */
pid_t spawn(int (*fn)(void *arg), void *arg);
int reap(pid_t pid);
void kill_and_reap(pid_t pid);
void *shared_page(void);

/* util/memcg.c: a memory cgroup */
int memcg_create(void);
int memcg_join(void);
void memcg_remove(void);
int memcg_write(const char *name, const char *text);
int memcg_set(const char *name, size_t bytes);
long long memcg_number(const char *name, const char *field);

/* util/agents.c: KSM and NUMA balancing at work */
int ksm_start(const char *merge_across_nodes);
int ksm_scans(int nr);
void ksm_stop(void);
int numab_start(void);
long touch_faults(const char *addr, size_t nr, size_t stride);
int flush_translations(void);

/* util/gup.c: references to pages */
#define FOLL_WRITE	0x1	/* a flag for gup_gets(), as in mm_types.h */
size_t gup_gets(unsigned long mode, void *addr, size_t nr, unsigned int flags);

/* util/damon.c: DAMON with one scheme */
int damon_start(const char *ops, unsigned long long start,
		unsigned long long size, const char *action, int target_nid,
		unsigned int min_accesses);
void damon_stop(void);
long long damon_tried(void);
long long damon_applied(void);
int damon_only_anon(void);
long long damon_passed(void);

#endif /* _CDM_UTIL_H */
