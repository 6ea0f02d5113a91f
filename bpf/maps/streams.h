/* streams: what is known of a pod's TCP socket while it lives: when it began, and how much of it was added to the
 * tallies already.
 * Writers: socket_flows; pod_egress, pod_ingress and pod_lo note why it will end. Reader: socket_flows.
 * Entries: live in the socket and die with it.
 * Full:    cannot be; a socket for which there is no memory is counted (COUNT_FLOW_UNCOUNTED). */
#ifndef AMBIENT_MAPS_STREAMS_H
#define AMBIENT_MAPS_STREAMS_H

#include "../include/contract.h"
#include "../include/flow.h"
#include "tallies.h"

#define TOLD_BY_THE_AGENT 0x80 /* on the kernel path: the agent tells of it singly */

struct stream {
	__u64 opened; /* CLOCK_MONOTONIC, ns */
	__u64 tallied; /* when, likewise */
	__u64 sent;    /* tallied of what the socket counts, and the same below */
	__u64 received;
	__u32 packets_sent;
	__u32 packets_received;
	__u32 retransmitted;
	__u8 arriving;
	__u8 established;
	__u8 path; /* enum flow_path, and TOLD_BY_THE_AGENT */
	__u8 cause; /* enum flow_end: what the programs saw that will end it; 0: nothing */
	__u8 fin_received;
	__u8 fin_sent; /* and acknowledged */
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("sk_storage", int, struct stream, streams, 0, MAP_PIN("streams"), BPF_F_NO_PREALLOC);
INLINE struct stream *stream_of(struct bpf_sock *socket)
{
	return streams.sk_storage_get(socket, 0, 0);
}
INLINE struct stream *new_stream(struct bpf_sock *socket)
{
	return streams.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct stream);
} streams SEC(".maps");
INLINE struct stream *stream_of(struct bpf_sock *socket)
{
	return bpf_sk_storage_get(&streams, socket, 0, 0);
}
INLINE struct stream *new_stream(struct bpf_sock *socket)
{
	return bpf_sk_storage_get(&streams, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
#endif

/* The first cause is the true one: what follows is its consequence. */
INLINE void note_cause(struct bpf_sock *socket, enum flow_end cause)
{
	struct stream *stream = stream_of(socket);

	if (stream && !stream->cause)
		stream->cause = cause;
}

#endif
