#!/bin/sh
# Barrier: while PATH is there, everybody waits.
#
#   barrier.sh close MOUNT PATH     puts the barrier up; fails if it is up already
#   barrier.sh pass MOUNT PATH      returns when it is not up (any more)
#   barrier.sh open MOUNT PATH      takes it away
set -eu
[ $# -eq 3 ] || { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
mount=$2 path=$3

case $1 in
    close) mkdir "$mount$path" ;;
    pass) znode wait "$path" --gone ;;
    open) rmdir "$mount$path" ;;
    *) sed -n 's/^#   /usage: /p' "$0" >&2; exit 2 ;;
esac
