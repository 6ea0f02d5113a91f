/* reborn: connections that begin on the four-tuple of one that ztunnel closed a moment ago (TIME_WAIT), and the listener
 * that is to have them. The kernel must see the old one out by itself, and asks pod_lookup for the listener after that.
 * Before 6.6 also what goes to a listener that may share its port: the kernel assigns to no such socket.
 * Writers: pod_ingress and pod_lo. Reader: pod_lookup, which deletes the entry that it used.
 * Entries: die with the listener, with their use, or with the next opening packet of that four-tuple.
 * Full:    the opening packet goes to the listener directly, which the kernel refuses while the old one lasts; it is
 *          repeated by its sender and the connection is late, not lost. */
#ifndef AMBIENT_MAPS_REBORN_H
#define AMBIENT_MAPS_REBORN_H

#include "../include/contract.h"
#include "../include/flow.h"

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("sockhash", struct flow, __u64, reborn, 4096, MAP_PIN("reborn"));
INLINE int reserve_listener(struct flow *flow, struct bpf_sock *listener)
{
	return reborn.update(flow, (__u64 *)listener);
}
INLINE struct bpf_sock *reserved_listener(struct flow *flow)
{
	return (struct bpf_sock *)reborn.lookup(flow);
}
INLINE void drop_reservation(struct flow *flow)
{
	reborn.delete(flow);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4096);
	__uint(key_size, sizeof(struct flow));
	__uint(value_size, sizeof(__u64));
} reborn SEC(".maps");
INLINE int reserve_listener(struct flow *flow, struct bpf_sock *listener)
{
	return bpf_map_update_elem(&reborn, flow, listener, BPF_ANY);
}
INLINE struct bpf_sock *reserved_listener(struct flow *flow)
{
	return bpf_map_lookup_elem(&reborn, flow);
}
INLINE void drop_reservation(struct flow *flow)
{
	bpf_map_delete_elem(&reborn, flow);
}
#endif

#endif
