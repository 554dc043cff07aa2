/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the two halves of mm/cdm/ call in each other, and bindgen reads. Not for
 * anybody else: drivers and core mm include <linux/cdm.h>.
 */
#ifndef _MM_CDM_GLUE_H
#define _MM_CDM_GLUE_H

#include <linux/cdm_limit.h>
#include <linux/memory.h>
#include <trace/events/cdm.h>

struct cdm_bad_pages;
struct cdm_denials;
struct cdm_device;
struct cdm_dir;
struct cdm_memory;
struct resource;
struct xarray;

/* What is known about a node id, see cdm_nid_facts(). */
#define CDM_NID_POSSIBLE	0x01
#define CDM_NID_ONLINE		0x02
#define CDM_NID_HAS_MEMORY	0x04
#define CDM_NID_HAS_CPUS	0x08
#define CDM_NID_INITIATOR	0x10
#define CDM_NID_SPARE		0x20	/* kept by cdm_nodes= */
#define CDM_NID_PROMISED	0x40	/* firmware names memory that may come */

/* Room for the names of all capabilities, see cdm_core_name_caps(). */
#define CDM_NAMES_SIZE		256

/*
 * Who uses the pages of a node, in pages, see cdm_count_users(). Held are those
 * to which something refers that is neither a page table nor a file; whose they
 * are, as far as a task has them mapped, the pids say.
 */
struct cdm_users {
	unsigned long anon;
	unsigned long file;
	unsigned long hugetlb;
	unsigned long other;
	unsigned long held;
	unsigned long pinned;
	unsigned long locked;
	unsigned long writeback;
	unsigned int nr_pids;
	int pids[4];
};

/* What it meant that a node's content was lost, in pages. */
struct cdm_lost {
	unsigned long taken;	/* from tasks and files */
	unsigned long held;	/* something in the kernel refers to them */
};

/* Why memory stays, see cdm_memory_remove(). */
#define CDM_STAYS_HOTPLUG	1	/* somebody else changes the machine's memory */
#define CDM_STAYS_ROOM		2	/* RAM has no room for its pages */
#define CDM_STAYS_TIME		3	/* the time was up */

/**
 * struct cdm_obstacle - why a node's memory stays
 * @what: CDM_STAYS_*; 0: it has gone
 * @error: what taking the last block offline said
 * @timeout_ms: how much time there was
 * @need: pages in use on the node
 * @room: pages that RAM has room for
 */
struct cdm_obstacle {
	u32 what;
	int error;
	unsigned int timeout_ms;
	unsigned long need;
	unsigned long room;
};

/* Who asks: the current task. */
struct cdm_asker {
	int pid;
	bool hotplug;	/* it holds device_hotplug_lock */
	char comm[16];
};

/* What memory hotplug can take: granularity in bytes, first and last address. */
struct cdm_limits {
	u64 block;
	u64 first;
	u64 last;
};

/* C, called by Rust. */

/* machine.c */
struct cdm_limits cdm_limits(void);
int cdm_expected_nid(u64 start);
u32 cdm_nid_facts(int nid);
bool cdm_range_is_write_back(u64 start, u64 size);

/* words.c */
int cdm_publish(int nid, u32 deny, bool listed);
void cdm_withdraw(int nid);
void cdm_mark_gone(int nid);
void cdm_set_listed(int nid, bool listed);
void cdm_set_nameable(int nid, bool nameable);

/* memcg.c */
int cdm_set_uncounted(int nid, bool uncounted);

/* limit.c */
int cdm_limit_attach(int nid, u64 start, u64 size);
void cdm_limit_detach(int nid);

/* driver.c */
bool cdm_owner_get(struct module *owner);
void cdm_owner_put(struct module *owner);

/* hotplug.c */
struct resource *cdm_region_request(u64 start, u64 size);
void cdm_region_release(struct resource *res);
int cdm_region_erase(struct resource *res, const struct cdm_bad_pages *bad);

int cdm_hotplug_lock(void);
void cdm_hotplug_unlock(int how);

struct cdm_memory *cdm_memory_alloc(int nid, int mgid, u64 start, u64 size);
void cdm_memory_free(struct cdm_memory *mem);
int cdm_memory_add(struct cdm_memory *mem);
int cdm_memory_online(struct cdm_memory *mem);
bool cdm_memory_remove(struct cdm_memory *mem, unsigned int timeout_ms,
		       struct cdm_obstacle *obstacle);
int cdm_memory_evacuate(struct cdm_memory *mem);
int cdm_memory_lose(struct cdm_memory *mem, struct cdm_lost *lost);
bool cdm_memory_is_held(struct cdm_memory *mem);
void cdm_retry_later(void);

unsigned int cdm_leave_timeout(void);

/* device.c */
int cdm_watch_bus(struct device *dev);
struct cdm_device *cdm_device_hold(struct device *dev, struct resource *region);
void cdm_device_let_go(struct cdm_device *owner);
bool cdm_device_answers(const struct cdm_device *owner);

/* poison.c */
struct cdm_bad_pages *cdm_bad_pages_alloc(int nid, u64 start, u64 size);
void cdm_bad_pages_free(struct cdm_bad_pages *pages);
void cdm_bad_pages_ignore(struct cdm_bad_pages *pages);
bool cdm_bad_pages_add(struct cdm_bad_pages *pages, unsigned long pfn);
unsigned long cdm_bad_pages_next(const struct cdm_bad_pages *pages,
				 unsigned long pfn);
unsigned long cdm_bad_pages_next_new(struct cdm_bad_pages *pages);
unsigned long cdm_bad_pages_count(const struct cdm_bad_pages *pages);
void cdm_poison_page(unsigned long pfn);

/* census.c */
void cdm_count_users(const struct resource *res, struct cdm_users *users);
void cdm_who_asks(struct cdm_asker *asker);

/* sysfs.c */
void cdm_show_attrs(int nid);

struct cdm_dir *cdm_dir_create(int nid, const char *state);
void cdm_dir_set_state(struct cdm_dir *dir, const char *state);
int cdm_dir_set_device(struct cdm_dir *dir, struct device *dev);
void cdm_dir_announce(struct cdm_dir *dir, u32 event);
void cdm_dir_remove(struct cdm_dir *dir);

/* denied.c */
unsigned long cdm_denials_read(int nid, unsigned int bit);

/* C, called by C. */
int cdm_denials_attach(int nid);
struct cdm_denials __percpu *cdm_denials_detach(int nid);
void cdm_denials_free(struct cdm_denials __percpu *denials);

void cdm_set_leave_timeout(unsigned int ms);

void cdm_limit_poisoned(unsigned long pfn);

/* gone.c */
void cdm_note_poison(u64 start, u64 size, struct xarray *bad);
void cdm_take_pages(u64 start, u64 size, struct xarray *bad,
		    struct cdm_lost *lost);
bool cdm_pages_in_use(unsigned long pfn, unsigned long nr, struct xarray *bad);
bool cdm_pages_escaped(unsigned long pfn, unsigned long nr, struct xarray *bad);
bool cdm_bad_page_in_use(unsigned long pfn);

unsigned long cdm_count_bad_pages(int nid);
unsigned long cdm_count_idle_bad_pages(int nid);
bool cdm_page_is_out_of_use(unsigned long pfn);

bool cdm_node_is_filled(int nid);

unsigned long cdm_pages_to_move(int nid);
unsigned long cdm_room_in_ram(void);

/* Rust, called by C. */
void cdm_core_init(void);
void cdm_core_name_caps(u32 deny, char *buf);
ssize_t cdm_core_emit_denied(int nid, char *buf);
int cdm_core_set_listed(int nid, bool listed);
bool cdm_core_default_listed(void);
void cdm_core_set_default_listed(bool listed);
int cdm_core_set_uncounted(int nid, bool uncounted);
bool cdm_core_default_uncounted(void);
void cdm_core_set_default_uncounted(bool uncounted);
int cdm_core_unplug(int nid, const struct cdm_dir *dir);
void cdm_core_device_gone(struct device *dev);
bool cdm_core_retry(void);
void cdm_core_poisoned(int nid, struct cdm_bad_pages *pages, unsigned long first,
		       unsigned long nr);
int cdm_core_may_sleep(void);

#endif /* _MM_CDM_GLUE_H */
