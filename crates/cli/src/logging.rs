//! Logs of a controller: to stderr, pretty on a terminal, one JSON object per line else.

use crate::failure::{Failure, Result};
use server::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging for the life of the process.
pub fn start(config: &LogConfig) -> Result {
    let filter = filter(&config.level).map_err(|error| Failure::usage(format!("log.level: {error}")))?;
    let terminal = std::io::stderr().is_terminal();
    let pretty = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let result = if pretty {
        base.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
            .try_init()
    } else {
        base.json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    };
    result.map_err(|error| Failure::failed(format!("cannot start logging: {error}")))
}

/// What `log.level` lets through, or what is wrong with it.
pub fn filter(level: &str) -> std::result::Result<EnvFilter, String> {
    // To the library a lone word that is no level is a module, of which everything is logged and nothing else.
    let mut words = level.split(',').map(str::trim);
    if !level.contains('[')
        && let Some(word) = words.find(|word| !word.contains('=') && word.parse::<LevelFilter>().is_err())
    {
        return Err(format!(
            "'{word}' is no level: use error, warn, info, debug or trace, or module=level,..."
        ));
    }
    EnvFilter::try_new(directives(level)).map_err(|error| error.to_string())
}

/// A plain level is ours; Raft's library says little below it, being wordy. Directives are taken as they are.
fn directives(level: &str) -> String {
    match level.trim() {
        "info" => "info,openraft=warn".to_owned(),
        "debug" => "debug,openraft=info,h2=info,hyper=info,tower=info".to_owned(),
        other => other.to_owned(),
    }
}

/// A panic is a broken invariant: it is logged, and the process ends at once, so that its peers take over from a
/// node that is gone rather than half alive.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic".to_owned());
        let trace = std::backtrace::Backtrace::force_capture();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, %trace, "panic: {text}");
        eprintln!("panic at {place}: {text}");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn levels_and_directives_are_filters() {
        for level in ["error", "warn", "info", "debug", "trace", "info,raft=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for wrong in ["inof", "info,raft", "raft=loud", "a=b=c"] {
            assert!(filter(wrong).is_err(), "{wrong:?}");
        }
    }

    /// In a process of its own, which is this test once more.
    #[test]
    fn a_task_that_panics_ends_the_process() {
        const CHILD: &str = "HOLDFAST_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            abort_on_panic();
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let task = runtime.spawn(async { panic!("a broken invariant") });
            let _ = runtime.block_on(task);
            return;
        }
        let me = std::env::current_exe().expect("a test");
        let ended = std::process::Command::new(me)
            .args([
                "--exact",
                "logging::tests::a_task_that_panics_ends_the_process",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&ended.stderr);
        // SIGABRT
        assert_eq!(ended.status.signal(), Some(6), "{said}");
        assert!(said.contains("a broken invariant"), "{said}");
    }
}
