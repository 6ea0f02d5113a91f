/* On the look-up of listeners in a pod's namespace: give a packet to the socket that pod_ingress or pod_lo chose for it
 * and could not assign: an opening one whose four-tuple was in TIME_WAIT; before 6.6, whatever goes to a socket that may
 * share its port. Where that socket is not to be had any more the packet is dropped: it was not for the application, and
 * its sender repeats it. Everything else is looked up as ever. */
#include "include/dialect.h"
#include "include/packet.h"
#include "maps/reborn.h"
#include "maps/listeners.h"
#include "maps/reservations.h"

LOOKUP_PROGRAM int pod_lookup(struct bpf_sk_lookup *ctx)
{
	/* All fields are read before any is chosen: the compiler would otherwise choose between offsets of ctx, and the
	 * verifier refuses a computed one. */
	__u32 family = ctx->family, protocol = ctx->protocol;
	__u32 remote4 = ctx->remote_ip4, local4 = ctx->local_ip4;
	__u32 remote0 = ctx->remote_ip6[0], remote1 = ctx->remote_ip6[1];
	__u32 remote2 = ctx->remote_ip6[2], remote3 = ctx->remote_ip6[3];
	__u32 local0 = ctx->local_ip6[0], local1 = ctx->local_ip6[1];
	__u32 local2 = ctx->local_ip6[2], local3 = ctx->local_ip6[3];
	__u16 remote_port = ctx->remote_port, local_port = bpf_htons(ctx->local_port);
	struct look_up asked = {};
	struct bpf_sock *listener;
	__u64 name;
	int verdict = SK_DROP;

	asm volatile("" : "+r"(remote4), "+r"(remote0), "+r"(remote1), "+r"(remote2), "+r"(remote3));
	asm volatile("" : "+r"(local4), "+r"(local0), "+r"(local1), "+r"(local2), "+r"(local3));
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return SK_PASS;
	if (family == ADDRESS_FAMILY_V4) {
		map_v4(&asked.flow.source, remote4);
		map_v4(&asked.flow.destination, local4);
	} else {
		asked.flow.source.word[0] = remote0;
		asked.flow.source.word[1] = remote1;
		asked.flow.source.word[2] = remote2;
		asked.flow.source.word[3] = remote3;
		asked.flow.destination.word[0] = local0;
		asked.flow.destination.word[1] = local1;
		asked.flow.destination.word[2] = local2;
		asked.flow.destination.word[3] = local3;
	}
	asked.flow.source_port = remote_port;
	asked.flow.destination_port = local_port;
	asked.protocol = protocol;
	name = reserved_name(&asked);
	if (!name)
		return SK_PASS;
	listener = listener_called(&name);
	if (listener) {
		verdict = bpf_sk_assign(ctx, listener, 0) ? SK_DROP : SK_PASS;
		bpf_sk_release(listener);
	}
	return verdict;
}
