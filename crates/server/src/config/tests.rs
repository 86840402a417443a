//! Configuration: defaults, unknown keys, and all faults at once.

use super::{Config, validate};

fn check(text: &str, wanted: &[&str]) {
    let config = Config::parse(text).expect("parses");
    let keys: Vec<String> = validate(&config).into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, wanted, "{text}");
}

#[test]
fn defaults_are_valid_and_round_trip() {
    let config = Config::default();
    assert_eq!(validate(&config), vec![]);
    assert_eq!(Config::parse(&config.to_toml()).expect("parses"), config);
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for (text, name) in [
        ("[raft]\nheartbeet_ms = 3", "heartbeet_ms"),
        ("[nodes]\n", "nodes"),
    ] {
        let error = Config::parse(text).expect_err("refused").to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn every_fault_is_reported() {
    check("[listen]\nclient = 'nowhere'", &["listen.client"]);
    check("[listen]\nclient = '0.0.0.0:1'", &["advertise.client"]);
    check(
        "[listen]\nclient = '0.0.0.0:1'\n[advertise]\nclient = 'host-1:1'",
        &[],
    );
    check("[listen]\nclient = '[::1]:5'\npeer = '[::1]:5'", &["listen.peer"]);
    check(
        "[node]\nworker_threads = 0\n[listen]\npeer = 'a:b'\n[cluster]\njoin = ['x']\nexpect_id = 'zz'\n[raft]\n\
         heartbeat_ms = 500\n[limits]\ndisk_reserve_bytes = 1\n[log]\nlevel = ''",
        &[
            "node.worker_threads",
            "listen.peer",
            "cluster.join[0]",
            "cluster.expect_id",
            "raft.election_min_ms",
            "limits.disk_reserve_bytes",
            "log.level",
        ],
    );
    check("[raft]\nelection_max_ms = 1000", &["raft.election_max_ms"]);
    check(
        "[raft]\nlog_entries = 100\nlog_bytes = 1",
        &["raft.log_bytes", "raft.log_entries_kept"],
    );
}
