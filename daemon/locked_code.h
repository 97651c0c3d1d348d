/* Keeps the daemon's own code in memory.
 *
 * The pages of a program and its libraries are memory that the kernel can take
 * at any moment, and under memory.high it takes them first: cached pages of
 * images, without swap, it cannot.  A thread that has to read its code again is
 * charged for that, and made to wait for up to two seconds a time, maybe with
 * the cache's lock held.  So the thread that shrinks the cache under pressure
 * must not need it. */
#ifndef DAEMON_LOCKED_CODE_H
#define DAEMON_LOCKED_CODE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Has the program and the libraries that are loaded now stay in memory, page by
 * page from its first use on.  0 or a negative errno: -ENOMEM or -EPERM mean
 * that the limit of locked memory (ulimit -l) is too low. */
int locked_code_keep(void);

#ifdef __cplusplus
}
#endif

#endif
