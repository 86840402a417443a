//! A page for people: how the run went, with its faults behind. What was found wrong has pages of its own
//! (`workload::kept`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::torment::Fault;

const NS_IN_S: u64 = 1_000_000_000;
const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 220.0;
const LANE: f64 = 14.0;
const COLOURS: [&str; 8] = [
    "#1b6ca8", "#b3541e", "#3a7d3a", "#7a3e9d", "#a83250", "#4a4a4a", "#8a7a00", "#008a8a",
];

/// Draws the answers of each second by workload, given when each came in nanoseconds, and the faults by kind.
pub fn overview(answers: &BTreeMap<String, Vec<u64>>, faults: &[Fault], verdict: &str) -> String {
    let rates: BTreeMap<&String, Vec<u64>> = answers
        .iter()
        .map(|(name, times)| (name, per_second(times)))
        .collect();
    let seconds = rates.values().map(Vec::len).max().unwrap_or(0).max(1);
    let highest = rates.values().flatten().copied().max().unwrap_or(0).max(1);
    let x = |second: f64| 100.0 + (WIDTH - 110.0) * second / seconds as f64;
    let mut kinds: Vec<&str> = faults.iter().map(|fault| fault.kind.as_str()).collect();
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

fn per_second(times: &[u64]) -> Vec<u64> {
    let mut counts = Vec::new();
    for time in times {
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
        let times = vec![1_500_000_000; 3];
        let fault = Fault {
            from_ms: 100,
            to_ms: 900,
            kind: "cut".into(),
            text: "cut 1>2 & more".into(),
            seen: Some("9 packets".into()),
        };
        let page = overview(&[("kv".to_owned(), times)].into(), &[fault], "Passed");
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
}
