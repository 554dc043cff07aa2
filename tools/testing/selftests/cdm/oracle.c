// SPDX-License-Identifier: GPL-2.0
/*
 * The judge of all other tests, judged: cdm-oracle names each kind of page that
 * must not be on the node, and is silent about those that may be there.
 * test_modules/cdm_test.c plants them.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define CALLS		"/sys/kernel/debug/cdm_test"
#define NR		((size_t)64)

FIXTURE(oracle)
{
	int nid;
	char text[65536];
};

FIXTURE_SETUP(oracle)
{
	ASSERT_EQ(0, load_module("cdm_test", ""));
}

FIXTURE_TEARDOWN_PARENT(oracle)
{
	file_write(CALLS "/plant", "0 none");
	EXPECT_EQ(0, unload_module("cdm_test"));
	settings_restore();
}

/* What cdm-oracle says, and its exit status */
static int ask(const char *option, char *text, size_t size)
{
	char command[64];
	size_t len;
	int status;
	FILE *f;

	snprintf(command, sizeof(command), "./cdm-oracle %s 2>&1", option);
	fflush(stdout);
	f = popen(command, "r");
	if (!f)
		return -1;
	len = fread(text, 1, size - 1, f);
	text[len] = '\0';
	status = pclose(f);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int plant_on(int nid, const char *kind)
{
	char args[64];

	snprintf(args, sizeof(args), "%d %s", nid, kind);
	return file_write(CALLS "/plant", args);
}

/* As planted, as reported, and the capabilities with which it may be there */
static const struct {
	const char *kind;
	const char *said;
	const char *allow;
} plants[] = {
	{ "page", "allocated unnamed", NULL },
	{ "slab", "slab", NULL },
	{ "table", "page table", NULL },
	{ "reserved", "reserved", NULL },
	{ "ksm", "KSM", "ksm" },
	{ "thp", "THP", "thp" },
	{ "hugetlb", "hugetlb", "hugetlb" },
	{ "file", "file", "migrate,pagecache" },
};

/* Each planted page is found, named, and gone from the report when freed */
TEST_F_TIMEOUT(oracle, planted_pages, CDM_TIMEOUT)
{
	char said[64];
	size_t i;

	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	for (i = 0; i < ARRAY_SIZE(plants); i++) {
		ASSERT_EQ(0, plant_on(self->nid, plants[i].kind));
		EXPECT_EQ(1, ask("", self->text, sizeof(self->text)));
		snprintf(said, sizeof(said), ": %s (flags", plants[i].said);
		EXPECT_NE(NULL, strstr(self->text, said))
			TH_LOG("%s: %s", plants[i].kind, self->text);
		/* Who did it */
		EXPECT_NE(NULL, strstr(self->text, "[cdm_test]"));
		ASSERT_EQ(0, plant_on(self->nid, "none"));
		EXPECT_EQ(0, ask("", self->text, sizeof(self->text)))
			TH_LOG("after %s: %s", plants[i].kind, self->text);
	}
}

/*
 * Where the node allows a kind, the kind is no finding. How the page came to
 * be there still is.
 */
TEST_F_TIMEOUT(oracle, kinds_allowed, CDM_TIMEOUT)
{
	char said[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(plants); i++) {
		if (!plants[i].allow)
			continue;
		self->nid = cdm_node_up(plants[i].allow);
		ASSERT_LE(0, self->nid);
		ASSERT_EQ(0, plant_on(self->nid, plants[i].kind));
		EXPECT_EQ(1, ask("", self->text, sizeof(self->text)));
		snprintf(said, sizeof(said), ": %s (flags", plants[i].said);
		EXPECT_EQ(NULL, strstr(self->text, said))
			TH_LOG("%s: %s", plants[i].kind, self->text);
		EXPECT_NE(NULL, strstr(self->text, "allocated unnamed"));
		ASSERT_EQ(0, plant_on(self->nid, "none"));
	}
}

/* Control: pages of who named the node, and pages moved on request, are fine */
TEST_F_TIMEOUT(oracle, named_and_moved_are_fine, CDM_TIMEOUT)
{
	char used[64], path[64];
	char *named, *moved;
	long long broken;

	self->nid = cdm_node_up("migrate");
	ASSERT_LE(0, self->nid);
	named = map_pages_on(NR, self->nid);
	ASSERT_NE(NULL, named);
	fill_pages(named, NR, PAGE_SIZE, 1);
	moved = map_pages(NR);
	ASSERT_NE(NULL, moved);
	fill_pages(moved, NR, PAGE_SIZE, 2);
	ASSERT_EQ(0, move_to(moved, NR, PAGE_SIZE, self->nid, NULL));
	ASSERT_EQ(NR, pages_on(named, NR, PAGE_SIZE, self->nid));
	ASSERT_EQ(NR, pages_on(moved, NR, PAGE_SIZE, self->nid));

	EXPECT_EQ(0, ask("", self->text, sizeof(self->text)))
		TH_LOG("%s", self->text);
	/* Other programs may have broken pages, which stay out of use */
	snprintf(path, sizeof(path), NODE_SYSFS "/node%d/cdm_bad_pages", self->nid);
	broken = file_number(path);
	ASSERT_LE(0, broken);
	snprintf(used, sizeof(used), " %zu in use, 0 wrong, 0 unknown\n",
		 2 * NR + (size_t)broken);
	EXPECT_NE(NULL, strstr(self->text, used))
		TH_LOG("%s", self->text);
}

/* Of whom page_owner has no stack, it is said so, and nobody is blamed. */
TEST_F_TIMEOUT(oracle, unknown_is_not_wrong, CDM_TIMEOUT)
{
	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	ASSERT_EQ(0, plant_on(self->nid, "unknown"));
	EXPECT_EQ(0, ask("", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, ": allocated by unknown (flags"))
		TH_LOG("%s", self->text);
	EXPECT_NE(NULL, strstr(self->text, " 0 wrong, 1 unknown\n"));
	EXPECT_EQ(0, ask("--json", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, "\"wrong\": 0, \"unknown\": 1}\n"));
}

TEST_F_TIMEOUT(oracle, json, CDM_TIMEOUT)
{
	self->nid = cdm_node_up("none");
	ASSERT_LE(0, self->nid);
	EXPECT_EQ(0, ask("--json", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, "\"findings\": []"));
	EXPECT_NE(NULL, strstr(self->text, "\"wrong\": 0, \"unknown\": 0}\n"));
	ASSERT_EQ(0, plant_on(self->nid, "slab"));
	EXPECT_EQ(1, ask("--json", self->text, sizeof(self->text)));
	EXPECT_NE(NULL, strstr(self->text, "\"kind\": \"slab\""));
	EXPECT_NE(NULL, strstr(self->text, "[cdm_test]"));
}

/* No node, nothing wrong; and no judgement where it cannot be made */
TEST_F_TIMEOUT(oracle, no_node, CDM_TIMEOUT)
{
	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, ask("", self->text, sizeof(self->text)));
	EXPECT_STREQ("", self->text);
	EXPECT_EQ(2, ask("--nonsense", self->text, sizeof(self->text)));
}

TEST_HARNESS_MAIN
