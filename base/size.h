/* Sizes and addresses on a command line: decimal or 0x, with K, M, G or T
 * behind them, powers of 1024. */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 0; -EINVAL for text that is no such number, -ERANGE for a number of more than
 * 64 bits.  No sign, blank or octal prefix is taken.  `*out` is set only on
 * success. */
int size_parse(const char *text, uint64_t *out);

#ifdef __cplusplus
}
#endif

#endif
