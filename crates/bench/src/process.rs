//! Looks at processes through `/proc`, and signals them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

/// Kernel ticks a second, as `/proc` counts processor time.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is sent to a process.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    /// Ends it without a word.
    Kill,
    /// Asks it to stop.
    Terminate,
    /// Holds it still.
    Stop,
    /// Lets it go on.
    Continue,
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let name = match signal {
        Signal::Kill => "-KILL",
        Signal::Terminate => "-TERM",
        Signal::Stop => "-STOP",
        Signal::Continue => "-CONT",
    };
    let status = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .context("run kill")?;
    if !status.success() {
        bail!("kill {name} {pid}: {status}");
    }
    Ok(())
}

/// Whether it runs. A dead one that nobody has waited for does not, once its last thread is gone: until then it
/// holds its files and their locks.
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !matches!(state, None | Some('Z' | 'X')) || threads > 1
}

/// Waits until it does not run.
pub async fn wait_gone(pid: u32, limit: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while runs(pid) {
        if Instant::now() > end {
            bail!("process {pid} still runs after {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Processor time used so far, in seconds.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc/PID/stat")?;
    // The name, in parentheses, may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("parse /proc/PID/stat")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Resident memory, in bytes.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read /proc/PID/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let kilobytes: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .context("parse VmRSS")?;
    Ok(kilobytes * 1024)
}

/// How a process was started: to start it again in just that way.
#[derive(Debug, Clone)]
pub struct Recipe {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    folder: std::path::PathBuf,
}

impl Recipe {
    /// Reads it from a running process.
    pub fn of(pid: u32) -> anyhow::Result<Recipe> {
        let read = |name: &str| -> anyhow::Result<Vec<String>> {
            let bytes =
                std::fs::read(format!("/proc/{pid}/{name}")).with_context(|| format!("read {name}"))?;
            let text = String::from_utf8_lossy(&bytes);
            Ok(text
                .split('\0')
                .filter(|part| !part.is_empty())
                .map(str::to_string)
                .collect())
        };
        let variables = read("environ")?;
        let pair = |text: &String| {
            text.split_once('=')
                .map(|(name, value)| (name.to_string(), value.to_string()))
        };
        let folder =
            std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("cwd")).context("read cwd")?;
        Ok(Recipe {
            words: read("cmdline")?,
            variables: variables.iter().filter_map(pair).collect(),
            folder,
        })
    }

    /// Starts it again, with its output in `log`. It ends when the caller drops it.
    pub fn start(&self, log: &Path) -> anyhow::Result<tokio::process::Child> {
        let output = std::fs::File::create(log).with_context(|| format!("make {}", log.display()))?;
        let (program, arguments) = self.words.split_first().context("empty command line")?;
        tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .current_dir(&self.folder)
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().context("share the log")?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {program}"))
    }
}
