# shellcheck shell=sh disable=SC2013,SC2034,SC2154 # words are meant; the recipes share variables
# Sourced by the recipes: what they have in common. Needs coreutils, util-linux and inotify-tools.
#
# A recipe that holds something starts a keeper beside its command. The keeper asks the servers every
# sixth of the session timeout whether it is still ours, and ends the command with all that it has
# started: with SIGKILL at once when it is another's; with SIGTERM when the servers have been silent for
# two thirds of the timeout, and a sixth later with SIGKILL: before another can have it.

# Seconds after which whoever waits looks again, for what inotify could not tell.
LOOK_INTERVAL=5

usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "$*"; exit 1; }

# on_mount PATH: sets path to PATH, absolute, status to the files that tell of the mount on which it is
# or is to be, and session to the mount's session.
on_mount() {
    command -v inotifywait >/dev/null || fail "inotifywait is missing: Debian's package inotify-tools has it"
    parent=$(LC_ALL=C stat --format=%m -- "$(dirname -- "$1")" 2>&1) || fail "${parent#stat: }"
    status=$parent/@status
    path=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd -P) || exit 1
    path=${path%/}/$(basename -- "$1")
    read_session || fail "$1: not on a mount of znodefs"
}

# Reads the mount's session and its timeout, in hundredths of a second.
read_session() {
    session=$(cat "$status/session" 2>/dev/null) || return
    timeout=$((${session##*timeout_ms } / 10))
}

# exists PATH: 0 when it is there, 1 when it is not, 2 when that cannot be known; found says why.
exists() {
    found=$(LC_ALL=C stat --format=%i -- "$1" 2>&1) && return
    case $found in
        *': No such file or directory') ;;
        *) return 2 ;;
    esac
    # Where the mount is gone, nothing is there.
    [ -r "$status/state" ] && return 1
    found="$1: the mount is gone"
    return 2
}

# Waiting. A signal ends what is waited for, and the recipe.
waiting='' watcher=''
stop_watching() { [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || :; }
# A signal may come again, to us and to our group: what is done at the end is done in peace.
end_in_peace() { trap '' HUP INT QUIT TERM; }
stop_waiting() {
    end_in_peace
    [ -z "$waiting" ] || kill "$waiting" 2>/dev/null || :
    stop_watching
}
exit_on_signals() {
    trap 'end_in_peace; exit 129' HUP
    trap 'end_in_peace; exit 130' INT
    trap 'end_in_peace; exit 131' QUIT
    trap 'end_in_peace; exit 143' TERM
}
trap stop_waiting EXIT
exit_on_signals

# await CMD…: runs a command that may take long.
await() {
    "$@" &
    waiting=$!
    awaited=0
    # A shell says which signal ended what it waited for: not here.
    wait "$waiting" 2>/dev/null || awaited=$?
    waiting=''
    return "$awaited"
}

# wait_for EVENTS PATH…: until one of these events of inotify, or for some seconds: look, then.
wait_for() {
    events=$1
    shift
    await inotifywait -qq --timeout "$LOOK_INTERVAL" --event "$events" -- "$@" 2>/dev/null ||
        # Gone before it could be watched, or it cannot be.
        [ "$awaited" -ne 1 ] || await sleep 0.05 || :
}

# A pipe, descriptor 8, of which nobody needs the name.
make_pipe() {
    pipe=$(mktemp -d)
    mkfifo "$pipe/pipe"
    exec 8<>"$pipe/pipe"
    rm -r -- "$pipe"
}

# look_until DIRECTORY CONDITION [ARG…]: looks now, and again when something has happened in a directory
# or to the connection, until CONDITION is true. Followers have one that never is.
look_until() {
    directory=$1
    shift
    make_pipe
    while :; do
        inotifywait --format event --timeout "$LOOK_INTERVAL" \
            --event create,modify,close_write,move,delete,delete_self \
            -- "$directory" "$status/state" >&8 2>&1 8>&- </dev/null &
        watcher=$!
        while read -r line <&8; do
            case $line in
                'Setting up watches.' | event) ;;
                # From here on nothing is missed.
                'Watches established.') break ;;
                # It cannot be watched, perhaps because it is not there.
                *)
                    [ -r "$status/state" ] || fail "$directory: the mount is gone"
                    await sleep 1
                    break
                    ;;
            esac
        done
        if "$@"; then break; fi
        wait "$watcher" 2>/dev/null || :
        watcher=''
    done
    stop_watching
    exec 8>&-
}

# if_changed PRODUCER CMD…: a condition that never is true: runs CMD with what PRODUCER prints on standard
# input, if that is not what it was the last time. The directory values is for its files.
if_changed() {
    "$1" >"$values/new" || return
    shift
    # A shell says which signal ended what it ran: not here.
    {
        ! cmp --silent -- "$values/new" "$values/last" && mv -- "$values/new" "$values/last"
    } 2>/dev/null || return
    # shellcheck disable=SC2016 # the inner shell reads these
    await env --default-signal=INT,QUIT sh -c 'exec "$@" <"$0"' "$values/last" "$@" ||
        say "$1 ended with status $awaited"
    return 1
}

# Processes.

# started PID: when it was started, as a name for it; nothing when it has ended.
started() {
    line=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # shellcheck disable=SC2086 # words are meant
    set -- ${line##*) }
    case $1 in
        [ZX]) ;;
        *) echo "${20}" ;;
    esac
}

# runs PID START: whether that very process still does.
runs() { [ -n "$2" ] && [ "$(started "$1")" = "$2" ]; }

# tree PID: PID/START of it and of everything it has started.
tree() {
    start=$(started "$1")
    # In a container without an init the keeper is a child of the command.
    [ -n "$start" ] && [ "$1" != "${keeper-}" ] || return 0
    echo "$1/$start"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do tree "$child"; done
}

# signal NAME PID/START…: sends a signal to those that still run.
signal() {
    name=$1
    shift
    for process in "$@"; do
        ! runs "${process%/*}" "${process#*/}" || kill -s "$name" "${process%/*}" 2>/dev/null || :
    done
}

# stop_tree PID: stops it and everything it has started, top down so that nothing is started meanwhile,
# and prints their pids.
stop_tree() {
    [ "$1" != "${keeper-}" ] || return 0
    kill -s STOP "$1" 2>/dev/null || return 0
    echo "$1"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do stop_tree "$child"; done
}

# kill_all PID/START…: kills those that still run, and everything they have started.
kill_all() {
    for process in "$@"; do
        runs "${process%/*}" "${process#*/}" || continue
        # shellcheck disable=SC2046 # one word for each
        kill -s KILL $(stop_tree "${process%/*}") 2>/dev/null || :
    done
}

# Holding.

# now: the time in hundredths of a second, on a clock that goes on while the machine sleeps.
now() {
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}
}

# seconds HUNDREDTHS
seconds() { printf '%d.%02d' "$(($1 / 100))" "$(($1 % 100))"; }

is_same_session() { [ "$(cat "$status/session" 2>/dev/null)" = "$session" ]; }

# ask: asks the servers whether path is still what was held: prints yes, no or unknown. Nothing can end a
# process that waits for an answer of the mount, so whoever watches over a command lets another do it.
ask() {
    is_same_session || { echo no; return; }
    # sync(1) waits until the servers that lead have confirmed the session.
    synced=yes answered=0
    sync -- "$path" 2>/dev/null || synced=''
    exists "$path" || answered=$?
    if [ "$answered" -eq 0 ] && [ "$found" != "$ours" ]; then
        # Another of that name.
        answered=1
    fi
    is_same_session || answered=1
    case $answered$synced in
        0yes) echo yes ;;
        1*) echo no ;;
        *) echo unknown ;;
    esac
}

# hold: path was acquired, in session unless that was lost meanwhile. Waits until the servers confirm
# that it is held, or say that it is not: then it fails.
hold() {
    while :; do
        now
        confirmed=$now answered=0
        exists "$path" || answered=$?
        ours=$found
        [ "$answered" -ne 1 ] || return
        [ "$answered" -ne 0 ] || case $(ask) in
            yes) return 0 ;;
            no) return 1 ;;
        esac
        [ -r "$status/state" ] || fail "$path: the mount is gone"
        await sleep 0.1
    done
}

# keep PID: ends PID when path may not be ours any more. Call it after hold.
keep() {
    (keeper "$1" &)
}

# For who works on beside the command: signals are for the command, which may have other ideas of them,
# and so are descriptors, of which one may be the lock.
stay_behind() {
    trap '' HUP INT QUIT TERM TSTP
    trap - EXIT
    exec </dev/null >/dev/null 7<&- 8<&- 9<&-
    cd /
}

keeper() {
    stay_behind
    kept=$1 start=$(started "$1")
    read -r keeper _ </proc/self/stat
    make_pipe
    number=0 pending='' ask_at=$((confirmed + timeout / 6))
    while :; do
        watch_path
        now
        end_at=$((confirmed + timeout * 2 / 3))
        [ "$now" -lt "$end_at" ] || break
        if [ -z "$pending" ] && [ "$now" -ge "$ask_at" ]; then
            number=$((number + 1)) pending=yes asked_at=$now
            (echo "$number $(ask)" >&8) &
        fi
        due=$ask_at
        [ -z "$pending" ] || due=$end_at
        hear "$((due - now))"
        runs "$kept" "$start" || break
        case $heard in
            event) ask_at=0 ;;
            "$number yes") confirmed=$asked_at pending='' ask_at=$((asked_at + timeout / 6)) ;;
            "$number unknown") now; pending='' ask_at=$((now + 10)) ;;
            "$number no") break ;;
        esac
    done
    if runs "$kept" "$start"; then
        case ${heard-} in
            "$number no") end_now ;;
            *) end_silent ;;
        esac
    fi
    kill -s KILL "$watcher" 2>/dev/null || :
}

# hear HUNDREDTHS: waits that long for a line in the pipe: heard.
hear() {
    wait_for_line=$1
    [ "$wait_for_line" -gt 0 ] || wait_for_line=1
    # read takes no byte more than the line. The shell tells of what is killed.
    # shellcheck disable=SC2016 # the inner shell reads it
    { heard=$(timeout --signal=KILL "$(seconds "$wait_for_line")" sh -c 'read -r line && echo "$line"' <&8) || :; } 2>/dev/null
}

# Has an event of path said to the pipe.
watch_path() {
    [ -z "$watcher" ] || ! kill -0 "$watcher" 2>/dev/null || return 0
    inotifywait -q --format event --timeout 60 --event delete_self -- "$path" >&8 2>/dev/null &
    watcher=$!
}

end_now() {
    say "$path is lost: the command is killed"
    # shellcheck disable=SC2046 # one word for each
    kill_all $(tree "$kept")
}

end_silent() {
    doomed=$(tree "$kept")
    say "$path: the servers are silent: the command was sent SIGTERM, SIGKILL follows in $(seconds "$((timeout / 6))") s"
    # shellcheck disable=SC2086 # one word for each
    signal TERM $doomed
    killed_at=$((confirmed + timeout * 5 / 6))
    now
    while [ "$now" -lt "$killed_at" ]; do
        sleep 0.05
        now
        running=''
        for process in $doomed; do
            ! runs "${process%/*}" "${process#*/}" || running=yes
        done
        [ -n "$running" ] || return 0
    done
    # shellcheck disable=SC2086 # one word for each
    kill_all $doomed
}

# in_foreground: whether the terminal sends its signals to us, and so to the command too.
in_foreground() {
    line=$(cat "/proc/$$/stat")
    # shellcheck disable=SC2086 # words are meant
    set -- ${line##*) }
    [ "$3" = "$6" ]
}

pass_on() {
    case $1 in
        INT | QUIT) in_foreground && return ;;
    esac
    kill -s "$1" "$child" 2>/dev/null || :
}

# run CMD…: runs a command with signals passed on, under a keeper; sets code to its exit status.
run() {
    for name in HUP INT QUIT TERM USR1 USR2; do
        # shellcheck disable=SC2064 # now is right
        trap "pass_on $name" "$name"
    done
    # Shells let what they run in the background ignore some signals.
    exec 7<&0
    env --default-signal=INT,QUIT -- "$@" <&7 7<&- &
    child=$!
    exec 7<&-
    keep "$child"
    while :; do
        code=0
        wait "$child" || code=$?
        # A signal ends the waiting, not the command.
        kill -0 "$child" 2>/dev/null || break
    done
}

# lock_and_run --shared|--exclusive CMD…: becomes a command while the file path is locked.
lock_and_run() {
    mode=$1
    shift
    while :; do
        read_session || fail "$path: the mount is gone"
        # Made if need be, and never changed.
        command exec 9>>"$path" || exit 1
        await flock "$mode" 9 || fail "$path cannot be locked"
        # Taken in another session if the first one was lost meanwhile; the lock counts in the one it was
        # taken in, which the next attempt knows.
        if hold; then break; fi
        command exec 9>&-
    done
    keep $$
    exec "$@"
}

# Being there.

# register DIRECTORY NAME VALUE: the file NAME with VALUE is in DIRECTORY as long as this process runs,
# also when CMD has taken its place, and in the mount's next session if this one ends. What somebody
# removes by hand stays removed.
register() {
    check_name "$2"
    path=$1/$2 value=$3
    hidden=$1/.$2.$(uname -n).$$
    announced=''
    while :; do
        placed=0
        place $$ || placed=$?
        case $placed in
            0) break ;;
            1) ;;
            *) exit 1 ;;
        esac
        [ -n "$announced" ] || say "$path is there already: waiting until it goes"
        announced=yes
        wait_for delete_self "$path"
    done
    (registrar $$ &)
}

# A name that can stand in a list of words, and means nothing to the mount.
check_name() {
    case $1 in
        '' | .* | *[!A-Za-z0-9._:+-]*) fail "'$1' cannot be the name: letters, digits and ._:+- only, no . in front" ;;
    esac
}

# place PID: puts the file there, whole, to end with PID; 1 when there is one, 2 when that failed.
place() {
    read_session || { say "$path: the mount is gone"; return 2; }
    printf '%s\n' "$value" >"$hidden@pid=$1" || return 2
    # Does not replace what is there, of which it tells nothing.
    mv --no-clobber --no-target-directory -- "$hidden" "$path" || return 2
    left=0
    exists "$hidden" || left=$?
    [ "$left" -ne 1 ] || return 0
    rm -f -- "$hidden"
    [ "$left" -eq 0 ] && return 1
    say "$found"
    return 2
}

registrar() {
    stay_behind
    registered=$1 start=$(started "$1")
    while :; do
        inotifywait -qq --timeout "$LOOK_INTERVAL" --event delete_self,modify -- "$path" "$status/state" 2>/dev/null ||
            sleep 0.1
        runs "$registered" "$start" || return 0
        # Not to be read while the mount is away.
        now_session=$(cat "$status/session" 2>/dev/null) || continue
        if [ "$now_session" != "$session" ]; then
            [ "$(cat "$status/state" 2>/dev/null)" = connected ] || continue
            before=$session
            if place "$registered" 2>/dev/null; then
                say "$path: registered again in a new session"
            else
                session=$before
            fi
            continue
        fi
        is_there=0
        exists "$path" || is_there=$?
        # The session is looked at last: with it, the file goes too.
        if [ "$is_there" -eq 1 ] && [ "$(cat "$status/session" 2>/dev/null)" = "$session" ] &&
            runs "$registered" "$start"; then
            say "$path was removed by somebody: not registered any more, and the command goes on"
            return
        fi
    done
}
