/* The window source: a part of another source, as a source of its own.
 *
 * Its byte 0 is byte `offset` of the source below.  It passes all calls to that
 * source, and passes the results on with errors unchanged.  So the rules of the
 * source below (threads, waiting, -ESTALE) apply to it.
 *
 * Its successor is the same window of the successor of the source below.  If
 * that one does not contain the whole window, reopen() fails with -ERANGE. */
#ifndef SOURCE_WINDOW_H
#define SOURCE_WINDOW_H

#include "base/window.h"
#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Makes a source of the part `w` of `below`. 0; -ENOMEM; or -ERANGE if `below`
 * does not contain all of it.  The new source takes ownership of `below` on
 * success only. */
int window_source_new(struct source *below, const struct window *w,
                      struct source **out);

/* Does the same for a source that has no bytes before it is reopened, as one
 * from file_source_open_later().  The new source has none either until then. 0
 * or -ENOMEM. */
int window_source_new_later(struct source *below, const struct window *w,
                            struct source **out);

#ifdef __cplusplus
}
#endif

#endif
