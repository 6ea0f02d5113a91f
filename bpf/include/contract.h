/* What the capture programs, the node agent and ztunnel agree on. The numbers are checked against
 * ambient/model/address.py by the architecture test, the enumerations and structures against
 * ambient/datapath/layout.py by the loader, through the programs' type information. */
#ifndef AMBIENT_CONTRACT_H
#define AMBIENT_CONTRACT_H

#include "dialect.h"

#define OUTBOUND_PORT 15001
#define PLAINTEXT_PORT 15006
#define HBONE_PORT 15008
#define DNS_PORT 15053
#define PROXY_MARK 0x539 /* SO_MARK of ztunnel's sockets in the pod: a claim, proven by the owners map */
#define LOOP_MARK 0x53a  /* on packets that pod_egress loops to lo; the pod's policy route delivers them locally */
#define DIRECT_MARK 0x53b /* on packets that host_ingress carries into another pod; nobody else can set it there */
#define DIRECT_OPENING_MARK 0x53c /* the same on opening packets */

#define NAME_SERVICE_PORT 53
#define LOOPBACK_IFINDEX 1
#define TCP_STATE_TIME_WAIT 6
#define TCP_STATE_LISTEN 10
#define TCP_STATE_NEW_SYN_RECV 12
#define ADDRESS_FAMILY_V4 2
#define SOCKET_TYPE_STREAM 1

/* TCX_NEXT / TC_ACT_UNSPEC: other programs on the interface (a CNI's) still have their say. */
#define PASS TC_ACT_UNSPEC

/* An address as the key of a row: IPv6, or IPv4 in its IPv4-mapped form. Network order. */
struct address {
	__u32 word[4];
};

#endif
