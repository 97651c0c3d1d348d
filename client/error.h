/* Failures: a status, the errno behind it, and an error message.
 *
 * Programs act on the status.  The message is for people, and names the object
 * and the operation.  This module keeps no state. */
#ifndef CLIENT_ERROR_H
#define CLIENT_ERROR_H

#include <cachet/cachet.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Fills `*e`, which may be NULL, and returns `code`.  A message that is too
 * long is cut.  If `sys_errno` is not 0, the message ends in ": " and its text.
 */
enum cachet_status error_set(struct cachet_error *e, enum cachet_status code,
                             int sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The status that stands for an errno (positive). */
enum cachet_status error_from_errno(int sys_errno);

#ifdef __cplusplus
}
#endif

#endif
