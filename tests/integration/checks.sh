# Sourced by the scripted tests: `ok - NAME` lines, a directory, daemons.
# A script ends with `finish`.
set -uo pipefail
failures=0
pids=()

# Not TEST_TMPDIR: a socket's path has at most 107 characters.
work=$(mktemp -d /tmp/cachetd-test.XXXXXX)
clean_up() {
  local pid
  for pid in "${pids[@]}"; do
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null # lest the shell report it
  done
  rm -rf -- "$work"
}
trap clean_up EXIT

# check NAME COMMAND...: prints whether the command succeeds.
check() {
  local name=$1
  shift
  if "$@"; then
    echo "ok - $name"
  else
    echo "not ok - $name"
    failures=$((failures + 1))
  fi
}

# check_limited PROGRAM NAME COMMAND...: check, of a program under a limit of
# file sizes.  ThreadSanitizer itself does not live under one: it keeps its
# knowledge of read-only data in a file that would be cut short.
check_limited() {
  if grep -qa __tsan_init "$1"; then
    echo "ok - $2 # SKIP ThreadSanitizer cannot run under ulimit -f"
  else
    check "${@:2}"
  fi
}

# eventually COMMAND...: repeats it until it succeeds, for at most 20 s.
eventually() {
  local deadline=$((SECONDS + 20))
  until "$@"; do
    if ((SECONDS >= deadline)); then
      echo "gave up after 20 s: $*"
      return 1
    fi
    sleep 0.05
  done
}

# start_daemon PROGRAM ARGUMENT...: in the background, and waits until it is
# ready.  It does without the configuration of this machine, unless an argument
# names one.  Its pid goes to $daemon, what it logs to $work/log.
start_daemon() {
  : >"$work/log"
  "$1" --config /dev/null "${@:2}" </dev/null 2>"$work/log" &
  daemon=$!
  pids+=("$daemon")
  eventually grep -q ready "$work/log"
}

exits_0_on_sigterm() {
  local status=0
  kill -TERM "$daemon" || return 1
  wait "$daemon" || status=$?
  [ "$status" -eq 0 ] || {
    echo "exit status $status"
    return 1
  }
}

# fails_with STATUS PATTERN COMMAND...: the command exits with that status, and
# what it writes to standard error matches the pattern; it writes nothing to
# standard output.
fails_with() {
  local expected=$1 pattern=$2 status=0
  shift 2
  timeout 20 "$@" </dev/null >"$work/stdout" 2>"$work/stderr" || status=$?
  if [ "$status" -eq "$expected" ] && [ ! -s "$work/stdout" ] &&
    grep -qE -- "$pattern" "$work/stderr"; then
    return 0
  fi
  echo "  exit status $status, not $expected, or no \"$pattern\" in:"
  sed 's/^/  | /' "$work/stdout" "$work/stderr"
  return 1
}

finish() {
  [ "$failures" -eq 0 ]
}
