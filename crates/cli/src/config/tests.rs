//! Layers of settings.

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("holdfast.toml");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

#[test]
fn flags_override_the_file_and_the_rest_stays() {
    let (_dir, path) =
        file("[listen]\nclient = '1.2.3.4:1'\npeer = '1.2.3.4:2'\n[raft]\nheartbeat_ms = 50\n");
    let overrides = Overrides {
        listen_client: Some("5.6.7.8:9".to_owned()),
        data_dir: Some(PathBuf::from("/data")),
        join: vec!["a:1".to_owned(), "b:2".to_owned()],
        node_id: Some(3),
        log_level: Some("debug".to_owned()),
        settings: vec![
            "raft.election_min_ms=700".to_owned(),
            "node.name=alpha".to_owned(),
        ],
        ..Overrides::default()
    };
    let config = load(Some(&path), &overrides).expect("loads");
    assert_eq!(config.listen.client, "5.6.7.8:9");
    assert_eq!(config.listen.peer, "1.2.3.4:2");
    assert_eq!(config.node.data_dir, PathBuf::from("/data"));
    assert_eq!(config.node.id, Some(3));
    assert_eq!(config.node.name, "alpha");
    assert_eq!(config.cluster.join, ["a:1", "b:2"]);
    assert_eq!((config.raft.heartbeat_ms, config.raft.election_min_ms), (50, 700));
    assert_eq!(config.log.level, "debug");
}

#[test]
fn unknown_keys_and_wrong_values_are_named() {
    let (_dir, path) = file("[raft]\nhartbeat = 3\n");
    let error = load(Some(&path), &Overrides::default())
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("hartbeat") && error.contains("holdfast.toml"),
        "{error}"
    );
    let overrides = Overrides {
        settings: vec!["raft.nonsense=1".to_owned()],
        ..Overrides::default()
    };
    let error = load(None, &overrides).expect_err("refused").to_string();
    assert!(error.contains("nonsense"), "{error}");
    let error = load(Some(Path::new("/nowhere.toml")), &Overrides::default())
        .expect_err("refused")
        .to_string();
    assert!(error.contains("/nowhere.toml"), "{error}");
}

#[test]
fn faults_are_told_all_at_once() {
    let overrides = Overrides {
        listen_client: Some("nonsense".to_owned()),
        settings: vec!["raft.heartbeat_ms=1".to_owned()],
        ..Overrides::default()
    };
    let (_dir, path) =
        file("nonsense = 1\n[raft]\nhartbeat = 3\nelection_max_ms = 'long'\n[log]\nlevel = 'inof'\n");
    let error = load(Some(&path), &overrides).expect_err("refused").to_string();
    for fault in [
        "listen.client: ",
        "raft.heartbeat_ms: ",
        "holdfast.toml: nonsense: ",
        "holdfast.toml: raft.hartbeat: ",
        "holdfast.toml: raft.election_max_ms: ",
        "log.level: ",
        "6 fault(s)",
    ] {
        assert!(error.contains(fault), "{fault} is not in {error}");
    }
}

#[test]
fn variables_lie_between_file_and_flags() {
    let (_dir, path) = file("[raft]\nheartbeat_ms = 50\nelection_min_ms = 200\n");
    let variables = [
        ("HOLDFAST_RAFT_HEARTBEAT_MS", "60"),
        ("HOLDFAST_RAFT_ELECTION_MIN_MS", "300"),
        ("HOLDFAST_BIN", "/no/setting"),
        ("HOME", "/root"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let overrides = Overrides {
        settings: vec!["raft.election_min_ms=400".to_owned()],
        ..Overrides::default()
    };
    let raft = layered(Some(&path), variables, &overrides).expect("loads").raft;
    assert_eq!((raft.heartbeat_ms, raft.election_min_ms), (60, 400));
}

#[test]
fn what_is_of_one_node_is_not_of_all() {
    for (variable, of_one) in [
        ("HOLDFAST_LISTEN_CLIENT", true),
        ("HOLDFAST_CONFIG", true),
        ("HOLDFAST_LOG_LEVEL", false),
        ("PATH", false),
    ] {
        assert_eq!(is_of_one_node(variable), of_one, "{variable}");
    }
}

#[test]
fn variables_name_sections() {
    assert_eq!(
        key_of_variable("HOLDFAST_RAFT_HEARTBEAT_MS").as_deref(),
        Some("raft.heartbeat_ms")
    );
    assert_eq!(
        key_of_variable("HOLDFAST_LISTEN_CLIENT").as_deref(),
        Some("listen.client")
    );
    assert_eq!(key_of_variable("HOLDFAST_ENDPOINTS"), None);
    assert_eq!(key_of_variable("HOLDFAST_DATA_DIR"), None);
}

#[test]
fn sections_are_those_of_the_file() {
    let all: Table = toml::from_str(&Config::default().to_toml()).expect("TOML");
    for section in all.keys() {
        assert!(SECTIONS.contains(&section.as_str()), "{section}");
    }
}

#[test]
fn literals() {
    assert_eq!(literal("3"), Value::Integer(3));
    assert_eq!(
        literal("['a']"),
        Value::Array(vec![Value::String("a".to_owned())])
    );
    assert_eq!(literal("127.0.0.1:1"), Value::String("127.0.0.1:1".to_owned()));
}
