#include "cache/room.h"

#include "cache/budget.h"
#include "cache/evict.h"
#include "cache/internal.h"
#include "cache/reclaim.h"

bool room_reserve(struct page_cache *pc, unsigned page_shift, uint64_t len) {
  bool is_garbage;
  /* At least a group, so that a small cache too batches its barriers. */
  uint64_t group = (uint64_t)S3FIFO_GROUP << page_shift;
  uint64_t least = group <= internal_budget(pc) / 16 ? group : 0;
  /* Others may take what we freed, and victims may be pinned: ask for more
   * each time, and after a while do without. */
  for (int tries = 0; tries < 8; tries++) {
    uint64_t over = budget_reserve_or_miss(pc, len, &is_garbage);
    if (over == 0 || over == BUDGET_NEVER_FITS)
      return over == 0;
    if (is_garbage && reclaim_garbage(pc))
      continue;
    if (!evict(pc, (over > least ? over : least) << tries, EVICT_BY_POLICY))
      return false; /* there is nothing left that could go */
  }
  return false;
}
