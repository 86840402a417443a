#!/usr/bin/env bash
# Keeps the shared target folder from growing without end: every checkout's own crates leave files of their own
# there, while the dependencies are shared. Above the limit, the workspace crates' files that nobody touched
# lately go; compiled dependencies (RocksDB above all) stay.
# Usage: scripts/prune-cache.sh [LIMIT_GB]     (default 20)
set -euo pipefail

target=${CARGO_TARGET_DIR:-$HOME/.cache/holdfast/target}
limit_gb=${1:-20}
root=$(cd "$(dirname "$0")/.." && pwd)
release=$target/release

[ -d "$release" ] || exit 0
size_gb() { du -s --block-size=1G "$target" | cut -f1; }
before=$(size_gb)
[ "$before" -gt "$limit_gb" ] || exit 0

# Two hours leaves a build that is going on in another checkout alone.
old=(-mmin +120)
find "$release/incremental" -mindepth 1 -maxdepth 1 "${old[@]}" -exec rm -rf {} + 2>/dev/null || true
for manifest in "$root"/crates/*/Cargo.toml "$root"/tests/Cargo.toml "$root"/jepsen/Cargo.toml "$root"/xtask/Cargo.toml; do
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -1)
    find "$release/deps" -maxdepth 1 -type f "${old[@]}" \
        \( -name "lib$name-*" -o -name "$name-*" \) -delete 2>/dev/null || true
    find "$release/.fingerprint" -mindepth 1 -maxdepth 1 "${old[@]}" -name "$name-*" -exec rm -rf {} + 2>/dev/null || true
done
# Test programs are named after their file.
for test in "$root"/tests/tests/*.rs "$root"/crates/*/tests/*.rs; do
    [ -e "$test" ] || continue
    find "$release/deps" -maxdepth 1 -type f "${old[@]}" -name "$(basename "$test" .rs)-*" -delete 2>/dev/null || true
done
echo "prune-cache: $target: $before GB, now $(size_gb) GB" >&2
