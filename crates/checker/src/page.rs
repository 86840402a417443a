//! What a person needs to understand a failure: one page that stands for itself. A lane for each client, its operations
//! as bars from call to return; numbered, where an order was found that explains them; the first answer that cannot be in
//! red; behind them what was done to the cluster, and above who led.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::history::{Operation, Outcome};

/// Something that lasted: a fault, or a leader's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band {
    /// When it began, in nanoseconds since the history began.
    pub from_ns: u64,
    /// When it ended.
    pub to_ns: u64,
    /// What it was.
    pub text: String,
}

/// What stands behind the operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Background {
    /// What was done to the cluster.
    pub faults: Vec<Band>,
    /// Who led, and in which term.
    pub leaders: Vec<Band>,
}

/// Where in a history a judge found something wrong. Operations are told by their places there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// What it is about: a key, an element, a watcher.
    pub key: String,
    /// The first operation that cannot be.
    pub operation: usize,
    /// An order of operations that explains all answers before it, where the judge knows one.
    pub order: Vec<usize>,
    /// What it does not agree with.
    pub others: Vec<usize>,
}

/// Operations shown at most: those before the failure, and a few after it.
const SHOWN: usize = 500;
/// Of them, after the failure.
const AFTER: usize = 50;
/// Letters of an operation that are kept.
const LETTERS: usize = 1000;
/// Operations named at most with which the failure does not agree.
const NAMED: usize = 10;

const LEFT: f64 = 120.0;
const RIGHT: f64 = 40.0;
const LANE: f64 = 26.0;
const TOP: f64 = 60.0;
/// Between two marks of time.
const MARK: f64 = 200.0;
/// Width of a letter, about.
const LETTER: f64 = 6.0;
/// Narrowest and widest page, and what an operation of the busiest client has on average.
const WIDTH: (f64, f64, f64) = (1600.0, 24_000.0, 160.0);

const STYLE: &str = "body{font:13px sans-serif;margin:20px}svg{background:#fff}text{font:11px sans-serif}\
.ok{fill:#cfe8cf;stroke:#3a7d3a}.unknown{fill:#eee;stroke:#888;stroke-dasharray:4 2}.failed{fill:#fff;stroke:#ccc}\
.impossible{fill:#f7b2b2;stroke:#b00020;stroke-width:2}.against{fill:#ffd9a0;stroke:#b3541e}\
.fault{fill:#ffe9b8;opacity:.6}.leader{fill:#d5e3f7;stroke:#7a9cc9}.lane{stroke:#ddd}.order{fill:#333;font-weight:bold}";

/// Draws a failure: `of` are the operations that have to do with it, `text` says what is wrong.
pub fn draw<A: Serialize, R: Serialize>(
    (title, text): (&str, &str),
    history: &[Operation<A, R>],
    of: &[usize],
    failure: &Failure,
    background: &Background,
) -> serde_json::Result<String> {
    let shown = shown(history, of, failure.operation);
    let view = View::new(history, &shown);
    let mut page = String::new();
    let title = escape(title);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         </head><body>\n<h1>{title}</h1>\n"
    );
    introduce(&mut page, text, history, failure)?;
    let height = TOP + LANE * (view.lanes.len() + 1) as f64;
    let _ = writeln!(page, "<svg width=\"{:.0}\" height=\"{height}\">", view.width);
    view.bands(&mut page, &background.faults, "fault", 0.0, height);
    view.bands(&mut page, &background.leaders, "leader", 18.0, 20.0);
    view.times(&mut page);
    view.names(&mut page);
    let order: BTreeMap<usize, usize> = failure.order.iter().copied().zip(1..).collect();
    let mut room = view.room(history, &shown);
    for at in shown {
        let kind = match history[at].outcome {
            _ if at == failure.operation => "impossible",
            _ if failure.others.contains(&at) => "against",
            Outcome::Ok(_) => "ok",
            Outcome::Failed(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        };
        let told = told(&history[at])?;
        let label = Label {
            number: order
                .get(&at)
                .map_or_else(String::new, |order| format!("{order} ")),
            text: &told,
            room: room.remove(&at).unwrap_or_default(),
        };
        view.bar(&mut page, &history[at], kind, &label);
    }
    page.push_str("</svg>\n</body></html>\n");
    Ok(page)
}

/// What is wrong, in words.
fn introduce<A: Serialize, R: Serialize>(
    page: &mut String,
    text: &str,
    history: &[Operation<A, R>],
    failure: &Failure,
) -> serde_json::Result<()> {
    let named = |at: usize| {
        let operation = &history[at];
        let seconds = operation.call_ns as f64 / 1e9;
        let told = escape(&told(operation)?);
        serde_json::Result::Ok(format!(
            "<b>{told}</b> by client {} at {seconds:.3} s",
            operation.client
        ))
    };
    let _ = writeln!(
        page,
        "<p>{}</p>\n<p><a href=\"#impossible\">In red</a>: {}.{}</p>",
        escape(&short(text)),
        named(failure.operation)?,
        match failure.order.len() {
            0 => String::new(),
            explained =>
                format!(" {explained} operations before it are explained by the order that the numbers give."),
        }
    );
    for at in failure.others.iter().take(NAMED) {
        let _ = writeln!(page, "<p>It does not agree with {}.</p>", named(*at)?);
    }
    Ok(())
}

/// The operations around the failure, in order of their calls.
fn shown<A, R>(history: &[Operation<A, R>], of: &[usize], failed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = of.to_vec();
    order.sort_by_key(|at| (history[*at].call_ns, *at));
    let place = order.iter().position(|at| *at == failed).unwrap_or_default();
    let end = (place + 1 + AFTER).min(order.len());
    order[end.saturating_sub(SHOWN)..end].to_vec()
}

/// The first letters of a text.
fn short(text: &str) -> String {
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// What was asked, and what came of it.
fn told<A: Serialize, R: Serialize>(operation: &Operation<A, R>) -> serde_json::Result<String> {
    let asked = serde_json::to_string(&operation.ask)?;
    Ok(short(&match &operation.outcome {
        Outcome::Ok(answer) => format!("{asked} -> {}", serde_json::to_string(answer)?),
        Outcome::Failed(why) => format!("{asked} failed: {why}"),
        Outcome::Unknown(why) => format!("{asked} unknown: {why}"),
    }))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// What stands at a bar; the text whole shows when it is pointed at.
struct Label<'t> {
    number: String,
    text: &'t str,
    room: usize,
}

/// From times and clients to places.
struct View {
    lanes: BTreeMap<u64, usize>,
    width: f64,
    from_ns: u64,
    to_ns: u64,
}

impl View {
    fn new<A, R>(history: &[Operation<A, R>], shown: &[usize]) -> View {
        let mut clients: BTreeMap<u64, usize> = BTreeMap::new();
        for at in shown {
            *clients.entry(history[*at].client).or_default() += 1;
        }
        let busiest = clients.values().max().copied().unwrap_or(0);
        let from_ns = shown.iter().map(|at| history[*at].call_ns).min().unwrap_or(0);
        let to_ns = shown.iter().map(|at| history[*at].return_ns).max().unwrap_or(1);
        let (narrowest, widest, each) = WIDTH;
        View {
            lanes: clients.into_keys().zip(0..).collect(),
            width: (busiest as f64 * each).clamp(narrowest, widest),
            from_ns,
            to_ns: to_ns.max(from_ns + 1),
        }
    }

    fn x(&self, time_ns: u64) -> f64 {
        let inside = time_ns.clamp(self.from_ns, self.to_ns) - self.from_ns;
        LEFT + (self.width - LEFT - RIGHT) * inside as f64 / (self.to_ns - self.from_ns) as f64
    }

    fn times(&self, page: &mut String) {
        let marks = (self.width / MARK) as u64;
        for mark in 0..=marks {
            let time_ns = self.from_ns + (self.to_ns - self.from_ns) / marks * mark;
            let _ = writeln!(
                page,
                "<text x=\"{:.1}\" y=\"{}\" fill=\"#777\">{:.3} s</text>",
                self.x(time_ns),
                TOP - 6.0,
                time_ns as f64 / 1e9
            );
        }
    }

    fn names(&self, page: &mut String) {
        for (client, lane) in &self.lanes {
            let y = TOP + LANE * *lane as f64;
            let _ = writeln!(
                page,
                "<line class=\"lane\" x1=\"0\" x2=\"{:.0}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"2\" y=\"{}\">client {client}</text>",
                self.width,
                y + 16.0
            );
        }
    }

    fn bands(&self, page: &mut String, bands: &[Band], class: &str, y: f64, height: f64) {
        for band in bands
            .iter()
            .filter(|band| band.to_ns >= self.from_ns && band.from_ns <= self.to_ns)
        {
            let (from, to) = (self.x(band.from_ns), self.x(band.to_ns));
            let text = escape(&band.text);
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{height}\"><title>{text}</title>\
                 </rect><text x=\"{:.1}\" y=\"{}\">{text}</text>",
                (to - from).max(1.0),
                from + 3.0,
                y + 13.0
            );
        }
    }

    /// How many letters there is room for behind the beginning of each operation, up to the next one of its client.
    fn room<A, R>(&self, history: &[Operation<A, R>], shown: &[usize]) -> BTreeMap<usize, usize> {
        let mut next: BTreeMap<u64, f64> = BTreeMap::new();
        let room = shown.iter().rev().map(|at| {
            let from = self.x(history[*at].call_ns);
            let end = next.insert(history[*at].client, from).unwrap_or(self.width);
            (*at, ((end - from) / LETTER) as usize)
        });
        room.collect()
    }

    fn bar<A, R>(&self, page: &mut String, operation: &Operation<A, R>, class: &str, label: &Label<'_>) {
        let lane = self.lanes.get(&operation.client).copied().unwrap_or_default();
        // What nobody answered has no end.
        let to_ns = if operation.is_unknown() {
            self.to_ns
        } else {
            operation.return_ns
        };
        let (from, to) = (self.x(operation.call_ns), self.x(to_ns));
        let y = TOP + LANE * lane as f64 + 3.0;
        let Label { number, text, room } = label;
        let plain = text.chars().filter(|letter| *letter != '"');
        let inside: String = plain.take(room.saturating_sub(number.len() + 1)).collect();
        let id = match class {
            "impossible" => " id=\"impossible\"",
            _ => "",
        };
        let _ = writeln!(
            page,
            "<rect{id} class=\"{class}\" x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"20\" rx=\"3\"><title>{}</title>\
             </rect><text x=\"{:.1}\" y=\"{}\"><tspan class=\"order\">{number}</tspan>{}</text>",
            (to - from).max(2.0),
            escape(text),
            from + 3.0,
            y + 14.0,
            escape(&inside)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;
    use crate::linear;
    use crate::register::{Answer, Ask, Register};

    #[test]
    fn shows_the_order_that_was_found_and_what_breaks_it() {
        let operation = |client, times: (u64, u64), ask, outcome| Operation {
            client,
            node: 1,
            call_ns: times.0,
            return_ns: times.1,
            ask,
            outcome,
        };
        let history = vec![
            operation(1, (0, 10), Ask::Write(1), Outcome::Ok(Answer::Done)),
            operation(2, (5, 15), Ask::Write(2), Outcome::Unknown("<lost>".into())),
            operation(3, (20, 30), Ask::Read, Outcome::Ok(Answer::Value(Some(7)))),
        ];
        let Verdict::Violated(failure) = linear::check(&Register, &history, 1_000) else {
            panic!("7 was never written");
        };
        let background = Background {
            faults: vec![Band {
                from_ns: 4,
                to_ns: 12,
                text: "cut off: node 2".into(),
            }],
            leaders: vec![Band {
                from_ns: 0,
                to_ns: 99,
                text: "node 1, term 3".into(),
            }],
        };
        let found = Failure {
            key: "k1".into(),
            operation: failure.operation,
            order: failure.prefix,
            others: vec![0],
        };
        let title = ("register k1 & others", "it holds 1 or 2");
        let page = draw(title, &history, &[0, 1, 2], &found, &background).expect("encodes");
        for wanted in [
            "<title>register k1 &amp; others</title>",
            "class=\"impossible\"",
            "&quot;read&quot; -&gt; {&quot;value&quot;:7}",
            "unknown: &lt;lost&gt;",
            "<tspan class=\"order\">2 </tspan>{write:1} -&gt; done",
            "2 operations before it are explained",
            "class=\"against\"",
            "it holds 1 or 2",
            "cut off: node 2",
            "node 1, term 3",
            "client 3",
        ] {
            assert!(page.contains(wanted), "{wanted} is missing in {page}");
        }
        assert_eq!(page.matches("<rect").count(), 5);
        assert!(!page.contains("<lost>"));
    }

    #[test]
    fn what_is_around_the_failure_is_shown_and_no_more() {
        let read = |at: u64| Operation {
            client: at % 3,
            node: 1,
            call_ns: at * 10,
            return_ns: at * 10 + 5,
            ask: "x".repeat(9 * LETTERS),
            outcome: Outcome::Ok(at),
        };
        let history: Vec<_> = (0..9000).map(read).collect();
        let even: Vec<usize> = (0..9000).step_by(2).collect();
        let shown = shown(&history, &even, 4000);
        assert_eq!((shown.len(), shown.last()), (SHOWN, Some(&(4000 + 2 * AFTER))));
        let failure = Failure {
            operation: 4000,
            ..Failure::default()
        };
        let page = draw(("a", "b"), &history, &even, &failure, &Background::default()).expect("encodes");
        assert_eq!(page.matches("<rect").count(), SHOWN);
        assert!(page.len() < SHOWN * 2 * LETTERS, "{}", page.len());
    }
}
