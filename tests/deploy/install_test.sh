#!/usr/bin/env bash
# The packages can be installed, used, upgraded, removed and purged: on a
# machine that boots, under systemd.
#
#   install_test.sh CHECKS MACHINE IN-MACHINE DIRECTORY README
#
# in_machine.sh has what is checked there.
source "$2"

skip() {
  echo "ok - packages on a machine with systemd # SKIP $*"
  exit 0
}

why=$(why_no_machine)
if [ -n "$why" ]; then
  skip "$why"
fi
enter_namespaces "$0" "$@"
source "$1"
in_machine=$3
debs=$4
readme=$5

# The next revision of package file $1, in directory $2.
make_next_revision() {
  local dir=$work/next
  dpkg-deb --raw-extract "$1" "$dir"
  sed -i 's/^\(Version: .*-\)1$/\12/; s/-1)/-2)/' "$dir/DEBIAN/control"
  dpkg-deb --root-owner-group -Znone --build "$dir" "$2" >/dev/null
  rm -rf -- "$dir"
}

make_machine
mkdir -- "$machine/packages" "$machine/packages/next"
cp -- "$debs"/*.deb "$machine/packages"
for deb in "$debs"/*.deb; do
  make_next_revision "$deb" "$machine/packages/next"
done
cp -- "$readme" "$machine/packages/README.md"
cp -- "$in_machine" "$machine/packages/in_machine.sh"
sed 's|^work=.*|work=$(mktemp -d /root/test.XXXXXX)|' "$1" \
  >"$machine/packages/checks.sh"

# A device for the machine, if there are any to be had: its number goes there.
head -c 2000896 /dev/urandom >"$work/disk"
if loop=$(losetup --find --show --read-only "$work/disk" 2>/dev/null); then
  trap 'drop_machine; losetup --detach "$loop"' EXIT
  stat --format '%Hr %Lr' -- "$loop" >"$machine/packages/device"
fi

# Without control groups, for one, none does.
boot_machine || skip "no machine boots here: $(head -n 1 -- "$work/console")"
in_machine bash /packages/in_machine.sh
