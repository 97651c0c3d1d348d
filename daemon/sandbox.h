/* The sandbox: a filter of system calls for each kind of thread (seccomp(2)),
 * as the wall behind the confinement of the service.
 *
 * An attacker that takes a thread over finds the calls there that this thread
 * makes, and no others: no program is run, no process made or traced, no file
 * opened for writing, no memory made executable.  A call that is forbidden
 * kills the process at once, and the kernel's log says which it was.
 *
 *   X1  A thread enters it when it begins, the main thread when it is ready to
 *       serve.  Nothing leaves it.
 *   X2  A thread has the filters of the one that made it, too.  So threads are
 *       made by those alone whose kind may do all that theirs may.
 *   X3  Where the kernel has no filters, or may not be asked for them, the
 *       daemon goes on without, and the log says so once.
 *
 * Programs with sanitizers, which do much else, have none, and neither has a
 * process that does not ask for it, such as a test with a server in it. */
#ifndef DAEMON_SANDBOX_H
#define DAEMON_SANDBOX_H

#ifdef __cplusplus
extern "C" {
#endif

/* Kinds of threads. */
enum sandbox_kind {
  SANDBOX_MAIN,      /* accepts, and ends the daemon */
  SANDBOX_WORKER,    /* serves connections */
  SANDBOX_POOL,      /* opens and reads sources, and makes threads that do */
  SANDBOX_EVICTOR,   /* punches holes into mirrors */
  SANDBOX_RECLAIMER, /* likewise, and takes mirrors down */
  SANDBOX_LOG,       /* writes lines */
  SANDBOX_RELOADER,  /* reads configurations, opens sources and sockets */
  SANDBOX_PRESSURE,  /* waits for the kernel's word, and sets the budget */
  SANDBOX_CLOSER,    /* closes descriptors */
  SANDBOX_METRICS,   /* answers by HTTP */
  SANDBOX_REACTOR,   /* reads remote sources, by connections of its own */
  SANDBOX_N_KINDS,
};

/* From here on sandbox_enter() does what it says.  Main thread, before there is
 * another one. */
void sandbox_enable(void);

/* Confines the calling thread. */
void sandbox_enter(enum sandbox_kind kind);

/* The same, whether enabled or not, and without a word.  0 or a negative errno.
 */
int sandbox_confine(enum sandbox_kind kind);

#ifdef __cplusplus
}
#endif

#endif
