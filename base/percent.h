/* Percent-encoding, as in URIs. */
#ifndef BASE_PERCENT_H
#define BASE_PERCENT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Decodes `len` bytes into a string from malloc(3).  NULL, with errno set:
 * EINVAL for a % that two hex digits do not follow, or for %00; ENOMEM. */
char *percent_decode(const char *text, size_t len);

/* Encodes a string so that percent_decode() gives it back, in memory from
 * malloc(3): letters, digits and -._~/ stay as they are.  NULL: no memory. */
char *percent_encode(const char *text);

#ifdef __cplusplus
}
#endif

#endif
