/* Numbers on a command line: decimal or 0x, with K, M, G. */
#ifndef CLIENT_NUMBER_H
#define CLIENT_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* False for what is no number, or one of more than 64 bits. */
bool number_parse(const char *text, uint64_t *out);

#ifdef __cplusplus
}
#endif

#endif
