#!/usr/bin/env bash
# Sees to it that the engine here has the base image under its usual name: does nothing if it has, pulls it if a
# registry answers, and else makes it from Debian's packages with debootstrap, from the mirror that apt uses.
# Usage: scripts/base-image.sh      needs a Docker daemon; the last way needs root (or sudo)
set -euo pipefail

image=debian:bookworm-slim
suite=bookworm
here=$(cd "$(dirname "$0")" && pwd)

say() { echo "base-image: $*" >&2; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if docker image inspect "$image" >/dev/null 2>&1; then
    exit 0
fi
say "pulling $image"
if timeout 120 docker pull --quiet "$image" >&2; then
    exit 0
fi

say "no registry answers; making $image from Debian's packages"
"$here/install-deps.sh" image
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null \
    | awk -v suite=$suite '$2 == suite && $1 ~ /^https?:/ { print $1; exit }')
mirror=${DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}

work=$(mktemp -d)
trap 'as_root rm -rf "$work"' EXIT
as_root env PATH="/usr/sbin:/sbin:$PATH" debootstrap --variant=minbase "$suite" "$work/tree" "$mirror" >"$work/log" 2>&1 || {
    tail -20 "$work/log" >&2
    say "debootstrap failed"
    exit 1
}
# What the slim image leaves out as well.
as_root rm -rf "$work"/tree/usr/share/{doc,man,info,locale,lintian} "$work"/tree/var/lib/apt/lists/* \
    "$work"/tree/var/cache/apt/*.bin "$work"/tree/var/cache/apt/archives/*.deb "$work"/tree/var/log/*.log
as_root tar -C "$work/tree" --numeric-owner --one-file-system -c . \
    | docker import --change 'CMD ["bash"]' --message "Debian $suite, from packages" - "$image" >/dev/null
say "made $image"
