//! A real etcd beside Holdfast, and clients of either.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions};

use crate::until;

fn options() -> ConnectOptions {
    ConnectOptions::new().with_timeout(Duration::from_secs(20))
}

/// Connects to one endpoint.
pub async fn connect(endpoint: &str) -> Result<Client> {
    Client::connect([endpoint], Some(options()))
        .await
        .with_context(|| format!("connect to {endpoint}"))
}

/// The same for a client whose streams are to end when there is no leader. They last, so calls have no deadline.
pub async fn connect_requiring_leader(endpoint: &str) -> Result<Client> {
    Client::connect([endpoint], Some(ConnectOptions::new().with_require_leader(true)))
        .await
        .with_context(|| format!("connect to {endpoint}"))
}

/// A single etcd of Debian's package, killed when dropped.
pub struct Etcd {
    /// `127.0.0.1:port` for clients.
    pub endpoint: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts it on free ports and waits until it answers.
    pub async fn start() -> Result<Etcd> {
        let dir = tempfile::tempdir()?;
        let ports: Vec<u16> = (0..2)
            .map(|_| {
                std::net::TcpListener::bind("127.0.0.1:0")
                    .and_then(|l| l.local_addr())
                    .map(|a| a.port())
            })
            .collect::<Result<_, _>>()?;
        let client = format!("http://127.0.0.1:{}", ports[0]);
        let peer = format!("http://127.0.0.1:{}", ports[1]);
        let child = Command::new("etcd")
            .args(["--name", "reference", "--data-dir"])
            .arg(dir.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("reference={peer}")])
            // As many as Holdfast takes.
            .args(["--max-txn-ops", "1000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start etcd: install Debian's etcd-server (scripts/install-deps.sh does)")?;
        let endpoint = format!("127.0.0.1:{}", ports[0]);
        let etcd = Etcd {
            endpoint: endpoint.clone(),
            child,
            _dir: dir,
        };
        until("etcd answers", Duration::from_secs(20), || async {
            let mut client = connect(&endpoint).await?;
            client.get("probe", None).await?;
            Ok(Some(()))
        })
        .await?;
        Ok(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
