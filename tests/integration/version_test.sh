#!/bin/bash
# Whatever says a version says the public header's.
#   version_test.sh CHECKS HEADER MAP SO PC COMMAND DAEMON MAN-PAGE...
source "$1"
header=$2 map=$3 so=$4 pc=$5 command=$6 daemon=$7
shift 7

part() { sed -n "s/^#define CACHET_VERSION_$1 \([0-9]*\)\$/\1/p" "$header"; }
major=$(part MAJOR) minor=$(part MINOR)
version=$major.$minor.$(part PATCH)
check "the header has a version of three numbers" grep -qx '[0-9]\+\.[0-9]\+\.[0-9]\+' <<<"$version"

is() { test "$("${@:2}" </dev/null)" = "$1"; }
check "cachetd --version" is "cachetd $version" "$daemon" --version
check "cachet --version" is "cachet $version" "$command" --version
check "the .pc file" is "Version: $version" grep '^Version:' "$pc"
for page; do
  name=$(basename "$page")
  check "the man page $name names the version" grep -q "^\.\(Os\|TH\) .*\"cachetd $version\"" "$page"
done

# What the library says of itself, and to a daemon in its Hello.
strings -a "$so" >"$work/strings"
has() { grep -qxF -- "$1" "$work/strings"; }
check "the library" has "$version"
check "its Hello" has "libcachet-client/$version"
check "its soname" grep -q "SONAME.*\[libcachet-client\.so\.$major\]" <(readelf -d "$so")

# No symbol is younger than the header.
newest() {
  { sed -n 's/^CACHET_\([0-9.]*\) {$/\1/p' "$map"; echo "$major.$minor"; } | sort -V | tail -n 1
}
check "the newest version of a symbol" is "$major.$minor" newest
finish
