/* Resets that arrive: why a socket is about to end. Whether they are believed is the kernel's to say; a socket that goes on
 * after a forged one is told as reset when it ends otherwise than in order. */
#ifndef AMBIENT_RESETS_H
#define AMBIENT_RESETS_H

#include "contract.h"
#include "packet.h"
#include "sockets.h"
#include "../maps/streams.h"

/* No segment without data is longer, whatever options of TCP it carries: resets, opening packets. */
#define LONGEST_BARE (ETH_HLEN + sizeof(struct ipv6hdr) + 60)

INLINE void note_reset(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_sock *socket = receiver_of(skb, packet);
	struct bpf_sock *full;

	if (!socket)
		return;
	full = bpf_sk_fullsock(socket);
	if (full)
		note_cause(full, END_RESET);
	bpf_sk_release(socket);
}

#endif
