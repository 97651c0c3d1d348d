/* Deadlines and time-outs in milliseconds of a clock that never goes back.  -1
 * is a deadline that never comes, and a time-out that never ends. */
#ifndef BASE_DEADLINE_H
#define BASE_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int64_t deadline_now(void);

/* When something that begins now is late; -1 if `timeout_ms` is. */
int64_t deadline_after(int timeout_ms);

/* Of two deadlines, or of two time-outs, the earlier one. */
int64_t deadline_earlier(int64_t a, int64_t b);

/* From now until `deadline`, for poll(2): 0 if it has passed. */
int deadline_left_ms(int64_t deadline);

bool deadline_has_passed(int64_t deadline);

#ifdef __cplusplus
}
#endif

#endif
