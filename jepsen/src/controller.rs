//! One controller: the real program, on its own host, which may be killed, stopped, and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::WallClock;
use crate::disk::Disk;
use crate::excuse::Excuse;
use crate::hosts::Hosts;
use crate::system;

/// Ports of every controller, each on its own host.
pub const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const HTTP_PORT: u16 = 2381;
/// Free bytes below which a controller refuses writes: its disk is small.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// One controller.
pub struct Controller {
    /// Its id, from 1.
    pub id: u64,
    /// Its disk.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: WallClock,
    /// Where its output goes.
    pub log: PathBuf,
    /// Its process stands still.
    pub paused: bool,
    /// Kept down on purpose by so many faults.
    pub held_down: u32,
    /// It was asked to stop.
    pub stopping: bool,
    /// Whether its process may end by itself.
    pub excuse: Excuse,
    /// Something is wrong with its disk.
    pub disk_hurt: bool,
    binary: PathBuf,
    join: Vec<String>,
    address: String,
    child: Option<Child>,
}

impl Controller {
    /// The controller at a position of a cluster of these hosts' addresses.
    pub fn new(
        position: usize,
        addresses: &[String],
        binary: &Path,
        logs: &Path,
        disk: Disk,
        clock: WallClock,
    ) -> Self {
        let join = addresses.iter().enumerate().filter(|(at, _)| *at != position);
        let join = join.map(|(_, address)| format!("{address}:{PEER_PORT}"));
        Controller {
            id: position as u64 + 1,
            disk,
            clock,
            log: logs.join(format!("node-{}.log", position + 1)),
            paused: false,
            held_down: 0,
            stopping: false,
            excuse: Excuse::default(),
            disk_hurt: false,
            binary: binary.to_owned(),
            join: if position == 0 { Vec::new() } else { join.collect() },
            address: addresses[position].clone(),
            child: None,
        }
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.address)
    }

    /// Whether there is a process.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Whether there is a process that is not paused.
    pub fn works(&self) -> bool {
        self.runs() && !self.paused
    }

    /// Makes this one the first of a new cluster.
    pub fn found(&self, partitions: u32) -> Result<()> {
        let binary = self.binary.to_string_lossy();
        let data = self.disk.data().to_string_lossy().into_owned();
        let partitions = partitions.to_string();
        system::run(
            &binary,
            &["init", "--data-dir", &data, "--partitions", &partitions],
        )
        .map(drop)
    }

    /// Starts the process, if there is none.
    pub fn start(&mut self) -> Result<()> {
        if self.runs() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let [program, net] = Hosts::enter(self.id as usize - 1);
        let mut command = Command::new(program);
        command.arg(net).arg("--").arg(&self.binary).arg("serve");
        let settings = [
            ("DATA_DIR", self.disk.data().to_string_lossy().into_owned()),
            ("NODE_NAME", format!("node-{}", self.id)),
            ("NODE_ID", self.id.to_string()),
            ("LISTEN_CLIENT", self.endpoint()),
            ("LISTEN_PEER", format!("{}:{PEER_PORT}", self.address)),
            ("LISTEN_HTTP", format!("{}:{HTTP_PORT}", self.address)),
            ("DISK_RESERVE_BYTES", RESERVE_BYTES.to_string()),
            ("LOG_FORMAT", "json".to_owned()),
            ("LOG_LEVEL", "info,openraft=warn,server::request=debug".to_owned()),
        ];
        for (name, value) in settings {
            command.env(format!("HOLDFAST_{name}"), value);
        }
        if !self.join.is_empty() {
            command.env("HOLDFAST_JOIN", self.join.join(","));
        }
        command.envs(self.clock.variables());
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start a controller")?;
        self.paused = false;
        self.stopping = false;
        self.child = Some(child);
        Ok(())
    }

    /// The process ends at once. Its exit status; `None` if there was none.
    pub fn kill(&mut self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        self.paused = false;
        child.kill().context("kill -9")?;
        Ok(Some(child.wait().context("wait for a killed process")?))
    }

    /// Sends a signal, if there is a process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &self.child {
            Some(child) => {
                kill_process(Pid::from_child(child), signal).with_context(|| format!("signal {signal:?}"))
            }
            None => Ok(()),
        }
    }

    /// What became of a process that ended by itself, or by a signal that let it end.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait().context("look after a process")?;
        if status.is_some() {
            self.child = None;
            self.paused = false;
        }
        Ok(status)
    }

    /// The state of the process as the kernel tells it: `T` if it stands still.
    pub fn state(&self) -> Option<char> {
        let child = self.child.as_ref()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Kills the process and keeps it down until [`Controller::let_up`]. Its exit status; `None` if there was none.
    pub fn put_down(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.kill()?;
        self.held_down += 1;
        Ok(status)
    }

    /// Starts the process again, unless another fault keeps it down.
    pub fn let_up(&mut self) -> Result<()> {
        self.held_down = self.held_down.saturating_sub(1);
        match self.held_down {
            0 => self.start(),
            _ => Ok(()),
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
