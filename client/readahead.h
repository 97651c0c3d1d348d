/* Readahead: windows of pages ahead of a sequential reader.
 *
 * The handle's thread; the state is in the handle. */
#ifndef CLIENT_READAHEAD_H
#define CLIENT_READAHEAD_H

#include "client/handle.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Pages first .. first+count-1 were missed and asked for.  A miss at the page
 * after the previous miss, or after the previous readahead window, marks a
 * sequential reader: a window of pages is asked for ahead, and no call waits
 * for it.  When the reader comes to the window's first page, the next window is
 * asked for, twice as long; a miss elsewhere ends it. */
void readahead_missed(cachet *c, struct mirror *m, uint64_t first,
                      uint64_t count);

/* He came to the mark. */
void readahead_pass_mark(cachet *c);

/* Called with the pages of an access, on the careful ways. */
static inline void readahead_look_for_mark(cachet *c, uint64_t first,
                                           uint64_t last) {
  if (c->ahead_mark - first <= last - first)
    readahead_pass_mark(c);
}

/* Pages: the longest window there may be of mirror `m`. */
uint64_t readahead_longest(const cachet *c, const struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
