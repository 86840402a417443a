//! The process of one node: started, waited for, its output kept within bounds.

use super::plan::NodePlan;
use crate::config::is_of_one_node;
use crate::failure::{Failure, Result};
use crate::process;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

/// Output above this is moved to `log.1`.
const LOG_BYTES: u64 = 32 * 1024 * 1024;

/// Starts a node's process. It is in a process group of its own, so that Ctrl-C reaches `dev` alone.
pub fn spawn(node: &NodePlan) -> Result<(u32, Child)> {
    let failed = |what: &Path, error: std::io::Error| {
        Failure::failed(format!(
            "cannot start node {}: {}: {error}",
            node.index,
            what.display()
        ))
    };
    rotate(&node.log());
    let log = node.log();
    let output = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|error| failed(&log, error))?;
    let errors = output.try_clone().map_err(|error| failed(&log, error))?;
    let program = std::env::current_exe().map_err(|error| failed(Path::new("/proc/self/exe"), error))?;
    let mut command = Command::new(&program);
    command
        .args(node.arguments())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_one_node) {
            command.env_remove(name);
        }
    }
    process::tie_to_parent(&mut command);
    let child = command.spawn().map_err(|error| failed(&program, error))?;
    let pid = child
        .id()
        .ok_or_else(|| Failure::failed(format!("node {} ended at once", node.index)))?;
    let path = node.pid();
    process::write_pid(&path, pid).map_err(|error| failed(&path, error))?;
    Ok((pid, child))
}

/// Keeps a log within bounds: copies it aside and empties it, which a process that appends to it does not notice.
pub fn rotate(log: &Path) {
    let large = std::fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_BYTES);
    if large && std::fs::copy(log, log.with_extension("1")).is_ok() {
        let _ = File::options()
            .write(true)
            .open(log)
            .and_then(|file| file.set_len(0));
    }
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let Ok(mut file) = File::open(log) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))
        .and_then(|_| file.read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

/// How a process ended, for people.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".to_owned(),
        (Some(code), _) => format!("failed with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logs_are_rotated_and_small_ones_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        std::fs::write(&log, "one\ntwo\nthree\n").expect("written");
        rotate(&log);
        assert_eq!(tail(&log, 2), "    two\n    three\n");
        File::options()
            .write(true)
            .open(&log)
            .and_then(|f| f.set_len(LOG_BYTES + 1))
            .expect("grown");
        rotate(&log);
        assert_eq!(std::fs::metadata(&log).expect("there").len(), 0);
        assert_eq!(
            std::fs::metadata(dir.path().join("log.1")).expect("there").len(),
            LOG_BYTES + 1
        );
    }

    #[test]
    fn endings_are_told() {
        assert_eq!(ending(ExitStatus::from_raw(9)), "was killed by signal 9");
        assert_eq!(ending(ExitStatus::from_raw(0)), "stopped");
        assert_eq!(ending(ExitStatus::from_raw(256)), "failed with status 1");
    }
}
