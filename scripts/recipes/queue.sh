#!/bin/sh
# Queue: items are taken in the order in which they were put in, each by one taker only.
#
#   queue.sh put PATH               puts standard input in as one item
#   queue.sh take MOUNT PATH        prints the first item and removes it; waits while there is none
#
# A sequential znode holds an item. Of several takers, the one whose rm succeeds has the item.
set -eu
usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage

case $1 in
    put)
        [ $# -eq 2 ] || usage
        # Whole from the start: a file made with > would be empty for a moment.
        znode create --parents --sequential "$2/item-" - >/dev/null
        ;;
    take)
        [ $# -eq 3 ] || usage
        mount=$2 path=$3
        while znode wait "$path" --children 1; do
            copy=$(mktemp)
            trap 'rm -f "$copy"' EXIT
            for name in $(znode ls "$path"); do
                if cat "$mount$path/$name" >"$copy" 2>/dev/null && rm "$mount$path/$name" 2>/dev/null; then
                    cat "$copy"
                    exit
                fi
            done
            rm "$copy"
        done
        exit 1
        ;;
    *) usage ;;
esac
