//! A tour of a running cluster: `cargo run --release -p client --example cluster -- 127.0.0.1:2379`.

use client::{Client, ErrorKind, NewNamespace, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        endpoints.push("127.0.0.1:2379".to_owned());
    }
    let cluster = Client::new(&endpoints, Options::default())?;

    let status = cluster.status().await?;
    println!(
        "cluster {:016x}, {} nodes, {} partitions",
        status.cluster_id, status.nodes, status.partitions
    );
    for node in cluster.nodes().await? {
        println!(
            "node {} at {}: {}, leads {}",
            node.id, node.client_address, node.detector, node.leaders
        );
    }

    // A write: safe to retry, since it carries a session's number.
    let namespace = cluster.put_namespace(NewNamespace::named("example")).await?;
    println!("namespace {} has number {}", namespace.name, namespace.id);

    // Errors say what to do next.
    let mut again = NewNamespace::named("example");
    again.create_only = true;
    match cluster.put_namespace(again).await {
        Err(error) if error.kind == ErrorKind::Refused => println!("as it should be: {error}"),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("a namespace was created twice".into()),
    }

    // Keys, with etcd's own client.
    let mut kv = cluster.kv("example").await?;
    let put = kv.put("greeting", "hello", None).await?;
    println!("revision {}", put.header().map_or(0, |header| header.revision()));
    let got = kv.get("greeting", None).await?;
    println!(
        "{}",
        got.kvs()
            .first()
            .map_or("nothing", |pair| pair.value_str().unwrap_or("not text"))
    );
    Ok(())
}
