#!/bin/sh
# Configuration, published in one step and followed.
#
#   config.sh publish MOUNT PATH             publishes standard input as PATH
#   config.sh follow PATH CMD [ARG…]         runs CMD with the value on standard input, now and after
#                                            each change
#
# mv replaces a file of the tree in one transaction: no reader ever sees a part of it, nor an empty one.
set -eu
usage() { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage

case $1 in
    publish)
        [ $# -eq 3 ] || usage
        target=$2$3
        next=${target%/*}/.${target##*/}.$(uname -n).$$
        trap 'rm -f "$next"' EXIT
        cat >"$next"
        mv "$next" "$target"
        ;;
    follow)
        path=$2
        shift 2
        # The service runs it once at the start, then for each burst of changes, and waits for the end
        # of one run before the next. Of a configuration that was removed nothing is told.
        # shellcheck disable=SC2016 # the inner shell reads these
        exec znode watch "$path" --initial --exec sh -c '
            path=$1
            shift
            value=$(mktemp)
            trap '\''rm -f "$value"'\'' EXIT
            if znode get --sync "$path" >"$value" 2>/dev/null; then "$@" <"$value"; fi
        ' follow "$path" "$@"
        ;;
    *) usage ;;
esac
