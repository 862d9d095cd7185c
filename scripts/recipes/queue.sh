#!/bin/sh
# Queue: items are taken in the order in which they were put in, each by one taker only.
#
#   queue.sh put QUEUE      puts standard input in as one item
#   queue.sh take QUEUE     prints the first item and removes it; waits while there is none
#
# QUEUE is a directory on a mount of znodefs. An item appears whole, under the number of a ticket that its
# putter drew; a taker renames it to a name of its own, which succeeds for one only. One killed in the
# middle of taking leaves the item as .taken-NUMBER.HOST.PID.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -eq 2 ] || usage
case $1 in
    put | take) on_mount "$2" ;;
    *) usage ;;
esac
queue=$path
own=$(uname -n).$$
# What is larger, mv would copy, which is not one step.
ITEM_LENGTH_MAX=500000

put() {
    new=$queue/.new.$own
    trap 'stop_waiting; rm -f -- "$new"' EXIT
    cat >"$new"
    [ "$(stat --format=%s -- "$new")" -le "$ITEM_LENGTH_MAX" ] ||
        fail "an item has at most $ITEM_LENGTH_MAX bytes"
    # The ticket goes when it is closed; its number is never drawn again.
    command exec 9<>"$queue/.ticket-@seq,fd" || exit 1
    read -r ticket <&9
    mv --no-target-directory -- "$new" "$queue/item-${ticket#.ticket-}"
    trap - EXIT
}

take() {
    for item in "$queue"/item-*; do
        taken=$queue/.taken-${item#"$queue/item-"}.$own
        mv --no-target-directory -- "$item" "$taken" 2>/dev/null || continue
        # What could not be handed over stays there.
        cat -- "$taken" || exit
        rm -- "$taken" || exit
        return
    done
    return 1
}

mkdir -p -- "$queue"
case $1 in
    put) put ;;
    take) look_until "$queue" take ;;
esac
