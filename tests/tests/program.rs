//! The program as people and scripts start it: a cluster on one machine, settings from all their places, answers
//! that cannot be written, completions.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::cluster::{binary, free_base};
use tests::{http, until};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(90);

/// A running `holdfast dev`.
struct Dev {
    dir: PathBuf,
    base: u16,
    child: Child,
    /// The line that says that it is ready.
    ready: String,
}

impl Dev {
    /// Starts it, with variables that would mislead the nodes if they reached them, and waits until it is ready.
    async fn start(dir: &Path, base: u16, nodes: u16) -> Result<Dev> {
        let mut child = tokio::process::Command::new(binary()?)
            .args(["dev", "--partitions", "4", "--nodes", &nodes.to_string()])
            .args(["--base-port", &base.to_string(), "--data-dir"])
            .arg(dir)
            .env("HOLDFAST_LISTEN_CLIENT", "127.0.0.1:1")
            .env("HOLDFAST_RAFT_HEARTBEAT_MS", "seldom")
            .env("HOLDFAST_CONFIG", "/no/such/file")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = timeout(LIMIT, lines.next_line()).await.context("never ready")??;
        let ready = ready.context("it ended before it was ready")?;
        ensure!(ready.starts_with("ready"), "first line: {ready}");
        Ok(Dev {
            dir: dir.to_owned(),
            base,
            child,
            ready,
        })
    }

    /// `127.0.0.1:port` of a node (from 1), as documented: clients at 0, peers at 1, HTTP at 2.
    fn address(&self, node: u16, which: u16) -> String {
        format!("127.0.0.1:{}", self.base + 10 * (node - 1) + which)
    }

    fn pid_file(&self, node: u16) -> PathBuf {
        self.dir.join(format!("node-{node}/pid"))
    }

    fn pid(&self, node: u16) -> Result<u32> {
        let path = self.pid_file(node);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// SIGTERM, and everything must be gone.
    async fn stop(mut self, nodes: u16) -> Result<()> {
        let pids = (1..=nodes)
            .filter(|node| self.pid_file(*node).exists())
            .map(|node| self.pid(node))
            .collect::<Result<Vec<u32>>>()?;
        let me = self.child.id().context("it has ended")?;
        signal(me, "-TERM")?;
        let status = timeout(LIMIT, self.child.wait())
            .await
            .context("does not stop")??;
        ensure!(status.success(), "{status} after SIGTERM");
        for pid in pids {
            ensure!(command_line(pid).is_empty(), "process {pid} is still there");
        }
        for node in 1..=nodes {
            ensure!(!self.pid_file(node).exists(), "the pid file of node {node} stays");
        }
        Ok(())
    }
}

fn signal(pid: u32, signal: &str) -> Result<()> {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status()?;
    ensure!(sent.success(), "kill {signal} {pid}");
    Ok(())
}

/// Arguments of a process, with spaces between; empty once it is gone.
fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn text_of(out: &Output) -> String {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    format!("{}\n{stdout}\n{stderr}", out.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_runs_three_nodes_and_brings_all_back() -> Result<()> {
    let (dir, base) = (tempfile::tempdir()?, free_base()?);
    let dir = dir.path().canonicalize()?;
    let dev = Dev::start(&dir, base, 3).await?;
    ensure!(dev.ready.contains(&dev.address(3, 0)), "{}", dev.ready);
    for node in 1..=3 {
        let line = command_line(dev.pid(node)?);
        ensure!(line.contains(" serve "), "process of node {node}: {line}");
        let (status, text) = http::get(&dev.address(node, 2), "/readyz")?;
        ensure!(status == 200, "node {node}: {status} {text}");
    }
    let mut first = tests::etcd::connect(&dev.address(1, 0)).await?;
    first.put("kept", "yes", None).await?;
    signal(dev.pid(3)?, "-KILL")?;
    let mut second = tests::etcd::connect(&dev.address(2, 0)).await?;
    until("the others go on", LIMIT, || {
        let mut client = second.clone();
        async move { Ok(client.put("more", "yes", None).await.is_ok().then_some(())) }
    })
    .await?;
    until("the pid file goes", LIMIT, || async {
        Ok((!dev.pid_file(3).exists()).then_some(()))
    })
    .await?;
    dev.stop(3).await?;
    ensure!(second.get("kept", None).await.is_err(), "somebody still serves");

    let dev = Dev::start(&dir, base, 3).await?;
    for node in 1..=3 {
        let mut client = tests::etcd::connect(&dev.address(node, 0)).await?;
        for key in ["kept", "more"] {
            let got = client.get(key, None).await?;
            ensure!(got.kvs().len() == 1, "node {node} has lost {key}");
        }
    }
    dev.stop(3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_runs_one_node_and_refuses_to_run_twice() -> Result<()> {
    let (dir, base) = (tempfile::tempdir()?, free_base()?);
    let dir = dir.path().canonicalize()?;
    let dev = Dev::start(&dir, base, 1).await?;
    ensure!(
        dev.ready.starts_with("ready: 1 controller, 4 partitions"),
        "{}",
        dev.ready
    );
    let mut client = tests::etcd::connect(&dev.address(1, 0)).await?;
    client.put("kept", "yes", None).await?;
    let again = Command::new(binary()?)
        .args(["dev", "--nodes", "1", "--partitions", "4"])
        .args(["--base-port", &base.to_string(), "--data-dir"])
        .arg(&dir)
        .output()?;
    let text = text_of(&again);
    ensure!(
        again.status.code() == Some(1) && text.contains("runs already"),
        "{text}"
    );
    dev.stop(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_lie_over_variables_and_those_over_the_file() -> Result<()> {
    let (dir, base) = (tempfile::tempdir()?, free_base()?);
    let data = dir.path().join("data");
    let file = dir.path().join("holdfast.toml");
    let at = |port: u16| format!("127.0.0.1:{}", base + port);
    std::fs::write(
        &file,
        format!(
            "[node]\nname = 'of-the-file'\ndata_dir = '{}'\n[listen]\nclient = '{}'\npeer = '{}'\nhttp = '{}'\n",
            data.display(),
            at(0),
            at(1),
            at(2)
        ),
    )?;
    let init = Command::new(binary()?)
        .args(["init", "--partitions", "1", "--data-dir"])
        .arg(&data)
        .output()?;
    ensure!(init.status.success(), "{}", text_of(&init));
    let mut child = tokio::process::Command::new(binary()?)
        .args(["serve", "--config"])
        .arg(&file)
        .args(["--listen-peer", &at(21)])
        .env("HOLDFAST_NODE_NAME", "of-a-variable")
        .env("HOLDFAST_LISTEN_PEER", at(11))
        .env("HOLDFAST_LISTEN_HTTP", at(12))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let node = until("it tells of itself", LIMIT, || async {
        let out = Command::new(binary()?)
            .args([
                "--endpoints",
                &at(0),
                "--timeout",
                "2s",
                "-o",
                "json",
                "nodes",
                "list",
            ])
            .output()?;
        ensure!(out.status.success(), "{}", text_of(&out));
        let list: Value = serde_json::from_slice(&out.stdout)?;
        Ok(list["nodes"].get(0).cloned())
    })
    .await?;
    for (key, wanted) in [
        ("name", "of-a-variable"),
        ("client_address", &at(0)),
        ("peer_address", &at(21)),
        ("http_address", &at(12)),
    ] {
        ensure!(node[key] == *wanted, "{key}: {node}");
    }
    signal(child.id().context("it has ended")?, "-TERM")?;
    let status = timeout(LIMIT, child.wait()).await.context("does not stop")??;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn what_serve_refuses_check_refuses_too() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("holdfast.toml");
    std::fs::write(
        &file,
        "[raft]\nhartbeat_ms = 3\n[log]\nlevel = 'inof'\n[listen]\nclient = 'nowhere'\n",
    )?;
    for verb in [&["config", "check"][..], &["serve"]] {
        let out = Command::new(binary()?)
            .args(verb)
            .arg("--config")
            .arg(&file)
            .output()?;
        let text = text_of(&out);
        ensure!(out.status.code() == Some(2), "{verb:?}: {text}");
        for fault in ["raft.hartbeat_ms", "log.level", "listen.client"] {
            ensure!(text.contains(fault), "{verb:?} does not name {fault}: {text}");
        }
    }
    Ok(())
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() -> Result<()> {
    for line in [&["config", "default"][..], &["completions", "bash"]] {
        let full = Command::new(binary()?)
            .args(line)
            .stdout(std::fs::File::create("/dev/full")?)
            .output()?;
        ensure!(full.status.code() == Some(1), "{line:?}: {}", text_of(&full));
        // Whoever read has gone, as `head` does.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let closed = Command::new(binary()?).args(line).stdout(writer).output()?;
        ensure!(closed.status.success(), "{line:?}: {}", text_of(&closed));
    }
    Ok(())
}

#[test]
fn waiting_is_told_of() -> Result<()> {
    let out = Command::new(binary()?)
        .args(["--endpoints", "127.0.0.1:1", "--timeout", "2s", "status"])
        .output()?;
    let text = text_of(&out);
    ensure!(
        out.status.code() == Some(3) && text.contains("waiting for an answer of 127.0.0.1:1"),
        "{text}"
    );
    Ok(())
}

#[test]
fn completions_are_a_script_of_the_shell() -> Result<()> {
    let script = Command::new(binary()?).args(["completions", "bash"]).output()?;
    ensure!(script.status.success(), "{}", text_of(&script));
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("holdfast.bash");
    std::fs::write(&file, &script.stdout)?;
    let read = Command::new("bash").arg("-n").arg(&file).output()?;
    ensure!(read.status.success(), "bash -n: {}", text_of(&read));
    // It completes: `holdfast par<TAB>`.
    let completed = Command::new("bash")
        .arg("-c")
        .arg(format!(
            "source {}; COMP_WORDS=(holdfast par); COMP_CWORD=1; _holdfast holdfast par holdfast; echo \"${{COMPREPLY[@]}}\"",
            file.display()
        ))
        .output()?;
    if completed.stdout != b"partitions\n" {
        bail!("{}", text_of(&completed));
    }
    Ok(())
}
