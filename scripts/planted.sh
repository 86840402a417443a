#!/usr/bin/env bash
# Plants each fault in turn in a build made for it, and looks how fast the simulation finds it: first whole clusters, then
# Raft alone. Prints a table; status 1 if a fault was found by neither.
# Usage: scripts/planted.sh [NAME ...]      (default: all)
#   SEEDS=0..500 JOBS=2   which seeds, and how many at a time
#   WITHIN=600            seconds of each fault for each of the two
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
# shellcheck source=scripts/rocksdb-built.sh
. scripts/rocksdb-built.sh
seeds=${SEEDS:-0..500} jobs=${JOBS:-2} within=${WITHIN:-600}

export CARGO_TARGET_DIR=$common/planted HOLDFAST_PLANTED=1
cargo build --quiet --release --locked --workspace --bin fuzz
fuzz=$CARGO_TARGET_DIR/release/fuzz

if [ $# -gt 0 ]; then
    names=("$@")
else
    # Whoever asks for none of them is refused, and told all.
    known=$({ "$fuzz" --seed 0 --plant '?' 2>&1 || true; } | sed -n 's/.*there are: //p')
    IFS=', ' read -r -a names <<<"$known"
fi
[ ${#names[@]} -gt 0 ] || { echo "planted: no faults are known" >&2; exit 2; }

# What found a fault: the first line of a seed that failed.
found_by() { sed -n 's/^seed [0-9]*: /&/p' <<<"$1" | head -n 1 | tr '|' '/' | cut -c1-160; }

status=0
echo "| fault | found by | after |"
echo "|---|---|---|"
for name in "${names[@]}"; do
    row="| \`$name\` | **nothing** | |"
    for tier in "" --messages; do
        begun=$SECONDS
        # shellcheck disable=SC2086  # no word if there is no tier to name
        if said=$("$fuzz" $tier --plant "$name" --seeds "$seeds" --jobs "$jobs" --until-found --within "$within" 2>&1); then
            row="| \`$name\` | ${tier:+second tier, }$(found_by "$said") | $((SECONDS - begun)) s |"
            break
        fi
    done
    echo "$row"
    [[ $row != *"**nothing**"* ]] || status=1
done
exit $status
