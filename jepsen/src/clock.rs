//! The wall clock of one controller: a library that is loaded into it (`preload`) shifts what it sees by what stands in a
//! file. Its monotonic clock is left alone, as a wrong date leaves it alone on real hosts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::system;

/// The library's file, beside this program.
const LIBRARY: &str = "libwallclock.so";

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
        let beside = std::env::current_exe().context("cannot find this program")?;
        let library = beside.with_file_name(LIBRARY);
        if bent && !library.exists() {
            bail!("{} is missing: jepsen/run builds it", library.display());
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
        // In place, and not cut short on the way: processes have the file in memory.
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file);
        file.and_then(|file| file.write_all_at(&offset_s.to_ne_bytes(), 0))
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
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![("LD_PRELOAD", text(library)), ("JEPSEN_CLOCK", text(&self.file))]
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
