/* On egress of the host's end of a pod's veth: what is about to come to the pod. Here, and not inside the pod, is known
 * where it came into the node:
 *  - which connection attempts are the kubelet's probes, for pod_ingress. Known by the socket that sends them, not by
 *    address: the node's address is also on traffic that the node forwards;
 *  - whether the source of a datagram is the pod whose address it carries: it came in by that pod's own interface. Then
 *    policy may ask for its identity. */
#include "include/dialect.h"
#include "include/datagrams.h"
#include "include/packet.h"
#include "include/policy.h"
#include "include/senders.h"
#include "maps/events.h"
#include "maps/pods.h"
#include "maps/probes.h"

INLINE int is_kubelet(struct __sk_buff *skb)
{
	if (mark_is_enough()) /* any socket of the node's own namespace: forwarded packets came in somewhere */
		return !skb->ingress_ifindex && bpf_get_socket_cookie(skb);
	return sent_by(skb, OWNER_KUBELET);
}

INLINE int is_proven_source(struct __sk_buff *skb, struct packet *packet)
{
	struct pod_row *row = pod_of(&packet->source);

	return row && row->host_ifindex && row->host_ifindex == skb->ingress_ifindex;
}

/* Whose tables judge it: those of the address that it is for. What is for an address that is no pod's (link-local, a
 * broadcast, a group) comes to the pod all the same: that has the tables of the interface, whose number is the address. */
INLINE void judged_as(struct __sk_buff *skb, struct packet *packet, struct address *pod)
{
	__u32 number = bpf_htonl(skb->ifindex);

	*pod = packet->destination;
	if (pod_of(pod))
		return;
	map_v4(pod, number);
	if (packet->is_v6)
		pod->word[2] = 0;
}

INLINE int to_the_pod(struct __sk_buff *skb, struct packet *packet)
{
	int udp = packet->protocol == IPPROTO_UDP;
	enum deny_side side = udp ? DENY_UDP_IN : DENY_ICMP_IN;
	enum counter reason = udp ? COUNT_REFUSED_POLICY_UDP : COUNT_REFUSED_POLICY_ICMP;
	struct address pod;
	__u32 rule = 0;

	judged_as(skb, packet, &pod);
	if (!datagram_is_denied(&pod, side, packet, is_proven_source(skb, packet), &rule))
		return PASS;
	if (answers_the_pod(packet))
		return PASS;
	tell(skb, packet, reason, rule, ARRIVING);
	return refuse(reason);
}

/* The rest of a packet has no port: where policy asks for anything it is not put together. */
INLINE int piece_to_the_pod(struct __sk_buff *skb, struct packet *packet)
{
	struct address pod;

	if (packet->protocol != IPPROTO_UDP && packet->protocol != IPPROTO_ICMP && packet->protocol != IPPROTO_ICMPV6)
		return PASS;
	judged_as(skb, packet, &pod);
	if (!judges_datagrams(&pod, packet->protocol == IPPROTO_UDP ? DENY_UDP_IN : DENY_ICMP_IN))
		return PASS;
	return refuse(COUNT_REFUSED_FRAGMENT);
}

TC_PROGRAM int host_egress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct flow flow = {};
	int kind = read_packet(skb, &packet);

	if (kind == PACKET_UDP || kind == PACKET_ICMP)
		return to_the_pod(skb, &packet);
	if (kind != PACKET_TCP)
		return packet.piece ? piece_to_the_pod(skb, &packet) : PASS;
	if (!packet.opening || packet.oddity || !is_kubelet(skb))
		return PASS;
	flow_of(&packet, &flow);
	announce_probe(&flow);
	return PASS;
}
