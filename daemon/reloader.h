/* Reloading: brings a server that runs in line with a configuration that is
 * read again.
 *
 *   L1  A configuration that is wrong, or of which something cannot be opened,
 *       changes nothing; the log says why.  What fails later, for want of
 *       memory or descriptors, is left out, and the next reload tries it again.
 *   L2  Clients of an image that stays notice nothing; of one whose source, or
 *       an option of it, is another they find a new epoch.  Clients that came
 *       through a socket that is closed stay, and so do those that were shown
 *       another certificate.
 *   L3  One reload is under way at a time.  What is asked for meanwhile is done
 *       once, after it.
 *   L4  Files of certificates are read by each reload, since what is in them
 *       may be another.
 *
 * A thread of its own does it, since files may hang. */
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

/* For a server that was started.  `config` is what it runs by, and `listeners`
 * are what it accepts from; the reloader replaces them, and their maker ends
 * them, after reloader_free().  NULL: there is
 * no memory, or no thread. */
struct reloader *reloader_new(const struct options *options,
                              struct config *config,
                              struct listeners *listeners,
                              struct directories *directories,
                              struct remotes *remotes, struct server *server);

/* What peers ask for, until the next reload.  A change is refused while a
 * reload is under way.  As long as the reloader is there. */
struct change_maker reloader_change_maker(struct reloader *r);

/* Asks for a reload.  Any thread, and signal handlers. */
void reloader_request(struct reloader *r);

/* No reload is begun any more, and the service manager hears nothing of one
 * that is under way.  NULL is fine, as for the next. */
void reloader_stop(struct reloader *r);

/* Waits for one that is under way; the server is still there. */
void reloader_free(struct reloader *r);

#endif
