/* Failures and their stories: a status, the errno behind it, a sentence.
 *
 * A status is what a program acts on; the message is for people and names the
 * object and the act.  Nothing here keeps state. */
#ifndef CLIENT_ERROR_H
#define CLIENT_ERROR_H

#include <cachet/cachet.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Fills `*e`, which may be NULL, and returns `code`.  A message that is too
 * long is cut.  With `sys_errno` not 0, ": " and its text are added. */
enum cachet_status error_set(struct cachet_error *e, enum cachet_status code,
                             int sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The status that stands for an errno (positive). */
enum cachet_status error_from_errno(int sys_errno);

#ifdef __cplusplus
}
#endif

#endif
