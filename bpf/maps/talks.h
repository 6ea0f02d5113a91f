/* talks: who spoke first, of what has no connections (UDP, ICMP queries), so that an answer is known from a question.
 * Writers and readers: pod_egress and pod_ingress, which add up; host_ingress, and host_egress that lets answers pass:
 * those have entries of their own (TALK_ASKED), as a pod can write any packet in its own namespace.
 * Entries: one that is older than TALK_LIFETIME counts as none; every packet of either side keeps it young.
 * Full:    LRU; a talk that loses its entry begins anew with its next packet, from the side that sends that. */
#ifndef AMBIENT_MAPS_TALKS_H
#define AMBIENT_MAPS_TALKS_H

#include "../include/contract.h"
#include "../include/flow.h"

#define TALK_LIFETIME 60000000000ULL /* ns */
#define TALK_REFRESH 1000000000ULL
#define TALK_ASKED 2 /* `arriving` of what came out of the interface of the pod that it says it is from */

struct talk {
	struct flow flow; /* as the first packet had it */
	__u16 protocol;
	__u16 arriving; /* the first packet came to the pod whose view this is; or TALK_ASKED */
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("lru_hash", struct talk, __u64, talks, 65536, MAP_PIN("talks"));
INLINE __u64 *last_of(struct talk *talk)
{
	return talks.lookup(talk);
}
INLINE void begin_talk(struct talk *talk, __u64 now)
{
	talks.update(talk, &now);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct talk);
	__type(value, __u64);
} talks SEC(".maps");
INLINE __u64 *last_of(struct talk *talk)
{
	return bpf_map_lookup_elem(&talks, talk);
}
INLINE void begin_talk(struct talk *talk, __u64 now)
{
	bpf_map_update_elem(&talks, talk, &now, BPF_ANY);
}
#endif

/* Is it going on? Then it goes on from now. */
INLINE int goes_on_since(struct talk *talk, __u64 now)
{
	__u64 *last = last_of(talk);

	if (!last || now - *last >= TALK_LIFETIME)
		return 0;
	if (now - *last >= TALK_REFRESH)
		*last = now;
	return 1;
}

#endif
