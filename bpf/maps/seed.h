/* seed: the key under which four-tuples are hashed (include/hash.h), random, the node's own.
 * Writer:  the loader, once, before any program is attached. Readers: all programs that look into reservations.
 * Entries: an array of one. It stays as long as the map: what was noted under another is not found.
 * Full:    cannot be. */
#ifndef AMBIENT_MAPS_SEED_H
#define AMBIENT_MAPS_SEED_H

#include "../include/contract.h"

struct seed {
	__u64 half[2];
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("array", __u32, struct seed, seed, 1, MAP_PIN("seed"));
INLINE struct seed *node_seed(void)
{
	__u32 first = 0;

	return seed.lookup(&first);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seed);
} seed SEC(".maps");
INLINE struct seed *node_seed(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&seed, &first);
}
#endif

#endif
