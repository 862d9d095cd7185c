#!/bin/sh
# Configuration, published in one step and followed.
#
#   config.sh publish FILE                   publishes standard input as FILE
#   config.sh follow FILE CMD [ARG…]         runs CMD with the value on standard input, now and after
#                                            each change
#
# FILE is on a mount of znodefs. mv replaces a file of the tree in one transaction: no reader ever sees a
# part of it, nor an empty one. CMD is not run twice for the same value, nor for a file that was removed;
# when it fails, standard error says so.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
action=$1
on_mount "$2"
shift 2

publish() {
    next=$(dirname -- "$path")/.$(basename -- "$path").$(uname -n).$$
    trap 'stop_waiting; rm -f -- "$next"' EXIT
    cat >"$next"
    mv --no-target-directory -- "$next" "$path"
}

# One reading of a file never mixes two values.
value() { { cat -- "$path"; } 2>/dev/null; }

case $action in
    publish)
        [ $# -eq 0 ] || usage
        publish
        ;;
    follow)
        [ $# -ge 1 ] || usage
        values=$(mktemp -d)
        trap 'stop_waiting; rm -r -- "$values"' EXIT
        look_until "$(dirname -- "$path")" if_changed value "$@"
        ;;
    *) usage ;;
esac
