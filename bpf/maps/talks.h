/* talks: who spoke first, of what has no connections (UDP, ICMP queries), so that an answer is known from a question.
 * Writers and readers: pod_egress and pod_ingress, which add up; host_ingress, and host_egress that lets answers pass:
 * those have entries of their own (TALK_ASKED), as a pod can write any packet in its own namespace.
 * Entries: one that is older than TALK_LIFETIME counts as none; every packet of either side keeps it young.
 * Full:    LRU; a talk that loses its entry begins anew with its next packet, from the side that sends that.
 *
 * talks_crowd: the same for pods that begin more than TALKS_OF_A_POD in TALK_LIFETIME (COUNT_BEYOND_SHARE_TALKS): they
 *              push out each other's, and nobody else's.
 * talk_shares: how many each pod began of late. LRU. */
#ifndef AMBIENT_MAPS_TALKS_H
#define AMBIENT_MAPS_TALKS_H

#include "../include/contract.h"
#include "../include/flow.h"
#include "counters.h"

#define TALK_LIFETIME 60000000000ULL /* ns */
#define TALK_REFRESH 1000000000ULL
#define TALK_ASKED 2 /* `arriving` of what came out of the interface of the pod that it says it is from */

struct talk {
	struct flow flow; /* as the first packet had it */
	__u16 protocol;
	__u16 arriving; /* the first packet came to the pod whose view this is; or TALK_ASKED */
};

struct talk_share {
	__u64 since; /* ns, monotonic */
	__u64 begun; /* since then, in talks */
};

#define TALKS_OF_A_POD 2048

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("lru_hash", struct talk, __u64, talks, 65536, MAP_PIN("talks"));
BPF_TABLE_PINNED("lru_hash", struct talk, __u64, talks_crowd, 65536, MAP_PIN("talks_crowd"));
BPF_TABLE_PINNED("lru_hash", struct address, struct talk_share, talk_shares, 16384, MAP_PIN("talk_shares"));
INLINE __u64 *last_of(struct talk *talk)
{
	return talks.lookup(talk);
}
INLINE __u64 *last_in_crowd(struct talk *talk)
{
	return talks_crowd.lookup(talk);
}
INLINE void put_talk(struct talk *talk, __u64 now)
{
	talks.update(talk, &now);
}
INLINE void put_in_crowd(struct talk *talk, __u64 now)
{
	talks_crowd.update(talk, &now);
}
INLINE struct talk_share *talk_share_of(struct address *pod)
{
	return talk_shares.lookup(pod);
}
INLINE void put_talk_share(struct address *pod, struct talk_share *share)
{
	talk_shares.update(pod, share);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct talk);
	__type(value, __u64);
} talks SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct talk);
	__type(value, __u64);
} talks_crowd SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address);
	__type(value, struct talk_share);
} talk_shares SEC(".maps");
INLINE __u64 *last_of(struct talk *talk)
{
	return bpf_map_lookup_elem(&talks, talk);
}
INLINE __u64 *last_in_crowd(struct talk *talk)
{
	return bpf_map_lookup_elem(&talks_crowd, talk);
}
INLINE void put_talk(struct talk *talk, __u64 now)
{
	bpf_map_update_elem(&talks, talk, &now, BPF_ANY);
}
INLINE void put_in_crowd(struct talk *talk, __u64 now)
{
	bpf_map_update_elem(&talks_crowd, talk, &now, BPF_ANY);
}
INLINE struct talk_share *talk_share_of(struct address *pod)
{
	return bpf_map_lookup_elem(&talk_shares, pod);
}
INLINE void put_talk_share(struct address *pod, struct talk_share *share)
{
	bpf_map_update_elem(&talk_shares, pod, share, BPF_ANY);
}
#endif

INLINE int is_young(__u64 *last, __u64 now)
{
	if (!last || now - *last >= TALK_LIFETIME)
		return 0;
	if (now - *last >= TALK_REFRESH)
		*last = now;
	return 1;
}

/* Is it going on? Then it goes on from now. */
INLINE int goes_on_since(struct talk *talk, __u64 now)
{
	return is_young(last_of(talk), now);
}

INLINE int goes_on_in_crowd(struct talk *talk, __u64 now)
{
	return is_young(last_in_crowd(talk), now);
}

/* `pod`: at whose interface it begins. */
INLINE void begin_talk(struct talk *talk, struct address *pod, __u64 now)
{
	struct talk_share *share = talk_share_of(pod);
	struct talk_share first = {};

	if (!share || now - share->since >= TALK_LIFETIME) {
		first.since = now;
		first.begun = 1;
		put_talk_share(pod, &first);
	} else if (share->begun >= TALKS_OF_A_POD) {
		count(COUNT_BEYOND_SHARE_TALKS);
		put_in_crowd(talk, now);
		return;
	} else {
		__sync_fetch_and_add(&share->begun, 1);
	}
	put_talk(talk, now);
}

#endif
