/* On ingress of a pod's lo: hand what pod_egress looped to ztunnel. Traffic that the pod sends to itself is not ours. */
#include "include/dialect.h"
#include "include/packet.h"
#include "include/sockets.h"
#include "maps/pods.h"

TC_PROGRAM int pod_lo(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct bpf_sock *socket = 0;
	struct pod_row *row;
	int kind;

	if (skb->mark != LOOP_MARK)
		return PASS;
	kind = read_packet(skb, &packet);
	if (kind == PACKET_OTHER)
		return PASS;
	if (kind == PACKET_UDP) {
		if (packet.destination_port != bpf_htons(NAME_SERVICE_PORT))
			return PASS;
		socket = find_name_socket(skb, &packet);
		return socket ? assign(skb, socket, COUNT_ASSIGNED_ON_LO) : PASS;
	}
	if (!packet.opening)
		return PASS;
	if (packet.oddity)
		return refuse(packet.oddity);
	row = pod_of(&packet.source);
	if (row && (row->flags & POD_DNS) && packet.destination_port == bpf_htons(NAME_SERVICE_PORT))
		socket = find_listener(skb, &packet, DNS_PORT);
	if (!socket)
		socket = find_listener(skb, &packet, OUTBOUND_PORT);
	return socket ? assign_opening(skb, &packet, socket, COUNT_ASSIGNED_ON_LO)
		      : refuse(COUNT_REFUSED_NO_LISTENER_OUT);
}
