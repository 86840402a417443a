//! What a client library sends: keys, transactions, leases, history, with every option.

use std::time::Duration;

use anyhow::{Result, bail};
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions,
    LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
    WatchFilterType, WatchOptions,
};
use tokio::time::timeout;

use super::{Pair, refusal};

/// One request, and how its answer reads.
enum Step {
    Put(&'static str, &'static str, PutOptions),
    Get(&'static str, GetOptions),
    Delete(&'static str, DeleteOptions),
    Txn(Txn),
    Compact(i64, CompactionOptions),
    Grant(i64, i64),
    Revoke(i64),
    KeepAlive(i64),
    TimeToLive(i64),
    Leases,
    /// Watch from a revision until this many events came, or it was cancelled.
    Watch(&'static str, WatchOptions, usize),
}

fn header(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(-1, etcd_client::ResponseHeader::revision)
}

fn kv(kv: &etcd_client::KeyValue) -> String {
    format!(
        "{}={} c{} m{} v{} l{}",
        String::from_utf8_lossy(kv.key()),
        String::from_utf8_lossy(kv.value()),
        kv.create_revision(),
        kv.mod_revision(),
        kv.version(),
        kv.lease()
    )
}

fn kvs(list: &[etcd_client::KeyValue]) -> String {
    list.iter().map(kv).collect::<Vec<_>>().join(", ")
}

fn branch(responses: Vec<TxnOpResponse>) -> String {
    let parts: Vec<String> = responses
        .into_iter()
        .map(|response| match response {
            TxnOpResponse::Put(r) => format!("put@{} {:?}", header(r.header()), r.prev_key().map(kv)),
            TxnOpResponse::Get(r) => {
                format!(
                    "get@{} {} more {} [{}]",
                    header(r.header()),
                    r.count(),
                    r.more(),
                    kvs(r.kvs())
                )
            }
            TxnOpResponse::Delete(r) => {
                format!(
                    "del@{} {} [{}]",
                    header(r.header()),
                    r.deleted(),
                    kvs(r.prev_kvs())
                )
            }
            TxnOpResponse::Txn(r) => format!("txn {} ({})", r.succeeded(), branch(r.op_responses())),
        })
        .collect();
    parts.join("; ")
}

async fn run(client: &mut Client, step: &Step) -> Result<String> {
    match answer(client, step).await {
        Ok(text) => Ok(text),
        Err(Error::GRpcStatus(status)) => refusal(&status),
        Err(other) => bail!("no server said this: {other}"),
    }
}

async fn answer(client: &mut Client, step: &Step) -> Result<String, Error> {
    Ok(match step {
        Step::Put(key, value, options) => {
            let r = client.put(*key, *value, Some(options.clone())).await?;
            format!("put@{} {:?}", header(r.header()), r.prev_key().map(kv))
        }
        Step::Get(key, options) => {
            let r = client.get(*key, Some(options.clone())).await?;
            format!(
                "get@{} {} more {} [{}]",
                header(r.header()),
                r.count(),
                r.more(),
                kvs(r.kvs())
            )
        }
        Step::Delete(key, options) => {
            let r = client.delete(*key, Some(options.clone())).await?;
            format!(
                "del@{} {} [{}]",
                header(r.header()),
                r.deleted(),
                kvs(r.prev_kvs())
            )
        }
        Step::Txn(txn) => {
            let r = client.txn(txn.clone()).await?;
            format!(
                "txn@{} {} ({})",
                header(r.header()),
                r.succeeded(),
                branch(r.op_responses())
            )
        }
        Step::Compact(revision, options) => {
            format!(
                "compact@{}",
                header(client.compact(*revision, Some(options.clone())).await?.header())
            )
        }
        Step::Grant(ttl, id) => {
            let r = client
                .lease_grant(*ttl, Some(LeaseGrantOptions::new().with_id(*id)))
                .await?;
            format!(
                "grant {} ttl {} @{} {}",
                r.id(),
                r.ttl(),
                header(r.header()),
                r.error()
            )
        }
        Step::Revoke(id) => format!("revoke@{}", header(client.lease_revoke(*id).await?.header())),
        Step::KeepAlive(id) => {
            let (mut keeper, mut stream) = client.lease_keep_alive(*id).await?;
            keeper.keep_alive().await?;
            let r = stream.message().await?;
            format!("alive {:?}", r.map(|r| (r.id(), r.ttl())))
        }
        Step::TimeToLive(id) => {
            let r = client
                .lease_time_to_live(*id, Some(LeaseTimeToLiveOptions::new().with_keys()))
                .await?;
            let mut keys: Vec<_> = r
                .keys()
                .iter()
                .map(|k| String::from_utf8_lossy(k).to_string())
                .collect();
            // etcd tells them in no order.
            keys.sort_unstable();
            // The remaining time moves on between the two; that it is there, and below what was granted, does not.
            format!(
                "ttl {} granted {} left {} {keys:?}",
                r.id(),
                r.granted_ttl(),
                r.ttl() > 0
            )
        }
        Step::Leases => {
            let mut ids: Vec<i64> = client.leases().await?.leases().iter().map(|l| l.id()).collect();
            ids.sort_unstable();
            format!("leases {ids:?}")
        }
        Step::Watch(key, options, events) => watch(client, key, options, *events).await?,
    })
}

async fn watch(
    client: &mut Client,
    key: &str,
    options: &WatchOptions,
    wanted: usize,
) -> Result<String, Error> {
    let mut stream = client.watch(key, Some(options.clone())).await?;
    let mut out = Vec::new();
    let mut seen = 0;
    while seen < wanted.max(1) {
        let Ok(message) = timeout(Duration::from_secs(5), stream.message()).await else {
            out.push("nothing more".to_string());
            break;
        };
        let Some(response) = message? else { break };
        if response.canceled() {
            out.push(format!(
                "canceled at {}: {}",
                response.compact_revision(),
                response.cancel_reason()
            ));
            break;
        }
        for event in response.events() {
            seen += 1;
            let kind = if event.event_type() == EventType::Put {
                "put"
            } else {
                "del"
            };
            out.push(format!(
                "{kind} {:?} was {:?}",
                event.kv().map(kv),
                event.prev_kv().map(kv)
            ));
        }
        if response.created() {
            out.push(format!("created {}", response.watch_id()));
            if wanted == 0 {
                break;
            }
        }
    }
    Ok(out.join(" | "))
}

fn put(key: &'static str, value: &'static str) -> Step {
    Step::Put(key, value, PutOptions::new())
}

fn get(key: &'static str) -> Step {
    Step::Get(key, GetOptions::new())
}

fn prefix() -> GetOptions {
    GetOptions::new().with_prefix()
}

/// Puts, gets and deletes, with every option.
fn keys() -> Vec<Step> {
    let sorted = |target, order| Step::Get("s/", prefix().with_sort(target, order));
    let mut steps = vec![
        get("a"),
        put("a", "1"),
        put("a", "2"),
        Step::Put("a", "3", PutOptions::new().with_prev_key()),
        Step::Put("a", "", PutOptions::new().with_ignore_value()),
        Step::Put("a", "x", PutOptions::new().with_ignore_value()),
        Step::Put("none", "", PutOptions::new().with_ignore_value()),
        Step::Put("none", "x", PutOptions::new().with_ignore_lease()),
        Step::Put("", "x", PutOptions::new()),
        Step::Put("a", "x", PutOptions::new().with_lease(404)),
        get("a"),
        get(""),
        Step::Get("a", GetOptions::new().with_revision(2)),
        Step::Get("a", GetOptions::new().with_revision(3).with_serializable()),
        Step::Get("a", GetOptions::new().with_revision(999)),
        Step::Delete("none", DeleteOptions::new()),
        put("s/1", "z"),
        put("s/3", "y"),
        put("s/2", "x"),
        put("s/2", "w"),
        Step::Get("s/", prefix()),
        Step::Get("s/", prefix().with_limit(2)),
        Step::Get("s/", prefix().with_keys_only()),
        Step::Get("s/", prefix().with_count_only()),
        Step::Get("s/", prefix().with_min_mod_revision(8)),
        Step::Get("s/", prefix().with_max_mod_revision(7)),
        Step::Get("s/", prefix().with_min_create_revision(8)),
        Step::Get("s/", prefix().with_max_create_revision(7)),
        Step::Get("s/", prefix().with_limit(1).with_min_mod_revision(7)),
        Step::Get(
            "s/",
            prefix()
                .with_limit(1)
                .with_sort(SortTarget::Mod, SortOrder::Descend),
        ),
        Step::Get("s/2", GetOptions::new().with_from_key()),
        Step::Get("s/2", GetOptions::new().with_range("s/3")),
        Step::Get("s/3", GetOptions::new().with_range("s/1")),
        Step::Get("", GetOptions::new().with_all_keys()),
        Step::Delete("s/2", DeleteOptions::new().with_prev_key()),
        Step::Get("s/", prefix().with_revision(9)),
        put("s/2", "again"),
        Step::Delete("s/", DeleteOptions::new().with_prefix().with_prev_key()),
        Step::Get("s/", prefix()),
        Step::Delete("", DeleteOptions::new()),
    ];
    for target in [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ] {
        steps.push(put("s/1", "b"));
        steps.push(put("s/2", "a"));
        steps.push(sorted(target, SortOrder::Ascend));
        steps.push(sorted(target, SortOrder::Descend));
        steps.push(sorted(target, SortOrder::None));
    }
    steps
}

/// Transactions: every compare target and result, ranges, nesting, effects within, refusals.
fn transactions() -> Vec<Step> {
    let single = |compare: Compare| {
        Step::Txn(
            Txn::new()
                .when([compare])
                .and_then([TxnOp::put("t/yes", "1", None), TxnOp::get("t/", Some(prefix()))])
                .or_else([TxnOp::get("t/yes", None)]),
        )
    };
    let mut steps = vec![put("t/a", "10"), put("t/b", "20"), put("t/b", "21")];
    for op in [
        CompareOp::Equal,
        CompareOp::Greater,
        CompareOp::Less,
        CompareOp::NotEqual,
    ] {
        steps.push(single(Compare::version("t/b", op, 2)));
        steps.push(single(Compare::create_revision("t/missing", op, 0)));
        steps.push(single(Compare::mod_revision("t/a", op, 30)));
        steps.push(single(Compare::value("t/a", op, "10")));
        steps.push(single(Compare::value("t/missing", op, "10")));
        steps.push(single(Compare::lease("t/a", op, 0)));
        steps.push(single(Compare::version("t/", op, 1).with_prefix()));
        steps.push(single(Compare::value("zzz", op, "1").with_prefix()));
    }
    let nested = Txn::new()
        .when([Compare::version("t/n", CompareOp::Equal, 0)])
        .and_then([
            TxnOp::put("t/n", "in", None),
            TxnOp::delete("t/b", Some(DeleteOptions::new().with_prev_key())),
        ])
        .or_else([TxnOp::get("t/n", None)]);
    let many = |n: usize| {
        (0..n)
            .map(|i| TxnOp::put(format!("many/{i}"), "v", None))
            .collect::<Vec<_>>()
    };
    steps.extend([
        Step::Txn(Txn::new().and_then([TxnOp::put("t/c", "1", None), TxnOp::txn(nested.clone())])),
        Step::Txn(Txn::new().and_then([TxnOp::txn(nested)])),
        Step::Txn(Txn::new().and_then([TxnOp::put("t/d", "1", None), TxnOp::put("t/d", "2", None)])),
        Step::Txn(Txn::new().and_then([
            TxnOp::put("t/d", "1", None),
            TxnOp::delete("t/", Some(DeleteOptions::new().with_prefix())),
        ])),
        Step::Txn(Txn::new().and_then([TxnOp::put("", "1", None)])),
        Step::Txn(Txn::new().and_then([TxnOp::get("t/a", Some(GetOptions::new().with_revision(9999)))])),
        Step::Txn(Txn::new().and_then([TxnOp::put("t/l", "1", Some(PutOptions::new().with_lease(404)))])),
        Step::Txn(Txn::new()),
        Step::Txn(Txn::new().and_then([TxnOp::delete("t/none", None)])),
        Step::Txn(Txn::new().and_then(many(100))),
        Step::Get("t/", prefix()),
    ]);
    steps
}

/// Leases and the keys on them.
fn leases() -> Vec<Step> {
    vec![
        Step::Grant(100, 7),
        Step::Grant(100, 7),
        Step::Grant(9_000_000_001, 8),
        Step::Grant(0, 9),
        Step::Put("l/1", "a", PutOptions::new().with_lease(7)),
        Step::Put("l/2", "b", PutOptions::new().with_lease(7)),
        Step::TimeToLive(7),
        Step::TimeToLive(404),
        Step::KeepAlive(7),
        Step::Put("l/2", "c", PutOptions::new().with_ignore_lease()),
        Step::Put("l/2", "d", PutOptions::new()),
        Step::TimeToLive(7),
        Step::Leases,
        Step::Revoke(7),
        Step::Revoke(7),
        Step::Get("l/", prefix()),
        Step::Leases,
    ]
}

/// Watches of the past, filters, and compaction.
fn history() -> Vec<Step> {
    let from = |revision| WatchOptions::new().with_start_revision(revision);
    vec![
        put("w/1", "a"),
        put("w/2", "b"),
        put("w/1", "c"),
        Step::Delete("w/1", DeleteOptions::new()),
        Step::Watch("w/1", from(2), 3),
        Step::Watch("w/1", from(2).with_prev_key(), 3),
        Step::Watch("w/", from(2).with_prefix(), 4),
        Step::Watch(
            "w/",
            from(2).with_prefix().with_filters([WatchFilterType::NoPut]),
            1,
        ),
        Step::Watch(
            "w/",
            from(2).with_prefix().with_filters([WatchFilterType::NoDelete]),
            3,
        ),
        Step::Watch("w/", WatchOptions::new().with_prefix(), 0),
        Step::Watch("w/9", WatchOptions::new().with_watch_id(5), 0),
        Step::Watch("w/", from(-1).with_prefix(), 1),
        Step::Watch("w/", from(-2).with_prefix(), 1),
        Step::Compact(5, CompactionOptions::new()),
        Step::Compact(5, CompactionOptions::new()),
        Step::Compact(99_999, CompactionOptions::new()),
        Step::Get("a", GetOptions::new().with_revision(4)),
        Step::Get("a", GetOptions::new().with_revision(5)),
        Step::Watch("w/", from(2).with_prefix(), 4),
        Step::Watch("w/", from(-1).with_prefix(), 1),
        Step::Watch("w/", from(-2).with_prefix(), 1),
        Step::Compact(40, CompactionOptions::new().with_physical()),
        Step::Get("", GetOptions::new().with_all_keys().with_revision(40)),
        Step::Get("", GetOptions::new().with_all_keys()),
    ]
}

/// Runs every step on both.
pub async fn compare(pair: &mut Pair) -> Result<()> {
    let mut etcd = tests::etcd::connect(&pair.etcd.endpoint).await?;
    let steps = [keys(), transactions(), leases(), history()];
    for (number, step) in steps.into_iter().flatten().enumerate() {
        let mut ours = tests::etcd::connect(pair.ours()).await?;
        let expected = run(&mut etcd, &step).await?;
        let got = run(&mut ours, &step).await?;
        pair.compare(&format!("step {number}"), &expected, &got);
    }
    Ok(())
}
