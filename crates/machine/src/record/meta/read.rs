//! Readers of the cluster's records.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Cluster, ClusterMap, Namespace, Node, Partition};
use crate::record::key::{self, Kind};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

/// All of it.
pub fn read(view: &dyn View) -> Result<ClusterMap, ViewError> {
    Ok(ClusterMap {
        cluster: cluster(view)?,
        nodes: nodes(view)?,
        partitions: partitions(view)?,
        namespaces: {
            let mut namespaces = namespaces(view)?;
            namespaces.sort_by(|a, b| a.name.cmp(&b.name));
            namespaces
        },
    })
}

/// The cluster; `None` before bootstrap.
pub fn cluster(view: &dyn View) -> Result<Option<Cluster>, ViewError> {
    one(view, key::single(Space::PARTITION, Kind::Cluster))
}

/// A node by id.
pub fn node(view: &dyn View, id: u64) -> Result<Option<Node>, ViewError> {
    one(view, key::number(Space::PARTITION, Kind::Node, id))
}

/// A partition by id.
pub fn partition(view: &dyn View, id: u32) -> Result<Option<Partition>, ViewError> {
    one(
        view,
        key::number(Space::PARTITION, Kind::Partition, u64::from(id)),
    )
}

/// A namespace by id.
pub fn namespace(view: &dyn View, id: u32) -> Result<Option<Namespace>, ViewError> {
    one(
        view,
        key::number(Space::PARTITION, Kind::NamespaceEntry, u64::from(id)),
    )
}

/// All nodes by id, removed ones included.
pub fn nodes(view: &dyn View) -> Result<Vec<Node>, ViewError> {
    all(view, Kind::Node)
}

/// All partitions by id.
pub fn partitions(view: &dyn View) -> Result<Vec<Partition>, ViewError> {
    all(view, Kind::Partition)
}

/// All namespaces by id.
pub fn namespaces(view: &dyn View) -> Result<Vec<Namespace>, ViewError> {
    all(view, Kind::NamespaceEntry)
}

fn one<M: prost::Message + Default>(view: &dyn View, key: Bytes) -> Result<Option<M>, ViewError> {
    view.get(&key)?
        .map(|bytes| decode("a cluster record", bytes))
        .transpose()
}

fn all<M: prost::Message + Default>(view: &dyn View, kind: Kind) -> Result<Vec<M>, ViewError> {
    let (from, to) = key::family(Space::PARTITION, kind);
    let mut found = Vec::new();
    view.scan(&from, &to, false, &mut |_, value| {
        found.push(decode("a cluster record", Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    })?;
    found.into_iter().collect()
}
