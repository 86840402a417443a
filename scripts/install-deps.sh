#!/usr/bin/env bash
# Installs what building (and testing) needs and this machine lacks; does nothing if all is there.
# Usage: scripts/install-deps.sh build|test|chaos|image ...
#   build  Rust, a C++ compiler, clang and libclang (bindings to RocksDB), protoc
#   test   etcd's server and client (to compare with), iproute2, procps, strace, Python
#   chaos  nftables, iproute2, util-linux (jepsen/)
#   image  debootstrap (makes the base image where none can be pulled), docker-compose
# Debian and its kin, through apt. Elsewhere it says what is missing and stops.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$HOME/.cargo/bin:$PATH"

say() { echo "install-deps: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else say "needs root for: $* (and there is no sudo)"; exit 1
    fi
}

missing=()
need() { # COMMAND PACKAGE
    have "$1" || missing+=("$2")
}

need_libclang() {
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return
    compgen -G '/usr/lib/*/libclang*.so*' >/dev/null && return
    [ -n "${LIBCLANG_PATH:-}" ] && return
    missing+=(libclang-dev)
}

need_build() {
    need cc gcc
    need c++ g++
    need make make
    need git git
    need clang clang
    need_libclang
    need protoc protobuf-compiler
    # protoc alone lacks google/protobuf/*.proto.
    [ -e /usr/include/google/protobuf/timestamp.proto ] || [ -e /usr/local/include/google/protobuf/timestamp.proto ] \
        || missing+=(libprotobuf-dev)
}

need_test() {
    need etcd etcd-server
    need etcdctl etcd-client
    need ip iproute2
    need ps procps
    need strace strace
    need python3 python3
    if have python3; then
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    else
        missing+=(python3-venv)
    fi
}

need_chaos() {
    need ip iproute2
    need nft nftables
    need unshare util-linux
}

need_image() {
    docker image inspect debian:bookworm-slim >/dev/null 2>&1 || need debootstrap debootstrap
    docker compose version >/dev/null 2>&1 || need docker-compose docker-compose
}

# Debian starts a server as soon as it is installed; etcd would take the port that Holdfast wants.
without_starting_services() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 0755 $policy
        made=1
    fi
    local status=0
    "$@" || status=$?
    [ -z "$made" ] || as_root rm -f $policy
    return $status
}

apt_install() {
    local packages=("$@")
    local package known=1
    for package in "${packages[@]}"; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || known=
    done
    if [ -z "$known" ]; then
        say "fetching the lists of packages (apt-get update)"
        as_root apt-get update -q >&2
    fi
    say "installing ${packages[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    if ! without_starting_services as_root "${install[@]}" "${packages[@]}" >&2 </dev/null; then
        say "that failed; once more with fresh lists"
        as_root apt-get update -q >&2
        without_starting_services as_root "${install[@]}" "${packages[@]}" >&2 </dev/null
    fi
    if [[ " ${packages[*]} " == *" etcd-server "* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now etcd >&2 || say "could not disable Debian's etcd service; stop it by hand"
    fi
}

wanted_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }

# The version in Cargo.toml's rust-version, or newer.
rust_is_enough() {
    have cargo && have rustc || return 1
    local want have_version
    want=$(wanted_rust)
    have_version=$(rustc --version | awk '{print $2}')
    [ "$(printf '%s\n%s\n' "$want" "$have_version" | sort -V | head -1)" = "$want" ]
}

install_rust() {
    if have rustup; then
        say "installing the current stable Rust with rustup"
        rustup toolchain install stable --profile minimal --component rustfmt,clippy >&2
        rustup default stable >&2
    else
        say "installing Rust with rustup, into $HOME/.cargo and $HOME/.rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs \
            | sh -s -- -y --no-modify-path --profile minimal --component rustfmt,clippy >&2 || {
            say "rustup could not be fetched; install Rust $(wanted_rust) or newer by hand (Debian's is older)"
            exit 1
        }
    fi
}

main() {
    [ $# -gt 0 ] || set -- build
    local group
    for group in "$@"; do
        case $group in
            build) need_build ;;
            test) need_test ;;
            chaos) need_chaos ;;
            image) need_image ;;
            *) say "unknown group $group (build, test, chaos, image)"; exit 2 ;;
        esac
    done
    if ! rust_is_enough && ! have rustup; then
        need curl curl
        [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        if ! have apt-get; then
            say "missing, and there is no apt-get here: ${missing[*]}"
            exit 1
        fi
        apt_install "${missing[@]}"
    fi
    rust_is_enough || install_rust
    rust_is_enough || { say "Rust is still older than Cargo.toml asks for"; exit 1; }
    if have rustup; then
        cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 \
            || rustup component add rustfmt clippy >&2
    fi
}

main "$@"
