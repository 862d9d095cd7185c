#!/bin/sh
# Double barrier: COUNT processes start CMD together, and go on together when all have ended it.
#
#   double-barrier.sh PATH COUNT NAME CMD [ARG…]     double-barrier.sh /runs/17 3 "$HOSTNAME" compute
#
# Each process has a NAME of its own, and each run a PATH of its own. A process that dies counts as ended.
set -eu
[ $# -ge 4 ] || { echo "usage: ${0##*/} PATH COUNT NAME CMD [ARG…]" >&2; exit 2; }
path=$1 count=$2 name=$3
shift 3

status=0
# Whoever sees that all are there says so: fast ones may have ended before a slow one has counted.
# shellcheck disable=SC2016 # the inner shell reads these
znode register "$path/members/$name" sh -c '
    path=$1 count=$2
    shift 2
    until znode wait "$path/ready" --exists --wait 0 2>/dev/null; do
        if znode wait "$path/members" --children "$count" --wait 1 2>/dev/null; then
            znode create "$path/ready" >/dev/null 2>&1
        fi
    done
    exec "$@"
' member "$path" "$count" "$@" || status=$?
znode wait "$path/members" --childless
exit "$status"
