/* Makes the changes that a peer asks for. */
#ifndef DAEMON_SERVE_CHANGE_MAKER_H
#define DAEMON_SERVE_CHANGE_MAKER_H

#ifdef __cplusplus
extern "C" {
#endif

enum { CHANGE_WHY_LEN = 512 };

/* Each is called on a thread of the pool, one at a time, with what a peer
 * wrote. 0; or a negative errno with the reason in `why`: -EINVAL, -EEXIST,
 * -ENOENT, -EBUSY if it can be tried again, or why a file cannot be opened. */
struct change_maker {
  /* Serves one more image; NULL in a server that takes no changes. */
  int (*add)(void *arg, const char *name, const char *source,
             char why[CHANGE_WHY_LEN]);

  /* Serves an image no more. */
  int (*remove)(void *arg, const char *name, char why[CHANGE_WHY_LEN]);

  void *arg;
};

#ifdef __cplusplus
}
#endif

#endif
