/* looped: which sockets of the pod's processes talk to ztunnel instead of the network. What such a socket sends never
 * leaves the pod, not even when ztunnel's end is gone: it would be plain text on the wire.
 * Writer: pod_egress. Readers: pod_egress, host_ingress, socket_flows.
 * Entries: live in the socket and die with it.
 * Full:    cannot be; without memory for an entry the socket table alone decides. */
#ifndef AMBIENT_MAPS_LOOPED_H
#define AMBIENT_MAPS_LOOPED_H

#include "../include/contract.h"

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("sk_storage", int, __u32, looped, 0, MAP_PIN("looped"), BPF_F_NO_PREALLOC);
#else
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} looped SEC(".maps");
#endif

/* The connected socket that sends a packet. Not the kernel's own sockets, one per CPU, from which it sends resets for
 * everybody (they are raw ones). */
INLINE struct bpf_sock *sending_stream(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;

	if (!socket)
		return 0;
	socket = bpf_sk_fullsock(socket);
	return socket && socket->type == SOCKET_TYPE_STREAM ? socket : 0;
}

INLINE int is_looped_socket(struct bpf_sock *socket)
{
#ifdef AMBIENT_BCC
	return !!looped.sk_storage_get(socket, 0, 0);
#else
	return !!bpf_sk_storage_get(&looped, socket, 0, 0);
#endif
}

INLINE int is_looped(struct __sk_buff *skb)
{
	struct bpf_sock *socket = sending_stream(skb);

	return socket && is_looped_socket(socket);
}

INLINE void remember_looped(struct __sk_buff *skb)
{
	struct bpf_sock *socket = sending_stream(skb);

	if (!socket)
		return;
#ifdef AMBIENT_BCC
	looped.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
#else
	bpf_sk_storage_get(&looped, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
#endif
}

INLINE void forget_looped(struct __sk_buff *skb)
{
	struct bpf_sock *socket = sending_stream(skb);

	if (!socket)
		return;
#ifdef AMBIENT_BCC
	looped.sk_storage_delete(socket);
#else
	bpf_sk_storage_delete(&looped, socket);
#endif
}

#endif
