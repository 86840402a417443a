//! What a person needs to understand a failure: one page that stands for itself. A lane for each client, its operations
//! as bars from call to return; numbered, where an order was found that explains them; the first answer that no order
//! explains in red; behind them what was done to the cluster, and above who led.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::history::{Operation, Outcome};
use crate::linear::Impossible;

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

/// Operations shown at most: those before the failure, and a few after it.
const SHOWN: usize = 400;
/// Of them, after the failure.
const AFTER: usize = 40;

const WIDTH: f64 = 1600.0;
const LEFT: f64 = 90.0;
const LANE: f64 = 26.0;
const TOP: f64 = 60.0;

const STYLE: &str = "body{font:13px sans-serif;margin:20px}svg{background:#fff}text{font:11px sans-serif}\
.ok{fill:#cfe8cf;stroke:#3a7d3a}.unknown{fill:#eee;stroke:#888;stroke-dasharray:4 2}.failed{fill:#fff;stroke:#ccc}\
.impossible{fill:#f7b2b2;stroke:#b00020;stroke-width:2}.fault{fill:#ffe9b8;opacity:.6}.leader{fill:#d5e3f7;stroke:#7a9cc9}\
.lane{stroke:#ddd}.order{fill:#333;font-weight:bold}";

/// Draws the failure of one history.
pub fn draw<A: Serialize, R: Serialize, S: Serialize>(
    title: &str,
    history: &[Operation<A, R>],
    failure: &Impossible<S>,
    background: &Background,
) -> serde_json::Result<String> {
    let shown = shown(history, failure.operation);
    let view = View::new(history, &shown);
    let mut page = String::new();
    let title = escape(title);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         </head><body>\n<h1>{title}</h1>\n"
    );
    let failed = &history[failure.operation];
    let states = failure
        .states
        .iter()
        .map(serde_json::to_string)
        .collect::<serde_json::Result<Vec<_>>>()?;
    let _ = writeln!(
        page,
        "<p>No order of the operations explains <b>{}</b> by client {}. {} operations before it are explained by the \
         order given by the numbers; after them the state is {}.</p>",
        escape(&text(failed)?),
        failed.client,
        failure.prefix.len(),
        escape(&states.join(" or "))
    );
    let height = TOP + LANE * (view.lanes.len() + 1) as f64;
    let _ = writeln!(page, "<svg width=\"{WIDTH}\" height=\"{height}\">");
    view.bands(&mut page, &background.faults, "fault", 0.0, height);
    view.bands(&mut page, &background.leaders, "leader", 18.0, 20.0);
    for (client, lane) in &view.lanes {
        let y = TOP + LANE * *lane as f64;
        let _ = writeln!(
            page,
            "<line class=\"lane\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"2\" y=\"{}\">client {client}</text>",
            y + 16.0
        );
    }
    let order: BTreeMap<usize, usize> = failure.prefix.iter().copied().zip(1..).collect();
    for at in shown {
        let kind = match history[at].outcome {
            _ if at == failure.operation => "impossible",
            Outcome::Ok(_) => "ok",
            Outcome::Failed(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        };
        view.bar(
            &mut page,
            &history[at],
            kind,
            order.get(&at),
            &text(&history[at])?,
        );
    }
    page.push_str("</svg>\n</body></html>\n");
    Ok(page)
}

/// The operations around the failure, in order of their calls.
fn shown<A, R>(history: &[Operation<A, R>], failed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|at| (history[*at].call_ns, *at));
    let place = order.iter().position(|at| *at == failed).unwrap_or_default();
    let end = (place + 1 + AFTER).min(order.len());
    order[end.saturating_sub(SHOWN)..end].to_vec()
}

/// What was asked, and what came of it.
fn text<A: Serialize, R: Serialize>(operation: &Operation<A, R>) -> serde_json::Result<String> {
    let asked = serde_json::to_string(&operation.ask)?;
    Ok(match &operation.outcome {
        Outcome::Ok(answer) => format!("{asked} -> {}", serde_json::to_string(answer)?),
        Outcome::Failed(why) => format!("{asked} failed: {why}"),
        Outcome::Unknown(why) => format!("{asked} unknown: {why}"),
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// From times and clients to places.
struct View {
    lanes: BTreeMap<u64, usize>,
    from_ns: u64,
    to_ns: u64,
}

impl View {
    fn new<A, R>(history: &[Operation<A, R>], shown: &[usize]) -> View {
        let clients: BTreeMap<u64, ()> = shown.iter().map(|at| (history[*at].client, ())).collect();
        let from_ns = shown.iter().map(|at| history[*at].call_ns).min().unwrap_or(0);
        let to_ns = shown.iter().map(|at| history[*at].return_ns).max().unwrap_or(1);
        View {
            lanes: clients.into_keys().zip(0..).collect(),
            from_ns,
            to_ns: to_ns.max(from_ns + 1),
        }
    }

    fn x(&self, time_ns: u64) -> f64 {
        let inside = time_ns.clamp(self.from_ns, self.to_ns) - self.from_ns;
        LEFT + (WIDTH - LEFT - 10.0) * inside as f64 / (self.to_ns - self.from_ns) as f64
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

    fn bar<A, R>(
        &self,
        page: &mut String,
        operation: &Operation<A, R>,
        class: &str,
        order: Option<&usize>,
        text: &str,
    ) {
        let lane = self.lanes.get(&operation.client).copied().unwrap_or_default();
        // What nobody answered has no end.
        let to_ns = if operation.is_unknown() {
            self.to_ns
        } else {
            operation.return_ns
        };
        let (from, to) = (self.x(operation.call_ns), self.x(to_ns));
        let y = TOP + LANE * lane as f64 + 3.0;
        let text = escape(text);
        let number = order.map_or_else(String::new, |order| {
            format!("<tspan class=\"order\">{order} </tspan>")
        });
        let _ = writeln!(
            page,
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"20\" rx=\"3\"><title>{text}</title>\
             </rect><text x=\"{:.1}\" y=\"{}\">{number}{text}</text>",
            (to - from).max(2.0),
            from + 3.0,
            y + 14.0
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
        let page = draw("register k1 & others", &history, &failure, &background).expect("encodes");
        for wanted in [
            "<title>register k1 &amp; others</title>",
            "class=\"impossible\"",
            "&quot;read&quot; -&gt; {&quot;value&quot;:7}",
            "unknown: &lt;lost&gt;",
            "<tspan class=\"order\">2 </tspan>{&quot;write&quot;:1}",
            "cut off: node 2",
            "node 1, term 3",
            "client 3",
        ] {
            assert!(page.contains(wanted), "{wanted} is missing in {page}");
        }
        assert_eq!(page.matches("<rect").count(), 5);
        assert!(!page.contains("<lost>"));
    }
}
