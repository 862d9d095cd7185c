#!/bin/sh
# Mutual exclusion with flock: runs CMD while the file LOCK is locked, first come, first served.
#
#   mutex-flock.sh LOCK CMD [ARG…]     mutex-flock.sh /mnt/zk/locks/nightly backup
#
# On a mount of znodefs flock(1) holds on all machines. The lock belongs to the open file, which CMD and
# everything that it starts inherit as descriptor 9: it is free when the last of them has ended or closed
# it. Who waits stands in a queue.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
on_mount "$1"
shift
lock_and_run --exclusive "$@"
