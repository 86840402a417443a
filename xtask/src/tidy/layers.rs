//! The layers of the workspace, as data, and the check that the crates' manifests keep to them.
//!
//! A crate may be split, merged or given another edge by an RFC that shows the picture before and after; this
//! table changes with it (`docs/rfc/0001-workspace-layers.md`).

use std::path::Path;

use anyhow::Context;
use cargo_metadata::{MetadataCommand, Package};

use super::finding::Finding;

/// One crate: its layer, and the workspace crates it may depend on.
pub struct Row {
    layer: u8,
    name: &'static str,
    may: &'static [&'static str],
}

const fn row(layer: u8, name: &'static str, may: &'static [&'static str]) -> Row {
    Row { layer, name, may }
}

/// Everything below the server: layers 0 to 2.
const BELOW: &[&str] = &[
    "types", "env", "machine", "checker", "planner", "proto", "storage",
];

/// The table. Rows of crates that are not there yet hold their place.
pub const LAYERS: &[Row] = &[
    row(0, "types", &[]),
    row(0, "env", &[]),
    row(1, "machine", &["types"]),
    row(1, "checker", &["types"]),
    row(2, "planner", &["types", "machine"]),
    row(2, "proto", &["types", "machine"]),
    row(2, "storage", &["types", "machine"]),
    row(3, "snapshot", &["types", "env", "proto", "storage"]),
    row(3, "raft", &["types", "env", "machine", "proto", "storage"]),
    row(3, "client", &["types", "env", "proto"]),
    row(
        4,
        "server",
        &[
            "types", "env", "machine", "checker", "planner", "proto", "storage", "raft", "snapshot",
        ],
    ),
    row(4, "workload", &["types", "env", "proto", "client", "checker"]),
    row(4, "agent", &["types", "env", "proto", "client"]),
    row(4, "lb", &["types", "env", "proto", "client"]),
    row(
        5,
        "cli",
        &["+below", "server", "agent", "lb", "raft", "snapshot", "client"],
    ),
    row(
        5,
        "sim",
        &[
            "+below", "server", "agent", "lb", "raft", "snapshot", "client", "workload",
        ],
    ),
    row(5, "bench", &["types", "client"]),
    row(
        6,
        "fuzzing",
        &["types", "env", "machine", "proto", "storage", "raft", "server"],
    ),
    row(
        6,
        "tests",
        &["types", "proto", "client", "checker", "machine", "storage"],
    ),
    row(
        6,
        "jepsen",
        &["types", "env", "proto", "client", "checker", "workload"],
    ),
    row(6, "xtask", &[]),
];

/// Crates from outside that one crate, or a few, may name.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("openraft", &["raft"], "use what crate `raft` offers"),
    ("rocksdb", &["storage"], "use the traits of crate `storage`"),
    (
        "anyhow",
        &["cli", "sim", "bench", "tests", "jepsen", "xtask"],
        "name the failed operation with thiserror",
    ),
];

/// What the pure crates may use besides each other.
const PURE_OUTSIDE: &[&str] = &[
    "bytes",
    "prost",
    "thiserror",
    "xxhash-rust",
    "proptest",
    "proptest-state-machine",
];

/// What `checker` may use besides: a recorded history is a file of its own, and one judge is another project's.
const OF_HISTORIES: &[&str] = &["adya", "serde", "serde_json"];

/// Checks the manifests of the workspace at `root`.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let manifest = root.join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(&manifest)
        .no_deps()
        .other_options(vec!["--offline".to_string()])
        .exec()
        .context("read the workspace's metadata")?;
    let members: Vec<String> = metadata
        .packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let path = package
            .manifest_path
            .strip_prefix(root)
            .map_or(package.manifest_path.as_str(), |p| p.as_str());
        let text = std::fs::read_to_string(&package.manifest_path).with_context(|| format!("read {path}"))?;
        let dependencies = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str());
        findings.extend(edges(path, &text, package.name.as_ref(), dependencies, &members));
        findings.extend(shape(path, &text, package));
    }
    Ok(findings)
}

/// Judges the edges of one crate.
pub fn edges<'a>(
    path: &str,
    text: &str,
    name: &str,
    dependencies: impl Iterator<Item = &'a str>,
    members: &[String],
) -> Vec<Finding> {
    let Some(row) = LAYERS.iter().find(|row| row.name == name) else {
        let instead = "write an RFC and add a row to xtask/src/tidy/layers.rs";
        return vec![Finding::new(
            path,
            0,
            format!("crate `{name}` is in no layer"),
            instead,
        )];
    };
    let mut findings = Vec::new();
    for dependency in dependencies {
        let line = line_of(text, dependency);
        if members.iter().any(|member| member == dependency) {
            if !allows(row, dependency) {
                let what = format!("`{name}` (layer {}) may not depend on `{dependency}`", row.layer);
                let instead = format!("keep to {:?}, or write an RFC and change the table", row.may);
                findings.push(Finding::new(path, line, what, instead));
            }
            continue;
        }
        let reserved = RESERVED
            .iter()
            .find(|(held, owners, _)| *held == dependency && !owners.contains(&name));
        if let Some((_, owners, instead)) = reserved {
            let what = format!(
                "`{name}` may not name `{dependency}` (only {})",
                owners.join(", ")
            );
            findings.push(Finding::new(path, line, what, *instead));
        }
        let of_histories = name == "checker" && OF_HISTORIES.contains(&dependency);
        let pure = ["machine", "planner", "checker"].contains(&name);
        if pure && !of_histories && !PURE_OUTSIDE.contains(&dependency) {
            let what = format!("pure crate `{name}` depends on `{dependency}`");
            findings.push(Finding::new(
                path,
                line,
                what,
                format!("keep to {PURE_OUTSIDE:?}"),
            ));
        }
    }
    findings
}

fn allows(row: &Row, dependency: &str) -> bool {
    row.may.contains(&dependency) || (row.may.contains(&"+below") && BELOW.contains(&dependency))
}

/// Folder name is crate name, version 0.0.0, no features of ours, the workspace's lints.
fn shape(path: &str, text: &str, package: &Package) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = package
        .manifest_path
        .parent()
        .and_then(|parent| parent.file_name())
        .unwrap_or("");
    if folder != package.name.as_str() {
        let what = format!("crate `{}` lives in folder `{folder}`", package.name);
        findings.push(Finding::new(path, 0, what, "give both one name"));
    }
    if package.version.to_string() != "0.0.0" {
        let what = format!("version {}", package.version);
        findings.push(Finding::new(
            path,
            line_of(text, "version"),
            what,
            "version.workspace = true",
        ));
    }
    if !package.features.is_empty() {
        let what = "declares Cargo features";
        findings.push(Finding::new(
            path,
            line_of(text, "[features]"),
            what,
            "build one program; choose at run time",
        ));
    }
    if !text.contains("[lints]\nworkspace = true") {
        findings.push(Finding::new(
            path,
            0,
            "does not take the workspace's lints",
            "add [lints] workspace = true",
        ));
    }
    findings
}

fn line_of(text: &str, start: &str) -> usize {
    text.lines()
        .position(|line| line.starts_with(start))
        .map_or(0, |index| index + 1)
}

/// Prints the table.
pub fn print() {
    for row in LAYERS {
        println!("{} {:<9} {}", row.layer, row.name, row.may.join(" "));
    }
}

/// The crates of the table.
#[cfg(test)]
pub fn members() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|row| row.name)
}

/// Invariant: a row names only crates of lower layers. Checked by the tests.
#[cfg(test)]
pub fn assert_ordered() {
    for row in LAYERS {
        for name in row.may.iter().filter(|name| **name != "+below") {
            let below = LAYERS
                .iter()
                .find(|other| other.name == *name)
                .expect("a row for each name");
            assert!(below.layer < row.layer, "{} names {}", row.name, below.name);
        }
    }
}
