#!/bin/sh
# Double barrier: COUNT processes start CMD together, and go on together when all have ended it.
#
#   double-barrier.sh BARRIER COUNT NAME CMD [ARG…]     double-barrier.sh /mnt/zk/run-17 3 "$(hostname)" compute
#
# BARRIER is a directory on a mount of znodefs. Each process has a NAME of its own, and each run a BARRIER
# of its own. A process that dies counts as ended.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 4 ] || usage
case $2 in
    *[!0-9]* | '' | 0) usage ;;
esac
on_mount "$1"
barrier=$path count=$2 name=$3
shift 3
check_name "$name"

mkdir -p -- "$barrier"
path=$barrier/$name
error=$(LC_ALL=C mkdir -- "$path@pid=$$" 2>&1) || fail "${error#mkdir: }"
hold || fail "$path: lost again with the session of the mount"

# Whoever sees that all are there says so: fast ones may have ended before a slow one has counted.
all_there() {
    is_same_session || fail "$path: lost while waiting for the others"
    exists "$barrier/.ready" && return
    members=$(ls -- "$barrier") && [ "$(printf '%s\n' "$members" | wc -l)" -ge "$count" ] || return
    mkdir -- "$barrier/.ready" 2>/dev/null || exists "$barrier/.ready"
}
look_until "$barrier" all_there

run "$@"
exit_on_signals
[ "$(ask)" = no ] || rmdir -- "$path"

none_there() {
    members=$(ls -- "$barrier") && [ -z "$members" ]
}
look_until "$barrier" none_there
exit "$code"
