/* shadow: how often each set of dry-run policies matched a new connection that the kernel could judge, and how often each
 * reason refused one, or a datagram.
 * Writers: pod_egress, pod_ingress and host_egress add to what is there; the agent makes and deletes the entries.
 * Entries: per set, by the agent's number (0 is the empty set and never here).
 * Full:    the agent leaves the pod without shadow rows and says so. */
#ifndef AMBIENT_MAPS_SHADOW_H
#define AMBIENT_MAPS_SHADOW_H

#include "../include/contract.h"

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("percpu_hash", __u32, __u64, shadow, 65536, MAP_PIN("shadow"), BPF_F_NO_PREALLOC);
INLINE void count_set(__u32 set)
{
	__u64 *slot = set ? shadow.lookup(&set) : 0;

	if (slot)
		*slot += 1;
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} shadow SEC(".maps");
INLINE void count_set(__u32 set)
{
	__u64 *slot = set ? bpf_map_lookup_elem(&shadow, &set) : 0;

	if (slot)
		*slot += 1;
}
#endif

#endif
