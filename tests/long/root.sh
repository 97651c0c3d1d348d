# Sourced by tests/long/*: options, results, and fresh roots of Debian releases.
#
# A script has usage, and calls begin, begin_section, end_section and finish.
# What it makes is in $work, which goes whatever ends it; no root is mounted
# anywhere but in the mount namespace of the processes inside it (enter-root).
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
results=""
section=""
work=""
source "$root/tests/results.sh"

# Takes the options of a script, and leaves other arguments in $rest.  With
# --results FILE the script adds its results to that file, and leaves the report
# to its caller.
begin() {
  if [ "${1-}" = --results ] && [ $# -ge 2 ]; then
    results=$(realpath -- "$2")
    : >>"$results"
    shift 2
  fi
  case ${1-} in
  -h | --help)
    usage
    exit 0
    ;;
  -*)
    usage >&2
    exit 2
    ;;
  esac
  rest=("$@")
  exec </dev/null # no test reads the terminal
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/cachetd-long.XXXXXX")
  trap 'rm -rf --one-file-system -- "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  cd -- "$root"
  if [ -z "$results" ]; then
    reports=yes
    results=$work/results
    : >"$results"
  fi
}

finish() {
  if [ -n "${reports-}" ]; then
    report
  fi
}

# Prints why no root can be made and entered here, if so.
why_no_root() {
  local program
  if [ "$(id -u)" -ne 0 ]; then
    echo "needs root"
    return
  fi
  for program in mmdebstrap unshare pivot_root git; do
    if ! command -v "$program" >/dev/null; then
      echo "there is no $program; deploy/install-deps --long installs it"
      return
    fi
  done
  if ! unshare --mount --pid --fork true 2>/dev/null; then
    echo "no mount and process namespaces may be made here"
  fi
}

# Prints the sources of release $1 in the archives that this machine's apt has.
sources_of() {
  local format='$(LABEL) $(REPO_URI)' label uri
  apt-get indextargets --format "$format" "Created-By: Packages" \
    "Origin: Debian" "Component: main" | sort -u |
    while read -r label uri; do
      case $label in
      Debian) echo "deb $uri $1 main" ;;
      Debian-Security) echo "deb $uri $1-security main" ;;
      esac
    done
}

# Makes a root of Debian release $1 in directory $2, with the packages named
# after that, separated by commas.  It gets its packages as this machine does:
# from its archives, with its apt's proxies, time-outs and checks of dates.
make_root() {
  local release=$1 dir=$2 packages=$3 sources begin=$SECONDS
  sources=$(sources_of "$release")
  if [ -z "$sources" ]; then
    # No lists, as in a container's image.
    apt-get -q update >&2 || true
    sources=$(sources_of "$release")
  fi
  if [ -z "$sources" ]; then
    echo "apt has no archive of Debian" >&2
    return 1
  fi
  apt-config dump --format '%f "%v";%n' Acquire |
    grep -E '^Acquire::(http|https|Check|Retries|ForceIPv)' >"$work/apt.conf" ||
    true
  mmdebstrap --quiet --variant=apt --aptopt="$work/apt.conf" \
    --include="$packages" "$release" "$dir" - <<<"$sources" || return
  echo "a root of $release: $(du -sh -- "$dir" | cut -f 1)," \
    "$((SECONDS - begin)) s"
}

# Runs a command in a root, for at most so many seconds.
in_root() {
  local dir=$1 seconds=$2
  shift 2
  timeout --foreground --kill-after=20 "$seconds" \
    "$root/tests/long/enter-root" "$dir" "$@"
}
