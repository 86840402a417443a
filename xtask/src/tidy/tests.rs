//! Every check on a few lines of made-up code: what it must find, and what it must leave alone.

use super::*;

/// The lines at which checking `text` as `path` finds something that mentions `about`.
fn lines(path: &str, text: &str, about: &str) -> Vec<usize> {
    let found = check_rust(path, text).into_iter().chain(paths::check(path, text));
    let shown = found
        .map(|finding| finding.to_string())
        .filter(|shown| shown.contains(about));
    shown
        .map(|shown| {
            shown
                .split(':')
                .nth(1)
                .and_then(|line| line.parse().ok())
                .expect("file:line:")
        })
        .collect()
}

fn check(path: &str, text: &str, about: &str, expected: &[usize]) {
    assert_eq!(lines(path, text, about), expected, "{path}: {about}\n{text}");
}

#[test]
fn a_file_opens_with_its_purpose() {
    check("crates/x/src/lib.rs", "//! Does a thing.\n", "purpose", &[]);
    check("crates/x/src/lib.rs", "use a;\n", "purpose", &[1]);
    check("crates/x/src/lib.rs", "//!\n", "purpose", &[1]);
    check("crates/x/src/lib.rs", "", "purpose", &[1]);
}

#[test]
fn no_file_is_named_mod() {
    assert!(header::check_path("crates/x/src/a/mod.rs").is_some());
    assert!(header::check_path("crates/x/src/a.rs").is_none());
}

#[test]
fn functions_end_at_seventy_lines() {
    let function = |body: usize| format!("//! About it.\nfn long() {{\n{}}}\n", "    x();\n".repeat(body));
    check("crates/x/src/lib.rs", &function(68), "function", &[]);
    check("crates/x/src/lib.rs", &function(69), "function", &[2]);
    check("crates/x/src/lib/tests.rs", &function(69), "function", &[]);
    check("tests/src/lib.rs", &function(69), "function", &[]);
    let method = function(69).replace("fn long", "impl A { fn long") + "}\n";
    check("crates/x/src/lib.rs", &method, "function", &[2]);
    let default = function(69).replace("fn long", "trait A { fn long") + "}\n";
    check("crates/x/src/lib.rs", &default, "function", &[2]);
}

#[test]
fn documentation_does_not_lengthen_a_function() {
    let text = format!("//! About it.\n{}fn short() {{}}\n", "/// Words.\n".repeat(90));
    check("crates/x/src/lib.rs", &text, "function", &[]);
}

#[test]
fn files_end_at_five_hundred_lines_before_tests() {
    let body = format!("//! About it.\n{}", "const A: u8 = 0;\n".repeat(499));
    check("crates/x/src/lib.rs", &body, "before tests", &[]);
    check(
        "crates/x/src/lib.rs",
        &(body.clone() + "\n\n"),
        "before tests",
        &[1],
    );
    let tests = "#[cfg(test)]\nmod tests {\n    fn a() {}\n}\n";
    check(
        "crates/x/src/lib.rs",
        &(body.clone() + tests),
        "before tests",
        &[],
    );
    check(
        "crates/x/src/a/tests.rs",
        &(body.clone() + &body[14..]),
        "before tests",
        &[],
    );
}

#[test]
fn long_inline_tests_move_out() {
    let tests = |n: usize| {
        format!(
            "//! About it.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    use a;\n".repeat(n)
        )
    };
    check("crates/x/src/lib.rs", &tests(97), "inline tests", &[]);
    check("crates/x/src/lib.rs", &tests(98), "inline tests", &[2]);
}

#[test]
fn banned_words_in_names() {
    let path = "crates/x/src/lib.rs";
    check(path, "//! About it.\nstruct LeaseManager;\n", "manager", &[2]);
    check(path, "//! About it.\nfn key_helpers() {}\n", "helper", &[2]);
    check(
        path,
        "//! About it.\nstruct A { region_id: u8 }\n",
        "region",
        &[2],
    );
    check(
        path,
        "//! About it.\nfn f() { let master = 1; }\n",
        "master",
        &[2],
    );
    check(path, "//! About it.\nuse a::b as misc;\n", "misc", &[2]);
    check(
        path,
        "//! About it.\nuse tokio_util::sync;\nfn utilization() {}\n",
        "the word",
        &[],
    );
    check(
        path,
        "//! About it.\n// The region manager.\nconst A: &str = \"helper\";\n",
        "the word",
        &[],
    );
    assert!(!words::check_path("crates/x/src/utils.rs").is_empty());
    assert!(words::check_path("crates/x/src/utilization.rs").is_empty());
}

#[test]
fn names_are_taken_apart() {
    assert_eq!(words::words_of("LeaseManager"), ["lease", "manager"]);
    assert_eq!(
        words::words_of("lease_manager-2.rs"),
        ["lease", "manager", "2", "rs"]
    );
    assert_eq!(words::words_of("__x"), ["x"]);
}

#[test]
fn the_pure_crates_are_pure() {
    let clock = "//! About it.\nuse std::time::{Duration, Instant};\n";
    check("crates/machine/src/a.rs", clock, "Instant", &[2]);
    check("crates/planner/src/a.rs", clock, "Instant", &[2]);
    check("crates/server/src/a.rs", clock, "Instant", &[]);
    check("crates/machine/src/a/tests.rs", clock, "Instant", &[]);
    check(
        "crates/machine/src/a.rs",
        "//! About it.\nasync fn f() {}\n",
        "async",
        &[2],
    );
    check(
        "crates/machine/src/a.rs",
        "//! About it.\nfn f() -> std::collections::HashMap<u8, u8> {}\n",
        "HashMap",
        &[2],
    );
    check(
        "crates/machine/src/a.rs",
        "//! About it.\nfn f(a: A) { a.net(); }\n",
        "pure",
        &[],
    );
    let tests = "//! About it.\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n";
    check("crates/machine/src/a.rs", tests, "HashMap", &[]);
}

#[test]
fn one_crate_names_openraft() {
    let text = "//! About openraft.\nuse openraft::Raft;\n";
    check("crates/raft/src/a.rs", text, "openraft", &[]);
    check("crates/server/src/a.rs", text, "outside crate", &[2]);
    check(
        "crates/server/src/a.rs",
        "//! About openraft.\nfn f() { let openraft = 1; }\n",
        "outside crate",
        &[],
    );
    check(
        "crates/server/src/a.rs",
        "//! About it.\nuse rocksdb::DB;\n",
        "outside crate",
        &[2],
    );
}

#[test]
fn sockets_are_opened_by_the_seam() {
    let text = "//! About it.\nuse tokio::net::TcpStream;\n";
    check("crates/server/src/a.rs", text, "seam", &[2]);
    check("crates/env/src/net.rs", text, "seam", &[]);
    check("crates/server/src/a/tests.rs", text, "seam", &[]);
}

#[test]
fn nothing_is_unfinished_or_skipped() {
    let path = "crates/x/src/lib.rs";
    check(path, "//! About it.\nfn f() { todo!() }\n", "todo", &[2]);
    check(
        path,
        "//! About it.\nfn f() {\n    unimplemented!(\"x\")\n}\n",
        "unimplemented",
        &[3],
    );
    check(path, "//! About it.\nfn f() { dbg!(1); }\n", "dbg", &[2]);
    check(
        path,
        "//! About it.\n// todo!\nfn todo() { todo(); }\n",
        "todo!",
        &[],
    );
    check(
        path,
        "//! About it.\n#[test]\n#[ignore]\nfn f() {}\n",
        "ignore",
        &[3],
    );
    check(
        path,
        "//! About it.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}\n",
        "ignore",
        &[3],
    );
    check(
        path,
        "//! About it.\nfn f() { let ignore = [1]; g([ignore]); }\n",
        "nobody",
        &[],
    );
}

#[test]
fn tests_wait_for_conditions() {
    let asleep = "//! About it.\nfn f() { std::thread::sleep(d); }\n";
    check("tests/tests/kill.rs", asleep, "sleep", &[2]);
    check("crates/x/src/a/tests.rs", asleep, "sleep", &[2]);
    check("crates/x/src/a.rs", asleep, "sleep", &[]);
    let polling = "//! About it.\nfn ready(limit: D) { loop { std::thread::sleep(d); } }\n";
    check("tests/src/lib.rs", polling, "sleep", &[]);
    let endless = "//! About it.\nfn ready() { loop { std::thread::sleep(d); } }\nfn limit() {}\n";
    check("tests/src/lib.rs", endless, "sleep", &[2]);
}

#[test]
fn no_machine_and_no_registry_is_named() {
    let folder = concat!("//! About it.\n// see /wo", "rk/here\n");
    check("crates/x/src/a.rs", folder, "one machine", &[2]);
    check(
        "crates/x/src/a.rs",
        concat!("//! About it.\n// see docs/wo", "rk/here\n"),
        "one machine",
        &[],
    );
    let host = concat!("//! About it.\n// https://x.Artif", "actory.example\n");
    check("crates/x/src/a.rs", host, "package host", &[2]);
    let lock = "[[package]]\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nsource = \"git+x\"\n";
    assert_eq!(paths::check("Cargo.lock", lock).len(), 1);
}

#[test]
fn the_layers_hold() {
    let members: Vec<String> = layers::members().map(str::to_string).collect();
    let found = |name: &str, dependency: &str| {
        let text = format!("[dependencies]\n{dependency}.workspace = true\n");
        let findings = layers::edges("x/Cargo.toml", &text, name, [dependency].into_iter(), &members);
        findings.iter().map(Finding::to_string).collect::<Vec<_>>()
    };
    assert!(found("machine", "types").is_empty());
    assert!(found("cli", "storage").is_empty());
    assert!(found("raft", "openraft").is_empty());
    assert!(found("machine", "storage")[0].starts_with("x/Cargo.toml:2: `machine` (layer 1) may not depend"));
    assert!(found("bench", "server")[0].contains("may not depend on `server`"));
    assert!(found("server", "client")[0].contains("may not depend on `client`"));
    assert!(found("server", "openraft")[0].contains("only raft"));
    assert!(found("storage", "anyhow")[0].contains("thiserror"));
    assert!(found("machine", "tokio")[0].contains("pure crate"));
    assert!(found("nowhere", "types")[0].contains("in no layer"));
}

#[test]
fn a_table_row_only_looks_down() {
    layers::assert_ordered();
}
