//! A store is judged as the run was.

use super::*;

const REGISTER: &str = "histories/register.jsonl";

/// The store of a run in which a register was written and read, with a fault and a leader.
fn store(broken: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
    std::fs::create_dir(dir.path().join(HISTORIES)).expect("made");
    let mut lines = vec![r#"{"format":2,"workload":"register"}"#.to_owned()];
    for at in 1..=20 {
        let (ask, answer) = match at % 2 {
            1 => (format!(r#"{{"write":{at}}}"#), r#""done""#.to_owned()),
            _ => (r#""read""#.to_owned(), format!(r#"{{"value":{}}}"#, at - 1)),
        };
        lines.push(format!(
            r#"{{"client":1,"node":1,"call_ns":{at}0,"return_ns":{at}5,"ask":{{"key":"r1","ask":{ask}}},"outcome":{{"ok":{answer}}}}}"#
        ));
    }
    lines.push(r#"{"beside":{"calm":false,"known":null}}"#.to_owned());
    write(REGISTER, lines.join("\n"));
    let evidence = Evidence {
        workloads: [("register".to_owned(), Judged::default())].into(),
        broken: broken.iter().map(|text| (*text).to_owned()).collect(),
        rate: 2.0,
        seconds: 5.0,
        ..Evidence::default()
    };
    write(EVIDENCE, serde_json::to_string(&evidence).expect("encodes"));
    write(PARTITIONS, r#"{"register":3}"#.into());
    let led = r#"{"partition":3,"node":2,"term":5,"from_ms":0,"to_ms":9}"#;
    write(
        LEADERS,
        format!("{led}\n{}\n", led.replace(":3", ":4").replace(":5", ":6")),
    );
    let fault = r#"{"from_ms":0,"to_ms":1,"kind":"cut","text":"cut [2]","seen":null}"#;
    write(FAULTS, format!("{fault}\n"));
    dir
}

#[test]
fn a_store_is_judged_as_the_run_was() {
    let verdict = |dir: &Path| again(dir, false).map(|judgement| judgement.verdict);
    let dir = store(&[]);
    assert_eq!(verdict(dir.path()).expect("judged"), Verdict::Passed);
    assert_eq!(
        verdict(&dir.path().join(REGISTER)).expect("judged"),
        Verdict::Passed
    );
    assert_eq!(
        verdict(store(&["a panic"]).path()).expect("judged"),
        Verdict::Violated
    );

    // Half of the answers: too few for the rate that was wanted.
    let path = dir.path().join(REGISTER);
    let whole = std::fs::read_to_string(&path).expect("there");
    let lines: Vec<&str> = whole.lines().collect();
    let half = [&lines[..5], &lines[21..]].concat().join("\n");
    std::fs::write(&path, half).expect("written");
    assert_eq!(verdict(dir.path()).expect("judged"), Verdict::Inconclusive);

    std::fs::write(&path, lines[..9].join("\n")).expect("written");
    let error = verdict(dir.path()).expect_err("cut off").to_string();
    assert!(
        error.ends_with("register.jsonl: line 10: the history is cut off: its end is missing"),
        "{error}"
    );
    std::fs::rename(&path, dir.path().join("histories/other.txt")).expect("moved");
    assert!(verdict(dir.path()).is_err(), "there is no history");
}

#[test]
fn what_is_found_wrong_is_drawn_with_what_was_behind_it() {
    let dir = store(&[]);
    let path = dir.path().join(REGISTER);
    let whole = std::fs::read_to_string(&path).expect("there");
    std::fs::write(&path, whole.replace(r#"{"value":7}"#, r#"{"value":8}"#)).expect("written");
    let judgement = again(dir.path(), true).expect("judged");
    assert_eq!(judgement.verdict, Verdict::Violated);
    let page = std::fs::read_to_string(dir.path().join("pages/register-r1.html")).expect("a page");
    for wanted in [
        "register r1",
        "node 2 led in term 5",
        "cut [2]",
        "{&quot;value&quot;:8}",
    ] {
        assert!(page.contains(wanted), "{wanted} is missing in {page}");
    }
    assert!(!page.contains("term 6"), "of another partition");
    let overview = std::fs::read_to_string(dir.path().join("pages/overview.html")).expect("a page");
    assert!(overview.contains("Violated"), "{overview}");
}
