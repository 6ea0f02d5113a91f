/* The same-node kernel path: connections between two pods of this node that need no tunnel, because both ends prove who
 * they are by the namespace that they are in, and policy was asked before.
 *
 * direct_grants: which connections may; one per pod address, dialled endpoint. Writer: the agent. Reader: pod_egress.
 * direct_asks:   which were opened without a grant and might have one. Writer: pod_egress. The agent takes them out.
 * direct_lease:  until when the grants count; the agent moves it on while it knows what policy says.
 * direct_ways:   each direction of each such connection, by the four-tuple of its packets. Writers: pod_egress makes
 *                them, host_ingress adds up what passes, the agent cuts and removes them.
 * direct_made:   how many connections each pod address began on this path so far. Writer: pod_egress; the agent makes the
 *                entries. A hair more than it may is possible: one for each CPU that counts at the same moment.
 * direct_room:   up to which of these it may, so that no pod has more ways than are left for the others. Writer: the
 *                agent, each time it has read the ways. Without an entry in both: none.
 * direct_sockets: whose connection goes directly. What such a socket sends with no way left is dropped.
 *                Writer and reader: pod_egress. They die with the socket.
 * Entries: a grant until policy, pods or services change; a way until the agent has told its end.
 * Full:    what has no grant, no room (COUNT_BEYOND_SHARE_DIRECT) or finds no place for its ways takes the tunnel; asks
 *          are LRU. */
#ifndef AMBIENT_MAPS_DIRECT_H
#define AMBIENT_MAPS_DIRECT_H

#include "../include/contract.h"
#include "../include/flow.h"

struct direct_call {
	struct address source;
	struct address destination; /* as dialled */
	__u32 port;                 /* as dialled, host order */
};

struct direct_grant {
	struct address server; /* the pod's own address that answers */
	__u32 port;            /* host order */
	__u32 epoch;           /* the agent's, for its own plan */
};

enum way_flag {
	WAY_CLIENT = 1,  /* the direction of who has connected */
	WAY_OPENING = 2, /* nothing but opening packets so far */
	WAY_ENDED = 4,   /* a FIN has passed */
	WAY_RESET = 8,   /* a reset has passed */
	WAY_CUT = 16,    /* what still comes is dropped */
	WAY_OVER = 32,   /* replaced by a newer connection of this four-tuple that takes the tunnel */
};

struct direct_way {
	__u64 opened; /* ns, monotonic, both */
	__u64 seen;
	__u64 octets; /* of the application, each counted once */
	__u64 packets;
	__u64 cookie; /* of the socket that sends on it; 0 until one has (an opening packet's answer has none) */
	struct flow reverse; /* the key of the other direction */
	__u32 from_ifindex;  /* the node's ends of the veths that packets come from and go to */
	__u32 to_ifindex;
	__u32 next; /* the sequence number after what was counted */
	enum way_flag flags;
	__u32 unused;
};

#define DIRECT_GRANTS_MAX 16384
#define DIRECT_ASKS_MAX 1024
#define DIRECT_WAYS_MAX 131072
#define DIRECT_CLIENTS_MAX 16384

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED7("hash", struct direct_call, struct direct_grant, direct_grants, DIRECT_GRANTS_MAX,
		  MAP_PIN("direct_grants"), BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("lru_hash", struct direct_call, __u64, direct_asks, DIRECT_ASKS_MAX, MAP_PIN("direct_asks"));
BPF_TABLE_PINNED("array", __u32, __u64, direct_lease, 1, MAP_PIN("direct_lease"));
BPF_TABLE_PINNED7("hash", struct flow, struct direct_way, direct_ways, DIRECT_WAYS_MAX, MAP_PIN("direct_ways"),
		  BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED7("hash", struct address, __u64, direct_made, DIRECT_CLIENTS_MAX, MAP_PIN("direct_made"),
		  BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED7("hash", struct address, __u64, direct_room, DIRECT_CLIENTS_MAX, MAP_PIN("direct_room"),
		  BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED7("sk_storage", int, __u32, direct_sockets, 0, MAP_PIN("direct_sockets"), BPF_F_NO_PREALLOC);
INLINE int is_direct_socket(struct bpf_sock *socket)
{
	return !!direct_sockets.sk_storage_get(socket, 0, 0);
}
INLINE int make_direct_socket(struct bpf_sock *socket)
{
	return !!direct_sockets.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
INLINE void forget_direct_socket(struct bpf_sock *socket)
{
	direct_sockets.sk_storage_delete(socket);
}
INLINE struct direct_grant *grant_of(struct direct_call *call)
{
	return direct_grants.lookup(call);
}
INLINE void ask_for(struct direct_call *call, __u64 now)
{
	direct_asks.update(call, &now);
}
INLINE __u64 leased_until(void)
{
	__u32 first = 0;
	__u64 *until = direct_lease.lookup(&first);

	return until ? *until : 0;
}
INLINE struct direct_way *way_of(struct flow *flow)
{
	return direct_ways.lookup(flow);
}
INLINE int make_way(struct flow *flow, struct direct_way *way)
{
	return direct_ways.insert(flow, way);
}
INLINE void drop_way(struct flow *flow)
{
	direct_ways.delete(flow);
}
INLINE __u64 *made_by(struct address *client)
{
	return direct_made.lookup(client);
}
INLINE __u64 *room_of(struct address *client)
{
	return direct_room.lookup(client);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DIRECT_GRANTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct direct_call);
	__type(value, struct direct_grant);
} direct_grants SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DIRECT_ASKS_MAX);
	__type(key, struct direct_call);
	__type(value, __u64);
} direct_asks SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} direct_lease SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DIRECT_WAYS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct direct_way);
} direct_ways SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DIRECT_CLIENTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u64);
} direct_made SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DIRECT_CLIENTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u64);
} direct_room SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} direct_sockets SEC(".maps");
INLINE int is_direct_socket(struct bpf_sock *socket)
{
	return !!bpf_sk_storage_get(&direct_sockets, socket, 0, 0);
}
INLINE int make_direct_socket(struct bpf_sock *socket)
{
	return !!bpf_sk_storage_get(&direct_sockets, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
}
INLINE void forget_direct_socket(struct bpf_sock *socket)
{
	bpf_sk_storage_delete(&direct_sockets, socket);
}
INLINE struct direct_grant *grant_of(struct direct_call *call)
{
	return bpf_map_lookup_elem(&direct_grants, call);
}
INLINE void ask_for(struct direct_call *call, __u64 now)
{
	bpf_map_update_elem(&direct_asks, call, &now, BPF_ANY);
}
INLINE __u64 leased_until(void)
{
	__u32 first = 0;
	__u64 *until = bpf_map_lookup_elem(&direct_lease, &first);

	return until ? *until : 0;
}
INLINE struct direct_way *way_of(struct flow *flow)
{
	return bpf_map_lookup_elem(&direct_ways, flow);
}
INLINE int make_way(struct flow *flow, struct direct_way *way)
{
	return bpf_map_update_elem(&direct_ways, flow, way, BPF_NOEXIST);
}
INLINE void drop_way(struct flow *flow)
{
	bpf_map_delete_elem(&direct_ways, flow);
}
INLINE __u64 *made_by(struct address *client)
{
	return bpf_map_lookup_elem(&direct_made, client);
}
INLINE __u64 *room_of(struct address *client)
{
	return bpf_map_lookup_elem(&direct_room, client);
}
#endif

#endif
