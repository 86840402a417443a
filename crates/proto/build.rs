//! Generates the messages and services of `proto/`. etcd's own come from crate `etcd-client`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../proto");
    // File by file: Cargo does not look into the folder when one of its files changes.
    let for_clients = [
        "holdfast/v1/cluster.proto",
        "etcd/v3lock.proto",
        "etcd/v3election.proto",
    ];
    let for_clients = for_clients.map(|file| root.join(file));
    let for_peers = root.join("holdfast/peer/v1/peer.proto");
    for file in for_clients.iter().chain([&for_peers]) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("holdfast.bin");
    tonic_prost_build::configure()
        // For the command line's JSON.
        .type_attribute(".holdfast.v1", "#[derive(serde::Serialize)]")
        .file_descriptor_set_path(descriptors)
        .compile_protos(&for_clients, std::slice::from_ref(&root))?;
    tonic_prost_build::configure()
        .bytes(".holdfast.peer.v1")
        .compile_protos(&[for_peers], &[root])?;
    Ok(())
}
