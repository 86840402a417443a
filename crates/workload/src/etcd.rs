//! Questions of the revision-order judge as calls of etcd's client, and its answers as the judge's.

use checker::history::Outcome;
use checker::revision::{Answer, Ask, Body, Compare, Pair};
use etcd_client::{
    Client, Compare as EtcdCompare, CompareOp, DeleteOptions, GetOptions, KeyValue, PutOptions,
    ResponseHeader, Txn, TxnOp, TxnOpResponse,
};

use crate::record::fate;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A pair as etcd tells it.
pub fn pair(kv: &KeyValue) -> Pair {
    Pair {
        key: text(kv.key()),
        value: text(kv.value()),
        created: kv.create_revision(),
        modified: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

/// Asks, and returns the answer as the judge takes it. An answer without a header says nothing.
pub async fn ask(client: &mut Client, ask: &Ask) -> Result<Answer, Outcome<()>> {
    let failed = |error: etcd_client::Error| fate(&error);
    let (header, body) = match ask {
        Ask::Range {
            key,
            end,
            revision,
            serializable,
        } => {
            let mut options = range_options(end.as_deref()).with_revision(*revision);
            if *serializable {
                options = options.with_serializable();
            }
            let got = client.get(key.as_str(), Some(options)).await.map_err(failed)?;
            (
                got.header().cloned(),
                Body::Range(got.kvs().iter().map(pair).collect()),
            )
        }
        Ask::Put { key, value, lease } => {
            let options = PutOptions::new().with_prev_key().with_lease(*lease);
            let put = client.put(key.as_str(), value.as_str(), Some(options));
            let put = put.await.map_err(failed)?;
            (put.header().cloned(), Body::Put(put.prev_key().map(pair)))
        }
        Ask::Delete { key, end } => {
            let deleted = client.delete(key.as_str(), Some(delete_options(end.as_deref())));
            let deleted = deleted.await.map_err(failed)?;
            let gone = deleted.prev_kvs().iter().map(pair).collect();
            (deleted.header().cloned(), Body::Deleted(gone))
        }
        Ask::Txn { .. } => {
            let done = client.txn(txn(ask)).await.map_err(failed)?;
            let body = Body::Txn {
                succeeded: done.succeeded(),
                responses: done.op_responses().into_iter().map(response).collect(),
            };
            (done.header().cloned(), body)
        }
    };
    let revision = header.as_ref().map(ResponseHeader::revision);
    let revision = revision.ok_or_else(|| Outcome::Unknown("an answer without a header".into()))?;
    Ok(Answer { revision, body })
}

fn range_options(end: Option<&str>) -> GetOptions {
    match end {
        Some(end) => GetOptions::new().with_range(end),
        None => GetOptions::new(),
    }
}

fn delete_options(end: Option<&str>) -> DeleteOptions {
    let options = DeleteOptions::new().with_prev_key();
    match end {
        Some(end) => options.with_range(end),
        None => options,
    }
}

fn txn(ask: &Ask) -> Txn {
    let Ask::Txn {
        compare,
        success,
        failure,
    } = ask
    else {
        return Txn::new().and_then([operation(ask)]);
    };
    Txn::new()
        .when(compare.iter().map(comparison).collect::<Vec<_>>())
        .and_then(success.iter().map(operation).collect::<Vec<_>>())
        .or_else(failure.iter().map(operation).collect::<Vec<_>>())
}

fn operation(ask: &Ask) -> TxnOp {
    match ask {
        Ask::Range { key, end, .. } => TxnOp::get(key.as_str(), Some(range_options(end.as_deref()))),
        Ask::Put { key, value, lease } => {
            let options = PutOptions::new().with_prev_key().with_lease(*lease);
            TxnOp::put(key.as_str(), value.as_str(), Some(options))
        }
        Ask::Delete { key, end } => TxnOp::delete(key.as_str(), Some(delete_options(end.as_deref()))),
        Ask::Txn { .. } => TxnOp::txn(txn(ask)),
    }
}

fn comparison(compare: &Compare) -> EtcdCompare {
    match compare {
        Compare::Value { key, value } => EtcdCompare::value(key.as_str(), CompareOp::Equal, value.as_str()),
        Compare::Modified { key, revision } => {
            EtcdCompare::mod_revision(key.as_str(), CompareOp::Equal, *revision)
        }
        Compare::Version { key, version } => EtcdCompare::version(key.as_str(), CompareOp::Equal, *version),
    }
}

fn response(response: TxnOpResponse) -> Body {
    match response {
        TxnOpResponse::Get(got) => Body::Range(got.kvs().iter().map(pair).collect()),
        TxnOpResponse::Put(put) => Body::Put(put.prev_key().map(pair)),
        TxnOpResponse::Delete(deleted) => Body::Deleted(deleted.prev_kvs().iter().map(pair).collect()),
        TxnOpResponse::Txn(done) => Body::Txn {
            succeeded: done.succeeded(),
            responses: done.op_responses().into_iter().map(self::response).collect(),
        },
    }
}
