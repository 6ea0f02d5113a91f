/* Reading a packet far enough to know whether it is ours to judge. Hostile input: a pod with CAP_NET_RAW writes every
 * byte of it, so that
 *  - the Ethernet type is read from the frame (skb->protocol is whatever the sender of a packet socket says);
 *  - everything is copied out with bpf_skb_load_bytes, which also reads what is not in the linear part;
 *  - what cannot be read to the TCP flags counts as an opening packet, which is then refused. */
#ifndef AMBIENT_PACKET_H
#define AMBIENT_PACKET_H

#include "contract.h"
#include "flow.h"
#include "../maps/counters.h"

enum packet_kind {
	PACKET_OTHER, /* never ours: ARP, ICMP's errors, neighbour discovery, UDP fragments, ... */
	PACKET_TCP,
	PACKET_UDP,
	PACKET_ICMP, /* a query or its answer */
};

struct packet {
	struct address source;
	struct address destination;
	__u16 source_port; /* network order, both */
	__u16 destination_port;
	__u8 is_v6;
	__u8 protocol; /* of UDP and ICMP only */
	__u8 piece;    /* a fragment of them, which is PACKET_OTHER */
	__u8 opening; /* SYN without ACK, or no way to know */
	__u8 syn;
	__u8 ack;
	__u8 reset;
	__u8 has_data; /* that somebody might be given: not that of a reset */
	enum counter oddity; /* the reason for which an opening packet is refused, or 0 */
};

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 6

#define TCP_LENGTH_OFFSET 12
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10

#define IPV4_MORE_OR_OFFSET 0x3fff /* of frag_off */

INLINE void map_v4(struct address *to, __u32 from)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = bpf_htonl(0xffff);
	to->word[3] = from;
}

INLINE int unreadable(struct packet *packet, enum counter reason)
{
	packet->opening = 1;
	packet->oddity = reason;
	return PACKET_TCP;
}

enum icmp_type {
	ICMP_ECHO_ANSWER = 0, /* RFC 792 */
	ICMP_ECHO = 8,
	ICMP_TIMESTAMP = 13,
	ICMP_TIMESTAMP_ANSWER = 14,
	ICMP6_ECHO = 128, /* RFC 4443 */
	ICMP6_ECHO_ANSWER = 129,
};

/* The identifier is the port of who asks. */
INLINE int read_icmp(struct __sk_buff *skb, __u32 at, __u8 protocol, struct packet *packet)
{
	__u16 header[3]; /* type and code, sum, identifier */
	__u8 type;

	if (bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return PACKET_OTHER;
	type = bpf_ntohs(header[0]) >> 8;
	packet->protocol = protocol;
	if (protocol == IPPROTO_ICMP ? type == ICMP_ECHO || type == ICMP_TIMESTAMP : type == ICMP6_ECHO)
		packet->source_port = header[2];
	else if (protocol == IPPROTO_ICMP ? type == ICMP_ECHO_ANSWER || type == ICMP_TIMESTAMP_ANSWER
					  : type == ICMP6_ECHO_ANSWER)
		packet->destination_port = header[2];
	else
		return PACKET_OTHER;
	return PACKET_ICMP;
}

/* `end`: where the packet ends in the frame, as its header says (0: it does not, the packet is huge). */
INLINE int read_transport(struct __sk_buff *skb, __u32 at, __u8 protocol, __u32 end, struct packet *packet)
{
	__u16 ports[2];
	__u8 length_and_flags[2];
	__u8 flags;

	if (protocol == (packet->is_v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return read_icmp(skb, at, protocol, packet);
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return PACKET_OTHER;
	if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return protocol == IPPROTO_TCP ? unreadable(packet, COUNT_REFUSED_UNREADABLE) : PACKET_OTHER;
	packet->source_port = ports[0];
	packet->destination_port = ports[1];
	if (protocol == IPPROTO_UDP) {
		packet->protocol = IPPROTO_UDP;
		return PACKET_UDP;
	}
	if (bpf_skb_load_bytes(skb, at + TCP_LENGTH_OFFSET, length_and_flags, sizeof(length_and_flags)))
		return unreadable(packet, COUNT_REFUSED_UNREADABLE);
	flags = length_and_flags[1];
	packet->ack = !!(flags & TCP_FLAG_ACK);
	packet->reset = !!(flags & TCP_FLAG_RST);
	packet->has_data = !packet->reset && (!end || end > at + (length_and_flags[0] >> 4) * 4);
	packet->syn = !!(flags & TCP_FLAG_SYN);
	packet->opening = packet->syn && !packet->ack;
	return PACKET_TCP;
}

INLINE int piece_of(struct packet *packet, __u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return unreadable(packet, COUNT_REFUSED_FRAGMENT);
	packet->protocol = protocol;
	packet->piece = 1;
	return PACKET_OTHER;
}

INLINE int read_v4(struct __sk_buff *skb, __u32 at, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return PACKET_OTHER; /* no kernel takes it for IPv4 either */
	map_v4(&packet->source, ip.saddr);
	map_v4(&packet->destination, ip.daddr);
	if (ip.frag_off & bpf_htons(IPV4_MORE_OR_OFFSET))
		return piece_of(packet, ip.protocol);
	if (ip.ihl > 5)
		packet->oddity = COUNT_REFUSED_OPTIONS;
	return read_transport(skb, at + ip.ihl * 4, ip.protocol, ip.tot_len ? at + bpf_ntohs(ip.tot_len) : 0, packet);
}

INLINE int is_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS ||
	       header == IPPROTO_FRAGMENT || header == IPPROTO_AH || header == IPPROTO_MH ||
	       header == 139 /* HIP */ || header == 140 /* Shim6 */;
}

INLINE int read_v6(struct __sk_buff *skb, __u32 at, struct packet *packet)
{
	struct ipv6hdr ip;
	__u8 extension[2]; /* next header, length */
	__u8 header;
	__u32 end;
	int i;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
		return PACKET_OTHER;
	end = ip.payload_len ? at + sizeof(ip) + bpf_ntohs(ip.payload_len) : 0;
	packet->is_v6 = 1;
	__builtin_memcpy(&packet->source, &ip.saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip.daddr, sizeof(packet->destination));
	header = ip.nexthdr;
	at += sizeof(ip);
#pragma unroll
	for (i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (!is_extension(header))
			return read_transport(skb, at, header, end, packet);
		packet->oddity = COUNT_REFUSED_EXTENSION_HEADER;
		if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
			return PACKET_OTHER; /* ends inside its headers: nobody can deliver it */
		if (header == IPPROTO_FRAGMENT)
			return is_extension(extension[0]) ? unreadable(packet, COUNT_REFUSED_FRAGMENT)
							  : piece_of(packet, extension[0]);
		at += header == IPPROTO_AH ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
		header = extension[0];
	}
	return is_extension(header) ? unreadable(packet, COUNT_REFUSED_EXTENSION_HEADER)
				    : read_transport(skb, at, header, end, packet);
}

INLINE void flow_of(struct packet *packet, struct flow *flow)
{
	flow->source = packet->source;
	flow->destination = packet->destination;
	flow->source_port = packet->source_port;
	flow->destination_port = packet->destination_port;
}

/* Fills `packet` (zeroed by the caller) and says what it is. */
INLINE int read_packet(struct __sk_buff *skb, struct packet *packet)
{
	__u32 at = 2 * ETH_ALEN;
	__u16 type;
	int kind, i;

	if (bpf_skb_load_bytes(skb, at, &type, sizeof(type)))
		return PACKET_OTHER;
	at = ETH_HLEN;
#pragma unroll
	for (i = 0; i < MAX_VLAN_TAGS; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (bpf_skb_load_bytes(skb, at + 2, &type, sizeof(type)))
			return PACKET_OTHER;
		at += 4;
	}
	if (type == bpf_htons(ETH_P_IP))
		kind = read_v4(skb, at, packet);
	else if (type == bpf_htons(ETH_P_IPV6))
		kind = read_v6(skb, at, packet);
	else
		kind = PACKET_OTHER; /* three tags and more: no receiver strips them without being set up for it */
	if (at != ETH_HLEN)
		packet->oddity = COUNT_REFUSED_VLAN;
	return kind;
}

#endif
