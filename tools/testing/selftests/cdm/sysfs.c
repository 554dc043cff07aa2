// SPDX-License-Identifier: GPL-2.0
/*
 * What userspace reads: nodeN/cdm_caps, has_coherent_memory, the names of all
 * capabilities, the state of a node. Names, order and modes are ABI.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cdm_util.h"

#define ALL_NAMES \
	"numa_balancing ksm hugetlb migrate gup longterm_pin thp pagecache " \
	"reclaim swap demotion compaction interleave damon soft_offline"

FIXTURE(sysfs)
{
	char path[PATH_MAX];
	char text[1024];
};

FIXTURE_SETUP(sysfs)
{
	ASSERT_NE(NULL, cdm_device(0));
}

FIXTURE_TEARDOWN_PARENT(sysfs)
{
	settings_restore();
}

/* The allowed names in the order of their bits, however the driver said them */
TEST_F_TIMEOUT(sysfs, cdm_caps, CDM_TIMEOUT)
{
	static const char * const text[][2] = {
		{ "none", "none" },
		{ "ksm", "ksm" },
		{ "migrate", "migrate" },
		{ "soft_offline", "soft_offline" },
		{ "migrate,ksm", "ksm migrate" },
		{ "longterm_pin,gup", "gup longterm_pin" },
		{ "interleave,migrate,numa_balancing",
		  "numa_balancing migrate interleave" },
		{ "damon,swap,reclaim,thp,hugetlb",
		  "hugetlb thp reclaim swap damon" },
		{ "all", ALL_NAMES },
	};
	size_t i;
	int nid;

	for (i = 0; i < ARRAY_SIZE(text); i++) {
		nid = cdm_node_up(text[i][0]);
		ASSERT_LE(0, nid);
		snprintf(self->path, sizeof(self->path),
			 NODE_SYSFS "/node%d/cdm_caps", nid);
		ASSERT_LT(0, file_read(self->path, self->text,
				       sizeof(self->text)));
		EXPECT_STREQ(text[i][1], self->text);
	}
}

/* A mask that the kernel refuses leaves the driver without the device */
TEST_F_TIMEOUT(sysfs, refused_caps, CDM_TIMEOUT)
{
	static const char * const refused[] = {
		"longterm_pin",		/* needs gup */
		"numa_balancing",	/* needs migrate */
		"swap",			/* needs reclaim */
		"no_such_capability",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		ASSERT_EQ(0, cdm_node_down());
		EXPECT_EQ(-EINVAL, cdm_bind(refused[i]));
		EXPECT_EQ(-1, cdm_node());
	}
	/* Positive control: the same way with a good one */
	EXPECT_EQ(0, cdm_bind("ksm"));
	EXPECT_LE(0, cdm_node());
}

/* Of a list that cannot be used, the log names the word */
TEST_F_TIMEOUT(sysfs, refused_words, CDM_TIMEOUT)
{
	static const char * const words[][2] = {
		{ "all,thp", "caps: \"all\" must stand alone" },
		{ "thp,none", "caps: \"none\" must stand alone" },
		{ "migrate,thpp", "caps: \"thpp\" is no capability" },
		{ "kernel", "caps: \"kernel\" cannot be allowed" },
	};
	size_t i;
	int log;

	ASSERT_EQ(0, cdm_node_down());
	for (i = 0; i < ARRAY_SIZE(words); i++) {
		log = log_open();
		ASSERT_LE(0, log);
		EXPECT_GT(0, cdm_bind(words[i][0]));
		EXPECT_TRUE(log_has(log, words[i][1])) {
			TH_LOG("the log does not say: %s", words[i][1]);
		}
		close(log);
	}
}

/* All names that this kernel knows */
TEST_F(sysfs, capabilities)
{
	char expected[] = ALL_NAMES;
	char *seen_next, *next, *seen, *name;

	ASSERT_LT(0, file_read(CDM_SYSFS "/capabilities", self->text,
			       sizeof(self->text)));
	name = strtok_r(expected, " ", &next);
	seen = strtok_r(self->text, "\n ", &seen_next);
	while (name && seen) {
		EXPECT_STREQ(name, seen);
		name = strtok_r(NULL, " ", &next);
		seen = strtok_r(NULL, "\n ", &seen_next);
	}
	EXPECT_EQ(NULL, name);
	EXPECT_EQ(NULL, seen);
}

/* The node is in one list and in none of the others */
TEST_F_TIMEOUT(sysfs, has_coherent_memory, CDM_TIMEOUT)
{
	int nid;

	nid = cdm_node_up("none");
	ASSERT_LE(0, nid);
	EXPECT_EQ(NODE_BIT(nid), node_list("has_coherent_memory") & NODE_BIT(nid));
	EXPECT_EQ(NODE_BIT(nid), node_list("online") & NODE_BIT(nid));
	EXPECT_EQ(0, node_list("has_memory") & NODE_BIT(nid));
	EXPECT_EQ(0, node_list("has_normal_memory") & NODE_BIT(nid));
	EXPECT_EQ(0, node_list("has_cpu") & NODE_BIT(nid));
	/* Ordinary nodes are not in it */
	EXPECT_EQ(0, node_list("has_coherent_memory") & node_list("has_memory"));

	ASSERT_EQ(0, cdm_node_down());
	EXPECT_EQ(0, node_list("has_coherent_memory") & NODE_BIT(nid));
	snprintf(self->path, sizeof(self->path), NODE_SYSFS "/node%d/cdm_caps",
		 nid);
	EXPECT_NE(0, access(self->path, F_OK));
	snprintf(self->path, sizeof(self->path), CDM_SYSFS "/node%d", nid);
	EXPECT_NE(0, access(self->path, F_OK));
	/* An ordinary node has no such file at any time */
	snprintf(self->path, sizeof(self->path), NODE_SYSFS "/node%d/cdm_caps",
		 ram_node(0));
	EXPECT_NE(0, access(self->path, F_OK));
}

/* Readable by all, writable by nobody; only the state takes a wish */
TEST_F_TIMEOUT(sysfs, modes, CDM_TIMEOUT)
{
	char paths[3][64];
	struct stat st;
	int i, fd, nid;

	nid = cdm_node_up("none");
	ASSERT_LE(0, nid);
	snprintf(paths[0], sizeof(paths[0]), NODE_SYSFS "/node%d/cdm_caps", nid);
	snprintf(paths[1], sizeof(paths[1]), NODE_SYSFS "/has_coherent_memory");
	snprintf(paths[2], sizeof(paths[2]), CDM_SYSFS "/capabilities");
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, stat(paths[i], &st));
		EXPECT_EQ(0444, st.st_mode & 0777);
		fd = open(paths[i], O_WRONLY);
		EXPECT_EQ(-1, fd);
	}

	snprintf(self->path, sizeof(self->path), CDM_SYSFS "/node%d/state", nid);
	ASSERT_EQ(0, stat(self->path, &st));
	EXPECT_EQ(0644, st.st_mode & 0777);
	ASSERT_LT(0, cdm_state(nid, self->text, sizeof(self->text)));
	EXPECT_STREQ("online", self->text);
	EXPECT_EQ(-EINVAL, file_write(self->path, "nonsense"));
	EXPECT_EQ(nid, cdm_node());
}

TEST_HARNESS_MAIN
