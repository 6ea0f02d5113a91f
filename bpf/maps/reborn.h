/* reborn: the listeners that are to have the connections of `reservations`, by four-tuple: mostly those that begin on the
 * four-tuple of one that ztunnel closed a moment ago (TIME_WAIT). The kernel must see the old one out by itself, and asks
 * pod_lookup for the listener after that. Before 6.6 also what goes to a listener that may share its port: the kernel
 * assigns to no such socket. Not where programs of tc may not put sockets into maps: listeners.
 * Writers: pod_ingress and pod_lo. Reader: pod_lookup, which deletes the entry that it used.
 * Entries: die with the listener, with their use, or with their reservation.
 * Full:    cannot be: it has twice as many places as there are reservations. */
#ifndef AMBIENT_MAPS_REBORN_H
#define AMBIENT_MAPS_REBORN_H

#include "../include/contract.h"
#include "../include/flow.h"
#include "reservations.h"

#ifndef AMBIENT_NAMED_LISTENERS

#define REBORN_MAX (2 * RESERVATION_ROWS * RESERVED_ALIKE)

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("sockhash", struct flow, __u64, reborn, REBORN_MAX, MAP_PIN("reborn"));
INLINE int put_reborn(struct flow *flow, struct bpf_sock *listener)
{
	return reborn.update(flow, (__u64 *)listener);
}
INLINE struct bpf_sock *reborn_for(struct flow *flow)
{
	return (struct bpf_sock *)reborn.lookup(flow);
}
INLINE void drop_reborn(struct flow *flow)
{
	reborn.delete(flow);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, REBORN_MAX);
	__uint(key_size, sizeof(struct flow));
	__uint(value_size, sizeof(__u64));
} reborn SEC(".maps");
INLINE int put_reborn(struct flow *flow, struct bpf_sock *listener)
{
	return bpf_map_update_elem(&reborn, flow, listener, BPF_ANY);
}
INLINE struct bpf_sock *reborn_for(struct flow *flow)
{
	return bpf_map_lookup_elem(&reborn, flow);
}
INLINE void drop_reborn(struct flow *flow)
{
	bpf_map_delete_elem(&reborn, flow);
}
#endif

INLINE int reserve_listener(struct flow *flow, struct bpf_sock *listener)
{
	struct flow former = {};

	if (reserve(flow, 0, &former))
		return -1;
	if (former.source_port)
		drop_reborn(&former);
	if (!put_reborn(flow, listener))
		return 0;
	forget_reservation(flow);
	return -1;
}

INLINE struct bpf_sock *reserved_listener(struct flow *flow, __u64 *name)
{
	(void)name;
	return reborn_for(flow);
}

INLINE void drop_reservation(struct flow *flow)
{
	drop_reborn(flow);
	forget_reservation(flow);
}

INLINE void note_listener(struct bpf_sock_ops *ctx, struct bpf_sock *socket)
{
	(void)ctx;
	(void)socket;
}

#endif

#endif
