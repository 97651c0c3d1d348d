#!/usr/bin/env bash
# Bash completes the command lines of both programs.
#
#   completion_test.sh CHECKS CACHETD CACHET CACHETD-COMPLETION CACHET-COMPLETION
source "$1"
cachetd=$(realpath -- "$2")
cachet=$(realpath -- "$3")
source "$4"
source "$5"

# completes EXPECTED WORD...: what is offered for the last word is EXPECTED, words
# that are sorted and have a blank between them.
completes() {
  local expected=$1 offered function
  shift
  COMP_WORDS=("$@")
  COMP_CWORD=$(($# - 1))
  COMPREPLY=()
  function=_$(basename -- "$1")
  # compopt works while bash completes, only.
  compopt() { :; }
  "$function" "$1"
  offered=$(printf '%s\n' "${COMPREPLY[@]}" | sort -u | paste -sd ' ')
  [ "$offered" = "$expected" ] || {
    echo "  offered: $offered"
    return 1
  }
}

head -c 10000 /dev/zero >"$work/disk.img"
start_daemon "$cachetd" --image "$work/disk.img" --image "second=$work/disk.img" \
  --listen "unix:$work/sock"

check "cachet: commands" completes "info invalidate" "$cachet" in
check "cachet: images of the daemon" completes "disk.img second" \
  "$cachet" info --socket "$work/sock" ""
check "cachet: no image where there is no daemon" completes "" \
  "$cachet" info --socket "$work/none" ""
check "cachet: no image for a command that takes none" completes "" \
  "$cachet" stats --socket "$work/sock" ""
check "cachet: an image to remove" completes "second" \
  "$cachet" remove --socket "$work/sock" s
check "cachet: types" completes "u16be u16le u16ne" \
  "$cachet" get --socket "$work/sock" disk.img u16
check "cachet: options of a command" completes "--length" \
  "$cachet" warm --socket "$work/sock" disk.img --l
check "cachet: options of every command" completes "--socket" \
  "$cachet" ls --s
check "cachet: no option of another command" completes "" "$cachet" ls --o
check "cachetd: options" completes "--share" "$cachetd" --sha
check "cachetd: values" completes "off on" "$cachetd" --share o
check "cachetd: kinds of addresses" completes "tcp: tls: unix:" "$cachetd" --listen ""
finish
