#!/bin/sh
# Leader election: the first candidate leads; when its CMD ends or its machine is lost, the next follows.
#
#   leader-election.sh stand PATH NAME CMD [ARG…]     runs CMD while NAME leads
#   leader-election.sh observe PATH                   says who leads, now and after each change
#
# CMD has a number in ZNODE_LOCK_ZXID that grows from leader to leader. It is ended before the next one
# can lead if its machine is cut off from the servers.
set -eu
usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
action=$1 path=$2
shift 2

case $action in
    stand)
        [ $# -ge 2 ] || usage
        name=$1
        shift
        exec znode elect --name "$name" "$path" "$@"
        ;;
    observe)
        znode elect --observe "$path" | while read -r leader; do
            echo "leader: ${leader:-nobody}"
        done
        ;;
    *) usage ;;
esac
