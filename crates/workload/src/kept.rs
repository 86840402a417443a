//! What is left of a run: each workload's history as JSON lines and in EDN, and a page for each key that a judge found
//! wrong. And back from there, to be judged again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use checker::page::Background;
use checker::{edn, history};

use crate::{Finding, Workload, named};

/// Pages of one workload at most.
const DRAWN: usize = 5;
/// Letters of a key that its page is named by, at most.
const LETTERS: usize = 60;

/// Writes the history of a workload: `NAME.jsonl` and `NAME.edn`.
pub fn keep(dir: &Path, workload: &dyn Workload) -> io::Result<()> {
    let (name, record) = (workload.name(), workload.record());
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(format!("{name}.jsonl")), record.lines(name)?)?;
    std::fs::write(dir.join(format!("{name}.edn")), record.edn(name)?)
}

/// Draws a page for each key that was found wrong: `NAME-KEY.html`, of the first finding there. Returns where they are.
pub fn draw(
    dir: &Path,
    workload: &dyn Workload,
    findings: &[Finding],
    background: &Background,
) -> io::Result<Vec<PathBuf>> {
    let mut met = BTreeSet::new();
    let mut drawn = Vec::new();
    for finding in findings {
        let new = finding.at.as_ref().filter(|at| met.insert(at.key.clone()));
        let Some(at) = new else { continue };
        let Some(page) = workload.record().page(workload.name(), finding, background)? else {
            continue;
        };
        let path = dir.join(format!("{}-{}.html", workload.name(), file_name(&at.key)));
        std::fs::create_dir_all(dir)?;
        std::fs::write(&path, page)?;
        drawn.push(path);
        if drawn.len() == DRAWN {
            break;
        }
    }
    Ok(drawn)
}

fn file_name(key: &str) -> String {
    let plain = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => letter,
        _ => '_',
    };
    key.chars().take(LETTERS).map(plain).collect()
}

/// The workload whose history a file is, as it was when that was written. The error names the file and the line.
pub fn load(path: &Path) -> Result<Arc<dyn Workload>, String> {
    let wrong = |text: String| format!("{}: {text}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let is_edn = path.extension().is_some_and(|extension| extension == "edn");
    let name = match is_edn {
        true => edn::workload(&text).map_err(|error| wrong(error.to_string()))?,
        false => history::workload(&text).map_err(|error| wrong(error.to_string()))?,
    };
    let workload = named(&name).ok_or_else(|| wrong(format!("there is no workload {name:?}")))?;
    let record = workload.record();
    match is_edn {
        true => record.take_edn(&text),
        false => record.take_lines(&text),
    }
    .map_err(wrong)?;
    Ok(workload)
}
