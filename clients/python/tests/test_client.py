"""The Python client against a running cluster, whose endpoints are in HOLDFAST_ENDPOINTS.

    HOLDFAST_ENDPOINTS=127.0.0.1:2379,127.0.0.1:2389 python clients/python/tests/test_client.py
"""

import os
import pathlib
import sys
import unittest
import uuid

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PACKAGE))

import generate  # noqa: E402

if not generate.up_to_date():
    generate.generate()

from holdfast import Client, HoldfastError, Kind  # noqa: E402
from holdfast.v1 import cluster_pb2 as pb  # noqa: E402

ENDPOINTS = os.environ.get("HOLDFAST_ENDPOINTS", "127.0.0.1:2379").split(",")


class ClusterTest(unittest.TestCase):
    """Each call of the service, and what happens when it goes wrong."""

    def setUp(self):
        self.client = Client(ENDPOINTS, timeout=30.0)
        self.addCleanup(self.client.close)
        self.name = f"py-{uuid.uuid4().hex[:12]}"

    def test_looks_at_the_cluster(self):
        status = self.client.status()
        self.assertNotEqual(status.cluster_id, 0)
        self.assertEqual(status.partitions, status.partitions_with_leader)
        nodes = self.client.nodes()
        self.assertGreaterEqual(len(nodes), len(ENDPOINTS))
        partitions = self.client.partitions()
        self.assertEqual(sorted(p.id for p in partitions), list(range(len(partitions))))
        self.assertTrue(all(p.leader_node for p in partitions))
        one = self.client.partitions(1)
        self.assertEqual([p.id for p in one], [1])
        found = self.client.map()
        self.assertEqual(found.cluster_id, status.cluster_id)
        covered = sum(slots.last - slots.first + 1 for slots in found.slots)
        self.assertEqual(covered, 4096)

    def test_every_endpoint_tells_of_the_same_cluster(self):
        ids = set()
        for endpoint in ENDPOINTS:
            with Client([endpoint]) as one:
                ids.add(one.status().cluster_id)
        self.assertEqual(len(ids), 1)

    def test_namespaces_are_created_once_and_configured(self):
        made = self.client.put_namespace(self.name, quota_bytes=1 << 20, create_only=True)
        self.assertEqual(made.name, self.name)
        with self.assertRaises(HoldfastError) as caught:
            self.client.put_namespace(self.name, create_only=True)
        self.assertIs(caught.exception.kind, Kind.REFUSED)
        self.client.put_namespace(self.name, quota_bytes=2 << 20)
        found = [n for n in self.client.namespaces() if n.name == self.name]
        self.assertEqual([(n.id, n.quota_bytes) for n in found], [(made.id, 2 << 20)])

    def test_a_retry_gets_the_first_answer(self):
        session = pb.Session(client_id=self.client.open_session().client_id, seq=1)
        request = pb.PutNamespaceRequest(name=self.name, create_only=True, session=session)
        first = self.client._call("PutNamespace", request)
        # Anew it would be refused, since the name is taken; as a retry it says what the first one did.
        for endpoint in ENDPOINTS:
            with Client([endpoint]) as one:
                again = one._call("PutNamespace", request)
                self.assertEqual(again.namespace.id, first.namespace.id)

    def test_an_unknown_session_is_refused(self):
        session = pb.Session(client_id=2**40 + 17, seq=1)
        with self.assertRaises(HoldfastError) as caught:
            self.client._call("PutNamespace", pb.PutNamespaceRequest(name=self.name, session=session))
        self.assertIs(caught.exception.kind, Kind.SESSION_EXPIRED, str(caught.exception))

    def test_the_map_is_watched(self):
        maps = self.client.watch_map()
        first = next(maps)
        self.client.put_namespace(self.name)
        for found in maps:
            self.assertGreater(found.revision, first.revision)
            if self.name in [n.name for n in found.namespaces]:
                break
        maps.close()

    def test_leaders_move(self):
        self.client.set_frozen(True)
        self.addCleanup(lambda: Client(ENDPOINTS).set_frozen(False))
        self.assertTrue(self.client.status().frozen)
        partition = self.client.partitions(1)[0]
        voters = [r.node for r in partition.replicas if r.role in ("leader", "follower")]
        for node in voters:
            self.assertEqual(self.client.transfer_leader(1, node), node)
        self.client.balance(dry_run=True)

    def test_replicas_are_equal(self):
        checked = self.client.check_consistency(0)
        self.assertTrue(checked.equal, checked)
        self.assertEqual(len(checked.replicas), 3, checked)
        self.assertEqual([r.error for r in checked.replicas], [""] * 3, checked)
        self.assertEqual(len({r.hash for r in checked.replicas} - {""}), 1, checked)

    def test_errors_say_what_to_do(self):
        cases = [
            (lambda: self.client.transfer_leader(100_000, 1), {Kind.NOT_FOUND, Kind.INVALID}),
            (lambda: self.client.remove_node(100_000), {Kind.NOT_FOUND, Kind.REFUSED}),
            (lambda: list(self.client.drain_node(100_000)), {Kind.NOT_FOUND, Kind.REFUSED}),
            (lambda: list(self.client.move_replica(1, 100_000, 1)), {Kind.NOT_FOUND, Kind.REFUSED, Kind.INVALID}),
            (lambda: self.client.put_namespace(""), {Kind.INVALID}),
        ]
        for number, (call, kinds) in enumerate(cases):
            with self.subTest(number):
                with self.assertRaises(HoldfastError) as caught:
                    call()
                self.assertIn(caught.exception.kind, kinds, str(caught.exception))

    def test_a_dead_endpoint_is_passed_over(self):
        with Client(["127.0.0.1:1", *ENDPOINTS]) as client:
            self.assertNotEqual(client.status().cluster_id, 0)
            client.put_namespace(self.name)
        with Client(["127.0.0.1:1"], timeout=1.0) as client:
            with self.assertRaises(HoldfastError) as caught:
                client.status()
            self.assertIn(caught.exception.kind, {Kind.UNAVAILABLE, Kind.UNKNOWN})


if __name__ == "__main__":
    unittest.main(verbosity=2)
