#!/bin/bash
# The cachet command without a daemon: files, command lines, exit statuses.
#   command_test.sh CACHET
set -euo pipefail
cachet=$(realpath "$1")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
unset CACHET_SOCKET XDG_RUNTIME_DIR
head -c 3000013 /dev/urandom >disk.img

failed=0
passed=0
ok() { passed=$((passed + 1)); }
bad() {
  failed=$((failed + 1))
  echo "FAILED: $*" >&2
}
# expect STATUS WHAT-STDERR-SAYS ARGUMENT...
expect() {
  local want=$1 says=$2 got=0
  shift 2
  "$cachet" "$@" >out 2>err || got=$?
  if [ "$got" = "$want" ] && { [ -z "$says" ] || grep -qF -- "$says" err; }; then
    ok
  else
    bad "cachet $* : status $got, not $want: $(cat err)"
  fi
  if [ "$got" != 0 ] && [ -s out ]; then
    bad "cachet $* : wrote to standard output: $(head -c 200 out)"
  fi
}
same() { if cmp -s "$1" "$2"; then ok; else bad "$3"; fi; }

"$cachet" cat ./disk.img >out && same out disk.img "cat"
"$cachet" cat ./disk.img --offset 1K --length 0x1001 >out
dd if=disk.img of=part bs=1 skip=1024 count=4097 status=none
same out part "cat of a part"
"$cachet" cat "file:$tmp/disk.img" --offset 3000000 >out
tail -c 13 disk.img >part
same out part "cat of the end"
"$cachet" cat ./disk.img --offset 3000013 >out
: >part
same out part "cat at the end"
"$cachet" --help >out && grep -q '^usage:' out && ok

printf '\x01\x82\x03\x04\x05\x06\x07\xf8' >ints
get() {
  local value
  value=$("$cachet" get ./ints "$1" "$2")
  if [ "$value" = "$3" ]; then ok; else bad "get $1 $2: $value, not $3"; fi
}
get u8 1 130
get i8 0x1 -126
get u16be 0 386
get u16le 0 33281
get i16le 0 -32255
get u32be 1 2181235717
get i32be 1 -2113731579
get i64le 0 -574483808854507007
get u64be 0 108652656809347064

# A file that a URI names is the same to the daemon; see cli_test.
cp ints 'a,b?c#d%25 e'
same_uri() {
  if "$cachet" cat "file:$1" 2>err | cmp -s - ints; then ok; else bad "file:$1: $(cat err)"; fi
}
same_uri 'a%2Cb%3Fc%23d%2525%20e'
same_uri "//$tmp/ints"
same_uri "//localhost$tmp/ints"
expect 1 'a comma is %2C' cat 'file:a,b'
expect 1 'cannot name a host' cat "file://elsewhere$tmp/ints"

# What is no image of a disk, but has one in it.
warns() {
  printf "$2" >container
  "$cachet" cat ./container 2>err | cmp -s - container || bad "cat of a $1 file"
  if grep -qF "is a $1 file" err; then ok; else bad "no warning of $1: $(cat err)"; fi
}
warns qcow2 'QFI\373\0\0\0\3'
warns VMDK 'KDMV\1\0\0\0'
warns VMDK '# Disk DescriptorFile\nversion=1\n'
warns VHDX 'vhdxfileM\0'
"$cachet" cat ./ints 2>err >/dev/null
if [ -s err ]; then bad "a warning without a reason: $(cat err)"; else ok; fi

# ThreadSanitizer itself does not live under a limit of file sizes.
is_tsan() { grep -qa __tsan_init "$cachet"; }

# A file that may not be written so long is read all the same, without a cache.
if is_tsan; then
  echo "skipped under ThreadSanitizer: ulimit -f"
elif (ulimit -f 1000 && "$cachet" cat ./disk.img | cmp - disk.img) 2>err; then
  ok
else
  bad "ulimit -f: $(cat err)"
fi

expect 1 'image "./none": open: No such file or directory' info ./none
expect 1 'Is a directory' info ./
expect 1 'reach past the end' get ./ints u16le 7
expect 1 'past the end' cat ./ints --offset 9
expect 1 'unknown scheme "foo:"' info foo://x/y
expect 1 'connect: No such file or directory' ls --socket "$tmp/none"
expect 1 'connect: No such file or directory' info disk
expect 1 'longer than 107' ls --socket "/$(printf 'x%.0s' {1..200})"
expect 1 "at $tmp/none: connect: No such file" ls --socket "unix:$tmp/none"
expect 1 'for a file write ./disk.img' cat disk.img
expect 1 'for a file write ./disk.img' info disk.img
expect 1 "not a daemon's" ls --uri ./disk.img
# They are about what a daemon caches, and reach no other server.
for image in ./ints file:ints http://127.0.0.1:1/i nbd://127.0.0.1:1/i; do
  for verb in warm invalidate; do
    expect 1 "$verb: there is no daemon" $verb $image --length 3
  done
done
expect 1 'there is no daemon' warm ints --uri http://127.0.0.1:1/i
expect 1 'there is no daemon' invalidate ints --uri http://127.0.0.1:1/i
expect 1 'connect: No such file' warm "cachet+unix:///i?socket=$tmp/none"
expect 2 'usage' 
expect 2 'unknown command' frob
expect 2 'too few' info
expect 2 'too many' ls x
expect 2 'unrecognized option: --frob (' ls --frob
expect 2 'unrecognized option: --frob (' ls --frob=x
expect 2 'unrecognized option: -x (' ls -x
expect 2 'an option needs an argument: --uri (' ls --uri
expect 2 'an option takes no argument: --json (' stats --json=x
expect 2 'is no name: a/b' add a/b /x
expect 2 'not a number from 0 on: -1' cat ./ints --offset -1
expect 2 'not a number of 64 bits' cat ./ints --length 99999999999999999999
expect 2 'not a number of 64 bits' cat ./ints --length 16777216T
expect 0 '' cat ./ints --length 16777215T
expect 2 'unknown type' get ./ints u24le 0
expect 2 'not a number' get ./ints u8 x
expect 2 'mean nothing' ls --offset 3
expect 2 'means nothing' ls --json
expect 2 'not both' ls --socket a --uri cachet://h/
expect 2 'is not on a daemon' cat ./ints --socket a

if "$cachet" cat ./disk.img >/dev/full 2>err; then bad "a full disk"; fi
if grep -q 'No space left' err; then ok; else bad "says: $(cat err)"; fi
if "$cachet" get ./ints u8 0 >/dev/full 2>err; then bad "a full disk"; fi
if grep -q 'No space left' err; then ok; else bad "says: $(cat err)"; fi
if "$cachet" --help >/dev/full 2>err; then bad "a full disk"; fi
status=0
{ "$cachet" cat ./disk.img 2>err || echo $? >status; } | head -c 10 >/dev/null
if [ "$(cat status)" = 1 ] && grep -q 'Broken pipe' err; then ok; else bad "EPIPE"; fi

# A limit of file sizes is a message, not a signal.
status=0
is_tsan || (ulimit -f 1 && exec "$cachet" cat ./disk.img >out 2>err) || status=$?
if is_tsan; then
  echo "skipped under ThreadSanitizer: ulimit -f"
elif [ "$status" = 1 ] && grep -q 'File too large' err; then ok; else bad "ulimit -f: status $status: $(cat err)"; fi

echo "$passed checks passed, $failed failed"
[ "$failed" = 0 ]
