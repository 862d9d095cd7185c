#!/bin/sh
# Mutual exclusion with @pid: runs CMD while the directory LOCK is ours, and LOCK ends with CMD.
#
#   mutex-pid.sh LOCK CMD [ARG…]     mutex-pid.sh /mnt/zk/locks/nightly backup
#
# The mount removes LOCK@pid=N when process N ends, however it ends, and the servers do when the machine
# dies. CMD takes the place of this script with exec, and so is process N: nothing has to be cleaned up.
# What CMD leaves running is not waited for (mutex-flock.sh does). All who wait wake up together and one
# wins, whoever it is.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
on_mount "$1"
shift

until error=$(LC_ALL=C mkdir -- "$path@pid=$$" 2>&1); do
    case $error in
        *': File exists') wait_for delete_self "$path" ;;
        # The session was lost meanwhile.
        *': Stale file handle') ;;
        *) fail "${error#mkdir: }" ;;
    esac
    read_session || fail "$path: the mount is gone"
done
hold || fail "$path: lost again with the session of the mount"
keep $$
exec "$@"
