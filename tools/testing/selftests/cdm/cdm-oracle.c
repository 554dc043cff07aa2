// SPDX-License-Identifier: GPL-2.0
/*
 * Looks at every page of every device node, and names those that must not be
 * there and who holds them:
 *
 * - what the kernel cannot move: slab, page tables, reserved pages;
 * - KSM pages, huge folios, hugetlb and file pages where the node denies them;
 * - a page that was neither allocated by somebody who named the node nor moved
 *   there on request. The judge of this is page_owner, so the kernel needs
 *   page_owner=on.
 *
 * page_owner itself may have had no memory to note who allocated a page. Such
 * a page is shown and counted as unknown, and is not wrong.
 *
 *	cdm-oracle [--json]
 *
 * Exits with 0 if no page is wrong, 1 if one is, 2 if it could not look.
 * Pages come and go meanwhile: what looks wrong is looked at a second time.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cdm_util.h"

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define KPF_RESERVED		KPF_BIT(32)
#define PAGE_OWNER		"/sys/kernel/debug/page_owner"
#define PM_PFN			0x007fffffffffffffUL
#define PM_PRESENT		0x8000000000000000UL
#define BATCH			1024
/* More of the same says nothing new */
#define MAX_FINDINGS		32

static bool json;
static int kpageflags, kpagecount, page_owner;
static size_t nr_findings, nr_unknown;
/* What a finding says of a page without a record; the address is compared. */
static const char unknown[] = "allocated by unknown";
static const char *finding_sep;

static __attribute__((noreturn, format(printf, 1, 2)))
void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "cdm-oracle: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

static int open_or_die(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);
	const char *pos = words;

	while ((pos = strstr(pos, word))) {
		if ((pos == words || isspace(pos[-1])) &&
		    (!pos[len] || isspace(pos[len])))
			return true;
		pos += len;
	}
	return false;
}

static void put_string(const char *text)
{
	if (!json) {
		fputs(text, stdout);
		return;
	}
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < ' ')
			printf("\\u%04x", *text);
		else
			putchar(*text);
	}
	putchar('"');
}

static unsigned long read_at(int fd, unsigned long index)
{
	unsigned long value;

	if (pread(fd, &value, sizeof(value), index * sizeof(value)) !=
	    sizeof(value))
		return 0;
	return value;
}

/* What is wrong with a page whoever has it, or NULL */
static const char *bad_kind(unsigned long flags, const char *caps)
{
	if (flags & KPF_NOPAGE || flags & KPF_BUDDY)
		return NULL;
	if (flags & KPF_SLAB)
		return "slab";
	if (flags & KPF_PGTABLE)
		return "page table";
	if (flags & KPF_RESERVED)
		return "reserved";
	if (flags & KPF_KSM && !has_word(caps, "ksm"))
		return "KSM";
	if (flags & KPF_HUGE && !has_word(caps, "hugetlb"))
		return "hugetlb";
	if (flags & KPF_THP && !has_word(caps, "thp"))
		return "THP";
	if (flags & KPF_LRU && !(flags & (KPF_ANON | KPF_SWAPBACKED)) &&
	    !has_word(caps, "pagecache"))
		return "file";
	return NULL;
}

/*
 * Whether whoever allocated the page may have it on the node. Migration hands
 * the record of the old page to the new one and adds why it moved, so the
 * stack counts only for a page that never moved.
 */
static const char *bad_owner(const char *record, const char *caps)
{
	static const char * const reasons[][2] = {
		{ "syscall_or_cpuset", "" },
		{ "mempolicy_mbind", "" },
		{ "memory_hotplug", "" },
		{ "contig_range", "" },
		{ "compaction", "compaction" },
		{ "memory_failure", "soft_offline" },
		{ "numa_misplaced", "numa_balancing" },
		{ "demotion", "demotion" },
		{ "damon", "damon" },
	};
	/* The last function before the allocator, and who may call it so */
	static const char * const stacks[][2] = {
		{ "folio_alloc_mpol_noprof+", "" },
		{ "alloc_migration_target+", "" },
		{ "alloc_misplaced_dst_folio+", "numa_balancing" },
		{ "compaction_alloc+", "compaction" },
		{ "alloc_charge_folio+", "thp" },
		{ "hugetlb", "hugetlb" },
	};
	/* What page_owner notes instead of a stack that it could not keep */
	static const char * const no_stack[] = {
		"register_failure_stack+",
		"register_dummy_stack+",
	};
	static const char moved[] = "last migrate reason: ";
	const char *pos = strstr(record, moved);
	size_t i, len;

	if (pos) {
		pos += strlen(moved);
		for (i = 0; i < ARRAY_SIZE(reasons); i++) {
			len = strlen(reasons[i][0]);
			if (strncmp(pos, reasons[i][0], len) ||
			    !isspace(pos[len]))
				continue;
			if (!*reasons[i][1] || has_word(caps, reasons[i][1]))
				return NULL;
		}
		return "moved unasked";
	}
	for (i = 0; i < ARRAY_SIZE(stacks); i++)
		if (strstr(record, stacks[i][0]) &&
		    (!*stacks[i][1] || has_word(caps, stacks[i][1])))
			return NULL;
	for (i = 0; i < ARRAY_SIZE(no_stack); i++)
		if (strstr(record, no_stack[i]))
			return unknown;
	return "allocated unnamed";
}

/*
 * The record of the first allocated page at or after pfn; the page, or
 * ULONG_MAX if there is none
 */
static unsigned long owner_record(unsigned long pfn, char *record, size_t size)
{
	unsigned long found;
	const char *pos;
	ssize_t len;

	len = pread(page_owner, record, size - 1, pfn);
	if (len < 0)
		die(PAGE_OWNER ": %s (page_owner=on?)", strerror(errno));
	record[len] = '\0';
	if (!len)
		return ULONG_MAX;
	pos = strstr(record, "PFN 0x");
	if (!pos || sscanf(pos, "PFN %lx", &found) != 1)
		die(PAGE_OWNER ": a record that cannot be read");
	return found;
}

/* Whoever maps the page; numa_maps says which VMAs have pages of the node */
static void show_holders(int nid, unsigned long pfn)
{
	char path[PATH_MAX], line[4096], key[16], comm[64], text[256];
	unsigned long start, end, addr, entry;
	const char *sep = "";
	struct dirent *entry_pid;
	FILE *maps, *numa;
	int pagemap;
	DIR *proc;

	snprintf(key, sizeof(key), " N%d=", nid);
	proc = opendir("/proc");
	if (!proc)
		die("/proc: %s", strerror(errno));
	while ((entry_pid = readdir(proc))) {
		int pid = atoi(entry_pid->d_name);

		if (pid <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/numa_maps", pid);
		numa = fopen(path, "r");
		snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
		pagemap = open(path, O_RDONLY | O_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		if (file_read(path, comm, sizeof(comm)) < 0)
			*comm = '\0';
		while (numa && pagemap >= 0 && fgets(line, sizeof(line), numa)) {
			if (!strstr(line, key))
				continue;
			start = strtoul(line, NULL, 16);
			end = 0;
			snprintf(path, sizeof(path), "/proc/%d/maps", pid);
			maps = fopen(path, "r");
			while (maps && fscanf(maps, "%lx-%lx%*[^\n]", &addr,
					      &end) == 2 && addr != start)
				end = 0;
			if (maps)
				fclose(maps);
			for (addr = start; addr < end; addr += PAGE_SIZE) {
				entry = read_at(pagemap, addr / PAGE_SIZE);
				if (!(entry & PM_PRESENT) ||
				    (entry & PM_PFN) != pfn)
					continue;
				line[strcspn(line, "\n")] = '\0';
				snprintf(text, sizeof(text), "%d (%s) at %lx: %s",
					 pid, comm, addr, line);
				printf("%s", json ? sep : "  mapped by ");
				put_string(text);
				if (!json)
					putchar('\n');
				sep = ", ";
			}
		}
		if (numa)
			fclose(numa);
		if (pagemap >= 0)
			close(pagemap);
	}
	closedir(proc);
}

static void finding(int nid, unsigned long pfn, const char *kind,
		    unsigned long flags)
{
	static char record[8192];
	char *line, *save;
	const char *sep = "";

	if ((kind == unknown ? nr_unknown++ : nr_findings++) >= MAX_FINDINGS)
		return;
	if (owner_record(pfn, record, sizeof(record)) != pfn)
		*record = '\0';
	if (json) {
		printf("%s\n  {\"nid\": %d, \"pfn\": %lu, \"kind\": \"%s\", ",
		       finding_sep, nid, pfn, kind);
		printf("\"flags\": %lu, \"mapcount\": %lu, \"holders\": [",
		       flags, read_at(kpagecount, pfn));
		finding_sep = ",";
		show_holders(nid, pfn);
		printf("], \"owner\": [");
		for (line = strtok_r(record, "\n", &save); line;
		     line = strtok_r(NULL, "\n", &save)) {
			fputs(sep, stdout);
			put_string(line + strspn(line, " "));
			sep = ", ";
		}
		printf("]}");
		return;
	}
	printf("node %d, page %#lx: %s (flags %#lx, mapped %lu times)\n", nid,
	       pfn, kind, flags, read_at(kpagecount, pfn));
	show_holders(nid, pfn);
	for (line = strtok_r(record, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		printf("    %s\n", line + strspn(line, " "));
}

static void check_range(int nid, const char *caps, unsigned long pfn,
			unsigned long end, size_t *pages, size_t *used)
{
	static unsigned long flags[BATCH];
	static char record[8192];
	unsigned long next = pfn, again;
	const char *kind;
	ssize_t i, nr;

	for (; pfn < end; pfn += nr) {
		nr = end - pfn < BATCH ? end - pfn : BATCH;
		nr = pread(kpageflags, flags, nr * sizeof(*flags),
			   pfn * sizeof(*flags)) / (ssize_t)sizeof(*flags);
		if (nr <= 0)
			die("/proc/kpageflags at %#lx: %s", pfn, strerror(errno));
		for (i = 0; i < nr; i++) {
			*pages += !(flags[i] & KPF_NOPAGE);
			*used += flags[i] && !(flags[i] & (KPF_NOPAGE | KPF_BUDDY));
			kind = bad_kind(flags[i], caps);
			if (!kind)
				continue;
			again = read_at(kpageflags, pfn + i);
			if (bad_kind(again, caps) == kind)
				finding(nid, pfn + i, kind, again);
		}
	}
	while ((next = owner_record(next, record, sizeof(record))) < end) {
		kind = bad_owner(record, caps);
		if (kind && owner_record(next, record, sizeof(record)) == next &&
		    bad_owner(record, caps) == kind)
			finding(nid, next, kind, read_at(kpageflags, next));
		next++;
	}
}

/* A node consists of memory blocks. */
static bool check_node(int nid, unsigned long block, const char *sep)
{
	char path[PATH_MAX], caps[512];
	size_t pages = 0, used = 0, before = nr_findings, before_unknown = nr_unknown;
	struct dirent *entry;
	unsigned long nr;
	DIR *dir;
	int end;

	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_caps", nid);
	if (file_read(path, caps, sizeof(caps)) < 0)
		return false;	/* it has just left */
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d", nid);
	dir = opendir(path);
	if (!dir)
		return false;
	finding_sep = "";
	if (json)
		printf("%s\n {\"nid\": %d, \"caps\": \"%s\", \"findings\": [",
		       sep, nid, caps);
	while ((entry = readdir(dir))) {
		if (sscanf(entry->d_name, "memory%lu%n", &nr, &end) != 1 ||
		    entry->d_name[end])
			continue;
		check_range(nid, caps, nr * block / PAGE_SIZE,
			    (nr + 1) * block / PAGE_SIZE, &pages, &used);
	}
	closedir(dir);
	if (json)
		printf("], \"pages\": %zu, \"used\": %zu, \"wrong\": %zu, \"unknown\": %zu}",
		       pages, used, nr_findings - before,
		       nr_unknown - before_unknown);
	else
		printf("node %d (%s): %zu pages, %zu in use, %zu wrong, %zu unknown\n",
		       nid, caps, pages, used, nr_findings - before,
		       nr_unknown - before_unknown);
	return true;
}

int main(int argc, char **argv)
{
	unsigned long nodes, block;
	const char *sep = "";
	char text[64];
	int nid;

	if (argc == 2 && !strcmp(argv[1], "--json"))
		json = true;
	else if (argc != 1)
		die("usage: cdm-oracle [--json]");

	kpageflags = open_or_die("/proc/kpageflags");
	kpagecount = open_or_die("/proc/kpagecount");
	page_owner = open_or_die(PAGE_OWNER);
	if (file_read(MEMORY_SYSFS "/block_size_bytes", text, sizeof(text)) < 0)
		die("no block size");
	block = strtoul(text, NULL, 16);
	nodes = node_list("has_coherent_memory");

	if (json)
		printf("{\"nodes\": [");
	for (nid = 0; nid < 64; nid++)
		if (nodes & NODE_BIT(nid) && check_node(nid, block, sep))
			sep = ",";
	if (json)
		printf("], \"wrong\": %zu, \"unknown\": %zu}\n", nr_findings,
		       nr_unknown);
	return nr_findings ? 1 : 0;
}
