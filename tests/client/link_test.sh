#!/bin/bash
# A program builds against what is installed, with pkg-config's flags: shared
# and static, without TLS and with it.
#   link_test.sh SO ARCHIVE PC HEADER TLS_ARCHIVE
set -euo pipefail
so=$1 archive=$2 pc=$3 header=$4 tls=$5
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

mkdir -p "$tmp/lib/pkgconfig" "$tmp/include/cachet"
cp "$so" "$tmp/lib/libcachet-client.so.1"
ln -s libcachet-client.so.1 "$tmp/lib/libcachet-client.so"
cp "$archive" "$tmp/lib/libcachet-client.a"
cp "$header" "$tmp/include/cachet/"
sed "s,^prefix=.*,prefix=$tmp," "$pc" >"$tmp/lib/pkgconfig/libcachet-client.pc"
export PKG_CONFIG_PATH=$tmp/lib/pkgconfig

cat >"$tmp/program.c" <<'C'
#include <cachet/cachet.h>
#include <stdio.h>
/* Names that the library uses inside: a program may have them too. */
int fill_read(void) { return 1; }
int image_new(void) { return 2; }
int main(int argc, char **argv) {
  cachet *c;
  struct cachet_error err;
  uint16_t v;
  if (argc < 2 || cachet_open(argv[1], 0, &c, &err))
    return 1;
  if (cachet_get_u16be(c, 1, &v))
    return 2;
  printf("%x %d\n", v, fill_read() + image_new());
  cachet_close(c);
  return 0;
}
C
printf 'abc' >"$tmp/image"
cc=${CC:-gcc}
# An instrumented library needs the instrumentation's runtime.
flags=()
nm "$archive" >"$tmp/names"
if grep -q ' U __asan_' "$tmp/names"; then flags=(-fsanitize=address,undefined); fi
if grep -q ' U __tsan_' "$tmp/names"; then flags=(-fsanitize=thread); fi
$cc "${flags[@]}" $(pkg-config --cflags libcachet-client) "$tmp/program.c" \
  $(pkg-config --libs libcachet-client) -o "$tmp/shared"
test "$(LD_LIBRARY_PATH=$tmp/lib "$tmp/shared" "$tmp/image")" = "6263 3"
rm "$tmp/lib/libcachet-client.so"
$cc "${flags[@]}" $(pkg-config --cflags libcachet-client) "$tmp/program.c" \
  $(pkg-config --static --libs libcachet-client) -o "$tmp/static"
test "$("$tmp/static" "$tmp/image")" = "6263 3"

# TLS is loaded when it is needed, unless it is linked in: then it looks for the
# certificates that the URI names.
cat >"$tmp/tls.c" <<'C'
#include <cachet/cachet.h>
#include <stdio.h>
int main(void) {
  cachet *c;
  struct cachet_error err;
  if (!cachet_open("cachets://127.0.0.1:1/x?ca=/nowhere/ca", 0, &c, &err))
    return 1;
  puts(err.message);
  return 0;
}
C
$cc "${flags[@]}" $(pkg-config --cflags libcachet-client) "$tmp/tls.c" \
  $(pkg-config --static --libs libcachet-client) -o "$tmp/without"
"$tmp/without" | grep "libcachet-client-tls.so.1"
$cc "${flags[@]}" $(pkg-config --cflags libcachet-client) "$tmp/tls.c" \
  -Wl,--undefined=cachet_client_tls "$tmp/lib/libcachet-client.a" "$tls" \
  -lprotobuf-c -lssl -lcrypto -lpthread -o "$tmp/with"
"$tmp/with" | grep "/nowhere/ca: No such file"

# So is what reads remote sources, which is not here, and no program wants it
# before.
sed 's,cachets://[^"]*,http://127.0.0.1:1/x,' "$tmp/tls.c" >"$tmp/remote.c"
$cc "${flags[@]}" $(pkg-config --cflags libcachet-client) "$tmp/remote.c" \
  $(pkg-config --static --libs libcachet-client) -o "$tmp/remote"
"$tmp/remote" | grep "libcachet-client-sources.so.1"
! readelf -d "$tmp/remote" | grep "NEEDED.*\(event\|curl\|nbd\)"

# A compiler that warns finds two mistakes by the header.
warns_of() { # WARNING STATEMENT
  printf '#include <cachet/cachet.h>\nvoid f(cachet *c, struct cachet_slice *s);\nvoid f(cachet *c, struct cachet_slice *s) { %s }\n' "$2" >"$tmp/mistake.c"
  $cc -c -o "$tmp/mistake.o" -Wall -Wextra -I"$tmp/include" "$tmp/mistake.c" 2>"$tmp/warnings"
  grep -q -- "-W$1" "$tmp/warnings"
}
warns_of nonnull 'if (!cachet_load(c, 0, 0, NULL)) cachet_release(c, s);'
warns_of unused-result 'cachet_load(c, 0, 0, s);'
if warns_of unused-result 'if (!cachet_load(c, 0, 0, s)) cachet_release(c, s);'; then exit 1; fi
