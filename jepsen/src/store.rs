//! Where a run leaves what it saw: a folder for each, and a link to the latest.
//!
//! ```text
//! STORE/TIME-SEED/plan.txt          what was asked for
//!                 faults.jsonl      each fault: when, what, on whom, how it was seen
//!                 leaders.jsonl     who led which partition, and when
//!                 partitions.json   which partition each workload asks
//!                 histories/W.jsonl what clients of workload W saw; W.edn: the same as Jepsen writes it
//!                 logs/node-N.log   what the controllers said
//!                 pages/            how it went, and each key that was found wrong
//!                 evidence.json     what the verdict goes by besides the histories
//!                 summary.json, summary.txt
//!                 rounds.jsonl, recovery.json  of `recovery`: each pause that was measured, and what they come to
//! STORE/latest                      the last one
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::judge::HISTORIES;

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Makes the folder of a run.
    pub fn new(below: &Path, name: &str) -> Result<Store> {
        std::fs::create_dir_all(below).with_context(|| format!("cannot make {}", below.display()))?;
        let below = below.canonicalize().context("cannot find the store")?;
        let store = Store {
            dir: below.join(name),
        };
        for dir in [
            store.logs(),
            store.disks(),
            store.dir.join(HISTORIES),
            store.dir.join("pages"),
        ] {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let next = below.join(".latest");
        let _ = std::fs::remove_file(&next);
        std::os::unix::fs::symlink(name, &next)
            .and_then(|()| std::fs::rename(&next, below.join("latest")))
            .context("cannot link the latest run")?;
        Ok(store)
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where controllers' output goes.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Where their disks are, while the run lasts.
    pub fn disks(&self) -> PathBuf {
        self.dir.join("disks")
    }

    /// Writes a text file.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.dir.join(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// Writes something as JSON.
    pub fn json(&self, name: &str, what: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(what).with_context(|| format!("cannot encode {name}"))?;
        text.push('\n');
        self.write(name, &text)
    }

    /// Lines of the controllers' logs that tell of a panic.
    pub fn panics(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.logs()).context("cannot list the logs")? {
            let path = entry.context("cannot list the logs")?.path();
            let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8_lossy(&text);
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let lines = text.lines().filter(|line| line.contains("panicked"));
            found.extend(lines.map(|line| format!("{name}: {line}")));
        }
        Ok(found)
    }

    /// A file to which lines are added.
    pub fn lines(&self, name: &str) -> Result<Lines> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Lines(file.with_context(|| format!("cannot open {name}"))?))
    }
}

/// A file of JSON lines.
#[derive(Debug)]
pub struct Lines(File);

impl Lines {
    /// Adds one.
    pub fn add(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what).context("cannot encode a line")?;
        line.push(b'\n');
        self.0.write_all(&line).context("cannot write a line")
    }
}
