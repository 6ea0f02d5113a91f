/* clear: connections of captured pods that may go in clear text past ztunnel; clear_sockets: the same, once their socket
 * has been seen. They are what the kubelet probes, what is older than the enrolment or began while the pod was not
 * captured (or its row said open). Whatever else carries data in the clear is counted, told, and dropped where the node
 * is set so.
 * Writers: pod_ingress and pod_egress; the agent puts what is older than the enrolment. Readers: the same programs, and
 *          socket_flows.
 * Entries: of clear, until the first data of its connection leaves; those of clear_sockets live in the socket.
 * Full:    clear is LRU: a connection that loses its entry before it has sent anything raises a false alarm. */
#ifndef AMBIENT_MAPS_CLEAR_H
#define AMBIENT_MAPS_CLEAR_H

#include "../include/contract.h"
#include "../include/flow.h"

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("lru_hash", struct flow, __u64, clear, 65536, MAP_PIN("clear"));
BPF_TABLE_PINNED7("sk_storage", int, __u32, clear_sockets, 0, MAP_PIN("clear_sockets"), BPF_F_NO_PREALLOC);
INLINE void admit_clear(struct flow *flow)
{
	__u64 now = bpf_ktime_get_ns();

	clear.update(flow, &now);
}
INLINE int is_admitted(struct flow *flow)
{
	return !!clear.lookup(flow);
}
INLINE void forget_clear(struct flow *flow)
{
	clear.delete(flow);
}
INLINE int is_clear_socket(struct bpf_sock *socket)
{
	return !!clear_sockets.sk_storage_get(socket, 0, 0);
}
INLINE int make_clear_socket(struct bpf_sock *socket)
{
	return !!clear_sockets.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u64);
} clear SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} clear_sockets SEC(".maps");
INLINE void admit_clear(struct flow *flow)
{
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&clear, flow, &now, BPF_ANY);
}
INLINE int is_admitted(struct flow *flow)
{
	return !!bpf_map_lookup_elem(&clear, flow);
}
INLINE void forget_clear(struct flow *flow)
{
	bpf_map_delete_elem(&clear, flow);
}
INLINE int is_clear_socket(struct bpf_sock *socket)
{
	return !!bpf_sk_storage_get(&clear_sockets, socket, 0, 0);
}
INLINE int make_clear_socket(struct bpf_sock *socket)
{
	return !!bpf_sk_storage_get(&clear_sockets, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
#endif

#endif
