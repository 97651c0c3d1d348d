#!/usr/bin/env bash
# The service gives away no more of the system than is thought necessary, by
# systemd's own measure: from 0 to 10, here in tenths.
#
#   units_test.sh CHECKS SERVICE NETWORK-DROP-IN REMOTE-DROP-IN
source "$1"
service=$2
network=$3
remote=$4
readonly MOST=5 MOST_WITH_NETWORK=13

exposes_at_most() {
  systemd-analyze security --no-pager --offline=true "--threshold=$1" "$2" \
    >"$work/security" 2>&1 || {
    grep -v '^✓' "$work/security"
    return 1
  }
}

check "the service as it is installed exposes at most 0.$MOST" \
  exposes_at_most "$MOST" "$service"
# systemd-analyze knows no drop-ins of a file; what comes later wins there, too.
cat -- "$service" "$network" >"$work/cachetd.service"
check "it exposes at most 1.3 with the drop-in that opens the network" \
  exposes_at_most "$MOST_WITH_NETWORK" "$work/cachetd.service"
cat -- "$service" "$remote" >"$work/cachetd.service"
check "nor more with the one that lets it reach other hosts" \
  exposes_at_most "$MOST_WITH_NETWORK" "$work/cachetd.service"
finish
