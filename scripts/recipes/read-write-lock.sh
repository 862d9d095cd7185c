#!/bin/sh
# Read/write lock: many read at once, who writes is alone.
#
#   read-write-lock.sh read PATH CMD [ARG…]      runs CMD together with other readers
#   read-write-lock.sh write PATH CMD [ARG…]     runs CMD alone
#
# First come, first served: readers that come after a waiting writer wait for it. kazoo's ReadLock and
# WriteLock on the same PATH take part.
set -eu
[ $# -ge 3 ] || { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
action=$1 path=$2
shift 2

case $action in
    read) exec znode lock --shared "$path" "$@" ;;
    write) exec znode lock --exclusive "$path" "$@" ;;
    *) sed -n 's/^#   /usage: /p' "$0" >&2; exit 2 ;;
esac
