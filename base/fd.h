/* Descriptors of a library: never 0, 1 or 2.
 *
 * A program may have closed one of the three.  The kernel gives the next file
 * or socket the lowest number that is free, and what the program, or another
 * library, then writes to its standard output or error would end up in ours;
 * and the program may open or close those numbers at any time, as its own. */
#ifndef BASE_FD_H
#define BASE_FD_H

#ifdef __cplusplus
extern "C" {
#endif

/* Takes over the result of a call that has just made a descriptor, with
 * close-on-exec: `fd` itself if it is 3 or more, or -1; else a duplicate that
 * is, and `fd` is closed.  -1, with errno set, if there is none. */
int fd_above_std(int fd);

#ifdef __cplusplus
}
#endif

#endif
