#!/usr/bin/env bash
# deploy/quickstart does what it says, on images of several kinds, and leaves
# nothing behind.  No sh_test, because quickstart itself runs Bazel; tests/run
# runs it.
set -uo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
failures=0
work=$(mktemp -d "${TMPDIR:-/tmp}/cachetd-quickstart-test.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

# check NAME COMMAND...: prints whether the command succeeds, and if not, what
# quickstart printed last.
check() {
  local name=$1
  shift
  if "$@"; then
    echo "ok - $name"
  else
    echo "not ok - $name"
    sed 's/^/  | /' "$work/output"
    failures=$((failures + 1))
  fi
}

# ends_with STATUS ARGUMENT...: runs quickstart, with what it keeps in $work.
ends_with() {
  local expected=$1 status=0
  shift
  mkdir -p -- "$work/tmp"
  TMPDIR=$work/tmp XDG_CACHE_HOME=$work/cache "$root/deploy/quickstart" "$@" \
    </dev/null >"$work/output" 2>&1 || status=$?
  if [ "$status" -ne "$expected" ]; then
    echo "exit status $status, not $expected"
    return 1
  fi
}

printed() {
  grep -qE "$1" "$work/output"
}

three_clients_agree() {
  [ "$(grep -cE '^client [0-9]: .* the same as the file' "$work/output")" -eq 3 ]
}

# No socket, log or image in the temporary directory, no daemon that uses it.
left_nothing() {
  [ -z "$(ls -A -- "$work/tmp")" ] || return 1
  # From a file, or grep would find its own command line.
  echo "$work/tmp/" >"$work/pattern"
  ! grep -qzsF -f "$work/pattern" /proc/[0-9]*/cmdline
}

check "makes an image, serves it and exits 0" ends_with 0
check "three processes read the very bytes of the image" three_clients_agree
check "shows how many hits the daemon counted" printed '[Hh]its'
check "shows how many misses the daemon counted" printed '[Mm]isses'
check "leaves no process and no file behind" left_nothing
check "keeps the image it made for the next time" \
  [ -s "$work/cache/cachetd/quickstart.img" ]

odd="$work/a name, x=y 100%.img"
head -c 1000001 /dev/urandom >"$odd"
check "serves an image whose name needs quoting" ends_with 0 "$odd"
check "three processes read the very bytes of that" three_clients_agree

check "fails when there is no such image" ends_with 1 "$work/none.img"
check "fails on a directory" ends_with 1 "$work"
check "rejects a bad command line" ends_with 2 --what
check "leaves no process and no file behind after that" left_nothing

[ "$failures" -eq 0 ]
