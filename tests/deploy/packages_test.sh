#!/usr/bin/env bash
# What the Debian packages hold and say of themselves.
#
#   packages_test.sh CHECKS DIRECTORY DIRECTORY-MADE-AGAIN VERSION-FILE \
#     SYMBOL-MAP SYMBOL-MAP-OF-TLS SYMBOL-MAP-OF-SOURCES
source "$1"
debs=$2
again=$3
version=$(<"$4")
map=$5
part_maps=("$6" "$7")
major=${version%%.*}
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)

# package NAME: its file.
package() {
  echo "$debs/$1_$version-1_$(dpkg --print-architecture).deb"
}

holds() {
  local name=$1 path
  shift
  for path; do
    grep -qxF -- "$path" "$work/$name.files" || {
      echo "  not there: $path"
      return 1
    }
  done
}

field_has() {
  dpkg-deb --field "$(package "$1")" "$2" | grep -E -- "$3" >/dev/null
}

# All files are root's, none can be written by others, and each is as old as the
# last entry of the changelog.
is_tidy() {
  local date
  date=$(dpkg-deb --fsys-tarfile "$(package "$1")" |
    tar -xO "./usr/share/doc/$1/changelog.Debian.gz" | gzip -dc |
    sed -n '/^ -- /{s/.*>  //p;q}')
  TZ=UTC dpkg-deb --contents "$(package "$1")" >"$work/contents"
  awk -v date="$(date -u -d "$date" '+%F %R')" '
    $2 != "root/root" || $4 " " $5 != date ||
    $1 !~ /^(lrwxrwxrwx|[-d]rw.r-.r-.)$/ { print; bad = 1 }
    END { exit bad || NR == 0 }' "$work/contents"
}

exports_what_the_maps_say() {
  dpkg-deb --info "$(package libcachet-client1)" symbols |
    sed -n 's/^ \(cachet_[^@]*\)@.*/\1/p' | sort >"$work/symbols"
  sed -n 's/^    \(cachet_[a-z0-9_]*\);$/\1/p' "$map" "${part_maps[@]}" | sort |
    diff - "$work/symbols"
}

has_a_page_for_each_function() {
  holds libcachet-client-dev $(sed -n \
    's|^    \(cachet_[a-z0-9_]*\);$|/usr/share/man/man3/\1.3.gz|p' "$map")
}

sums_agree() {
  local dir=$work/unpacked-$1
  dpkg-deb --raw-extract "$(package "$1")" "$dir"
  (cd -- "$dir" && md5sum --quiet --check DEBIAN/md5sums) &&
    [ "$(find "$dir" -path "$dir/DEBIAN" -prune -o -type f -print | wc -l)" -eq \
      "$(wc -l <"$dir/DEBIAN/md5sums")" ]
}

lintian_finds_nothing() {
  local -a flags=(--fail-on "error,warning" --info --tag-display-limit 0)
  if [ "$(id -u)" -eq 0 ]; then
    flags+=(--allow-root)
  fi
  lintian "${flags[@]}" "$debs"/*.deb >"$work/lintian" 2>&1 || {
    cat -- "$work/lintian"
    return 1
  }
}

for name in cachetd cachetd-rbd libcachet-client1 libcachet-client-dev; do
  dpkg-deb --fsys-tarfile "$(package $name)" | tar -t | sed -n 's|^\./|/|p' \
    >"$work/$name.files"
  check "$name has the version of the header" field_has $name Version "^$version-1$"
  check "$name holds files of root alone, all of one date" is_tidy $name
  check "the check sums of $name are those of its files" sums_agree $name
  check "$name says whose it is, and what changed" holds $name \
    "/usr/share/doc/$name/copyright" "/usr/share/doc/$name/changelog.Debian.gz"
done

check "cachetd holds programs, units and manual pages" holds cachetd \
  /etc/cachetd/cachetd.conf /usr/share/man/man5/cachetd.conf.5.gz \
  /usr/bin/cachetd /usr/bin/cachet /usr/lib/cachetd/tls.so \
  /usr/lib/cachetd/source-{cachet,http,nbd,verified}.so \
  /usr/lib/systemd/system/cachetd.{service,socket} \
  /usr/lib/systemd/system/cachetd-{tcp,tls}.socket \
  /usr/lib/sysusers.d/cachetd.conf /usr/lib/tmpfiles.d/cachetd.conf \
  /usr/share/bash-completion/completions/{cachet,cachetd} \
  /usr/share/man/man1/cachet.1.gz /usr/share/man/man8/cachetd.8.gz \
  /usr/share/doc/cachetd/examples/{network,devices,home}.conf \
  /usr/share/doc/cachetd/examples/kubernetes.yaml
check "the library holds itself, by its soname" holds libcachet-client1 \
  "/usr/lib/$multiarch/libcachet-client.so.$major" \
  "/usr/lib/$multiarch/libcachet-client.so.$version" \
  "/usr/lib/$multiarch/libcachet-client-sources.so.$major" \
  "/usr/lib/$multiarch/libcachet-client-sources.so.$version" \
  "/usr/lib/$multiarch/libcachet-client-tls.so.$major" \
  "/usr/lib/$multiarch/libcachet-client-tls.so.$version"
check "programs are made with the rest" holds libcachet-client-dev \
  /usr/include/cachet/{cachet,libevent}.h \
  "/usr/lib/$multiarch"/libcachet-client{.so,.a,-libevent.a,-tls.so,-tls.a} \
  "/usr/lib/$multiarch/pkgconfig/libcachet-client.pc" \
  /usr/share/man/man3/{libcachet-client,cachet_open,cachet_event_attach}.3.gz
check "the manual has a page for each function" has_a_page_for_each_function
check "cachetd depends on what its programs are linked with" \
  field_has cachetd Depends 'libc6.*libcurl4.*libevent-core.*libnbd0.*libprotobuf-c1.*libssl3.*libsystemd0'
check "cachetd does not depend on Ceph" \
  eval '! field_has cachetd Depends "librbd|librados|cachetd-rbd"'
check "what reads images of Ceph is a package of its own" \
  holds cachetd-rbd /usr/lib/cachetd/source-rbd.so
check "it depends on librbd, and on this very daemon" eval \
  'field_has cachetd-rbd Depends "librados2.*librbd1" &&
   field_has cachetd-rbd Depends "cachetd \(= $version-1\)"'
check "cachetd does not depend on C++" \
  eval '! field_has cachetd Depends "libstdc|libgcc"'
check "its configuration is the administrator's" eval \
  'dpkg-deb --info "$(package cachetd)" conffiles | grep -x /etc/cachetd/cachetd.conf >/dev/null'
check "headers come with the very library" field_has libcachet-client-dev \
  Depends "libcachet-client1 \(= $version-1\)"
check "the library says which of its versions has which symbol" \
  exports_what_the_maps_say
check "the same inputs give the same packages" diff -r "$debs" "$again"
check "lintian finds no error, and nothing to warn of" lintian_finds_nothing
finish
