/* config: one word of options for the node; it stays the first of the entry in every version.
 * Writer:  the agent, at load. Readers: all programs that ask who sent a packet.
 * Entries: an array of one; zero (the kernel's default) is the strict reading.
 * Full:    cannot be. */
#ifndef AMBIENT_MAPS_CONFIG_H
#define AMBIENT_MAPS_CONFIG_H

#include "../include/contract.h"

enum config_option {
	OPTION_MARK_ALONE = 1,  /* no cgroup v2 here: a mark is believed, and probes are known by being local to the node */
	OPTION_SILENT_IN = 2,   /* what policy refuses from the network gets no answer */
	OPTION_DROP_CLEAR = 4,  /* data in the clear without leave is dropped, not only counted */
	OPTION_NO_FLOWS = 8,    /* new flows are neither tallied nor told */
	OPTION_DIRECT = 16,     /* some pod here may take the kernel path */
	OPTION_EXCHANGING = 32, /* pod_lookup may be of another version, which finds no reservation of ours: none is made */
};

#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("array", __u32, enum config_option, config, 1, MAP_PIN("config"));
INLINE __u32 options(void)
{
	__u32 first = 0;
	enum config_option *word = config.lookup(&first);

	return word ? *word : 0;
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, enum config_option);
} config SEC(".maps");
INLINE __u32 options(void)
{
	__u32 first = 0;
	enum config_option *word = bpf_map_lookup_elem(&config, &first);

	return word ? *word : 0;
}
#endif

#endif
