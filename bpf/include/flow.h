/* The four-tuple of a connection, as the key of the maps that remember one for a moment. */
#ifndef AMBIENT_FLOW_H
#define AMBIENT_FLOW_H

#include "contract.h"

struct flow {
	struct address source;
	struct address destination;
	__u16 source_port; /* network order, both */
	__u16 destination_port;
};

/* What pod_lookup is asked by. */
struct look_up {
	struct flow flow;
	__u32 protocol; /* IPPROTO_TCP, IPPROTO_UDP */
};

#endif
