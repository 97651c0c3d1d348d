#!/usr/bin/env bash
# Bad input to cachetd and cachet, each with a clear message and the right exit
# status; and what the commands do when all is well.
#
#   cli_test.sh CHECKS CACHETD CACHET
source "$1"
cachetd=$(realpath -- "$2")
cachet=$(realpath -- "$3")
img=$work/disk.img
sock=$work/sock
head -c 300001 /dev/urandom >"$img"

# Without the configuration of this machine.
start=("$cachetd" --config /dev/null)
starts_badly() { fails_with 1 "$1" "${start[@]}" --listen "unix:$work/other" "${@:2}"; }
is_rejected() { fails_with 2 "$@"; }

# ---- cachetd: what fails at start is 1, a bad command line 2
check "no such image" starts_badly 'none\.img.*No such file' --image "$work/none.img"
check "a directory as image" starts_badly 'is a directory|Is a directory' --image "$work"
check "a character device as image" starts_badly '/dev/null' --image /dev/null
unreadable() {
  # As another user, where we may become one: root reads everything.
  chmod 0755 "$work" && cp "$img" "$work/secret" && chmod 0000 "$work/secret"
  local as=()
  if [ "$(id -u)" -eq 0 ]; then
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  fi
  mkdir -m 0777 "$work/pub"
  fails_with 1 'secret.*Permission denied' "${as[@]}" "${start[@]}" \
    --listen "unix:$work/pub/s" --image "$work/secret"
}
check "an unreadable file as image" unreadable
limited() {
  fails_with 1 'it has 300001 bytes; the limit of file sizes \(ulimit -f\) is 102400 bytes' \
    bash -c "ulimit -f 100 && exec '$cachetd' --config /dev/null --listen 'unix:$work/other' --image '$img'"
}
check_limited "$cachetd" "an image that is longer than a file may be" limited
check "no image at all" is_rejected 'image' "${start[@]}"
check "a name used twice" is_rejected 'twice|already|used' "$cachetd" --image "a=$img" --image "a=$img"
check "a name that follows from two paths" is_rejected 'twice|already|used' "$cachetd" --image "$img" --image "$img"
check "a bad name" is_rejected 'name' "$cachetd" --image "$work/sp ace.img"
for size in 17E 99999999999999999999 16777216T 18446744073709551615K -1 "" 1X 0x; do
  check "a cache of \"$size\"" is_rejected 'cache-size' "$cachetd" --image "$img" --cache-size "$size"
done
for size in 0 1 2048 4095 5000 12288 4M 18446744073709555712; do
  check "pages of $size" is_rejected 'page-size' "$cachetd" --image "$img" --page-size "$size"
done
long=$(printf 'x%.0s' {1..120})
check "a socket path too long" is_rejected 'a socket.s can have 107' "$cachetd" --image "$img" --listen "unix:/tmp/$long"
check "an address of no kind" is_rejected 'udp' "$cachetd" --image "$img" --listen udp:1
check "a port that is none" is_rejected '70000' "$cachetd" --image "$img" --listen tcp:127.0.0.1:70000
check "a TCP address that is not loopback" is_rejected '(loopback|0\.0\.0\.0)' "$cachetd" --image "$img" --listen tcp:0.0.0.0:1
check "a source of no kind" is_rejected 'gopher' "$cachetd" --image gopher://x/y
check "an option of an image that is none" is_rejected 'colour' "$cachetd" --image "$img,colour=red"
check "an option that is none" is_rejected 'frobnicate' "$cachetd" --frobnicate
check "a log level that is none" is_rejected 'loud' "$cachetd" --image "$img" --log-level loud
check "no workers" is_rejected 'workers' "$cachetd" --image "$img" --workers 0
check "a share that is neither" is_rejected 'maybe' "$cachetd" --image "$img" --share maybe
check "what is no option" is_rejected 'stray' "$cachetd" --image "$img" stray
# grep reads all: with -q it may be gone while the program still writes.
prints() { "${@:2}" </dev/null | grep -E -- "$1" >/dev/null; }
check "cachetd --help" prints '--cache-size' "$cachetd" --help
check "cachetd --version" prints 'cachetd .*[0-9]' "$cachetd" --version

# ---- sockets: in use, stale, no socket
touch "$work/file"
check "a socket path that is a file" fails_with 1 'file' "${start[@]}" --image "$img" --listen "unix:$work/file"
check "and the file is left alone" [ -f "$work/file" ]
check "a daemon starts" start_daemon "$cachetd" --image "disk=$img" --listen "unix:$sock"
check "the socket is 0660" [ "$(stat -c %a "$sock")" = 660 ]
check "a socket in use is refused" fails_with 1 'sock.*(in use|already)' "${start[@]}" --image "$img" --listen "unix:$sock"
check "and its daemon serves on" prints disk "$cachet" ls --socket "$sock"
kill -KILL "$daemon" && wait "$daemon" 2>/dev/null
check "the socket of a daemon that was killed is left" [ -S "$sock" ]
check "and replaced by the next one" start_daemon "$cachetd" --image "disk=$img" --listen "unix:$sock"

# ---- cachet
common=(--socket "$sock")
same() { "$cachet" "$@" </dev/null | cmp - "$work/want"; }
cp "$img" "$work/want"
check "cat" same cat disk "${common[@]}"
check "cat by a URI" same cat "cachet+unix:///disk?socket=$sock"
check "cat of a path, without a daemon" same cat "$img"
check "cat of a file: URI" same cat "file:$img"
tail -c +4097 "$img" | head -c 10000 >"$work/want"
check "cat of a part" same cat disk --offset 4K --length 10000 "${common[@]}"
check "cat of a part in hexadecimal" same cat disk --offset 0x1000 --length 0x2710 "${common[@]}"
od -An -tu4 -N4 -j5 "$img" | tr -d ' ' >"$work/want"
check "get u32le" same get disk u32le 5 "${common[@]}"
od -An -tx1 -N2 -j300 "$img" | tr -d ' ' >"$work/be"
echo $((16#$(cat "$work/be"))) >"$work/want"
check "get u16be" same get disk u16be 300 "${common[@]}"
check "ls" prints 'disk' "$cachet" ls "${common[@]}"
check "info" prints '300001' "$cachet" info disk "${common[@]}"
check "warm" "$cachet" warm disk "${common[@]}"
check "invalidate" "$cachet" invalidate disk --offset 4096 --length 1 "${common[@]}"
check "stats" prints 'hits' "$cachet" stats "${common[@]}"
is_json() { "$cachet" stats --json "${common[@]}" </dev/null | perl -MJSON::PP -0ne 'decode_json($_)'; }
check "stats --json is JSON" is_json
check "add" "$cachet" add more "$img,offset=1K" "${common[@]}"
check "what was added is listed" prints ' more$' "$cachet" ls "${common[@]}"
check "a name is added once" fails_with 1 'add image "more": there is one of that name' "$cachet" add more "$img" "${common[@]}"
check "a path is the daemon's" fails_with 1 'a path from the root on is needed' "$cachet" add other disk.img "${common[@]}"
check "remove" "$cachet" remove more "${common[@]}"
check "what was removed is not there" fails_with 1 'remove image "more": not served' "$cachet" remove more "${common[@]}"
check "add needs a source" fails_with 2 'too few arguments' "$cachet" add more "${common[@]}"
check "drain for a time that is none" fails_with 2 'not a number' "$cachet" drain --timeout soon "${common[@]}"
check "drain for too long" fails_with 2 'too many seconds' "$cachet" drain --timeout 1000001 "${common[@]}"
check "--timeout where it means nothing" fails_with 2 'means nothing here' "$cachet" ls --timeout 1 "${common[@]}"
check "help" prints 'invalidate' "$cachet" --help
check "no such image on the daemon" fails_with 1 'nowhere.*; it serves disk$' "$cachet" cat nowhere "${common[@]}"
check "no such image, but a file of that name" fails_with 1 'for a file write \./disk\.img' env -C "$work" "$cachet" cat disk.img "${common[@]}"
check "a socket as the daemon's address" prints disk "$cachet" ls --socket "unix:$sock"
check "the same in the environment" prints disk env CACHET_SOCKET="unix:$sock" "$cachet" ls
cp "$img" "$work/want"
check "cat of an image of the daemon at a URI" same cat disk --uri "cachet+unix:///?socket=$sock"
check "whose own image does not matter" same cat disk --uri "cachet+unix:///other?socket=$sock"
check "nor for ls" prints disk "$cachet" ls --uri "cachet+unix:///other?socket=$sock"
check "a name is not percent-decoded" fails_with 1 'di%73k.*; it serves disk$' "$cachet" cat 'di%73k' "${common[@]}"
check "and is one with odd bytes in it" fails_with 1 '"a\?b#c&d".*; it serves disk$' "$cachet" cat 'a?b#c&d' "${common[@]}"
check "no such daemon" fails_with 1 'none\.sock' "$cachet" ls --socket "$work/none.sock"
check "no such file" fails_with 1 'none\.img' "$cachet" cat "$work/none.img"
check "an offset past the end" fails_with 1 '(end|past)' "$cachet" cat disk --offset 1M "${common[@]}"
check "a get past the end" fails_with 1 '(end|past|bounds)' "$cachet" get disk u64le 299999 "${common[@]}"
check "a verb that is none" is_rejected 'fetch' "$cachet" fetch
check "no verb" is_rejected 'cachet' "$cachet"
check "a type that is none" is_rejected 'u128' "$cachet" get disk u128 0 "${common[@]}"
check "a number that is none" is_rejected '12q' "$cachet" get disk u8 12q "${common[@]}"
check "a number that overflows" is_rejected '99999999999G' "$cachet" cat disk --offset 99999999999G "${common[@]}"
check "a URI of no kind" fails_with 1 'gopher' "$cachet" cat gopher://x/y
check "a URI with a bad escape" fails_with 1 '%' "$cachet" cat "cachet+unix:///a%zz?socket=$sock"
# Standard output that takes nothing.
is_clean_log() { ! grep conn-failed "$work/log"; }
for verb in ls "info disk" "cat disk" "get disk u8 0" stats "stats --json" --help; do
  into() { fails_with 1 "$2" bash -c "exec '$cachet' $verb --socket '$sock' $1"; }
  check "$verb: a full standard output" into '>/dev/full' 'No space left'
  check "$verb: a closed standard output" into '>&-' 'standard output: Bad file descriptor'
done
check "the daemon has seen no bad frame" is_clean_log
check "the daemon ends in good order" exits_0_on_sigterm
check "and removes its socket" [ ! -e "$sock" ]

# ---- sources: many, in URIs, of the wrong kind, too large
many=()
for i in 1 2 3 4 5 6 7; do many+=(--image "i$i=$img"); done
check "a daemon of many images" start_daemon "$cachetd" "${many[@]}" --listen "unix:$sock"
check "of which five are listed" fails_with 1 'serves i1, i2, i3, i4, i5 and 2 more$' "$cachet" cat nowhere "${common[@]}"
check "also for no name" fails_with 1 'serves i1, i2, i3, i4, i5 and 2 more$' "$cachet" info "cachet+unix:///?socket=$sock"
check "and it ends" exits_0_on_sigterm
odd=$work/'a,b?c#d%25 e'
cp "$img" "$odd"
printf 'QFI\373\0\0\0\3' >"$work/disk.qcow2"
uri="file://localhost$work/a%2Cb%3Fc%23d%2525%20e"
check "a daemon of a file: URI" start_daemon "$cachetd" --image "odd=$uri" --image "$work/disk.qcow2" --listen "unix:$sock"
cp "$img" "$work/want"
check "which is the file" same cat odd "${common[@]}"
check "as it is without a daemon" same cat "$uri"
check "a qcow2 file is warned of" grep -q 'level=warn event=image-format image=disk.qcow2 format=qcow2' "$work/log"
check "and nothing else" [ "$(grep -c event=image-format "$work/log")" = 1 ]
check "and it ends, too" exits_0_on_sigterm
check_limited "$cachetd" "a limit that is too low for an image is named" fails_with 1 'File too large.*300001 bytes.*ulimit -f. is 102400 bytes' bash -c 'ulimit -f 100 && exec "$@"' - "${start[@]}" --image "$img" --listen "unix:$sock"
huge=/dev/shm/cachetd-test.$$
if truncate -s 65T "$huge" 2>/dev/null; then
  check "as is the largest image" fails_with 1 'File too large.*64 TiB' "${start[@]}" --image "$huge" --listen "unix:$sock"
else
  echo "ok - as is the largest image # SKIP no file system that has such files"
fi
rm -f "$huge"

# ---- cat of an image that is replaced meanwhile
size=4000000
fill() { head -c "$1" /dev/zero | tr '\0' "$2"; }
mkfifo "$work/pipe"
is_all_a() { [ "$("$cachet" get i u8 0 "${common[@]}" </dev/null)" = 65 ]; }
epoch_is_new() { [ "$("$cachet" info i "${common[@]}" </dev/null)" != "$(cat "$work/info")" ]; }
# The pipe takes less than a chunk: cat waits in the middle of the image.
cat_is_cut_short() { # SIZE (of the new version) ARGUMENT...
  local status=0 new=$1 cat
  shift
  fill $size A >"$work/i" && touch -d '1 hour ago' "$work/i" && eventually is_all_a
  "$cachet" info i "${common[@]}" </dev/null >"$work/info"
  timeout 60 "$cachet" cat "$@" </dev/null >"$work/pipe" 2>"$work/stderr" &
  cat=$!
  exec 5<"$work/pipe"
  head -c 4096 <&5 >"$work/stdout"
  fill "$new" B >"$work/i" && eventually epoch_is_new
  cat <&5 >>"$work/stdout"
  exec 5<&-
  wait $cat || status=$?
  [ $status -eq 1 ] && grep -q changed "$work/stderr" &&
    [ -s "$work/stdout" ] && [ "$(stat -c %s "$work/stdout")" -lt $size ] &&
    [ -z "$(tr -d A <"$work/stdout")" ] && return
  echo "  exit status $status, $(stat -c %s "$work/stdout") bytes, $(cat "$work/stderr")"
  return 1
}
fill $size A >"$work/i"
check "a daemon on a socket and a port" start_daemon "$cachetd" --image "i=$work/i" --listen "unix:$sock" --listen tcp:127.0.0.1:0
port=$(grep -o 'tcp:127.0.0.1:[0-9]*' "$work/log" | head -n 1)
for new in $size 5000000 3000000; do
  check "cat of an image that becomes one of $new bytes" cat_is_cut_short $new i "${common[@]}"
  check "the same by TCP" cat_is_cut_short $new "cachet://127.0.0.1:${port##*:}/i"
  check "the same in process" cat_is_cut_short $new "$work/i"
done
for uri in "cachet://127.0.0.1:${port##*:}" "cachet://127.0.0.1:${port##*:}/"; do
  check "ls of $uri" prints ' i$' "$cachet" ls --uri "$uri"
  check "stats of $uri" prints '^i hits ' "$cachet" stats --uri "$uri"
  check "warm of an image of $uri" "$cachet" warm i --uri "$uri"
done
for uri in "cachet://127.0.0.1:${port##*:}" "cachet://127.0.0.1:${port##*:}/" "cachet+unix:///?socket=$sock"; do
  case $uri in *\?*) part="$uri&offset=100&length=10" ;; *) part="$uri?offset=100&length=10" ;; esac
  check "cat of a part, which $part names" prints '^B{10}$' "$cachet" cat i --uri "$part"
done
check "that daemon ends in good order" exits_0_on_sigterm

# ---- a socket whose path is no URI as it stands
odd_sock="$work/a?b&socket=c#d%25 e"
check "a daemon at an odd socket" start_daemon "$cachetd" --image "i=$work/i" --listen "unix:$odd_sock"
cp "$work/i" "$work/want"
check "cat from there" same cat i --socket "$odd_sock"
check "ls of it" prints ' i$' "$cachet" ls --socket "$odd_sock"
drains() { "$cachet" drain --timeout 600 --socket "$odd_sock" </dev/null && wait "$daemon"; }
check "drain ends it, as it has no client" drains
finish
