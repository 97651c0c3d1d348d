/* The cursor of a handle, as a Spin model: the pin slot for the page of its
 * last access, which its other calls use as well.
 *
 * One handle, whose calls come one after the other, any that its owner likes:
 * getters, blocking reads, the begin and the end of an asynchronous read, a
 * call that takes the image's next epoch.  All slots for ranges are taken by
 * its maps.  Two pages, an evictor that invalidates as well, and fills.
 *
 *   step here             what it stands for
 *   --------------------  ----------------------------------------------------
 *   get()                 handle_look(): client/handle.h
 *   drop_cursor()         handle_drop_cursor(): client/handle.h
 *   walk()                attempt_walk(), attempt_find(): client/request.c
 *   wait()                attempt_pin_job(): client/request.c, of a blocking call
 *   begin_async(),        request_step(), attempt_pin_job(),
 *     end_async()           attempt_drop_job(): client/request.c
 *   adopt()               handle_adopt_epoch(): client/handle.c
 *   evictor()             evict(), evict_range(): cache/evict.c
 *   filler()              all of a fill
 *
 * A pin is seen by all as soon as it is stored: see pins.pml.
 *
 * Checked: a page that is copied, or that a getter's address stands for, is
 * there until the copy ends; and a call that begins after an invalidation does
 * not read bytes from before it.
 *
 * Each of these breaks a rule, and the check must notice:
 *
 *   CURSOR_TWO_OWNERS  an asynchronous read waits with its pin in the slot
 *   WALK_KEEPS_CURSOR  a call that copies by the slot does not drop the cursor
 *   ADOPT_KEEPS_CURSOR the next epoch has another pin table, but the cursor
 *                      is believed to be in it
 *   CURSOR_NO_LOOK     a page that the cursor pins is read without a look at
 *                      its state */

#define N_CALLS 4
#ifndef N_BATCHES
#define N_BATCHES 2 /* the evictor's */
#endif
#define NO_PAGE 2

/* enum page_state; FILLING is ABSENT here. */
#define ABSENT 0
#define RESIDENT 2
#define EVICTING 3
#define STALE 4

byte state[2];
bit is_there[2];   /* the bytes */
bit is_old[2];     /* they are from before an invalidation that has returned */
byte slot = NO_PAGE;
#define is_pinned(p) (slot == p)

proctype filler() {
end:
  do
  :: atomic { state[0] == ABSENT -> is_there[0] = 1; state[0] = RESIDENT }
  :: atomic { state[1] == ABSENT -> is_there[1] = 1; state[1] = RESIDENT }
  od
}

inline punch(p) {
  state[p] = ABSENT;
  is_there[p] = 0;
  is_old[p] = 0
}

inline settle() {
  if
  :: is_pinned(p) ->
    state[p] = (is_drop -> STALE : RESIDENT);
    is_old[p] = is_drop
  :: !is_pinned(p) -> punch(p)
  fi
}

proctype evictor() {
  byte n;
  bit p, is_drop;
end:
  do
  :: atomic {
    if
    :: n < N_BATCHES && state[0] == RESIDENT -> p = 0
    :: n < N_BATCHES && state[1] == RESIDENT -> p = 1
    fi;
    if
    :: is_drop = 0
    :: is_drop = 1
    fi;
    state[p] = EVICTING;
    n++
  }
    atomic { settle(); p = 0 }
  /* A pin that is gone was all that kept it. */
  :: atomic { state[0] == STALE && !is_pinned(0) -> punch(0) }
  :: atomic { state[1] == STALE && !is_pinned(1) -> punch(1) }
  od
}

/* ---- The handle ---------------------------------------------------------- */

inline drop_cursor() {
  if
  :: cursor != NO_PAGE -> atomic { slot = NO_PAGE; cursor = NO_PAGE }
  :: cursor == NO_PAGE
  fi
}

/* The bytes are used from here, and for the last time there. */
inline begin_use(p) {
  assert(is_there[p]);
  assert(!(was_old[p] && is_old[p]))
}
inline end_use(p) { assert(is_there[p]) }

#ifdef CURSOR_NO_LOOK
#define is_trusted(p) true
#else
#define is_trusted(p) (state[p] == RESIDENT)
#endif

inline get(p) {
  if
  :: atomic { cursor == p && is_trusted(p) -> begin_use(p) }
    end_use(p)
  :: cursor == p && !is_trusted(p) -> read(p)
  :: cursor != p ->
    atomic { cursor = p; slot = p };
    if
    :: atomic { state[p] == RESIDENT -> begin_use(p) }
      end_use(p)
    :: state[p] != RESIDENT -> read(p)
    fi
  fi
}

/* Copies the page if it is there. */
inline walk(p) {
#ifndef WALK_KEEPS_CURSOR
  drop_cursor();
#endif
  atomic { slot = p };
  if
  :: atomic { state[p] == RESIDENT -> begin_use(p) }
    atomic { end_use(p); is_copied = 1 }
  :: state[p] != RESIDENT
  fi;
  atomic { slot = NO_PAGE }
}

/* A blocking call, which has walked and so dropped the cursor, waits with a pin
 * until its answer comes.  That may be bytes that have no place, or an error.
 */
inline wait(p) {
  atomic { slot = p };
  if
  :: state[p] == RESIDENT
  :: is_copied = 1
  fi;
  atomic { slot = NO_PAGE }
}

inline read(p) {
  walk(p);
  do
  :: is_copied -> is_copied = 0; break
  :: !is_copied -> wait(p); walk(p)
  od
}

inline begin_async(p) {
  walk(p);
  if
  :: is_copied -> is_copied = 0
  :: else ->
    waits = 1;
#ifdef CURSOR_TWO_OWNERS
    atomic { slot = p }
#endif
  fi
}

inline end_async() {
  waits = 0;
#ifdef CURSOR_TWO_OWNERS
  atomic { slot = NO_PAGE }
#endif
}

/* The slot is that of another table from here on.  (It is of the same two
 * pages, as if the next epoch had them as they are.) */
inline adopt() {
#ifndef ADOPT_KEEPS_CURSOR
  drop_cursor();
#endif
  atomic { slot = NO_PAGE }
}

proctype handle() {
  byte cursor = NO_PAGE, n;
  bit is_copied, waits;
  bit was_old[2]; /* when the call began */
  do
  :: n < N_CALLS ->
    atomic { n++; was_old[0] = is_old[0]; was_old[1] = is_old[1] };
    if
    :: get(0)
    :: get(1)
    :: read(0)
    :: !waits -> begin_async(1)
    :: waits -> end_async()
    :: adopt()
    fi
  :: n == N_CALLS -> break
  od
}

init {
  atomic {
    run handle();
    run filler();
    run evictor()
  }
}
