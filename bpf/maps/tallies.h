/* tallies: what all flows of the node's pods come to, by who talks to whom on which port, how, and how it ended. A sheet
 * is written until the agent takes it away and leaves a clean one in its place; when that is done no program writes the
 * old one any more, so that reading it loses nothing. tallies_sheet is the shape of a sheet.
 * Writers: socket_flows, pod_egress, pod_ingress. The agent exchanges.
 * Entries: of a sheet, until the agent takes it away. Lines of protocol 0, which no flow has, keep account of them: that
 *          of nobody (all zero; the agent puts it) of how many were begun (`flows`) and may be (`bytes_sent`), that of a
 *          pod's address of how many were begun for it. No pod has more lines than are left for the others.
 * Full:    what is beyond a pod's share is added up without its other end and port (COUNT_BEYOND_SHARE_FLOWS). What
 *          finds no place at all is counted (COUNT_FLOW_UNCOUNTED) and missing in the totals. */
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

/* What is there already, or made; 0: no place. */
INLINE struct tally *line_of(void *sheet, struct tally_key *key)
{
	struct tally *line = bpf_map_lookup_elem(sheet, key);
	struct tally nothing = {};

	if (line)
		return line;
	bpf_map_update_elem(sheet, key, &nothing, BPF_NOEXIST);
	return bpf_map_lookup_elem(sheet, key);
}

/* May one more line be begun for the pod whose flow it is? Then it is counted. */
INLINE int takes_share(void *sheet, struct tally_key *key)
{
	struct tally_key account = {};
	struct tally *all = bpf_map_lookup_elem(sheet, &account);
	struct tally *own;

	if (!all)
		return 1; /* an agent before this version laid it */
	if (key->arriving)
		account.source = key->destination;
	else
		account.source = key->source;
	own = line_of(sheet, &account);
	if (!own || all->flows + own->flows >= all->bytes_sent)
		return 0;
	__sync_fetch_and_add(&all->flows, 1);
	__sync_fetch_and_add(&own->flows, 1);
	return 1;
}

/* Only the pod itself, the protocol, the path and the end stay. */
INLINE void fold(struct tally_key *key)
{
	struct address nobody = {};

	if (key->arriving)
		key->source = nobody;
	else
		key->destination = nobody;
	key->port = 0;
}

/* The line of the current sheet, made when it is not there; 0: there is no place, which was counted. Beyond the pod's
 * share it is the line that its others are added up in, and `key` that line's. */
INLINE struct tally *tally_of(struct tally_key *key)
{
	void *sheet = current_sheet();
	struct tally *line;

	if (!sheet) {
		count(COUNT_FLOW_UNCOUNTED);
		return 0;
	}
	line = bpf_map_lookup_elem(sheet, key);
	if (line)
		return line;
	if (!takes_share(sheet, key)) {
		count(COUNT_BEYOND_SHARE_FLOWS);
		fold(key);
	}
	line = line_of(sheet, key);
	if (!line)
		count(COUNT_FLOW_UNCOUNTED);
	return line;
}

#endif
