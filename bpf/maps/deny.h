/* deny: what policy is known to refuse, for each address of each captured pod; deny_rows is the shape of its inner maps.
 * Writer:  the agent, which fills an inner map and only then puts it here: a pod's rows change all at once.
 * Readers: pod_egress (DENY_OUT: the peer is the destination), pod_ingress (DENY_IN: the peer is the source), host_egress
 *          (UDP and ICMP).
 * Entries: per pod address and side; those of UDP and ICMP also under the number of the node's end of the pod's veth, as
 *          an address, for what comes to one without a row. An inner map is a trie over port and peer. A row of one port,
 *          or else that of all ports that no row names, is read together with that of any port: DENY_ANY_PORT answers for
 *          the peer at all, and without it nothing is known. DENY_TUNNEL is what holds for every identity and every port
 *          behind 15008.
 * Missing: nothing is refused here; ztunnel judges. Nothing is ever allowed here.
 * Full:    the agent's update fails, the rows that were there stay, it says so and tries again. */
#ifndef AMBIENT_MAPS_DENY_H
#define AMBIENT_MAPS_DENY_H

#include "../include/contract.h"

enum deny_side {
	DENY_OUT = 0,
	DENY_IN = 1,
	DENY_SHADOW_OUT = 2, /* dry-run policies: counted, never enforced */
	DENY_SHADOW_IN = 3,
	DENY_UDP_IN = 4, /* from whom nothing but the address is known */
	DENY_UDP_PROVEN = 5, /* from pods of this node, seen coming from their own interface */
	DENY_ICMP_IN = 6,
	DENY_ICMP_PROVEN = 7,
};

enum deny_port {
	DENY_OTHER_PORT = 0x10000,
	DENY_ANY_PORT = 0x10001,
	DENY_TUNNEL = 0x10002,
};

enum deny_bit {
	DENY_BIT_REFUSES = 1,     /* a DENY matches */
	DENY_BIT_ALLOWS = 2,      /* an ALLOW matches, or may */
	DENY_BIT_NEEDS_ALLOW = 4, /* there are ALLOWs, so that one of them must match */
};

struct deny_table {
	struct address pod;
	enum deny_side side;
};

struct deny_key {
	__u32 prefix; /* bits of what follows: 32 and the length of the peer's block */
	__u32 port;   /* host order, or enum deny_port */
	struct address peer;
};

struct deny_row {
	enum deny_bit bits;
	__u32 rule;      /* whose doing it is, by the agent's number; of a shadow: the set of DENYs that match */
	__u32 allows;    /* of a shadow: the set of ALLOWs that match */
	__u32 unmatched; /* of a shadow: the set to count when no ALLOW matches and none is enforced */
};

#define DENY_FULL_PREFIX 160

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("lpm_trie", struct deny_key, struct deny_row, deny_rows, 1, MAP_PIN("deny_rows"), BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("hash_of_maps$deny_rows", struct deny_table, int, deny, 65536, MAP_PIN("deny"));
INLINE void *deny_rows_of(struct deny_table *key)
{
	return deny.lookup(key);
}
#else
struct deny_trie {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct deny_key);
	__type(value, struct deny_row);
} deny_rows SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 65536);
	__type(key, struct deny_table);
	__array(values, struct deny_trie);
} deny SEC(".maps");
INLINE void *deny_rows_of(struct deny_table *key)
{
	return bpf_map_lookup_elem(&deny, key);
}
#endif

INLINE struct deny_row *deny_row_of(void *rows, __u32 port, struct address *peer)
{
	struct deny_key key = {};

	key.prefix = DENY_FULL_PREFIX;
	key.port = port;
	key.peer = *peer;
	return bpf_map_lookup_elem(rows, &key);
}

#endif
