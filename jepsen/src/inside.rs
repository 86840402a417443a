//! Namespaces of its own: the program starts itself again inside fresh network, mount and process namespaces, so that
//! whatever it makes there vanishes when it ends, however it ends, and no traffic of this machine is touched.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::system;

/// Set in the environment of the program inside.
const MARK: &str = "JEPSEN_INSIDE";

/// Returns inside; outside it becomes the program inside and never returns, unless that cannot be.
pub fn enter() -> Result<()> {
    if std::env::var_os(MARK).is_some() {
        return settle();
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root: it makes network namespaces, packet filters and mounts (all private to the run); try sudo"
    );
    let program = std::env::current_exe().context("cannot find this program")?;
    let error = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    Err(error).context("cannot run unshare (util-linux)")
}

/// `ip netns` keeps names under /run, which is the machine's own: a private one stands in for it.
fn settle() -> Result<()> {
    system::run("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"]).map(drop)
}
