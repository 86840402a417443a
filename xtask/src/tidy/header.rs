//! Every Rust file says its purpose first, and no file is called `mod.rs`.

use super::finding::Finding;

/// `foo.rs` beside `foo/`, never `foo/mod.rs`.
pub fn check_path(path: &str) -> Option<Finding> {
    let name = path.rsplit('/').next().unwrap_or(path);
    (name == "mod.rs").then(|| {
        Finding::new(
            path,
            0,
            "file named mod.rs",
            "name it after its folder, beside it",
        )
    })
}

/// The first line opens the module comment.
pub fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let opens = text
        .lines()
        .next()
        .is_some_and(|line| line.starts_with("//! ") && line.len() > 8);
    if opens {
        Vec::new()
    } else {
        vec![Finding::new(
            path,
            1,
            "does not open with its purpose",
            "begin with `//! ` and a sentence",
        )]
    }
}
