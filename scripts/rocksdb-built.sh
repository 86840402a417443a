# shellcheck shell=bash
# To be sourced: a build with another profile or target folder takes RocksDB as the ordinary build has left it, if it has,
# instead of compiling it once more. Nothing in it depends on either.
common=${CARGO_TARGET_DIR:-$HOME/.cache/holdfast/target}
rocksdb=$(compgen -G "$common/release/build/librocksdb-sys-*/out/librocksdb.a" | head -n 1 || true)
if [ -n "$rocksdb" ]; then
    export ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR=${rocksdb%/*}
fi
