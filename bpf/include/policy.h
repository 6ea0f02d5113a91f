/* What policy is known to refuse of an opening packet. The rows are made of the same policies by the agent; whatever
 * they do not decide is ztunnel's to judge. */
#ifndef AMBIENT_POLICY_H
#define AMBIENT_POLICY_H

#include "contract.h"
#include "packet.h"
#include "sockets.h"
#include "../maps/deny.h"
#include "../maps/policy_lease.h"
#include "../maps/shadow.h"

/* What the rows of any port and of this port say together. */
struct judgement {
	__u32 bits;
	__u32 rule;
};

INLINE int denies(struct judgement *judged)
{
	if (judged->bits & DENY_BIT_REFUSES)
		return 1;
	return (judged->bits & DENY_BIT_NEEDS_ALLOW) && !(judged->bits & DENY_BIT_ALLOWS);
}

INLINE struct deny_row *row_of_port(void *rows, __u16 port, struct address *peer)
{
	struct deny_row *row = deny_row_of(rows, port, peer);

	return row ? row : deny_row_of(rows, DENY_OTHER_PORT, peer);
}

/* The dry-run policies: each set that matches is counted as the definition (dry_run_naive) tells them. */
INLINE void shade(struct deny_table *table, struct address *peer, __u16 port, struct judgement *judged)
{
	void *rows = deny_rows_of(table);
	struct deny_row *any, *own;
	__u32 allows = 0;

	if (!rows)
		return;
	any = deny_row_of(rows, DENY_ANY_PORT, peer);
	if (!any)
		return;
	own = row_of_port(rows, port, peer);
	if (own) {
		count_set(own->rule);
		allows = own->allows;
	}
	if (judged->bits & DENY_BIT_REFUSES)
		return;
	count_set(allows);
	if (!allows && !(judged->bits & DENY_BIT_NEEDS_ALLOW))
		count_set(any->unmatched);
}

/* What the rows of a table say of this peer and port (host order); 0: they say nothing of it. */
INLINE int judge_by(void *rows, struct address *peer, __u16 port, struct judgement *judged)
{
	struct deny_row *any = deny_row_of(rows, DENY_ANY_PORT, peer);
	struct deny_row *own;

	if (!any)
		return 0;
	judged->bits = any->bits;
	judged->rule = any->rule;
	own = row_of_port(rows, port, peer);
	if (own) {
		if (own->bits & ~judged->bits & DENY_BIT_REFUSES)
			judged->rule = own->rule;
		judged->bits |= own->bits;
	}
	return 1;
}

/* Are the rows to be asked about this opening packet? When no agent has vouched for them for minutes they may refuse what
 * policy allows by now. Then ztunnel judges alone, which knows; where it does not listen on `port` (host order), nobody
 * would. */
INLINE int rows_count(struct __sk_buff *skb, struct packet *packet, __u16 port)
{
	__u64 until = policy_leased_until();

	if (!until || bpf_ktime_get_ns() < until || !has_listener(skb, packet, port))
		return 1;
	count(COUNT_LAPSED_POLICY);
	return 0;
}

/* Is a connection of this pod, to or from this peer, known to be refused? `port`: the destination's, network order. If so
 * it is counted for the policy whose doing it is, and `rule` is that policy's number. */
INLINE int is_denied(struct address *pod, enum deny_side side, struct address *peer, __u16 port, __u32 *rule)
{
	struct deny_table table = {};
	struct judgement judged = {};
	void *rows;

	table.pod = *pod;
	table.side = side;
	port = bpf_ntohs(port);
	rows = deny_rows_of(&table);
	if (!rows || !judge_by(rows, peer, port, &judged))
		return 0;
	table.side = side == DENY_OUT ? DENY_SHADOW_OUT : DENY_SHADOW_IN;
	shade(&table, peer, port, &judged);
	if (!denies(&judged))
		return 0;
	*rule = judged.rule;
	count_set(judged.rule);
	return 1;
}

/* Is a datagram to this pod refused? `side` is that of nobody's identity, the next one that of proven ones; what those
 * rows do not tell is judged as nobody's. */
INLINE int datagram_is_denied(struct address *pod, enum deny_side side, struct packet *packet, int proven, __u32 *rule)
{
	struct deny_table table = {};
	struct judgement judged = {};
	__u16 port = bpf_ntohs(packet->destination_port);
	void *rows;

	table.pod = *pod;
	table.side = side + 1;
	rows = proven ? deny_rows_of(&table) : 0;
	if (!rows || !judge_by(rows, &packet->source, port, &judged)) {
		table.side = side;
		rows = deny_rows_of(&table);
		if (!rows || !judge_by(rows, &packet->source, port, &judged))
			return 0;
	}
	if (!denies(&judged))
		return 0;
	*rule = judged.rule;
	count_set(judged.rule);
	return 1;
}

/* Does policy ask for anything of such datagrams to this pod? */
INLINE int judges_datagrams(struct address *pod, enum deny_side side)
{
	struct deny_table table = {};

	table.pod = *pod;
	table.side = side;
	return !!deny_rows_of(&table);
}

/* Would every connection be refused that this peer could ask for in a tunnel? */
INLINE int tunnel_is_denied(struct address *pod, struct address *peer, __u32 *rule)
{
	struct deny_table table = {};
	struct deny_row *row;
	void *rows;

	table.pod = *pod;
	table.side = DENY_IN;
	rows = deny_rows_of(&table);
	row = rows ? deny_row_of(rows, DENY_TUNNEL, peer) : 0;
	if (!row || !(row->bits & DENY_BIT_REFUSES))
		return 0;
	*rule = row->rule;
	count_set(row->rule);
	return 1;
}

#endif
