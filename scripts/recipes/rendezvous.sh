#!/bin/sh
# Rendezvous: one side learns late where it can be met, the others wait for that.
#
#   rendezvous.sh host PATH ADDRESS CMD [ARG…]     tells ADDRESS while CMD runs
#   rendezvous.sh meet PATH                        waits for the host and prints its ADDRESS
#
# PATH is agreed on beforehand, the address is not. It is gone when the host is.
set -eu
usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
action=$1 path=$2
shift 2

case $action in
    host)
        [ $# -ge 2 ] || usage
        address=$1
        shift
        exec znode register "$path" --data "$address" "$@"
        ;;
    meet)
        while znode wait "$path" --exists; do
            # The host may have gone between the two.
            if address=$(znode get --sync "$path" 2>/dev/null); then
                echo "$address"
                exit
            fi
        done
        exit 1
        ;;
    *) usage ;;
esac
