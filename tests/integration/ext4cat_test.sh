#!/usr/bin/env bash
# The examples, on a GPT image with an ext4 file system: ext4cat brings every
# file out byte for byte as debugfs does, eight processes at once, through a
# daemon whose cache is a tenth of the image; hexview and eventloop agree with
# sgdisk, debugfs and the file.
#
#   ext4cat_test.sh CHECKS MAKE_IMAGE CACHETD EXAMPLES_DIR
source "$1"
make_image=$2
cachetd=$(realpath -- "$3")
examples=$(realpath -- "$4")
PATH=$PATH:/usr/sbin:/sbin

image=$work/disk.img
uri="cachet+unix:///disk?socket=$work/sock"

# Everything but what only the root directory of a file system has.
same_tree() {
  diff -r --no-dereference "$work/expected" "$1"
}

dump() {
  mkdir "$work/dump$1" &&
    "$examples/ext4cat" --offset "$offset" "$uri" dump / "$work/dump$1"
}

all_dump() {
  local i status=0
  local -a dumps=()
  for i in 1 2 3 4 5 6 7 8; do
    dump "$i" &
    dumps+=($!)
  done
  for i in "${dumps[@]}"; do
    wait "$i" || status=1
  done
  return "$status"
}

lists_all() {
  "$examples/ext4cat" --offset "$offset" "$uri" ls -R / >"$work/list" || return
  local want have
  want=$(find "$work/expected" -mindepth 1 | wc -l)
  have=$(wc -l <"$work/list")
  echo "  $have lines for $want files"
  [ "$have" -ge "$want" ]
}

cats_one() {
  local file
  file=$(find "$work/expected" -type f -size +100k -printf '%P\n' | sort | head -1)
  "$examples/ext4cat" --offset "$offset" "$uri" cat "/$file" |
    cmp - "$work/expected/$file"
}

hexview_agrees() {
  "$examples/hexview" "$uri" >"$work/hexview" || return
  local uuid guid
  # Not dumpe2fs: that of e2fsprogs 1.47.2 takes no offset beside an option.
  uuid=$(debugfs -R "show_super_stats -h" "$image?offset=$offset" 2>/dev/null |
    sed -n 's/^Filesystem UUID: *//p')
  guid=$(sgdisk -i 1 "$image" | sed -n 's/^Partition unique GUID: *//p')
  [ -n "$uuid" ] && [ -n "$guid" ] &&
    grep -qi "$uuid" "$work/hexview" && grep -qi "$guid" "$work/hexview" || {
    echo "  no $uuid or no $guid in:"
    head -40 "$work/hexview"
    return 1
  }
}

# The loop over the daemon and the loop in process come to the same.
eventloop_agrees() {
  "$examples/eventloop" "$uri" >"$work/loop1" || return
  "$examples/eventloop" "$image" >"$work/loop2" || return
  cat "$work/loop1" "$work/loop2"
  # Pages and checksum; hits and misses are each one's own.
  [ -s "$work/loop1" ] &&
    [ "$(sed 's/, [0-9]* hits.*//' "$work/loop1")" = \
      "$(sed 's/, [0-9]* hits.*//' "$work/loop2")" ]
}

offset=$("$make_image" "$image") || exit 1
mkdir "$work/expected"
debugfs -R "rdump / $work/expected" "$image?offset=$offset" \
  >"$work/debugfs" 2>&1 </dev/null
tenth=$(($(stat -c %s "$image") / 10))

check "a daemon serves the image" \
  start_daemon "$cachetd" --image "disk=$image" --listen "unix:$work/sock" \
  --cache-size "$tenth"
check "debugfs has files to compare with" \
  [ "$(find "$work/expected" -type f | wc -l)" -ge 2000 ]
check "eight ext4cats dump the file system at once" all_dump
for i in 1 2 3 4 5 6 7 8; do
  check "dump $i is debugfs's rdump byte for byte" same_tree "$work/dump$i"
done
check "ext4cat lists every file" lists_all
check "ext4cat prints a file" cats_one
check "ext4cat says what is no file system" \
  fails_with 1 'ext4cat: the image: ' "$examples/ext4cat" --offset 512 "$uri" ls /
check "ext4cat says what is no file" \
  fails_with 1 'nowhere' "$examples/ext4cat" --offset "$offset" "$uri" cat /nowhere
check "hexview finds the partition and the file system" hexview_agrees
check "eventloop reads the same through the daemon as in process" \
  eventloop_agrees
check "the daemon ends in good order" exits_0_on_sigterm
finish
