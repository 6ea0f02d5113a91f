/* reservations: opening packets and name queries on their way from pod_ingress or pod_lo, which chose ztunnel's socket for
 * them and could not assign it, to pod_lookup, which gives them to it. What is noted here is never the application's,
 * however often and however late it is looked up: two equal packets on two CPUs, or nftables before the kernel, look
 * up twice what was noted once.
 * Writers: pod_ingress, pod_lo. Reader: pod_lookup, which writes when it has looked the first time.
 * Entries: until the next packet of that four-tuple that may go to the application, or until another needs the place and
 *          this one was first looked up USED_FOR ago, or noted RESERVED_FOR ago: the packet is looked up in the same step
 *          of the kernel in which it was noted, so what nobody has asked for by then was dropped on the way (a wrong
 *          checksum) or belonged to nobody's new connection. Of such the one that was noted first makes way.
 * Full:    each four-tuple has RESERVED_ALIKE places, shared with those of its number, which nobody can work out
 *          (include/hash.h). None is taken from a younger one: the opening packet is refused in the end, counted
 *          (COUNT_LISTENER_FULL), and its sender repeats it. */
#ifndef AMBIENT_MAPS_RESERVATIONS_H
#define AMBIENT_MAPS_RESERVATIONS_H

#include "../include/contract.h"
#include "../include/flow.h"
#include "../include/hash.h"
#include "config.h"
#include "counters.h"

#define RESERVED_FOR 1000000000LL /* ns, both */
#define USED_FOR 100000000LL
#define RESERVED_ALIKE 4
#define RESERVATION_ROWS 4096

struct reservation {
	struct look_up asked;
	__u64 since; /* when it was noted: ns, monotonic */
	__u64 used;  /* when it was looked up first; 0: not yet */
	__u64 name;  /* of the listener (reborn.h, listeners.h): never 0 */
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

INLINE struct reservation_row *reservation_row_of(struct look_up *asked)
{
	return reservation_row_at(hash_of(asked) % RESERVATION_ROWS);
}

INLINE int is_same(struct look_up *one, struct look_up *other)
{
	__u32 differ = one->protocol ^ other->protocol;

	differ |= one->flow.source_port ^ other->flow.source_port;
	differ |= one->flow.destination_port ^ other->flow.destination_port;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		differ |= one->flow.source.word[i] ^ other->flow.source.word[i];
		differ |= one->flow.destination.word[i] ^ other->flow.destination.word[i];
	}
	return !differ;
}

/* Where in the row it is; RESERVED_ALIKE: nowhere. With the lock held. */
INLINE __u32 place_of(struct reservation_row *row, struct look_up *asked)
{
	__u32 place = RESERVED_ALIKE;

#pragma unroll
	for (__u32 i = 0; i < RESERVED_ALIKE; i++)
		if (is_same(&row->places[i].asked, asked))
			place = i;
	return place;
}

INLINE int makes_way(struct reservation *place, __u64 now)
{
	__s64 unused_for = now - place->since, used_for = now - place->used;

	return place->used ? used_for > USED_FOR : unused_for > RESERVED_FOR;
}

/* A place that is its own, or the oldest that makes way. With the lock held. */
INLINE __u32 place_for(struct reservation_row *row, struct look_up *asked, __u64 now)
{
	__u32 place = place_of(row, asked);
	__u64 oldest = ~0ULL;

	if (place < RESERVED_ALIKE)
		return place;
#pragma unroll
	for (__u32 i = 0; i < RESERVED_ALIKE; i++) {
		if (!makes_way(&row->places[i], now) || row->places[i].since >= oldest)
			continue;
		oldest = row->places[i].since;
		place = i;
	}
	return place;
}

/* Not 0 where there is no place, or nobody who would look. */
INLINE int reserve(struct look_up *asked, __u64 name)
{
	struct reservation_row *row = reservation_row_of(asked);
	__u64 now = bpf_ktime_get_ns();
	__u32 place;

	if (!row || options() & OPTION_EXCHANGING)
		return -1;
	bpf_spin_lock(&row->lock);
	place = place_for(row, asked, now);
	if (place < RESERVED_ALIKE) {
		row->places[place].asked = *asked;
		row->places[place].since = now;
		row->places[place].used = 0;
		row->places[place].name = name;
	}
	bpf_spin_unlock(&row->lock);
	if (place < RESERVED_ALIKE)
		return 0;
	count(COUNT_LISTENER_FULL);
	return -1;
}

/* The name of the listener that is to have it; 0: it is not noted. */
INLINE __u64 reserved_name(struct look_up *asked)
{
	struct reservation_row *row = reservation_row_of(asked);
	__u64 name = 0, now = bpf_ktime_get_ns();
	__u32 place;

	if (!row)
		return 0;
	bpf_spin_lock(&row->lock);
	place = place_of(row, asked);
	if (place < RESERVED_ALIKE) {
		name = row->places[place].name;
		if (!row->places[place].used)
			row->places[place].used = now;
	}
	bpf_spin_unlock(&row->lock);
	return name;
}

/* What comes next on this four-tuple may go to the application. */
INLINE void forget_reservation(struct look_up *asked)
{
	struct reservation_row *row = reservation_row_of(asked);
	__u32 place;

	if (!row)
		return;
	bpf_spin_lock(&row->lock);
	place = place_of(row, asked);
	if (place < RESERVED_ALIKE)
		__builtin_memset(&row->places[place], 0, sizeof(row->places[place]));
	bpf_spin_unlock(&row->lock);
}

#endif
