/* The kernel's socket table is the only state of the capture: who listens here, whose is the other end of a packet. */
#ifndef AMBIENT_SOCKETS_H
#define AMBIENT_SOCKETS_H

#include "packet.h"
#include "../maps/reborn.h"
#include "../maps/listeners.h"
#include "../maps/reservations.h"

/* The key of a look-up in the socket table; gives its size, which is also its family. */
INLINE __u32 fill_tuple(struct bpf_sock_tuple *tuple, struct packet *packet)
{
	if (packet->is_v6) {
		__builtin_memcpy(tuple->ipv6.saddr, &packet->source, sizeof(tuple->ipv6.saddr));
		__builtin_memcpy(tuple->ipv6.daddr, &packet->destination, sizeof(tuple->ipv6.daddr));
		tuple->ipv6.sport = packet->source_port;
		tuple->ipv6.dport = packet->destination_port;
		return sizeof(tuple->ipv6);
	}
	tuple->ipv4.saddr = packet->source.word[3];
	tuple->ipv4.daddr = packet->destination.word[3];
	tuple->ipv4.sport = packet->source_port;
	tuple->ipv4.dport = packet->destination_port;
	return sizeof(tuple->ipv4);
}

/* The socket of this namespace that is the other end of this packet, to be released; one that listens counts too. */
INLINE struct bpf_sock *receiver_of(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = fill_tuple(&tuple, packet);

	if (size == sizeof(tuple.ipv4))
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Its state; 0 without one. */
INLINE __u32 receiver_state(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock *socket = receiver_of(skb, packet);
	__u32 state;

	if (!socket)
		return 0;
	state = socket->state;
	bpf_sk_release(socket);
	return state;
}

/* Connected, connecting or dying, but not merely listening. */
INLINE int has_receiver(struct __sk_buff *skb, struct packet *packet)
{
	__u32 state = receiver_state(skb, packet);

	return state && state != TCP_STATE_LISTEN;
}

#define WITH_SOURCE 1
#define WITHOUT_SOURCE 0

/* One look-up of a marked listener. The mark keeps an application that shares the port (SO_REUSEPORT, same user) from
 * being taken for ztunnel by accident. */
INLINE struct bpf_sock *look_for_listener(struct __sk_buff *skb, struct packet *packet, __u16 port, int with_source)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = fill_tuple(&tuple, packet);
	struct bpf_sock *socket;

	if (size == sizeof(tuple.ipv4)) {
		tuple.ipv4.dport = bpf_htons(port);
		if (!with_source)
			tuple.ipv4.saddr = tuple.ipv4.sport = 0;
		socket = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv6.dport = bpf_htons(port);
		if (!with_source) {
			__builtin_memset(tuple.ipv6.saddr, 0, sizeof(tuple.ipv6.saddr));
			tuple.ipv6.sport = 0;
		}
		socket = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!socket)
		return 0;
	if (socket->state == TCP_STATE_LISTEN && socket->mark == PROXY_MARK)
		return socket;
	bpf_sk_release(socket);
	return 0;
}

/* ztunnel's listener on `port`, to be released. First with the real source, which spreads over a SO_REUSEPORT group;
 * where that finds somebody who connected to the port itself from the same source port, without it. */
INLINE struct bpf_sock *find_listener(struct __sk_buff *skb, struct packet *packet, __u16 port)
{
	struct bpf_sock *socket = look_for_listener(skb, packet, port, WITH_SOURCE);

	return socket ? socket : look_for_listener(skb, packet, port, WITHOUT_SOURCE);
}

INLINE int has_listener(struct __sk_buff *skb, struct packet *packet, __u16 port)
{
	struct bpf_sock *socket = find_listener(skb, packet, port);

	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

/* ztunnel's UDP socket for names, to be released. */
INLINE struct bpf_sock *find_name_socket(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	__u32 size = fill_tuple(&tuple, packet);
	struct bpf_sock *socket;

	if (size == sizeof(tuple.ipv4)) {
		tuple.ipv4.dport = bpf_htons(DNS_PORT);
		socket = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv6.dport = bpf_htons(DNS_PORT);
		socket = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!socket)
		return 0;
	if (socket->mark == PROXY_MARK)
		return socket;
	bpf_sk_release(socket);
	return 0;
}

INLINE void look_up_of(struct packet *packet, struct look_up *asked)
{
	flow_of(packet, &asked->flow);
	asked->protocol = packet->protocol == IPPROTO_UDP ? IPPROTO_UDP : IPPROTO_TCP;
}

/* Not 0: pod_lookup will not give it to that socket. */
INLINE int note_for_look_up(struct packet *packet, struct bpf_sock *socket)
{
	__u64 name = name_of(socket);
	struct look_up asked = {};

	look_up_of(packet, &asked);
	return name ? reserve(&asked, name) : -1;
}

/* This opening packet is the application's, whosever the last one of its four-tuple was. */
INLINE void leave_to_application(struct packet *packet)
{
	struct look_up asked = {};

	look_up_of(packet, &asked);
	forget_reservation(&asked);
}

/* To be named by pod_lookup, which the kernel asks for a listener only: where it knows the connection already (an opening
 * packet repeated, its answer will be as well) a reservation would stay unused. */
INLINE int name_in_look_up(struct __sk_buff *skb, struct packet *packet, struct bpf_sock *socket)
{
	__u32 state = packet->protocol == IPPROTO_UDP ? 0 : receiver_state(skb, packet);

	if (state && state != TCP_STATE_LISTEN && state != TCP_STATE_TIME_WAIT)
		return -1;
	return note_for_look_up(packet, socket);
}

/* Give the packet to the socket (and release it). Before 6.6 the kernel refuses one that may share its port
 * (SO_REUSEPORT); the packet goes up as it is then and pod_lookup names the socket. */
INLINE int assign(struct __sk_buff *skb, struct packet *packet, struct bpf_sock *socket, enum counter reason)
{
	long failed = bpf_sk_assign(skb, socket, 0);

	if (failed)
		failed = name_in_look_up(skb, packet, socket);
	bpf_sk_release(socket);
	return failed ? refuse(COUNT_REFUSED_ASSIGN) : pass(reason);
}

/* The same for an opening packet. Where an older connection of ztunnel with this four-tuple is in TIME_WAIT the kernel
 * would drop an assigned packet without a word (6.18); so it goes up as it is, the kernel ends the old connection, if
 * the new one may follow it, and pod_lookup names the listener. */
INLINE int assign_opening(struct __sk_buff *skb, struct packet *packet, struct bpf_sock *socket, enum counter reason)
{
	if (receiver_state(skb, packet) != TCP_STATE_TIME_WAIT || note_for_look_up(packet, socket))
		return assign(skb, packet, socket, reason);
	bpf_sk_release(socket);
	return pass(reason);
}

#endif
