//! What happens in a run, line by line: what processes log, what is done to them, what clients see. The same seed gives
//! the same lines; their hash says so without a file.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use xxhash_rust::xxh3::Xxh3;

/// The lines of a run.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    now_ms: u64,
    /// Since when the runtime's own time counts.
    begun: Option<Instant>,
    count: u64,
    hash: Xxh3,
    file: Option<std::io::BufWriter<std::fs::File>>,
    panic: Option<String>,
}

impl Trace {
    /// Begins a trace, written to `file` too if there is one. Takes what all hosts log, and what panics. Once in a
    /// process.
    pub fn begin(file: Option<std::fs::File>, level: Level) -> Trace {
        let trace = Trace(Arc::new(Mutex::new(Lines {
            now_ms: 0,
            begun: None,
            count: 0,
            hash: Xxh3::new(),
            file: file.map(std::io::BufWriter::new),
            panic: None,
        })));
        let layer = Events {
            trace: trace.clone(),
            level,
        };
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
        let hook = trace.clone();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.to_string();
            hook.note(&format!("panic: {text}"));
            let mut lines = hook.0.lock();
            lines.panic.get_or_insert(text);
        }));
        trace
    }

    /// It is now.
    pub fn at(&self, now_ms: u64) {
        self.0.lock().now_ms = now_ms;
    }

    /// From now on it is what the runtime says, on which everything runs.
    pub fn begin_time(&self) {
        self.0.lock().begun = Some(Instant::now());
    }

    /// Adds a line.
    pub fn note(&self, line: &str) {
        let mut lines = self.0.lock();
        if let (Some(begun), Ok(_)) = (lines.begun, Handle::try_current()) {
            lines.now_ms = begun.elapsed().as_millis() as u64;
        }
        let line = format!("{:>8} {line}\n", lines.now_ms);
        lines.count += 1;
        lines.hash.update(line.as_bytes());
        if let Some(file) = &mut lines.file {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// The first panic.
    pub fn panic(&self) -> Option<String> {
        self.0.lock().panic.clone()
    }

    /// Lines so far, and their hash. Flushes the file.
    pub fn digest(&self) -> (u64, u64) {
        let mut lines = self.0.lock();
        if let Some(file) = &mut lines.file {
            let _ = file.flush();
        }
        (lines.count, lines.hash.digest())
    }
}

/// Takes what is logged.
struct Events {
    trace: Trace,
    level: Level,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let target = metadata.target();
        let ours = ["raft", "server", "storage", "sim", "machine", "openraft"];
        metadata.is_span() && target.starts_with("turmoil")
            || *metadata.level() <= self.level && ours.iter().any(|name| target.starts_with(name))
    }

    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::Id,
        context: Context<'_, S>,
    ) {
        if attributes.metadata().name() != "node" {
            return;
        }
        let mut name = Text::default();
        attributes.record(&mut name);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Host(name.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let host = context.event_scope(event).and_then(|scope| {
            let mut scope = scope.from_root();
            scope.find_map(|span| span.extensions().get::<Host>().map(|host| host.0.clone()))
        });
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        self.trace.note(&format!(
            "{} {} {}{}",
            host.as_deref().unwrap_or("-").trim(),
            metadata.level(),
            metadata.target(),
            text.0
        ));
    }
}

struct Host(String);

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "name" => write!(self.0, "{value}"),
            name => write!(self.0, " {name}={value}"),
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            "name" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
