/* SipHash-1-3 under the node's own key (maps/seed.h): who does not know the key can tell neither which row what he sends
 * has nor what else has it. */
#ifndef AMBIENT_HASH_H
#define AMBIENT_HASH_H

#include "contract.h"
#include "flow.h"
#include "../maps/seed.h"

/* v: the four words of its state. */
INLINE void sip_round(__u64 *v)
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = (v[1] << 13 | v[1] >> 51) ^ v[0];
	v[3] = (v[3] << 16 | v[3] >> 48) ^ v[2];
	v[0] = v[0] << 32 | v[0] >> 32;
	v[2] += v[1];
	v[0] += v[3];
	v[1] = (v[1] << 17 | v[1] >> 47) ^ v[2];
	v[3] = (v[3] << 21 | v[3] >> 43) ^ v[0];
	v[2] = v[2] << 32 | v[2] >> 32;
}

INLINE void sip_word(__u64 *v, __u64 word)
{
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
}

INLINE __u64 two_words(__u32 first, __u32 second)
{
	return (__u64)second << 32 | first;
}

/* Of the octets of a look_up, as they lie in memory. */
INLINE __u64 hash_of(struct look_up *asked)
{
	struct flow *flow = &asked->flow;
	struct seed *seed = node_seed();
	__u64 first = seed ? seed->half[0] : 0, second = seed ? seed->half[1] : 0;
	__u64 v[4] = {
		first ^ 0x736f6d6570736575, second ^ 0x646f72616e646f6d,
		first ^ 0x6c7967656e657261, second ^ 0x7465646279746573,
	};

	sip_word(v, two_words(flow->source.word[0], flow->source.word[1]));
	sip_word(v, two_words(flow->source.word[2], flow->source.word[3]));
	sip_word(v, two_words(flow->destination.word[0], flow->destination.word[1]));
	sip_word(v, two_words(flow->destination.word[2], flow->destination.word[3]));
	sip_word(v, two_words((__u32)flow->destination_port << 16 | flow->source_port, asked->protocol));
	sip_word(v, (__u64)sizeof(*asked) << 56);
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
