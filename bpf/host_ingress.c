/* On ingress of the host's end of a pod's veth: the guard behind the pod. pod_egress can be passed by (a packet socket
 * with PACKET_QDISC_BYPASS hands frames straight to the driver); here every frame comes by, and the sending socket is
 * still known. A new connection that leaves a captured pod must be ztunnel's, and its source address the pod's own; what
 * a socket sends that talks to ztunnel is for lo, and comes by here only where pod_egress was taken off.
 * What may go directly to a pod of this node is carried there; what a pod asks by UDP and ICMP is noted, for host_egress.
 */
#include "include/dialect.h"
#include "include/datagrams.h"
#include "include/direct.h"
#include "include/packet.h"
#include "include/senders.h"
#include "maps/looped.h"
#include "maps/pods.h"

INLINE int went_past_pod_egress(struct __sk_buff *skb, struct packet *packet)
{
	struct pod_row *row = is_looped(skb) ? pod_of(&packet->source) : 0;

	return row && row->flags;
}

TC_PROGRAM int host_ingress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct direct_way *way;
	struct flow flow = {};
	int kind = read_packet(skb, &packet);
	struct pod_row *row;

	if (kind == PACKET_UDP || kind == PACKET_ICMP)
		note_question(skb, &packet);
	if (kind != PACKET_TCP)
		return PASS;
	if (options() & OPTION_DIRECT) {
		flow_of(&packet, &flow);
		way = way_of(&flow);
		if (way && !(way->flags & WAY_OVER))
			return carry(skb, &packet, way);
	}
	if (!packet.opening)
		return went_past_pod_egress(skb, &packet) ? refuse(COUNT_REFUSED_BYPASS) : PASS;
	row = pod_of(&packet.source);
	if (!row)
		return refuse(COUNT_REFUSED_UNKNOWN_SOURCE);
	if (row->host_ifindex && row->host_ifindex != skb->ifindex)
		return refuse(COUNT_REFUSED_SPOOFED_SOURCE);
	if (!(row->flags & POD_CAPTURE_OUT) || row->fail_out == FAIL_OPEN || mark_is_enough())
		return PASS;
	return sent_by(skb, OWNER_ZTUNNEL) ? PASS : refuse(COUNT_REFUSED_BYPASS);
}
