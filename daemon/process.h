/* State that a process inherits from its parent: signal mask, ignored signals,
 * umask, limits, working directory.  The daemon sets all of it, because it
 * cannot rely on the shell, the service manager or the test that starts it.
 *
 * main() calls these before there are threads. */
#ifndef DAEMON_PROCESS_H
#define DAEMON_PROCESS_H

/* Signals, umask, and as many descriptors as the hard limit allows. */
void process_init(void);

/* Leaves the working directory, so that its file system can be unmounted.  From
 * here on no relative path may be used. */
void process_leave_directory(void);

#endif
