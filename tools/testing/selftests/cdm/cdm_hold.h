/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tasks that hold pages of a device in every way there is, and judge what they
 * find there later: what they wrote, or an error. Anything else is a violation.
 */
#ifndef _CDM_HOLD_H
#define _CDM_HOLD_H

#include <stdbool.h>
#include <stddef.h>

/* What the holders need of the node */
#define HOLD_CAPS	"hugetlb,migrate,gup,longterm_pin,thp"
#define HOLD_SEED	0x60e0000UL

enum hold_kind {
	HOLD_PLAIN,
	HOLD_LOCKED,		/* mlock(2) */
	HOLD_STOPPED,		/* SIGSTOP */
	HOLD_FROZEN,		/* cgroup.freeze */
	HOLD_FORKED,		/* mapped by two tasks, copy on write */
	HOLD_THP,
	HOLD_TMPFS,		/* mapped, and to be read as a file */
	HOLD_HUGETLB,
	HOLD_SPLICED,		/* in a pipe, by vmsplice(2) */
	HOLD_REGISTERED,	/* with io_uring */
	HOLD_KINDS,
};

/**
 * struct verdict - what somebody found in place of what he wrote
 * @own: pages that are as he left them
 * @error: pages of which he got SIGBUS, or an error
 * @other: pages with something else: what must never be
 */
struct verdict {
	size_t own;
	size_t error;
	size_t other;
};

void judge_pages(const char *addr, size_t nr, size_t stride, unsigned long seed,
		 struct verdict *verdict);

bool hold_all(int nid, bool pinned);
bool hold_start(enum hold_kind kind, int nid);
bool hold_judge_all(void);
const struct verdict *hold_mapped(enum hold_kind kind);
const struct verdict *hold_referred(enum hold_kind kind);
size_t hold_pages(enum hold_kind kind);
const char *hold_name(enum hold_kind kind);
size_t hold_pinned(enum hold_kind kind);
bool hold_has(enum hold_kind kind);
void hold_end(enum hold_kind kind);
void hold_end_all(void);

/* For tests with kselftest_harness.h. */

/* All that can move has moved, and of the rest everybody gets an error. */
#define expect_saved()							\
do {									\
	int kind;							\
									\
	EXPECT_TRUE(hold_judge_all());					\
	for (kind = 0; kind < HOLD_KINDS; kind++) {			\
		if (!hold_has(kind))					\
			continue;					\
		EXPECT_EQ(hold_pinned(kind), hold_mapped(kind)->error);	\
		EXPECT_EQ(hold_pages(kind) - hold_pinned(kind),		\
			  hold_mapped(kind)->own);			\
		EXPECT_EQ(hold_pinned(kind), hold_referred(kind)->error); \
	}								\
} while (0)

/* Nothing has moved, for there was nothing to be read. */
#define expect_lost()							\
do {									\
	int kind;							\
									\
	EXPECT_TRUE(hold_judge_all());					\
	for (kind = 0; kind < HOLD_KINDS; kind++) {			\
		if (!hold_has(kind))					\
			continue;					\
		EXPECT_EQ(hold_pages(kind), hold_mapped(kind)->error);	\
		EXPECT_EQ(0, hold_referred(kind)->own);			\
	}								\
} while (0)

/* A device that was away is the same node again, and of use. */
#define expect_node_again()						\
do {									\
	const size_t nr = 8;						\
	char *addr;							\
									\
	/* The directory of a node goes first, the claim to its number last */ \
	EXPECT_TRUE(wait_for(cdm_node_up(HOLD_CAPS) == self->nid));	\
	addr = filled_pages_on(nr, self->nid, HOLD_SEED);		\
	ASSERT_NE(NULL, addr);						\
	EXPECT_EQ(nr, pages_on(addr, nr, PAGE_SIZE, self->nid));	\
	EXPECT_EQ(nr, pages_intact(addr, nr, PAGE_SIZE, HOLD_SEED));	\
} while (0)

#endif /* _CDM_HOLD_H */
