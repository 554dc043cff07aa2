// SPDX-License-Identifier: GPL-2.0
/*
 * What admins see: nodeN/cdm_denied counts each refusal and nothing else, the
 * tracepoints of cdm say what was refused, and uevents that a node comes and
 * goes.
 */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"
#include "../../../../mm/gup_test.h"

#define NR		((size_t)64)
#define SEED		0xe0e00000UL
#define NR_CAPS		15
#define TRACEFS		"/sys/kernel/tracing"
#define INSTANCE	TRACEFS "/instances/cdm_test"
/* Names that the C library may be too old for */
#define PAGEOUT		21
#define COLLAPSE	25

struct counts {
	char name[NR_CAPS][32];
	unsigned long long value[NR_CAPS];
};

FIXTURE(events)
{
	int nid;
	int ram;
	int fd;
	char path[PATH_MAX];
	char text[8192];
	struct counts before;
	struct counts after;
};

FIXTURE_SETUP(events)
{
	self->fd = -1;
	self->nid = -1;
	ASSERT_NE(NULL, cdm_device(0));
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	/* Nobody else is to ask the node for anything while it is counted */
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting("/sys/kernel/mm/transparent_hugepage/enabled",
			     "madvise"));
	rmdir(INSTANCE);
	ASSERT_EQ(0, mkdir(INSTANCE, 0700));
}

FIXTURE_TEARDOWN_PARENT(events)
{
	rmdir(INSTANCE);
	settings_restore();
}

/* The lines of cdm_denied in their order; how many, or -errno */
static int read_counts(int nid, struct counts *counts)
{
	char path[PATH_MAX], text[4096], *line, *next;
	int ret, n = 0;

	memset(counts, 0, sizeof(*counts));
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_denied", nid);
	ret = file_read(path, text, sizeof(text));
	if (ret < 0)
		return ret;
	for (line = strtok_r(text, "\n", &next); line && n < NR_CAPS;
	     line = strtok_r(NULL, "\n", &next), n++)
		if (sscanf(line, "%31s %llu", counts->name[n],
			   &counts->value[n]) != 2)
			return -EINVAL;
	return line ? -E2BIG : n;
}

/* By how much one has grown; -1 if any other than it and @other has changed */
static long long grown(const struct counts *before, const struct counts *after,
		       const char *name, const char *other)
{
	long long diff = -1;
	int i;

	for (i = 0; i < NR_CAPS; i++) {
		if (!strcmp(before->name[i], name)) {
			diff = after->value[i] - before->value[i];
		} else if (before->value[i] != after->value[i] &&
			   (!other || strcmp(before->name[i], other))) {
			ksft_print_msg("%s: %llu, was %llu\n", before->name[i],
				       after->value[i], before->value[i]);
			return -1;
		}
	}
	return diff;
}

static unsigned long pfn_of(const void *addr)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry),
		  (unsigned long)addr / PAGE_SIZE * sizeof(entry)) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	return entry & 0x7fffffffffffffUL;
}

/* One line for each capability, in the order of their bits, from 0 */
TEST_F_TIMEOUT(events, cdm_denied_format, CDM_TIMEOUT)
{
	char *name, *next;
	struct stat st;
	int n = 0;

	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	/* A node that has just come has denied nothing */
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(self->nid, cdm_node_up("none"));
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->before));
	ASSERT_LT(0, file_read(CDM_SYSFS "/capabilities", self->text,
			       sizeof(self->text)));
	for (name = strtok_r(self->text, "\n ", &next); name;
	     name = strtok_r(NULL, "\n ", &next), n++) {
		ASSERT_GT(NR_CAPS, n);
		EXPECT_STREQ(name, self->before.name[n]);
		EXPECT_EQ(0, self->before.value[n]);
	}
	EXPECT_EQ(NR_CAPS, n);

	snprintf(self->path, sizeof(self->path),
		 NODE_SYSFS "/node%d/cdm_denied", self->nid);
	ASSERT_EQ(0, stat(self->path, &st));
	EXPECT_EQ(0444, st.st_mode & 0777);
	/* An ordinary node denies nothing, and has no such file */
	EXPECT_EQ(-ENOENT, read_counts(self->ram, &self->after));
}

FIXTURE(move_counts)
{
	int nid;
	int ram;
	int status[NR];
	struct counts before;
	struct counts after;
};

FIXTURE_VARIANT(move_counts)
{
	const char *caps;
	bool allowed;
};

FIXTURE_VARIANT_ADD(move_counts, denied)
{
	.caps = "none",
	.allowed = false,
};

FIXTURE_VARIANT_ADD(move_counts, allowed)
{
	.caps = "migrate,pagecache,interleave",
	.allowed = true,
};

FIXTURE_SETUP(move_counts)
{
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting("/sys/kernel/mm/transparent_hugepage/enabled",
			     "madvise"));
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
}

FIXTURE_TEARDOWN_PARENT(move_counts)
{
	settings_restore();
}

/* Pages that a program asks to have moved away: one refusal each, or none */
TEST_F_TIMEOUT(move_counts, out, CDM_TIMEOUT)
{
	char *device, *ram;
	int other = ram_node(1);

	ASSERT_LE(0, other);
	ram = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, ram);
	device = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, device);
	fill_pages(ram, NR, PAGE_SIZE, SEED);
	fill_pages(device, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(device, NR, PAGE_SIZE, self->nid));

	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->before));
	/* Positive control: pages that are not the node's are not counted */
	EXPECT_EQ(0, move_to(ram, NR, PAGE_SIZE, other, NULL));
	EXPECT_EQ(NR, pages_on(ram, NR, PAGE_SIZE, other));
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->after));
	EXPECT_EQ(0, grown(&self->before, &self->after, "migrate", NULL));

	EXPECT_EQ(0, move_to(device, NR, PAGE_SIZE, self->ram, self->status));
	EXPECT_EQ(variant->allowed ? NR : 0,
		  pages_on(device, NR, PAGE_SIZE, self->ram));
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->after));
	EXPECT_EQ(variant->allowed ? 0 : NR,
		  grown(&self->before, &self->after, "migrate", NULL));
}

/* Pages that would come in: the node that they would come to refuses them */
TEST_F_TIMEOUT(move_counts, in, CDM_TIMEOUT)
{
	char *ram;

	ram = map_pages_on(NR, self->ram);
	ASSERT_NE(NULL, ram);
	fill_pages(ram, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->before));
	EXPECT_EQ(0, move_to(ram, NR, PAGE_SIZE, self->nid, self->status));
	EXPECT_EQ(variant->allowed ? NR : 0,
		  pages_on(ram, NR, PAGE_SIZE, self->nid));
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->after));
	EXPECT_EQ(variant->allowed ? 0 : NR,
		  grown(&self->before, &self->after, "migrate", NULL));
}

/* What takes two capabilities is counted for each of them that is denied */
TEST_F_TIMEOUT(move_counts, both, CDM_TIMEOUT)
{
	char *file;
	int fd;

	fd = open("/scratch/events", O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, unlink("/scratch/events"));
	ASSERT_EQ(0, ftruncate(fd, PAGE_SIZE));
	file = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, file);
	file[0] = 1;

	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->before));
	EXPECT_EQ(0, move_to(file, 1, PAGE_SIZE, self->nid, self->status));
	EXPECT_EQ(variant->allowed, page_node(file) == self->nid);
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->after));
	EXPECT_EQ(variant->allowed ? 0 : 1,
		  grown(&self->before, &self->after, "migrate", "pagecache"));
	EXPECT_EQ(variant->allowed ? 0 : 1,
		  grown(&self->before, &self->after, "pagecache", "migrate"));
	close(fd);
}

/* A policy that is refused: no page is at hand, the node is asked */
TEST_F_TIMEOUT(move_counts, interleave, CDM_TIMEOUT)
{
	unsigned long nodes = NODE_BIT(self->nid) | NODE_BIT(self->ram);
	char *addr = map_pages(1);

	ASSERT_NE(NULL, addr);
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->before));
	EXPECT_EQ(variant->allowed ? 0 : -1,
		  mbind(addr, PAGE_SIZE, MPOL_INTERLEAVE, &nodes,
			8 * sizeof(nodes), 0));
	/* Positive control: modes that mean what they name */
	EXPECT_EQ(0, mbind(addr, PAGE_SIZE, MPOL_PREFERRED, &nodes,
			   8 * sizeof(nodes), 0));
	ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->after));
	EXPECT_EQ(variant->allowed ? 0 : 1,
		  grown(&self->before, &self->after, "interleave", NULL));
}

static int trace_clear(void)
{
	int fd = open(INSTANCE "/trace", O_WRONLY | O_TRUNC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int trace_start(const char *event, const char *filter)
{
	char path[PATH_MAX];
	int ret = 0;

	if (filter) {
		snprintf(path, sizeof(path), INSTANCE "/events/cdm/%s/filter",
			 event);
		ret = file_write(path, filter);
	}
	if (!ret)
		ret = trace_clear();
	snprintf(path, sizeof(path), INSTANCE "/events/cdm/%s/enable", event);
	return ret ?: file_write(path, "1");
}

/* The lines that name this event, without what stands before it; how many */
static int trace_lines(const char *event, char *text, size_t size)
{
	char *buf = malloc(65536), *line, *next, *found;
	char prefix[64];
	int n = 0;

	if (!buf || file_read(INSTANCE "/trace", buf, 65536) < 0)
		return -1;
	snprintf(prefix, sizeof(prefix), " %s: ", event);
	text[0] = '\0';
	for (line = strtok_r(buf, "\n", &next); line;
	     line = strtok_r(NULL, "\n", &next)) {
		found = strstr(line, prefix);
		if (line[0] == '#' || !found)
			continue;
		strncat(text, found + strlen(prefix), size - strlen(text) - 2);
		strcat(text, "\n");
		n++;
	}
	free(buf);
	return n;
}

/* The names in the tracepoint's format are those of sysfs, bit by bit */
TEST_F(events, trace_names)
{
	char *format = malloc(16384), *name, *next;
	unsigned int bit = 1;

	ASSERT_NE(NULL, format);
	ASSERT_LT(0, file_read(TRACEFS "/events/cdm/cdm_denied/format", format,
			       16384));
	ASSERT_LT(0, file_read(CDM_SYSFS "/capabilities", self->text,
			       sizeof(self->text)));
	for (name = strtok_r(self->text, "\n ", &next); name;
	     name = strtok_r(NULL, "\n ", &next), bit <<= 1) {
		snprintf(self->path, sizeof(self->path), "{ 0x%x, \"%s\" }",
			 bit, name);
		EXPECT_NE(NULL, strstr(format, self->path)) {
			TH_LOG("no %s in the format", self->path);
		}
	}
	EXPECT_EQ(1U << NR_CAPS, bit);
	free(format);
}

/* The fields of a refusal: node, capability, page, and who was refused */
TEST_F_TIMEOUT(events, trace_denied, CDM_TIMEOUT)
{
	char *addr, *huge, *caller, expected[128];

	self->nid = cdm_node_up("thp");
	ASSERT_LE(0, self->nid);
	addr = map_pages_on(1, self->nid);
	ASSERT_NE(NULL, addr);
	fill_page(addr, SEED);
	ASSERT_EQ(self->nid, page_node(addr));

	snprintf(self->path, sizeof(self->path), "nid == %d && cap & 0x8",
		 self->nid);
	ASSERT_EQ(0, trace_start("cdm_denied", self->path));
	EXPECT_EQ(0, move_to(addr, 1, PAGE_SIZE, self->ram, NULL));
	ASSERT_EQ(1, trace_lines("cdm_denied", self->text, sizeof(self->text)));
	snprintf(expected, sizeof(expected),
		 "nid=%d cap=migrate pfn=0x%lx order=0 caller=", self->nid,
		 pfn_of(addr));
	EXPECT_EQ(0, strncmp(expected, self->text, strlen(expected))) {
		TH_LOG("%s, not %s", self->text, expected);
	}
	/* The caller is a function that moves pages, not the predicate */
	caller = strstr(self->text, "caller=");
	ASSERT_NE(NULL, caller);
	EXPECT_NE(NULL, strstr(caller, "+0x"));
	EXPECT_NE(NULL, strstr(caller, "mov") ?: strstr(caller, "migrat")) {
		TH_LOG("%s", caller);
	}

	/* A huge page is one refusal with its order, named by its first page */
	huge = map_huge_range(1);
	ASSERT_NE(NULL, huge);
	ASSERT_EQ(0, bind_pages(huge, HUGE / PAGE_SIZE, MPOL_BIND,
				NODE_BIT(self->nid), 0));
	ASSERT_EQ(0, madvise(huge, HUGE, MADV_HUGEPAGE));
	huge[0] = 1;
	ASSERT_EQ(self->nid, page_node(huge));
	ASSERT_EQ(0, trace_clear());
	EXPECT_EQ(0, move_to(huge + 5 * PAGE_SIZE, 1, PAGE_SIZE, self->ram,
			     NULL));
	ASSERT_EQ(1, trace_lines("cdm_denied", self->text, sizeof(self->text)));
	snprintf(expected, sizeof(expected),
		 "nid=%d cap=migrate pfn=0x%lx order=9 caller=", self->nid,
		 pfn_of(huge));
	EXPECT_EQ(0, strncmp(expected, self->text, strlen(expected))) {
		TH_LOG("%s, not %s", self->text, expected);
	}
}

/* What is allowed leaves no trace */
TEST_F_TIMEOUT(events, trace_allowed, CDM_TIMEOUT)
{
	char *addr;

	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	addr = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, addr);
	fill_pages(addr, NR, PAGE_SIZE, SEED);
	ASSERT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->nid));
	ASSERT_EQ(0, trace_start("cdm_denied", NULL));
	EXPECT_EQ(0, move_to(addr, NR, PAGE_SIZE, self->ram, NULL));
	EXPECT_EQ(NR, pages_on(addr, NR, PAGE_SIZE, self->ram));
	EXPECT_EQ(0, trace_lines("cdm_denied", self->text, sizeof(self->text)));
}

/* A node comes, goes, and is refused, with what the driver said and why not */
TEST_F_TIMEOUT(events, trace_node, CDM_TIMEOUT)
{
	const struct device *dev = cdm_device(0);
	char expected[256];

	ASSERT_LE(0, cdm_node_up("none"));
	ASSERT_EQ(0, cdm_node_down());
	ASSERT_EQ(0, trace_start("cdm_node", NULL));

	ASSERT_EQ(0, cdm_bind("ksm,migrate"));
	self->nid = cdm_node();
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, cdm_unbind());
	ASSERT_EQ(2, trace_lines("cdm_node", self->text, sizeof(self->text)));
	snprintf(expected, sizeof(expected),
		 "nid=%d event=register start=0x%lx size=0x%lx allow=ksm|migrate error=0 cause=\n"
		 "nid=%d event=unregister start=0x%lx size=0x%lx allow=ksm|migrate error=0 cause=\n",
		 self->nid, dev->start, dev->size,
		 self->nid, dev->start, dev->size);
	EXPECT_STREQ(expected, self->text);

	ASSERT_EQ(0, trace_clear());
	EXPECT_EQ(-EINVAL, cdm_bind("numa_balancing"));
	ASSERT_EQ(1, trace_lines("cdm_node", self->text, sizeof(self->text)));
	snprintf(expected, sizeof(expected),
		 "nid=-1 event=register_failed start=0x%lx size=0x%lx allow=numa_balancing error=%d cause=numa_balancing needs migrate\n",
		 dev->start, dev->size, -EINVAL);
	EXPECT_STREQ(expected, self->text);
}

/* trace-cmd reads the format by itself: there the first quotation mark ends it. */
TEST_F_TIMEOUT(events, trace_format, CDM_TIMEOUT)
{
	static const char * const events[] = { "cdm_node", "cdm_denied" };
	char path[128], text[4096], *end;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		snprintf(path, sizeof(path), INSTANCE "/events/cdm/%s/format",
			 events[i]);
		ASSERT_LT(0, file_read(path, text, sizeof(text)));
		end = strstr(text, "print fmt: \"");
		ASSERT_NE(NULL, end);
		end = strchr(end + strlen("print fmt: \""), '"');
		ASSERT_NE(NULL, end);
		EXPECT_EQ(',', end[1]);
	}
}

/* A socket on which the kernel says what happens to devices */
static int uevent_socket(void)
{
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
		.nl_groups = 1,
	};
	int fd, size = 4 << 20;

	fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	if (fd < 0)
		return -1;
	/* Each memory block has one, too */
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The next one of SUBSYSTEM=cdm, its strings separated by spaces; or nothing */
static const char *uevent_next(int fd, char *text, size_t size)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	ssize_t len, i;

	/* All have been sent by the time that the cause of them returns. */
	while (poll(&pfd, 1, 0) == 1) {
		len = recv(fd, text, size - 1, 0);
		if (len <= 0)
			break;
		text[len] = '\0';
		for (i = 0; i < len - 1; i++)
			if (!text[i])
				text[i] = '\n';
		if (strstr(text, "\nSUBSYSTEM=cdm\n"))
			return text;
	}
	text[0] = '\0';
	return text;
}

TEST_F_TIMEOUT(events, uevents, CDM_TIMEOUT)
{
	char path[64], node[32];
	const char *text;

	ASSERT_LE(0, cdm_node_up("none"));
	ASSERT_EQ(0, cdm_node_down());
	self->fd = uevent_socket();
	ASSERT_LE(0, self->fd);

	ASSERT_EQ(0, cdm_bind("ksm,migrate"));
	self->nid = cdm_node();
	snprintf(path, sizeof(path), "add@/kernel/mm/cdm/node%d\n", self->nid);
	snprintf(node, sizeof(node), "\nCDM_NODE=%d\n", self->nid);
	text = uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_EQ(0, strncmp(path, text, strlen(path)));
	EXPECT_NE(NULL, strstr(text, "\nCDM_EVENT=register\n"));
	EXPECT_NE(NULL, strstr(text, node));
	EXPECT_NE(NULL, strstr(text, "\nCDM_CAPS=ksm migrate\n"));
	text = uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_STREQ("", text);

	ASSERT_EQ(0, cdm_unbind());
	snprintf(path, sizeof(path), "remove@/kernel/mm/cdm/node%d\n",
		 self->nid);
	text = uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_EQ(0, strncmp(path, text, strlen(path)));
	EXPECT_NE(NULL, strstr(text, "\nCDM_EVENT=unregister\n"));
	EXPECT_NE(NULL, strstr(text, node));
	EXPECT_NE(NULL, strstr(text, "\nCDM_CAPS=ksm migrate\n"));
	text = uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_STREQ("", text);

	/* Nothing came, nothing has gone */
	EXPECT_EQ(-EINVAL, cdm_bind("numa_balancing"));
	text = uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_STREQ("", text);
	close(self->fd);
}

/* A driver that goes and leaves an orphan, and comes back */
TEST_F_TIMEOUT(events, orphan, CDM_TIMEOUT)
{
	struct iovec iov = { .iov_len = PAGE_SIZE };
	char link[PATH_MAX] = "";
	int pipes[2];
	char *addr;

	self->nid = cdm_node_up("migrate,gup");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "2000"));
	snprintf(self->path, sizeof(self->path), CDM_SYSFS "/node%d/device",
		 self->nid);
	ASSERT_LT(0, readlink(self->path, link, sizeof(link) - 1));
	EXPECT_STREQ(cdm_device(0)->name, basename(link));

	addr = map_pages_on(1, self->nid);
	ASSERT_NE(NULL, addr);
	fill_page(addr, SEED);
	ASSERT_EQ(self->nid, page_node(addr));
	ASSERT_EQ(0, pipe(pipes));
	iov.iov_base = addr;
	ASSERT_EQ((ssize_t)PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));

	self->fd = uevent_socket();
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, trace_start("cdm_node", NULL));

	/* The admin is refused: the driver has it, and nobody is told */
	EXPECT_EQ(-EBUSY, cdm_unplug(self->nid));
	ASSERT_EQ(1, trace_lines("cdm_node", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, "event=unregister_failed"));
	EXPECT_NE(NULL, strstr(self->text, "; 1 pages in use: 1 anonymous")) {
		TH_LOG("%s", self->text);
	}
	EXPECT_STREQ("", uevent_next(self->fd, self->text, sizeof(self->text)));
	EXPECT_EQ(0, access(self->path, F_OK));

	EXPECT_EQ(0, cdm_unbind());
	ASSERT_EQ(2, trace_lines("cdm_node", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, "event=orphan"));
	uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_EQ(0, strncmp("change@", self->text, 7));
	EXPECT_NE(NULL, strstr(self->text, "\nCDM_EVENT=orphan\n"));
	EXPECT_NE(0, access(self->path, F_OK));

	EXPECT_EQ(0, cdm_bind("migrate,gup"));
	ASSERT_EQ(3, trace_lines("cdm_node", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, "event=adopt"));
	uevent_next(self->fd, self->text, sizeof(self->text));
	EXPECT_NE(NULL, strstr(self->text, "\nCDM_EVENT=adopt\n"));
	EXPECT_EQ(0, access(self->path, F_OK));

	close(pipes[0]);
	close(pipes[1]);
	close(self->fd);
	/* Nothing holds it now: it may take as long as it takes here. */
	ASSERT_EQ(0, setting(CDM_SYSFS "/leave_timeout_ms", "60000"));
	EXPECT_EQ(0, cdm_unbind());
	EXPECT_EQ(-1, cdm_node());
}

/*
 * Ways to ask for something that stand for themselves, where the node or a page
 * is asked in a place of its own. Each says whether it got what it wanted, or -1
 * if it could not even try.
 */

static int write_node_file(int nid, const char *name, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/%s", nid, name);
	return file_write(path, text);
}

static int ask_compact(int nid, int ram)
{
	return !write_node_file(nid, "compact", "1");
}

static int ask_reclaim(int nid, int ram)
{
	/* So little is there that it may find nothing. */
	return write_node_file(nid, "reclaim", "4096") != -EOPNOTSUPP;
}

static int ask_lru_gen(int nid, int ram)
{
	static const char lru_gen[] = "/sys/kernel/debug/lru_gen";
	unsigned long long id;
	char text[64], line[256];
	bool found = false;
	FILE *f;

	f = fopen(lru_gen, "r");
	if (!f)
		return -1;
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "memcg %llu", &id) == 1;
	fclose(f);
	if (!found)
		return -1;
	snprintf(text, sizeof(text), "- %llu %d 0", id, nid);
	return !file_write(lru_gen, text);
}

static int ask_pageout(int nid, int ram)
{
	char *page = filled_pages_on(1, nid, SEED);

	if (!page)
		return -1;
	drain_lru();
	if (madvise(page, PAGE_SIZE, PAGEOUT))
		return -1;
	return page_node(page) != nid;
}

static int ask_pool(int nid, int ram)
{
	int ret = pool_set(nid, "1");

	pool_set(nid, "0");
	return !ret;
}

/* A huge page of the pool for who is bound to the node, ordinary ones at hand */
static int ask_pool_page(int nid, int ram)
{
	char *addr;
	int there;

	if (pool_set(ram, "1"))
		return -1;
	pool_set(nid, "1");
	addr = map_huge(1, MAP_NORESERVE);
	if (addr == MAP_FAILED || bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return -1;
	WRITE_ONCE(*addr, 1);
	there = page_node(addr) == nid;
	munmap(addr, HUGE);
	pool_set(nid, "0");
	pool_set(ram, "0");
	return there;
}

static int ask_huge_page(int nid, int ram)
{
	char *addr = large_folios_on(HUGE >> 10, nid, SEED);

	if (!addr)
		return 0;
	munmap(addr, HUGE);
	return 1;
}

static int ask_collapse(int nid, int ram)
{
	char *addr = map_huge_range(1);
	int ret;

	if (!addr)
		return -1;
	if (madvise(addr, HUGE, MADV_NOHUGEPAGE) ||
	    bind_pages(addr, HUGE_NR, MPOL_BIND, NODE_BIT(nid), 0))
		return -1;
	fill_pages(addr, HUGE_NR, PAGE_SIZE, SEED);
	drain_lru();
	if (madvise(addr, HUGE, MADV_HUGEPAGE))
		return -1;
	ret = madvise(addr, HUGE, COLLAPSE);
	munmap(addr, HUGE);
	return !ret;
}

static int ask_reference(int nid, int ram)
{
	char *page = filled_pages_on(1, nid, SEED);
	struct iovec iov = { .iov_base = page, .iov_len = PAGE_SIZE };
	int fds[2], ret;

	if (!page || pipe(fds))
		return -1;
	ret = vmsplice(fds[1], &iov, 1, 0) == (ssize_t)PAGE_SIZE;
	close(fds[0]);
	close(fds[1]);
	return ret;
}

/* The copy that it gets instead is none of the page's reference */
static int ask_splice(int nid, int ram)
{
	int fds[2], ret, fd = memfd_create("cdm", 0);
	loff_t offset = 0;
	char *page;

	if (fd < 0 || ftruncate(fd, PAGE_SIZE) || pipe(fds))
		return -1;
	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED || bind_pages(page, 1, MPOL_BIND, NODE_BIT(nid), 0))
		return -1;
	*page = 1;
	if (splice(fd, &offset, fds[1], NULL, 1, 0) != 1)
		return -1;
	*page = 2;
	ret = read(fds[0], page + 1, 1) == 1 && page[1] == 2;
	close(fds[0]);
	close(fds[1]);
	close(fd);
	return ret;
}

/* In place */
static int ask_long_pin(int nid, int ram)
{
	char *page = filled_pages_on(1, nid, SEED);

	if (!page)
		return -1;
	return gup_gets(PIN_LONGTERM_BENCHMARK, page, 1, FOLL_WRITE) == 1 &&
	       page_node(page) == nid;
}

static int ask_soft_offline(int nid, int ram)
{
	char *page = filled_pages_on(1, nid, SEED);

	if (!page)
		return -1;
	return !madvise(page, PAGE_SIZE, MADV_SOFT_OFFLINE);
}

static const struct way {
	const char *name;
	int (*ask)(int nid, int ram);
	const char *cap;
	const char *other;	/* may be refused, too */
	const char *caller;	/* part of the name of who is refused */
	bool needs;		/* another one that has to be allowed */
} ways[] = {
	{ "nodeN/compact", ask_compact, "compaction", .caller = "compact_store" },
	{ "nodeN/reclaim", ask_reclaim, "reclaim", .caller = "reclaim_store" },
	{ "lru_gen", ask_lru_gen, "reclaim" },
	{ "MADV_PAGEOUT", ask_pageout, "reclaim", .caller = "shrink_folio_list" },
	{ "MADV_PAGEOUT, swap", ask_pageout, "swap", .caller = "shrink_folio_list",
	  .needs = true },
	{ "nr_hugepages", ask_pool, "hugetlb", .caller = "hugepages_store" },
	{ "huge page of a pool", ask_pool_page, "hugetlb", .caller = "mpol_huge_devices" },
	{ "huge page", ask_huge_page, "thp", .caller = "alloc_pages" },
	{ "MADV_COLLAPSE", ask_collapse, "thp", .caller = "collapse" },
	{ "vmsplice", ask_reference, "gup", .caller = "gup" },
	{ "splice", ask_splice, "gup", .caller = "splice_read" },
	{ "long pin", ask_long_pin, "longterm_pin", "migrate", .needs = true },
	{ "MADV_SOFT_OFFLINE", ask_soft_offline, "soft_offline",
	  .caller = "soft_offline_page" },
};

FIXTURE(ways)
{
	int nid;
	int ram;
	struct counts before;
	struct counts after;
	char text[8192];
};

FIXTURE_VARIANT(ways)
{
	const char *caps;
	bool allowed;
	bool needs;
};

FIXTURE_VARIANT_ADD(ways, denied)
{
	.caps = "none",
};

/* What needs another one that must not refuse first */
FIXTURE_VARIANT_ADD(ways, denied_alone)
{
	.caps = "reclaim,gup",
	.needs = true,
};

FIXTURE_VARIANT_ADD(ways, allowed)
{
	.caps = "all",
	.allowed = true,
};

FIXTURE_SETUP(ways)
{
	ASSERT_EQ(0, setting("/proc/sys/kernel/numa_balancing", "0"));
	ASSERT_EQ(0, setting(KSM_SYSFS "/run", "0"));
	ASSERT_EQ(0, setting(THP_SYSFS "/enabled", "madvise"));
	/* khugepaged asks, too */
	ASSERT_EQ(0, setting(THP_SYSFS "/khugepaged/scan_sleep_millisecs",
			     "1000000"));
	self->ram = ram_node(0);
	ASSERT_LE(0, self->ram);
	ASSERT_EQ(0, setting(pool_file(self->ram, "nr_hugepages"), "0"));
	self->nid = cdm_node_up(variant->caps);
	ASSERT_LE(0, self->nid);
	rmdir(INSTANCE);
	ASSERT_EQ(0, mkdir(INSTANCE, 0700));
}

FIXTURE_TEARDOWN_PARENT(ways)
{
	if (cdm_node() >= 0)
		pool_set(cdm_node(), "0");
	rmdir(INSTANCE);
	settings_restore();
}

/* Whoever is refused is counted and named, wherever the question is asked */
TEST_F_TIMEOUT(ways, each, CDM_TIMEOUT)
{
	char expected[64], *line;
	const struct way *way;
	bool found;
	size_t i;
	int got;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		way = &ways[i];
		if (!variant->allowed && way->needs != variant->needs)
			continue;
		ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->before));
		ASSERT_EQ(0, trace_start("cdm_denied", NULL));
		got = way->ask(self->nid, self->ram);
		EXPECT_EQ(variant->allowed, got) {
			TH_LOG("%s: %d", way->name, got);
		}
		ASSERT_LE(0, trace_lines("cdm_denied", self->text,
					 sizeof(self->text)));
		ASSERT_EQ(NR_CAPS, read_counts(self->nid, &self->after));
		if (variant->allowed) {
			EXPECT_EQ(0, grown(&self->before, &self->after, way->cap,
					   NULL));
			EXPECT_STREQ("", self->text);
			continue;
		}
		EXPECT_LT(0, grown(&self->before, &self->after, way->cap,
				   way->other)) {
			TH_LOG("%s: not counted, or something else was",
			       way->name);
		}
		snprintf(expected, sizeof(expected), "cap=%s ", way->cap);
		found = false;
		for (line = strtok(self->text, "\n"); line && !found;
		     line = strtok(NULL, "\n"))
			found = strstr(line, expected) &&
				(!way->caller || strstr(line, way->caller));
		EXPECT_TRUE(found) {
			TH_LOG("%s: no %sby %s in the trace", way->name, expected,
			       way->caller ?: "anybody");
		}
	}
	if (variant->allowed)
		EXPECT_EQ(0, cdm_forget_bad_pages());
}

static int victim(void *arg)
{
	int *ready = arg;

	file_write("/proc/self/oom_score_adj", "1000");
	*ready = 1;
	for (;;)
		pause();
}

/* The report of an OOM names the node while there is one, and not after */
TEST_F_TIMEOUT(events, oom_report, CDM_TIMEOUT)
{
	char expected[64];
	bool found[2] = { false, false };
	int *ready = shared_page();
	int i, fd, status;
	pid_t child;

	ASSERT_NE(NULL, ready);
	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	snprintf(expected, sizeof(expected), "Node %d does not count",
		 self->nid);

	for (i = 0; i < 2; i++) {
		fd = log_open();
		ASSERT_LE(0, fd);
		*ready = 0;
		child = spawn(victim, ready);
		ASSERT_LT(0, child);
		ASSERT_TRUE(wait_for(READ_ONCE(*ready)));
		ASSERT_EQ(0, file_write("/proc/sysrq-trigger", "f"));
		ASSERT_TRUE(wait_for(waitpid(child, &status, WNOHANG) == child));
		EXPECT_TRUE(WIFSIGNALED(status));
		found[i] = log_has(fd, expected);
		close(fd);
		ASSERT_EQ(0, cdm_node_down());
	}
	EXPECT_TRUE(found[0]);
	EXPECT_FALSE(found[1]);
}

TEST_HARNESS_MAIN
