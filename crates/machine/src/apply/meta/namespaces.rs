//! Namespaces: names are unique, numbers are never used again.

use types::limits;

use super::super::{Stop, refusal, refusal_at};
use super::Edit;
use crate::command::NamespaceSettings;
use crate::outcome::{Allocated, Done, Refusal, RefusalKind};
use crate::record::key::Kind;
use crate::record::meta::{self as records, Namespace};

impl Edit<'_, '_> {
    pub(super) fn put_namespace(&mut self, request: &Namespace) -> Result<Done, Stop> {
        if request.id == 0 {
            return self.create_namespace(request);
        }
        let known = records::namespace(&self.context.overlay, request.id)?;
        let missing = || {
            refusal(
                RefusalKind::NotFound,
                format!("there is no namespace {}", request.id),
            )
        };
        let mut namespace = known.ok_or_else(missing)?;
        if !request.name.is_empty() && request.name != namespace.name {
            return Err(refusal(RefusalKind::Invalid, "a namespace cannot be renamed").into());
        }
        if request.generation != 0 && request.generation != namespace.generation {
            let text = format!(
                "namespace {} is at generation {}",
                namespace.name, namespace.generation
            );
            return Err(refusal_at(RefusalKind::Stale, text, namespace.generation as i64).into());
        }
        check_settings(request.settings.as_ref())?;
        if namespace.settings != request.settings {
            namespace.settings = request.settings;
            namespace.generation += 1;
            self.put(Kind::NamespaceEntry, u64::from(namespace.id), &namespace)?;
            self.changed();
        }
        Ok(Done::Allocated(Allocated {
            id: u64::from(namespace.id),
            generation: namespace.generation,
        }))
    }

    fn create_namespace(&mut self, request: &Namespace) -> Result<Done, Stop> {
        let name = &request.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > limits::NAMESPACE_NAME_BYTES || !name.chars().all(plain) {
            let text = format!(
                "a namespace's name has 1 to {} letters, digits, dots, dashes or underscores",
                limits::NAMESPACE_NAME_BYTES
            );
            return Err(refusal(RefusalKind::Invalid, text).into());
        }
        check_settings(request.settings.as_ref())?;
        let namespaces = records::namespaces(&self.context.overlay)?;
        if let Some(known) = namespaces.iter().find(|known| known.name == *name) {
            let text = format!("namespace {name} exists");
            return Err(refusal_at(RefusalKind::AlreadyExists, text, i64::from(known.id)).into());
        }
        if namespaces.len() >= limits::NAMESPACES as usize {
            let text = format!("the cluster has {} namespaces, the limit", limits::NAMESPACES);
            return Err(refusal(RefusalKind::LimitReached, text).into());
        }
        let id = self.cluster.next_namespace;
        self.cluster.next_namespace += 1;
        let namespace = Namespace {
            id,
            generation: 1,
            ..request.clone()
        };
        self.put(Kind::NamespaceEntry, u64::from(id), &namespace)?;
        self.changed();
        Ok(Done::Allocated(Allocated {
            id: u64::from(id),
            generation: 1,
        }))
    }
}

fn check_settings(settings: Option<&NamespaceSettings>) -> Result<(), Refusal> {
    if settings.is_some_and(|settings| settings.retain_revisions < 0) {
        return Err(refusal(RefusalKind::Invalid, "retain_revisions is negative"));
    }
    Ok(())
}
