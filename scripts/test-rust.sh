#!/usr/bin/env bash
# Every test of the workspace. What fails and starts real processes, or has real time in it, runs a second time, which
# decides: the machine may be shared. It is named all the same, and still a defect to mend. What is the same each time has
# no second try.
# Usage: scripts/test-rust.sh PROGRAM      (the built `holdfast`)
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH" HOLDFAST_BIN=$1
log=${CARGO_TARGET_DIR:-$HOME/.cache/holdfast/target}/test-rust.log

run() { cargo test --release --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$log"; }

if run; then exit 0; fi
# As cargo lists them in the end: `-p CRATE --test NAME`, `-p CRATE --lib`.
mapfile -t failed < <(sed -n 's/^    `-p \([^ ]*\) \(--.*\)`$/\1 \2/p' "$log")
grep -E '^test .* \.\.\. FAILED$' "$log" | sed 's/^/FAILED ONCE: /' || true
[ ${#failed[@]} -gt 0 ] || exit 1
again=()
for target in "${failed[@]}"; do
    crate=${target%% *}
    case $crate in
        checker | fuzzing | machine | planner | proto | sim | types | workload | xtask)
            echo "test-rust: $target is the same each time: no second try"
            exit 1
            ;;
    esac
    read -r -a words <<<"${target#* }"
    again+=("${words[@]}")
done
echo "test-rust: once more: ${again[*]}"
# Of the whole workspace: see the Makefile.
run "${again[@]}"
