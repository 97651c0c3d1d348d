#!/usr/bin/env bash
# Has Spin go through every state of the models of the protocol between readers
# and the cache, and through models that break one of its rules, which it has to
# notice.
#
#   model_test.sh checks.sh pins.pml several.pml cursor.pml
source "$1"
shift
models=$(realpath "$@") || exit 1
cd "$work" || exit 1

path_of() { grep "/$1\.pml$" <<<"$models"; }

# make_pan MODEL SPIN_FLAGS -- GCC_FLAGS: makes ./pan, which checks the model.
make_pan() {
  local model
  model=$(path_of "$1") || return
  shift
  local -a spin_flags=()
  while [ "$1" != -- ]; do
    spin_flags+=("$1")
    shift
  done
  shift
  rm -f pan pan.* # nothing of the model before
  spin "${spin_flags[@]}" -a "$model" >spin.log 2>&1 && [ ! -s spin.log ] &&
    gcc "$@" -DCOLLAPSE -DMEMLIM=1024 -o pan pan.c >gcc.log 2>&1 && return
  echo "no checker was made:"
  cat spin.log gcc.log
  return 1
}

# run_pan FLAGS: what it finds goes to pan.log.  It exits with 0 also when it
# finds something.
run_pan() {
  timeout 600 ./pan -m20000 "$@" >pan.log 2>&1 && return
  echo "pan: exit status $?"
  tail -n 20 pan.log
  return 1
}

# What pan says of a search that it did not finish, or not in full: for lack of
# depth, of memory, or because states were told apart by a hash alone.
readonly PARTIAL='too small|not completed|out of memory|reached -DMEMLIM'\
'|Bit statespace|hash-compact|aborting'

is_proven() {
  ! grep -E "$PARTIAL" pan.log && grep -q '^Full statespace search' pan.log &&
    grep -q ', errors: 0$' pan.log && return
  cat pan.log
  return 1
}

# is_safe MODEL FLAGS: no search with these flags finds anything.  The steps
# that it does not reach go to MODEL.missed, those that no search did before.
is_safe() {
  make_pan "$@" -- -O2 -DSAFETY && run_pan && is_proven || return
  local missed=$1.missed
  grep '\.pml:.*, state ' pan.log | grep -v '"-end-"' | sort >missed.now
  [ -f "$missed" ] || cp missed.now "$missed"
  comm -12 missed.now "$missed" >missed.all
  mv missed.all "$missed"
}

# Else the models would prove nothing: an assertion that is never reached holds.
every_step_is_reached() { ! grep . ./*.missed; }

makes_progress() { make_pan "$@" -- -O2 -DNP && run_pan -l && is_proven; }

# is_noticed FINDING MODEL FLAGS: with these flags the check fails, by that
# finding.  In reverse order it mostly comes to it sooner: to optimise the
# checker takes longer than its search.
is_noticed() {
  local finding=$1
  shift
  make_pan "$@" -- -O0 -DSAFETY -DREVERSE && run_pan || return
  grep -q ', errors: 1$' pan.log && grep -q "^pan:1: $finding" pan.log && return
  cat pan.log
  return 1
}

# The macros are explained in the models.  An invalidation, a new epoch, and
# both are three searches: of all at once there are too many states.
INVALIDATION=(pins -DCHANGES=1)
ALONE=(pins -DCHANGES=1 -DN_ROUNDS=0) # without the reclaimer
EPOCH=(pins -DCHANGES=2 -DN_ROUNDS=1)
BOTH=(pins -DCHANGES=3 -DN_LOADS=1 -DN_BATCHES=0 -DN_ROUNDS=0)
ZERO=(pins -DCHANGES=1 -DZEROS=1 -DN_ROUNDS=1)
ZERO_EPOCH=(pins -DCHANGES=2 -DZEROS=1 -DN_ROUNDS=1 -DN_BATCHES=0)
SEVERAL=(several)
CURSOR=(cursor)

check "an invalidation spoils no page under a pin, and is seen" \
  is_safe "${INVALIDATION[@]}"
check "nor does a new epoch" is_safe "${EPOCH[@]}"
check "nor do both" is_safe "${BOTH[@]}"
check "nor without membarrier, when readers fence" \
  is_safe "${INVALIDATION[@]}" -DFENCE
check "pages of zeros are seen as they are, and forgotten in time" \
  is_safe "${ZERO[@]}"
check "and at a new epoch" is_safe "${ZERO_EPOCH[@]}"
check "a read of several pages, and one that joins, are of one moment" \
  is_safe "${SEVERAL[@]}"
check "a handle's cursor is pinned as long as the handle believes it" \
  is_safe "${CURSOR[@]}"
check "every step of the models is reached" every_step_is_reached
check "nothing goes round for ever" \
  makes_progress "${INVALIDATION[@]}" -DN_ROUNDS=1

torn='assertion violated (mirrors\[.*\]\.bytes==2)'
old='assertion violated (\(mirrors\[m\]\.version\|(answers\[me\]-12)\)>=must)'
lost='assertion violated ((mirrors\[0\]\.state==0)||(mirrors\[0\]\.state==5))'
stuck='invalid end state'
mixed='assertion violated (got\[0\]==got\[1\])'
gone='assertion violated is_there'
unseen='assertion violated  !((was_old'
while read -r macro config finding; do
  declare -n flags=$config
  check "the check of ${flags[0]} notices $macro" \
    is_noticed "${!finding}" "${flags[@]}" "-D$macro"
done <<'LIST'
NO_BARRIER INVALIDATION torn
LOOK_FIRST INVALIDATION torn
MOVE_WITHOUT_LOOK INVALIDATION torn
ANSWER_UNPINNED INVALIDATION torn
RELEASE_EARLY INVALIDATION torn
EARLY_RESIDENT ALONE torn
PUNCH_NO_STATE INVALIDATION torn
STALE_PUNCH INVALIDATION torn
RETIRED_PUNCH EPOCH torn
RETIRE_LATE EPOCH torn
SWEEP_NO_MARK INVALIDATION lost
NO_WAKE INVALIDATION stuck
NO_FILL_WAKE INVALIDATION stuck
INSTALL_STALE INVALIDATION old
JOIN_STALE INVALIDATION old
DROP_RESTORE INVALIDATION old
RESTORE_STALE INVALIDATION old
STALE_RESTORE INVALIDATION old
MARK_BEGUN INVALIDATION old
MARK_LATE INVALIDATION old
BEGIN_LATE INVALIDATION old
OVER_EARLY INVALIDATION old
RETIRED_RESTORE EPOCH old
RETIRED_INSTALL EPOCH old
RETIRED_RESIDENT BOTH old
ZERO_READ ZERO torn
ZERO_RESIDENT ZERO torn
ZERO_STAYS ZERO old
INSTALL_STALE ZERO old
ZERO_RETIRED ZERO_EPOCH old
SWEEP_NO_MARK ZERO lost
NO_CHECK SEVERAL mixed
CHECK_EARLY SEVERAL mixed
MARK_LATE SEVERAL mixed
MARK_BEGUN SEVERAL mixed
JOIN_OLD SEVERAL mixed
JOIN_MARK_LATE SEVERAL mixed
BEGIN_LATE SEVERAL mixed
OVER_EARLY SEVERAL mixed
NO_STALE SEVERAL mixed
JOIN_STALE SEVERAL mixed
INSTALL_STALE SEVERAL mixed
CURSOR_TWO_OWNERS CURSOR gone
WALK_KEEPS_CURSOR CURSOR gone
ADOPT_KEEPS_CURSOR CURSOR gone
CURSOR_NO_LOOK CURSOR unseen
LIST
finish
