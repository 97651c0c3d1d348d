/* Descriptors 0, 1 and 2 of a program.
 *
 * The kernel gives a new file or socket the lowest number that is free.  A
 * program that was started with one of the three closed would give that number
 * to a socket, and then write its messages or its data into the socket. */
#ifndef BASE_STD_FDS_H
#define BASE_STD_FDS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Opens /dev/null on each of the three that is closed, in the direction in
 * which the program does not use it: reading 0 and writing 1 or 2 fail with
 * EBADF, as they would have done.  A program calls this before it opens
 * anything.  0, or a negative errno. */
int std_fds_open(void);

#ifdef __cplusplus
}
#endif

#endif
