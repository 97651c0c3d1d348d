/* The reloader reads the configuration again, and changes a running server to
 * it.  It also adds and removes the images that peers ask for (Add, Remove).
 *
 *   L1  If the configuration is wrong, or something in it cannot be opened, the
 *       reload changes nothing, and the log says why.  A later failure, for
 *       lack of memory or descriptors, leaves out one image; the next reload
 *       tries it again.
 *   L2  Clients of an image that stays the same notice nothing.  If its source
 *       or an option changed, they find a new epoch.  Clients stay connected
 *       when their socket is closed, or when the certificate changes.
 *   L3  One reload is under way at a time.  Requests that come meanwhile cause
 *       one more reload after it.
 *   L4  Each reload reads the files of certificates, because their content may
 *       have changed.
 *
 * It runs on a thread of its own, because a file may hang. */
#ifndef DAEMON_RELOADER_H
#define DAEMON_RELOADER_H

#include "daemon/config.h"
#include "daemon/directories.h"
#include "daemon/listeners.h"
#include "daemon/options.h"
#include "daemon/remotes.h"
#include "daemon/serve/change_maker.h"
#include "daemon/server.h"

struct reloader;

/* For a server that was started.  `config` is its configuration, and
 * `listeners` are its sockets.  The reloader replaces both; the caller ends
 * them after reloader_free().  NULL: out of memory, or no thread could be
 * made. */
struct reloader *reloader_new(const struct options *options,
                              struct config *config,
                              struct listeners *listeners,
                              struct directories *directories,
                              struct remotes *remotes, struct server *server);

/* Makes the changes that peers ask for; they last until the next reload.  While
 * a reload is under way a change is refused.  Valid as long as the reloader. */
struct change_maker reloader_change_maker(struct reloader *r);

/* Asks for a reload.  Any thread, and signal handlers. */
void reloader_request(struct reloader *r);

/* Starts no further reload, and tells the service manager nothing more about
 * one that is under way.  NULL is fine, as for reloader_free(). */
void reloader_stop(struct reloader *r);

/* Waits for a reload that is under way; the server still exists. */
void reloader_free(struct reloader *r);

#endif
