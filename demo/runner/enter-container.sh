#!/bin/sh
# The last steps into a container, in its namespaces already: its cgroup, host name, resolver files, a /run of its own,
# and the demo's programs at /srv; then its program takes this process over.
#   enter-container.sh <cgroup.procs> <hostname> <resolv.conf> <hosts> <programs> <working directory> <program>...
set -eu
echo $$ >"$1"
hostname "$2"
resolv=$3 hosts=$4 programs=$5 workdir=$6
shift 6
mount --bind "$programs" /srv
mount -t tmpfs -o mode=755 heddle-demo /run
for pair in "$resolv:/etc/resolv.conf" "$hosts:/etc/hosts"; do
  # A link into /run (as systemd-resolved makes) now points nowhere.
  target=$(readlink -m "${pair#*:}")
  case $target in
  /run/*)
    mkdir -p "${target%/*}"
    : >"$target"
    ;;
  esac
  mount --bind "${pair%%:*}" "$target"
done
cd "$workdir"
exec "$@"
