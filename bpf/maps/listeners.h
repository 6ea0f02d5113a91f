/* In place of reborn where programs of tc may not put sockets into maps (Linux 7.3): a reservation has the name of the
 * listener, by which pod_lookup finds it among those that socket_flows has put there when they began to listen.
 *
 * listeners:      name -> ztunnel's listener. Writer: socket_flows. Reader: pod_lookup.
 * listener_names: in the listener: its name, which is its socket cookie. Writer: socket_flows. Readers: pod_ingress, pod_lo.
 * Entries: die with the listener.
 * Full:    a listener without a name (it listened before socket_flows was attached, or there was no place) cannot be told
 *          to pod_lookup: that opening packet goes to it directly, which the kernel refuses while the old connection
 *          lasts; its sender repeats it, and the connection is late, not lost. Counted when there was no place
 *          (COUNT_LISTENER_UNNAMED). A name without its listener gives that opening packet to nobody. */
#ifndef AMBIENT_MAPS_LISTENERS_H
#define AMBIENT_MAPS_LISTENERS_H

#include "../include/contract.h"
#include "counters.h"

#ifdef AMBIENT_NAMED_LISTENERS

#define LISTENERS_MAX 65536

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("sk_storage", int, __u64, listener_names, 0, MAP_PIN("listener_names"), BPF_F_NO_PREALLOC);
/* As bcc's own macros make one, which give either a look-up or an update by a program of sockets. */
struct listeners_table_t {
	__u64 key;
	__u64 leaf;
	__u64 *(*lookup)(__u64 *);
	int (*sock_hash_update)(void *, void *, __u64);
	__u32 max_entries;
	int flags;
};
__attribute__((section("maps/sockhash:" MAP_PIN("listeners")))) struct listeners_table_t listeners = {
	.max_entries = LISTENERS_MAX,
};
INLINE __u64 *kept_name(struct bpf_sock *listener)
{
	return listener_names.sk_storage_get(listener, 0, 0);
}
INLINE __u64 *new_name(struct bpf_sock *listener)
{
	return listener_names.sk_storage_get(listener, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
INLINE int put_listener(struct bpf_sock_ops *ctx, __u64 *name)
{
	return listeners.sock_hash_update(ctx, name, BPF_ANY);
}
INLINE struct bpf_sock *listener_called(__u64 *name)
{
	return (struct bpf_sock *)listeners.lookup(name);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} listener_names SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, LISTENERS_MAX);
	__uint(key_size, sizeof(__u64));
	__uint(value_size, sizeof(__u64));
} listeners SEC(".maps");
INLINE __u64 *kept_name(struct bpf_sock *listener)
{
	return bpf_sk_storage_get(&listener_names, listener, 0, 0);
}
INLINE __u64 *new_name(struct bpf_sock *listener)
{
	return bpf_sk_storage_get(&listener_names, listener, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
INLINE int put_listener(struct bpf_sock_ops *ctx, __u64 *name)
{
	return bpf_sock_hash_update(ctx, &listeners, name, BPF_ANY);
}
INLINE struct bpf_sock *listener_called(__u64 *name)
{
	return bpf_map_lookup_elem(&listeners, name);
}
#endif

/* The name under which it is found; 0: it has none. */
INLINE __u64 name_of(struct bpf_sock *listener)
{
	__u64 *kept = kept_name(listener);

	return kept ? *kept : 0;
}

INLINE int is_port_of_ztunnel(__u32 port)
{
	return port == OUTBOUND_PORT || port == PLAINTEXT_PORT || port == HBONE_PORT || port == DNS_PORT;
}

/* Somebody has begun to listen. Only what `find_listener` would take for ztunnel's is ever looked for here. */
INLINE void note_listener(struct bpf_sock_ops *ctx, struct bpf_sock *socket)
{
	__u64 *name = 0, cookie = bpf_get_socket_cookie(ctx);

	if (socket->mark != PROXY_MARK || !is_port_of_ztunnel(ctx->local_port))
		return;
	if (!put_listener(ctx, &cookie))
		name = new_name(socket);
	if (name)
		*name = cookie;
	else
		count(COUNT_LISTENER_UNNAMED);
}

#endif

#endif
