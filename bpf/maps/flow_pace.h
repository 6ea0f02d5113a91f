/* flow_pace: keeps what each CPU tells of single flows to FLOWS_PER_SECOND; the tallies tell of all of them.
 * Writers and readers: socket_flows, pod_egress, pod_ingress.
 * Entries: one, per CPU.
 * Full:    what is more is not told singly, which is counted (COUNT_EVENT_FLOW_THINNED); so is what finds the ring of
 *          events full (COUNT_EVENT_FLOW_LOST). */
#ifndef AMBIENT_MAPS_FLOW_PACE_H
#define AMBIENT_MAPS_FLOW_PACE_H

#include "../include/contract.h"
#include "events.h"
#include "tallies.h"

#define FLOWS_PER_SECOND 100

/* In the ring of events, told from struct event by its length. */
struct flow_event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	struct address source; /* who opened */
	struct address destination;
	__u16 source_port; /* network order, both */
	__u16 destination_port;
	__u8 protocol;
	__u8 arriving;
	__u16 unused;
	enum flow_path path;
	enum flow_end end;
	__u64 opened; /* as time */
	__u64 bytes_sent; /* by the source */
	__u64 bytes_received;
	__u32 packets_sent;
	__u32 packets_received;
	__u32 retransmitted;
	__u32 rtt; /* us; 0: not known */
};

struct flow_pace {
	__u64 since;
	__u64 told;
	struct flow_event last; /* a sample, as in pace */
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("percpu_array", __u32, struct flow_pace, flow_pace, 1, MAP_PIN("flow_pace"));
INLINE struct flow_pace *flow_pace_of_this_cpu(void)
{
	__u32 first = 0;

	return flow_pace.lookup(&first);
}
INLINE struct flow_event *reserve_flow_event(void)
{
	return events.ringbuf_reserve(sizeof(struct flow_event));
}
INLINE void submit_flow_event(struct flow_event *event)
{
	events.ringbuf_submit(event, 0);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_pace);
} flow_pace SEC(".maps");
INLINE struct flow_pace *flow_pace_of_this_cpu(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&flow_pace, &first);
}
INLINE struct flow_event *reserve_flow_event(void)
{
	return bpf_ringbuf_reserve(&events, sizeof(struct flow_event), 0);
}
INLINE void submit_flow_event(struct flow_event *event)
{
	bpf_ringbuf_submit(event, 0);
}
#endif

/* Room to tell of a flow singly; 0: it is counted that it is not. */
INLINE struct flow_event *begin_flow_event(struct flow_pace *pace, __u64 now)
{
	struct flow_event *event;

	if (!pace || !keeps_pace(&pace->since, &pace->told, now, FLOWS_PER_SECOND)) {
		count(COUNT_EVENT_FLOW_THINNED);
		return 0;
	}
	event = reserve_flow_event();
	if (!event)
		count(COUNT_EVENT_FLOW_LOST);
	return event;
}

#endif
