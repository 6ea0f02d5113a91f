/* pods: what to do with the traffic of each address of each pod that has our programs.
 * Writer:  the agent only. Readers: all programs.
 * Entries: one per pod address, put before the programs are attached and deleted after they are detached. An attached
 *          pod's new connections from or to an address without a row are refused: nothing may hide behind an address
 *          that the agent does not know.
 * Full:    the agent's update fails, the pod stays un-enrolled and says so; nobody else's row is evicted. */
#ifndef AMBIENT_MAPS_PODS_H
#define AMBIENT_MAPS_PODS_H

#include "../include/contract.h"

enum pod_flag {
	POD_CAPTURE_OUT = 1, /* new TCP connections of the pod go to ztunnel's 15001 */
	POD_CAPTURE_IN = 2,  /* new TCP connections to the pod go to ztunnel's 15006 */
	POD_HBONE_IN = 4,    /* those to port 15008 go to ztunnel's 15008, also while the pod is released */
	POD_DNS = 8,         /* name queries go to ztunnel's 15053 while it listens */
	POD_DIRECT = 16,     /* connections with pods of this node may take the kernel path */
};

enum fail_mode {
	FAIL_CLOSED = 0, /* no listener: new connections are refused */
	FAIL_OPEN = 1,   /* no listener: new connections go direct */
};

struct pod_row {
	enum pod_flag flags;
	enum fail_mode fail_in;
	enum fail_mode fail_out;
	__u32 host_ifindex; /* the node's end of the pod's veth; 0 = the source address is not checked there */
	__u32 epoch;        /* the agent's generation, for its own plan */
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("hash", struct address, struct pod_row, pods, 16384, MAP_PIN("pods"));
INLINE struct pod_row *pod_of(struct address *key)
{
	return pods.lookup(key);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address);
	__type(value, struct pod_row);
} pods SEC(".maps");
INLINE struct pod_row *pod_of(struct address *key)
{
	return bpf_map_lookup_elem(&pods, key);
}
#endif

#endif
