//! `holdfast init`: makes a data directory the first of a new cluster. Done once per cluster.

use crate::failure::{Failure, Result};
use crate::output::Output;
use env::Env;
use serde::Serialize;
use server::Config;
use server::identity::Identity;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast init --data-dir /var/lib/holdfast --partitions 16
  holdfast serve --data-dir /var/lib/holdfast --listen-client 10.0.0.1:2379 \\
      --listen-peer 10.0.0.1:2380 --listen-http 10.0.0.1:2381        # on the first host
  holdfast serve --data-dir /var/lib/holdfast --listen-client 10.0.0.2:2379 \\
      --listen-peer 10.0.0.2:2380 --listen-http 10.0.0.2:2381 --join 10.0.0.1:2380")]
pub struct Args {
    /// Where the first controller's state will be
    #[arg(
        long,
        env = "HOLDFAST_DATA_DIR",
        value_name = "DIR",
        default_value = "holdfast-data"
    )]
    pub data_dir: PathBuf,
    /// Partitions that keys are spread over; fixed from then on
    #[arg(long, env = "HOLDFAST_PARTITIONS", default_value_t = 16, value_parser = clap::value_parser!(u32)
        .range(1..=i64::from(types::limits::PARTITIONS)))]
    pub partitions: u32,
}

#[derive(Serialize)]
struct Done {
    cluster_id: u64,
    node_id: u64,
    partitions: u32,
    data_dir: String,
}

/// Does it.
pub fn run(args: &Args, output: &Output) -> Result {
    let identity = create(&args.data_dir, args.partitions)?;
    let done = Done {
        cluster_id: identity.cluster.0,
        node_id: identity.node.0,
        partitions: args.partitions,
        data_dir: args.data_dir.display().to_string(),
    };
    output.done(
        &done,
        format!(
            "cluster {} begins in {} with {} partitions; now: holdfast serve --data-dir {}",
            identity.cluster, done.data_dir, args.partitions, done.data_dir
        ),
    )
}

/// Writes the identity of node 1 of a new cluster. Refuses a directory that has one.
pub fn create(data_dir: &Path, partitions: u32) -> Result<Identity> {
    let mut config = Config::default();
    config.node.data_dir = data_dir.to_owned();
    server::init(&config, partitions, &Env::production()).map_err(|error| {
        Failure::failed(client::chain(&error))
            .advise("a cluster begins once; other hosts join it: holdfast serve --join HOST:PORT")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use server::identity::{DataDir, First};
    use types::NodeId;

    #[test]
    fn a_directory_begins_one_cluster_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        let identity = create(&path, 4).expect("created");
        assert_eq!(identity.node, NodeId(1));
        let error = create(&path, 4).expect_err("refused").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains(&identity.cluster.to_string()), "{error}");
        let found = DataDir::lock(&path).expect("locked");
        assert_eq!(found.identity().expect("read"), Some(identity));
        assert_eq!(found.first().expect("read"), Some(First::Found { partitions: 4 }));
    }
}
