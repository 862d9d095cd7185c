#!/bin/sh
# Group membership: who is there, told by ephemeral znodes below PATH.
#
#   group-membership.sh join PATH NAME CMD [ARG…]    is a member while CMD runs
#   group-membership.sh list MOUNT PATH              who is there
#   group-membership.sh follow PATH                  who is there, then who comes and goes
#
# A member that dies, or whose machine does, is gone from the group when its session ends.
set -eu
usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
action=$1
shift

case $action in
    join)
        [ $# -ge 3 ] || usage
        path=$1 name=$2
        shift 2
        exec znode register "$path/$name" --data "$name" "$@"
        ;;
    list)
        [ $# -eq 2 ] || usage
        ls "$1$2"
        ;;
    follow)
        group=$1
        znode watch --recursive --initial "$group" | while read -r type path _; do
            member=${path#"$group/"}
            case $type:$path in
                *:"$group") ;;
                present:* | created:*) echo "+ $member" ;;
                deleted:*) echo "- $member" ;;
            esac
        done
        ;;
    *) usage ;;
esac
