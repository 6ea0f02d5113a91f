/* events: what the programs tell of single packets: what they refused, what went in clear text; pace keeps each CPU to
 * EVENTS_PER_SECOND, so that a flood costs its reader no more than that.
 * Writers: pod_egress, pod_ingress, host_egress; of flows (flow_pace.h) the first two and socket_flows. Reader: the agent.
 *          (pace is the programs' own.)
 * Entries: a ring of bytes, read in order; whoever does not read loses the newest.
 * Full:    the event is lost and counted (COUNT_EVENT_LOST, COUNT_EVENT_THINNED). The totals per reason and per policy are
 *          kept elsewhere (counters, shadow) and are always whole. */
#ifndef AMBIENT_MAPS_EVENTS_H
#define AMBIENT_MAPS_EVENTS_H

#include "../include/contract.h"
#include "../include/packet.h"
#include "counters.h"

#define EVENTS_BYTES (1 << 18)
#define EVENTS_PER_SECOND 500
#define ONE_SECOND 1000000000ULL

struct event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	struct address source;
	struct address destination;
	__u16 source_port; /* network order, both */
	__u16 destination_port;
	__u32 reason; /* enum counter */
	__u32 rule;   /* by the agent's number; 0: none */
	__u32 size;   /* of the packet */
	__u32 arriving;
};

struct pace {
	__u64 since;
	__u64 told;
	struct event last; /* a sample for whoever looks at a node without a reader */
};

#ifdef AMBIENT_BCC
/* BPF_RINGBUF_OUTPUT with a pin, which bcc has no macro for. */
struct events_table {
	int key;
	__u32 leaf;
	int (*ringbuf_output)(void *, u64, u64);
	void *(*ringbuf_reserve)(u64);
	void (*ringbuf_discard)(void *, u64);
	void (*ringbuf_submit)(void *, u64);
	__u32 max_entries;
};
__attribute__((section("maps/ringbuf:" MAP_PIN("events")))) struct events_table events = { .max_entries = EVENTS_BYTES };
BPF_TABLE_PINNED("percpu_array", __u32, struct pace, pace, 1, MAP_PIN("pace"));
INLINE struct pace *pace_of_this_cpu(void)
{
	__u32 first = 0;

	return pace.lookup(&first);
}
INLINE struct event *reserve_event(void)
{
	return events.ringbuf_reserve(sizeof(struct event));
}
INLINE void submit_event(struct event *event)
{
	events.ringbuf_submit(event, 0);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_BYTES);
} events SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pace);
} pace SEC(".maps");
INLINE struct pace *pace_of_this_cpu(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&pace, &first);
}
INLINE struct event *reserve_event(void)
{
	return bpf_ringbuf_reserve(&events, sizeof(struct event), 0);
}
INLINE void submit_event(struct event *event)
{
	bpf_ringbuf_submit(event, 0);
}
#endif

/* One more within the second that began at `since`, of so many at the most? */
INLINE int keeps_pace(__u64 *since, __u64 *told, __u64 now, __u64 most)
{
	if (now - *since >= ONE_SECOND) {
		*since = now;
		*told = 0;
	}
	if (*told >= most)
		return 0;
	*told += 1;
	return 1;
}

#define ARRIVING 1
#define LEAVING 0

INLINE void tell(struct __sk_buff *skb, struct packet *packet, enum counter reason, __u32 rule, __u32 arriving)
{
	__u64 now = bpf_ktime_get_ns();
	struct pace *pace = pace_of_this_cpu();
	struct event *event;

	if (!pace || !keeps_pace(&pace->since, &pace->told, now, EVENTS_PER_SECOND)) {
		count(COUNT_EVENT_THINNED);
		return;
	}
	event = reserve_event();
	if (!event) {
		count(COUNT_EVENT_LOST);
		return;
	}
	event->time = now;
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->reason = reason;
	event->rule = rule;
	event->size = skb->len;
	event->arriving = arriving;
	pace->last = *event;
	submit_event(event);
}

#endif
