/* reservations: opening packets on their way from pod_ingress or pod_lo, which chose ztunnel's listener for them and could
 * not assign it, to pod_lookup, which gives them to it. A packet that is noted here is never the application's.
 * Writers: pod_ingress, pod_lo; pod_lookup takes out what it used. Reader: pod_lookup.
 * Entries: until used, or the next opening packet of that four-tuple, or until another needs the place and this one is
 *          older than RESERVED_FOR: the packet is looked up in the same step of the kernel in which it was noted, so what
 *          is older was dropped on the way (a wrong checksum) or belonged to nobody's new connection.
 * Full:    each four-tuple has RESERVED_ALIKE places, shared with those of its number. None is taken from a younger one:
 *          the opening packet is refused in the end, counted (COUNT_LISTENER_FULL), and its sender repeats it. */
#ifndef AMBIENT_MAPS_RESERVATIONS_H
#define AMBIENT_MAPS_RESERVATIONS_H

#include "../include/contract.h"
#include "../include/flow.h"
#include "config.h"
#include "counters.h"

#define RESERVED_FOR 1000000000LL /* ns */
#define RESERVED_ALIKE 4
#define RESERVATION_ROWS 4096

struct reservation {
	struct flow flow;
	__u64 since; /* ns, monotonic */
	__u64 name;  /* of the listener, where listeners have names */
};

struct reservation_row {
	struct bpf_spin_lock lock;
	__u32 unused;
	struct reservation places[RESERVED_ALIKE];
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("array", __u32, struct reservation_row, reservations, RESERVATION_ROWS, MAP_PIN("reservations"));
INLINE struct reservation_row *reservation_row_at(__u32 number)
{
	return reservations.lookup(&number);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RESERVATION_ROWS);
	__type(key, __u32);
	__type(value, struct reservation_row);
} reservations SEC(".maps");
INLINE struct reservation_row *reservation_row_at(__u32 number)
{
	return bpf_map_lookup_elem(&reservations, &number);
}
#endif

INLINE struct reservation_row *reservation_row_of(struct flow *flow)
{
	__u32 number = (__u32)flow->source_port << 16 | flow->destination_port;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		number = (number ^ flow->source.word[i]) * 0x9e3779b1;
		number ^= number >> 15;
		number = (number ^ flow->destination.word[i]) * 0x85ebca6b;
		number ^= number >> 13;
	}
	return reservation_row_at(number % RESERVATION_ROWS);
}

INLINE int is_same_flow(struct flow *one, struct flow *other)
{
	__u32 differ = (one->source_port ^ other->source_port) | (one->destination_port ^ other->destination_port);

#pragma unroll
	for (int i = 0; i < 4; i++) {
		differ |= one->source.word[i] ^ other->source.word[i];
		differ |= one->destination.word[i] ^ other->destination.word[i];
	}
	return !differ;
}

/* Where in the row the flow is; RESERVED_ALIKE: nowhere. With the lock held. */
INLINE __u32 place_of(struct reservation_row *row, struct flow *flow)
{
	__u32 place = RESERVED_ALIKE;

#pragma unroll
	for (__u32 i = 0; i < RESERVED_ALIKE; i++)
		if (is_same_flow(&row->places[i].flow, flow))
			place = i;
	return place;
}

/* A place that is its own, or that nobody needs any more. With the lock held. */
INLINE __u32 free_place_for(struct reservation_row *row, struct flow *flow, __u64 now)
{
	__u32 place = place_of(row, flow);

#pragma unroll
	for (__u32 i = 0; i < RESERVED_ALIKE; i++)
		if (place == RESERVED_ALIKE && (__s64)(now - row->places[i].since) > RESERVED_FOR)
			place = i;
	return place;
}

/* Not 0 where there is no place, or nobody who would look. `former`: whose place it was (all zero: nobody's). */
INLINE int reserve(struct flow *flow, __u64 name, struct flow *former)
{
	struct reservation_row *row = reservation_row_of(flow);
	__u64 now = bpf_ktime_get_ns();
	__u32 place;

	if (!row || options() & OPTION_EXCHANGING)
		return -1;
	bpf_spin_lock(&row->lock);
	place = free_place_for(row, flow, now);
	if (place < RESERVED_ALIKE) {
		*former = row->places[place].flow;
		row->places[place].flow = *flow;
		row->places[place].since = now;
		row->places[place].name = name;
	}
	bpf_spin_unlock(&row->lock);
	if (place < RESERVED_ALIKE)
		return 0;
	count(COUNT_LISTENER_FULL);
	return -1;
}

INLINE int is_reserved(struct flow *flow, __u64 *name)
{
	struct reservation_row *row = reservation_row_of(flow);
	__u32 place;

	if (!row)
		return 0;
	bpf_spin_lock(&row->lock);
	place = place_of(row, flow);
	if (place < RESERVED_ALIKE)
		*name = row->places[place].name;
	bpf_spin_unlock(&row->lock);
	return place < RESERVED_ALIKE;
}

INLINE void forget_reservation(struct flow *flow)
{
	struct reservation_row *row = reservation_row_of(flow);
	__u32 place;

	if (!row)
		return;
	bpf_spin_lock(&row->lock);
	place = place_of(row, flow);
	if (place < RESERVED_ALIKE)
		__builtin_memset(&row->places[place], 0, sizeof(row->places[place]));
	bpf_spin_unlock(&row->lock);
}

#endif
