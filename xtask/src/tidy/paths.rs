//! Nothing in the tree may point at one person's machine or at a private package mirror: a checkout has to
//! work anywhere. Also keeps the lock file on the public registry.

use super::finding::Finding;

/// Folders of particular machines. Spelled in pieces, so that this file passes its own check.
const FOLDERS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
];

/// Parts of host names of private registries.
const HOSTS: &[&str] = &[
    concat!("artif", "actory"),
    concat!("pkg", ".dev"),
    concat!("nexus", "-repo"),
];

/// The one source the lock file may name.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks any text file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        for folder in FOLDERS {
            if starts_a_path(line, folder) {
                let what = format!("names {folder}, a folder of one machine");
                findings.push(Finding::new(
                    path,
                    number,
                    what,
                    "take the place from an argument or variable",
                ));
            }
        }
        let lower = line.to_lowercase();
        for host in HOSTS {
            if lower.contains(host) {
                let what = format!("names the package host {host}");
                findings.push(Finding::new(
                    path,
                    number,
                    what,
                    "leave the registry to the machine's own settings",
                ));
            }
        }
        if path.ends_with("Cargo.lock") && line.starts_with("source = ") && !line.contains(REGISTRY) {
            let what = format!("locks a dependency from elsewhere: {line}");
            findings.push(Finding::new(
                path,
                number,
                what,
                "use the crate from the public registry",
            ));
        }
    }
    findings
}

/// Whether `folder` stands in `line` as the beginning of an absolute path, not inside a longer one.
fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-})~*".contains(c))
    })
}
