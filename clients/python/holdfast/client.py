"""Every call of holdfast.v1.Cluster, with failover over endpoints, deadlines, and retries that never do a write twice.

A write carries the client's session: ``client_id`` and ``seq``. A retry repeats both, so the cluster answers with what
the first one did. Writes of one Client go one after another; a Client may be used by several threads.
"""

import enum
import threading
import time
from typing import Iterator, List, Optional, Sequence

import grpc

from .v1 import cluster_pb2 as pb
from .v1 import cluster_pb2_grpc as rpc

#: Metadata that names the namespace of an etcd request.
NAMESPACE_KEY = "holdfast-namespace"

# Metadata of errors: the sentence that goes with a text fixed by etcd, and the mark of those that did nothing.
_DETAIL_KEY = "holdfast-detail"
_NOT_SENT_KEY = "holdfast-not-sent"
_SESSION_EXPIRED_KEY = "holdfast-session-expired"

_PAUSE_MIN_S = 0.025
_PAUSE_MAX_S = 0.4
_STREAM_PAUSE_S = 0.1
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]


class Kind(enum.Enum):
    """What to do next."""

    INVALID = "change the request"
    NOT_FOUND = "look at what exists, then name that"
    REFUSED = "nothing was done; look at the cluster's state, then decide"
    RETRY = "nothing was done; try again in a moment"
    UNAVAILABLE = "nothing was done; check that the endpoints are right and enough controllers run"
    UNKNOWN = "it may or may not have been done; look before you repeat it"
    SESSION_EXPIRED = "an earlier send may have been done; look before you repeat it"
    DENIED = "ask for the permission"
    UNSUPPORTED = "this controller is older than the client; upgrade it"
    CORRUPT = "look at the controllers' logs before anything else"
    INTERNAL = "this is a fault in Holdfast; keep the controllers' logs and report it"


_REPEATABLE = {Kind.RETRY, Kind.UNAVAILABLE, Kind.UNKNOWN}

_KINDS = {
    grpc.StatusCode.INVALID_ARGUMENT: Kind.INVALID,
    grpc.StatusCode.OUT_OF_RANGE: Kind.INVALID,
    grpc.StatusCode.NOT_FOUND: Kind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Kind.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: Kind.REFUSED,
    grpc.StatusCode.ABORTED: Kind.REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.RETRY,
    grpc.StatusCode.UNAVAILABLE: Kind.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind.UNKNOWN,
    grpc.StatusCode.CANCELLED: Kind.UNKNOWN,
    grpc.StatusCode.UNKNOWN: Kind.UNKNOWN,
    grpc.StatusCode.PERMISSION_DENIED: Kind.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Kind.DENIED,
    grpc.StatusCode.UNIMPLEMENTED: Kind.UNSUPPORTED,
    grpc.StatusCode.DATA_LOSS: Kind.CORRUPT,
}


class HoldfastError(Exception):
    """Why a call failed. ``kind`` says what to do next."""

    def __init__(self, kind: Kind, operation: str, message: str, endpoint: Optional[str] = None):
        super().__init__(f"{operation}: {message}" + (f" (from {endpoint})" if endpoint else ""))
        self.kind = kind
        self.operation = operation
        self.message = message
        self.endpoint = endpoint


def _error(operation: str, endpoint: str, error: grpc.RpcError) -> HoldfastError:
    told = dict(error.trailing_metadata() or ())
    code, text = error.code(), told.get(_DETAIL_KEY) or error.details() or str(error.code())
    kind = _KINDS.get(code, Kind.INTERNAL)
    lower = text.lower()
    if kind is Kind.REFUSED and _SESSION_EXPIRED_KEY in told:
        kind = Kind.SESSION_EXPIRED
    if code is grpc.StatusCode.UNAVAILABLE and (_NOT_SENT_KEY in told or "failed to connect" in lower):
        kind = Kind.UNAVAILABLE
    return HoldfastError(kind, operation, text, endpoint)


class Client:
    """A handle to one cluster.

    endpoints: ``host:port`` of any controllers. timeout: seconds a call takes at most, retries included.
    attempt_timeout: seconds one attempt waits before it is tried elsewhere.
    """

    def __init__(self, endpoints: Sequence[str], timeout: float = 10.0, attempt_timeout: float = 5.0):
        if isinstance(endpoints, str):
            endpoints = endpoints.split(",")
        if not endpoints:
            raise HoldfastError(Kind.INVALID, "Connect", "no endpoints given")
        self.timeout = timeout
        self.attempt_timeout = attempt_timeout
        self._endpoints = [endpoint.strip() for endpoint in endpoints]
        self._channels = [grpc.insecure_channel(endpoint, options=_OPTIONS) for endpoint in self._endpoints]
        self._stubs = [rpc.ClusterStub(channel) for channel in self._channels]
        self._current = 0
        # Held for the length of a write: one session, one write at a time.
        self._turn = threading.Lock()
        self._client_id = 0
        self._seq = 0

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        for channel in self._channels:
            channel.close()

    # Reads

    def status(self) -> pb.StatusResponse:
        """The cluster at a glance, as the node that answers sees it."""
        return self._call("Status", pb.StatusRequest())

    def nodes(self) -> List[pb.Node]:
        """All nodes, with what the answering node's failure detector thinks of them."""
        return list(self._call("ListNodes", pb.ListNodesRequest()).nodes)

    def partitions(self, *which: int) -> List[pb.Partition]:
        """The named partitions, or all if none is named."""
        return list(self._call("ListPartitions", pb.ListPartitionsRequest(partitions=which)).partitions)

    def map(self) -> pb.Map:
        """Nodes, partitions, slots and namespaces, under one revision."""
        return self._call("GetMap", pb.GetMapRequest())

    def watch_map(self) -> Iterator[pb.Map]:
        """The map now, then again after each change. Reconnects by itself and never goes back in revision."""
        seen, give_up = 0, time.monotonic() + self.timeout
        while True:
            endpoint, stub = self._endpoints[self._current], self._stubs[self._current]
            try:
                for found in stub.WatchMap(pb.GetMapRequest()):
                    give_up = None
                    if found.revision > seen:
                        seen = found.revision
                        yield found
            except grpc.RpcError as error:
                self._turn_away(endpoint)
                failure = _error("WatchMap", endpoint, error)
                give_up = give_up or time.monotonic() + self.timeout
                if failure.kind not in _REPEATABLE or time.monotonic() >= give_up:
                    raise failure from error
            time.sleep(_STREAM_PAUSE_S)

    def namespaces(self) -> List[pb.Namespace]:
        """All namespaces, with their revisions and sizes."""
        return list(self._call("ListNamespaces", pb.ListNamespacesRequest()).namespaces)

    def check_consistency(self, partition: int) -> pb.CheckConsistencyResponse:
        """The state hash of each replica of a partition at one log index; they must be equal."""
        return self._call("CheckConsistency", pb.CheckConsistencyRequest(partition=partition))

    def balance(self, dry_run: bool = False) -> pb.BalanceResponse:
        """Spreads leaders evenly now, or only says how."""
        return self._call("Balance", pb.BalanceRequest(dry_run=dry_run))

    # Writes

    def open_session(self) -> pb.OpenSessionResponse:
        """Opens a session by hand; writes do it by themselves."""
        return self._call("OpenSession", pb.OpenSessionRequest())

    def transfer_leader(self, partition: int, node: int) -> int:
        """Moves a partition's leader; answers with the leading node afterwards."""
        request = pb.TransferLeaderRequest(partition=partition, node=node)
        return self._write("TransferLeader", request).leader_node

    def set_frozen(self, frozen: bool) -> int:
        """Holds the balancer still, or lets it go on; answers with the map revision."""
        return self._write("SetFrozen", pb.SetFrozenRequest(frozen=frozen)).map_revision

    def add_replica(self, partition: int, node: int, voter: bool = True) -> pb.AddReplicaResponse:
        """Adds a replica of a partition on a node."""
        return self._write("AddReplica", pb.AddReplicaRequest(partition=partition, node=node, voter=voter))

    def promote_replica(self, partition: int, replica: int) -> int:
        """Gives a learner a vote; answers with the partition's generation."""
        return self._write("PromoteReplica", pb.ReplicaRequest(partition=partition, replica=replica)).generation

    def remove_replica(self, partition: int, replica: int) -> int:
        """Takes a replica away; answers with the partition's generation."""
        return self._write("RemoveReplica", pb.ReplicaRequest(partition=partition, replica=replica)).generation

    def move_replica(self, partition: int, from_node: int, to_node: int) -> Iterator[pb.Progress]:
        """Moves a replica, data and all, while it serves. Done when the iterator ends; goes on if nobody reads it."""
        request = pb.MoveReplicaRequest(partition=partition, from_node=from_node, to_node=to_node)
        return self._follow("MoveReplica", request)

    def drain_node(self, node: int) -> Iterator[pb.Progress]:
        """Empties a node while it serves. Done when the iterator ends; goes on if nobody reads it."""
        return self._follow("DrainNode", pb.NodeRequest(node=node))

    def undrain_node(self, node: int) -> int:
        """Lets a drained node take replicas and leaders again; answers with the map revision."""
        return self._write("UndrainNode", pb.NodeRequest(node=node)).map_revision

    def remove_node(self, node: int) -> int:
        """Forgets a drained node for ever; answers with the map revision."""
        return self._write("RemoveNode", pb.NodeRequest(node=node)).map_revision

    def put_namespace(
        self,
        name: str,
        quota_bytes: int = 0,
        retain_revisions: int = 0,
        retain_ms: int = 0,
        create_only: bool = False,
    ) -> pb.Namespace:
        """Creates a namespace, or changes its settings. Zeroes stand for the cluster's defaults."""
        request = pb.PutNamespaceRequest(
            name=name,
            quota_bytes=quota_bytes,
            retain_revisions=retain_revisions,
            retain_ms=retain_ms,
            create_only=create_only,
        )
        return self._write("PutNamespace", request).namespace

    # Below

    def _turn_away(self, endpoint: str) -> None:
        if self._endpoints[self._current] == endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    def _call(self, operation: str, request):
        """Sends a request until something final happens. It must be safe to send twice."""
        deadline, pause, unclear, last = time.monotonic() + self.timeout, _PAUSE_MIN_S, None, None
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise unclear or last
            endpoint, stub = self._endpoints[self._current], self._stubs[self._current]
            try:
                return getattr(stub, operation)(request, timeout=min(left, self.attempt_timeout))
            except grpc.RpcError as error:
                last = _error(operation, endpoint, error)
                if last.kind not in _REPEATABLE:
                    raise last from error
                if last.kind is not Kind.RETRY:
                    self._turn_away(endpoint)
                if last.kind is Kind.UNKNOWN:
                    unclear = last
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 2, _PAUSE_MAX_S)

    def _write(self, operation: str, request):
        with self._turn:
            if self._client_id == 0:
                self._client_id, self._seq = self.open_session().client_id, 0
            self._seq += 1
            request.session.client_id, request.session.seq = self._client_id, self._seq
            try:
                return self._call(operation, request)
            except HoldfastError as error:
                if error.kind is Kind.SESSION_EXPIRED:
                    self._client_id = 0
                raise

    def _follow(self, operation: str, request) -> Iterator[pb.Progress]:
        """A task's progress. A broken stream is opened again under the same session: the task is joined."""
        request.session.client_id, request.session.seq = self.open_session().client_id, 1
        give_up = time.monotonic() + self.timeout
        while True:
            endpoint, stub = self._endpoints[self._current], self._stubs[self._current]
            try:
                for step in getattr(stub, operation)(request):
                    give_up = time.monotonic() + self.timeout
                    yield step
                return
            except grpc.RpcError as error:
                self._turn_away(endpoint)
                failure = _error(operation, endpoint, error)
                if failure.kind not in _REPEATABLE or time.monotonic() >= give_up:
                    raise failure from error
            time.sleep(_STREAM_PAUSE_S)
