/* counters: how often each decision about a new connection was taken on this node, by reason.
 * Writers: all programs, each on its own CPU. Reader: the agent (sums over CPUs).
 * Entries: an array, one slot per reason; they only grow, and start at zero with the map.
 * Full:    cannot be; COUNTER_MAX leaves room so that a new reason needs no new map.
 *
 * An array's key must be a plain integer for the kernel, so this enumeration is not in the programs' BTF; a test compares
 * this file with ambient/datapath/layout.py. */
#ifndef AMBIENT_MAPS_COUNTERS_H
#define AMBIENT_MAPS_COUNTERS_H

#include "../include/contract.h"

#define COUNTER_MAX 64

enum counter {
	COUNT_REDIRECTED_OUT,
	COUNT_REDIRECTED_IN,
	COUNT_HBONE_IN,
	COUNT_PROBE,
	COUNT_DNS_UDP,
	COUNT_DNS_TCP,
	COUNT_COOKIE_IN,      /* an answer to a SYN cookie (or to nothing at all), given to ztunnel */
	COUNT_COOKIE_OUT,
	COUNT_ASSIGNED_ON_LO, /* what was looped has reached its listener */
	COUNT_PASSED_OPEN_IN,  /* no listener and the row says open */
	COUNT_PASSED_OPEN_OUT,
	COUNT_REFUSED_NO_LISTENER_IN,
	COUNT_REFUSED_NO_LISTENER_OUT,
	COUNT_REFUSED_OPTIONS,
	COUNT_REFUSED_FRAGMENT,
	COUNT_REFUSED_EXTENSION_HEADER,
	COUNT_REFUSED_VLAN,
	COUNT_REFUSED_UNREADABLE,
	COUNT_REFUSED_UNKNOWN_SOURCE,
	COUNT_REFUSED_UNKNOWN_DESTINATION,
	COUNT_REFUSED_SPOOFED_SOURCE,  /* an address of another pod, seen at the host's end of the veth */
	COUNT_REFUSED_BYPASS,          /* left the pod without passing pod_egress, seen at the host's end */
	COUNT_REFUSED_PROXY_PORT,      /* from the network straight to a port of ztunnel that is not open to it */
	COUNT_REFUSED_ASSIGN,          /* the kernel would not give the packet to the listener */
	COUNT_FORGED_MARK,             /* PROXY_MARK on a packet of somebody else; it was captured like any other */
	COUNT_REFUSED_POLICY_OUT,      /* policy of the destination on this node refuses: connect() was answered by a reset */
	COUNT_REFUSED_POLICY_IN,       /* policy refuses plain text from there */
	COUNT_REFUSED_POLICY_TUNNEL,   /* policy refuses whatever a tunnel from there could ask for */
	COUNT_CLEAR_OUT,    /* data of a captured pod left it in the clear without leave; should be 0 */
	COUNT_CLEAR_IN,     /* such data came to it; should be 0 */
	COUNT_EVENT_LOST,    /* nobody read: the ring was full */
	COUNT_EVENT_THINNED, /* more than a CPU may tell in a second */
	COUNT_EVENT_FLOW_LOST, /* the same of single flows */
	COUNT_EVENT_FLOW_THINNED,
	COUNT_FLOW_UNCOUNTED, /* no place on the sheet of tallies: missing in the totals; should be 0 */
	COUNT_DIRECT_OUT,           /* went to a pod of this node on the kernel path */
	COUNT_REFUSED_DIRECT_CUT,   /* a packet of such a connection, after policy had cut it or its way was lost */
	COUNT_REFUSED_DIRECT_TAKEN, /* the opening packet of one whose four-tuple ztunnel uses; repeated, it takes the tunnel */
	COUNT_REFUSED_POLICY_UDP,  /* policy refuses it at the pod that it is for, and it is no answer */
	COUNT_REFUSED_POLICY_ICMP,
	COUNT_BEYOND_SHARE_DIRECT, /* had a grant, but its pod has as many ways as are its share: took the tunnel */
	COUNT_BEYOND_SHARE_FLOWS,  /* added up with others of its pod: the pod's share of the sheet of tallies is used */
	COUNT_BEYOND_SHARE_TALKS,  /* remembered among those of other busy pods: its pod began too many of late */
	COUNT_LAPSED_POLICY,       /* rows were not asked: no agent had vouched for them for minutes, ztunnel judged alone */
	COUNT_LISTENER_UNNAMED,    /* no place for ztunnel's listener or its name: some connections come late; should be 0 */
	COUNT_LISTENER_FULL,       /* no place to note for which listener an opening packet is: late; should be 0 */
	COUNTERS_USED,
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("percpu_array", __u32, __u64, counters, COUNTER_MAX, MAP_PIN("counters"));
INLINE void count(enum counter reason)
{
	__u32 key = reason;
	__u64 *slot = counters.lookup(&key);

	if (slot)
		*slot += 1;
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");
INLINE void count(enum counter reason)
{
	__u32 key = reason;
	__u64 *slot = bpf_map_lookup_elem(&counters, &key);

	if (slot)
		*slot += 1;
}
#endif

INLINE int pass(enum counter reason)
{
	count(reason);
	return PASS;
}

INLINE int refuse(enum counter reason)
{
	count(reason);
	return TC_ACT_SHOT;
}

#endif
