// SPDX-License-Identifier: GPL-2.0
/*
 * Coherent device memory: sysfs, and uevents.
 *
 * The attributes of /sys/devices/system/node/nodeN, and what is in
 * /sys/kernel/mm/cdm.
 */
#define pr_fmt(fmt) "cdm: " fmt

#include <linux/cdm_limit.h>
#include <linux/device.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/node.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/sysfs.h>
#include <linux/time.h>

#include "glue.h"

static ssize_t cdm_caps_show(struct device *dev, struct device_attribute *attr,
			     char *buf)
{
	char names[CDM_NAMES_SIZE];

	cdm_core_name_caps(READ_ONCE(cdm_node_deny[dev->id]), names);
	return sysfs_emit(buf, "%s\n", names);
}
static DEVICE_ATTR_RO(cdm_caps);

static ssize_t cdm_denied_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	return cdm_core_emit_denied(dev->id, buf);
}
static DEVICE_ATTR_RO(cdm_denied);

static ssize_t cdm_bad_pages_show(struct device *dev,
				  struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", cdm_count_bad_pages(dev->id));
}
static DEVICE_ATTR_RO(cdm_bad_pages);

/* Who may name the node: "all" whose cpuset does not say otherwise, or "listed". */
static const char * const cdm_access_names[] = { "all", "listed" };

static ssize_t cdm_access_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  cdm_access_names[node_is_cdm_listed(dev->id)]);
}

static ssize_t cdm_access_store(struct device *dev,
				struct device_attribute *attr,
				const char *buf, size_t count)
{
	int access = sysfs_match_string(cdm_access_names, buf);

	if (access < 0)
		return access;
	return cdm_core_set_listed(dev->id, access) ?: count;
}
static DEVICE_ATTR_RW(cdm_access);

/* Is what is used of the node a part of memory.current? */
static const char * const cdm_memcg_names[] = { "counted", "uncounted" };

static ssize_t cdm_memcg_show(struct device *dev,
			      struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  cdm_memcg_names[!!(READ_ONCE(cdm_node_deny[dev->id]) &
					     CDM_UNCOUNTED)]);
}

static ssize_t cdm_memcg_store(struct device *dev,
			       struct device_attribute *attr,
			       const char *buf, size_t count)
{
	int uncounted = sysfs_match_string(cdm_memcg_names, buf);

	if (uncounted < 0)
		return uncounted;
	/* What waits on the CPUs' lists to be freed is in use, and the core has a lock. */
	lru_add_drain_all();
	return cdm_core_set_uncounted(dev->id, uncounted) ?: count;
}
static DEVICE_ATTR_RW(cdm_memcg);

static struct attribute *cdm_node_attrs[] = {
	&dev_attr_cdm_caps.attr,
	&dev_attr_cdm_denied.attr,
	&dev_attr_cdm_bad_pages.attr,
	&dev_attr_cdm_access.attr,
	&dev_attr_cdm_memcg.attr,
	NULL
};

static umode_t cdm_node_attr_is_visible(struct kobject *kobj,
					struct attribute *attr, int n)
{
	if (attr == &dev_attr_cdm_memcg.attr && !IS_ENABLED(CONFIG_MEMCG))
		return 0;
	return node_is_cdm(kobj_to_dev(kobj)->id) ? attr->mode : 0;
}

const struct attribute_group cdm_node_attr_group = {
	.attrs = cdm_node_attrs,
	.is_visible = cdm_node_attr_is_visible,
};

/**
 * cdm_show_attrs - see to it that a node has its attributes
 * @nid: a node whose memory is online
 *
 * A node that was online without memory, as a generic initiator is, has its
 * directory already; a new node's was made with the attributes in it.
 *
 * Context: May sleep. Under cdm_hotplug_lock().
 */
void cdm_show_attrs(int nid)
{
	if (!node_devices[nid])
		return;

	if (sysfs_update_group(&node_devices[nid]->dev.kobj,
			       &cdm_node_attr_group))
		pr_warn("node%d: its attributes could not be created\n", nid);
}

/* /sys/kernel/mm/cdm; its members send uevents of SUBSYSTEM=cdm. */
static struct kset *cdm_kset;

/* /sys/kernel/mm/cdm/nodeN */
struct cdm_dir {
	struct kobject kobj;
	const char *state;
	int nid;
	bool has_device;
	bool announced;
};

static struct cdm_dir *to_cdm_dir(struct kobject *kobj)
{
	return container_of(kobj, struct cdm_dir, kobj);
}

static ssize_t state_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	struct cdm_dir *dir = to_cdm_dir(kobj);
	const char *state = READ_ONCE(dir->state);

	/* All of its blocks have been taken offline by hand. */
	if (!strcmp(state, "online") && !cdm_node_is_filled(dir->nid))
		state = "offline";
	return sysfs_emit(buf, "%s\n", state);
}

static ssize_t state_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	struct cdm_dir *dir = to_cdm_dir(kobj);
	struct kernfs_node *kn;
	int ret;

	if (!sysfs_streq(buf, "unplugged"))
		return -EINVAL;

	/* Success removes this very file, which waits for its users. */
	kn = sysfs_break_active_protection(kobj, &attr->attr);
	if (!kn)
		return -ENODEV;
	ret = cdm_core_unplug(dir->nid, dir);
	sysfs_unbreak_active_protection(kn);

	return ret ?: count;
}

static struct kobj_attribute state_attr = __ATTR_RW(state);

static struct attribute *cdm_dir_attrs[] = {
	&state_attr.attr,
	NULL
};
ATTRIBUTE_GROUPS(cdm_dir);

static void cdm_dir_free(struct kobject *kobj)
{
	kfree(to_cdm_dir(kobj));
}

static const struct kobj_type cdm_dir_ktype = {
	.release = cdm_dir_free,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = cdm_dir_groups,
};

/**
 * cdm_dir_create - create /sys/kernel/mm/cdm/nodeN
 * @nid: N
 * @state: what its state attribute shows, a string that stays
 *
 * Context: May sleep.
 * Return: the directory, or NULL.
 */
struct cdm_dir *cdm_dir_create(int nid, const char *state)
{
	struct cdm_dir *dir;

	dir = kzalloc_obj(*dir);
	if (!dir)
		return NULL;

	dir->nid = nid;
	dir->state = state;
	dir->kobj.kset = cdm_kset;
	if (kobject_init_and_add(&dir->kobj, &cdm_dir_ktype, NULL, "node%d",
				 nid)) {
		kobject_put(&dir->kobj);
		return NULL;
	}
	return dir;
}

void cdm_dir_set_state(struct cdm_dir *dir, const char *state)
{
	WRITE_ONCE(dir->state, state);
}

/**
 * cdm_dir_set_device - say whose memory it is
 * @dir: the directory
 * @dev: a device that is bound to the node's driver; NULL if none is any more
 *
 * Context: May sleep.
 * Return: 0 or -errno.
 */
int cdm_dir_set_device(struct cdm_dir *dir, struct device *dev)
{
	int ret;

	if (dir->has_device)
		sysfs_remove_link(&dir->kobj, "device");
	dir->has_device = false;
	if (!dev)
		return 0;

	ret = sysfs_create_link(&dir->kobj, &dev->kobj, "device");
	if (!ret)
		dir->has_device = true;
	return ret;
}

/* What an event means to those who know add, change and remove only. */
static const struct {
	enum kobject_action action;
	char *env;
} cdm_uevents[] = {
	[CDM_EVENT_REGISTER]	= { KOBJ_ADD,    "CDM_EVENT=register" },
	[CDM_EVENT_ADOPT]	= { KOBJ_CHANGE, "CDM_EVENT=adopt" },
	[CDM_EVENT_UNREGISTER]	= { KOBJ_REMOVE, "CDM_EVENT=unregister" },
	[CDM_EVENT_ORPHAN]	= { KOBJ_CHANGE, "CDM_EVENT=orphan" },
	[CDM_EVENT_LOST]	= { KOBJ_CHANGE, "CDM_EVENT=lost" },
};

/**
 * cdm_dir_announce - tell user space what has happened to a node
 * @dir: the node's directory
 * @event: CDM_EVENT_*, none that failed
 *
 * The node's mask must still be known: cdm_dir_uevent() names it.
 *
 * Context: May sleep.
 */
void cdm_dir_announce(struct cdm_dir *dir, u32 event)
{
	char *env[2] = { cdm_uevents[event].env };

	dir->announced = true;
	kobject_uevent_env(&dir->kobj, cdm_uevents[event].action, env);
}

static int cdm_dir_uevent(const struct kobject *kobj,
			  struct kobj_uevent_env *env)
{
	const struct cdm_dir *dir = container_of_const(kobj, struct cdm_dir,
						       kobj);
	char names[CDM_NAMES_SIZE];

	cdm_core_name_caps(READ_ONCE(cdm_node_deny[dir->nid]), names);
	return add_uevent_var(env, "CDM_NODE=%d", dir->nid) ?:
	       add_uevent_var(env, "CDM_CAPS=%s", names);
}

static const struct kset_uevent_ops cdm_uevent_ops = {
	.uevent = cdm_dir_uevent,
};

/**
 * cdm_dir_remove - remove what cdm_dir_create() made
 * @dir: the directory
 *
 * Context: May sleep: waits for whoever reads or writes there, so not under a
 * lock that they take.
 */
void cdm_dir_remove(struct cdm_dir *dir)
{
	/* Nobody hears that a node goes who has not heard that it came. */
	if (dir->announced)
		cdm_dir_announce(dir, CDM_EVENT_UNREGISTER);
	kobject_del(&dir->kobj);
	kobject_put(&dir->kobj);
}

static ssize_t capabilities_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	char names[CDM_NAMES_SIZE];

	cdm_core_name_caps(0, names);
	return sysfs_emit(buf, "%s\n", names);
}

static struct kobj_attribute capabilities_attr = __ATTR_RO(capabilities);

static ssize_t leave_timeout_ms_show(struct kobject *kobj,
				     struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", cdm_leave_timeout());
}

static ssize_t leave_timeout_ms_store(struct kobject *kobj,
				      struct kobj_attribute *attr,
				      const char *buf, size_t count)
{
	unsigned int ms;
	int ret;

	ret = kstrtouint(buf, 0, &ms);
	if (ret)
		return ret;
	if (!ms || ms > 10 * 60 * MSEC_PER_SEC)
		return -EINVAL;

	cdm_set_leave_timeout(ms);
	return count;
}

static struct kobj_attribute leave_timeout_ms_attr = __ATTR_RW(leave_timeout_ms);

static ssize_t default_access_show(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  cdm_access_names[cdm_core_default_listed()]);
}

static ssize_t default_access_store(struct kobject *kobj,
				    struct kobj_attribute *attr,
				    const char *buf, size_t count)
{
	int access = sysfs_match_string(cdm_access_names, buf);

	if (access < 0)
		return access;
	cdm_core_set_default_listed(access);
	return count;
}

static struct kobj_attribute default_access_attr = __ATTR_RW(default_access);

static ssize_t default_memcg_show(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  cdm_memcg_names[cdm_core_default_uncounted()]);
}

static ssize_t default_memcg_store(struct kobject *kobj,
				   struct kobj_attribute *attr,
				   const char *buf, size_t count)
{
	int uncounted = sysfs_match_string(cdm_memcg_names, buf);

	if (uncounted < 0)
		return uncounted;
	cdm_core_set_default_uncounted(uncounted);
	return count;
}

static struct kobj_attribute default_memcg_attr = __ATTR_RW(default_memcg);

static struct attribute *cdm_attrs[] = {
	&capabilities_attr.attr,
	&default_access_attr.attr,
	&default_memcg_attr.attr,
	&leave_timeout_ms_attr.attr,
	NULL
};

static umode_t cdm_attr_is_visible(struct kobject *kobj, struct attribute *attr, int n)
{
	if (attr == &default_memcg_attr.attr && !IS_ENABLED(CONFIG_MEMCG))
		return 0;
	return attr->mode;
}

static const struct attribute_group cdm_attr_group = {
	.attrs = cdm_attrs,
	.is_visible = cdm_attr_is_visible,
};

/* Before the device initcalls, in which drivers register. */
static int __init cdm_init(void)
{
	int ret;

	cdm_kset = kset_create_and_add("cdm", &cdm_uevent_ops, mm_kobj);
	if (!cdm_kset)
		return -ENOMEM;

	ret = sysfs_create_group(&cdm_kset->kobj, &cdm_attr_group);
	if (ret) {
		kset_unregister(cdm_kset);
		return ret;
	}

	/* Until here the core refuses to register anything. */
	cdm_core_init();
	return 0;
}
subsys_initcall(cdm_init);
