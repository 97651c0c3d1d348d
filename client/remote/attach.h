/* Attaching: asking a daemon for its memory, over the connection.  How that is
 * mapped is shared_mirror.h's.
 *
 *   R6  Where the daemon shares its memory (`shared` of the backend), pages are
 *       read there, and only those that are not resident are asked for, in
 *       place: the pins of the call that asks keep them.  Nothing is installed
 *       here, R4 and notices do not matter: the memory itself says what is no
 *       longer so.  While the daemon is asked to attach, nothing else is.
 *       Where it refused, for want of a share, it is asked again, more and
 *       more rarely. */
#ifndef CLIENT_REMOTE_ATTACH_H
#define CLIENT_REMOTE_ATTACH_H

#include "client/backend.h"
#include "proto/frame.h"

struct remote;

#ifdef __cplusplus
extern "C" {
#endif

/* On a connection that is new: asks for the mirror of the image's present
 * epoch, if both sides are for it.  With no descriptors left here the handle
 * reads by the socket. */
void remote_attach_ready(struct remote *r);

/* The same on a connection that has attached, whose mirror is retired. */
void remote_attach_renew(struct remote *r);

/* The same once more if the daemon had no share, and it is time to ask again;
 * at a miss, which waits for the daemon anyway. */
void remote_attach_again(struct remote *r);

/* The answer, which may be an Error. */
void remote_attach_answer(struct remote *r, const wire_message *msg);

/* grow() of struct backend_ops. */
void remote_attach_grow(struct backend *b, uint32_t page_slots,
                        uint32_t range_capacity);
void remote_attach_grow_answer(struct remote *r, const wire_message *msg);

/* There will be no answer. */
void remote_attach_grow_end(struct remote *r);

#ifdef __cplusplus
}
#endif

#endif
