/* owners: which cgroups (v2 ids) hold a role that a packet mark alone must not give.
 * Writer:  the agent only. Readers: pod_egress (ztunnel), host_ingress (ztunnel), host_egress (kubelet).
 * Entries: live until the agent deletes them; ids are never used again before the next boot.
 * Full:    the agent's update fails; a ztunnel that is not in here is treated as an application. */
#ifndef AMBIENT_MAPS_OWNERS_H
#define AMBIENT_MAPS_OWNERS_H

#include "../include/contract.h"

enum owner_role {
	OWNER_ZTUNNEL = 1, /* may leave the pod with PROXY_MARK */
	OWNER_KUBELET = 2, /* its connections to a pod are probes */
	OWNER_FORMER_ZTUNNEL = 4, /* nobody is left in it; what comes out of a listener that was made there is ztunnel's */
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("hash", __u64, enum owner_role, owners, 1024, MAP_PIN("owners"));
INLINE __u32 roles_of(__u64 cgroup)
{
	enum owner_role *roles = owners.lookup(&cgroup);

	return roles ? *roles : 0;
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, enum owner_role);
} owners SEC(".maps");
INLINE __u32 roles_of(__u64 cgroup)
{
	enum owner_role *roles = bpf_map_lookup_elem(&owners, &cgroup);

	return roles ? *roles : 0;
}
#endif

#endif
