#!/usr/bin/env bash
# Mutates crates and sees whether their tests notice (docs/mutation.md). Needs cargo-mutants, and cargo-nextest for the
# crates whose tests wait a lot: it runs many side by side, and stops at the first that fails.
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
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_CASES=64
export NEXTEST_TEST_THREADS=8

[ $# -gt 0 ] || set -- planner machine checker storage raft
for crate in "$@"; do
    tool=cargo
    case $crate in storage | raft) tool=nextest ;; esac
    # 2: some were missed, which is what it is to tell.
    nice -n 19 cargo mutants --package "$crate" --test-tool "$tool" --shard "${SHARD:-0/20}" --sharding round-robin \
        --output "$CARGO_TARGET_DIR/$crate" || [ $? -eq 2 ]
done
