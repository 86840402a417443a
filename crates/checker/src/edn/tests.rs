//! There and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::append::Step;
use crate::history::{Kept, Of, Operation, Outcome};
use crate::register::{Answer, Ask};
use crate::{bank, set};

#[test]
fn calls_and_returns_stand_in_order_of_time() {
    let operation = |client, call_ns, return_ns, ask, outcome| Operation {
        client,
        node: 3,
        call_ns,
        return_ns,
        ask,
        outcome,
    };
    let history = vec![
        operation(1, 0, 7, Ask::Write(5), Outcome::Ok(Answer::Done)),
        operation(2, 2, 4, Ask::Read, Outcome::Ok(Answer::Value(Some(5)))),
        operation(
            3,
            4,
            9,
            Ask::Cas { from: None, to: 1 },
            Outcome::Unknown("said \"no\"".into()),
        ),
    ];
    let expected = "\
{:process 1, :type :invoke, :f :write, :value 5, :place 0, :time 0, :index 0}
{:process 2, :type :invoke, :f :read, :value nil, :place 1, :time 2, :index 1}
{:process 3, :type :invoke, :f :cas, :value {:from nil, :to 1}, :place 2, :time 4, :index 2}
{:process 2, :type :ok, :f :read, :value 5, :ask nil, :answer {:value 5}, :node 3, :place 1, :time 4, :index 3}
{:process 1, :type :ok, :f :write, :value 5, :ask 5, :answer \"done\", :node 3, :place 0, :time 7, :index 4}
{:process 3, :type :info, :f :cas, :value {:from nil, :to 1}, :ask {:from nil, :to 1}, :node 3, :error \"said \\\"no\\\"\", \
                    :place 2, :time 9, :index 5}
{:process :nemesis, :type :info, :f :beside, :value {:calm false}, :workload \"register\", :time 9, :index 6}
";
    let beside = json!({ "calm": false });
    assert_eq!(write("register", &history, &beside).expect("encodes"), expected);
    let kept = Kept {
        workload: "register".into(),
        operations: history,
        beside,
    };
    assert_eq!(read(expected), Ok(kept));
}

#[test]
fn keys_and_transactions_are_as_others_know_them() {
    let told = |ask: Value, answer: Value| {
        let operation = Operation {
            client: 1,
            node: 1,
            call_ns: 0,
            return_ns: 1,
            ask,
            outcome: Outcome::Ok(answer),
        };
        let text = write("any", &[operation], &()).expect("encodes");
        let line = text.lines().nth(1).expect("a return").to_owned();
        let from = line.find(":f ").expect("it has one");
        line[from..line.find(", :ask").expect("it has one")].to_owned()
    };
    let of = |ask: Ask| {
        json!(Of {
            key: "r1".into(),
            ask
        })
    };
    let read = Answer::Value(Some(7));
    assert_eq!(told(of(Ask::Read), json!(read)), ":f :read, :value [\"r1\" 7]");
    assert_eq!(
        told(of(Ask::Write(3)), json!(Answer::Done)),
        ":f :write, :value [\"r1\" 3]"
    );
    let step = |seen| Step::Read {
        key: "l1".into(),
        seen,
    };
    let append = Step::Append {
        key: "l2".into(),
        value: 5,
    };
    assert_eq!(
        told(json!([step(None), append]), json!([step(Some(vec![4])), append])),
        ":f :txn, :value [[:r \"l1\" [4]] [:append \"l2\" 5]]"
    );
}

/// Operations one after the other, each by a client of its own.
fn history<A, R>(operations: Vec<(A, Outcome<R>, u64)>) -> Vec<Operation<A, R>> {
    let operation = |(at, (ask, outcome, length)): (u64, (A, Outcome<R>, u64))| Operation {
        client: at,
        node: at % 3,
        call_ns: at * 5 % 17,
        return_ns: at * 5 % 17 + length,
        ask,
        outcome,
    };
    (0..).zip(operations).map(operation).collect()
}

fn outcome<R: Debug>(answer: impl Strategy<Value = R>) -> impl Strategy<Value = Outcome<R>> {
    prop_oneof![
        3 => answer.prop_map(Outcome::Ok),
        1 => ".{0,12}".prop_map(Outcome::Failed),
        1 => ".{0,12}".prop_map(Outcome::Unknown),
    ]
}

/// Writes and reads `operations`.
fn check<A, R>(operations: Vec<(A, Outcome<R>, u64)>)
where
    A: Serialize + DeserializeOwned + PartialEq + Debug,
    R: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let history = history(operations);
    let beside = BTreeMap::from([(7, vec!["seven".to_owned()])]);
    let text = write("any", &history, &beside).expect("encodes");
    let kept = Kept {
        workload: "any".into(),
        operations: history,
        beside,
    };
    assert_eq!(read(&text), Ok(kept), "{text}");
}

fn register() -> impl Strategy<Value = (Ask, Outcome<Answer>, u64)> {
    let ask = prop_oneof![
        Just(Ask::Read),
        any::<u64>().prop_map(Ask::Write),
        (any::<Option<u64>>(), any::<u64>()).prop_map(|(from, to)| Ask::Cas { from, to }),
        Just(Ask::Delete),
    ];
    let answer = prop_oneof![
        any::<Option<u64>>().prop_map(Answer::Value),
        Just(Answer::Done),
        any::<bool>().prop_map(Answer::Swapped),
    ];
    (ask, outcome(answer), 0..9u64)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seen = proptest::option::of(proptest::collection::vec(any::<u64>(), 0..3));
    let step = prop_oneof![
        (".{0,5}", seen).prop_map(|(key, seen)| Step::Read { key, seen }),
        (".{0,5}", any::<u64>()).prop_map(|(key, value)| Step::Append { key, value }),
    ];
    proptest::collection::vec(step, 0..4)
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![
            ".{0,6}",
            "[a-z_0-9-]{0,6}",
            any::<i64>().prop_map(|n| n.to_string())
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_comes_back(value in json_value()) {
        let text = edn(&value);
        let values = parse(&text).map(|values| values.into_iter().map(|(_, value)| value).collect());
        prop_assert_eq!(values, Ok(vec![value]), "{}", text);
    }

    #[test]
    fn registers_come_back(operations in proptest::collection::vec(register(), 0..12)) {
        check(operations.clone());
        let of = |(ask, outcome, length)| (Of { key: "r".into(), ask }, outcome, length);
        check(operations.into_iter().map(of).collect());
    }

    #[test]
    fn transactions_come_back(operations in proptest::collection::vec((steps(), outcome(steps()), 0..9u64), 0..6)) {
        check(operations);
    }

    #[test]
    fn banks_and_sets_come_back(balances: BTreeMap<u64, i64>, elements: BTreeSet<u64>, moved: bool) {
        let transfer = bank::Ask::Transfer { from: 1, to: 2, amount: 3 };
        check(vec![
            (bank::Ask::Read, Outcome::Ok(bank::Answer::Balances(balances)), 3),
            (transfer, Outcome::Ok(bank::Answer::Transferred(moved)), 3),
        ]);
        check(vec![
            (set::Ask::Add(1), Outcome::Ok(set::Answer::Added), 2),
            (set::Ask::Read, Outcome::Ok(set::Answer::Elements(elements)), 2),
        ]);
    }

    #[test]
    fn no_text_ends_the_reader(text in "[\\PC\\n:\"\\\\{}\\[\\]()#;,_ 0-9a-z-]{0,60}") {
        let _ = parse(&text);
        let _ = read::<Ask, Answer, ()>(&text);
    }
}

#[test]
fn what_others_write_is_read() {
    let text = "; a comment\n\
        #jepsen.history.Op{:index 0, :time 5, :type :invoke, :process 0, :f :txn, :value [[:r x nil] [:append 7 #{1}]]}\n\
        {:index 1 :time 6 :type :info :process :nemesis :f :kill :value {\"n1\" :killed}}\n\
        {:index 2 :time 7N, :type :ok, :process 0, :f :txn, :value ([:r x [1 2.5]] #_ gone [:append 7 \\a])}";
    let read = events(text).expect("readable");
    let value = |at: usize| read[at].value.clone();
    assert_eq!(read.len(), 2, "{read:?}");
    assert_eq!(value(0), json!([["r", "x", null], ["append", 7, [1]]]));
    assert_eq!(value(1), json!([["r", "x", [1, 2.5]], ["append", 7, "a"]]));
    assert_eq!((read[1].time_ns, read[1].kind), (7, Kind::Ok));
}

#[test]
fn what_is_no_history_is_refused() {
    let call = "{:process 1, :type :invoke, :f :read, :value nil, :place 0, :time 0}\n";
    let end = "{:process :nemesis, :type :info, :f :beside, :value nil, :workload \"register\"}\n";
    let returned = call.replace("invoke", "ok");
    let refused = |text: &str, why: &str| {
        let error = read::<Ask, Answer, ()>(text).expect_err(why).0;
        assert!(error.contains(why), "{error}");
    };
    refused("{:a 1", "line 1: it ends before its }");
    refused("{:a 1]", "] stands where } should");
    refused("\n\n}", "line 3: nothing is open");
    refused("{:a}", "a key without a value");
    refused("{:a 1 :a 2}", "a key stands twice");
    refused("\"open", "a text that does not end");
    refused("12x", "12x is no number");
    refused(&"[".repeat(100), "nested too deep");
    refused("{}\n[1]", "line 2: a history is made of maps");
    let ended = |text: &str| format!("{text}{end}");
    refused(&ended("{:process 1 :type :odd}"), "line 1: its :type is none of");
    refused(&ended(&call.replace(":read", ":sleep")), "nobody can ask :sleep");
    refused(&ended(&format!("{call}{call}")), "line 2: process 1 calls twice");
    refused(&ended(&returned), "line 1: process 1 did not call");
    refused(&ended(&call.replace(", :place 0", "")), "no :place");
    refused(
        &ended(&format!("{call}{returned}")),
        "line 2: process 1 at 0 ns: it has no :answer",
    );
    refused(call, "line 2: the history is cut off");
    refused("", "line 1: the history is cut off");
    refused(&end.replace(":workload", ":load"), "line 1: it has no :workload");
    refused(&end.replace("nil", "5"), "line 1: invalid type");
    let open = read::<Ask, Answer, ()>(&ended(call)).expect("a call that nobody answered");
    assert_eq!(open.operations[0].outcome, Outcome::Unknown("no answer".into()));
}
