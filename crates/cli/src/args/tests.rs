//! The command line parses as documented.

use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn durations_and_sizes() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
    assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
    assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    assert!(duration("soon").is_err() && duration("3d").is_err() && duration("-1s").is_err());
    assert_eq!(bytes("4096"), Ok(4096));
    assert_eq!(bytes("64MiB"), Ok(64 << 20));
    assert!(bytes("64 pounds").is_err() && bytes("99999999999TiB").is_err());
}

#[test]
fn verbs_parse() {
    for line in [
        "serve --config /etc/holdfast.toml",
        "serve --data-dir d --listen-client 127.0.0.1:1 --listen-peer 127.0.0.1:2 --listen-http 127.0.0.1:3 --join a:1,b:2",
        "serve --data-dir d --disk-reserve-bytes 1000000000 --node-id 3 --set raft.heartbeat_ms=100",
        "init --data-dir d --partitions 16",
        "dev --nodes 3 --partitions 16 --data-dir d --base-port 2379",
        "dev --nodes 1 --restart",
        "config check --config f.toml",
        "config default",
        "--endpoints a:1,b:2 -o json --timeout 2s status",
        "status --check -o json",
        "nodes list",
        "nodes add",
        "nodes drain 3",
        "nodes undrain 3",
        "nodes remove 3",
        "partitions list 1 2",
        "partitions show 1",
        "partitions transfer 1 --to 2",
        "partitions balance --dry-run",
        "partitions freeze",
        "partitions thaw",
        "partitions add-replica 1 --node 4 --learner",
        "partitions promote 1 --replica 9",
        "partitions remove-replica 1 --replica 9",
        "partitions move 1 --from 2 --to 4",
        "partitions check 1",
        "partitions check",
        "namespaces list",
        "namespaces create team-a --quota 1GiB",
        "namespaces set team-a --retain-revisions 1000 --retain 10m",
        "completions bash",
    ] {
        let words = std::iter::once("holdfast").chain(line.split_whitespace());
        if let Err(error) = Args::try_parse_from(words) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_lines_are_refused() {
    for line in [
        "",
        "partitions --bogus",
        "partitions transfer 1",
        "nodes drain",
        "nodes drain x",
        "dev --nodes 0",
        "init --partitions 0 --data-dir d",
        "-o yaml status",
        "--timeout never status",
    ] {
        let words = std::iter::once("holdfast").chain(line.split_whitespace());
        assert!(Args::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn endpoints_are_split() {
    let args = Args::try_parse_from(["holdfast", "--endpoints", "a:1,b:2", "status"]).expect("parses");
    assert_eq!(args.global.endpoints, ["a:1", "b:2"]);
    assert_eq!(args.global.timeout, Duration::from_secs(10));
}

/// Each command's examples, and those of its subcommands.
fn examples(command: &clap::Command, path: &str, found: &mut Vec<String>) {
    let text = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(text.contains("Examples:\n  "), "`{path} --help` has no examples");
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("holdfast "));
    found.extend(lines.map(str::to_owned));
    for inner in command.get_subcommands() {
        examples(inner, &format!("{path} {}", inner.get_name()), found);
    }
}

#[test]
fn every_command_has_examples_that_parse() {
    let mut found = Vec::new();
    examples(&Args::command(), "holdfast", &mut found);
    for line in found {
        // What follows is for the shell or the reader.
        let end = line.find(['|', '>', '#', '\\']).unwrap_or(line.len());
        let line = line[..end].split("  ").next().unwrap_or_default();
        if let Err(error) = Args::try_parse_from(line.split_whitespace()) {
            panic!("{line}: {error}");
        }
    }
}
