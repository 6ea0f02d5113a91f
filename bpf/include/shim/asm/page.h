/* bcc includes it; nothing here needs more. */
#ifndef AMBIENT_SHIM_PAGE_H
#define AMBIENT_SHIM_PAGE_H
#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#endif
