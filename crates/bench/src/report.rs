//! The table for people, and the file for programs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

use crate::Options;
use crate::load::{CONNECTIONS, VALUE_BYTES};

/// What a number is held against.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Nothing.
    None,
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// At least so many times etcd's.
    RatioAtLeast(f64),
    /// At most so many times etcd's.
    RatioAtMost(f64),
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub measure: String,
    /// Its unit.
    pub unit: &'static str,
    /// Ours.
    pub holdfast: f64,
    /// Theirs, where there is one.
    pub etcd: Option<f64>,
    /// What it is held against.
    pub target: Target,
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// How it was measured.
    pub note: String,
    /// Its lines.
    pub rows: Vec<Row>,
}

/// Everything measured in one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    date: String,
    machine: String,
    holdfast: String,
    etcd: String,
    rounds: usize,
    sections: Vec<Section>,
}

impl Report {
    /// An empty one that says where and when.
    pub fn new(options: &Options) -> anyhow::Result<Report> {
        let version = |program: &PathBuf| first_line(Command::new(program).arg("--version"));
        Ok(Report {
            date: first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?,
            machine: machine()?,
            holdfast: version(&options.holdfast)?,
            etcd: version(&options.etcd)?,
            rounds: options.rounds,
            sections: Vec::new(),
        })
    }

    /// Adds a table.
    pub fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Prints it, and writes the files that were asked for.
    pub fn write(&self, options: &Options) -> anyhow::Result<()> {
        let mut text = self.markdown();
        println!("{text}");
        if let Some(out) = &options.out {
            let remarks = out.with_extension("remarks.md");
            match std::fs::read_to_string(&remarks) {
                Ok(remarks) => text = format!("{text}\n{remarks}"),
                Err(none) if none.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("read {}", remarks.display())),
            }
            std::fs::write(out, &text).with_context(|| format!("write {}", out.display()))?;
        }
        let beside = || options.out.as_ref().map(|out| out.with_extension("json"));
        if let Some(json) = options.json.clone().or_else(beside) {
            let body = serde_json::to_string_pretty(self).context("encode the numbers")? + "\n";
            std::fs::write(&json, body).with_context(|| format!("write {}", json.display()))?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Benchmarks\n\n");
        let rounds = self.rounds;
        let _ = writeln!(
            text,
            "Written by `make bench` on {}, {}. {} and {}, three nodes each, in turn in the same run, with the load \
             generator on the same machine; {VALUE_BYTES}-byte values, {CONNECTIONS} connections, {rounds} rounds. All \
             times include the client's own work. A shared machine is noisy: compare columns, not days.",
            self.date, self.machine, self.holdfast, self.etcd
        );
        for section in &self.sections {
            let _ = writeln!(text, "\n## {}\n\n{}\n", section.title, section.note);
            let etcd = section.rows.iter().any(|row| row.etcd.is_some());
            text.push_str(if etcd {
                "| | Holdfast | etcd | ratio | target | met |\n|---|---:|---:|---:|---|---|\n"
            } else {
                "| | Holdfast | target | met |\n|---|---:|---|---|\n"
            });
            for row in &section.rows {
                text.push_str(&row.markdown(etcd));
            }
        }
        text
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.etcd.map(|etcd| self.holdfast / etcd)
    }

    /// Whether the target is met; nothing where there is none.
    fn met(&self) -> Option<bool> {
        match self.target {
            Target::None => None,
            Target::AtMost(bound) => Some(self.holdfast <= bound),
            Target::AtLeast(bound) => Some(self.holdfast >= bound),
            Target::RatioAtLeast(bound) => self.ratio().map(|ratio| ratio >= bound),
            Target::RatioAtMost(bound) => self.ratio().map(|ratio| ratio <= bound),
        }
    }

    fn markdown(&self, etcd: bool) -> String {
        let unit = if self.unit.is_empty() || self.unit.starts_with('/') {
            self.unit.to_string()
        } else {
            format!(" {}", self.unit)
        };
        let shown = |value: f64| format!("{}{unit}", number(value));
        let target = match self.target {
            Target::None => String::new(),
            Target::AtMost(bound) => format!("at most {}", shown(bound)),
            Target::AtLeast(bound) => format!("at least {}", shown(bound)),
            Target::RatioAtLeast(bound) => format!("at least {bound} x"),
            Target::RatioAtMost(bound) => format!("at most {bound} x"),
        };
        let met = match self.met() {
            None => "",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        let ours = shown(self.holdfast);
        if !etcd {
            return format!("| {} | {ours} | {target} | {met} |\n", self.measure);
        }
        let theirs = self.etcd.map(shown).unwrap_or_default();
        let ratio = self
            .ratio()
            .map(|ratio| format!("{ratio:.2}"))
            .unwrap_or_default();
        format!(
            "| {} | {ours} | {theirs} | {ratio} | {target} | {met} |\n",
            self.measure
        )
    }
}

/// Three digits that matter, no more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> anyhow::Result<String> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = system
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("unknown")
        .trim_matches('"');
    let kernel = first_line(Command::new("uname").arg("-r"))?;
    let gigabytes = kilobytes.unwrap_or(0.0) / 1e6;
    Ok(format!(
        "{cpus} cores ({}), {gigabytes:.0} GB, {name}, Linux {kernel}",
        model.unwrap_or("unknown")
    ))
}

fn first_line(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("").trim().to_string())
}

#[cfg(test)]
mod tests {
    //! What a row says of its target.
    use super::*;

    fn check(holdfast: f64, etcd: Option<f64>, target: Target, met: Option<bool>, shown: &str) {
        let row = Row {
            measure: "m".to_string(),
            unit: "ms",
            holdfast,
            etcd,
            target,
        };
        assert_eq!(row.met(), met);
        assert_eq!(row.markdown(etcd.is_some()), shown);
    }

    #[test]
    fn rows() {
        check(1.0, None, Target::None, None, "| m | 1 ms |  |  |\n");
        check(
            149.6,
            None,
            Target::AtMost(150.0),
            Some(true),
            "| m | 150 ms | at most 150 ms | yes |\n",
        );
        check(
            0.5,
            None,
            Target::AtLeast(0.7),
            Some(false),
            "| m | 0.50 ms | at least 0.70 ms | **no** |\n",
        );
        let shown = "| m | 20 ms | 10 ms | 2.00 | at least 1.8 x | yes |\n";
        check(20.0, Some(10.0), Target::RatioAtLeast(1.8), Some(true), shown);
        let shown = "| m | 9 ms | 10 ms | 0.90 | at most 0.8 x | **no** |\n";
        check(9.0, Some(10.0), Target::RatioAtMost(0.8), Some(false), shown);
        check(
            f64::NAN,
            None,
            Target::AtMost(1.0),
            Some(false),
            "| m | NaN ms | at most 1 ms | **no** |\n",
        );
    }
}
