#!/bin/bash
# Starts one controller in a container. With `serve` (the default), the first node of a new cluster is initialised
# once, and what is not set is set to what suits a container. A file mounted at /etc/holdfast/holdfast.toml is used
# as it is instead. Anything else goes to the program: `docker run holdfast status --endpoints host:2379`.
#
#   HOLDFAST_NODE_NAME    this node's name, and the host name others reach it by (default: the container's)
#   HOLDFAST_JOIN         peer addresses to join at, with commas; empty: this node founds the cluster
#   HOLDFAST_PARTITIONS   partitions of a new cluster (default 16)
#   HOLDFAST_…            every other setting, by name: raft.heartbeat_ms is HOLDFAST_RAFT_HEARTBEAT_MS
set -euo pipefail

if [ "${1:-serve}" != serve ]; then
    exec holdfast "$@"
fi
shift || true

config=/etc/holdfast/holdfast.toml
arguments=()
export HOLDFAST_DATA_DIR=${HOLDFAST_DATA_DIR:-/data}
if [ -e $config ]; then
    arguments=(--config $config)
else
    name=${HOLDFAST_NODE_NAME:-$(hostname)}
    export HOLDFAST_NODE_NAME=$name
    export HOLDFAST_LISTEN_CLIENT=${HOLDFAST_LISTEN_CLIENT:-0.0.0.0:2379}
    export HOLDFAST_LISTEN_PEER=${HOLDFAST_LISTEN_PEER:-0.0.0.0:2380}
    export HOLDFAST_LISTEN_HTTP=${HOLDFAST_LISTEN_HTTP:-0.0.0.0:2381}
    export HOLDFAST_ADVERTISE_CLIENT=${HOLDFAST_ADVERTISE_CLIENT:-$name:2379}
    export HOLDFAST_ADVERTISE_PEER=${HOLDFAST_ADVERTISE_PEER:-$name:2380}
    export HOLDFAST_ADVERTISE_HTTP=${HOLDFAST_ADVERTISE_HTTP:-$name:2381}
    export HOLDFAST_LOG_FORMAT=${HOLDFAST_LOG_FORMAT:-json}
    if [ -z "${HOLDFAST_JOIN:-}" ]; then
        unset HOLDFAST_JOIN
        [ -e "$HOLDFAST_DATA_DIR/identity" ] || holdfast init
    fi
fi
unset HOLDFAST_PARTITIONS
exec holdfast serve "${arguments[@]}" "$@"
