//! One controller's settings from their layers: defaults, then the file, then HOLDFAST_* variables, then flags.

#[cfg(test)]
mod tests;

use crate::args::bytes;
use crate::failure::{Failure, Result};
use crate::logging;
use server::config::{Config, validate};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Flags that override the file. Each can be given as a variable too.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Settings (override the file)")]
pub struct Overrides {
    /// Directory of everything that lasts
    #[arg(long, env = "HOLDFAST_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name shown to people
    #[arg(long, env = "HOLDFAST_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Join under this id instead of a new one
    #[arg(long, env = "HOLDFAST_NODE_ID", value_name = "ID")]
    pub node_id: Option<u64>,
    /// Worker threads
    #[arg(long, env = "HOLDFAST_WORKER_THREADS", value_name = "N")]
    pub worker_threads: Option<u32>,
    /// Where clients are served: etcd v3 and holdfast.v1
    #[arg(long, env = "HOLDFAST_LISTEN_CLIENT", value_name = "HOST:PORT")]
    pub listen_client: Option<String>,
    /// Where other controllers are served
    #[arg(long, env = "HOLDFAST_LISTEN_PEER", value_name = "HOST:PORT")]
    pub listen_peer: Option<String>,
    /// Where metrics and health are served
    #[arg(long, env = "HOLDFAST_LISTEN_HTTP", value_name = "HOST:PORT")]
    pub listen_http: Option<String>,
    /// What clients are told to dial
    #[arg(long, env = "HOLDFAST_ADVERTISE_CLIENT", value_name = "HOST:PORT")]
    pub advertise_client: Option<String>,
    /// What other controllers are told to dial
    #[arg(long, env = "HOLDFAST_ADVERTISE_PEER", value_name = "HOST:PORT")]
    pub advertise_peer: Option<String>,
    /// What is told of metrics and health
    #[arg(long, env = "HOLDFAST_ADVERTISE_HTTP", value_name = "HOST:PORT")]
    pub advertise_http: Option<String>,
    /// Peer addresses of controllers to ask for admission at the first start
    #[arg(
        long,
        env = "HOLDFAST_JOIN",
        value_delimiter = ',',
        value_name = "HOST:PORT,..."
    )]
    pub join: Vec<String>,
    /// Join only the cluster with this id
    #[arg(long, env = "HOLDFAST_EXPECT_CLUSTER", value_name = "HEX")]
    pub expect_cluster: Option<String>,
    /// Free bytes on the data disk below which writes are refused
    #[arg(long, env = "HOLDFAST_DISK_RESERVE_BYTES", value_parser = bytes, value_name = "BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// error, warn, info, debug, trace, or filter directives
    #[arg(long, env = "HOLDFAST_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// auto, pretty or json
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Any key of the file, as in raft.heartbeat_ms=200; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// Reads the file, if one is named, and lays HOLDFAST_* variables and flags over it. Fails with every fault there is.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config> {
    layered(file, variables(), overrides)
}

/// As [`load`], with these variables instead of those of this process.
pub fn layered(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config> {
    let mut faults = Vec::new();
    let mut table = Table::new();
    if let Some(path) = file {
        table = read(path)?;
        // Before anything is laid over it, so that its faults are not blamed on a flag.
        take_unreadable(&mut table, &path.display().to_string(), &mut faults);
    }
    for (name, value) in variables {
        if let Some(key) = key_of_variable(&name) {
            set(&mut table, &key, literal(&value));
        }
    }
    overrides.lay_over(&mut table)?;
    take_unreadable(&mut table, "flags and HOLDFAST_* variables", &mut faults);
    let config = parse(table).map_err(Failure::usage)?;
    faults.extend(validate(&config).iter().map(ToString::to_string));
    if !config.log.level.trim().is_empty()
        && let Err(text) = logging::filter(&config.log.level)
    {
        faults.push(format!("log.level: {text}"));
    }
    if faults.is_empty() {
        return Ok(config);
    }
    let lines: Vec<String> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    Err(Failure::usage(format!(
        "the configuration has {} fault(s):{}",
        faults.len(),
        lines.concat()
    ))
    .advise("`holdfast config default` prints every key with its default"))
}

/// This process's variables; others' may be no text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Whether a variable is for one controller alone. Those about logs may be for several.
pub fn is_of_one_node(variable: &str) -> bool {
    variable.starts_with(PREFIX) && !variable.starts_with("HOLDFAST_LOG_")
}

/// Takes out each key that cannot be read, so that none hides the faults of others.
fn take_unreadable(table: &mut Table, origin: &str, faults: &mut Vec<String>) {
    let mut readable = |section: &str, key: Option<&str>, value: Value| {
        let error = parse(Table::from_iter([(section.to_owned(), value)])).err();
        if let Some(text) = &error {
            let key = key.map_or(String::new(), |key| format!(".{key}"));
            faults.push(format!("{origin}: {section}{key}: {text}"));
        }
        error.is_none()
    };
    table.retain(|section, value| match value {
        Value::Table(keys) => {
            let known = readable(section, None, Value::Table(Table::new()));
            keys.retain(|key, value| {
                let alone = Table::from_iter([(key.to_owned(), value.clone())]);
                !known || readable(section, Some(key), Value::Table(alone))
            });
            known
        }
        other => readable(section, None, other.clone()),
    });
}

/// Variables that may carry settings start so.
const PREFIX: &str = "HOLDFAST_";
/// Sections of the file.
const SECTIONS: [&str; 8] = [
    "node",
    "listen",
    "advertise",
    "cluster",
    "raft",
    "limits",
    "storage",
    "log",
];

/// `HOLDFAST_RAFT_HEARTBEAT_MS` is `raft.heartbeat_ms`; other variables are not ours.
fn key_of_variable(name: &str) -> Option<String> {
    let (section, key) = name.strip_prefix(PREFIX)?.split_once('_')?;
    let section = section.to_ascii_lowercase();
    SECTIONS
        .contains(&section.as_str())
        .then(|| format!("{section}.{}", key.to_ascii_lowercase()))
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read configuration {}: {error}", path.display()))
            .advise("make one: holdfast config default > holdfast.toml")
    })?;
    toml::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} is not TOML: {error}", path.display()))
            .advise("`holdfast config default` prints an example")
    })
}

fn parse(table: Table) -> std::result::Result<Config, String> {
    let text = toml::to_string(&table).map_err(|error| error.to_string())?;
    Config::parse(&text).map_err(|error| error.message().to_owned())
}

/// A TOML value if it is one, else text.
fn literal(text: &str) -> Value {
    let line = format!("value = {text}");
    match toml::from_str::<Table>(&line)
        .ok()
        .and_then(|mut table| table.remove("value"))
    {
        Some(value) => value,
        None => Value::String(text.to_owned()),
    }
}

/// Sets `section.key`.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

impl Overrides {
    fn lay_over(&self, table: &mut Table) -> Result {
        let data_dir = self.data_dir.as_ref().map(|path| path.display().to_string());
        let texts = [
            ("node.data_dir", &data_dir),
            ("node.name", &self.node_name),
            ("listen.client", &self.listen_client),
            ("listen.peer", &self.listen_peer),
            ("listen.http", &self.listen_http),
            ("advertise.client", &self.advertise_client),
            ("advertise.peer", &self.advertise_peer),
            ("advertise.http", &self.advertise_http),
            ("cluster.expect_id", &self.expect_cluster),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
        ];
        for (key, value) in texts {
            if let Some(text) = value {
                set(table, key, Value::String(text.clone()));
            }
        }
        let numbers = [
            ("node.id", self.node_id),
            ("node.worker_threads", self.worker_threads.map(u64::from)),
            ("limits.disk_reserve_bytes", self.disk_reserve_bytes),
        ];
        for (key, value) in numbers {
            if let Some(number) = value {
                let number = i64::try_from(number)
                    .map_err(|_| Failure::usage(format!("{key}: {number} is too large")))?;
                set(table, key, Value::Integer(number));
            }
        }
        if !self.join.is_empty() {
            let join = self.join.iter().cloned().map(Value::String).collect();
            set(table, "cluster.join", Value::Array(join));
        }
        for setting in &self.settings {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(Failure::usage(format!(
                    "--set {setting}: write KEY=VALUE, as in raft.heartbeat_ms=200"
                )));
            };
            set(table, key.trim(), literal(value.trim()));
        }
        Ok(())
    }
}
