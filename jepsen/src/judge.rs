//! Judging: of a run that has just ended and of one that was kept, the same way. What was seen is all in the store; so what
//! is judged again gives the same verdict.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use checker::page::{Background, Band};
use clap::Args;
use env::{Clock, SystemClock};
use serde::de::DeserializeOwned;
use workload::{Finding, Workload, kept};

use crate::ground::Format;
use crate::leaders::Led;
use crate::page;
use crate::report::Judgement;
use crate::silence;
use crate::torment::Fault;
use crate::verdict::{Evidence, Judged, Verdict};

/// Where a run's folder has its histories.
pub const HISTORIES: &str = "histories";
/// What of the evidence no history tells.
pub const EVIDENCE: &str = "evidence.json";
/// Who led what.
pub const LEADERS: &str = "leaders.jsonl";
/// Which partition each workload asks.
pub const PARTITIONS: &str = "partitions.json";
/// What was done to the cluster.
pub const FAULTS: &str = "faults.jsonl";

/// A workload whose judge has spoken.
pub struct Found {
    /// The workload.
    pub workload: Arc<dyn Workload>,
    /// What was wrong.
    pub findings: Vec<Finding>,
    judged_ms: u64,
}

impl Found {
    /// Judges a workload.
    pub fn of(workload: Arc<dyn Workload>, clock: &dyn Clock) -> Found {
        let from = clock.now();
        let findings = workload.record().judge();
        Found {
            workload,
            findings,
            judged_ms: (clock.now() - from).as_millis() as u64,
        }
    }

    /// What the verdict goes by.
    pub fn judged(&self) -> Judged {
        let tally = self.workload.record().tally();
        Judged {
            ok: tally.ok,
            failed: tally.failed,
            unknown: tally.unknown,
            findings: self.findings.iter().map(|finding| finding.text.clone()).collect(),
            judged_ms: self.judged_ms,
        }
    }
}

/// What the verdict goes by, of all workloads.
pub fn judged(found: &[Found]) -> BTreeMap<String, Judged> {
    let all = found.iter();
    all.map(|found| (found.workload.name().to_owned(), found.judged()))
        .collect()
}

/// When what a workload asked was answered, in nanoseconds, in order.
pub fn answers(workload: &dyn Workload) -> Result<Vec<u64>> {
    let lines = workload.record().lines(workload.name());
    Ok(silence::answers(&lines.context("cannot encode a history")?))
}

/// What goes behind the operations of a run.
#[derive(Debug, Default)]
pub struct Scene {
    /// What was done to the cluster.
    pub faults: Vec<Fault>,
    /// Who led what.
    pub led: Vec<Led>,
    /// Which partition each workload asks.
    pub partitions: BTreeMap<String, u32>,
}

impl Scene {
    /// Of a run that was kept; what it does not have is not drawn.
    fn kept(dir: &Path) -> Result<Scene> {
        Ok(Scene {
            faults: lines(&dir.join(FAULTS))?,
            led: lines(&dir.join(LEADERS))?,
            partitions: whole(&dir.join(PARTITIONS))?.unwrap_or_default(),
        })
    }

    fn behind(&self, workload: &str) -> Background {
        let partition = self.partitions.get(workload);
        let leaders = self.led.iter().filter(|led| Some(&led.partition) == partition);
        Background {
            faults: self.faults.iter().map(band).collect(),
            leaders: leaders.map(Led::band).collect(),
        }
    }
}

fn band(fault: &Fault) -> Band {
    Band {
        from_ns: fault.from_ms * 1_000_000,
        to_ns: fault.to_ms * 1_000_000,
        text: fault.text.clone(),
    }
}

/// Draws how a run went, and each key that was found wrong.
pub fn draw(dir: &Path, title: &str, found: &[Found], scene: &Scene) -> Result<()> {
    let pages = dir.join("pages");
    std::fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    let mut all = BTreeMap::new();
    for found in found {
        let name = found.workload.name();
        all.insert(name.to_owned(), answers(&*found.workload)?);
        kept::draw(&pages, &*found.workload, &found.findings, &scene.behind(name))
            .with_context(|| format!("cannot draw what {name} found"))?;
    }
    let overview = page::overview(&all, &scene.faults, title);
    std::fs::write(pages.join("overview.html"), overview).context("cannot write the overview")
}

/// Judges kept histories again.
#[derive(Debug, Clone, Args)]
pub struct Again {
    /// Folders of runs, or histories: NAME.jsonl, NAME.edn.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Draw the pages of each folder anew, too.
    #[arg(long)]
    pages: bool,
    /// How to print the verdicts.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl Again {
    /// Judges, and prints each verdict. The exit status is the worst of them.
    pub fn all(&self) -> Result<u8> {
        let mut worst = Verdict::Passed;
        for path in &self.paths {
            let judgement = again(path, self.pages)?;
            match self.output {
                Format::Text => println!("{}{:?}: {}", judgement.text(), judgement.verdict, path.display()),
                Format::Json => println!("{}", serde_json::to_string_pretty(&judgement)?),
            }
            worst = worst.max(judgement.verdict);
        }
        Ok(worst.status())
    }
}

/// Judges a folder or a file again.
fn again(path: &Path, pages: bool) -> Result<Judgement> {
    let clock = SystemClock::default();
    let mut found = Vec::new();
    for file in histories(path)? {
        let workload = kept::load(&file).map_err(|text| anyhow!(text))?;
        found.push(Found::of(workload, &clock));
    }
    ensure!(!found.is_empty(), "{}: no history is there", path.display());
    let kept: Option<Evidence> = whole(&path.join(EVIDENCE))?;
    let mut evidence = kept.unwrap_or_default();
    let judged = judged(&found);
    for name in evidence.workloads.keys() {
        let there = judged.contains_key(name);
        ensure!(there, "{}: the history of {name} is missing", path.display());
    }
    evidence.workloads = judged;
    let judgement = Judgement::of(&evidence);
    if pages && path.is_dir() {
        let title = format!("{:?}: {}", judgement.verdict, path.display());
        draw(path, &title, &found, &Scene::kept(path)?)?;
    }
    Ok(judgement)
}

/// The histories of a run's folder, of a folder of the simulation's, or the one that is named.
fn histories(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let below = path.join(HISTORIES);
    let dir = if below.is_dir() { &below } else { path };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let file = entry
            .with_context(|| format!("cannot list {}", dir.display()))?
            .path();
        // The others in EDN are the same ones.
        let is_ours = file
            .file_name()
            .is_none_or(|name| name != FAULTS && name != LEADERS);
        if is_ours && file.extension().is_some_and(|it| it == "jsonl") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Something kept as JSON, if it was.
fn whole<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let read = serde_json::from_slice(&text);
    read.with_context(|| format!("cannot read {}", path.display()))
        .map(Some)
}

/// Things kept as JSON lines, if they were.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let wrong = || format!("cannot read {}", path.display());
    let file = BufReader::new(File::open(path).with_context(wrong)?);
    let read = (1..).zip(file.lines()).map(|(number, line)| {
        serde_json::from_str(&line.with_context(wrong)?)
            .with_context(|| format!("{}: line {number}", path.display()))
    });
    read.collect()
}

#[cfg(test)]
mod tests;
