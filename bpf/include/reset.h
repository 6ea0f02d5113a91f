/* The answer of a closed port, made of the very packet that asks: connect() fails at once instead of waiting. Only for
 * what was read without oddities, so that all headers are where they usually are.
 *
 * Sums are changed by what changes, never made anew: that is right whether the packet's sum is complete or left to the
 * device. The options of the SYN stay; nobody reads them in a reset. */
#ifndef AMBIENT_RESET_H
#define AMBIENT_RESET_H

#include "contract.h"
#include "packet.h"

#define ANSWER_TTL 64
#define IPV4_TTL_OFFSET 8
#define IPV4_SUM_OFFSET 10
#define IPV4_ADDRESSES_OFFSET 12
#define IPV6_HOP_LIMIT_OFFSET 7
#define IPV6_ADDRESSES_OFFSET 8
#define TCP_SUM_OFFSET 16

#define BACK_TO_THE_NETWORK 0
#define BACK_TO_THE_POD BPF_F_INGRESS

struct tcp_start {
	__u16 source;
	__u16 destination;
	__u32 sequence;
	__u32 acknowledged;
	__u16 length_and_flags;
	__u16 window;
};

INLINE long swap_frame(struct __sk_buff *skb)
{
	__u8 addresses[2 * ETH_ALEN];
	long failed = bpf_skb_load_bytes(skb, 0, addresses, sizeof(addresses));

	failed |= bpf_skb_store_bytes(skb, 0, addresses + ETH_ALEN, ETH_ALEN, 0);
	return failed | bpf_skb_store_bytes(skb, ETH_ALEN, addresses, ETH_ALEN, 0);
}

/* Swapped addresses have the same sum. */
INLINE long swap_v4(struct __sk_buff *skb, struct packet *packet)
{
	__u32 addresses[2] = { packet->destination.word[3], packet->source.word[3] };
	__u16 before, after;
	long failed = bpf_skb_load_bytes(skb, ETH_HLEN + IPV4_TTL_OFFSET, &before, sizeof(before));

	after = (before & bpf_htons(0xff)) | bpf_htons(ANSWER_TTL << 8);
	failed |= bpf_l3_csum_replace(skb, ETH_HLEN + IPV4_SUM_OFFSET, before, after, sizeof(after));
	failed |= bpf_skb_store_bytes(skb, ETH_HLEN + IPV4_TTL_OFFSET, &after, sizeof(after), 0);
	return failed |
	       bpf_skb_store_bytes(skb, ETH_HLEN + IPV4_ADDRESSES_OFFSET, addresses, sizeof(addresses), 0);
}

INLINE long swap_v6(struct __sk_buff *skb, struct packet *packet)
{
	__u32 at = ETH_HLEN + IPV6_ADDRESSES_OFFSET;
	__u8 limit = ANSWER_TTL;
	long failed = bpf_skb_store_bytes(skb, at, &packet->destination, sizeof(packet->destination), 0);

	failed |= bpf_skb_store_bytes(skb, at + sizeof(packet->source), &packet->source, sizeof(packet->source), 0);
	return failed | bpf_skb_store_bytes(skb, ETH_HLEN + IPV6_HOP_LIMIT_OFFSET, &limit, sizeof(limit), 0);
}

INLINE long turn_segment(struct __sk_buff *skb, __u32 at)
{
	struct tcp_start asks = {}, answers = {};
	long failed = bpf_skb_load_bytes(skb, at, &asks, sizeof(asks));
	__u32 sum = at + TCP_SUM_OFFSET;

	answers.source = asks.destination;
	answers.destination = asks.source;
	answers.acknowledged = bpf_htonl(bpf_ntohl(asks.sequence) + 1);
	answers.length_and_flags =
		(asks.length_and_flags & bpf_htons(0xf000)) | bpf_htons(TCP_FLAG_RST | TCP_FLAG_ACK);
	failed |= bpf_l4_csum_replace(skb, sum, asks.sequence, 0, sizeof(asks.sequence));
	failed |= bpf_l4_csum_replace(skb, sum, asks.acknowledged, answers.acknowledged, sizeof(asks.acknowledged));
	failed |= bpf_l4_csum_replace(skb, sum, asks.length_and_flags, answers.length_and_flags,
				      sizeof(asks.length_and_flags));
	failed |= bpf_l4_csum_replace(skb, sum, asks.window, 0, sizeof(asks.window));
	return failed | bpf_skb_store_bytes(skb, at, &answers, sizeof(answers), 0);
}

/* The verdict that sends the answer `where`; what cannot be turned is dropped. */
INLINE int reset(struct __sk_buff *skb, struct packet *packet, __u64 where)
{
	__u32 size = packet->is_v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	long failed = swap_frame(skb);

	if (packet->is_v6)
		failed |= swap_v6(skb, packet);
	else
		failed |= swap_v4(skb, packet);
	failed |= turn_segment(skb, ETH_HLEN + size);
	if (failed)
		return TC_ACT_SHOT;
	skb->mark = 0;
	return bpf_redirect(skb->ifindex, where);
}

#endif
