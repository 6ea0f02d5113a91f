/* On egress of the host's end of a pod's veth: tell pod_ingress which connection attempts are the kubelet's probes.
 * Known by the socket that sends them, not by address: the node's address is also on traffic that the node forwards. */
#include "include/dialect.h"
#include "include/packet.h"
#include "include/senders.h"
#include "maps/probes.h"

INLINE int is_kubelet(struct __sk_buff *skb)
{
	if (mark_is_enough()) /* any socket of the node's own namespace: forwarded packets came in somewhere */
		return !skb->ingress_ifindex && bpf_get_socket_cookie(skb);
	return sent_by(skb, OWNER_KUBELET);
}

TC_PROGRAM int host_egress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct flow flow = {};

	if (read_packet(skb, &packet) != PACKET_TCP || !packet.opening || packet.oddity || !is_kubelet(skb))
		return PASS;
	flow_of(&packet, &flow);
	announce_probe(&flow);
	return PASS;
}
