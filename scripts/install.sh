# Sourced by the other scripts: installs what is missing, and says so. Nothing is done twice.

say() { printf '%s\n' "$*" >&2; }
fail() { say "${0##*/}: $*"; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# debian_packages PACKAGE…
debian_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null |
            grep --quiet --line-regexp installed || missing+=("$package")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    command -v apt-get >/dev/null || fail "please install ${missing[*]}: this is no Debian, so it is left to you"
    say "installing from Debian's packages: ${missing[*]}"
    as_root apt-get update --quiet --quiet
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}" >&2
}

# cargo_command NAME [OPTION…]: the cargo subcommand NAME from the crate cargo-NAME.
cargo_command() {
    local name=cargo-$1
    shift
    command -v "$name" >/dev/null && return
    say "installing from crates.io: $name (takes some minutes)"
    cargo install --locked "$@" "$name"
}

# cargo_tool NAME VERSION: the program NAME of the crate NAME, into target/tools. A build without
# optimization and symbols is enough for a test, and takes a third of the time.
cargo_tool() {
    [ "$(target/tools/bin/"$1" --version 2>/dev/null)" = "$1 $2" ] && return
    say "installing from crates.io into target/tools: $1 (takes a minute)"
    cargo install --quiet --locked --debug --config profile.dev.debug=false \
        --root target/tools --version "$2" "$1"
}

# Rust is left to the user, the linker it needs is not.
need_rust() {
    # A shell that was not started by a login may not know of rustup's directory.
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer first (rustup does it)"
    command -v cc >/dev/null || debian_packages gcc libc6-dev
}

# Mounting needs the kernel's FUSE device.
need_fuse() {
    [ -e /dev/fuse ] ||
        fail "/dev/fuse is missing: load the module with 'modprobe fuse', or give the container the device (--device /dev/fuse --cap-add SYS_ADMIN)"
    # A device that exists may still be forbidden to containers and other users.
    (exec 3<>/dev/fuse) 2>/dev/null ||
        fail "/dev/fuse cannot be opened by $(id -un): run as root, or give this user or container access to the device"
}
