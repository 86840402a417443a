#!/usr/bin/env bash
# Builds the container image from a program that is already built: compiling RocksDB inside a container would
# take as long again, and needs a crate registry there.
# Usage: scripts/image.sh PATH/TO/holdfast [TAG]     (default tag holdfast:latest)
set -euo pipefail

binary=${1:?usage: scripts/image.sh PATH/TO/holdfast [TAG]}
tag=${2:-holdfast:latest}
root=$(cd "$(dirname "$0")/.." && pwd)

[ -x "$binary" ] || { echo "image: $binary is no program; run make build" >&2; exit 1; }
"$root/scripts/base-image.sh"

strip --strip-debug -o "$root/docker/holdfast" "$binary"
trap 'rm -f "$root/docker/holdfast"' EXIT

# The classic builder where the newer one is not installed.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
docker build --quiet --tag "$tag" --file "$root/Dockerfile" "$root" 2>&1 >/dev/null | grep -viE "DEPRECATED|BuildKit|environment-variable|^$" >&2 || [ "${PIPESTATUS[0]}" = 0 ]
if ! docker run --rm --network none --entrypoint holdfast "$tag" --version >/dev/null; then
    echo "image: the program does not run on the image's base; this machine's C library is probably newer" >&2
    echo "       than Debian bookworm's. Build on bookworm, or docker build --build-arg BASE=<a newer base>." >&2
    exit 1
fi
echo "image: $tag, $(docker image inspect --format '{{.Size}}' "$tag" | numfmt --to=iec)B" >&2
