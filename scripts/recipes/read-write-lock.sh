#!/bin/sh
# Read/write lock: many read at once, who writes is alone.
#
#   read-write-lock.sh read LOCK CMD [ARG…]      runs CMD together with other readers
#   read-write-lock.sh write LOCK CMD [ARG…]     runs CMD alone
#
# LOCK is a file on a mount of znodefs. First come, first served: readers that come after a waiting
# writer wait for it. CMD and everything that it starts inherit the lock as descriptor 9, as with
# mutex-flock.sh.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 3 ] || usage
case $1 in
    read) mode=--shared ;;
    write) mode=--exclusive ;;
    *) usage ;;
esac
on_mount "$2"
shift 2
lock_and_run "$mode" "$@"
