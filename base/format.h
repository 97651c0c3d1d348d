/* Container formats: files that hold a disk in a form of their own, and so are
 * not the disk's bytes. */
#ifndef BASE_FORMAT_H
#define BASE_FORMAT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How many of a file's first bytes format_of() needs to see. */
#define FORMAT_PEEK_LEN 32

/* "qcow2", "VMDK" or "VHDX", if a file that begins with these bytes is one;
 * else NULL. */
const char *format_of(const void *bytes, size_t len);

#ifdef __cplusplus
}
#endif

#endif
