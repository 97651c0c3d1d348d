#!/usr/bin/env bash
# deploy/install installs what a program is built and run with, where it is told
# to, and takes it away.  No sh_test, because it runs Bazel; tests/run runs it.
set -uo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
source "$root/tests/integration/checks.sh"
destination=$work/destination

# ends_with STATUS ARGUMENT...: runs deploy/install, for prefix /opt/cachet.
ends_with() {
  local expected=$1 status=0
  shift
  DESTDIR=$destination PREFIX=/opt/cachet "$root/deploy/install" "$@" \
    </dev/null >"$work/output" 2>&1 || status=$?
  [ "$status" -eq "$expected" ] || {
    cat -- "$work/output"
    echo "exit status $status, not $expected"
    return 1
  }
}

# A program, by the flags of the .pc file for the time when it is in place.
builds() {
  sed -n '/^    #include <cachet/,/^    }$/s/^    //p' "$root/README.md" \
    >"$work/first.c"
  cc "$work/first.c" -o "$work/first" $(
    PKG_CONFIG_SYSROOT_DIR=$destination \
      PKG_CONFIG_PATH=$destination/opt/cachet/lib/pkgconfig \
      pkg-config --cflags --libs libcachet-client
  ) || return 1
  head -c 512 /dev/zero >"$work/disk.img"
  LD_LIBRARY_PATH=$destination/opt/cachet/lib "$work/first" "$work/disk.img" |
    grep -qx "00 00"
}

serves() {
  start_daemon "$destination/opt/cachet/bin/cachetd" \
    --image "$work/disk.img" --image far=http://127.0.0.1:1/x \
    --listen "unix:$work/sock" &&
    "$destination/opt/cachet/bin/cachet" ls --socket "$work/sock" |
    grep -q disk.img && exits_0_on_sigterm
}

# All that is there but directories.
files() {
  (cd -- "$destination" && find . ! -type d | sort)
}

check "deploy/install exits 0" ends_with 0
check "it leaves nothing outside of its prefix but the configuration" \
  [ "$(files | grep -v '^\./opt/cachet/')" = ./etc/cachetd/cachetd.conf ]
check "a program builds and runs with what it installed" builds
check "the daemon and the command run" serves
check "the unit starts the daemon that was installed" grep -qx \
  ExecStart=/opt/cachet/bin/cachetd \
  "$destination/opt/cachet/lib/systemd/system/cachetd.service"
files >"$work/files"
echo "# mine" >>"$destination/etc/cachetd/cachetd.conf"
check "it can be run again" ends_with 0
check "then it installs the same" diff "$work/files" <(files)
check "it leaves a configuration that is there alone" \
  grep -qx "# mine" "$destination/etc/cachetd/cachetd.conf"
check "deploy/install --uninstall exits 0" ends_with 0 --uninstall
check "it leaves the configuration alone" \
  [ "$(files)" = ./etc/cachetd/cachetd.conf ]
check "it can be run again, too" ends_with 0 --uninstall
check "a bad command line is rejected" ends_with 2 --what
finish
