//! What a whole disk must do. The disk is the same one at each call.

use std::io;
use std::sync::Arc;

use types::{ClusterId, NodeId};

use crate::{Disk, Owner};

const OWNER: Owner = Owner {
    cluster: ClusterId(7),
    node: NodeId(1),
};

pub fn files(disk: &dyn Fn() -> Arc<dyn Disk>) {
    let _lock = disk().lock().expect("nobody has it");
    assert_eq!(disk().read("name").expect("read"), None);
    disk().remove("name").expect("what is not there is removed");
    for content in ["first", "", "a longer one"] {
        disk().replace("name", content.as_bytes()).expect("replaced");
        let read = disk().read("name").expect("read");
        assert_eq!(read.as_deref(), Some(content.as_bytes()));
    }
    disk().replace("other", b"other").expect("replaced");
    disk().remove("name").expect("removed");
    assert_eq!(disk().read("name").expect("read"), None);
    assert_eq!(
        disk().read("other").expect("read").as_deref(),
        Some(&b"other"[..])
    );
    assert!(!disk().is_used(), "small files are no stores");
}

pub fn lock(disk: &dyn Fn() -> Arc<dyn Disk>) {
    let held = disk().lock().expect("nobody has it");
    let second = disk().lock().expect_err("refused");
    assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
    drop(held);
    disk().lock().expect("it was given back");
}

pub fn owner(disk: &dyn Fn() -> Arc<dyn Disk>) {
    let _lock = disk().lock().expect("nobody has it");
    let open = |owner| {
        let finish = Arc::new(|batch: Vec<(crate::Done, io::Result<()>)>| {
            batch.into_iter().for_each(|(done, result)| done(result));
        });
        disk().open(owner, finish, Arc::new(|text| panic!("{text}")))
    };
    assert!(!disk().has_log() && !disk().is_used());
    drop(open(OWNER).expect("a new disk is anybody's"));
    assert!(disk().has_log() && disk().is_used());
    drop(open(OWNER).expect("and then its owner's"));
    let stranger = Owner {
        node: NodeId(2),
        ..OWNER
    };
    let error = open(stranger).err().expect("refused");
    assert_eq!(error.source.kind(), io::ErrorKind::InvalidData, "{error}");
}
