/* The same-node kernel path. A connection that the agent has granted leaves its pod as it is, TCP from application to
 * application: host_ingress carries each packet from the one veth to the inside of the other pod, past the node's stack.
 *
 * pod_egress admits (and nobody else makes ways), host_ingress checks the veth that a packet comes from and marks it,
 * pod_ingress believes the mark: packets lose it between namespaces in every other way. Nothing here ever allows what has
 * no grant; whatever is in doubt takes the tunnel. */
#ifndef AMBIENT_DIRECT_H
#define AMBIENT_DIRECT_H

#include "contract.h"
#include "packet.h"
#include "sockets.h"
#include "../maps/config.h"
#include "../maps/direct.h"
#include "../maps/looped.h"
#include "../maps/pods.h"

#define WAY_IS_SHUT (WAY_CUT | WAY_OVER)

struct tcp_lead {
	__u32 ports;
	__u32 sequence;
	__u32 acknowledged;
	__u8 length; /* in the upper half, words */
	__u8 flags;
};

#define TCP_FLAG_FIN 0x01

INLINE void turn_round(struct flow *flow, struct flow *reverse)
{
	reverse->source = flow->destination;
	reverse->destination = flow->source;
	reverse->source_port = flow->destination_port;
	reverse->destination_port = flow->source_port;
}

/* Both directions, or none. */
INLINE int make_ways(struct __sk_buff *skb, struct flow *flow, struct pod_row *client, struct pod_row *server, __u64 now)
{
	struct direct_way way = {};
	struct flow reverse = {};

	turn_round(flow, &reverse);
	way.opened = way.seen = now;
	way.reverse = reverse;
	way.from_ifindex = client->host_ifindex;
	way.to_ifindex = server->host_ifindex;
	way.flags = WAY_CLIENT | WAY_OPENING;
	way.cookie = sending_stream(skb) ? bpf_get_socket_cookie(skb) : 0;
	if (make_way(flow, &way))
		return 0;
	way.reverse = *flow;
	way.from_ifindex = server->host_ifindex;
	way.to_ifindex = client->host_ifindex;
	way.flags = WAY_OPENING;
	way.cookie = 0;
	if (!make_way(&reverse, &way))
		return 1;
	drop_way(flow);
	return 0;
}

/* Ways for one more connection of this client, if that is within its share. */
INLINE int begin_directly(struct __sk_buff *skb, struct flow *flow, struct pod_row *client, struct pod_row *server,
			  __u64 now)
{
	__u64 *made = made_by(&flow->source), *room = room_of(&flow->source);

	if (!made || !room || *made >= *room) {
		count(COUNT_BEYOND_SHARE_DIRECT);
		return 0;
	}
	if (!make_ways(skb, flow, client, server, now))
		return 0;
	__sync_fetch_and_add(made, 1);
	return 1;
}

/* May this opening packet go directly? `row`: of the pod that sends it. */
INLINE int opens_directly(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	struct direct_call call = {};
	struct direct_grant *grant;
	struct pod_row *server;
	struct direct_way *way;
	struct flow flow = {};
	__u64 now;

	if (!row->host_ifindex)
		return 0;
	now = bpf_ktime_get_ns();
	call.source = packet->source;
	call.destination = packet->destination;
	call.port = bpf_ntohs(packet->destination_port);
	flow_of(packet, &flow);
	way = way_of(&flow);
	grant = grant_of(&call);
	if (way) {
		if (grant && (way->flags & WAY_OPENING) && !(way->flags & (WAY_IS_SHUT | WAY_RESET | WAY_ENDED)))
			return 1; /* repeated */
		if (way->flags & (WAY_OPENING | WAY_RESET)) /* not a living one: who can write packets can say any source */
			way->flags |= WAY_OVER;
		return 0;
	}
	if (!grant) {
		ask_for(&call, now);
		return 0;
	}
	if (now >= leased_until())
		return 0;
	server = pod_of(&grant->server);
	if (!server || !server->host_ifindex || !(server->flags & POD_DIRECT) || !(server->flags & POD_CAPTURE_IN))
		return 0;
	return begin_directly(skb, &flow, row, server, now);
}

/* What this socket opens from now on takes another way. */
INLINE void forget_direct(struct __sk_buff *skb)
{
	struct bpf_sock *socket = sending_stream(skb);

	if (socket)
		forget_direct_socket(socket);
}

enum directness {
	NOT_DIRECT,
	DIRECT,
	DIRECT_WITHOUT_WAY, /* its way is gone and the socket lives on: it is to send nothing more */
};

/* What is this packet, which opens nothing? A four-tuple can be ztunnel's as well, which speaks as the client does: then
 * the other end is a socket of this namespace, and the way is an older connection's or another one's. */
INLINE enum directness directness_of(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock *socket = sending_stream(skb);
	struct direct_way *way;
	struct flow flow = {};
	__u32 receiver;

	flow_of(packet, &flow);
	way = way_of(&flow);
	if (!way || (way->flags & WAY_OVER))
		return socket && is_direct_socket(socket) ? DIRECT_WITHOUT_WAY : NOT_DIRECT;
	if (socket && is_direct_socket(socket))
		return DIRECT;
	receiver = receiver_state(skb, packet);
	if (receiver && receiver != TCP_STATE_LISTEN && receiver != TCP_STATE_TIME_WAIT)
		return NOT_DIRECT;
	if (socket) {
		make_direct_socket(socket);
		way->cookie = bpf_get_socket_cookie(skb);
	}
	return DIRECT;
}

/* What was carried here. An opening packet whose four-tuple is ztunnel's already, speaking as this client, is dropped and
 * its way shut: repeated, it takes the tunnel. */
INLINE int arrives_directly(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct direct_way *way;
	struct flow flow = {};
	__u32 receiver;
	__u32 mark = skb->mark;

	skb->mark = 0;
	if (mark != DIRECT_OPENING_MARK)
		return PASS;
	if (read_packet(skb, &packet) != PACKET_TCP)
		return PASS;
	receiver = receiver_state(skb, &packet);
	if (!receiver || receiver == TCP_STATE_LISTEN || receiver == TCP_STATE_TIME_WAIT ||
	    receiver == TCP_STATE_NEW_SYN_RECV) {
		leave_to_application(&packet);
		return PASS;
	}
	flow_of(&packet, &flow);
	way = way_of(&flow);
	if (way)
		way->flags |= WAY_OVER;
	return refuse(COUNT_REFUSED_DIRECT_TAKEN);
}

/* Is this socket, which is to be released by the caller, one end of a direct connection? */
INLINE int is_direct_end(struct bpf_sock *socket)
{
	struct bpf_sock *full = bpf_sk_fullsock(socket);

	return full && is_direct_socket(full);
}

INLINE void account(struct __sk_buff *skb, struct packet *packet, struct direct_way *way)
{
	__u32 at = ETH_HLEN + (packet->is_v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	struct tcp_lead lead = {};
	__u32 start, end, size;

	if (bpf_skb_load_bytes(skb, at, &lead, 14))
		return;
	at += (lead.length >> 4) * 4;
	size = skb->len > at ? skb->len - at : 0;
	start = bpf_ntohl(lead.sequence) + !!(lead.flags & TCP_FLAG_SYN);
	end = start + size;
	way->seen = bpf_ktime_get_ns();
	way->packets += 1;
	if (lead.flags & TCP_FLAG_RST) {
		way->flags |= WAY_RESET;
		return;
	}
	if (lead.flags & TCP_FLAG_SYN)
		way->next = start;
	else if (way->flags & WAY_OPENING)
		way->flags &= ~WAY_OPENING;
	if (size && (__s32)(end - way->next) > 0) { /* a FIN takes a number as well, and has no octet */
		way->octets += end - way->next;
		way->next = end;
	}
	if (lead.flags & TCP_FLAG_FIN)
		way->flags |= WAY_ENDED;
}

/* At the node's end of the sender's veth: past the node's stack, into the other pod. */
INLINE int carry(struct __sk_buff *skb, struct packet *packet, struct direct_way *way)
{
	if (way->from_ifindex != skb->ifindex)
		return refuse(COUNT_REFUSED_SPOOFED_SOURCE);
	if (way->flags & WAY_CUT)
		return refuse(COUNT_REFUSED_DIRECT_CUT);
	if (packet->oddity)
		return refuse(packet->oddity);
	if (packet->opening && !((way->flags & WAY_CLIENT) && (way->flags & WAY_OPENING)))
		return refuse(COUNT_REFUSED_BYPASS);
	account(skb, packet, way);
	skb->mark = packet->opening ? DIRECT_OPENING_MARK : DIRECT_MARK;
	if (skb->pkt_type)
		bpf_skb_change_type(skb, 0 /* to this host */);
	return bpf_redirect_peer(way->to_ifindex, 0);
}

#endif
