//! Other people's clients, unchanged: `etcdctl`, Python's `etcd3`, and our own client crate.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::Cluster;

/// Runs Debian's etcdctl against one node.
fn etcdctl(cluster: &Cluster, position: usize, args: &[&str]) -> Result<String> {
    let out = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &cluster.nodes[position].client])
        .args(args)
        .output()
        .context("cannot run etcdctl: install Debian's etcd-client (scripts/install-deps.sh does)")?;
    let text = String::from_utf8_lossy(&out.stdout).to_string();
    ensure!(
        out.status.success(),
        "etcdctl {args:?}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_works_unchanged() -> Result<()> {
    let cluster = Cluster::start(3, 2).await?;
    ensure!(etcdctl(&cluster, 0, &["put", "greeting", "hello"])?.trim() == "OK");
    ensure!(etcdctl(&cluster, 1, &["get", "greeting", "--print-value-only"])?.trim() == "hello");
    ensure!(etcdctl(&cluster, 2, &["get", "--prefix", "greet", "--keys-only"])?.contains("greeting"));
    ensure!(etcdctl(&cluster, 2, &["del", "greeting"])?.trim() == "1");
    let granted = etcdctl(&cluster, 0, &["lease", "grant", "60"])?;
    let id = granted
        .split_whitespace()
        .nth(1)
        .context("no lease id")?
        .to_string();
    etcdctl(&cluster, 1, &["put", "leased", "v", "--lease", &id])?;
    ensure!(etcdctl(&cluster, 2, &["lease", "timetolive", &id, "--keys"])?.contains("leased"));
    ensure!(etcdctl(&cluster, 2, &["lease", "list"])?.contains(&id));
    ensure!(etcdctl(&cluster, 0, &["lease", "keep-alive", "--once", &id])?.contains("keepalived"));
    etcdctl(&cluster, 1, &["lease", "revoke", &id])?;
    ensure!(etcdctl(&cluster, 0, &["get", "leased"])?.is_empty());
    let members = etcdctl(&cluster, 0, &["member", "list"])?;
    ensure!(members.lines().count() == 3, "{members}");
    let status = etcdctl(&cluster, 1, &["endpoint", "status"])?;
    ensure!(status.contains(&cluster.nodes[1].client), "{status}");
    etcdctl(&cluster, 1, &["endpoint", "health"])?;
    etcdctl(&cluster, 1, &["endpoint", "hashkv"])?;
    etcdctl(&cluster, 1, &["alarm", "list"])?;
    etcdctl(&cluster, 1, &["defrag"])?;
    let locked = etcdctl(&cluster, 2, &["lock", "mutex", "echo", "inside"])?;
    ensure!(locked.contains("inside"), "{locked}");
    let revision = etcdctl(&cluster, 0, &["get", "greeting", "-w", "json"])?;
    let revision: serde_json::Value = serde_json::from_str(&revision)?;
    etcdctl(
        &cluster,
        0,
        &["compact", &revision["header"]["revision"].to_string()],
    )?;
    Ok(())
}

/// A Python environment with what the scripts need, kept beside the build so that it is made once.
fn python(packages: &[&str], name: &str) -> Result<std::path::PathBuf> {
    let binary = tests::cluster::binary()?;
    let dir = binary
        .parent()
        .and_then(Path::parent)
        .context("no target directory")?
        .join(format!("python-{name}"));
    let interpreter = dir.join("bin/python");
    if !dir.join("complete").exists() {
        ensure!(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&dir)
                .status()?
                .success(),
            "python3 -m venv"
        );
        let out = Command::new(&interpreter)
            .args(["-m", "pip", "install", "-q"])
            .args(packages)
            .output()?;
        ensure!(
            out.status.success(),
            "pip install: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        std::fs::write(dir.join("complete"), "")?;
    }
    Ok(interpreter)
}

fn run_python(interpreter: &Path, script: &str, cluster: &Cluster) -> Result<()> {
    let root = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let out = Command::new(interpreter)
        .current_dir(&root)
        .arg(root.join(script))
        .env("HOLDFAST_ENDPOINTS", cluster.endpoints().join(","))
        .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).to_string() + &String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{script}:\n{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_etcd3_works_unchanged() -> Result<()> {
    let cluster = Cluster::start(3, 2).await?;
    let interpreter = python(
        &[
            "etcd3==0.12.0",
            "protobuf<4",
            "grpcio",
            "tenacity<7",
            "setuptools<80",
        ],
        "etcd3",
    )?;
    run_python(&interpreter, "clients/python/tests/etcd3_check.py", &cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works() -> Result<()> {
    let cluster = Cluster::start(3, 2).await?;
    let interpreter = python(&["grpcio", "grpcio-tools", "setuptools<80"], "holdfast")?;
    run_python(&interpreter, "clients/python/tests/test_client.py", &cluster)
}
