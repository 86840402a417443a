"""PyPI's etcd3 against a running cluster, unchanged: put, get, ranges, transactions, leases, watches, locks.

    pip install etcd3==0.12.0 'protobuf<4' 'tenacity<7' grpcio
    HOLDFAST_ENDPOINTS=127.0.0.1:2379,127.0.0.1:2389 python clients/python/tests/etcd3_check.py

Ends with a status other than 0 at the first mismatch. Each check writes through one controller and reads through
another.
"""

import os
import sys
import threading
import time
import uuid

os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

import etcd3  # noqa: E402

ENDPOINTS = os.environ.get("HOLDFAST_ENDPOINTS", "127.0.0.1:2379").split(",")
PREFIX = f"/etcd3-check/{uuid.uuid4().hex[:12]}/"
LIMIT_S = 30.0


def connect(number):
    """A client of one controller."""
    host, port = ENDPOINTS[number % len(ENDPOINTS)].rsplit(":", 1)
    return etcd3.client(host=host, port=int(port), timeout=20)


def equal(what, found, wanted):
    """Ends the program if they differ."""
    if found != wanted:
        sys.exit(f"{what}: found {found!r}, wanted {wanted!r}")


def until(what, condition):
    """Waits for a condition, with a deadline."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"{what}: not so within {LIMIT_S} s")


def check_keys(writer, reader):
    key = PREFIX + "key"
    writer.put(key, "one")
    value, meta = reader.get(key)
    equal("get", value, b"one")
    equal("version", meta.version, 1)
    writer.put(key, "two")
    value, meta = reader.get(key)
    equal("get after put", (value, meta.version), (b"two", 2))
    equal("create before mod", meta.create_revision < meta.mod_revision, True)
    equal("missing key", reader.get(PREFIX + "missing")[0], None)
    equal("replace", writer.replace(key, "two", "three"), True)
    equal("replace of another value", writer.replace(key, "two", "four"), False)
    equal("put_if_not_exists", writer.put_if_not_exists(key, "x"), False)
    equal("delete", writer.delete(key), True)
    equal("delete of nothing", writer.delete(key), False)
    equal("get after delete", reader.get(key)[0], None)


def check_ranges(writer, reader):
    prefix = PREFIX + "range/"
    for number in range(20):
        writer.put(f"{prefix}{number:02}", str(number))
    found = [(meta.key.decode(), value.decode()) for value, meta in reader.get_prefix(prefix)]
    equal("prefix", found, [(f"{prefix}{n:02}", str(n)) for n in range(20)])
    down = [value for value, _ in reader.get_prefix(prefix, sort_order="descend", sort_target="key")]
    equal("descending", down, [str(n).encode() for n in reversed(range(20))])
    some = [value for value, _ in reader.get_range(prefix + "05", prefix + "08")]
    equal("range", some, [b"5", b"6", b"7"])
    keys_only = [(value, meta.key) for value, meta in reader.get_prefix(prefix, keys_only=True)]
    equal("keys only", keys_only[0], (b"", f"{prefix}00".encode()))
    equal("delete_prefix", writer.delete_prefix(prefix).deleted, 20)
    equal("nothing left", list(reader.get_prefix(prefix)), [])


def check_transactions(writer, reader):
    key, other = PREFIX + "txn", PREFIX + "txn-other"
    writer.put(key, "a")
    functions = writer.transactions
    done, answers = writer.transaction(
        compare=[functions.value(key) == "a", functions.version(key) > 0, functions.create(other) == 0],
        success=[functions.put(key, "b"), functions.put(other, "c"), functions.get(key)],
        failure=[functions.get(key)],
    )
    equal("transaction", done, True)
    equal("get inside", answers[2][0][0], b"b")
    done, answers = writer.transaction(
        compare=[functions.value(key) == "a"],
        success=[functions.put(key, "never")],
        failure=[functions.get(key), functions.delete(other)],
    )
    equal("transaction that fails", (done, answers[0][0][0]), (False, b"b"))
    equal("after", (reader.get(key)[0], reader.get(other)[0]), (b"b", None))


def check_leases(writer, reader):
    key = PREFIX + "lease"
    lease = writer.lease(60)
    writer.put(key, "held", lease=lease)
    equal("granted", lease.granted_ttl, 60)
    equal("remaining", 0 < lease.remaining_ttl <= 60, True)
    equal("keys", [bytes(k) for k in lease.keys], [key.encode()])
    equal("renewed", [answer.TTL for answer in lease.refresh()], [60])
    lease.revoke()
    equal("after revoke", reader.get(key)[0], None)
    short = writer.lease(2)
    writer.put(key, "short", lease=short)
    equal("before expiry", reader.get(key)[0], b"short")
    until("expiry", lambda: reader.get(key)[0] is None)


def check_watches(writer, reader):
    prefix = PREFIX + "watch/"
    events, cancel = reader.watch_prefix(prefix)
    writer.put(prefix + "a", "1")
    writer.put(prefix + "a", "2")
    writer.delete(prefix + "a")
    seen = []
    for event in events:
        seen.append((type(event).__name__, event.key, event.value))
        if len(seen) == 3:
            break
    cancel()
    key = (prefix + "a").encode()
    equal("events", seen, [("PutEvent", key, b"1"), ("PutEvent", key, b"2"), ("DeleteEvent", key, b"")])

    key = prefix + "history"
    start = writer.put(key, "1").header.revision
    writer.put(key, "2")
    events, cancel = reader.watch(key, start_revision=start)
    values = [next(events).value, next(events).value]
    cancel()
    equal("events from a revision", values, [b"1", b"2"])

    got = []
    watch_id = reader.add_watch_callback(prefix + "callback", lambda answer: got.extend(answer.events))
    writer.put(prefix + "callback", "x")
    until("callback", lambda: [event.value for event in got] == [b"x"])
    reader.cancel_watch(watch_id)


def check_locks(writer, reader):
    name = PREFIX + "lock"
    order = []
    mine, theirs = writer.lock(name, ttl=30), reader.lock(name, ttl=30)
    equal("acquire", mine.acquire(timeout=10), True)
    equal("held by another", theirs.acquire(timeout=0.2), False)

    def wait():
        if theirs.acquire(timeout=20):
            order.append("theirs")
            theirs.release()

    thread = threading.Thread(target=wait)
    thread.start()
    order.append("mine")
    equal("release", mine.release(), True)
    thread.join(25)
    equal("order of holders", order, ["mine", "theirs"])


def check_the_rest(writer, reader):
    members = list(writer.members)
    equal("members", len(members) >= 1, True)
    equal("status", writer.status().version != "", True)
    revision = writer.put(PREFIX + "compact", "1").header.revision
    writer.put(PREFIX + "compact", "2")
    writer.compact(revision)
    equal("after compaction", reader.get(PREFIX + "compact")[0], b"2")
    try:
        next(reader.watch(PREFIX + "compact", start_revision=1)[0])
        sys.exit("a watch from a compacted revision was accepted")
    except etcd3.exceptions.RevisionCompactedError as error:
        equal("compacted revision", error.compacted_revision, revision)


def main():
    checks = [
        check_keys,
        check_ranges,
        check_transactions,
        check_leases,
        check_watches,
        check_locks,
        check_the_rest,
    ]
    for number, check in enumerate(checks):
        check(connect(number), connect(number + 1))
        print(f"{check.__name__}: ok", flush=True)
    cleaner = connect(0)
    cleaner.delete_prefix(PREFIX)
    # etcd3 keeps threads of watches; they must not keep the program alive.
    os._exit(0)


if __name__ == "__main__":
    main()
