/* All programs in one translation unit, so that they share their maps. Each file below is one job and one hook. */
#include "host_egress.c"
#include "host_ingress.c"
#include "pod_egress.c"
#include "pod_ingress.c"
#include "pod_lo.c"
#include "pod_lookup.c"
#include "socket_flows.c"
