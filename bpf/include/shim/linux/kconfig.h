/* bcc includes the kernel's configuration first. Ours says only what the packet helpers need. */
#ifndef AMBIENT_SHIM_KCONFIG_H
#define AMBIENT_SHIM_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_NET 1
#define CONFIG_CGROUP_BPF 1
#endif
