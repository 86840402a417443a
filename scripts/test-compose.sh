#!/usr/bin/env bash
# Tests docker-compose.yml with the real engine: builds the image, starts three controllers, writes through each,
# kills one container, writes on, brings it back and finds it caught up; then crashes a controller's process
# inside its container and sees it come back by itself. Leaves nothing behind. Every wait has a deadline and ends
# as soon as its condition holds.
# Usage: scripts/test-compose.sh PATH/TO/holdfast
set -euo pipefail

binary=$(realpath "${1:?usage: scripts/test-compose.sh PATH/TO/holdfast}")
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
"$root/scripts/install-deps.sh" test image

project=holdfast-test-$$
export HOLDFAST_IMAGE=holdfast:test COMPOSE_PROJECT_NAME=$project ETCDCTL_API=3
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi

say() { echo "compose test [$SECONDS s]: $*"; }

finish() {
    local status=$?
    if [ $status -ne 0 ]; then
        say "FAILED; the containers' state and last words:"
        "${compose[@]}" ps || true
        "${compose[@]}" logs --no-color --tail=200 2>&1 | grep -v openraft:: | tail -60 | cut -c1-300 || true
    fi
    "${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
    [ $status -ne 0 ] || say "passed"
    exit $status
}
trap finish EXIT

free_ports() { # COUNT
    python3 - "$1" <<'PY'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PY
}

read -r HOLDFAST_PORT_1 HOLDFAST_PORT_2 HOLDFAST_PORT_3 \
    HOLDFAST_HTTP_PORT_1 HOLDFAST_HTTP_PORT_2 HOLDFAST_HTTP_PORT_3 <<<"$(free_ports 6)"
export HOLDFAST_PORT_1 HOLDFAST_PORT_2 HOLDFAST_PORT_3
export HOLDFAST_HTTP_PORT_1 HOLDFAST_HTTP_PORT_2 HOLDFAST_HTTP_PORT_3
endpoint=([1]=127.0.0.1:$HOLDFAST_PORT_1 [2]=127.0.0.1:$HOLDFAST_PORT_2 [3]=127.0.0.1:$HOLDFAST_PORT_3)

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; its last output is shown if it never does.
wait_for() {
    local limit=$((SECONDS + $1)) what=$2 output
    shift 2
    until output=$("$@" 2>&1); do
        if [ "$SECONDS" -ge "$limit" ]; then
            say "waited in vain for $what: ${output:-no output}"
            return 1
        fi
        read -r -t 0.2 <> <(:) || true
    done
    say "$what"
}

container() { "${compose[@]}" ps -q "node-$1"; }
state() { docker inspect --format "$2" "$(container "$1")"; }
healthy() {
    local health
    health=$(state "$1" '{{.State.Health.Status}}')
    [ "$health" = healthy ] || { echo "health: $health"; return 1; }
}
stopped() { [ "$(state "$1" '{{.State.Running}}')" = false ]; }
restarted_since() { [ "$(state "$1" '{{.RestartCount}}')" -gt "$2" ]; }
put() { # NODE KEY: the same value each time, so that a retry of an unknown outcome is harmless
    etcdctl --endpoints "${endpoint[$1]}" --command-timeout=3s put "$2" "value of $2" >/dev/null
}
keys_seen() { # NODE CONSISTENCY
    etcdctl --endpoints "${endpoint[$1]}" --command-timeout=3s get --prefix compose/ --keys-only \
        --consistency="$2" | grep -c '^compose/' || true
}
sees() { # NODE COUNT CONSISTENCY
    local seen
    seen=$(keys_seen "$1" "$3")
    [ "$seen" = "$2" ] || { echo "node $1 has $seen of $2 keys"; return 1; }
}

total=0
write_through() { # NODE TAG COUNT
    local i
    for ((i = 1; i <= $3; i++)); do
        local key=compose/$2-$i until=$((SECONDS + 30))
        until put "$1" "$key" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || { say "cannot write $key through node $1"; put "$1" "$key"; return 1; }
        done
        total=$((total + 1))
    done
    say "wrote $3 keys through node $1"
}

# Every wanted replica of every partition is there and not behind.
caught_up() {
    "$binary" partitions -o json --endpoints "${endpoint[1]}" | python3 -c '
import json, sys
body = json.load(sys.stdin)
partitions = body if isinstance(body, list) else body["partitions"]
assert partitions, "no partitions"
for p in partitions:
    name, replicas = p["id"], p["replicas"]
    assert len(replicas) >= 3, f"partition {name}: fewer than three replicas"
    for r in replicas:
        assert int(r.get("lag", 0)) == 0 and r.get("role") != "absent", f"partition {name}: {r}"
'
}

# The key space hashes alike on all three at the newest revision.
same_hash() {
    local hashes
    hashes=$(etcdctl --endpoints "${endpoint[1]},${endpoint[2]},${endpoint[3]}" --command-timeout=5s \
        endpoint hashkv | awk -F', ' '{ print $2 }' | sort | uniq -c)
    [ "$(wc -l <<<"$hashes")" = 1 ] || { echo "hashes differ: $hashes"; return 1; }
}

say "building the image"
"$root/scripts/image.sh" "$binary" "$HOLDFAST_IMAGE"
"${compose[@]}" up -d 2>&1 | sed 's/^/    /'
for n in 1 2 3; do wait_for 120 "node $n is healthy" healthy $n; done
wait_for 60 "every partition has three replicas, none behind" caught_up

for n in 1 2 3; do write_through $n "first-$n" 20; done
for n in 1 2 3; do wait_for 10 "node $n reads all $total keys" sees $n $total l; done

docker kill "$(container 2)" >/dev/null
wait_for 10 "node 2 is dead" stopped 2
write_through 1 second-1 50
write_through 3 second-3 50
wait_for 10 "node 1 reads all $total keys" sees 1 $total l

docker start "$(container 2)" >/dev/null
wait_for 60 "node 2 is healthy again" healthy 2
wait_for 60 "node 2 has caught up: it has all $total keys itself" sees 2 $total s
wait_for 60 "no replica is behind" caught_up
wait_for 30 "the three hash alike" same_hash

restarts=$(state 3 '{{.RestartCount}}')
docker exec "$(container 3)" bash -c '
    for p in /proc/[0-9]*; do
        if [ "$(cat "$p/comm" 2>/dev/null)" = holdfast ]; then kill -9 "${p#/proc/}"; exit; fi
    done
    echo "no process named holdfast" >&2; exit 1' || true
wait_for 60 "node 3 crashed, and the engine started it again" restarted_since 3 "$restarts"
write_through 1 third-1 20
wait_for 60 "node 3 is healthy again" healthy 3
write_through 3 third-3 20
wait_for 60 "node 3 has all $total keys itself" sees 3 $total s
wait_for 60 "no replica is behind" caught_up
wait_for 30 "the three hash alike" same_hash
