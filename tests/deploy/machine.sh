# Sourced: a machine to install things on.  It is a container with this machine's
# root, in which systemd runs; what is written there is gone with it.
#
# The script that sources it runs in namespaces of its own (enter_namespaces), so
# that nothing stays mounted and no process goes on when that ends.

# Prints why there can be no such machine here, if so.
why_no_machine() {
  local program
  if [ "$(id -u)" -ne 0 ]; then
    echo "needs root"
    return
  fi
  for program in systemd-nspawn nsenter unshare; do
    if ! command -v "$program" >/dev/null; then
      echo "there is no $program; deploy/install-deps --test installs it"
      return
    fi
  done
  if ! unshare --mount --pid --fork true 2>/dev/null; then
    echo "no mount and process namespaces may be made here"
  elif ! unshare --mount sh -c 'mount -t tmpfs tmpfs /mnt && mkdir /mnt/u \
    /mnt/w /mnt/root && mount -t overlay overlay /mnt/root \
    -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w' 2>/dev/null; then
    echo "no overlay over the root may be mounted here"
  fi
}

# enter_namespaces SCRIPT ARGUMENT...: runs the script anew, in them.
enter_namespaces() {
  if [ -z "${IN_NAMESPACES-}" ]; then
    IN_NAMESPACES=yes exec unshare --mount --pid --fork --kill-child \
      --mount-proc "$@"
  fi
}

# Ends the machine, if it runs, before its root is taken away.
drop_machine() {
  if [ -n "${nspawn-}" ]; then
    # With the first process of the machine go all others.
    kill -KILL ${machine_pid-} "$nspawn" 2>/dev/null
    wait "$nspawn" 2>/dev/null
    eventually leave_no_cgroup
  fi
  umount --lazy -- "$machine" "$work/machine"
  clean_up
}

# Makes the root of the machine, $machine.
make_machine() {
  local unit
  machine=$work/machine/root
  mkdir -- "$work/machine"
  trap drop_machine EXIT
  mount -t tmpfs -o size=2g,mode=755 tmpfs "$work/machine"
  mkdir -- "$work/machine/upper" "$work/machine/work" "$machine"
  mount -t overlay overlay "$machine" -o "lowerdir=/,upperdir=$work/machine/upper,workdir=$work/machine/work"
  # No service of this machine's, no login, no first boot.
  rm -rf -- "$machine"/etc/systemd/system/*.wants
  for unit in console-getty.service getty.target systemd-firstboot.service \
    systemd-logind.service systemd-networkd.service systemd-resolved.service \
    systemd-timesyncd.service timers.target remote-fs.target; do
    ln -sfn /dev/null "$machine/etc/systemd/system/$unit"
  done
  # A container's image may say that packages are to start nothing.
  rm -f -- "$machine/etc/fstab" "$machine/usr/sbin/policy-rc.d"
  : >"$machine/etc/machine-id"
}

# Prints this machine's hierarchies of control groups.
cgroup_roots() {
  local directory
  for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
    if [ -e "$directory/cgroup.procs" ]; then
      echo "$directory"
    fi
  done
}

# Moves this shell into a control group of its own, so that what systemd makes
# in the machine is below that.
enter_cgroup() {
  local directory
  for directory in $(cgroup_roots); do
    mkdir -p -- "$directory/$cgroup" 2>/dev/null || continue
    if [ -e "$directory/cpuset.cpus" ]; then
      cat -- "$directory/cpuset.cpus" >"$directory/$cgroup/cpuset.cpus"
      cat -- "$directory/cpuset.mems" >"$directory/$cgroup/cpuset.mems"
    fi 2>/dev/null
    echo "$BASHPID" >"$directory/$cgroup/cgroup.procs"
  done 2>/dev/null
}

# Whether the control groups are gone: those of the machine can be removed once
# its processes have ended.
leave_no_cgroup() {
  local directory status=0
  for directory in $(cgroup_roots); do
    if [ -e "$directory/$cgroup" ]; then
      find "$directory/$cgroup" -depth -type d -exec rmdir -- {} + 2>/dev/null ||
        status=1
    fi
  done
  return "$status"
}

is_up() {
  machine_pid=$(pgrep -P "$nspawn" -x systemd) &&
    in_machine systemctl is-system-running 2>&1 | grep -E '^(running|degraded)$' >/dev/null
}

is_up_or_gone() {
  ! kill -0 "$nspawn" 2>/dev/null || is_up
}

# Boots the machine.  What its systemd says is in $work/console.
boot_machine() {
  cgroup=cachetd-test-$$-$RANDOM
  (
    enter_cgroup
    exec systemd-nspawn --quiet --boot "--directory=$machine" \
      --machine=cachetd-test --register=no --keep-unit --private-network \
      --console=pipe --resolv-conf=off --timezone=off --link-journal=no \
      --system-call-filter=bpf </dev/null >"$work/console" 2>&1
  ) &
  nspawn=$!
  eventually is_up_or_gone && kill -0 "$nspawn" 2>/dev/null
}

# Runs a command in the machine.
in_machine() {
  nsenter --target "$machine_pid" --all -- env -i HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" \
    </dev/null
}

