/* On egress of a pod's interface, inside the pod: what the pod sends goes to ztunnel's listeners by way of lo.
 *
 * Only opening packets are decided here. The rest follows: a packet whose other end is a socket of this namespace
 * (ztunnel's, which took the place of the real peer) is looped to it, and so is all that its sender sends from then on;
 * any other leaves as before, so that connections older than the enrolment are not touched. */
#include "include/dialect.h"
#include "include/clear.h"
#include "include/datagrams.h"
#include "include/direct.h"
#include "include/packet.h"
#include "include/policy.h"
#include "include/reset.h"
#include "include/senders.h"
#include "include/sockets.h"
#include "maps/looped.h"
#include "maps/pods.h"
#include "maps/streams.h"

/* To lo, as if it had come from outside. The destination address of the frame must be lo's own (zeros), or the packet
 * would be dropped as somebody else's. */
INLINE int loop(struct __sk_buff *skb)
{
	__u8 nobody[ETH_ALEN] = {};

	if (bpf_skb_store_bytes(skb, 0, nobody, sizeof(nobody), 0))
		return TC_ACT_SHOT;
	skb->mark = LOOP_MARK;
	return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
}

INLINE int is_proven(struct __sk_buff *skb, __u32 roles)
{
	return skb->mark == PROXY_MARK && (mark_is_enough() || sent_by(skb, roles));
}

INLINE int is_ztunnel(struct __sk_buff *skb)
{
	if (is_proven(skb, OWNER_ZTUNNEL))
		return 1;
	if (skb->mark == PROXY_MARK)
		count(COUNT_FORGED_MARK);
	return 0;
}

/* Is it a name query that ztunnel is to answer? */
INLINE int is_captured_query(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	struct bpf_sock *socket;

	if (!(row->flags & POD_DNS) || packet->destination_port != bpf_htons(NAME_SERVICE_PORT))
		return 0;
	if (is_ztunnel(skb))
		return 0;
	socket = find_name_socket(skb, packet);
	if (!socket)
		return 0; /* names are a service, not a guard */
	bpf_sk_release(socket);
	return 1;
}

INLINE int datagram_leaving(struct __sk_buff *skb, struct packet *packet, int kind, struct pod_row *row)
{
	if (!row)
		return PASS;
	if (kind == PACKET_UDP && is_captured_query(skb, packet, row)) {
		count(COUNT_DNS_UDP);
		return loop(skb);
	}
	datagram(skb, packet, LEAVING);
	return PASS;
}

INLINE int capture(struct __sk_buff *skb, enum counter reason)
{
	count(reason);
	remember_looped(skb);
	return loop(skb);
}

/* Directly to the network, whatever became of an earlier attempt of the same socket. */
INLINE int release(struct __sk_buff *skb)
{
	forget_looped(skb);
	admit_sender(skb);
	return PASS;
}

INLINE int denied_at_source(struct __sk_buff *skb, struct packet *packet, __u32 rule)
{
	struct bpf_sock *socket = sending_stream(skb);

	count(COUNT_REFUSED_POLICY_OUT);
	tell(skb, packet, COUNT_REFUSED_POLICY_OUT, rule, LEAVING);
	if (socket)
		note_cause(socket, END_DENIED);
	return reset(skb, packet, BACK_TO_THE_POD);
}

INLINE int leaving(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	__u32 rule = 0;

	if (!(row->flags & POD_CAPTURE_OUT))
		return release(skb);
	if (is_ztunnel(skb))
		return PASS;
	if (packet->oddity)
		return refuse(packet->oddity);
	if ((row->flags & POD_DNS) && packet->destination_port == bpf_htons(NAME_SERVICE_PORT) &&
	    has_listener(skb, packet, DNS_PORT))
		return capture(skb, COUNT_DNS_TCP);
	if (rows_count(skb, packet, OUTBOUND_PORT) &&
	    is_denied(&packet->source, DENY_OUT, &packet->destination, packet->destination_port, &rule))
		return denied_at_source(skb, packet, rule);
	if ((row->flags & POD_DIRECT) && opens_directly(skb, packet, row)) {
		forget_looped(skb);
		return pass(COUNT_DIRECT_OUT);
	}
	forget_direct(skb);
	if (has_listener(skb, packet, OUTBOUND_PORT))
		return capture(skb, COUNT_REDIRECTED_OUT);
	if (row->fail_out == FAIL_CLOSED)
		return refuse(COUNT_REFUSED_NO_LISTENER_OUT);
	count(COUNT_PASSED_OPEN_OUT);
	return release(skb);
}

/* Past ztunnel: what is not captured may, and is remembered for the time when it is. A connection that ztunnel has
 * accepted counts as made where its listener was, which may be by the first of many ztunnels. */
INLINE int passing(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	if (!(row->flags & (POD_CAPTURE_OUT | POD_CAPTURE_IN))) {
		admit_sender(skb);
		return PASS;
	}
	if (!packet->has_data || is_proven(skb, OWNER_ZTUNNEL | OWNER_FORMER_ZTUNNEL))
		return PASS;
	return leaves_in_clear(skb, packet);
}

/* The mark of the packet does not matter to where it goes. A receiver in TIME_WAIT is left from an older connection of ztunnel with
 * this four-tuple, unless its sender is on the way out as well: a living socket that talked to it would be remembered. */
INLINE int following(struct __sk_buff *skb, struct packet *packet, struct pod_row *row)
{
	enum directness direct;
	__u32 receiver;

	if (is_looped(skb))
		return loop(skb);
	direct = options() & OPTION_DIRECT ? directness_of(skb, packet) : NOT_DIRECT;
	if (direct != NOT_DIRECT)
		return direct == DIRECT ? PASS : refuse(COUNT_REFUSED_DIRECT_CUT);
	receiver = receiver_state(skb, packet);
	if (!receiver || receiver == TCP_STATE_LISTEN)
		return passing(skb, packet, row);
	if (receiver == TCP_STATE_TIME_WAIT && (packet->syn || sending_stream(skb)))
		return passing(skb, packet, row);
	remember_looped(skb);
	return loop(skb);
}

TC_PROGRAM int pod_egress(struct __sk_buff *skb)
{
	struct packet packet = {};
	int kind = read_packet(skb, &packet);
	struct pod_row *row;

	if (kind == PACKET_OTHER)
		return PASS;
	row = pod_of(&packet.source);
	if (kind != PACKET_TCP)
		return datagram_leaving(skb, &packet, kind, row);
	if (!row)
		return packet.opening ? refuse(COUNT_REFUSED_UNKNOWN_SOURCE) : PASS;
	if (packet.opening)
		return leaving(skb, &packet, row);
	return row->flags ? following(skb, &packet, row) : passing(skb, &packet, row);
}
