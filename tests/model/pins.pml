/* The pin protocol of cache/, as a Spin model.
 *
 * Two readers, an evictor that is the janitor, too, a filler, and one change
 * of the image: a new epoch or an invalidation.  One page, in two mirrors:
 * mirror 0 is current at first, mirror 1 takes its place.
 *
 *   step here             what it stands for
 *   --------------------  ----------------------------------------------------
 *   store(), pin(),       view_pin(), view_unpin(): cache/view.h;
 *     unpin()               pin_clear(): cache/pin.h
 *   commit()              a store becomes visible to others: the hardware
 *   look()                residency_look(): cache/residency.h
 *   reader()              view_pin_page(): cache/view.h, as cachet_load(),
 *                           cachet_release() use it: client/slice.c; after a
 *                           miss call_walk(), call_fetch(): client/call.c
 *   move()                a pin moves to another slot: store, look, clear
 *   ask()                 fetch_start(), plan_locked(): cache/fill.c
 *   answer()              notify_locked(): cache/fill.c
 *   wake()                verdicts_take_locked(), fetches_done(): cache/fill.c
 *   barrier()             barrier_run(): cache/barrier.c
 *   scan()                scan_pins_locked(): cache/evict.c
 *   punch()               mirror_punch(): cache/mirror.c
 *   evictor()             evict(), pick_locked(): cache/evict.c
 *   settle_for_space()    evict_batch(), settle_locked(): cache/evict.c
 *   clean()               the janitor: cache/residency.h
 *   retire(), replace()   replace_mirror(): cache/image.c
 *   drop()                evict_range(), pick_range_locked(): cache/evict.c
 *   changer()             image_refresh(), image_invalidate(): cache/image.c
 *   filler()              fill_run(), finish(): cache/fill.c
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
 *     the reader does not look again, and after a new epoch;
 *   - a load that begins after an invalidation or a refresh has returned sees
 *     bytes that were read after the change: `promised`;
 *   - no fill and no verdict is lost: whoever waits is woken (invalid end
 *     states), and nothing goes round for ever (non-progress cycles).
 *
 * FENCE is another protocol that is right: there is no membarrier, and readers
 * fence after they have stored a pin.  Each of these breaks a rule, and the
 * check must notice:
 *
 *   NO_BARRIER         the evictor reads the pins without a membarrier
 *   LOOK_FIRST         a reader looks at the word, then pins
 *   MOVE_WITHOUT_LOOK  a pin moves to another slot without a second look
 *   ANSWER_UNPINNED    a reader has no pin while it waits for a fill, and takes
 *                      the answer as final all the same
 *   RELEASE_EARLY      a reader clears its pin before its last look at bytes
 *   PUNCH_PINNED       the end of an epoch punches pinned pages, too
 *   EARLY_RESIDENT     a fill says RESIDENT before it has written all
 *   JANITOR_NO_WORD    the janitor punches an absent page, but does not take
 *                      its word to EVICTING
 *   NO_WAKE            the end of EVICTING wakes nobody
 *   NO_FILL_WAKE       a fill that fails answers nobody
 *   INSTALL_STALE      a fill that was invalidated in flight is installed
 *   RESTORE_STALE      a victim that was invalidated becomes RESIDENT again
 *   COUNT_EARLY        as RESTORE_STALE, since an invalidation counts before it
 *                      looks at the words, not with the look
 *   COUNT_LATE         as RESTORE_STALE, since a batch reads the count of
 *                      invalidations later than it takes its victims */

#define N_READERS 2
#ifndef N_ROUNDS
#define N_ROUNDS 2 /* the evictor's */
#endif
#define N_STORES 2 /* a queue of stores; when it is full the oldest arrives */

#define NO_PAGE 0
#define PAGE_OF(m) (m + 1) /* what a pin says: the page of mirror m */

/* enum residency */
#define ABSENT 0
#define FILLING 1
#define RESIDENT 2
#define EVICTING 3

/* What the page's memory holds. */
#define HOLE 0
#define HALF 1
#define WHOLE 2

typedef Mirror {
  byte word;
  byte bytes;
  bit content;    /* changes with each fill */
  bit version;    /* of the image, when `bytes` were read */
  bit source;     /* the version that a read of the source gets now */
  bit retired;
  bit generation; /* counts invalidations, of which there is one */
  bit submitted;  /* a fill that nobody runs yet */
  bit stale       /* the fill was invalidated */
};
Mirror mirrors[2];
bit current;      /* image.mirror */
bit promised;     /* the version that a load that begins now has to see */

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
#define WAIT_VERDICT 3
#define TOLD_RESIDENT 4
#define TOLD_ERROR 5
#define TOLD_AGAIN 6   /* look again */
#define TOLD_STALE 7   /* -ESTALE: attach to the new mirror */
#define TOLD_BYTES 8   /* a copy, fetch_bytes(); 9: of version 1 */
byte mail[N_READERS];

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

/* ---- Waiting and waking: under the lock ---------------------------------- */

inline wake() {
  d_step {
    for (i : 0 .. N_READERS - 1) {
      if
      :: mail[i] == WAIT_VERDICT -> mail[i] = TOLD_AGAIN
      :: else
      fi
    }
  }
}

inline answer(m, what) {
  d_step {
    for (i : 0 .. N_READERS - 1) {
      if
      :: mail[i] == WAIT_FILL + m -> mail[i] = what
      :: else
      fi
    }
  }
}

/* A request: what was stored before it has arrived when it is handled. */
inline ask(m) {
  commit_all(me);
  if
  :: mirrors[m].retired -> mail[me] = TOLD_STALE
  :: !mirrors[m].retired && mirrors[m].word == RESIDENT ->
    mail[me] = TOLD_RESIDENT
  :: !mirrors[m].retired && mirrors[m].word == EVICTING ->
    mail[me] = WAIT_VERDICT
  :: !mirrors[m].retired && mirrors[m].word == FILLING ->
    mail[me] = (mirrors[m].stale -> WAIT_VERDICT : WAIT_FILL + m)
  :: !mirrors[m].retired && mirrors[m].word == ABSENT ->
    mirrors[m].word = FILLING;
    mirrors[m].submitted = 1;
    mail[me] = WAIT_FILL + m
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

#define look(m) (mirrors[m].word == RESIDENT)

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
  bit is_second;

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
  :: atomic { mail[me] == TOLD_RESIDENT -> mail[me] = NOTHING }
#ifdef ANSWER_UNPINNED
    atomic { pin(PIN_SLOT, m) };
#endif
    atomic { begin_read(m) } /* with no second look */
  :: atomic { mail[me] >= TOLD_BYTES ->
      assert(mail[me] - TOLD_BYTES >= must);
      mail[me] = NOTHING;
      must = 0;
      unpin(PIN_SLOT)
    }
  :: atomic { mail[me] == TOLD_ERROR ->
      mail[me] = NOTHING;
      must = 0;
      unpin(PIN_SLOT)
    }
  :: atomic { mail[me] == TOLD_AGAIN ->
      mail[me] = NOTHING;
#ifdef LOOK_FIRST
      goto attached
#else
      goto again /* the pin stands */
#endif
    }
  :: atomic { mail[me] == TOLD_STALE ->
      mail[me] = NOTHING;
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
  :: me == 0 && !is_second && held -> move()
  :: true
  fi;
  if
  :: held -> release(PIN_SLOT, held, content)
  :: else
  fi;
  if
  :: atomic { me == 0 && !is_second -> is_second = 1; goto start }
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

inline retire() {
  if
  :: current == 0 -> current = 1; mirrors[0].retired = 1
  :: else
  fi
}

#ifdef RESTORE_STALE
#define comes_back_stale(m) false
#else
#define comes_back_stale(m)                                                    \
  (pinned && !mirrors[m].retired && mirrors[m].generation != generation)
#endif

inline settle_for_space(m) {
  do
  :: atomic {
    !comes_back_stale(m) ->
    if
    :: !pinned -> mirrors[m].word = ABSENT
    :: pinned && !mirrors[m].retired -> mirrors[m].word = RESIDENT
    :: pinned && mirrors[m].retired /* EVICTING for good */
    fi;
#ifndef NO_WAKE
    wake();
#endif
    pinned = 0;
    generation = 0;
    m = 0;
    break
  }
  :: atomic { comes_back_stale(m) -> retire(); wake() } /* image_renew() */
  od
}

/* What looks at holes, or somebody hostile, have cost goes. */
inline clean(m) {
#ifdef JANITOR_NO_WORD
  punch(m)
#else
  punch(m);
  atomic { mirrors[m].word = ABSENT; wake(); m = 0 }
#endif
}

#define is_victim(m) (mirrors[m].word == RESIDENT && !mirrors[m].retired)

proctype evictor() {
  byte k, n;
  bit m, generation, pinned;
end:
  do
  :: atomic {
    if
    :: n < N_ROUNDS && is_victim(0) -> m = 0
    :: n < N_ROUNDS && is_victim(1) -> m = 1
    fi;
    mirrors[m].word = EVICTING;
    generation = mirrors[m].generation;
    n++
  }
    barrier();
#ifdef COUNT_LATE
    generation = mirrors[m].generation;
#endif
    scan(m);
    if
    :: !pinned -> punch(m)
    :: else
    fi;
    settle_for_space(m)
  :: atomic {
    if
    :: n < N_ROUNDS && mirrors[0].word == ABSENT -> m = 0
    :: n < N_ROUNDS && mirrors[1].word == ABSENT -> m = 1
    fi;
#ifndef JANITOR_NO_WORD
    mirrors[m].word = EVICTING;
#endif
    n++
  }
    clean(m)
  od
}

/* ---- Change -------------------------------------------------------------- */

/* Mirror 0 is over, or its page was invalidated.  What is pinned stays EVICTING
 * and is counted. */
inline drop() {
  atomic {
#ifndef COUNT_EARLY
    mirrors[0].generation = 1;
#endif
    if
    :: mirrors[0].word == RESIDENT -> mirrors[0].word = EVICTING; owns = 1
    :: else
    fi
  };
  if
  :: owns ->
    barrier();
    scan(0);
#ifdef PUNCH_PINNED
    pinned = 0;
#endif
    if
    :: !pinned -> punch(0)
    :: else
    fi;
    atomic {
      mirrors[0].word = (pinned -> EVICTING : ABSENT);
      n_pinned = n_pinned + pinned;
      pinned = 0;
      owns = 0;
      wake()
    }
  :: else
  fi
}

/* Puts mirror 1 in the place of mirror 0. */
inline replace() {
  atomic { retire() };
  drop();
  atomic { wake(); n_pinned = 0 }
}

proctype changer() {
  byte k, n_pinned;
  bit owns, pinned;
  mirrors[1].source = 1;
  if
  :: true -> /* image_invalidate() */
    atomic {
      mirrors[0].source = 1;
      mirrors[0].stale = mirrors[0].word == FILLING;
#ifdef COUNT_EARLY
      mirrors[0].generation = 1
#endif
    };
    drop();
    if
    :: n_pinned == 0 -> goto done
    :: else
    fi
  :: true /* image_refresh(): mirror 0 keeps its source */
  fi;
  replace();
done:
  promised = 1
}

/* ---- Fills --------------------------------------------------------------- */

#ifdef INSTALL_STALE
#define may_install(m) (mirrors[m].bytes == WHOLE && !mirrors[m].retired)
#else
#define may_install(m)                                                         \
  (mirrors[m].bytes == WHOLE && !mirrors[m].retired && !mirrors[m].stale)
#endif

inline end_fill(word_now) {
  mirrors[m].word = word_now;
  mirrors[m].stale = 0;
  wake();
  m = 0
}

proctype filler() {
  bit m;
end:
  do
  :: atomic {
    if
    :: mirrors[0].submitted -> m = 0
    :: mirrors[1].submitted -> m = 1
    fi;
    assert(mirrors[m].word == FILLING && mirrors[m].bytes == HOLE);
    mirrors[m].submitted = 0;
    mirrors[m].version = mirrors[m].source /* the read */
  }
    if
    :: atomic { true -> /* it failed */
#ifndef NO_FILL_WAKE
        answer(m, TOLD_ERROR);
#endif
        mirrors[m].version = 0;
        end_fill(ABSENT) /* by EVICTING: nothing was written */
      }
    :: atomic { true ->
        mirrors[m].bytes = HALF;
        mirrors[m].content = !mirrors[m].content;
#ifdef EARLY_RESIDENT
        mirrors[m].word = RESIDENT
#endif
      }
      if
      :: true -> mirrors[m].bytes = WHOLE
      :: true -> mirrors[m].bytes = HOLE /* no memory: punched at once */
      fi;
      if
      :: atomic { may_install(m) ->
          answer(m, TOLD_RESIDENT);
          end_fill(RESIDENT)
        }
      :: atomic { else -> mirrors[m].word = EVICTING }
        mirrors[m].bytes = HOLE;
        atomic {
          answer(m, TOLD_BYTES + mirrors[m].version);
          mirrors[m].version = 0;
          end_fill(ABSENT)
        }
      fi
    fi
  od
}

init {
  atomic {
    run reader(0);
    run reader(1);
    run evictor();
    run changer();
    run filler()
  }
}
