//! Printing: tables for people, JSON for programs. Colour only on a terminal.

use crate::args::Format;
use crate::failure::{Failure, Result};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};

/// Where answers go.
pub struct Output {
    format: Format,
    colour: bool,
}

/// How a cell is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Neither.
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    text: String,
    mood: Mood,
}

impl Text {
    /// A cell with a mood.
    pub fn mood(text: impl ToString, mood: Mood) -> Text {
        Text {
            text: text.to_string(),
            mood,
        }
    }
}

/// A plain cell.
pub fn cell(text: impl ToString) -> Text {
    Text::mood(text, Mood::Plain)
}

impl Output {
    /// Prints to stdout, in colour if that is a terminal and NO_COLOR is not set.
    pub fn new(format: Format) -> Output {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Output { format, colour }
    }

    /// Prints `value` as JSON, or what `table` makes of it.
    pub fn show<T: Serialize>(&self, value: &T, table: impl FnOnce(&Output) -> String) -> Result {
        let text = match self.format {
            Format::Json => json(value).to_string(),
            Format::Table => table(self),
        };
        print(&text)
    }

    /// Prints a sentence, or in JSON what it is about.
    pub fn done<T: Serialize>(&self, value: &T, sentence: impl Into<String>) -> Result {
        self.show(value, |_| sentence.into())
    }

    /// Rows under a header, as text.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<Text>>) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.to_vec());
        for row in rows {
            table.add_row(row.into_iter().map(|text| self.cell(text)).collect::<Vec<Cell>>());
        }
        let count = table.column_count();
        for index in 0..count {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, if index + 1 == count { 0 } else { 3 }));
            }
        }
        table.trim_fmt()
    }

    fn cell(&self, text: Text) -> Cell {
        let cell = Cell::new(text.text);
        match text.mood {
            Mood::Plain => cell,
            Mood::Good => cell.fg(Color::Green),
            Mood::Warn => cell.fg(Color::Yellow),
            Mood::Bad => cell.fg(Color::Red),
        }
    }
}

/// Prints a line to stdout.
pub fn print(text: &str) -> Result {
    write(&mut std::io::stdout().lock(), text)
}

fn write(out: &mut impl Write, text: &str) -> Result {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Who reads has seen enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| {
            Failure::failed(format!("cannot write the answer: {error}"))
                .advise("what was asked for may have been done all the same")
        }),
    }
}

/// Stable snake_case JSON. Cluster ids are hexadecimal text, as everywhere else: they do not fit a double.
fn json<T: Serialize>(value: &T) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    if let Some(id) = value.get("cluster_id").and_then(Value::as_u64) {
        value["cluster_id"] = Value::String(format!("{id:016x}"));
    }
    value
}

/// `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `250 ms`, `12.3 s`, `5 min`.
pub fn time(millis: u64) -> String {
    match millis {
        0..=999 => format!("{millis} ms"),
        1_000..=119_999 => format!("{:.1} s", millis as f64 / 1000.0),
        120_000..=7_199_999 => format!("{} min", millis / 60_000),
        _ => format!("{:.1} h", millis as f64 / 3_600_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Output {
        Output {
            format: Format::Table,
            colour: false,
        }
    }

    #[test]
    fn tables_line_up_and_have_no_colour_in_a_pipe() {
        let rows = vec![
            vec![cell(1), Text::mood("alive", Mood::Good)],
            vec![cell(20), cell("x")],
        ];
        assert_eq!(
            plain().table(&["ID", "STATE"], rows),
            "ID   STATE\n1    alive\n20   x"
        );
    }

    /// Refuses everything in one way.
    struct Refuses(ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn an_answer_that_nobody_got_is_a_failure_unless_nobody_wanted_it() {
        assert!(write(&mut Refuses(ErrorKind::BrokenPipe), "x").is_ok());
        let error = write(&mut Refuses(ErrorKind::StorageFull), "x").expect_err("lost");
        assert_eq!(error.outcome(), crate::failure::Outcome::Failed);
    }

    #[test]
    fn a_terminal_gets_colour() {
        let output = Output {
            format: Format::Table,
            colour: true,
        };
        let text = output.table(&["STATE"], vec![vec![Text::mood("dead", Mood::Bad)]]);
        assert!(text.contains("\u{1b}["), "{text:?}");
    }

    #[test]
    fn json_is_snake_case_with_hexadecimal_cluster_id() {
        let status = client::v1::StatusResponse {
            cluster_id: 0xabc,
            node_id: 2,
            ..Default::default()
        };
        let value = json(&status);
        assert_eq!(value["cluster_id"], "0000000000000abc");
        assert_eq!(value["node_id"], 2);
        assert_eq!(value["partitions_with_leader"], 0);
    }

    #[test]
    fn units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(8 << 30), "8.0 GiB");
        assert_eq!(time(250), "250 ms");
        assert_eq!(time(12_300), "12.3 s");
        assert_eq!(time(3_600_000), "60 min");
    }
}
