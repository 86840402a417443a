//! Who may talk to whom. Both ends check the other's hello by the same rules, and name the rule that failed.

use proto::peer::{Hello, Lane};
use tonic::Status;
use types::{BootId, ClusterId, ClusterVersion, Incarnation, NodeId};

/// Version of the frame format.
pub const FORMAT: u32 = 1;
/// Metadata of a refused stream: which rule.
pub const REFUSAL_HEADER: &str = "holdfast-refusal";

/// What this process is.
#[derive(Debug, Clone)]
pub struct Mine {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its node id.
    pub node: NodeId,
    /// Of its data directory.
    pub incarnation: Incarnation,
    /// Of this process.
    pub boot: BootId,
    /// How often the data directory was started; 0 if not counted.
    pub boots: u64,
    /// The newest format this build understands.
    pub version: ClusterVersion,
    /// The oldest a peer may be.
    pub oldest: ClusterVersion,
    /// Where it listens for peers.
    pub address: String,
}

impl Mine {
    /// The hello for a lane; `to` 0 in answers.
    pub fn hello(&self, lane: Lane, to: NodeId) -> Hello {
        Hello {
            format: FORMAT,
            cluster_id: self.cluster.0,
            node_id: self.node.0,
            incarnation: self.incarnation.0,
            boot_id: self.boot.0,
            boots: self.boots,
            version: self.version.0,
            to_node: to.0,
            lane: lane as i32,
            peer_address: self.address.clone(),
        }
    }
}

/// Which rule refused a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Frame format.
    Format,
    /// Another cluster.
    ForeignCluster,
    /// Meant for another node.
    WrongNode,
    /// This node's own id.
    Myself,
    /// No such node in the map.
    UnknownNode,
    /// Removed for good.
    Removed,
    /// The known node, with another data directory.
    Wiped,
    /// Another node under a known id.
    Reused,
    /// Started less often than already seen.
    OlderCopy,
    /// Another process with this identity lives.
    InUse,
    /// Too old.
    Version,
}

const TAGS: [(RefusalKind, &str); 11] = [
    (RefusalKind::Format, "format"),
    (RefusalKind::ForeignCluster, "foreign-cluster"),
    (RefusalKind::WrongNode, "wrong-node"),
    (RefusalKind::Myself, "myself"),
    (RefusalKind::UnknownNode, "unknown-node"),
    (RefusalKind::Removed, "removed"),
    (RefusalKind::Wiped, "wiped"),
    (RefusalKind::Reused, "reused"),
    (RefusalKind::OlderCopy, "older-copy"),
    (RefusalKind::InUse, "in-use"),
    (RefusalKind::Version, "version"),
];

impl RefusalKind {
    fn tag(self) -> &'static str {
        TAGS.iter()
            .find(|(kind, _)| *kind == self)
            .map_or("unknown", |(_, tag)| tag)
    }

    /// The refused process must stop: its identity is not its own (any more).
    pub fn is_fatal(self) -> bool {
        match self {
            RefusalKind::Removed | RefusalKind::Wiped | RefusalKind::Reused => true,
            RefusalKind::OlderCopy | RefusalKind::Version => true,
            // Fatal only if it lasts (see `IN_USE_FATAL_AFTER`), or if every peer says so.
            RefusalKind::InUse | RefusalKind::ForeignCluster => false,
            RefusalKind::Format | RefusalKind::WrongNode | RefusalKind::Myself | RefusalKind::UnknownNode => {
                false
            }
        }
    }
}

/// A refused hello.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Which rule.
    pub kind: RefusalKind,
    /// The sentence.
    pub text: String,
}

impl Refusal {
    fn new(kind: RefusalKind, text: String) -> Refusal {
        Refusal { kind, text }
    }

    /// As the status that ends the stream.
    pub fn status(&self) -> Status {
        let mut status = Status::failed_precondition(self.text.clone());
        if let Ok(tag) = self.kind.tag().parse() {
            status.metadata_mut().insert(REFUSAL_HEADER, tag);
        }
        status
    }

    /// From the status that ended the stream.
    pub fn from_status(status: &Status) -> Option<Refusal> {
        let tag = status.metadata().get(REFUSAL_HEADER)?.to_str().ok()?;
        let kind = TAGS.iter().find(|(_, other)| *other == tag)?.0;
        Some(Refusal::new(kind, status.message().to_owned()))
    }
}

/// A peer, by the cluster map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its node id.
    pub node: NodeId,
    /// Of its data directory; 0 if not known yet.
    pub incarnation: Incarnation,
    /// How often that was started, at least; 0 if not known.
    pub boots: u64,
    /// Where it listens for peers.
    pub address: String,
}

/// What the cluster map says of a node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'a> {
    /// A member: its incarnation (0 if not known yet), and where peers dial it.
    Member(Incarnation, &'a str),
    /// Removed for good.
    Removed,
    /// Not in the map.
    No,
}

/// The newest process of a node that was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its boot; 0 if none.
    pub boot: BootId,
    /// Its count.
    pub boots: u64,
    /// What the map says it has counted, at least; 0 if not known.
    pub listed: u64,
    /// Where it said it listens.
    pub address: String,
    /// It is connected and was heard of late.
    pub live: bool,
}

/// The part that needs no map. `answer`: the hello came as an answer, so it is meant for us anyway.
pub fn check_cluster(hello: &Hello, mine: &Mine, answer: bool) -> Result<(), Refusal> {
    let node = hello.node_id;
    if hello.format != FORMAT {
        let text = format!(
            "node {node} speaks peer format {}, this is {FORMAT}",
            hello.format
        );
        return Err(Refusal::new(RefusalKind::Format, text));
    }
    if hello.cluster_id != mine.cluster.0 {
        let theirs = ClusterId(hello.cluster_id);
        let text = format!(
            "foreign cluster id: node {node} belongs to cluster {theirs}, this is {}",
            mine.cluster
        );
        return Err(Refusal::new(RefusalKind::ForeignCluster, text));
    }
    if !answer && hello.to_node != mine.node.0 {
        let text = format!(
            "wrong node: this is node {}, not node {}",
            mine.node, hello.to_node
        );
        return Err(Refusal::new(RefusalKind::WrongNode, text));
    }
    if node == mine.node.0 {
        let text = if hello.boot_id == mine.boot.0 {
            format!("node {node} dialled itself")
        } else {
            format!(
                "node id {node} is already in use by the process at {}: copied directory",
                mine.address
            )
        };
        return Err(Refusal::new(RefusalKind::Myself, text));
    }
    if hello.version < mine.oldest.0 {
        let text = format!(
            "version: node {node} understands format {}, the cluster is at {}",
            hello.version, mine.oldest
        );
        return Err(Refusal::new(RefusalKind::Version, text));
    }
    Ok(())
}

/// The part that needs the map and what was seen of the node before.
pub fn check_node(hello: &Hello, known: Known<'_>, seen: &Seen) -> Result<(), Refusal> {
    let node = hello.node_id;
    match known {
        Known::No => {
            let text = format!("unknown node id: node {node} is not in the cluster map");
            return Err(Refusal::new(RefusalKind::UnknownNode, text));
        }
        Known::Removed => {
            let text = format!(
                "removed node: node {node} was removed from the cluster and its id is never used again"
            );
            return Err(Refusal::new(RefusalKind::Removed, text));
        }
        Known::Member(incarnation, address) if incarnation.0 != 0 && incarnation.0 != hello.incarnation => {
            return Err(other_incarnation(hello, address));
        }
        Known::Member(..) => {}
    }
    let same = seen.boot.0 == hello.boot_id;
    let boots = if same {
        seen.listed
    } else {
        seen.listed.max(seen.boots)
    };
    if hello.boots != 0 && hello.boots < boots {
        let text = format!(
            "node {node} runs on an older copy of the data directory: it was started {} times, {boots} were seen",
            hello.boots
        );
        return Err(Refusal::new(RefusalKind::OlderCopy, text));
    }
    if same || seen.boot.0 == 0 {
        return Ok(());
    }
    if seen.live || (hello.boots != 0 && hello.boots == seen.boots) {
        let text = format!(
            "node id {node} is already in use by another process at {}: copied directory",
            seen.address
        );
        let kind = if seen.live {
            RefusalKind::InUse
        } else {
            RefusalKind::OlderCopy
        };
        return Err(Refusal::new(kind, text));
    }
    Ok(())
}

/// At the address that the map knows, it is the known node with another directory; elsewhere, another node.
fn other_incarnation(hello: &Hello, address: &str) -> Refusal {
    let node = hello.node_id;
    if hello.peer_address == address {
        let text = format!(
            "node id {node} belongs to another incarnation: the data directory of node {node} was wiped"
        );
        return Refusal::new(RefusalKind::Wiped, text);
    }
    let text = format!(
        "node id {node} belongs to another incarnation, at {address}: it is reused by {}",
        hello.peer_address
    );
    Refusal::new(RefusalKind::Reused, text)
}

/// Why a node that is no member is refused.
pub(super) fn refusal_of(hello: &Hello, known: Known<'_>) -> Refusal {
    match check_node(hello, known, &Seen::default()) {
        Err(refusal) => refusal,
        // Only a member could pass.
        Ok(()) => Refusal {
            kind: RefusalKind::UnknownNode,
            text: "unknown node id".into(),
        },
    }
}

#[cfg(test)]
mod tests;
