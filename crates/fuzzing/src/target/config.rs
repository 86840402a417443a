//! A settings file: read or refused by name, every fault told, the same after it was written.

use server::config::{Config, validate};

/// The file's text.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(error) => return assert!(!error.message().is_empty()),
    };
    let faults = validate(&config);
    assert_eq!(validate(&config), faults);
    assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
    let written = config.to_toml();
    assert_eq!(Config::parse(&written).as_ref(), Ok(&config), "{written}");
    for address in [
        config.advertised_client(),
        config.advertised_peer(),
        config.advertised_http(),
    ] {
        assert!(faults.len() + address.len() > 0, "an empty address passes");
    }
}

/// The defaults, one fault, every section in short.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        Config::default().to_toml(),
        String::new(),
        "[node]\nid = 3\nname = \"a\"\n[cluster]\njoin = [\"b:2380\", \"c:2380\"]\nexpect_id = \"00ff\"\n"
            .into(),
        "[listen]\nclient = \"0.0.0.0:2379\"\n[advertise]\nclient = \"[::1]:2379\"\npeer = \"h:1\"\n".into(),
        "[raft]\nheartbeat_ms = 200\nelection_min_ms = 100\n[log]\nformat = \"json\"\n".into(),
        "limits.disk_reserve_bytes = 0\nlimits.partition_queue = 0\nstorage.cache_bytes = 1\n".into(),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
