//! What makes a configuration unusable. Looks at nothing but the configuration.

use std::fmt;

use types::ClusterId;

use super::Config;

/// One fault, with the key it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// As written in TOML: `raft.heartbeat_ms`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// Every fault there is; empty when the configuration can be used.
pub fn validate(config: &Config) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    faults.node(config);
    faults.addresses(config);
    faults.timing(config);
    faults.retention(config);
    faults.limits(config);
    faults.log(config);
    faults.0
}

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, text: impl Into<String>) {
        self.0.push(Fault {
            key: key.to_owned(),
            text: text.into(),
        });
    }

    fn bounds(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if value < least || value > most {
            self.add(key, format!("{value} is not between {least} and {most}"));
        }
    }

    fn node(&mut self, config: &Config) {
        if config.node.data_dir.as_os_str().is_empty() {
            self.add("node.data_dir", "must not be empty");
        }
        if config.node.name.len() > types::limits::NAMESPACE_NAME_BYTES
            || config.node.name.contains(char::is_control)
        {
            self.add(
                "node.name",
                "must be at most 128 bytes without control characters",
            );
        }
        self.bounds("node.worker_threads", config.node.worker_threads as u64, 1, 256);
    }

    fn addresses(&mut self, config: &Config) {
        let listen = [
            ("client", &config.listen.client, &config.advertise.client),
            ("peer", &config.listen.peer, &config.advertise.peer),
            ("http", &config.listen.http, &config.advertise.http),
        ];
        for (name, listen, advertise) in &listen {
            let bound = self.address(&format!("listen.{name}"), listen);
            match advertise {
                Some(address) => {
                    let told = self.address(&format!("advertise.{name}"), address);
                    if told.is_some_and(|(host, port)| unspecified(&host) || port == 0) {
                        self.add(
                            &format!("advertise.{name}"),
                            format!("'{address}' cannot be reached by others"),
                        );
                    }
                }
                None if bound.as_ref().is_some_and(|(host, _)| unspecified(host)) => self.add(
                    &format!("advertise.{name}"),
                    format!(
                        "must be set, since listen.{name} = '{listen}' is not an address others can reach"
                    ),
                ),
                None => {}
            }
        }
        for (i, (name, address, _)) in listen.iter().enumerate() {
            for (other, taken, _) in &listen[..i] {
                if address == taken && !address.ends_with(":0") {
                    self.add(
                        &format!("listen.{name}"),
                        format!("'{address}' is also listen.{other}"),
                    );
                }
            }
        }
        for (n, address) in config.cluster.join.iter().enumerate() {
            self.address(&format!("cluster.join[{n}]"), address);
        }
        if let Some(id) = &config.cluster.expect_id
            && id.parse::<ClusterId>().is_err()
        {
            self.add(
                "cluster.expect_id",
                format!("'{id}' is not a hexadecimal cluster id"),
            );
        }
    }

    fn address(&mut self, key: &str, address: &str) -> Option<(String, u16)> {
        let parsed = address.rsplit_once(':').and_then(|(host, port)| {
            let fit = !host.is_empty()
                && !host.contains(['/', ' '])
                && (!host.contains(':') || host.starts_with('['));
            port.parse()
                .ok()
                .filter(|_| fit)
                .map(|port| (host.to_owned(), port))
        });
        if parsed.is_none() {
            self.add(key, format!("'{address}' is not of the form host:port"));
        }
        parsed
    }

    fn timing(&mut self, config: &Config) {
        let raft = &config.raft;
        self.bounds("raft.heartbeat_ms", raft.heartbeat_ms, 10, 60_000);
        if raft.election_min_ms < raft.heartbeat_ms.saturating_mul(3) {
            let least = raft.heartbeat_ms.saturating_mul(3);
            self.add(
                "raft.election_min_ms",
                format!(
                    "{} is less than three heartbeats ({least}): leaders would be deposed",
                    raft.election_min_ms
                ),
            );
        }
        if raft.election_max_ms <= raft.election_min_ms || raft.election_max_ms > 600_000 {
            self.add(
                "raft.election_max_ms",
                format!(
                    "{} must be above raft.election_min_ms and at most 600000",
                    raft.election_max_ms
                ),
            );
        }
    }

    fn retention(&mut self, config: &Config) {
        let raft = &config.raft;
        self.bounds("raft.log_entries", raft.log_entries, 10, 1 << 32);
        self.bounds("raft.log_bytes", raft.log_bytes, 64 << 10, 1 << 40);
        if raft.log_entries_kept >= raft.log_entries {
            self.add(
                "raft.log_entries_kept",
                format!(
                    "{} must be below raft.log_entries ({})",
                    raft.log_entries_kept, raft.log_entries
                ),
            );
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        self.bounds(
            "limits.request_timeout_ms",
            limits.request_timeout_ms,
            100,
            600_000,
        );
        self.bounds(
            "limits.partition_queue",
            limits.partition_queue as u64,
            1,
            1 << 20,
        );
        self.bounds(
            "limits.disk_reserve_bytes",
            limits.disk_reserve_bytes,
            16 << 20,
            1 << 50,
        );
        self.bounds(
            "limits.streams_per_connection",
            u64::from(limits.streams_per_connection),
            1,
            1 << 20,
        );
        self.bounds(
            "limits.watch_progress_ms",
            limits.watch_progress_ms,
            100,
            86_400_000,
        );
        self.bounds(
            "limits.compare_replicas_ms",
            limits.compare_replicas_ms,
            100,
            86_400_000,
        );
        self.bounds("limits.drain_timeout_ms", limits.drain_timeout_ms, 100, 600_000);
        let storage = &config.storage;
        self.bounds(
            "storage.cache_bytes",
            storage.cache_bytes as u64,
            8 << 20,
            1 << 40,
        );
        self.bounds(
            "storage.write_buffers_bytes",
            storage.write_buffers_bytes as u64,
            8 << 20,
            1 << 40,
        );
    }

    fn log(&mut self, config: &Config) {
        if config.log.level.trim().is_empty() {
            self.add("log.level", "must not be empty; use 'error' for the least");
        }
    }
}

fn unspecified(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "[::]" | "*")
}
