//! Namespaces: their records in the meta partition, their numbers in the partition that holds their keys.

use futures::StreamExt;
use machine::command::{Body, NamespaceSettings};
use machine::outcome::Empty;
use machine::query::{Ask, NamespaceInfo, Told};
use machine::record::meta::{Change, Namespace};
use machine::{Command, Query};
use proto::v1;
use types::Slot;

use super::{Native, allocated};
use crate::core::{Core, KeySpace, ServerError, partition_of};

/// Namespaces whose numbers are asked for side by side.
const AT_ONCE: usize = 32;

/// What the map says of a namespace.
pub(super) fn describe(namespace: &Namespace, partitions: u32) -> v1::Namespace {
    let slot = Slot::of_namespace(&namespace.name);
    let settings = namespace.settings.unwrap_or_default();
    v1::Namespace {
        id: namespace.id,
        name: namespace.name.clone(),
        slot: u32::from(slot.0),
        partition: partition_of(slot, partitions).0,
        quota_bytes: settings.quota_bytes,
        retain_revisions: settings.retain_revisions,
        retain_ms: settings.retain_ms,
        ..v1::Namespace::default()
    }
}

async fn numbers(core: &Core, space: &KeySpace) -> Result<NamespaceInfo, ServerError> {
    let query = Query {
        slot: u32::from(space.slot.0),
        namespace: space.id.0,
        ask: Some(Ask::Namespace(Empty {})),
        ..Query::default()
    };
    match core.query(space.partition, query, false).await?.answer.told {
        Some(Told::Namespace(info)) => Ok(info),
        other => Err(ServerError::Internal {
            text: format!("unexpected answer {other:?}"),
        }),
    }
}

/// Fills in the numbers; a partition that does not answer leaves them at zero.
async fn with_numbers(core: &Core, mut described: v1::Namespace) -> v1::Namespace {
    let told = match core.key_space(&described.name) {
        Ok(space) => numbers(core, &space).await,
        Err(error) => Err(error),
    };
    match told {
        Ok(info) => {
            described.revision = info.revision;
            described.compact_revision = info.compact_revision;
            described.keys = info.keys;
            described.live_bytes = info.live_bytes;
            described.total_bytes = info.total_bytes;
        }
        Err(error) => tracing::warn!(namespace = described.name, %error, "no numbers of the namespace"),
    }
    described
}

/// See `Cluster.ListNamespaces`.
pub(super) async fn list(core: &Core) -> Result<v1::ListNamespacesResponse, ServerError> {
    core.read_map().await?;
    let map = core.map();
    let count = map.cluster.as_ref().map_or(1, |cluster| cluster.partitions);
    let described: Vec<_> = map
        .namespaces
        .iter()
        .map(|namespace| describe(namespace, count))
        .collect();
    let namespaces = futures::stream::iter(described)
        .map(|described| with_numbers(core, described))
        .buffered(AT_ONCE)
        .collect()
        .await;
    Ok(v1::ListNamespacesResponse { namespaces })
}

/// See `Cluster.PutNamespace`.
pub(super) async fn put(
    native: &Native,
    request: v1::PutNamespaceRequest,
) -> Result<v1::PutNamespaceResponse, ServerError> {
    let core = &native.core;
    core.read_map().await?;
    let settings = NamespaceSettings {
        quota_bytes: request.quota_bytes,
        retain_revisions: request.retain_revisions,
        retain_ms: request.retain_ms,
        ..NamespaceSettings::default()
    };
    let map = core.map();
    let known = map
        .namespaces
        .iter()
        .find(|namespace| namespace.name == request.name);
    // A retry under a session must carry the same change: the machine answers it from the session.
    let id = if request.create_only {
        0
    } else {
        known.map_or(0, |namespace| namespace.id)
    };
    let namespace = Namespace {
        id,
        name: request.name.clone(),
        settings: Some(settings),
        generation: 0,
    };
    let change = Change::PutNamespace(namespace.clone());
    let put = allocated(native.change(change, request.session).await?)?;
    configure(core, &request.name)
        .await
        .map_err(ServerError::after_write)?;
    // What this command made of it, also when it comes again after another: the answer is the first one.
    let made = Namespace {
        id: put.id as u32,
        ..namespace
    };
    let count = core
        .map()
        .cluster
        .as_ref()
        .map_or(1, |cluster| cluster.partitions);
    Ok(v1::PutNamespaceResponse {
        namespace: Some(with_numbers(core, describe(&made, count)).await),
    })
}

/// Tells the partition the newest settings at once. If that fails, housekeeping there finds them in the map.
async fn configure(core: &Core, name: &str) -> Result<(), ServerError> {
    let space = core.key_space(name)?;
    let map = core.map();
    let namespace = map.namespaces.iter().find(|namespace| namespace.name == name);
    let namespace = namespace.ok_or_else(|| ServerError::UnknownNamespace {
        name: name.to_owned(),
    })?;
    let configure = Command {
        slot: u32::from(space.slot.0),
        namespace: space.id.0,
        body: Some(Body::NamespaceConfigure(namespace.configuration())),
        ..Command::default()
    };
    core.propose(space.partition, configure).await?;
    Ok(())
}
