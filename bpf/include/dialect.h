/* The bridge between the two compilers of this folder. bcc (AMBIENT_BCC) gets one text in which our own includes are
 * already inlined and rewrites `map.lookup(&key)`; plain clang includes these files as they are and builds an object
 * for libbpf. Programs and packet code are the same for both; only the map headers hold two spellings.
 *
 * bcc's functions become programs when they are not static; clang's when they carry TC_PROGRAM, LOOKUP_PROGRAM or
 * SOCKET_PROGRAM. */
#ifndef AMBIENT_DIALECT_H
#define AMBIENT_DIALECT_H

#ifdef AMBIENT_BCC
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/pkt_cls.h>
#define TC_PROGRAM
#define LOOKUP_PROGRAM
#define SOCKET_PROGRAM
#define MAP_PIN(name) AMBIENT_PINS "/" name
#else
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#define TC_PROGRAM SEC("tc")
#define LOOKUP_PROGRAM SEC("sk_lookup")
#define SOCKET_PROGRAM SEC("sockops")
char LICENSE[] SEC("license") = "GPL";
#endif

#define INLINE static __always_inline

#endif
