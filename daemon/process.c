#include "daemon/process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/mirror.h"
#include "daemon/log.h"

/* Signals that would end or stop the daemon for what is no reason to. */
static const int ignored[] = {
    SIGPIPE, /* a client, or the reader of the log, is gone: write(2) says so */
    SIGXFSZ, /* a limit of file sizes, lowered later: the call fails */
    SIGHUP,  /* until it is ready: then it reloads */
    SIGTTOU, /* it logs to a terminal where it is in the background */
};

/* Nothing is blocked, nothing but the above is ignored.  A parent can pass on
 * only "ignored" and "default"; handlers that are there are our own. */
static void set_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (int n = 1; n < NSIG; n++) {
    struct sigaction now;
    if (sigaction(n, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
      signal(n, SIG_DFL);
  }
  for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
    signal(ignored[i], SIG_IGN);
  mirror_survives_file_limit(); /* SIGXFSZ is one of them */
}

/* Each connection is a descriptor.  Nothing here uses select(2). */
static void raise_fd_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
    return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
    log_event(LEVEL_WARN, "fd-limit", LOG_TEXT("reason", strerror(errno)));
}

void process_init(void) {
  set_signals();
  /* A socket gets its mode by chmod(2), a lock file is for nobody else. */
  umask(077);
  raise_fd_limit();
}

void process_leave_directory(void) {
  if (chdir("/") < 0)
    log_event(LEVEL_WARN, "chdir", LOG_TEXT("reason", strerror(errno)));
}
