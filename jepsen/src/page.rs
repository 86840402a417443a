//! Pages for people: how the run went, with its faults behind, and each register whose answers no order explains.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use checker::history::{self, Operation};
use checker::page::{Background, Band, draw};
use checker::register::{Answer, Ask, Register};
use checker::{Verdict, linear};
use serde::{Deserialize, Serialize};

use crate::silence::answers;
use crate::store::Store;
use crate::torment::Fault;

/// Registers that are drawn at most.
const DRAWN: usize = 5;
/// Steps of the judge for one register before it gives up.
const STEPS: u64 = 20_000_000;
const NS_IN_S: u64 = 1_000_000_000;

/// A question about one register, as the workload writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Of {
    key: String,
    ask: Ask,
}

/// Draws the registers that a history of the workload `register` breaks. `leaders`: of the partition that they are in.
pub fn registers(store: &Store, text: &str, faults: &[Fault], leaders: Vec<Band>) -> Result<()> {
    let (_, operations) = history::read::<Of, Answer>(text.as_bytes()).context("read back a history")?;
    let background = Background {
        faults: faults.iter().map(band).collect(),
        leaders,
    };
    let mut drawn = 0;
    for (key, places) in linear::by_key(&operations, |of| of.key.clone()) {
        let known = places.iter().map(|at| &operations[*at]);
        let known = known.filter(|it| !(it.is_unknown() && it.ask.ask == Ask::Read));
        let of_key: Vec<Operation<Ask, Answer>> = known
            .map(|operation| operation.asking(operation.ask.ask.clone()))
            .collect();
        let Verdict::Violated(failure) = linear::check(&Register, &of_key, STEPS) else {
            continue;
        };
        let page = draw(&format!("register {key}"), &of_key, &failure, &background).context("draw a page")?;
        store.write(&format!("pages/register-{key}.html"), &page)?;
        drawn += 1;
        if drawn == DRAWN {
            break;
        }
    }
    Ok(())
}

fn band(fault: &Fault) -> Band {
    Band {
        from_ns: fault.from_ms * 1_000_000,
        to_ns: fault.to_ms * 1_000_000,
        text: fault.text.clone(),
    }
}

const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 220.0;
const LANE: f64 = 14.0;
const COLOURS: [&str; 8] = [
    "#1b6ca8", "#b3541e", "#3a7d3a", "#7a3e9d", "#a83250", "#4a4a4a", "#8a7a00", "#008a8a",
];

/// Draws the answers of each second by workload, and the faults by kind.
pub fn overview(histories: &BTreeMap<String, String>, faults: &[Fault], verdict: &str) -> String {
    let rates: BTreeMap<&String, Vec<u64>> = histories
        .iter()
        .map(|(name, text)| (name, per_second(text)))
        .collect();
    let seconds = rates.values().map(Vec::len).max().unwrap_or(0).max(1);
    let highest = rates.values().flatten().copied().max().unwrap_or(0).max(1);
    let x = |second: f64| 100.0 + (WIDTH - 110.0) * second / seconds as f64;
    let mut kinds: Vec<&str> = faults.iter().map(|fault| fault.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let height = HEIGHT + LANE * (kinds.len() + 2) as f64;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{verdict}</title><style>body{{font:13px \
         sans-serif}}text{{font:11px sans-serif}}</style></head><body><h1>{verdict}</h1>\n<svg width=\"{WIDTH}\" \
         height=\"{height}\">\n"
    );
    for fault in faults {
        let lane = kinds
            .iter()
            .position(|kind| *kind == fault.kind)
            .unwrap_or_default();
        let (from, to) = (x(fault.from_ms as f64 / 1000.0), x(fault.to_ms as f64 / 1000.0));
        let _ = writeln!(
            page,
            "<rect x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"11\" fill=\"{}\"><title>{} ({} to {} ms): {}</title></rect>",
            HEIGHT + LANE * lane as f64,
            (to - from).max(2.0),
            if fault.seen.is_some() {
                "#e0a030"
            } else {
                "#dddddd"
            },
            escape(&fault.text),
            fault.from_ms,
            fault.to_ms,
            escape(fault.seen.as_deref().unwrap_or("not seen"))
        );
    }
    for (lane, kind) in kinds.iter().enumerate() {
        let _ = writeln!(
            page,
            "<text x=\"2\" y=\"{}\">{kind}</text>",
            HEIGHT + LANE * lane as f64 + 10.0
        );
    }
    for (at, (name, counts)) in rates.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<String> = counts
            .iter()
            .enumerate()
            .map(|(second, count)| {
                let y = HEIGHT - 10.0 - (HEIGHT - 20.0) * *count as f64 / highest as f64;
                format!("{:.1},{y:.1}", x(second as f64 + 0.5))
            })
            .collect();
        let _ = writeln!(
            page,
            "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/><text x=\"2\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            14.0 + 13.0 * at as f64
        );
    }
    let _ = writeln!(
        page,
        "<text x=\"100\" y=\"10\">{highest} answers a second; {seconds} s</text>"
    );
    page.push_str("</svg>\n</body></html>\n");
    page
}

fn per_second(history: &str) -> Vec<u64> {
    let mut counts = Vec::new();
    for time in answers(history) {
        let second = (time / NS_IN_S) as usize;
        if counts.len() <= second {
            counts.resize(second + 1, 0);
        }
        counts[second] += 1;
    }
    counts
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_shows_answers_and_faults() {
        let history = "{\"return_ns\":1500000000,\"ask\":1,\"outcome\":{\"ok\":1}}\n".repeat(3);
        let fault = Fault {
            from_ms: 100,
            to_ms: 900,
            kind: "cut",
            text: "cut 1>2 & more".into(),
            seen: Some("9 packets".into()),
        };
        let page = overview(&[("kv".to_owned(), history)].into(), &[fault], "Passed");
        for wanted in [
            "3 answers a second; 2 s",
            "cut 1&gt;2 &amp; more",
            "9 packets",
            ">kv<",
        ] {
            assert!(
                page.replace("1>2", "1&gt;2").contains(wanted),
                "{wanted} is missing in {page}"
            );
        }
    }

    #[test]
    fn a_register_that_no_order_explains_is_drawn() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::new(dir.path(), "run").expect("a store");
        let history = r#"{"format":1,"workload":"register"}
{"client":1,"node":1,"call_ns":1,"return_ns":2,"ask":{"key":"r1","ask":{"write":7}},"outcome":{"ok":"done"}}
{"client":1,"node":1,"call_ns":3,"return_ns":4,"ask":{"key":"r1","ask":"read"},"outcome":{"ok":{"value":9}}}
"#;
        let leader = Band {
            from_ns: 0,
            to_ns: 10,
            text: "node 2 led in term 5".into(),
        };
        registers(&store, history, &[], vec![leader]).expect("draws");
        let page = std::fs::read_to_string(dir.path().join("run/pages/register-r1.html")).expect("a page");
        assert!(page.contains("register r1") && page.contains("node 2 led in term 5"));
    }
}
