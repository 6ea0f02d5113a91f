/* probes: connection attempts of the kubelet that are on their way from the host end of a veth to the pod's end.
 * Writer:  host_egress. Reader: pod_ingress, which deletes the entry with the one SYN that it lets pass.
 * Entries: live for the way through the veth (microseconds); one older than PROBE_LIFETIME is ignored.
 * Full:    LRU; a probe that loses its entry is captured once and passes with its retransmitted SYN. */
#ifndef AMBIENT_MAPS_PROBES_H
#define AMBIENT_MAPS_PROBES_H

#include "../include/contract.h"
#include "../include/flow.h"

#define PROBE_LIFETIME 1000000000ULL /* ns */

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("lru_hash", struct flow, __u64, probes, 4096, MAP_PIN("probes"));
INLINE void announce_probe(struct flow *flow)
{
	__u64 now = bpf_ktime_get_ns();

	probes.update(flow, &now);
}
INLINE int take_probe(struct flow *flow)
{
	__u64 *sent = probes.lookup(flow);
	__u64 then;

	if (!sent)
		return 0;
	then = *sent;
	probes.delete(flow);
	return bpf_ktime_get_ns() - then < PROBE_LIFETIME;
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct flow);
	__type(value, __u64);
} probes SEC(".maps");
INLINE void announce_probe(struct flow *flow)
{
	__u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&probes, flow, &now, BPF_ANY);
}
INLINE int take_probe(struct flow *flow)
{
	__u64 *sent = bpf_map_lookup_elem(&probes, flow);
	__u64 then;

	if (!sent)
		return 0;
	then = *sent;
	bpf_map_delete_elem(&probes, flow);
	return bpf_ktime_get_ns() - then < PROBE_LIFETIME;
}
#endif

#endif
