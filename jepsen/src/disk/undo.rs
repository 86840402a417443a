//! What a power loss takes away: every change since the last sync of the file, or of the folder for names, can be undone.
//!
//! Strictly as POSIX has it: a synced file may lose its name, if its folder was not synced. Of each file's unsynced writes
//! a prefix may survive, the next of them in part; of the unsynced changes of names, a prefix.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use workload::numbers::Numbers;

/// Writes of one file that are remembered one by one. Beyond, one more is lost together with the one before it.
const REMEMBERED: usize = 256;

/// How to undo one change of a file's bytes.
#[derive(Debug)]
struct Bytes {
    offset: u64,
    old: Vec<u8>,
    old_length: u64,
}

#[derive(Debug)]
struct Unsynced {
    file: Arc<File>,
    changes: Vec<Bytes>,
}

/// How to undo one change of names.
#[derive(Debug)]
pub enum Name {
    /// It was made: a file, a link or a folder.
    Made(PathBuf),
    /// It was removed, and is kept here.
    Removed {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        kept: PathBuf,
    },
    /// It was renamed.
    Renamed {
        /// Its old name.
        from: PathBuf,
        /// Its new one.
        to: PathBuf,
        /// What had the new name before, kept here.
        kept: Option<PathBuf>,
    },
}

/// All that is not synced.
#[derive(Debug, Default)]
pub struct Journal {
    files: BTreeMap<u64, Unsynced>,
    /// With the folders, each of which makes it durable when synced.
    names: Vec<(Vec<u64>, Name)>,
}

impl Journal {
    /// Before `length` bytes at `offset` of a file are written, or it is cut to end there (`length` 0).
    pub fn bytes(&mut self, node: u64, file: &Arc<File>, offset: u64, length: u64) -> io::Result<()> {
        let old_length = file.metadata()?.len();
        let end = match length {
            0 => old_length,
            _ => (offset + length).min(old_length),
        };
        let mut old = vec![0; end.saturating_sub(offset) as usize];
        file.read_exact_at(&mut old, offset)?;
        let unsynced = self.files.entry(node).or_insert_with(|| Unsynced {
            file: file.clone(),
            changes: Vec::new(),
        });
        let appended = old.is_empty() && offset >= old_length;
        let follows = unsynced.changes.last().is_some_and(|last| last.old.is_empty());
        if !(appended && follows && unsynced.changes.len() >= REMEMBERED) {
            unsynced.changes.push(Bytes {
                offset,
                old,
                old_length,
            });
        }
        Ok(())
    }

    /// After names in these folders have changed.
    pub fn name(&mut self, folders: Vec<u64>, name: Name) {
        self.names.push((folders, name));
    }

    /// A file is synced.
    pub fn synced(&mut self, node: u64) {
        self.files.remove(&node);
    }

    /// A folder is synced.
    pub fn synced_folder(&mut self, node: u64) {
        let durable = |(folders, _): &mut (Vec<u64>, Name)| folders.contains(&node);
        for (_, name) in self.names.extract_if(.., durable) {
            forget(&name);
        }
    }

    /// The power is lost. Returns how many writes and changes of names are.
    pub fn lose(&mut self, numbers: &mut Numbers) -> (u64, u64) {
        // All is lost, or a part of it.
        let partly = numbers.once_in(2);
        let mut survives = |count: usize| match partly {
            true => numbers.below(count as u64 + 1) as usize,
            false => 0,
        };
        let (mut bytes, mut names) = (0, 0);
        for unsynced in std::mem::take(&mut self.files).into_values() {
            let keep = survives(unsynced.changes.len());
            let torn = survives(4) as u64;
            bytes += (unsynced.changes.len() - keep) as u64;
            // A file that is gone by now has nothing to lose.
            let _ = unsynced.undo(keep, torn);
        }
        let keep = survives(self.names.len());
        for (at, (_, name)) in std::mem::take(&mut self.names).into_iter().enumerate().rev() {
            match at < keep {
                true => forget(&name),
                false => {
                    names += 1;
                    let _ = undo(&name);
                }
            }
        }
        (bytes, names)
    }
}

impl Unsynced {
    /// All but the first `keep` changes are undone; of the next, if it appended, `torn` quarters stay.
    fn undo(&self, keep: usize, torn: u64) -> io::Result<()> {
        for (at, change) in self.changes.iter().enumerate().skip(keep).rev() {
            let now = self.file.metadata()?.len();
            self.file.write_all_at(&change.old, change.offset)?;
            let appended = now.saturating_sub(change.old_length);
            let stays = match at == keep && change.old.is_empty() {
                true => appended * torn / 4,
                false => 0,
            };
            self.file.set_len(change.old_length + stays)?;
        }
        Ok(())
    }
}

/// It is durable: what was kept for it is no longer needed.
fn forget(name: &Name) {
    let kept = match name {
        Name::Made(_) => None,
        Name::Removed { kept, .. } => Some(kept),
        Name::Renamed { kept, .. } => kept.as_ref(),
    };
    if let Some(kept) = kept {
        let _ = remove(kept);
    }
}

fn undo(name: &Name) -> io::Result<()> {
    match name {
        Name::Made(path) => remove(path),
        Name::Removed { from, kept } => std::fs::rename(kept, from),
        Name::Renamed { from, to, kept } => {
            std::fs::rename(to, from)?;
            kept.as_ref().map_or(Ok(()), |kept| std::fs::rename(kept, to))
        }
    }
}

fn remove(path: &PathBuf) -> io::Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a journal, with a first synced content.
    fn file(dir: &std::path::Path, text: &str) -> Arc<File> {
        let path = dir.join("file");
        std::fs::write(&path, text).expect("writes");
        let file = File::options().read(true).write(true).open(path);
        Arc::new(file.expect("opens"))
    }

    fn write(journal: &mut Journal, file: &Arc<File>, offset: u64, text: &str) {
        journal
            .bytes(5, file, offset, text.len() as u64)
            .expect("remembers");
        file.write_all_at(text.as_bytes(), offset).expect("writes");
    }

    fn read(dir: &std::path::Path) -> String {
        std::fs::read_to_string(dir.join("file")).expect("reads")
    }

    #[test]
    fn what_is_not_synced_is_lost_as_far_as_chance_wants() {
        for seed in 0..100 {
            let dir = tempfile::tempdir().expect("a folder");
            let (mut journal, file) = (Journal::default(), file(dir.path(), "base"));
            write(&mut journal, &file, 4, "+synced");
            journal.synced(5);
            write(&mut journal, &file, 11, "+one!");
            write(&mut journal, &file, 0, "BASE");
            journal.lose(&mut Numbers::of(seed, "loss"));
            let left = read(dir.path());
            let legal = [
                "base+synced",
                "base+synced+",
                "base+synced+o",
                "base+synced+on",
                "base+synced+one!",
                "BASE+synced+one!",
            ];
            assert!(legal.contains(&left.as_str()), "{left:?}");
        }
    }

    #[test]
    fn a_file_cut_short_comes_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut journal, file) = (Journal::default(), file(dir.path(), "long text"));
        journal.bytes(5, &file, 2, 0).expect("remembers");
        file.set_len(2).expect("cut");
        // A seed that loses all.
        let seed = (0..)
            .find(|seed| !Numbers::of(*seed, "loss").once_in(2))
            .expect("one");
        assert_eq!(journal.lose(&mut Numbers::of(seed, "loss")), (1, 0));
        assert_eq!(read(dir.path()), "long text");
    }

    #[test]
    fn names_last_once_their_folder_is_synced() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        for name in ["durable", "made", "kept"] {
            std::fs::write(at(name), name).expect("writes");
        }
        let mut journal = Journal::default();
        journal.name(vec![1], Name::Made(at("durable")));
        journal.synced_folder(1);
        journal.name(vec![1], Name::Made(at("made")));
        std::fs::rename(at("made"), at("renamed")).expect("renames");
        journal.name(
            vec![1],
            Name::Renamed {
                from: at("made"),
                to: at("renamed"),
                kept: None,
            },
        );
        journal.name(
            vec![1],
            Name::Removed {
                from: at("removed"),
                kept: at("kept"),
            },
        );
        let seed = (0..)
            .find(|seed| !Numbers::of(*seed, "loss").once_in(2))
            .expect("one");
        assert_eq!(journal.lose(&mut Numbers::of(seed, "loss")), (0, 3));
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .expect("lists")
            .map(|entry| entry.expect("one").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["durable", "removed"]);
    }
}
