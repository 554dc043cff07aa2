/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cdm

#if !defined(_TRACE_CDM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_CDM_H

#include <linux/cdm.h>
#include <linux/tracepoint.h>
#include <linux/types.h>

/* As in rust/kernel/cdm/caps.rs; the selftests compare the two. */
#define show_cdm_caps(caps)						\
	__print_flags(caps, "|",					\
		{ CDM_ALLOW_NUMA,		"numa_balancing" },	\
		{ CDM_ALLOW_KSM,		"ksm" },		\
		{ CDM_ALLOW_HUGETLB,		"hugetlb" },		\
		{ CDM_ALLOW_MIGRATE,		"migrate" },		\
		{ CDM_ALLOW_GUP,		"gup" },		\
		{ CDM_ALLOW_LONGTERM_PIN,	"longterm_pin" },	\
		{ CDM_ALLOW_THP,		"thp" },		\
		{ CDM_ALLOW_PAGECACHE,		"pagecache" },		\
		{ CDM_ALLOW_RECLAIM,		"reclaim" },		\
		{ CDM_ALLOW_SWAP,		"swap" },		\
		{ CDM_ALLOW_DEMOTION,		"demotion" },		\
		{ CDM_ALLOW_COMPACTION,		"compaction" },		\
		{ CDM_ALLOW_INTERLEAVE,		"interleave" },		\
		{ CDM_ALLOW_DAMON,		"damon" },		\
		{ CDM_ALLOW_SOFT_OFFLINE,	"soft_offline" })

#define show_cdm_node_event(event)					\
	__print_symbolic(event,						\
		{ CDM_EVENT_REGISTER,		"register" },		\
		{ CDM_EVENT_ADOPT,		"adopt" },		\
		{ CDM_EVENT_UNREGISTER,		"unregister" },		\
		{ CDM_EVENT_ORPHAN,		"orphan" },		\
		{ CDM_EVENT_REGISTER_FAILED,	"register_failed" },	\
		{ CDM_EVENT_UNREGISTER_FAILED,	"unregister_failed" },	\
		{ CDM_EVENT_LOST,		"lost" })

/*
 * The node denied a use. @cap: what was asked for and is denied, usually one
 * bit. @pfn, @order: the folio, or 0 where no page but the node was asked.
 * @caller: who asked, which says why.
 */
TRACE_EVENT(cdm_denied,

	TP_PROTO(int nid, u32 cap, unsigned long pfn, unsigned int order,
		 unsigned long caller),

	TP_ARGS(nid, cap, pfn, order, caller),

	TP_STRUCT__entry(
		__field(int,		nid)
		__field(u32,		cap)
		__field(unsigned long,	pfn)
		__field(unsigned int,	order)
		__field(unsigned long,	caller)
	),

	TP_fast_assign(
		__entry->nid	= nid;
		__entry->cap	= cap;
		__entry->pfn	= pfn;
		__entry->order	= order;
		__entry->caller	= caller;
	),

	TP_printk("nid=%d cap=%s pfn=0x%lx order=%u caller=%pS",
		  __entry->nid, show_cdm_caps(__entry->cap), __entry->pfn,
		  __entry->order, (void *)__entry->caller)
);

/*
 * A node came, went, or did not. @nid: what the driver asked for if it got
 * none. @error: 0 or -errno; @cause: in words, as in the log.
 */
TRACE_EVENT(cdm_node,

	TP_PROTO(int nid, u32 event, u64 start, u64 size, u32 allow, int error,
		 const char *cause),

	TP_ARGS(nid, event, start, size, allow, error, cause),

	TP_STRUCT__entry(
		__field(int,	nid)
		__field(u32,	event)
		__field(u64,	start)
		__field(u64,	size)
		__field(u32,	allow)
		__field(int,	error)
		__string(cause,	cause)
	),

	TP_fast_assign(
		__entry->nid	= nid;
		__entry->event	= event;
		__entry->start	= start;
		__entry->size	= size;
		__entry->allow	= allow;
		__entry->error	= error;
		__assign_str(cause);
	),

	TP_printk("nid=%d event=%s start=0x%llx size=0x%llx allow=%s error=%d cause=%s",
		  __entry->nid, show_cdm_node_event(__entry->event),
		  __entry->start, __entry->size, show_cdm_caps(__entry->allow),
		  __entry->error, __get_str(cause))
);

#endif /* _TRACE_CDM_H */

#include <trace/define_trace.h>
