/* The window source: a part of another source, as a source of its own.
 *
 * Byte 0 of it is byte `offset` of the source below.  What it is asked it asks
 * of that one, and what that one answers it passes on, errors unchanged; so
 * what holds of the one below (threads, waiting, -ESTALE) holds of it.
 *
 * Its successor is the same window of the successor of the one below.  Where
 * that does not have all of the window there is none, and reopen() says
 * -ERANGE. */
#ifndef SOURCE_WINDOW_H
#define SOURCE_WINDOW_H

#include "base/window.h"
#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The part `w` of `below`.  0, -ENOMEM, or -ERANGE if `below` does not have all
 * of it.  The new source owns `below`; on failure the caller still does. */
int window_source_new(struct source *below, const struct window *w,
                      struct source **out);

/* The same of a source that has no bytes before it is reopened, as one from
 * file_source_open_later(): it has none either until then.  0 or -ENOMEM. */
int window_source_new_later(struct source *below, const struct window *w,
                            struct source **out);

#ifdef __cplusplus
}
#endif

#endif
