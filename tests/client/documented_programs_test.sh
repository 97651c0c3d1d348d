#!/bin/bash
# The programs in the public header, the README and the man page compile, as a
# stranger would compile them, and do what their text says.
#   documented_programs_test.sh ARCHIVE HEADER README MAN-PAGE
set -euo pipefail
archive=$1 header=$2 readme=$3 page=$4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cc=${CC:-gcc}

flags=(-Wall -Wextra -Werror -I "$(dirname "$header")/..")
# An instrumented library needs the instrumentation's runtime.
nm "$archive" >"$tmp/names"
if grep -q ' U __asan_' "$tmp/names"; then flags+=(-fsanitize=address,undefined); fi
if grep -q ' U __tsan_' "$tmp/names"; then flags+=(-fsanitize=thread); fi

# program NAME FILE INDENTATION: from its #include on, to the end of main().
program() {
  sed -n "/^$3#include <cachet/,/^$3}\$/p" "$2" | sed -e "s/^$3//" -e 's/^ \*$//' \
    -e 's/\\e/\\/g' >"$tmp/$1.c"
  $cc -std=c11 "${flags[@]}" "$tmp/$1.c" "$archive" -lprotobuf-c -lpthread -o "$tmp/$1"
}
program header "$header" ' \*   '
program readme "$readme" '    '
program page "$page" ''

expect() { # TEXT COMMAND...
  local text
  text=$("${@:2}") || { echo "FAILED: ${*:2}"; exit 1; }
  [ "$text" = "$1" ] || { echo "${*:2}: \"$text\", not \"$1\""; exit 1; }
}
fails() { # TEXT COMMAND...
  if "${@:2}" >"$tmp/out" 2>"$tmp/err"; then echo "${*:2}: succeeds"; exit 1; fi
  [ ! -s "$tmp/out" ] && grep -q "$1" "$tmp/err" || { cat "$tmp/out" "$tmp/err"; exit 1; }
}

# 10,000 bytes, the last page short: 9998 ones, and a signature.
head -c 10000 /dev/zero | tr '\0' '\001' >"$tmp/disk.img"
printf '\x55\xaa' | dd of="$tmp/disk.img" bs=1 seek=510 conv=notrunc status=none
expect $'signature aa55\nsum '$((9998 + 0x55 + 0xaa)) "$tmp/header" "$tmp/disk.img"
expect '55 aa' "$tmp/readme" "$tmp/disk.img"
printf 'abc' >"$tmp/short"
expect 'sum 294' "$tmp/header" "$tmp/short"
fails 'no first sector: end of the image' "$tmp/readme" "$tmp/short"
for program in header readme; do
  fails 'nowhere' "$tmp/$program" "$tmp/nowhere"
done
export CACHET_SOCKET=$tmp/nobody
fails 'nobody' "$tmp/page"
