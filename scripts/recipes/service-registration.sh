#!/bin/sh
# Service registration: instances of a service are listed with their address while they run.
#
#   service-registration.sh run SERVICE NAME ADDRESS CMD [ARG…]     runs CMD, listed as NAME
#   service-registration.sh list SERVICE                            prints NAME and ADDRESS of each instance
#   service-registration.sh follow SERVICE CMD [ARG…]               runs CMD with that list on standard
#                                                                   input, now and after each change
#
# SERVICE is a directory on a mount of znodefs. An instance is listed again by itself when the session of
# its mount was lost and its command still runs.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
action=$1
on_mount "$2"
service=$path
shift 2

# Fails where the servers do not answer: then nobody is known to have gone.
list() {
    names=$(ls -- "$service") || return
    for name in $names; do
        if address=$(cat -- "$service/$name" 2>/dev/null); then
            printf '%s %s\n' "$name" "$address"
        else
            exists "$service/$name" || [ $? -eq 1 ] || return
        fi
    done
}

case $action in
    run)
        [ $# -ge 3 ] || usage
        name=$1 address=$2
        shift 2
        mkdir -p -- "$service"
        register "$service" "$name" "$address"
        exec "$@"
        ;;
    list)
        [ $# -eq 0 ] || usage
        list
        ;;
    follow)
        [ $# -ge 1 ] || usage
        mkdir -p -- "$service"
        values=$(mktemp -d)
        trap 'stop_waiting; rm -r -- "$values"' EXIT
        look_until "$service" if_changed list "$@"
        ;;
    *) usage ;;
esac
