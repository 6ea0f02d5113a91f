/* On ingress of a pod's lo: hand what pod_egress looped to ztunnel. Traffic that the pod sends to itself is not ours, but
 * for resets, among which is what ztunnel answers the application, and for opening packets, which may have the four-tuple
 * of one that was noted for pod_lookup: ztunnel speaks to the application with its clients' addresses. */
#include "include/dialect.h"
#include "include/packet.h"
#include "include/resets.h"
#include "include/sockets.h"
#include "maps/pods.h"

INLINE int name_query_on_lo(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock *socket;

	if (packet->destination_port != bpf_htons(NAME_SERVICE_PORT))
		return PASS;
	socket = find_name_socket(skb, packet);
	return socket ? assign(skb, packet, socket, COUNT_ASSIGNED_ON_LO) : PASS;
}

INLINE struct bpf_sock *chosen_listener(struct __sk_buff *skb, struct packet *packet)
{
	struct pod_row *row = pod_of(&packet->source);
	struct bpf_sock *socket = 0;

	if (row && (row->flags & POD_DNS) && packet->destination_port == bpf_htons(NAME_SERVICE_PORT))
		socket = find_listener(skb, packet, DNS_PORT);
	return socket ? socket : find_listener(skb, packet, OUTBOUND_PORT);
}

INLINE int not_looped(struct __sk_buff *skb)
{
	struct packet packet = {};

	if (skb->len > LONGEST_BARE || read_packet(skb, &packet) != PACKET_TCP)
		return PASS;
	if (packet.reset)
		note_reset(skb, &packet);
	if (packet.opening)
		leave_to_application(&packet);
	return PASS;
}

TC_PROGRAM int pod_lo(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct bpf_sock *socket;
	int kind;

	if (skb->mark != LOOP_MARK)
		return not_looped(skb);
	kind = read_packet(skb, &packet);
	if (kind == PACKET_OTHER || kind == PACKET_ICMP)
		return PASS;
	if (kind == PACKET_UDP)
		return name_query_on_lo(skb, &packet);
	if (packet.opening && packet.oddity)
		return refuse(packet.oddity);
	/* Besides opening packets, answers to SYN cookies: no socket knows their connection yet. */
	if (!packet.opening && (!packet.ack || packet.reset || has_receiver(skb, &packet)))
		return PASS;
	socket = chosen_listener(skb, &packet);
	if (!socket)
		return packet.opening ? refuse(COUNT_REFUSED_NO_LISTENER_OUT) : PASS;
	return packet.opening ? assign_opening(skb, &packet, socket, COUNT_ASSIGNED_ON_LO)
			      : assign(skb, &packet, socket, COUNT_COOKIE_OUT);
}
