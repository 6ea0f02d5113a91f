/* tallies: what all flows of the node's pods come to, by who talks to whom on which port, how, and how it ended. A sheet
 * is written until the agent takes it away and leaves a clean one in its place; when that is done no program writes the
 * old one any more, so that reading it loses nothing. tallies_sheet is the shape of a sheet.
 * Writers: socket_flows, pod_egress, pod_ingress. The agent exchanges.
 * Entries: of a sheet, until the agent takes it away.
 * Full:    what finds no place is counted (COUNT_FLOW_UNCOUNTED) and missing in the totals; so it is without an agent. */
#ifndef AMBIENT_MAPS_TALLIES_H
#define AMBIENT_MAPS_TALLIES_H

#include "../include/contract.h"
#include "counters.h"

enum flow_path {
	FLOW_DIRECT = 0,      /* between the application and the network */
	FLOW_CAPTURED = 1,    /* between the application and ztunnel, which tells of it as well */
	FLOW_TUNNEL = 2,      /* ztunnel's HBONE connections: the network that captured flows go by */
	FLOW_PASSTHROUGH = 3, /* ztunnel's connections to and from those who are not in the mesh */
};

enum flow_end {
	END_NONE = 0,       /* begun, or going on */
	END_ORDERLY = 1,    /* both said good-bye */
	END_RESET = 2,      /* the other end reset it */
	END_ABORTED = 3,    /* this end did, was ended, or heard nothing more */
	END_REFUSED = 4,    /* nobody listens there */
	END_UNANSWERED = 5, /* never answered, or given up before */
	END_DENIED = 6,     /* policy refused it in the kernel */
};

struct tally_key {
	struct address source; /* who opened */
	struct address destination;
	__u16 port; /* of the destination, network order */
	__u8 protocol;
	__u8 arriving;
	enum flow_path path;
	enum flow_end end;
};

struct tally {
	__u64 flows; /* that began (END_NONE) or ended so */
	__u64 bytes_sent; /* by the source */
	__u64 bytes_received;
	__u64 packets_sent;
	__u64 packets_received;
	__u64 retransmitted; /* segments of the pod's end */
	__u64 rtt; /* us, the sum of as many smoothed ones as: */
	__u64 rtts;
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("hash", struct tally_key, struct tally, tallies_sheet, 1, MAP_PIN("tallies_sheet"), BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("array_of_maps$tallies_sheet", int, int, tallies, 1, MAP_PIN("tallies"));
INLINE void *current_sheet(void)
{
	int first = 0;

	return tallies.lookup(&first);
}
#else
struct tallies_sheet_shape {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tally_key);
	__type(value, struct tally);
} tallies_sheet SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, int);
	__array(values, struct tallies_sheet_shape);
} tallies SEC(".maps");
INLINE void *current_sheet(void)
{
	int first = 0;

	return bpf_map_lookup_elem(&tallies, &first);
}
#endif

/* The line of the current sheet, made when it is not there; 0: there is no place, which was counted. */
INLINE struct tally *tally_of(struct tally_key *key)
{
	void *sheet = current_sheet();
	struct tally nothing = {};
	struct tally *line;

	if (!sheet) {
		count(COUNT_FLOW_UNCOUNTED);
		return 0;
	}
	line = bpf_map_lookup_elem(sheet, key);
	if (!line) {
		bpf_map_update_elem(sheet, key, &nothing, BPF_NOEXIST);
		line = bpf_map_lookup_elem(sheet, key);
	}
	if (!line)
		count(COUNT_FLOW_UNCOUNTED);
	return line;
}

#endif
