//! The wall clock of one controller: libfaketime, told by a file. Its monotonic clock is left alone, as a wrong date
//! leaves it alone on real hosts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::system;

/// Where Debian and its kin keep the library.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Bytes of a log's end that are looked at.
const TAIL: u64 = 64 * 1024;
/// How near a time in the log must be to the wrong time, in seconds: the fault may have begun a while ago.
const NEAR_S: i64 = 30;

/// A clock that can be set.
#[derive(Debug)]
pub struct WallClock {
    file: PathBuf,
    library: Option<PathBuf>,
}

impl WallClock {
    /// A right clock. `bent`: whether it will be set wrong in this run.
    pub fn new(below: &Path, node: u64, bent: bool) -> Result<WallClock> {
        let library = PathBuf::from(LIBRARY);
        if bent && !library.exists() {
            anyhow::bail!("{LIBRARY} is missing: scripts/install-deps.sh chaos");
        }
        let clock = WallClock {
            file: below.join(format!("clock-{node}")),
            library: bent.then_some(library),
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds wrong.
    pub fn set(&self, offset_s: i64) -> Result<()> {
        // In one step: the library may read at any moment.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{offset_s:+}\n"))
            .and_then(|()| std::fs::rename(&next, &self.file))
            .context("cannot set a clock")
    }

    /// What proves that the process sees the time so many seconds wrong: a line that it has logged lately.
    pub fn seen(&self, log: &Path, offset_s: i64) -> Result<Option<String>> {
        let mut file = File::open(log).context("cannot open a log")?;
        let length = file.metadata().context("cannot look at a log")?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
            .context("cannot read a log")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).context("cannot read a log")?;
        let text = String::from_utf8_lossy(&bytes);
        let stamps: Vec<&str> = text.lines().filter_map(stamp).collect();
        let mut input = String::from("now\n");
        input.push_str(&stamps.join("\n"));
        let seconds = system::feed("date", &["-u", "-f", "-", "+%s"], &input)?;
        let mut seconds = seconds.lines().filter_map(|line| line.parse::<i64>().ok());
        let wrong = seconds.next().unwrap_or_default() + offset_s;
        let near = NEAR_S.min(offset_s.abs() / 2);
        let found = seconds
            .zip(stamps)
            .find(|(second, _)| (second - wrong).abs() <= near);
        Ok(found.map(|(_, stamp)| format!("it logged {stamp}")))
    }

    /// What a process needs to see it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let Some(library) = &self.library else {
            return Vec::new();
        };
        vec![
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                self.file.to_string_lossy().into_owned(),
            ),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
        ]
    }
}

/// The time of a line of a controller's log.
fn stamp(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"timestamp\":\"")?;
    let (stamp, _) = rest.split_once('"')?;
    Some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_time_is_found_in_a_log() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("log");
        let later = system::run(
            "date",
            &["-u", "-d", "now + 1 hour", "+%Y-%m-%dT%H:%M:%S.123456Z"],
        );
        let later = later.expect("a date");
        std::fs::write(
            &log,
            format!("{{\"timestamp\":\"{}\"}}\nno line of ours\n", later.trim()),
        )
        .expect("writes");
        let clock = WallClock::new(dir.path(), 1, false).expect("a clock");
        assert!(clock.seen(&log, 3600).expect("reads").is_some());
        assert_eq!(clock.seen(&log, -3600).expect("reads"), None);
        assert_eq!(clock.seen(&log, 60).expect("reads"), None);
    }
}
