#!/bin/sh
# Rendezvous: one side learns late where it can be met, the others wait for that.
#
#   rendezvous.sh host MEETING ADDRESS CMD [ARG…]     tells ADDRESS while CMD runs
#   rendezvous.sh meet MEETING                        waits for the host and prints its ADDRESS
#
# MEETING is a file on a mount of znodefs, agreed on beforehand; the address is not. It is gone when the
# host is, and told again when the host has lost its session and goes on.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
action=$1
on_mount "$2"
shift 2

meet() {
    # A file appears whole: what can be read is an address.
    address=$(cat -- "$path" 2>/dev/null) && [ -n "$address" ]
}

case $action in
    host)
        [ $# -ge 2 ] || usage
        address=$1
        shift
        register "$(dirname -- "$path")" "$(basename -- "$path")" "$address"
        exec "$@"
        ;;
    meet)
        [ $# -eq 0 ] || usage
        look_until "$(dirname -- "$path")" meet
        printf '%s\n' "$address"
        ;;
    *) usage ;;
esac
