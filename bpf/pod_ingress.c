/* On ingress of a pod's interface, inside the pod: new connections from the network go to ztunnel's listeners, keeping
 * both addresses. What the pod sends to itself, and what ztunnel sends to the application, goes over lo and is not seen
 * here. */
#include "include/dialect.h"
#include "include/clear.h"
#include "include/datagrams.h"
#include "include/direct.h"
#include "include/packet.h"
#include "include/policy.h"
#include "include/reset.h"
#include "include/resets.h"
#include "include/sockets.h"
#include "maps/config.h"
#include "maps/pods.h"
#include "maps/probes.h"

INLINE int is_probe(struct packet *packet)
{
	struct flow flow = {};

	flow_of(packet, &flow);
	return take_probe(&flow);
}

/* A port of ztunnel that the network may not reach as such (15008 is for the network). */
INLINE int is_inner_port(__u16 port)
{
	return port == bpf_htons(OUTBOUND_PORT) || port == bpf_htons(PLAINTEXT_PORT) || port == bpf_htons(DNS_PORT);
}

INLINE int denied(struct __sk_buff *skb, struct packet *packet, enum counter reason, __u32 rule)
{
	count(reason);
	tell(skb, packet, reason, rule, ARRIVING);
	return options() & OPTION_SILENT_IN ? TC_ACT_SHOT : reset(skb, packet, BACK_TO_THE_NETWORK);
}

INLINE int refuses_arriving(struct packet *packet, int hbone, __u32 *rule)
{
	if (hbone)
		return tunnel_is_denied(&packet->destination, &packet->source, rule);
	return is_denied(&packet->destination, DENY_IN, &packet->source, packet->destination_port, rule);
}

/* Directly to the application. */
INLINE int let_in(struct packet *packet, enum counter reason)
{
	admit_arriving(packet);
	return pass(reason);
}

INLINE int arriving(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	int hbone = (row->flags & POD_HBONE_IN) && packet->destination_port == bpf_htons(HBONE_PORT);
	__u16 port = hbone ? HBONE_PORT : PLAINTEXT_PORT;
	struct bpf_sock *socket;
	__u32 rule = 0;

	if (is_probe(packet))
		return let_in(packet, COUNT_PROBE);
	if (!hbone && !(row->flags & POD_CAPTURE_IN)) {
		if (is_inner_port(packet->destination_port))
			return refuse(COUNT_REFUSED_PROXY_PORT);
		admit_arriving(packet);
		return PASS;
	}
	if (packet->oddity)
		return refuse(packet->oddity);
	if (rows_count(skb, packet, port) && refuses_arriving(packet, hbone, &rule))
		return denied(skb, packet, hbone ? COUNT_REFUSED_POLICY_TUNNEL : COUNT_REFUSED_POLICY_IN, rule);
	socket = find_listener(skb, packet, port);
	if (socket)
		return assign_opening(skb, packet, socket, hbone ? COUNT_HBONE_IN : COUNT_REDIRECTED_IN);
	if (row->fail_in == FAIL_OPEN && !hbone)
		return let_in(packet, COUNT_PASSED_OPEN_IN);
	return refuse(COUNT_REFUSED_NO_LISTENER_IN);
}

/* An answer to a SYN cookie: no socket knows the connection yet, and the kernel would ask the application's listener
 * about a cookie that ztunnel's gave. */
INLINE int cookie(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	int hbone = (row->flags & POD_HBONE_IN) && packet->destination_port == bpf_htons(HBONE_PORT);
	struct bpf_sock *socket;

	if (!(row->flags & POD_CAPTURE_IN) || !packet->ack || packet->reset)
		return PASS;
	socket = find_listener(skb, packet, hbone ? HBONE_PORT : PLAINTEXT_PORT);
	return socket ? assign(skb, packet, socket, COUNT_COOKIE_IN) : PASS;
}

INLINE int going_on(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	struct bpf_sock *socket = receiver_of(skb, packet);
	int verdict = PASS;

	if (!socket)
		return cookie(skb, packet, row);
	if (socket->state == TCP_STATE_LISTEN) {
		bpf_sk_release(socket);
		return cookie(skb, packet, row);
	}
	if (is_direct_end(socket)) /* what is its peer's was carried here, and is not seen by this */
		verdict = refuse(COUNT_REFUSED_SPOOFED_SOURCE);
	else if (packet->has_data && row->flags & (POD_CAPTURE_OUT | POD_CAPTURE_IN))
		verdict = arrives_in_clear(skb, packet, socket);
	bpf_sk_release(socket);
	return verdict;
}

INLINE int datagram_arriving(struct __sk_buff *skb, struct packet *packet, int kind, struct pod_row *row)
{
	if (kind == PACKET_UDP && (!row || row->flags) && packet->destination_port == bpf_htons(DNS_PORT))
		return refuse(COUNT_REFUSED_PROXY_PORT); /* ztunnel listens on every address of the pod */
	if (!row)
		return PASS;
	datagram(skb, packet, ARRIVING);
	return PASS;
}

TC_PROGRAM int pod_ingress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct pod_row *row;
	int kind;

	if (skb->mark == DIRECT_MARK || skb->mark == DIRECT_OPENING_MARK)
		return arrives_directly(skb);
	kind = read_packet(skb, &packet);
	if (kind == PACKET_OTHER)
		return PASS;
	row = pod_of(&packet.destination);
	if (kind != PACKET_TCP)
		return datagram_arriving(skb, &packet, kind, row);
	if (!row)
		return packet.opening ? refuse(COUNT_REFUSED_UNKNOWN_DESTINATION) : PASS;
	if (packet.reset)
		note_reset(skb, &packet);
	if (!row->flags && packet.opening)
		admit_arriving(&packet);
	if (!row->flags)
		return PASS;
	return packet.opening ? arriving(skb, &packet, row) : going_on(skb, &packet, row);
}
