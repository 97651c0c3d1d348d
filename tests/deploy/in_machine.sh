#!/usr/bin/env bash
# What install_test.sh does on its machine: installs the packages in /packages,
# uses them, upgrades, removes and purges them.
source /packages/checks.sh
cd /packages || exit 1

# Shows what a command says if it fails.
quietly() {
  "$@" >"$work/said" 2>&1 || {
    cat -- "$work/said"
    return 1
  }
}

# All that installing could leave behind, images apart.
footprint() {
  {
    find /etc /usr /var/lib/systemd /run/cachetd /var/lib/cachetd \
      ! -name '*.cache' ! -name '*~' ! -name '*-' ! -path '/etc/ld.so*' \
      ! -path '/etc/*shadow*' ! -path '/usr/share/info/dir*' 2>/dev/null
    getent passwd
    getent group
  } | sort
}

pid() {
  systemctl show --property=MainPID --value cachetd.service
}

is() {
  [ "$(systemctl is-active "$1")" = "$2" ]
}

as() {
  local user=$1
  setpriv --reuid="$user" --regid="$user" --init-groups -- "${@:2}"
}

as_reader() {
  as reader "$@"
}

# Eight clients at once, four of each user, read what is for them.
both_read() {
  local user clients=() client ok=0
  for user in reader visitor reader visitor reader visitor reader visitor; do
    as "$user" cachet cat "of-$user" |
      cmp --silent - "/srv/readers/$user.img" &
    clients+=($!)
  done
  for client in "${clients[@]}"; do
    wait "$client" || ok=1
  done
  return "$ok"
}

# sees USER NAME...: the images that there are for a user, and in no call others.
sees() {
  local name
  as "$1" cachet ls | awk '{ print $NF }' >"$work/seen"
  printf '%s\n' "${@:2}" | diff - "$work/seen" || return 1
  for name in of-reader of-visitor for-both nowhere; do
    if grep -qx -- "$name" "$work/seen"; then
      as "$1" cachet info "$name" >/dev/null || return 1
      continue
    fi
    if as "$1" cachet cat "$name" >"$work/said" 2>&1 ||
      ! grep -q "image \"$name\": not served" "$work/said" ||
      as "$1" cachet stats | grep -- "$name"; then
      cat -- "$work/said"
      return 1
    fi
  done
}

# allows WHO-READS-THE-READERS: what each may read, from the next reload on.
allows() {
  local user
  for user in reader visitor; do
    printf '[image of-%s]\nsource = /srv/readers/%s.img\nallow = user:%s\n' \
      "$user" "$user" "$user"
  done | sed "s/user:reader/user:$1/" >/etc/cachetd/cachetd.conf
  cat >>/etc/cachetd/cachetd.conf <<'END'
[image for-both]
source = /var/lib/cachetd/disk.img
allow = group:cachetd
END
}

# reads NAME FILE: what the daemon serves is what the file holds.
reads() {
  cachet cat "$1" 2>"$work/stderr" | cmp --silent - "$2" || {
    cat -- "$work/stderr"
    return 1
  }
}

lists_quietly() {
  lists "$@" >/dev/null 2>&1
}

lists() {
  cachet ls | grep -E -- "$1" >/dev/null || {
    cachet ls
    return 1
  }
}

# Shows why a service did what it did.
journal() {
  journalctl --quiet --no-pager --lines=20 --output=cat --unit=cachetd.service \
    --unit=cachetd.socket --unit=cachetd-tcp.socket --unit=cachetd-tls.socket
}

status_has() {
  grep -qE "^$1:\s*$2$" "/proc/$(pid)/status"
}

# Restarts the service, however often that was done just now.
restart() {
  systemctl reset-failed cachetd.service cachetd.socket
  systemctl restart cachetd.service
}

# serves NAME=FILE...: what the daemon is told to serve.
serves() {
  local image
  for image; do
    printf '[image %s]\nsource = %s\n' "${image%%=*}" "${image#*=}"
  done >/etc/cachetd/cachetd.conf
  restart
}

# listens ADDRESS...: where it is told to listen by itself.
listens() {
  mkdir -p /etc/cachetd/cachetd.conf.d
  {
    echo "[listen]"
    printf 'address = %s\n' "$@"
  } >/etc/cachetd/cachetd.conf.d/listen.conf
  restart 2>/dev/null
}

# A certificate that signs itself, for clients without one.
makes_certificate() {
  mkdir -p /etc/cachetd/cachetd.conf.d
  cat >/etc/cachetd/cachetd.conf.d/tls.conf <<END
[tls]
certificate = /etc/cachetd/server.pem
key = /etc/cachetd/server.key
require-client-certificate = no
[images]
allow = any
END
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -subj /CN=server -addext subjectAltName=IP:127.0.0.1 \
    -keyout /etc/cachetd/server.key -out /etc/cachetd/server.pem \
    >"$work/openssl" 2>&1 || {
    cat "$work/openssl"
    return 1
  }
  chgrp cachetd /etc/cachetd/server.key
  chmod 640 /etc/cachetd/server.key
}

# opens EXAMPLE [SED-SCRIPT]: uses an example of a drop-in.
opens() {
  mkdir -p /etc/systemd/system/cachetd.service.d
  sed -e "${2-}" "/usr/share/doc/cachetd/examples/$1" \
    >"/etc/systemd/system/cachetd.service.d/$1"
  systemctl daemon-reload
  restart
}

# keeps_reading IMAGE: again and again, with each byte checked, until there is a
# file $work/enough.
keeps_reading() {
  local said=$work/said-$BASHPID
  until [ -e "$work/enough" ]; do
    cachet cat "$1" 2>"$said" | cmp --silent - /var/lib/cachetd/disk.img &&
      ! [ -s "$said" ] ||
      echo "$(date +%T.%3N) $1: $(<"$said")" >>"$work/failed"
  done
}

# Eight clients in shared memory, and two over TLS where that is served.
begin_reading() {
  rm -f -- "$work/enough" "$work/failed"
  journalctl --sync
  began=$(journalctl --quiet --lines=0 --show-cursor | sed -n 's/^-- cursor: //p')
  for _ in 1 2 3 4 5 6 7 8; do
    keeps_reading disk.img &
  done
  if [ -e /etc/cachetd/server.pem ]; then
    for _ in 1 2; do
      keeps_reading "cachets://127.0.0.1:10820/disk.img?ca=/etc/cachetd/server.pem" &
    done
  fi
}

# Whether no reader failed.
ends_reading() {
  touch "$work/enough"
  wait
  if [ -s "$work/failed" ]; then
    sort "$work/failed" | head -n 20
    timed_journal | awk '$1 - before > 1 { print last; print } { before = $1; last = $0 }'
    return 1
  fi
}

is_replaced() {
  [ "$(pid)" -ne 0 ] && [ "$(pid)" -ne "$before" ] && is cachetd.service active
}

# replaces N COMMAND...: ends the daemon so often, and waits for another one.
replaces() {
  local n
  for ((n = 0; n < $1; n++)); do
    systemctl reset-failed cachetd.service
    before=$(pid)
    "${@:2}" && eventually is_replaced || return
  done
}

# The journal since the readers began, with times in seconds.
timed_journal() {
  journalctl --sync
  journalctl --quiet --no-pager --output=short-unix --after-cursor="$began"
}

# For how long there was no daemon, at most, in milliseconds.
longest_absence() {
  timed_journal | awk '
    /Sent signal SIGKILL|Stopping cachetd.service/ { gone = $1 }
    /Started cachetd.service/ && gone { if ($1 - gone > most) most = $1 - gone }
    END { printf "%d\n", most * 1000 }'
}

# Whether readers failed for no other reason than that this machine, or its
# systemd, stood still for nearly as long as a client waits.
stood_still() {
  local absence
  [ -s "$work/failed" ] && absence=$(longest_absence) &&
    [ "$absence" -ge 4000 ] &&
    ! grep -qv -e ': no answer in time$' -e ': it does not answer$' \
      "$work/failed" &&
    echo "no wonder: there was no daemon for $absence ms"
}

# Whether a stop waits for a client that is in the middle of an image, and ends
# when that has all of it.
drains() {
  local reader stop
  mkdir -p /etc/systemd/system/cachetd.service.d /etc/cachetd/cachetd.conf.d
  printf '[Service]\nTimeoutStopSec=1\n' \
    >/etc/systemd/system/cachetd.service.d/drain.conf
  printf '[listen]\ndrain-timeout = 600\n' >/etc/cachetd/cachetd.conf.d/drain.conf
  systemctl daemon-reload
  restart
  mkfifo "$work/held"
  cachet cat disk.img >"$work/held" 2>"$work/stderr" &
  reader=$!
  exec 7<"$work/held"
  head -c 1 <&7 >"$work/got"
  before=$(pid)
  systemctl stop cachetd.service 2>/dev/null &
  stop=$!
  eventually is cachetd.service deactivating || return
  sleep 3 # Three times as long as systemd waits unless it is asked to.
  [ "$(pid)" -eq "$before" ] && is cachetd.service deactivating || return
  cat <&7 >>"$work/got"
  exec 7<&-
  wait "$reader" && wait "$stop" || return
  cmp -- "$work/got" /var/lib/cachetd/disk.img &&
    [ "$(systemctl show --property=Result --value cachetd.service)" = success ] ||
    return
  rm -- /etc/systemd/system/cachetd.service.d/drain.conf \
    /etc/cachetd/cachetd.conf.d/drain.conf
  systemctl daemon-reload
}

# The lines of an event since the readers began.
events() {
  journalctl --quiet --no-pager --output=cat --unit=cachetd.service \
    --after-cursor="$began" | grep -- "event=$1"
}

# The ledger, and a mirror: no client is left.
keeps_little() {
  [ "$(systemctl show --property=NFileDescriptorStore --value cachetd.service)" -eq 4 ]
}

# went_on N: at least so many daemons went on with what was cached, and none did
# not.  One that is killed may take the last lines of its log along.
went_on() {
  journalctl --sync
  [ "$(events image-warm | wc -l)" -ge "$1" ] && ! events image-cold
}

# It says what is wrong with a URI.
loads_module() {
  ! cachet add far nbds://far/disk.img 2>"$work/said" &&
    grep -q tls-certificates "$work/said" &&
    grep -q /usr/lib/cachetd/source-nbd.so "/proc/$(pid)/maps"
}

first_program() {
  sed -n '/^    #include <cachet/,/^    }$/s/^    //p' README.md >"$work/first.c"
  # As the README has it.
  cc "$work/first.c" $(pkg-config --cflags --libs libcachet-client) \
    -o "$work/first" &&
    [ "$("$work/first" cachet+unix:///disk.img)" = "55 aa" ] &&
    [ "$("$work/first" /var/lib/cachetd/disk.img)" = "55 aa" ]
}

first_program_static() {
  cc "$work/first.c" -Wl,-Bstatic $(pkg-config --libs --static libcachet-client) \
    -Wl,-Bdynamic -o "$work/first-static" &&
    ! ldd "$work/first-static" | grep cachet &&
    [ "$("$work/first-static" /var/lib/cachetd/disk.img)" = "55 aa" ]
}

# ---- Installed ---------------------------------------------------------------

systemctl --quiet is-system-running
footprint >"$work/before"
check "apt installs the packages" quietly apt-get -q -y install ./*.deb
[ "$failures" -eq 0 ] || exit
check "there is a user, and a group" quietly id cachetd
check "the directory for images is there, and is the user's" \
  [ "$(stat -c %U:%G:%a /var/lib/cachetd)" = cachetd:cachetd:750 ]
check "the socket listens" is cachetd.socket active
check "it is for the group alone" \
  [ "$(stat -c %U:%G:%a /run/cachetd/cachetd.sock)" = cachetd:cachetd:660 ]
check "the service does not run yet" is cachetd.service inactive
check "the socket listens after the next boot, too" \
  systemctl --quiet is-enabled cachetd.socket

head -c 3000001 /dev/urandom >/var/lib/cachetd/disk.img
printf '\x55\xaa' |
  dd of=/var/lib/cachetd/disk.img bs=1 seek=510 conv=notrunc status=none
chown cachetd: /var/lib/cachetd/disk.img
check "the first client starts the service" reads disk.img \
  /var/lib/cachetd/disk.img
check "it runs" is cachetd.service active
check "a module can be loaded in it" loads_module
check "its threads are confined" eval '! journalctl --quiet --output=cat \
  --unit=cachetd.service --grep=event=no-sandbox'
useradd reader
check "a user outside the group is refused" \
  eval '! as_reader cachet ls 2>/dev/null'
usermod --append --groups cachetd reader
check "a member of the group reads" \
  quietly as_reader cachet info disk.img
check "and reads in the memory of the daemon" \
  eval 'as_reader cachet info disk.img | grep -i shared | grep yes >/dev/null'
check "a member of the group may invalidate" as_reader cachet invalidate disk.img
before=$(pid)
printf '[image second]\nsource = /var/lib/cachetd/disk.img\n' \
  >>/etc/cachetd/cachetd.conf
check "a reload takes place" systemctl reload cachetd.service
check "it brings another image" eventually lists_quietly '3000001 +second'
check "to the daemon that runs" eval '[ "$(pid)" = "$before" ]'
check "the first program of the README builds and runs" first_program
check "so it does with the static library" first_program_static
check "the manual has a page for a function" \
  [ -e "$(man --where cachet_open 2>/dev/null || echo /usr/share/man/man3/cachet_open.3.gz)" ]

# ---- Access -----------------------------------------------------------------

useradd --groups cachetd visitor
mkdir /srv/readers
for user in reader visitor; do
  head -c 3000000 /dev/urandom >/srv/readers/$user.img
  chmod 644 /srv/readers/$user.img
done
allows reader
restart
check "eight clients of two users read what each may" both_read
check "the one sees none that it may not" sees reader for-both of-reader
check "nor does the other" sees visitor for-both of-visitor
check "nor does root, which no rule names" \
  eval '! cachet cat of-reader >/dev/null 2>&1'
allows visitor
check "a reload takes other rules" systemctl reload cachetd.service
check "it ends what they forbid" eventually sees reader for-both
check "and lets in the users that they allow" sees visitor for-both of-reader of-visitor
rm -r /srv/readers

# ---- What is closed, and what opens it ---------------------------------------

check "the daemon has no capability" status_has CapEff 0+
check "nor can it get one" status_has NoNewPrivs 1
check "its system calls are filtered" status_has Seccomp 2
check "none that it needs is refused: it says no more than that it is ready" \
  eval '! journalctl --unit cachetd.service --output cat | grep -E "level=(warn|error)|event=(warn|error)"'

mkdir /srv/later
serves late=/srv/later/disk.img disk.img=/var/lib/cachetd/disk.img
check "an image that is not there yet is missing" lists 'missing +late'
mount -t tmpfs tmpfs /srv/later
cp /var/lib/cachetd/disk.img /srv/later
chmod 644 /srv/later/disk.img
check "it is served when its file system is mounted, under the daemon that runs" \
  eventually lists_quietly '3000001 +late'

if mknod /dev/fuse c 10 229 2>/dev/null && mkdir /srv/fuse /srv/contents &&
  cp /srv/later/disk.img /srv/contents &&
  quietly mke2fs -q -d /srv/contents /srv/file-system 16M &&
  quietly fuse2fs /srv/file-system /srv/fuse -o ro,allow_other; then
  serves disk.img=/srv/fuse/disk.img
  check "an image on a FUSE file system is served" reads disk.img \
    /var/lib/cachetd/disk.img
  umount --lazy /srv/fuse
else
  echo "ok - an image on a FUSE file system # SKIP none can be mounted here"
fi

mkdir -p /home/somebody
cp /var/lib/cachetd/disk.img /home/somebody
chmod 644 /home/somebody/disk.img
serves home=/home/somebody/disk.img
check "an image in /home is out of sight" lists 'missing +home'
check "the example for homes can be used" opens home.conf
check "then the image is served" reads home /home/somebody/disk.img

if [ -e device ] && mknod /dev/test-disk b $(<device) &&
  quietly head -c 1 /dev/test-disk; then
  chgrp disk /dev/test-disk
  chmod 640 /dev/test-disk
  serves device=/dev/test-disk
  check "a device is out of sight" lists 'missing +device'
  check "the example for devices can be used" opens devices.conf \
    's|/dev/vg0/data|/dev/test-disk|'
  check "then the device is served" reads device /dev/test-disk
else
  echo "ok - a device is served # SKIP the machine was given none"
fi

serves disk.img=/var/lib/cachetd/disk.img
check "a stop can wait for clients, for longer than stops may take" drains
systemctl stop cachetd.service 2>/dev/null
check "the TCP socket can be enabled" \
  systemctl --quiet enable --now cachetd-tcp.socket
check "the service answers there, without a network of its own" \
  reads cachet://127.0.0.1:10819/disk.img /var/lib/cachetd/disk.img
systemctl disable --quiet --now cachetd-tcp.socket cachetd.service
check "a certificate and its key can be made" makes_certificate
check "the TLS socket can be enabled" \
  systemctl --quiet enable --now cachetd-tls.socket
check "the service answers there through TLS" reads \
  "cachets://127.0.0.1:10820/disk.img?ca=/etc/cachetd/server.pem" \
  /var/lib/cachetd/disk.img
check "a new certificate can be made" makes_certificate
systemctl reload cachetd.service
check "a reload has it shown" eventually reads \
  "cachets://127.0.0.1:10820/disk.img?ca=/etc/cachetd/server.pem" \
  /var/lib/cachetd/disk.img
for _ in 1 2 3; do
  begin_reading
  replaces 100 systemctl kill --signal=KILL cachetd.service
  killed=$?
  replaces 20 systemctl restart cachetd.service
  restarted=$?
  ends_reading
  unnoticed=$?
  stood_still || break
done
check "the daemon is killed a hundred times while clients read" \
  [ "$killed" -eq 0 ]
check "and restarted twenty times" [ "$restarted" -eq 0 ]
check "no client failed, nor read a wrong byte" [ "$unnoticed" -eq 0 ]
check "the daemons went on with what was cached" went_on 100
check "systemd keeps no more than it has to" eventually keeps_little
systemctl disable --quiet --now cachetd-tls.socket cachetd.service
rm -r /etc/cachetd/server.* /etc/cachetd/cachetd.conf.d/tls.conf
check "the daemon cannot open a TCP socket itself" \
  eval '! listens tcp:127.0.0.1:10900'
check "the example for the network can be used" opens network.conf
check "then it can" reads cachet://127.0.0.1:10900/disk.img \
  /var/lib/cachetd/disk.img
rm -r /etc/systemd/system/cachetd.service.d /etc/cachetd/cachetd.conf.d
systemctl daemon-reload
systemctl --quiet enable cachetd.socket
systemctl restart cachetd.socket
serves disk.img=/var/lib/cachetd/disk.img

# ---- Upgraded, removed, purged -----------------------------------------------

before=$(pid)
socket=$(stat -c %i /run/cachetd/cachetd.sock)
reads disk.img /var/lib/cachetd/disk.img
begin_reading
check "apt upgrades" quietly apt-get -q -y install ./next/*.deb
check "an upgrade restarts the service" \
  eval '[ "$(pid)" -ne "$before" ] && is cachetd.service active'
check "no client noticed" eval 'ends_reading || stood_still'
check "it went on with what was cached" went_on 1
check "its socket is the same" \
  [ "$(stat -c %i /run/cachetd/cachetd.sock)" = "${socket:-none}" ]
check "the configuration is what the administrator made it" \
  grep -qx "source = /var/lib/cachetd/disk.img" /etc/cachetd/cachetd.conf
check "and serves" reads disk.img /var/lib/cachetd/disk.img
systemctl stop cachetd.service 2>/dev/null
check "packages are installed anew" quietly dpkg --install ./next/*.deb
check "a service that does not run is not started by that" \
  is cachetd.service inactive
systemctl --quiet disable --now cachetd.socket
check "and once more, the socket disabled" quietly dpkg --install ./next/*.deb
check "a socket that was disabled stays so" \
  eval '! systemctl --quiet is-enabled cachetd.socket'
systemctl --quiet enable --now cachetd.socket
cachet ls >/dev/null

check "apt removes the packages" quietly apt-get -q -y remove cachetd libcachet-client1
check "nothing runs after that" eval '! pgrep -x cachetd'
check "nothing listens" [ ! -e /run/cachetd/cachetd.sock ]
check "images are there" [ -s /var/lib/cachetd/disk.img ]
check "so is the configuration" [ -s /etc/cachetd/cachetd.conf ]
check "dpkg purges" \
  quietly dpkg --purge cachetd libcachet-client1 libcachet-client-dev
check "images are there still, and so is their owner" \
  [ "$(stat -c %U /var/lib/cachetd/disk.img)" = cachetd ]
check "the configuration is not" [ ! -e /etc/cachetd ]

rm /var/lib/cachetd/disk.img
userdel --remove reader 2>/dev/null
userdel --remove visitor 2>/dev/null
check "dpkg installs once more" quietly dpkg --install ./*.deb
check "dpkg purges at once" \
  quietly dpkg --purge cachetd cachetd-rbd libcachet-client-dev libcachet-client1
rm -rf /root/.cache
check "without images, nothing is left" diff "$work/before" <(footprint)
[ "$failures" -eq 0 ] || journal
finish
