#!/bin/sh
# Group membership: who is there, told by files that end with their members.
#
#   group-membership.sh join GROUP NAME CMD [ARG…]    is a member while CMD runs
#   group-membership.sh list GROUP                    who is there
#   group-membership.sh follow GROUP                  who is there, then who comes and goes
#
# GROUP is a directory on a mount of znodefs. A member that dies is gone from it at once, one whose machine
# dies when the session of its mount ends. When that session ends and CMD goes on, it joins again.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
action=$1
on_mount "$2"
group=$path
shift 2

tell() {
    # Where the servers do not answer, nobody is known to have gone.
    listed=$(ls -- "$group") || return
    # shellcheck disable=SC2086 # one word for each
    listed=$(printf ' %s ' $listed)
    for member in $listed; do
        case $there in *" $member "*) ;; *) echo "+ $member" ;; esac
    done
    for member in $there; do
        case $listed in *" $member "*) ;; *) echo "- $member" ;; esac
    done
    there=$listed
    return 1
}

case $action in
    join)
        [ $# -ge 2 ] || usage
        name=$1
        shift
        mkdir -p -- "$group"
        register "$group" "$name" "$name"
        exec "$@"
        ;;
    list)
        [ $# -eq 0 ] || usage
        exec ls -- "$group"
        ;;
    follow)
        [ $# -eq 0 ] || usage
        mkdir -p -- "$group"
        there=''
        look_until "$group" tell
        ;;
    *) usage ;;
esac
