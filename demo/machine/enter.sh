#!/bin/sh
# Runs a command as the first process of namespaces of its own, in the cgroups that it is given.
#   enter.sh <cgroup2 directory, empty without> <directory to mount cgroup2 at, empty when it is mounted> <cgroup>... -- <command>...
# The order matters: a cgroup namespace has as its roots the cgroups that its maker is in, and a cgroup that hands
# controllers down must not hold a process itself, so the process moves one step down afterwards.
# Spec: cgroup_namespaces(7), Documentation/admin-guide/cgroup-v2.rst "No Internal Process Constraint".
set -eu
cgroup2=$1
mount_at=$2
shift 2
if [ -n "$mount_at" ]; then
  mkdir -p "$mount_at"
  mount -t cgroup2 heddle-demo "$mount_at"
fi
if [ -n "$cgroup2" ]; then
  mkdir -p "$cgroup2/node"
  echo $$ >"$cgroup2/cgroup.procs"
fi
while [ "$1" != -- ]; do
  echo $$ >"$1/cgroup.procs"
  shift
done
shift
export cgroup2
exec unshare --cgroup sh -c '
  if [ -n "$cgroup2" ]; then echo $$ >"$cgroup2/node/cgroup.procs"; fi
  unset cgroup2
  exec unshare --net --ipc --uts --pid --fork --kill-child --mount-proc "$@"
' sh "$@"
