//! What a person asks for.

use std::time::Duration;

use clap::Args;

use crate::ground::Ground;

/// One run.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What clients do: names of `jepsen list`, or all.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub workload: Vec<String>,
    /// What is done to the cluster: names of `jepsen list`, mixed (all of them), or none.
    #[arg(long, value_delimiter = ',', default_value = "mixed")]
    pub nemesis: Vec<String>,
    /// How long faults come and clients work: 90s, 5m, 1h.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub time: Duration,
    /// Partitions beside the meta partition.
    #[arg(long, default_value_t = 8)]
    pub partitions: u32,
    /// Clients of each workload.
    #[arg(long, default_value_t = 4)]
    pub clients: u64,
    /// Operations answered each second, on average, below which the run shows nothing.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Shortest and longest time between two faults, in milliseconds.
    #[arg(long, num_args = 2, value_names = ["LOW", "HIGH"], default_values_t = [1000, 5000])]
    pub gap: Vec<u64>,
    /// What it all stands on.
    #[command(flatten)]
    pub ground: Ground,
}

impl Options {
    /// The command that does it again, with this seed.
    pub fn again(&self, seed: u64) -> String {
        format!("jepsen/run {}", self.words(self.time, seed).join(" "))
    }

    /// The words of a command that does so much of it, with a seed.
    pub fn words(&self, time: Duration, seed: u64) -> Vec<String> {
        let mut words = self.ground.words(seed);
        let mut say = |name: &str, value: String| {
            words.push(format!("--{name}"));
            words.push(value);
        };
        say("workload", self.workload.join(","));
        say("nemesis", self.nemesis.join(","));
        say("time", format!("{}s", time.as_secs()));
        say("partitions", self.partitions.to_string());
        say("clients", self.clients.to_string());
        say("rate", self.rate.to_string());
        say("gap", self.gap[0].to_string());
        words.push(self.gap[1].to_string());
        words
    }

    /// The names of the workloads, each once.
    pub fn workloads(&self) -> Result<Vec<String>, String> {
        let names = chosen(&self.workload, "all", workload::NAMES, "workload")?;
        // The nemesis `members` does what such a one does, and knows what else is wrong meanwhile.
        let asked = |name: &String| self.workload.contains(name);
        let disturbs = |name: &String| workload::named(name).is_some_and(|workload| workload.disturbs());
        Ok(names
            .into_iter()
            .filter(|name| asked(name) || !disturbs(name))
            .collect())
    }

    /// The names of the nemeses among these, each once.
    pub fn nemeses(&self, known: &[&str]) -> Result<Vec<String>, String> {
        if self.nemesis == ["none"] {
            return Ok(Vec::new());
        }
        let asked: Vec<String> = self
            .nemesis
            .iter()
            .map(|name| name.replace("mixed", "all"))
            .collect();
        chosen(&asked, "all", known, "nemesis")
    }
}

fn chosen(asked: &[String], all: &str, known: &[&str], kind: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in asked {
        match known.contains(&name.as_str()) {
            true => names.push(name.clone()),
            false if name == all => names.extend(known.iter().map(|name| (*name).to_owned())),
            false => {
                return Err(format!(
                    "there is no {kind} {name:?}; there are {}, and {all}",
                    known.join(", ")
                ));
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// `90s`, `5m`, `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: 90s, 5m, 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(number * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_or_refused() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "s", "5d", "-1s", "1m30s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_chosen_once_each_or_refused() {
        let known = ["a", "b"];
        let choose = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            chosen(&asked, "all", &known, "thing")
        };
        assert_eq!(choose(&["b", "a", "b"]), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(choose(&["all"]), Ok(vec!["a".into(), "b".into()]));
        assert!(choose(&["c"]).unwrap_err().contains("a, b"));
    }
}
