/* The listeners that `reservations` name, where programs of tc may put sockets into maps (else: listeners.h). What is given
 * so are mostly connections that begin on the four-tuple of one that ztunnel closed a moment ago (TIME_WAIT): the kernel
 * must see the old one out by itself, and asks pod_lookup for the listener after that. Before 6.6 also what goes to a
 * socket that may share its port: the kernel assigns to no such socket.
 *
 * reborn:       name -> ztunnel's socket. Writers: pod_ingress and pod_lo, when they name it and it is not there.
 *               Readers: the same, pod_lookup.
 * reborn_names: in the socket: its name, a random number. Writers and readers: pod_ingress and pod_lo.
 * Entries: die with the socket. Two CPUs that name it at once may leave it two, both of them good.
 * Full:    that opening packet is refused, its sender repeats it. */
#ifndef AMBIENT_MAPS_REBORN_H
#define AMBIENT_MAPS_REBORN_H

#include "../include/contract.h"

#ifndef AMBIENT_NAMED_LISTENERS

#define REBORN_MAX 65536

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("sockhash", __u64, __u64, reborn, REBORN_MAX, MAP_PIN("reborn"));
BPF_TABLE_PINNED7("sk_storage", int, __u64, reborn_names, 0, MAP_PIN("reborn_names"), BPF_F_NO_PREALLOC);
INLINE int put_reborn(__u64 *name, struct bpf_sock *listener)
{
	return reborn.update(name, (__u64 *)listener);
}
INLINE struct bpf_sock *listener_called(__u64 *name)
{
	return (struct bpf_sock *)reborn.lookup(name);
}
INLINE __u64 *reborn_name(struct bpf_sock *listener)
{
	return reborn_names.sk_storage_get(listener, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, REBORN_MAX);
	__uint(key_size, sizeof(__u64));
	__uint(value_size, sizeof(__u64));
} reborn SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} reborn_names SEC(".maps");
INLINE int put_reborn(__u64 *name, struct bpf_sock *listener)
{
	return bpf_map_update_elem(&reborn, name, listener, BPF_ANY);
}
INLINE struct bpf_sock *listener_called(__u64 *name)
{
	return bpf_map_lookup_elem(&reborn, name);
}
INLINE __u64 *reborn_name(struct bpf_sock *listener)
{
	return bpf_sk_storage_get(&reborn_names, listener, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
#endif

/* The name under which it is found; 0: it has none. */
INLINE __u64 name_of(struct bpf_sock *listener)
{
	__u64 *kept = reborn_name(listener);
	struct bpf_sock *found;
	__u64 name;

	if (!kept)
		return 0;
	if (!*kept)
		*kept = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();
	name = *kept;
	found = listener_called(&name);
	if (!found)
		return put_reborn(&name, listener) ? 0 : name;
	bpf_sk_release(found);
	return name;
}

INLINE void note_listener(struct bpf_sock_ops *ctx, struct bpf_sock *socket)
{
	(void)ctx;
	(void)socket;
}

#endif

#endif
