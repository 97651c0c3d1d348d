/* The pin protocol of cache/, as a Spin model: one page, in two mirrors of an
 * image.  Mirror 0 is current at first, mirror 1 takes its place.
 * several.pml is about reads of several pages, cursor.pml about a handle that
 * shares a pin slot out.
 *
 * Two readers, an evictor, the reclaimer, a thread that runs fills and one that
 * runs those of stale pages; one invalidation and one new epoch, in any order.
 * Evictor and reclaimer look after mirror 0 alone: mirror 1 is no different
 * while it is current.
 *
 *   step here             what it stands for
 *   --------------------  ----------------------------------------------------
 *   store(), pin(),       view_pin(), view_unpin(): cache/view.h;
 *     unpin()               pin_clear(): cache/pin.h
 *   commit()              a store becomes visible to others: the hardware
 *   look()                page_state_look(): cache/page_state.h
 *   reader()              view_pin_page(): cache/view.h, as cachet_load(),
 *                           cachet_release() use it: client/slice.c; after a
 *                           miss attempt_walk(), attempt_fetch(): client/request.c
 *   move()                a pin moves to another slot: store, look, clear
 *   ask()                 fetch_begin(), plan_locked(): cache/fetch.c
 *   answer()              fetch_notify_locked(): cache/fetch.c
 *   wake()                waiter_take_locked(), waiter_wake(): cache/waiter.c
 *   barrier()             barrier_run(): cache/barrier.c
 *   scan()                scan_pins(): cache/evict.c
 *   punch()               mirror_punch(): cache/mirror.c
 *   settle()              settle_pinned_locked(), settle_gone_locked():
 *                           cache/evict.c
 *   evictor()             evict(), pick_locked(): cache/evict.c
 *   take_stale()          evict_stale(): cache/evict.c
 *   punch_absent()        the same: cache/reclaim.c
 *   sweep_states()        states_sweep_at(): cache/states.c
 *   find_zeros()          view_is_zero(): cache/view.h
 *   forget()              states_take_locked(): cache/states.c; take_absent():
 *                           cache/reclaim.c; and a sweep
 *   leave()               reclaim_retire_states(): cache/reclaim.c
 *   sweep()               punch_between_pins(): cache/reclaim.c
 *   refresher()           replace_mirror(), image_refresh(): cache/image.c
 *   invalidator()         image_invalidate(): cache/image.c; evict_range(),
 *                           pick_range_locked(): cache/evict.c
 *   filler()              fill_read(), fill_finish(): cache/fill.c
 *   aside_filler()        the same for a fill that does not install
 *
 * An `atomic` is a section under page_cache.lock, or one instruction and the
 * bookkeeping of the model that goes with it.  All else interleaves.
 *
 * Spin runs the steps of all processes in one order, on which all agree.  So
 * what makes the protocol delicate is modelled openly: a reader's stores to its
 * pin table queue up, and arrive in their order, but any time later.  Only a
 * scan reads them, so it decides how much of the queue has arrived; a fence, a
 * request to the cache and the evictor's membarrier empty it.  That is what x86
 * does.  Machines that reorder more do so unless told acquire and release; that
 * the code says these in the right places is not checked here.
 *
 * Checked:
 *
 *   - bytes that a reader holds under a pin are whole, neither punched nor half
 *     filled, and stay what they were at its first look: begin_read(),
 *     end_read().  This goes for a hit, for the answer to a miss, after which
 *     the reader does not look again, for a page that is STALE, and after a new
 *     epoch;
 *   - a load that begins after an invalidation has returned sees bytes that
 *     were read after it began, whichever mirror the reader is attached to.  A
 *     load that begins after a new epoch sees its bytes as soon as the old
 *     mirror's states have left RESIDENT: `promised`;
 *   - so it is for a load that finds ZERO, which is the whole of its answer;
 *   - no state but ABSENT and ZERO is lost when page states are punched;
 *   - no fill and no end of EVICTING is lost: each waiting reader is woken
 *     (invalid end states), and nothing goes round for ever (non-progress
 *     cycles).
 *
 * FENCE is another protocol that is right: there is no membarrier, and readers
 * fence after they have stored a pin.  Each of these breaks a rule, and the
 * check must notice:
 *
 *   NO_BARRIER         the evictor reads the pins without a membarrier
 *   LOOK_FIRST         a reader looks at the state, then pins
 *   MOVE_WITHOUT_LOOK  a pin moves to another slot without a second look
 *   ANSWER_UNPINNED    a reader has no pin while it waits for a fill, and takes
 *                      the answer as final all the same
 *   RELEASE_EARLY      a reader clears its pin before its last look at bytes
 *   EARLY_RESIDENT     a fill says RESIDENT before it has written all
 *   PUNCH_NO_STATE     the reclaimer punches an absent page, but does not take
 *                      its state to EVICTING
 *   SWEEP_NO_MARK      a fill begins among states that are being punched
 *   NO_WAKE            the end of EVICTING wakes nobody
 *   NO_FILL_WAKE       a fill that fails answers nobody
 *   INSTALL_STALE      a fill that was invalidated in flight is installed
 *   JOIN_STALE         a fetch joins a fill that was invalidated
 *   DROP_RESTORE       an invalidation makes its pinned pages RESIDENT again
 *   RESTORE_STALE      a batch for space makes a pinned victim RESIDENT again
 *                      that was invalidated meanwhile
 *   MARK_BEGUN         as RESTORE_STALE, since a batch takes n_begun for its
 *                      mark, not n_over
 *   MARK_LATE          as RESTORE_STALE, since a batch takes its mark later
 *                      than its victims
 *   BEGIN_LATE         as RESTORE_STALE, since an invalidation counts as begun
 *                      only when states have moved
 *   OVER_EARLY         as RESTORE_STALE, since an invalidation counts as over
 *                      before states have moved
 *   STALE_RESTORE      the reclaimer makes a page RESIDENT that was STALE
 *   STALE_PUNCH        the reclaimer punches a STALE page that is pinned
 *   RETIRE_LATE        the states of a mirror leave RESIDENT before it is
 *                      retired
 *   RETIRED_RESTORE    a batch makes a pinned victim of a retired mirror
 *                      RESIDENT again
 *   RETIRED_INSTALL    a fill is installed in a retired mirror
 *   RETIRED_PUNCH      what is pinned in a retired mirror is punched, too
 *   RETIRED_RESIDENT   an invalidation leaves RESIDENT what is so in a retired
 *                      mirror that is not swept yet
 *   ZERO_READ          a reader looks at the memory of a page that is ZERO
 *   ZERO_RESIDENT      a page that is ZERO becomes RESIDENT without a fill
 *   ZERO_STAYS         an invalidation leaves ZERO what is so
 *   ZERO_RETIRED       states of a retired mirror stay ZERO */

/* What happens to the image: 1 is an invalidation, 2 a new epoch with other
 * bytes, 3 both, over the same storage, in any order.  All of it at once, at
 * full length, would take hours. */
#ifndef CHANGES
#define CHANGES 1
#endif
#define N_READERS 2
#ifndef N_LOADS
#define N_LOADS 2 /* reader 0's: 1 or 2 */
#endif
#ifndef N_BATCHES
#define N_BATCHES 1 /* the evictor's */
#endif
#ifndef N_ROUNDS
#define N_ROUNDS 2 /* the reclaimer's */
#endif
#ifndef ZEROS
#define ZEROS 0 /* 1: the source may say that the page is zeros */
#endif
#define N_STORES 2 /* a queue of stores; when it is full the oldest arrives */

#define NO_PAGE 0
#define PAGE_OF(m) (m + 1) /* what a pin says: the page of mirror m */

/* enum page_state */
#define ABSENT 0
#define FILLING 1
#define RESIDENT 2
#define EVICTING 3
#define STALE 4
#define ZERO 5

/* What the page's memory holds. */
#define HOLE 0
#define HALF 1
#define WHOLE 2

/* A fill of a page that is STALE: it does not install.  There may be two, one
 * of them from before the invalidation. */
#define NONE 0
#define BEGUN 1
#define READ 2 /* 3: of version 1 */

typedef Mirror {
  byte state;
  byte bytes;
  bit content;   /* changes with each fill */
  bit version;   /* of the image, when `bytes` were read, or zeros found */
  bit source;    /* the version that a read of the source gets now */
  bit retired;
  bit n_begun;   /* the log of invalidations, of which there is one */
  bit n_over;
  bit submitted; /* a fill that nobody runs yet */
  bit stale;     /* the fill was invalidated */
  byte aside[2]
};
Mirror mirrors[2];
bit current;     /* image.mirror */
bit is_swept;    /* the states around mirror 0's are being punched */
bit is_left;     /* no state of mirror 0 says RESIDENT any more */
bit promised;    /* the version that a load that begins now has to see */

/* The pin tables as others see them.  Reader 0 has slots 0 and 1, reader 1 has
 * slot 2. */
#define N_SLOTS 3
#define READER_OF(slot) ((slot) / 2)
byte slots[N_SLOTS];

/* Stores that have not arrived, oldest first: slot * 4 + value. */
chan held_back[N_READERS] = [N_STORES] of { byte };

/* What a reader waits for, or is told. */
#define NOTHING 0
#define WAIT_FILL 1    /* of mirror 0; 2: of mirror 1 */
#define WAIT_ASIDE 3   /* + 2 * mirror + number of the fill */
#define WAIT_OUTCOME 7 /* the end of EVICTING, of a stale fill, of a sweep */
#define TOLD_RESIDENT 8
#define TOLD_ERROR 9
#define TOLD_AGAIN 10  /* ask again */
#define TOLD_OVER 11   /* -ESTALE: attach to the new mirror */
#define TOLD_BYTES 12  /* a copy, fetch_bytes(); 13: of version 1 */
byte answers[N_READERS];

hidden byte i, x; /* for the loops within one atomic step */

/* ---- The memory of the pins ---------------------------------------------- */

inline commit(r) {
  held_back[r]?x;
  slots[x / 4] = x % 4
}

inline commit_all(r) {
  do
  :: nempty(held_back[r]) -> commit(r)
  :: empty(held_back[r]) -> break
  od
}

inline store(slot, value) {
  if
  :: full(held_back[me]) -> commit(me)
  :: nfull(held_back[me])
  fi;
  held_back[me]!(slot) * 4 + value
}

/* ---- Zeros --------------------------------------------------------------- */

/* The page is a hole, and has nothing to be punched.  Under the lock, whoever
 * has it pinned. */
inline forget(m) {
  mirrors[m].state = ABSENT;
  mirrors[m].version = 0
}

/* ---- Waiting and waking: under the lock ---------------------------------- */

inline wake() {
#ifdef NO_WAKE
  skip
#else
  d_step {
    for (i : 0 .. N_READERS - 1) {
      if
      :: answers[i] == WAIT_OUTCOME -> answers[i] = TOLD_AGAIN
      :: else
      fi
    }
  }
#endif
}

inline answer(waiting, what) {
  d_step {
    for (i : 0 .. N_READERS - 1) {
      if
      :: answers[i] == waiting -> answers[i] = what
      :: else
      fi
    }
  }
}

#ifdef JOIN_STALE
#define may_join(m) true
#define aside_now(m) (mirrors[m].aside[0] == NONE && mirrors[m].n_begun)
#else
#define may_join(m) (!mirrors[m].stale)
#define aside_now(m) mirrors[m].n_begun
#endif

#ifdef SWEEP_NO_MARK
#define has_to_wait(m) false
#else
#define has_to_wait(m) (m == 0 && is_swept)
#endif

inline ask_aside(m) {
  if
  :: mirrors[m].aside[aside_now(m)] == NONE ->
    mirrors[m].aside[aside_now(m)] = BEGUN
  :: else
  fi;
  answers[me] = WAIT_ASIDE + 2 * m + aside_now(m)
}

inline ask_absent(m) {
  if
  :: mirrors[m].aside[aside_now(m)] != NONE -> ask_aside(m)
  :: mirrors[m].aside[aside_now(m)] == NONE && has_to_wait(m) ->
    answers[me] = WAIT_OUTCOME
  :: mirrors[m].aside[aside_now(m)] == NONE && !has_to_wait(m) ->
    mirrors[m].state = FILLING;
    mirrors[m].submitted = 1;
    answers[me] = WAIT_FILL + m
  fi
}

/* A request: what was stored before it has arrived when it is handled. */
inline ask(m) {
  commit_all(me);
  if
  :: mirrors[m].retired -> answers[me] = TOLD_OVER
  :: !mirrors[m].retired && mirrors[m].state == RESIDENT ->
    answers[me] = TOLD_RESIDENT
  :: !mirrors[m].retired && mirrors[m].state == ZERO ->
#ifdef ZERO_RESIDENT
    mirrors[m].state = RESIDENT;
#endif
    answers[me] = TOLD_AGAIN /* to be looked at once more */
  :: !mirrors[m].retired && mirrors[m].state == EVICTING ->
    answers[me] = WAIT_OUTCOME
  :: !mirrors[m].retired && mirrors[m].state == FILLING ->
    answers[me] = (may_join(m) -> WAIT_FILL + m : WAIT_OUTCOME)
  :: !mirrors[m].retired && mirrors[m].state == ABSENT -> ask_absent(m)
  :: !mirrors[m].retired && mirrors[m].state == STALE -> ask_aside(m)
  fi
}

/* ---- Readers ------------------------------------------------------------- */

inline pin(slot, m) {
  store(slot, PAGE_OF(m));
#ifdef FENCE
  commit_all(me)
#endif
}

inline unpin(slot) { store(slot, NO_PAGE) }

#ifdef ZERO_READ
#define look(m) (mirrors[m].state == RESIDENT || mirrors[m].state == ZERO)
#else
#define look(m) (mirrors[m].state == RESIDENT)
#endif

/* The page is zeros: no memory is looked at, and no pin is needed. */
inline find_zeros(slot, m) {
  assert(mirrors[m].version >= must);
  must = 0;
  unpin(slot)
}

/* The page's bytes may be used from here.  `held` remembers which. */
inline begin_read(m) {
  assert(mirrors[m].bytes == WHOLE);
  assert(mirrors[m].version >= must);
  held = PAGE_OF(m);
  content = mirrors[m].content;
  must = 0
}

/* The last use of bytes.  Whether they are looked at in between does not
 * matter: this may come at any time. */
inline end_read(page, first_content) {
  assert(mirrors[page - 1].bytes == WHOLE);
  assert(mirrors[page - 1].content == first_content)
}

inline release(slot, page, first_content) {
#ifdef RELEASE_EARLY
  atomic { unpin(slot) };
  atomic { end_read(page, first_content); page = NO_PAGE; first_content = 0 }
#else
  atomic {
    end_read(page, first_content);
    unpin(slot);
    page = NO_PAGE;
    first_content = 0
  }
#endif
}

/* The slice in reader 0's slot 1 moves to slot 0: store, look, and only on
 * RESIDENT clear the old pin.  It goes against the scan's direction, which is
 * the way that can go wrong. */
inline move() {
  atomic { pin(0, held - 1) };
#ifndef MOVE_WITHOUT_LOOK
  if
  :: look(held - 1) ->
#endif
    atomic {
      unpin(1);
      kept = held;
      kept_content = content;
      held = NO_PAGE;
      content = 0
    }
#ifndef MOVE_WITHOUT_LOOK
  :: else -> atomic { unpin(0) }
  fi
#endif
}

#define PIN_SLOT (me + 1) /* where a reader loads to */

proctype reader(byte me) {
  byte held, kept; /* the page under PIN_SLOT, and reader 0's under slot 0 */
  bit content, kept_content;
  bit m;           /* the mirror that it is attached to */
  bit must;        /* see `promised` */
  byte n_loads = 1;

start:
#ifdef LOOK_FIRST
  atomic { must = promised };
attached:
  if
  :: look(m) ->
    atomic { pin(PIN_SLOT, m) };
    atomic { begin_read(m) };
    goto loaded
  :: else -> atomic { pin(PIN_SLOT, m) }
  fi;
#else
  atomic { must = promised; pin(PIN_SLOT, m) };
again:
  if
  :: atomic { look(m) -> begin_read(m); goto loaded }
  :: atomic { mirrors[m].state == ZERO && !look(m) ->
      find_zeros(PIN_SLOT, m);
      goto loaded
    }
  :: else
  fi;
#endif

miss:
#ifdef ANSWER_UNPINNED
  atomic { unpin(PIN_SLOT); ask(m) };
#else
  atomic { ask(m) };
#endif
  if
  :: atomic { answers[me] == TOLD_RESIDENT -> answers[me] = NOTHING }
#ifdef ANSWER_UNPINNED
    atomic { pin(PIN_SLOT, m) };
#endif
    atomic { begin_read(m) } /* with no second look */
  :: atomic { answers[me] >= TOLD_BYTES ->
      assert(answers[me] - TOLD_BYTES >= must);
      answers[me] = NOTHING;
      must = 0;
      unpin(PIN_SLOT)
    }
  :: atomic { answers[me] == TOLD_ERROR ->
      answers[me] = NOTHING;
      must = 0;
      unpin(PIN_SLOT)
    }
  :: atomic { answers[me] == TOLD_AGAIN ->
      answers[me] = NOTHING;
#ifdef LOOK_FIRST
      goto attached
#else
      goto again /* the pin stands */
#endif
    }
  :: atomic { answers[me] == TOLD_OVER ->
      answers[me] = NOTHING;
      m = current;
#ifdef LOOK_FIRST
      goto attached
#else
      pin(PIN_SLOT, m);
      goto again
#endif
    }
  fi;

loaded:
  /* Reader 0 may keep its first slice while it loads a second one, of the same
   * page, perhaps of another epoch. */
  if
  :: me == 0 && n_loads < N_LOADS && held -> move()
  :: true
  fi;
  if
  :: held -> release(PIN_SLOT, held, content)
  :: else
  fi;
  if
  :: atomic { me == 0 && n_loads < N_LOADS -> n_loads++; goto start }
  :: else
  fi;
  if
  :: kept -> release(0, kept, kept_content)
  :: else
  fi
}

/* ---- Evicting ------------------------------------------------------------ */

/* One processor after the other. */
inline barrier() {
#if !defined(NO_BARRIER) && !defined(FENCE)
  atomic { commit_all(0) };
  atomic { commit_all(1) }
#else
  skip
#endif
}

/* Slot by slot, while readers go on. */
inline scan(m) {
  do
  :: atomic {
    !pinned && k < N_SLOTS ->
    do /* some of what is held back arrives just before */
    :: nempty(held_back[READER_OF(k)]) -> commit(READER_OF(k))
    :: break
    od;
    pinned = slots[k] == PAGE_OF(m);
    k++
  }
  :: atomic { pinned || k == N_SLOTS -> k = 0; break }
  od
}

inline punch(m) {
  d_step { mirrors[m].bytes = HOLE; mirrors[m].version = 0 }
}

#ifdef RETIRED_RESTORE
#define may_return(m) true
#else
#define may_return(m) (!mirrors[m].retired)
#endif

#ifdef RESTORE_STALE
#define was_invalidated(m) false
#else
#define was_invalidated(m) (mirrors[m].n_begun != mark)
#endif

/* The end of a batch.  In a retired mirror what is pinned stays EVICTING. */
inline settle(m, pinned_state) {
  atomic {
    if
    :: !pinned -> mirrors[m].state = ABSENT
    :: pinned && may_return(m) -> mirrors[m].state = pinned_state
    :: pinned && !may_return(m)
    fi;
    wake();
    pinned = 0
  }
}

inline punch_unpinned(m) {
  if
  :: !pinned -> punch(m)
  :: else
  fi
}

#ifdef MARK_BEGUN
#define mark_now mirrors[0].n_begun
#else
#define mark_now mirrors[0].n_over
#endif

proctype evictor() {
  byte k, n;
  bit mark, pinned;
end:
  do
  :: atomic {
    n < N_BATCHES && mirrors[0].state == RESIDENT && !mirrors[0].retired ->
    mirrors[0].state = EVICTING;
    mark = mark_now;
    n++
  }
    barrier();
#ifdef MARK_LATE
    mark = mark_now;
#endif
    scan(0);
    punch_unpinned(0);
    settle(0, (was_invalidated(0) -> STALE : RESIDENT));
    mark = 0
  od
}

/* ---- The reclaimer ------------------------------------------------------- */

/* A page that was invalidated while it was pinned may be free by now.  No
 * barrier is needed: a pin that counts was seen by an earlier scan. */
inline take_stale() {
  scan(0);
#ifdef STALE_PUNCH
  pinned = 0;
#endif
  punch_unpinned(0);
#ifdef STALE_RESTORE
  settle(0, RESIDENT)
#else
  settle(0, STALE)
#endif
}

#define is_garbage(m) (mirrors[m].state == ABSENT || mirrors[m].state == ZERO)

/* What looks at holes, or a hostile client, have cost goes. */
inline punch_absent() {
  punch(0);
#ifdef PUNCH_NO_STATE
  true
#else
  settle(0, ABSENT)
#endif
}

/* The memory of states that are all ABSENT or ZERO. */
inline sweep_states() {
  atomic {
    assert(is_garbage(0));
    forget(0)
  };
  atomic { is_swept = 0; wake() }
}

/* The first round of a mirror that was retired: its states leave RESIDENT for
 * good.  Under the lock. */
inline leave() {
  if
  :: mirrors[0].state == RESIDENT -> mirrors[0].state = EVICTING
#ifndef ZERO_RETIRED
  :: mirrors[0].state == ZERO -> forget(0)
#endif
  :: else
  fi;
  is_left = 1;
  promised = promised | (mirrors[1].source & !mirrors[0].source)
}

/* What lies between the pins is punched, whatever its state. */
inline sweep() {
  scan(0);
#ifdef RETIRED_PUNCH
  pinned = 0;
#endif
  punch_unpinned(0);
  pinned = 0
}

proctype reclaimer() {
  byte k, n;
  bit pinned;
end:
  do
  :: atomic {
    n < N_ROUNDS && mirrors[0].state == STALE ->
    mirrors[0].state = EVICTING;
    n++
  }
    take_stale()
  :: atomic {
    n < N_ROUNDS && is_garbage(0) ->
#ifndef PUNCH_NO_STATE
    forget(0);
    mirrors[0].state = EVICTING;
#endif
    n++
  }
    punch_absent()
  :: atomic {
    n < N_ROUNDS && is_garbage(0) ->
    is_swept = 1;
    n++
  }
    sweep_states()
  :: atomic { mirrors[0].retired && !is_left -> leave() }
    barrier();
    sweep()
  :: atomic { n < N_ROUNDS && is_left -> n++ }
    sweep()
  od
}

/* ---- Change -------------------------------------------------------------- */

/* A new epoch, over storage that has changed or with the same bytes. */
proctype refresher(bit changes) {
#ifdef RETIRE_LATE
  atomic { leave() };
#endif
  atomic {
    mirrors[1].source = mirrors[1].source | changes;
    current = 1;
    mirrors[0].retired = 1;
    wake()
  }
}

#define begin_invalidation(m) mirrors[m].n_begun = 1
#define end_invalidation(m) mirrors[m].n_over = 1

#ifdef DROP_RESTORE
#define DROPPED RESIDENT
#else
#define DROPPED STALE
#endif

proctype invalidator() {
  byte k;
  bit m, owns, pinned;
  atomic { mirrors[0].source = 1; mirrors[1].source = 1; m = current };
  atomic {
#ifndef BEGIN_LATE
    begin_invalidation(m);
#endif
    mirrors[m].stale = mirrors[m].state == FILLING
  };
#ifdef OVER_EARLY
  atomic { end_invalidation(m) };
#endif
  atomic {
    if
    :: mirrors[m].state == RESIDENT ->
      mirrors[m].state = EVICTING;
      owns = 1
#ifndef ZERO_STAYS
    :: mirrors[m].state == ZERO -> forget(m)
#endif
    :: else
    fi
  };
  if
  :: owns ->
    barrier();
    scan(m);
    punch_unpinned(m);
    settle(m, DROPPED)
  :: else
  fi;
#ifdef BEGIN_LATE
  atomic { begin_invalidation(m) };
#endif
#ifndef OVER_EARLY
  atomic { end_invalidation(m) };
#endif
#ifndef RETIRED_RESIDENT
  /* A mirror that was retired before, which the reclaimer will look after. */
  atomic {
    if
    :: mirrors[0].retired && mirrors[0].state == RESIDENT ->
      mirrors[0].state = EVICTING
    :: mirrors[0].retired && mirrors[0].state == ZERO -> forget(0)
    :: else
    fi
  };
#endif
  promised = 1
}

/* ---- Fills --------------------------------------------------------------- */

#ifdef INSTALL_STALE
#define is_in_time(m) true
#else
#define is_in_time(m) (!mirrors[m].stale)
#endif
#ifdef RETIRED_INSTALL
#define is_of_use(m) true
#else
#define is_of_use(m) (!mirrors[m].retired)
#endif
#define may_keep(m) (is_of_use(m) && is_in_time(m))
#define may_install(m) (mirrors[m].bytes == WHOLE && may_keep(m))

inline end_fill(state_now) {
  mirrors[m].state = state_now;
  mirrors[m].stale = 0;
  wake();
  m = 0
}

proctype filler() {
  bit m, version;
end:
  do
  :: atomic {
    if
    :: mirrors[0].submitted -> m = 0
    :: mirrors[1].submitted -> m = 1
    fi;
    assert(mirrors[m].state == FILLING && mirrors[m].bytes == HOLE);
    mirrors[m].submitted = 0;
    version = mirrors[m].source /* the read */
  }
    if
    :: atomic { true -> /* it failed */
#ifndef NO_FILL_WAKE
        answer(WAIT_FILL + m, TOLD_ERROR);
#endif
        end_fill(ABSENT) /* by EVICTING: nothing was written */
      }
    :: atomic { ZEROS -> /* its page stays a hole */
        answer(WAIT_FILL + m, TOLD_BYTES + version);
        mirrors[m].version = version && may_keep(m);
        end_fill((may_keep(m) -> ZERO : ABSENT))
      }
    :: atomic { true ->
        mirrors[m].bytes = HALF;
        mirrors[m].content = !mirrors[m].content;
#ifdef EARLY_RESIDENT
        mirrors[m].state = RESIDENT
#endif
      }
      if
      :: atomic { true ->
          mirrors[m].bytes = WHOLE;
          mirrors[m].version = version
        }
      :: true -> mirrors[m].bytes = HOLE /* no memory: punched at once */
      fi;
      if
      :: atomic { may_install(m) ->
          answer(WAIT_FILL + m, TOLD_RESIDENT);
          end_fill(RESIDENT)
        }
      :: atomic { else -> mirrors[m].state = EVICTING }
        punch(m);
        atomic {
          answer(WAIT_FILL + m, TOLD_BYTES + version);
          end_fill(ABSENT)
        }
      fi
    fi;
    version = 0
  od
}

proctype aside_filler() {
  byte a;
end:
  do
  :: atomic {
    if
    :: mirrors[0].aside[0] == BEGUN -> a = 0
    :: mirrors[0].aside[1] == BEGUN -> a = 1
    :: mirrors[1].aside[0] == BEGUN -> a = 2
    :: mirrors[1].aside[1] == BEGUN -> a = 3
    fi;
    mirrors[a / 2].aside[a % 2] = READ + mirrors[a / 2].source;
    a = 0
  }
  :: atomic {
    if
    :: mirrors[0].aside[0] >= READ -> a = 0
    :: mirrors[0].aside[1] >= READ -> a = 1
    :: mirrors[1].aside[0] >= READ -> a = 2
    :: mirrors[1].aside[1] >= READ -> a = 3
    fi;
    answer(WAIT_ASIDE + a, TOLD_BYTES + mirrors[a / 2].aside[a % 2] - READ);
    mirrors[a / 2].aside[a % 2] = NONE;
    wake();
    a = 0
  }
  od
}

init {
  atomic {
    if
    :: true
    :: ZEROS -> mirrors[0].state = ZERO
    :: CHANGES != 2 -> /* an earlier invalidation met a pin */
      mirrors[0].state = STALE;
      mirrors[0].bytes = WHOLE
    fi;
    run reader(0);
    run reader(1);
    run evictor();
    run reclaimer();
    run filler();
    run aside_filler();
    if
    :: CHANGES != 1 -> run refresher(CHANGES == 2)
    :: CHANGES == 1
    fi;
    if
    :: CHANGES != 2 -> run invalidator()
    :: CHANGES == 2
    fi
  }
}
