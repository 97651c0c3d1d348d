#!/usr/bin/env bash
# Has Spin go through every state of the model of the pin protocol, and through
# models that break one of its rules, which it has to notice.
#
#   model_test.sh checks.sh pins.pml
source "$1"
model=$(realpath "$2") || exit 1
cd "$work" || exit 1

# make_pan SPIN_FLAGS -- GCC_FLAGS: makes ./pan, which checks the model.
make_pan() {
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
  timeout 240 ./pan -m20000 "$@" >pan.log 2>&1 && return
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

is_safe() { make_pan "$@" -- -O2 -DSAFETY && run_pan && is_proven; }

# Else the model would prove nothing: an assertion that is never reached holds.
every_step_is_reached() {
  ! grep 'pins\.pml:.*, state ' pan.log | grep -v '"-end-"'
}

makes_progress() { make_pan "$@" -- -O2 -DNP && run_pan -l && is_proven; }

# is_noticed MACRO FINDING: with the macro the check fails, by that finding.
is_noticed() {
  make_pan "-D$1" -- -O0 -DSAFETY && run_pan || return
  grep -q ', errors: 1$' pan.log && grep -q "^pan:1: $2" pan.log && return
  cat pan.log
  return 1
}

# The macros are explained in pins.pml.
check "no reader uses a page that is not whole, and nobody waits for ever" \
  is_safe
check "every step of the model is reached" every_step_is_reached
check "neither without membarrier, when readers fence" is_safe -DFENCE
check "nothing goes round for ever" makes_progress -DN_ROUNDS=1
torn='assertion violated (mirrors\[.*\]\.bytes==2)'
old='assertion violated (mirrors\[m\]\.version>=must)'
stuck='invalid end state'
while read -r macro finding; do
  check "the check notices $macro" is_noticed "$macro" "${!finding}"
done <<'EOF'
NO_BARRIER torn
LOOK_FIRST torn
MOVE_WITHOUT_LOOK torn
ANSWER_UNPINNED torn
RELEASE_EARLY torn
PUNCH_PINNED torn
EARLY_RESIDENT torn
JANITOR_NO_WORD torn
NO_WAKE stuck
NO_FILL_WAKE stuck
INSTALL_STALE old
RESTORE_STALE old
COUNT_EARLY old
COUNT_LATE old
EOF
finish
