/* What has no connections, added up by packet: UDP, and ICMP queries with their answers (the identifier stands for the
 * port of who asks, the other one is 0). ICMP's errors and what keeps a link running are nobody's talk. */
#ifndef AMBIENT_DATAGRAMS_H
#define AMBIENT_DATAGRAMS_H

#include "contract.h"
#include "packet.h"
#include "../maps/config.h"
#include "../maps/flow_pace.h"
#include "../maps/pods.h"
#include "../maps/talks.h"
#include "../maps/tallies.h"

INLINE void tell_talk(struct talk *talk, enum flow_path path, __u32 size, __u64 now)
{
	struct flow_pace *pace = flow_pace_of_this_cpu();
	struct flow_event *event = begin_flow_event(pace, now);

	if (!pace || !event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->time = now;
	event->source = talk->flow.source;
	event->destination = talk->flow.destination;
	event->source_port = talk->flow.source_port;
	event->destination_port = talk->flow.destination_port;
	event->protocol = talk->protocol;
	event->arriving = talk->arriving;
	event->path = path;
	event->end = END_NONE;
	event->opened = now;
	event->bytes_sent = size;
	event->packets_sent = 1;
	pace->last = *event;
	submit_flow_event(event);
}

INLINE void tally_talk(struct talk *talk, enum flow_path path, __u32 size, int answer, int first)
{
	struct tally_key key = {};
	struct tally *line;

	key.source = talk->flow.source;
	key.destination = talk->flow.destination;
	key.port = talk->flow.destination_port;
	key.protocol = talk->protocol;
	key.arriving = talk->arriving;
	key.path = path;
	line = tally_of(&key);
	if (!line)
		return;
	if (first)
		__sync_fetch_and_add(&line->flows, 1);
	__sync_fetch_and_add(answer ? &line->bytes_received : &line->bytes_sent, size);
	__sync_fetch_and_add(answer ? &line->packets_received : &line->packets_sent, 1);
}

INLINE void turned(struct packet *packet, struct talk *talk)
{
	talk->flow.source = packet->destination;
	talk->flow.destination = packet->source;
	talk->flow.source_port = packet->destination_port;
	talk->flow.destination_port = packet->source_port;
	talk->protocol = packet->protocol;
}

enum talk_part {
	FIRST_WORD,
	MORE_OF_IT,
	ANSWER,
};

/* Which part of which talk is it? It is asked for as an answer first, then as more of the same. */
INLINE enum talk_part part_of(struct packet *packet, int arriving, struct talk *talk, __u64 now)
{
	turned(packet, talk);
	talk->arriving = !arriving;
	if (goes_on_since(talk, now))
		return ANSWER;
	flow_of(packet, &talk->flow);
	talk->arriving = arriving;
	if (goes_on_since(talk, now) || goes_on_in_crowd(talk, now))
		return MORE_OF_IT;
	turned(packet, talk);
	talk->arriving = !arriving;
	if (goes_on_in_crowd(talk, now))
		return ANSWER;
	flow_of(packet, &talk->flow);
	talk->arriving = arriving;
	return FIRST_WORD;
}

/* A packet passes a pod's interface. */
INLINE void datagram(struct __sk_buff *skb, struct packet *packet, int arriving)
{
	enum flow_path path = skb->mark == PROXY_MARK ? FLOW_PASSTHROUGH : FLOW_DIRECT;
	__u32 size = skb->len - ETH_HLEN;
	__u64 now = bpf_ktime_get_ns();
	struct talk talk = {};
	enum talk_part part = part_of(packet, arriving, &talk, now);

	if (part == FIRST_WORD)
		begin_talk(&talk, arriving ? &packet->destination : &packet->source, now);
	if (options() & OPTION_NO_FLOWS)
		return;
	tally_talk(&talk, path, size, part == ANSWER, part == FIRST_WORD);
	if (part == FIRST_WORD)
		tell_talk(&talk, path, size, now);
}

/* At the node's end of the sender's veth. A pod that may write packets can make up in its own namespace what another one
 * asks; that would not come by here, by the other's interface. What answers somebody is no question. */
INLINE void note_question(struct __sk_buff *skb, struct packet *packet)
{
	struct pod_row *row = pod_of(&packet->source);
	__u64 now = bpf_ktime_get_ns();
	struct talk talk = {};

	if (!row || (row->host_ifindex && row->host_ifindex != skb->ifindex))
		return;
	turned(packet, &talk);
	talk.arriving = ARRIVING;
	if (goes_on_since(&talk, now) || goes_on_in_crowd(&talk, now))
		return;
	flow_of(packet, &talk.flow);
	talk.arriving = TALK_ASKED;
	if (!goes_on_since(&talk, now) && !goes_on_in_crowd(&talk, now))
		begin_talk(&talk, &packet->source, now);
}

/* Is it for a pod that spoke first? */
INLINE int answers_the_pod(struct packet *packet)
{
	struct talk talk = {};
	__u64 now = bpf_ktime_get_ns();

	turned(packet, &talk);
	talk.arriving = TALK_ASKED;
	return goes_on_since(&talk, now) || goes_on_in_crowd(&talk, now);
}

#endif
