#!/bin/sh
# Service registration: instances of a service are listed with their address while they run.
#
#   service-registration.sh run PATH NAME ADDRESS CMD [ARG…]     runs CMD, listed as NAME
#   service-registration.sh list MOUNT PATH                      prints NAME and ADDRESS of each instance
#   service-registration.sh follow PATH CMD [ARG…]               runs CMD with that list on standard
#                                                                input, now and after each change
#
# An instance is listed again by itself when its session was lost and its command still runs.
set -eu
usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage
action=$1
shift

case $action in
    run)
        [ $# -ge 4 ] || usage
        path=$1 name=$2 address=$3
        shift 3
        exec znode register "$path/$name" --data "$address" "$@"
        ;;
    list)
        for instance in "$1$2"/*; do
            # Gone since the pattern was expanded: not listed.
            address=$(cat "$instance" 2>/dev/null) || continue
            echo "${instance##*/} $address"
        done
        ;;
    follow)
        [ $# -ge 2 ] || usage
        path=$1
        shift
        # --sync: the server asked here may be behind the one that told of the change.
        # shellcheck disable=SC2016 # the inner shell reads these
        exec znode watch --recursive "$path" --initial --exec sh -c '
            path=$1
            shift
            for name in $(znode ls --sync "$path"); do
                address=$(znode get --sync "$path/$name" 2>/dev/null) && echo "$name $address"
            done | "$@"
        ' follow "$path" "$@"
        ;;
    *) usage ;;
esac
