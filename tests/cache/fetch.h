// Fetches for the tests of the page cache.
#ifndef TESTS_CACHE_FETCH_H
#define TESTS_CACHE_FETCH_H

#include <future>

#include "cache/fetch.h"
#include "cache/image.h"

// Brings pages in, and waits for them: also for a state that is being swept.
// Returns the fetch's status.
inline int Fetch(mirror *m, uint64_t first, uint32_t count = 1) {
  struct Waiting {
    fetch f{};
    std::promise<void> done;
  } w;
  w.f.done = [](fetch *f) { reinterpret_cast<Waiting *>(f)->done.set_value(); };
  if (image_fetch(&w.f, m, first, count) == FETCH_WAIT)
    w.done.get_future().wait();
  int status = w.f.status;
  fetch_fini(&w.f);
  return status;
}

#endif
