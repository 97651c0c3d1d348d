/* Changes of what is served that a peer asks for: Add and Remove.  The
 * session's part is whether the peer may; a change is made by what the server
 * was given for it, by a job of the request, since it may wait for a file.
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_CHANGE_H
#define DAEMON_SERVE_CHANGE_H

#include <stdint.h>

#include "proto/frame.h"

struct session;

void change_begin_add(struct session *s, uint64_t id,
                      const Cachet__Wire__Add *add);
void change_begin_remove(struct session *s, uint64_t id,
                         const Cachet__Wire__Remove *remove);

#endif
