//! What is kept is judged as it was; what is changed by hand is found, and what is damaged is named.

use std::path::{Path, PathBuf};

use checker::history;
use checker::page::Background;
use serde_json::{Value, json};
use workload::Finding;
use workload::kept::{draw, keep, load};

/// An operation of a client of its own that ended well, as it stands in a file.
fn line(at: u64, ask: &Value, answer: &Value) -> String {
    json!({
        "client": at, "node": 1, "call_ns": at * 10, "return_ns": at * 10 + 5, "ask": ask, "outcome": { "ok": answer },
    })
    .to_string()
}

fn lines(workload: &str, operations: &[(Value, Value)], known: &Value) -> Vec<String> {
    let mut lines = vec![json!({ "format": history::FORMAT, "workload": workload }).to_string()];
    let operations = (1..).zip(operations);
    lines.extend(operations.map(|(at, (ask, answer))| line(at, ask, answer)));
    lines.push(format!(
        "{{\"beside\":{}}}",
        json!({ "calm": false, "known": known })
    ));
    lines
}

fn registers() -> Vec<String> {
    let of = |key: &str, ask: Value| json!({ "key": key, "ask": ask });
    let operations = [
        (of("r1", json!({ "write": 7 })), json!("done")),
        (of("r2", json!({ "write": 8 })), json!("done")),
        (of("r1", json!("read")), json!({ "value": 7 })),
        (
            of("r1", json!({ "cas": { "from": 7, "to": 9 } })),
            json!({ "swapped": true }),
        ),
        (of("r1", json!("read")), json!({ "value": 9 })),
    ];
    lines("register", &operations, &Value::Null)
}

fn kv() -> Vec<String> {
    let pair = |value: &str, modified: i64| {
        json!({
            "key": "k1", "value": value, "created": 2, "modified": modified, "version": modified - 1, "lease": 0,
        })
    };
    let put = |value: &str| json!({ "put": { "key": "k1", "value": value, "lease": 0 } });
    let range = json!({ "range": { "key": "k0", "end": "k5", "revision": 0, "serializable": false } });
    let answer = |revision: i64, body: Value| json!({ "revision": revision, "body": body });
    let operations = [
        (put("a"), answer(2, json!({ "put": null }))),
        (put("b"), answer(3, json!({ "put": pair("a", 2) }))),
        (range, answer(3, json!({ "range": [pair("b", 3)] }))),
    ];
    let log = json!({ "2": [{ "put": pair("a", 2) }], "3": [{ "put": pair("b", 3) }] });
    lines("kv", &operations, &log)
}

fn leases() -> Vec<String> {
    let of = |ask: &str| json!({ "key": "l1", "ask": ask });
    let operations = [
        (of("grant"), json!("done")),
        (of("keep_alive"), json!({ "alive": true })),
        (of("read"), json!({ "there": true })),
    ];
    lines("lease", &operations, &json!({ "l1": 3 }))
}

fn watches() -> Vec<String> {
    let event = |revision: i64| {
        let pair = json!({
            "key": "k01", "value": "v", "created": 2, "modified": revision, "version": revision - 1, "lease": 0,
        });
        json!({ "put": pair })
    };
    let told = |revision: i64| {
        let seen = json!({ "revision": revision, "event": event(revision), "previous": null });
        json!({ "told": { "events": { "events": [seen], "fragment": false } } })
    };
    let operations = [
        (json!({ "put": { "key": "k01", "value": "v" } }), json!("done")),
        (json!({ "watch": 0 }), told(2)),
        (json!({ "watch": 0 }), told(3)),
    ];
    let watch =
        json!({ "key": "k00", "end": "k09", "start": 2, "puts": true, "deletes": true, "previous": false });
    let log = json!([{ "2": [event(2)], "3": [event(3)] }, 3]);
    lines("watch", &operations, &json!({ "watches": [watch], "log": log }))
}

fn file(dir: &Path, lines: &[String]) -> PathBuf {
    let path = dir.join("kept.jsonl");
    std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    path
}

/// What is found in these lines, in both forms that they are kept in again, and the page that is drawn of it.
fn found(lines: &[String]) -> (Vec<Finding>, Option<String>) {
    let dir = tempfile::tempdir().expect("a folder");
    let workload = load(&file(dir.path(), lines)).expect("readable");
    let findings = workload.record().judge();
    keep(dir.path(), &*workload).expect("kept");
    for extension in ["jsonl", "edn"] {
        let again = dir.path().join(format!("{}.{extension}", workload.name()));
        let again = load(&again).expect("readable");
        assert_eq!(again.record().judge(), findings, "{extension}");
        assert_eq!(again.record().tally(), workload.record().tally(), "{extension}");
    }
    let drawn = draw(dir.path(), &*workload, &findings, &Background::default()).expect("drawn");
    let page = drawn
        .first()
        .map(|page| std::fs::read_to_string(page).expect("a page"));
    (findings, page)
}

#[test]
fn what_was_right_is_right_again() {
    for lines in [registers(), kv(), leases(), watches()] {
        assert_eq!(found(&lines), (Vec::new(), None), "{lines:?}");
    }
}

#[test]
fn what_is_changed_by_hand_is_found_and_drawn() {
    let check =
        |mut lines: Vec<String>, at: usize, change: &dyn Fn(&str) -> Option<String>, wanted: &[&str]| {
            match change(&lines[at]) {
                Some(changed) => lines[at] = changed,
                None => drop(lines.remove(at)),
            }
            let (findings, page) = found(&lines);
            let page = page.unwrap_or_default();
            assert!(!findings.is_empty(), "{lines:?}");
            for wanted in wanted {
                assert!(
                    page.contains(wanted),
                    "{wanted} is missing in {findings:?}\n{page}"
                );
            }
        };
    let dropped = |_: &str| None;
    let other = |from: &'static str, to: &'static str| {
        move |line: &str| {
            assert!(line.contains(from), "{line}");
            Some(line.replace(from, to))
        }
    };
    check(
        registers(),
        1,
        &dropped,
        &["<h1>register r1</h1>", "no order explains"],
    );
    check(
        registers(),
        5,
        &other("9}", "7}"),
        &["<h1>register r1</h1>", "class=\"order\">3 "],
    );
    // Nobody made what is in the log: who saw it first stands for it.
    check(kv(), 1, &dropped, &["<h1>kv k1</h1>", "nobody made revision 2"]);
    check(
        kv(),
        3,
        &other("\"b\"", "\"a\""),
        &["<h1>kv k0</h1>", "class=\"impossible\""],
    );
    check(
        leases(),
        3,
        &other("true", "false"),
        &["<h1>lease l1</h1>", "early"],
    );
    check(watches(), 2, &dropped, &["<h1>watch 0</h1>", "was left out"]);
}

#[test]
fn what_is_damaged_is_named_by_file_and_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let lines = registers();
    let refused = |path: &Path, wanted: &str| {
        let Err(error) = load(path) else {
            panic!("{wanted}: it was read");
        };
        let (file, text) = error.split_once(": ").expect("a file");
        assert_eq!(file, path.display().to_string());
        assert!(text.starts_with(wanted), "{text}");
    };
    refused(&file(dir.path(), &lines[..4]), "line 5: the history is cut off");
    let mut torn = lines.clone();
    torn[3].truncate(20);
    refused(&file(dir.path(), &torn), "line 4: ");
    refused(&file(dir.path(), &["{}".to_owned()]), "line 1: ");
    let mut other = lines.clone();
    other[0] = other[0].replace("register", "nothing");
    refused(&file(dir.path(), &other), "there is no workload \"nothing\"");
    refused(&dir.path().join("none.jsonl"), "");

    let workload = load(&file(dir.path(), &lines)).expect("readable");
    keep(dir.path(), &*workload).expect("kept");
    let path = dir.path().join("register.edn");
    let whole = std::fs::read_to_string(&path).expect("there");
    let lines: Vec<&str> = whole.lines().collect();
    std::fs::write(&path, lines[..6].join("\n")).expect("written");
    refused(&path, "line 7: the history is cut off");
    std::fs::write(&path, whole.replace(":f :cas", ":f :nothing")).expect("written");
    refused(&path, "line 8: ");
}
