/* Hexadecimal digits. */
#ifndef BASE_HEX_H
#define BASE_HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the two digits at `text` say, in either case; -1: they are none.  Of a
 * string it does not look behind the end. */
int hex_byte(const char *text);

/* Reads so many bytes of two digits each.  False: they are none. */
bool hex_parse(const char *text, uint8_t *out, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
