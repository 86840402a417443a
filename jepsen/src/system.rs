//! Other programs: run to their end, with what they said if they fail.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program and returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    feed(program, arguments, "")
}

/// The same with something to read.
pub fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(line)?;
    }
    let said = child.wait_with_output().with_context(line)?;
    ensure!(
        said.status.success(),
        "{}: {}: {}",
        line(),
        said.status,
        String::from_utf8_lossy(&said.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Runs `ip` with these words.
pub fn ip(words: &str) -> Result<()> {
    let arguments: Vec<&str> = words.split_whitespace().collect();
    run("ip", &arguments).map(drop)
}
