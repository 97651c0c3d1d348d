#!/usr/bin/env bash
# The systemd units are well formed, and a daemon that systemd starts for a
# socket takes it, says when it is ready and when it stops, and serves it.
#
#   systemd_test.sh CHECKS CACHETD CACHET SERVICE SOCKET TCP-SOCKET
#
# Needs no systemd that runs: systemd-socket-activate plays its part.
source "$1"
cachetd=$(realpath -- "$2")
cachet=$(realpath -- "$3")
service=$(realpath -- "$4")
socket=$(realpath -- "$5")
tcp_socket=$(realpath -- "$6")
tls_socket=$(realpath -- "$7")

# Verifies copies of the units that start the daemon that was built.  Anything
# said of them is a fault, though only some faults give a bad status.
verify_units() {
  mkdir -- "$work/units"
  sed "s|^ExecStart=/usr/bin/cachetd$|ExecStart=$cachetd|" "$service" \
    >"$work/units/cachetd.service"
  cp -- "$socket" "$work/units/cachetd.socket"
  cp -- "$tcp_socket" "$work/units/cachetd-tcp.socket"
  cp -- "$tls_socket" "$work/units/cachetd-tls.socket"
  grep -qxF "ExecStart=$cachetd" "$work/units/cachetd.service" || return 1
  # The manual pages need not be installed here.
  systemd-analyze verify --man=no "$work/units/cachetd.service" \
    "$work/units/cachetd.socket" "$work/units/cachetd-tcp.socket" \
    "$work/units/cachetd-tls.socket" \
    >"$work/verify" 2>&1 || {
    cat -- "$work/verify"
    return 1
  }
  ! grep cachetd "$work/verify"
}

# Listens on datagram socket $1 and prints what it receives, as systemd would
# on $NOTIFY_SOCKET.
listen_for_notifications() {
  perl -MIO::Socket::UNIX -e '
    $| = 1;
    my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0])
      or die "$ARGV[0]: $!";
    while (defined($s->recv(my $message, 65536))) { print "$message\n" }' "$1"
}

# One below those that the kernel gives to other tests that run meanwhile.
free_port() {
  perl -MIO::Socket::INET -e '
    for (1 .. 100) {
      my $port = 20000 + int rand 10000;
      print($port), exit if IO::Socket::INET->new(Listen => 1,
        LocalAddr => "127.0.0.1", LocalPort => $port);
    }
    die "no port is free"'
}

# Starts the daemon as systemd would: when the first client connects.
activate() {
  local variable
  local -a environment=(-E "NOTIFY_SOCKET=$work/notify")
  for variable in ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS; do
    if [ -n "${!variable-}" ]; then
      environment+=(-E "$variable")
    fi
  done
  systemd-socket-activate "${environment[@]}" -l "$work/sock" \
    -l "127.0.0.1:$port" "$cachetd" --config /dev/null --image "disk=$work/disk.img" \
    </dev/null 2>"$work/log" &
  daemon=$!
  pids+=("$daemon")
}

reads_the_image() {
  "$cachet" cat "$@" </dev/null | cmp - "$work/disk.img"
}

lists_the_image() {
  "$cachet" ls --socket "$work/sock" </dev/null | tee "$work/ls" |
    grep -q "$1 *disk" || {
    cat -- "$work/ls"
    return 1
  }
}

check "systemd-analyze finds no fault with the units" verify_units
check "the socket unit removes its file when it stops" \
  grep -qx RemoveOnStop=yes "$socket"

head -c 3000001 /dev/urandom >"$work/part"
port=$(free_port)
listen_for_notifications "$work/notify" >"$work/notified" &
pids+=($!)
eventually [ -S "$work/notify" ]
activate
eventually [ -S "$work/sock" ]

# A service that failed again and again would have systemd close the socket.
check "the first client starts the daemon, though its only image is missing" \
  lists_the_image missing
mv -- "$work/part" "$work/disk.img"
check "the image is served once it is there" eventually lists_the_image 3000001
check "the daemon tells systemd that it is ready" \
  eventually grep -qx READY=1 "$work/notified"
check "a client on the Unix socket reads the image" \
  reads_the_image disk --socket "$work/sock"
check "a client on the TCP socket reads the image" \
  reads_the_image "cachet://127.0.0.1:$port/disk"
check "the daemon exits 0 on SIGTERM" exits_0_on_sigterm
check "the daemon tells systemd that it stops" \
  eventually grep -qx STOPPING=1 "$work/notified"
check "the socket is systemd's, so the daemon leaves it there" \
  [ -S "$work/sock" ]

if [ "$failures" -ne 0 ]; then
  echo "the daemon said:"
  cat -- "$work/log"
  exit 1
fi
