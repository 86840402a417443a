//! Runs every check over the tracked files and prints what it found. Each check is a function from text to
//! findings, so that each can be tested on a few lines of made-up code.

mod bans;
mod finding;
mod header;
pub mod layers;
mod paths;
mod size;
mod source;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitCode;

use finding::Finding;
use source::Source;

/// Checks the repository at `root`.
pub fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let files = source::tracked(root)?;
    let mut findings = layers::check(root)?;
    let mut rust_files = 0;
    for path in &files {
        findings.extend(words::check_path(path));
        findings.extend(header::check_path(path));
        let Some(text) = source::read_text(root, path)? else {
            continue;
        };
        findings.extend(paths::check(path, &text));
        if path.ends_with(".rs") {
            rust_files += 1;
            findings.extend(check_rust(path, &text));
        }
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!(
            "tidy: {} files ({rust_files} of Rust), nothing to say",
            files.len()
        );
        Ok(ExitCode::SUCCESS)
    } else {
        println!("tidy: {} findings in {} files", findings.len(), files.len());
        Ok(ExitCode::FAILURE)
    }
}

/// Every check of one Rust file.
fn check_rust(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = header::check_text(path, text);
    match Source::parse(path, text) {
        Ok(source) => {
            findings.extend(size::check(&source));
            findings.extend(words::check(&source));
            findings.extend(bans::check(&source));
        }
        Err(error) => findings.push(Finding::new(
            path,
            error.span().start().line,
            format!("cannot be parsed: {error}"),
            "make it compile first",
        )),
    }
    findings
}
