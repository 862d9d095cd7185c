#!/bin/sh
# Leader election: the first candidate leads; when its CMD ends or its machine is lost, the next follows.
#
#   leader-election.sh stand ELECTION NAME CMD [ARG…]     runs CMD while NAME leads
#   leader-election.sh leader ELECTION                    prints who leads
#   leader-election.sh observe ELECTION                   prints who leads, now and after each change
#
# ELECTION is a directory on a mount of znodefs. A candidate is a file in it with a counter in its name
# and the candidate's NAME in it; the lowest counter leads, and each other one waits only for the one
# before it. The file is there as long as anybody has it open: CMD and all that it starts inherit it as
# descriptor 9. CMD finds a number in ELECTION_TERM that grows from leader to leader.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
action=$1
on_mount "$2"
election=$path
shift 2

# The candidates' files, first in the queue first.
candidates() {
    names=$(LC_ALL=C ls -- "$election") || return
    printf '%s\n' "$names" | sed -n '/^candidate-[0-9]*$/p'
}

# Sets leader to the name of who leads, to nothing where nobody does; fails where that cannot be known.
find_leader() {
    leader=''
    queue=$(candidates) || return
    for candidate in $queue; do
        if leader=$(cat -- "$election/$candidate" 2>/dev/null); then return; fi
        # Gone since: the next leads.
        exists "$election/$candidate" || [ $? -eq 1 ] || return
    done
}

# Enters the queue: sets own to our file.
enter() {
    read_session || fail "$election: the mount is gone"
    command exec 9<>"$election/candidate-@seq,fd" || exit 1
    read -r own <&9 && printf '%s\n' "$1" >&9 && path=$election/$own
}

# Waits in the queue; fails when we are not in it any more.
wait_for_turn() {
    while :; do
        previous='' found=''
        until queue=$(candidates); do
            [ -r "$status/state" ] || fail "$election: the mount is gone"
            await sleep 0.1
        done
        for candidate in $queue; do
            if [ "$candidate" = "$own" ]; then found=yes; break; fi
            previous=$candidate
        done
        [ -n "$found" ] || return
        [ -n "$previous" ] || return 0
        wait_for delete_self "$election/$previous"
    done
}

tell() {
    find_leader || return
    [ "${told-unknown}" = "$leader" ] || echo "leader: ${leader:-nobody}"
    told=$leader
    return 1
}

case $action in
    stand)
        [ $# -ge 2 ] || usage
        name=$1
        shift
        mkdir -p -- "$election"
        until enter "$name" && wait_for_turn && hold; do
            command exec 9>&-
            say "$election: lost the place in the queue: queueing again"
            await sleep 0.1
        done
        ELECTION_TERM=${own#candidate-}
        export ELECTION_TERM
        keep $$
        exec "$@"
        ;;
    leader)
        [ $# -eq 0 ] || usage
        find_leader || exit
        [ -n "$leader" ] || fail "$election: nobody leads"
        printf '%s\n' "$leader"
        ;;
    observe)
        [ $# -eq 0 ] || usage
        mkdir -p -- "$election"
        look_until "$election" tell
        ;;
    *) usage ;;
esac
