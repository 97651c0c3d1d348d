#!/usr/bin/env bash
# The configuration file, through the daemon: which files are read, which value
# holds, what is said of a wrong one, and by which exit status.
#
#   config_test.sh CHECKS CACHETD CACHET EXAMPLE CONF-PAGE DAEMON-PAGE
source "$1"
cachetd=$(realpath -- "$2")
cachet=$(realpath -- "$3")
example=$(realpath -- "$4")
page=$(realpath -- "$5")
daemon_page=$(realpath -- "$6")
conf=$work/c.conf
socket=$work/sock

head -c 20000 /dev/urandom >"$work/a.img"
head -c 30000 /dev/urandom >"$work/b.img"

# is_right [ARGUMENT]...: --check-config says so, in one line.
is_right() {
  "$cachetd" --check-config "$@" </dev/null >"$work/out" 2>"$work/err" &&
    [ "$(wc -l <"$work/out")" -eq 1 ] && [ ! -s "$work/err" ] &&
    grep -q "^the configuration is right: " "$work/out" || {
    cat -- "$work/out" "$work/err"
    return 1
  }
}

# says_wrong LINE...: --check-config of $conf has these lines on standard error,
# nothing else anywhere, and status 2.  A list of the keys that there are is
# "...".
says_wrong() {
  local status=0
  "$cachetd" --check-config --config "$conf" </dev/null \
    >"$work/out" 2>"$work/all" || status=$?
  sed 's/; there are .*/; there are .../' "$work/all" >"$work/err"
  printf '%s\n' "$@" >"$work/expected"
  diff -u "$work/expected" "$work/err" && [ ! -s "$work/out" ] &&
    [ "$status" -eq 2 ]
}

served() {
  "$cachet" "$@" --socket "$socket" </dev/null
}

lists() {
  served ls >"$work/ls" && [ "$(awk '{print $NF}' "$work/ls" | paste -sd ' ')" = "$1" ] || {
    cat -- "$work/ls"
    return 1
  }
}

# ---- What holds -------------------------------------------------------------

cat >"$conf" <<END
[cache]
size = 8M
page-size = 8K
[listen]
address = unix:$work/not-this-one
[image a]
source = $work/a.img
[image b]
source = $work/a.img
END
mkdir -- "$conf.d"
cat >"$conf.d/10-size.conf" <<END
[cache]
size = 16M
[image b]
source = $work/b.img
offset = 10000
END
check "--check-config of a right configuration is one line and status 0" \
  is_right --config "$conf"
check "--check-config opens no socket" [ ! -e "$work/not-this-one" ]
check "the daemon starts by its file" \
  start_daemon "$cachetd" --config "$conf" --listen "unix:$socket"
check "a drop-in wins over the file" grep -q "cache_size=16777216" "$work/log"
check "what it does not say is the file's" \
  grep -q "page_size=8192" "$work/log"
check "--listen replaces the addresses" [ ! -e "$work/not-this-one" ]
check "both images are served" lists "a b"
check "one of them is a part of a file" \
  cmp <(tail -c +10001 "$work/b.img") <(served cat b)
check "the daemon ends in good order" exits_0_on_sigterm

check "options are taken over files" start_daemon "$cachetd" \
  --cache-size 32M --config "$conf" --listen "unix:$socket" \
  --image "b=$work/a.img" --image "c=$work/b.img"
check "--cache-size wins" grep -q "cache_size=33554432" "$work/log"
check "--image adds an image" lists "a b c"
check "--image wins over the image of that name" \
  cmp "$work/a.img" <(served cat b)
check "the daemon ends in good order again" exits_0_on_sigterm

check "/dev/null is no configuration" \
  is_right --config /dev/null --image "$work/a.img"

# ---- The default file --------------------------------------------------------

# Before a command: with $work/etc in the place of /etc.
with_etc=(unshare -rm sh -c 'mount --bind "$0" /etc && exec "$@"' "$work/etc")

# check_etc: check, of what needs another /etc.
check_etc() {
  if "${with_etc[@]}" true 2>/dev/null; then
    check "$@"
  else
    echo "ok - $1 # SKIP nothing can be mounted here"
  fi
}

default=/etc/cachetd/cachetd.conf
mkdir -p -- "$work$default.d"
printf '[image d]\nsource = /d\n' >"$work$default.d/d.conf"
check_etc "without the default file its drop-ins are not read either" \
  fails_with 2 "no image to serve" "${with_etc[@]}" "$cachetd" --check-config
printf 'bogus\n' >"$work$default"
check_etc "the default file is read without being asked for" \
  fails_with 2 "^$default:1: neither" "${with_etc[@]}" "$cachetd" --check-config
: >"$work$default"
check_etc "its drop-ins are read with it" \
  "${with_etc[@]}" "$cachetd" --check-config
check_etc "--config is read in its place" \
  fails_with 2 "no image to serve" \
  "${with_etc[@]}" "$cachetd" --check-config --config /dev/null

# ---- What is wrong ----------------------------------------------------------

cat >"$conf" <<END
[cache]
size = 1X
[image a]
source = $work/a.img
bogus = 1
END
printf '[log]\nlevel = loud\n' >"$conf.d/20-log.conf"
check "--check-config says all that is wrong, with file and line" says_wrong \
  "$conf:2: size: \"1X\": not a size; it takes digits and K, M, G or T" \
  "$conf:5: unknown key \"bogus\" in [image NAME]; there are ..." \
  "$conf.d/20-log.conf:2: level: \"loud\": not error, warn, info or debug"
check "a start says the same, with status 2" \
  fails_with 2 "^cachetd: $conf:5: unknown key" "$cachetd" --config "$conf"
check "a wrong file is not started with, though an option wins" \
  fails_with 2 "$conf:2: size" "$cachetd" --config "$conf" --cache-size 1M
check "a wrong option is said beside what is wrong in files" \
  fails_with 2 "^--workers: \"0\": not a number" \
  "$cachetd" --check-config --config "$conf" --workers 0
rm -r -- "$conf.d"
: >"$conf"
check "an empty file is right, but there is no image" \
  says_wrong "no image to serve; write --image SOURCE, or [image NAME] in a configuration file, or directory = DIRECTORY in [images]"

check "a file that is named must be there" \
  fails_with 2 "none.conf: No such file" "$cachetd" --config "$work/none.conf"
check "--config needs an argument" \
  fails_with 2 "needs an argument" "$cachetd" --config
check "a directory is no file" \
  fails_with 2 "Is a directory" "$cachetd" --config "$work"
mkfifo -- "$work/fifo"
check "nobody waits for a FIFO" \
  fails_with 2 "neither a file nor" "$cachetd" --config "$work/fifo"
check "a program is no configuration" \
  fails_with 2 "a byte that no text has|more than 1M" \
  "$cachetd" --config "$cachetd"
head -c 10000000 /dev/zero | tr '\0' % >"$work/long"
check "a line of 10 MB is not read" \
  fails_with 2 "more than 1M" "$cachetd" --config "$work/long"

# ---- Certificates ------------------------------------------------------------

# makes_certificate NAME: $work/NAME.pem, and its key $work/NAME.key.
makes_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -subj "/CN=$1" -keyout "$work/$1.key" -out "$work/$1.pem" \
    >"$work/openssl" 2>&1 || {
    cat -- "$work/openssl"
    return 1
  }
}

# tls CERTIFICATE KEY [CA]: a configuration with them, from its line 5 on.
tls() {
  cat >"$conf" <<END
[image a]
source = $work/a.img
[tls]
require-client-certificate = no
certificate = $1
key = $2
client-ca = ${3-$1}
END
}

check "certificates can be made" makes_certificate server
check "and more of them" makes_certificate other
tls "$work/server.pem" "$work/server.key"
check "a certificate and its key are right" is_right --config "$conf"
tls "$work/server.pem" "$work/other.key"
check "another one's key is not, which names its line" says_wrong \
  "$conf:6: key: key $work/other.key: it is not the key of certificate $work/server.pem"
tls "$work/none.pem" "$work/other.key"
check "nor is a file that is not there" says_wrong \
  "$conf:5: certificate: certificate $work/none.pem: No such file or directory"
tls "$work/server.pem" "$work/server.key" "$work/a.img"
check "nor are authorities that are none" says_wrong \
  "$conf:7: client-ca: CA certificates $work/a.img: it holds none in PEM"

# only_tls LINE...: a configuration without an address for TLS, with these lines
# in [tls], from its line 4 on.
only_tls() {
  printf '%s\n' "[image a]" "source = $work/a.img" "[tls]" "$@" >"$conf"
}
no_ca="clients have to show a certificate, and none is known to sign them; write client-ca = FILE in [tls], or require-client-certificate = no for anybody to read every image"
no_certificate="TLS needs a certificate; write certificate = FILE in [tls]"

# systemd may pass a socket for TLS, so no address has to be for TLS.
only_tls "certificate = $work/none.pem"
check "a certificate alone lacks authorities, and is looked at" says_wrong \
  "$conf:4: certificate: $no_ca" \
  "$conf:4: certificate: certificate $work/none.pem: No such file or directory"
only_tls "certificate = $work/server.pem" "key = $work/other.key"
check "so are a certificate and another one's key" says_wrong \
  "$conf:4: certificate: $no_ca" \
  "$conf:5: key: key $work/other.key: it is not the key of certificate $work/server.pem"
only_tls "certificate = $work/server.pem" "key = $work/server.key" \
  "require-client-certificate = yes"
check "what requires authorities is named where it is given" says_wrong \
  "$conf:6: require-client-certificate: $no_ca"
only_tls "key = $work/none.key" "client-ca = $work/none.ca"
check "a key and authorities lack a certificate, and are looked for" says_wrong \
  "$conf:4: key: $no_certificate" \
  "$conf:4: key: key $work/none.key: No such file or directory" \
  "$conf:5: client-ca: CA certificates $work/none.ca: No such file or directory"
only_tls "client-ca = $work/server.pem"
check "authorities that are there lack a certificate" says_wrong \
  "$conf:4: client-ca: $no_certificate"
only_tls
check "an empty [tls] is right" is_right --config "$conf"
cat >"$conf" <<END
[image a]
source = $work/a.img
[listen]
address = tcp:127.0.0.1:7
address = tcp:127.0.0.1:7
END
check "no address is given twice" says_wrong \
  "$conf:5: address: the address is given twice"

# ---- What is written elsewhere ----------------------------------------------

# uncommented FILE: each key and section of it is there, and files that it names
# for TLS are ours.
uncommented() {
  sed -e 's/^#\([a-z[]\)/\1/' -e "s|/etc/cachetd/ca.pem|$work/server.pem|" \
    -e "s|/etc/cachetd/server\.|$work/server.|" -- "$1" >"$work/all.conf"
}

# known TEXT: what a message says there is, in place of something in TEXT that is
# unknown; a line each.
known() {
  printf "$1" >"$conf"
  "$cachetd" --check-config --config "$conf" 2>&1 </dev/null |
    sed -n 's/.*there are //p' | sed 's/, /\n/g'
}

# has_every_key FILE: each key of each section that the daemon knows.
has_every_key() {
  local section key
  sed 's/\\-/-/g' -- "$1" >"$work/text"
  known '[?]\n' >"$work/sections"
  [ "$(wc -l <"$work/sections")" -gt 2 ] || return 1
  while read -r section; do
    known "[$section]\n?=\n" >"$work/keys"
    [ -s "$work/keys" ] || return 1
    while read -r key; do
      grep -qE "^(\.[A-Z]+ )?(.*\" )?$key[ \"]+=" "$work/text" || {
        echo "$1 does not have $key of [$section]"
        return 1
      }
    done <"$work/keys"
  done <"$work/sections"
}

# has_every_option PAGE: each option of an image that the daemon knows.
has_every_option() {
  local option
  sed 's/\\-/-/g' -- "$1" >"$work/text"
  "$cachetd" --check-config --image "/a,?" 2>&1 </dev/null |
    sed -n 's/;[^;]*$//; s/.*there are //p' | tr ' ' '\n' >"$work/options"
  [ -s "$work/options" ] || return 1
  while read -r option; do
    grep -qE "^\.[A-Z]+ (.*\" )?$option" "$work/text" || {
      echo "$1 does not have $option"
      return 1
    }
  done <"$work/options"
}

check "deploy/cachetd.conf is right as it is" \
  is_right --config "$example" --image "$work/a.img"
uncommented "$example"
check "deploy/cachetd.conf is right with everything in it" \
  is_right --config "$work/all.conf"
check "deploy/cachetd.conf has every key" has_every_key "$work/all.conf"
check "cachetd.conf(5) has every key" has_every_key "$page"
check "cachetd(8) has every option of an image" has_every_option "$daemon_page"
sed -n '/^\.SH EXAMPLES/,/^\.fi/p' "$page" | grep -v '^\.' | sed 's/\\-/-/g' \
  >"$work/page.conf"
check "the example of cachetd.conf(5) is right" is_right --config "$work/page.conf"
finish
