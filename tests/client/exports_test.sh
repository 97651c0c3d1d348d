#!/bin/bash
# The shared library and the archive export what the header declares, and
# nothing else; the soname is the promised one.
#   exports_test.sh SO ARCHIVE HEADER
set -euo pipefail
so=$1 archive=$2 header=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Comments away, one declaration a line, the name before the first bracket.
sed -e 's,/\*.*\*/,,' -e '/\/\*/,/\*\//d' "$header" >"$tmp/code"
{
  tr '\n' ' ' <"$tmp/code" | grep -oE '(CACHET_API|CACHET_GETTER_) [^;]*;' |
    grep -o 'cachet_[a-z0-9_]* *(' | grep -v 'cachet_[a-z]*_cb' | tr -d ' ('
  # The inline functions, which are symbols as well.
  sed -n -e 's/^CACHET_INLINE .*\(cachet_[a-z0-9_]*\)(.*/\1/p' \
    -e 's/^CACHET_SLICE_GETTER_(\([a-z0-9]*\),.*/cachet_slice_\1/p' "$tmp/code"
} | sort -u >"$tmp/declared"

nm -D --defined-only "$so" | awk '$2 != "A" {sub(/@.*/, "", $3); print $3}' |
  sort -u >"$tmp/so"
nm -g --defined-only "$archive" | awk 'NF == 3 {print $3}' |
  sort -u >"$tmp/archive"

test "$(wc -l <"$tmp/declared")" -gt 75
# Each under the version that had it first.
versions() { nm -D --defined-only --with-symbol-versions "$so" | grep -c "@@$1\$"; }
test "$(versions CACHET_1.0)" -eq 56
test "$(versions CACHET_1.1)" -eq 1
test "$(versions CACHET_1.2)" -ge 1
diff "$tmp/declared" "$tmp/so"
diff "$tmp/declared" "$tmp/archive"
readelf -d "$so" | grep 'SONAME.*\[libcachet-client\.so\.1\]' >/dev/null
# Only libc and protobuf-c are wanted from outside.
! readelf -d "$so" | grep NEEDED | grep -v 'libprotobuf-c\|libc\.so\|libpthread\|ld-linux\|lib[a-z]*san\.so'
