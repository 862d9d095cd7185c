#!/bin/sh
# Mutual exclusion with mkdir: runs CMD while the directory PATH of the tree is ours.
#
#   mutex-mkdir.sh MOUNT PATH CMD [ARG…]     mutex-mkdir.sh /mnt/zk /locks/nightly backup
#
# mkdir makes a directory for one caller only, on however many machines. The suffix @eph lets it go with
# the mount's session, so that a machine that dies leaves no lock behind; a script killed with -9 does.
# All who wait wake up together and one wins, whoever it is, and nobody ends CMD when the mount loses its
# session: `znode lock` has a fair queue and does.
set -eu
[ $# -ge 3 ] || { echo "usage: ${0##*/} MOUNT PATH CMD [ARG…]" >&2; exit 2; }
mount=$1 path=$2
shift 2

until error=$(LC_ALL=C mkdir "$mount$path@eph" 2>&1); do
    case $error in
        *'File exists') znode wait "$path" --gone ;;
        *) echo "$error" >&2; exit 1 ;;
    esac
done
# A lock lost with the session may be another's by now, and then is another inode.
identity() { ls -di "$mount$path" 2>/dev/null || true; }
ours=$(identity)
trap '[ "$(identity)" != "$ours" ] || rmdir "$mount$path"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$@"
