/* The floor that the sources are written for; tc programs are not tied to a kernel version. */
#ifndef AMBIENT_SHIM_VERSION_H
#define AMBIENT_SHIM_VERSION_H
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
