/* Who sent a packet. A mark is a claim that anybody with CAP_NET_RAW or CAP_NET_ADMIN can make; the cgroup of the
 * sending socket is a fact that a container cannot change. It is asked of opening packets only: they always carry a
 * full socket (answers of half-open connections and of TIME_WAIT carry none). */
#ifndef AMBIENT_SENDERS_H
#define AMBIENT_SENDERS_H

#include "contract.h"
#include "../maps/config.h"
#include "../maps/owners.h"

INLINE int sent_by(struct __sk_buff *skb, __u32 roles)
{
	return !!(roles_of(bpf_skb_cgroup_id(skb)) & roles);
}

INLINE int mark_is_enough(void)
{
	return !!(options() & OPTION_MARK_ALONE);
}

#endif
