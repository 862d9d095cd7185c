#!/bin/sh
# Barrier: while BARRIER is there, everybody waits.
#
#   barrier.sh close BARRIER     puts it up; fails if it is up already
#   barrier.sh pass BARRIER      returns when it is not up (any more)
#   barrier.sh open BARRIER      takes it away
#
# BARRIER is a directory on a mount of znodefs. It stays up whoever dies.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -eq 2 ] || usage
case $1 in
    close | pass | open) on_mount "$2" ;;
    *) usage ;;
esac

case $1 in
    close) mkdir -- "$path" ;;
    open) rmdir -- "$path" ;;
    pass)
        # What this mount shows may be older than a barrier that somebody knows to be up.
        sync -- "${path%/*}/"
        while :; do
            answered=0
            exists "$path" || answered=$?
            case $answered in
                0) wait_for delete_self "$path" ;;
                1) exit ;;
                *) fail "${found#stat: }" ;;
            esac
        done
        ;;
esac
