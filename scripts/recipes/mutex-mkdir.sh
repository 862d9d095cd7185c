#!/bin/sh
# Mutual exclusion with mkdir: runs CMD while the directory LOCK is ours.
#
#   mutex-mkdir.sh LOCK CMD [ARG…]     mutex-mkdir.sh /mnt/zk/locks/nightly backup
#
# mkdir makes a directory for one caller only, on however many machines. The suffix @eph lets it go with
# the mount's session, so that a machine that dies leaves no lock behind; this script killed with -9 does,
# until the mount ends. All who wait wake up together and one wins, whoever it is. mutex-pid.sh has not
# the first weakness, mutex-flock.sh neither.
set -eu
. "$(dirname -- "$0")/common.sh"
[ $# -ge 2 ] || usage
on_mount "$1"
shift

made=''
# shellcheck disable=SC2317 # the trap calls it
release() {
    stop_waiting
    [ -n "$made" ] || return 0
    # A lock lost with the session may be another's by now.
    while :; do
        case $(ask) in
            yes) rmdir -- "$path"; return ;;
            no) return ;;
        esac
        sleep 0.1
    done
}
trap release EXIT

# A signal that comes while mkdir is at it has to wait for what comes of it.
try() {
    told=''
    trap 'told=129' HUP
    trap 'told=130' INT
    trap 'told=131' QUIT
    trap 'told=143' TERM
    if error=$(end_in_peace; LC_ALL=C mkdir -- "$path@eph" 2>&1); then
        made=yes
        hold || made=''
    fi
    exit_on_signals
    [ -z "$told" ] || exit "$told"
    [ -n "$made" ]
}

until try; do
    case $error in
        *': File exists') wait_for delete_self "$path" ;;
        # The session was lost meanwhile.
        '' | *': Stale file handle') ;;
        *) fail "${error#mkdir: }" ;;
    esac
    read_session || fail "$path: the mount is gone"
done
run "$@"
exit "$code"
