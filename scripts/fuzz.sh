#!/usr/bin/env bash
# Guided fuzzing: builds the targets with coverage, then runs each over what is kept in crates/fuzzing, for RUNS executions
# or SECONDS_EACH seconds. What it finds goes to crates/fuzzing/found/TARGET; what reached new code stays under the target
# folder, for the next run.
#
# usage: scripts/fuzz.sh [TARGET...]         RUNS=1000000 SECONDS_EACH=0 JOBS=2
set -euo pipefail
cd "$(dirname "$0")/.."

: "${CARGO_TARGET_DIR:=$HOME/.cache/holdfast/target}"
export CARGO_TARGET_DIR
: "${RUNS:=1000000}" "${SECONDS_EACH:=0}" "${JOBS:=2}"
work=$CARGO_TARGET_DIR/fuzz
# A `--bin` of the whole workspace: a narrower choice of packages would change features, and compile RocksDB again.
RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/rustc-guided.sh \
    cargo build --release --locked --workspace --bin fuzz-targets
mkdir -p "$work"
# The next ordinary build puts its own there.
cp "$CARGO_TARGET_DIR/release/fuzz-targets" "$work/fuzz-targets"
FUZZ_SEEDS=$work/seeds "$work/fuzz-targets" -runs=1 >"$work/seeds.log" 2>&1

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(ls "$work/seeds")
fi

run() {
    local target=$1 reached=$work/reached/$1 found=crates/fuzzing/found/$1 log=$work/$1.log status=0
    mkdir -p "$reached"
    local inputs=("$reached" "$work/seeds/$target")
    for kept in crates/fuzzing/corpus/$target "$found"; do
        if [ -d "$kept" ]; then inputs+=("$kept"); fi
    done
    mkdir -p "$found"
    FUZZ_TARGET=$target "$work/fuzz-targets" -runs="$RUNS" -max_total_time="$SECONDS_EACH" -max_len=1024 \
        -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 -artifact_prefix="$found/" \
        "${inputs[@]}" >"$log" 2>&1 || status=$?
    rmdir --ignore-fail-on-non-empty "$found"
    grep -E '^#[0-9]+.*DONE' "$log" | tail -1 | sed "s/^/$target: /" || true
    if [ "$status" -ne 0 ]; then
        echo "$target: FAILED, see $log"
        grep -E "panicked at|^thread|SUMMARY|Test unit written" -A1 "$log" | head -8
    fi
    return "$status"
}
export -f run
export work RUNS SECONDS_EACH
printf '%s\n' "${targets[@]}" | xargs -P "$JOBS" -I{} bash -euo pipefail -c 'run {}'
