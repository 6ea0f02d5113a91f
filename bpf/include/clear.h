/* The alarm: TCP data that passes a captured pod's interface neither through ztunnel nor as a connection that may. Only
 * packets that carry data count; opening packets are judged elsewhere, and what carries nothing gives nothing away. */
#ifndef AMBIENT_CLEAR_H
#define AMBIENT_CLEAR_H

#include "contract.h"
#include "packet.h"
#include "sockets.h"
#include "../maps/clear.h"
#include "../maps/config.h"
#include "../maps/events.h"
#include "../maps/looped.h"

/* The connection of this opening packet from the network goes directly to the application. */
INLINE void admit_arriving(struct packet *packet)
{
	struct flow flow = {};

	flow_of(packet, &flow);
	admit_clear(&flow);
	leave_to_application(packet);
}

/* The sender of this packet talks to the network directly from now on. */
INLINE void admit_sender(struct __sk_buff *skb)
{
	struct bpf_sock *socket = sending_stream(skb);

	if (socket)
		make_clear_socket(socket);
}

INLINE int alarm(struct __sk_buff *skb, struct packet *packet, enum counter reason, __u32 arriving)
{
	count(reason);
	tell(skb, packet, reason, 0, arriving);
	return options() & OPTION_DROP_CLEAR ? TC_ACT_SHOT : PASS;
}

/* Data of an application that leaves the pod directly. The entry is that of what arrives: turned round. */
INLINE int leaves_in_clear(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock *socket = sending_stream(skb);
	struct flow flow = {};

	if (socket && is_clear_socket(socket))
		return PASS;
	flow.source = packet->destination;
	flow.destination = packet->source;
	flow.source_port = packet->destination_port;
	flow.destination_port = packet->source_port;
	if (!is_admitted(&flow))
		return alarm(skb, packet, COUNT_CLEAR_OUT, LEAVING);
	if (socket && make_clear_socket(socket))
		forget_clear(&flow);
	return PASS;
}

/* Data that arrives for `socket`, which is to be released by the caller. */
INLINE int arrives_in_clear(struct __sk_buff *skb, struct packet *packet, struct bpf_sock *socket)
{
	struct bpf_sock *full = bpf_sk_fullsock(socket);
	struct flow flow = {};

	if (!full || full->mark == PROXY_MARK || is_clear_socket(full))
		return PASS;
	flow_of(packet, &flow);
	return is_admitted(&flow) ? PASS : alarm(skb, packet, COUNT_CLEAR_IN, ARRIVING);
}

#endif
