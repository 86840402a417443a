#!/usr/bin/env bash
# rustc for the workspace's crates in a build for guided fuzzing: with LLVM's coverage pass, which counts what is reached and
# what is compared, and with overflow checks. Set as RUSTC_WORKSPACE_WRAPPER, so that crates from elsewhere, above all
# RocksDB, stay as they are: the flags are in none of their fingerprints.
set -euo pipefail

rustc=$1
shift
case " $* " in
*" --crate-name build_script_build "* | *" --print"*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Coverflow-checks=on \
    -Clto=off
