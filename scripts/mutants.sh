#!/usr/bin/env bash
# Mutates crates and sees whether their tests notice (docs/mutation.md). Needs cargo-mutants, and cargo-nextest for the
# crates whose tests wait or judge a lot: it runs many side by side, and stops at the first that fails.
# Usage: scripts/mutants.sh [CRATE ...]     (default: planner machine checker storage raft)
#   SHARD=0/20     the part of each crate's mutants that is tried
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
# shellcheck source=scripts/rocksdb-built.sh
. scripts/rocksdb-built.sh
# Not the common target folder: a mutant is no build that anybody else should find there. A failing case is neither made
# smaller, which takes long, nor kept, which would show the next mutant a case that the tests do not have.
export CARGO_TARGET_DIR=$common/mutants
mkdir -p "$CARGO_TARGET_DIR"
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_CASES=64
export NEXTEST_TEST_THREADS=8

[ $# -gt 0 ] || set -- planner machine checker storage raft
for crate in "$@"; do
    test=(--test-tool cargo)
    case $crate in checker | storage | raft) test=(--test-tool nextest --cargo-test-arg=--max-fail=1:immediate) ;; esac
    # 2: some were missed; 3: some went on for ever. Which, is what it is to tell.
    nice -n 19 cargo mutants --package "$crate" "${test[@]}" --shard "${SHARD:-0/20}" --sharding round-robin \
        --output "$CARGO_TARGET_DIR/$crate" || [[ $? == [23] ]]
done
