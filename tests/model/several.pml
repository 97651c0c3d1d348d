/* Reads of several pages, and joins, as a Spin model: two pages of one mirror,
 * one invalidation of both.
 *
 * One client's handle, which reads in a daemon's memory: it may send a Read
 * ahead of need, that nobody waits for, and later reads both pages, or maps
 * them; the daemon, which answers its Reads page by page, in any order; a
 * thread that runs fills; an evictor.
 *
 *   step here             what it stands for
 *   --------------------  ----------------------------------------------------
 *   ahead()               remote_prefetch(): client/remote/remote.c
 *   reader()              attempt_begin(), attempt_walk(), attempt_fetch(),
 *                           attempt_is_stale(): client/request.c
 *   mark_now              mirror_mark(): cache/mirror.h
 *   is_torn(), is_fresh   handle_is_torn(): client/handle.h;
 *                           remote_read_is_fresh(): client/remote/read.c;
 *                           mirror_dropped_since(): cache/mirror.h
 *   send()                remote_read_new(), read_send():
 *                           client/remote/read.c
 *   join                  remote_read_underway(): client/remote/read.c
 *   plan()                fetch_begin(), plan_locked(): cache/fetch.c
 *   wake()                waiter_take_locked(), waiter_wake(): cache/waiter.c
 *   filler()              fill_read(), fill_finish(): cache/fill.c
 *   evictor()             evict(), settle_pinned_locked(), evict_stale():
 *                           cache/evict.c
 *   invalidator()         image_invalidate(): cache/image.c; evict_range():
 *                           cache/evict.c
 *   begin(), over()       invalidation_log_begin(),
 *                           invalidation_log_end():
 *                           cache/invalidation_log.c
 *
 * An `atomic` is a section under page_cache.lock, one instruction of a reader,
 * or what it does under a pin.  A pin is seen by all as soon as it is stored:
 * that it may not be is what pins.pml is about.
 *
 * Checked:
 *
 *   - a read of both pages never puts together bytes that were read before the
 *     invalidation began and bytes that were read later;
 *   - a load that begins after the invalidation has returned gets bytes that
 *     were read after it began, also where it joins a Read that was sent
 *     earlier;
 *   - bytes that are copied are there;
 *   - each wait ends (invalid end states).
 *
 * Each of these breaks a rule, and the check must notice:
 *
 *   NO_CHECK         a reader does not compare at its end
 *   CHECK_EARLY      it compares before it has the last page
 *   MARK_LATE        it takes its mark after its first look
 *   MARK_BEGUN       its mark is n_begun, not n_over
 *   JOIN_OLD         it joins a Read that is under way, however old
 *   JOIN_MARK_LATE   the mark of a Read is taken after it was sent
 *   BEGIN_LATE       an invalidation counts as begun when states have moved
 *   OVER_EARLY       it counts as over before states have moved
 *   NO_STALE         what is pinned stays RESIDENT when it is invalidated
 *   JOIN_STALE       a fetch joins a fill that was invalidated
 *   INSTALL_STALE    a fill that was invalidated in flight is installed */

#ifndef N_BATCHES
#define N_BATCHES 1 /* the evictor's */
#endif
#define N_PAGES 2

/* enum page_state */
#define ABSENT 0
#define FILLING 1
#define RESIDENT 2
#define EVICTING 3
#define STALE 4

typedef Page {
  byte state;
  bit is_there;  /* its bytes */
  bit version;   /* of the image, when they were read */
  /* Fills, from before the invalidation began and from after that.  The one
   * that installs owns the state. */
  byte fill[2];
  bit installs[2];
  byte answers[2] /* to the Reads */
};
Page pages[N_PAGES];
bit source;       /* the version that a read of the source gets now */
bit n_begun, n_over;
bit promised;     /* the version that a load that begins now has to see */

#define NONE 0
#define BEGUN 1
#define READ 2 /* 3: of version 1 */

/* The Reads of the handle, and what the daemon says of a page. */
#define OWN 0
#define AHEAD 1
#define NOTHING 0       /* the Read does not name it */
#define ASKED 1
#define WAIT_OUTCOME 2
#define WAIT_FILL 3     /* 4: the one from after the invalidation began */
#define TOLD_RESIDENT 5
#define TOLD_BYTES 6    /* 7: of version 1 */
#define is_told(a) (a == NOTHING || a >= TOLD_RESIDENT)
#define is_done(r)                                                             \
  (is_told(pages[0].answers[r]) && is_told(pages[1].answers[r]))

/* The handle's pins, as the first page and the last: of the cursor, or of a
 * map; and of what it waits for. */
#define NO_PAGE 2
byte pin_first = NO_PAGE, pin_last, job_first = NO_PAGE;
#define is_pinned(p)                                                           \
  ((pin_first <= p && p <= pin_last) || job_first <= p)

hidden byte i;

/* ---- The daemon ---------------------------------------------------------- */

inline wake() {
  d_step {
    for (i : 0 .. 2 * N_PAGES - 1) {
      if
      :: pages[i / 2].answers[i % 2] == WAIT_OUTCOME ->
        pages[i / 2].answers[i % 2] = ASKED
      :: else
      fi
    }
  }
}

#ifdef JOIN_STALE
#define fill_now(p) (pages[p].fill[0] == NONE && n_begun)
#else
#define fill_now(p) n_begun
#endif

#define has_fill(p) (pages[p].fill[fill_now(p)] != NONE)

/* Joins the fill of a page, or begins it. */
inline join_fill(p, r, is_absent) {
  pages[p].answers[r] = WAIT_FILL + fill_now(p);
  pages[p].installs[fill_now(p)] =
      (has_fill(p) -> pages[p].installs[fill_now(p)] : is_absent);
  pages[p].state = (!has_fill(p) && is_absent -> FILLING : pages[p].state);
  pages[p].fill[fill_now(p)] =
      (has_fill(p) -> pages[p].fill[fill_now(p)] : BEGUN)
}

inline plan(p, r) {
  if
  :: pages[p].state == RESIDENT -> pages[p].answers[r] = TOLD_RESIDENT
  :: pages[p].state == EVICTING -> pages[p].answers[r] = WAIT_OUTCOME
  :: pages[p].state == FILLING ->
    pages[p].answers[r] = (pages[p].installs[fill_now(p)] ->
        WAIT_FILL + fill_now(p) : WAIT_OUTCOME)
  :: pages[p].state == ABSENT -> join_fill(p, r, 1)
  :: pages[p].state == STALE -> join_fill(p, r, 0)
  fi
}

proctype daemon() {
end:
  do
  :: atomic { pages[0].answers[OWN] == ASKED -> plan(0, OWN) }
  :: atomic { pages[0].answers[AHEAD] == ASKED -> plan(0, AHEAD) }
  :: atomic { pages[1].answers[OWN] == ASKED -> plan(1, OWN) }
  :: atomic { pages[1].answers[AHEAD] == ASKED -> plan(1, AHEAD) }
  od
}

/* Tells the Reads that wait for fill `e` of page `p`. */
inline answer(p, e, what) {
  d_step {
    for (i : 0 .. 1) {
      if
      :: pages[p].answers[i] == WAIT_FILL + e -> pages[p].answers[i] = what
      :: else
      fi
    }
  }
}

#ifdef INSTALL_STALE
#define may_install(e) true
#else
#define may_install(e) (e == n_begun)
#endif

/* The end of a fill, which has read version `v`. */
inline end_fill(p, e, v) {
  told = TOLD_BYTES + v;
  if
  :: pages[p].installs[e] && may_install(e) ->
    pages[p].is_there = 1;
    pages[p].version = v;
    pages[p].state = RESIDENT;
    told = TOLD_RESIDENT
  :: pages[p].installs[e] -> pages[p].state = ABSENT /* or there is no room */
  :: !pages[p].installs[e]
  fi;
  answer(p, e, told);
  pages[p].fill[e] = NONE;
  pages[p].installs[e] = 0;
  wake();
  told = NOTHING
}

inline run_fill(p, e) {
  if
  :: pages[p].fill[e] == BEGUN -> pages[p].fill[e] = READ + source
  :: pages[p].fill[e] >= READ -> end_fill(p, e, (pages[p].fill[e] - READ))
  fi
}

proctype filler() {
  byte told;
end:
  do
  :: atomic { pages[0].fill[0] != NONE -> run_fill(0, 0) }
  :: atomic { pages[0].fill[1] != NONE -> run_fill(0, 1) }
  :: atomic { pages[1].fill[0] != NONE -> run_fill(1, 0) }
  :: atomic { pages[1].fill[1] != NONE -> run_fill(1, 1) }
  od
}

/* ---- Evicting ------------------------------------------------------------ */

/* Scan, punch and the end of a batch. */
inline settle(p, pinned_state) {
  atomic {
    pages[p].state = (is_pinned(p) -> pinned_state : ABSENT);
    pages[p].is_there = pages[p].state != ABSENT;
    pages[p].version = pages[p].version && pages[p].is_there;
    wake()
  }
}

#define can_go(p) (pages[p].state == STALE)

proctype evictor() {
  byte n;
  bit p, mark;
end:
  do
  :: atomic {
    if
    :: n < N_BATCHES && pages[0].state == RESIDENT -> p = 0
    :: n < N_BATCHES && pages[1].state == RESIDENT -> p = 1
    fi;
    pages[p].state = EVICTING;
    mark = n_over;
    n++
  }
    settle(p, (n_begun != mark -> STALE : RESIDENT));
    atomic { p = 0; mark = 0 }
  :: atomic { n < N_BATCHES && can_go(0) -> p = 0; n++ }
    settle(p, STALE)
  :: atomic { n < N_BATCHES && can_go(1) -> p = 1; n++ }
    settle(p, STALE);
    p = 0
  od
}

/* ---- The invalidation ---------------------------------------------------- */

inline begin() { n_begun = 1 }
inline over() { n_over = 1 }

inline leave(p) {
  atomic {
#ifdef BEGIN_LATE
    source = 1;
#endif
    if
    :: pages[p].state == RESIDENT -> pages[p].state = EVICTING; owns[p] = 1
    :: else
    fi
  }
}

#ifdef NO_STALE
#define DROPPED RESIDENT
#else
#define DROPPED STALE
#endif

inline drop(p) {
  if
  :: owns[p] -> settle(p, DROPPED)
  :: else
  fi
}

proctype invalidator() {
  bit owns[N_PAGES];
#ifndef BEGIN_LATE
  atomic { source = 1; begin() };
#endif
#ifdef OVER_EARLY
  atomic { over() };
#endif
  leave(0);
  leave(1);
#ifdef BEGIN_LATE
  atomic { begin() };
#endif
  drop(0);
  drop(1);
#ifndef OVER_EARLY
  atomic { over() };
#endif
  promised = 1
}

/* ---- The handle ---------------------------------------------------------- */

/* A Read of what is not RESIDENT from `first` on. */
inline send(r, first) {
  atomic {
    pages[0].answers[r] =
        (first == 0 && pages[0].state != RESIDENT -> ASKED : NOTHING);
    pages[1].answers[r] = (pages[1].state != RESIDENT -> ASKED : NOTHING)
  }
}

#ifdef MARK_BEGUN
#define mark_now n_begun
#else
#define mark_now n_over
#endif

/* Sends a Read that nobody waits for. */
inline ahead() {
#ifdef JOIN_MARK_LATE
  if
  :: true -> send(AHEAD, 0)
  :: true -> send(AHEAD, 1)
  fi;
  ahead_mark = mark_now
#else
  ahead_mark = mark_now;
  if
  :: true -> send(AHEAD, 0)
  :: true -> send(AHEAD, 1)
  fi
#endif
}

#ifdef JOIN_OLD
#define is_fresh true
#else
#define is_fresh (n_begun == ahead_mark)
#endif

/* Copies page `pos`, which is pinned and RESIDENT. */
inline copy_page() {
  assert(pages[pos].is_there);
  got[pos] = pages[pos].version;
  pos++
}

/* Takes what a Read has brought of page `pos`. */
inline take_bytes() {
  got[pos] = pages[pos].answers[job] - TOLD_BYTES;
  pos++
}

#define has_bytes (has_job && pages[pos].answers[job] >= TOLD_BYTES)
#ifdef NO_CHECK
#define is_torn false
#else
#ifdef CHECK_EARLY
#define is_torn was_torn
#else
#define is_torn (n_begun != mark)
#endif
#endif

proctype handle() {
  byte pos;
  bit got[N_PAGES];
  bit is_map, must, mark, ahead_mark, has_job, job;
#ifdef CHECK_EARLY
  bit was_torn;
#endif
  if
  :: true -> ahead()
  :: true
  fi;
  if
  :: true -> is_map = 1
  :: true
  fi;
  must = promised;
start:
#ifndef MARK_LATE
  mark = mark_now;
#endif
  if
  :: is_map -> atomic { pin_first = 0; pin_last = 1 }
  :: else
  fi;

walk:
  if
  :: pos == N_PAGES -> goto check
  :: pos < N_PAGES && !is_map -> atomic { pin_first = pos; pin_last = pos }
  :: pos < N_PAGES && is_map
  fi;
#ifdef CHECK_EARLY
  was_torn = n_begun != mark;
#endif
  if
  :: atomic { pages[pos].state == RESIDENT -> copy_page() }
#ifdef MARK_LATE
    if
    :: pos == 1 -> mark = mark_now
    :: else
    fi;
#endif
    goto walk
  :: atomic { pages[pos].state != RESIDENT && has_bytes -> take_bytes() }
    goto walk
  :: atomic { pages[pos].state != RESIDENT && !has_bytes }
  fi;

  /* A miss. */
  atomic {
    if
    :: !is_map -> pin_first = NO_PAGE; job_first = pos
    :: else
    fi;
    has_job = 1;
    job = OWN
  };
  if
  :: atomic {
    pages[pos].answers[AHEAD] != NOTHING && is_fresh -> job = AHEAD /* join */
  }
  :: atomic { /* or its answer was taken in before */
    pages[pos].answers[AHEAD] == NOTHING || !is_fresh || is_done(AHEAD)
  }
    send(OWN, pos)
  fi;
  atomic { is_done(job) };
  goto walk;

check:
  if
  :: atomic { is_torn ->
      pos = 0;
      got[0] = 0;
      got[1] = 0;
      has_job = 0;
      job = OWN;
      pin_first = NO_PAGE;
      job_first = NO_PAGE
    }
    goto start
  :: else
  fi;
  assert(got[0] == got[1]);
  assert(got[0] >= must && got[1] >= must);
  atomic { pin_first = NO_PAGE; job_first = NO_PAGE }
}

inline begin_page(p) {
  if
  :: true
  :: true -> pages[p].state = RESIDENT; pages[p].is_there = 1
  fi
}

init {
  atomic {
    begin_page(0);
    begin_page(1);
    run handle();
    run daemon();
    run filler();
    run evictor();
    run invalidator()
  }
}
