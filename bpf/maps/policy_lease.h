/* policy_lease: until when the rows of deny that ztunnel judges after are believed.
 * Writer:  the agent, which moves it on while it knows what policy says. Readers: pod_egress, pod_ingress.
 * Entries: an array of one, ns of the monotonic clock; 0: without end (nobody has ever set one).
 * Full:    cannot be. */
#ifndef AMBIENT_MAPS_POLICY_LEASE_H
#define AMBIENT_MAPS_POLICY_LEASE_H

#include "../include/contract.h"

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("array", __u32, __u64, policy_lease, 1, MAP_PIN("policy_lease"));
INLINE __u64 policy_leased_until(void)
{
	__u32 first = 0;
	__u64 *until = policy_lease.lookup(&first);

	return until ? *until : 0;
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} policy_lease SEC(".maps");
INLINE __u64 policy_leased_until(void)
{
	__u32 first = 0;
	__u64 *until = bpf_map_lookup_elem(&policy_lease, &first);

	return until ? *until : 0;
}
#endif

#endif
