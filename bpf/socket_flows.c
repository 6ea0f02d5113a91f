/* On the sockets of the whole node (its root control group): what the TCP connections of captured pods come to. Knows
 * beginning, end, bytes, round trip and repeats by the socket itself; so nothing is counted per packet.
 *
 * Told singly are those that ztunnel does not tell of: directly between application and network, ztunnel's own to the
 * network (their round trips are the network's), and what ends badly. The rest is in the tallies only; of the kernel
 * path the agent tells, by its ways.
 *
 * Where pod_lookup has to know ztunnel's listeners by name, they are named here as they begin to listen. */
#include "include/dialect.h"
#include "include/packet.h"
#include "maps/clear.h"
#include "maps/config.h"
#include "maps/direct.h"
#include "maps/flow_pace.h"
#include "maps/looped.h"
#include "maps/pods.h"
#include "maps/reborn.h"
#include "maps/listeners.h"
#include "maps/streams.h"
#include "maps/tallies.h"

#define TALLY_EVERY 5000000000ULL /* ns: how far behind the tallies are of a connection that goes on */

/* The two ends of a socket; ports in network order. */
struct ends {
	struct address local;
	struct address remote;
	__u16 local_port;
	__u16 remote_port;
};

INLINE void ends_of(struct bpf_sock_ops *ctx, struct ends *ends)
{
	/* All are read before any is chosen: see pod_lookup. */
	__u32 family = ctx->family;
	__u32 remote4 = ctx->remote_ip4, local4 = ctx->local_ip4;
	__u32 remote0 = ctx->remote_ip6[0], remote1 = ctx->remote_ip6[1];
	__u32 remote2 = ctx->remote_ip6[2], remote3 = ctx->remote_ip6[3];
	__u32 local0 = ctx->local_ip6[0], local1 = ctx->local_ip6[1];
	__u32 local2 = ctx->local_ip6[2], local3 = ctx->local_ip6[3];

	asm volatile("" : "+r"(remote4), "+r"(remote0), "+r"(remote1), "+r"(remote2), "+r"(remote3));
	asm volatile("" : "+r"(local4), "+r"(local0), "+r"(local1), "+r"(local2), "+r"(local3));
	if (family == ADDRESS_FAMILY_V4) {
		map_v4(&ends->local, local4);
		map_v4(&ends->remote, remote4);
	} else {
		ends->local.word[0] = local0;
		ends->local.word[1] = local1;
		ends->local.word[2] = local2;
		ends->local.word[3] = local3;
		ends->remote.word[0] = remote0;
		ends->remote.word[1] = remote1;
		ends->remote.word[2] = remote2;
		ends->remote.word[3] = remote3;
	}
	ends->local_port = bpf_htons(ctx->local_port);
	ends->remote_port = bpf_htons(bpf_ntohl(ctx->remote_port));
}

INLINE int same_address(struct address *one, struct address *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1] && one->word[2] == other->word[2] &&
	       one->word[3] == other->word[3];
}

/* Is it a connection of a pod of ours with somebody else? What ztunnel has with the pod's own application is not: there
 * both ends are in the pod, and one of them is asked already. */
INLINE int concerns_us(struct bpf_sock *socket, struct ends *ends, int arriving)
{
	if (!pod_of(&ends->local) || same_address(&ends->local, &ends->remote))
		return 0;
	if (socket->mark != PROXY_MARK)
		return 1;
	if ((arriving ? ends->local_port : ends->remote_port) == bpf_htons(HBONE_PORT))
		return 1;
	return !pod_of(&ends->remote);
}

INLINE int is_on_kernel_path(struct flow *flow)
{
	struct direct_way *way = options() & OPTION_DIRECT ? way_of(flow) : 0;

	return way && !(way->flags & WAY_OVER);
}

INLINE __u8 path_of(struct bpf_sock *socket, struct ends *ends, int arriving)
{
	struct flow flow = {};

	if (socket->mark == PROXY_MARK)
		return (arriving ? ends->local_port : ends->remote_port) == bpf_htons(HBONE_PORT) ? FLOW_TUNNEL
												  : FLOW_PASSTHROUGH;
	flow.source = arriving ? ends->remote : ends->local;
	flow.destination = arriving ? ends->local : ends->remote;
	flow.source_port = arriving ? ends->remote_port : ends->local_port;
	flow.destination_port = arriving ? ends->local_port : ends->remote_port;
	if (is_on_kernel_path(&flow))
		return FLOW_DIRECT | TOLD_BY_THE_AGENT;
	if (!arriving)
		return is_looped_socket(socket) ? FLOW_CAPTURED : FLOW_DIRECT;
	return is_admitted(&flow) ? FLOW_DIRECT : FLOW_CAPTURED;
}

INLINE void add(__u64 *to, __u64 what)
{
	if (what)
		__sync_fetch_and_add(to, what);
}

/* Puts what the socket has come to since the last time on the sheet; `flows`: 1 when it began or ended. */
INLINE void tally_stream(struct bpf_sock_ops *ctx, struct stream *stream, struct ends *ends, enum flow_end end,
			 __u64 flows)
{
	__u64 sent = ctx->bytes_acked, received = ctx->bytes_received;
	__u32 packets_sent = ctx->segs_out, packets_received = ctx->segs_in;
	__u32 retransmitted = ctx->total_retrans, rtt = ctx->srtt_us >> 3;
	struct tally_key key = {};
	struct tally *line;

	/* The kernel counts SYN and FIN as a byte each. */
	sent -= stream->fin_sent + (stream->established && !stream->arriving);
	received -= stream->fin_received;
	key.source = stream->arriving ? ends->remote : ends->local;
	key.destination = stream->arriving ? ends->local : ends->remote;
	key.port = stream->arriving ? ends->local_port : ends->remote_port;
	key.protocol = IPPROTO_TCP;
	key.arriving = stream->arriving;
	key.path = stream->path & ~TOLD_BY_THE_AGENT;
	key.end = end;
	line = tally_of(&key);
	if (line) {
		add(&line->flows, flows);
		add(stream->arriving ? &line->bytes_received : &line->bytes_sent, sent - stream->sent);
		add(stream->arriving ? &line->bytes_sent : &line->bytes_received, received - stream->received);
		add(stream->arriving ? &line->packets_received : &line->packets_sent,
		    packets_sent - stream->packets_sent);
		add(stream->arriving ? &line->packets_sent : &line->packets_received,
		    packets_received - stream->packets_received);
		add(&line->retransmitted, retransmitted - stream->retransmitted);
		if (rtt && (!flows || end != END_NONE)) {
			add(&line->rtt, rtt);
			add(&line->rtts, 1);
		}
	}
	stream->sent = sent;
	stream->received = received;
	stream->packets_sent = packets_sent;
	stream->packets_received = packets_received;
	stream->retransmitted = retransmitted;
}

INLINE void tell_stream(struct bpf_sock_ops *ctx, struct stream *stream, struct ends *ends, enum flow_end end, __u64 now)
{
	struct flow_pace *pace = flow_pace_of_this_cpu();
	struct flow_event *event = begin_flow_event(pace, now);

	if (!pace || !event)
		return;
	event->time = now;
	event->source = stream->arriving ? ends->remote : ends->local;
	event->destination = stream->arriving ? ends->local : ends->remote;
	event->source_port = stream->arriving ? ends->remote_port : ends->local_port;
	event->destination_port = stream->arriving ? ends->local_port : ends->remote_port;
	event->protocol = IPPROTO_TCP;
	event->arriving = stream->arriving;
	event->unused = 0;
	event->path = stream->path;
	event->end = end;
	event->opened = stream->opened;
	event->bytes_sent = stream->arriving ? stream->received : stream->sent;
	event->bytes_received = stream->arriving ? stream->sent : stream->received;
	event->packets_sent = stream->arriving ? stream->packets_received : stream->packets_sent;
	event->packets_received = stream->arriving ? stream->packets_sent : stream->packets_received;
	event->retransmitted = stream->retransmitted;
	event->rtt = end == END_NONE ? 0 : ctx->srtt_us >> 3;
	pace->last = *event;
	submit_flow_event(event);
}

/* connect() is called, or a connection was accepted. */
INLINE struct stream *begin(struct bpf_sock_ops *ctx, struct bpf_sock *socket, struct ends *ends, int arriving)
{
	struct stream *stream;

	if (options() & OPTION_NO_FLOWS || !concerns_us(socket, ends, arriving))
		return 0;
	stream = new_stream(socket);
	if (!stream) {
		count(COUNT_FLOW_UNCOUNTED);
		return 0;
	}
	__builtin_memset(stream, 0, sizeof(*stream));
	stream->opened = bpf_ktime_get_ns();
	stream->arriving = arriving;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	return stream;
}

INLINE void established(struct bpf_sock_ops *ctx, struct bpf_sock *socket, struct ends *ends, struct stream *stream)
{
	__u64 now = bpf_ktime_get_ns();

	stream->established = 1;
	stream->tallied = now;
	stream->path = path_of(socket, ends, stream->arriving);
	tally_stream(ctx, stream, ends, END_NONE, 1);
	if (stream->path == FLOW_CAPTURED)
		return;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG);
	if (!(stream->path & TOLD_BY_THE_AGENT))
		tell_stream(ctx, stream, ends, END_NONE, now);
}

INLINE enum flow_end end_of(struct stream *stream, __u32 state)
{
	if (stream->cause == END_DENIED)
		return END_DENIED;
	if (state == BPF_TCP_SYN_SENT)
		return stream->cause ? END_REFUSED : END_UNANSWERED;
	if (stream->cause)
		return END_RESET;
	return state == BPF_TCP_LAST_ACK || state == BPF_TCP_FIN_WAIT2 || state == BPF_TCP_CLOSING ||
			       state == BPF_TCP_TIME_WAIT
		       ? END_ORDERLY
		       : END_ABORTED;
}

INLINE void ended(struct bpf_sock_ops *ctx, struct bpf_sock *socket, struct stream *stream, __u32 state)
{
	enum flow_end end = end_of(stream, state);
	struct ends ends = {};

	ends_of(ctx, &ends);
	if (end == END_ORDERLY) {
		stream->fin_sent = 1;
		stream->fin_received = 1;
	}
	if (!stream->established)
		stream->path = path_of(socket, &ends, stream->arriving);
	tally_stream(ctx, stream, &ends, end, 1);
	if (stream->path & TOLD_BY_THE_AGENT)
		return;
	if (end != END_DENIED && (stream->path != FLOW_CAPTURED || end != END_ORDERLY))
		tell_stream(ctx, stream, &ends, end, bpf_ktime_get_ns());
}

INLINE void state_changes(struct bpf_sock_ops *ctx, struct bpf_sock *socket)
{
	__u32 before = ctx->args[0], after = ctx->args[1];
	struct stream *stream = stream_of(socket);

	if (!stream)
		return;
	if (after == BPF_TCP_CLOSE_WAIT || after == BPF_TCP_CLOSING)
		stream->fin_received = 1;
	else if (after == BPF_TCP_FIN_WAIT2)
		stream->fin_sent = 1;
	else if (after == BPF_TCP_CLOSE)
		ended(ctx, socket, stream, before);
}

INLINE void goes_on(struct bpf_sock_ops *ctx, struct bpf_sock *socket)
{
	struct stream *stream = stream_of(socket);
	__u64 now = bpf_ktime_get_ns();
	struct ends ends = {};

	if (!stream || now - stream->tallied < TALLY_EVERY)
		return;
	stream->tallied = now;
	ends_of(ctx, &ends);
	tally_stream(ctx, stream, &ends, END_NONE, 0);
}

SOCKET_PROGRAM int socket_flows(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *socket = ctx->sk;
	struct stream *stream = 0;
	struct ends ends = {};
	__u32 op = ctx->op;

	if (!socket)
		return 1;
	if (op == BPF_SOCK_OPS_TCP_LISTEN_CB) {
		note_listener(ctx, socket);
		return 1;
	}
	if (op == BPF_SOCK_OPS_STATE_CB) {
		state_changes(ctx, socket);
		return 1;
	}
	if (op == BPF_SOCK_OPS_RTT_CB) {
		goes_on(ctx, socket);
		return 1;
	}
	if (op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
	    op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	ends_of(ctx, &ends);
	if (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		stream = stream_of(socket);
	else
		stream = begin(ctx, socket, &ends, op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB);
	if (stream && op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		established(ctx, socket, &ends, stream);
	return 1;
}
