//! What is documented loads, with the documented values; the environment wins over files, files over defaults.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice::config::{
    AppIdFrom, Bucket, ConnectorConfig, Environment, Flavor, HttpAuth, LoadOptions, Loaded, MissingAppId, SinkUrl,
    StartFrom, StateUrl, TimeFormat, TimeFrom, TopicSelection, load, load_connector_str,
};

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn options(config: &Path) -> LoadOptions {
    LoadOptions { config: Some(config.to_owned()), host_name: "host-7".to_owned(), ..LoadOptions::default() }
}

fn connector(text: &str) -> ConnectorConfig {
    let (config, warnings) = load_connector_str(Path::new("connectors/c.yaml"), text, &Environment::new()).unwrap();
    assert_eq!(warnings, []);
    config
}

fn refused(text: &str) -> String {
    load_connector_str(Path::new("c.yaml"), text, &Environment::new()).unwrap_err().to_string()
}

const REQUIRED: &str =
    "{ topics: [t], app_id: { from: json, pointer: /app_id }, sink: { url: 'oss://bucket/prefix' } }";

/// A directory like a real one: configs/worker.yaml and connectors/.
fn place(worker: &str, connectors: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("configs/worker.yaml");
    std::fs::create_dir(directory.path().join("configs")).unwrap();
    std::fs::create_dir(directory.path().join("connectors")).unwrap();
    std::fs::write(&file, worker).unwrap();
    for (name, text) in connectors {
        std::fs::write(directory.path().join("connectors").join(name), text).unwrap();
    }
    (directory, file)
}

const WORKER: &str = "kafka: { bootstrap_servers: ['127.0.0.1:9092'] }";

#[test]
fn the_documented_blocks_hold_the_defaults() {
    let documented =
        load(&options(Path::new("tests/fixtures/interface/configs/worker.yaml")), &Environment::new()).unwrap();
    let written = "name: app-logs\ntopics: [applogs]\napp_id: { from: json, pointer: /app_id }\n\
                   sink: { url: 'oss://bucket/prefix' }\n";
    let sasl =
        "kafka: { bootstrap_servers: ['127.0.0.1:9092'], security: { sasl: { username: u, password_file: p } } }";
    let (_directory, file) = place(sasl, &[("x.yaml", written)]);
    let mut default = load(&options(&file), &Environment::new()).unwrap();
    assert_eq!(format!("{:#?}", documented.worker), format!("{:#?}", default.worker));
    default.connectors[0].file.clone_from(&documented.connectors[0].file);
    assert_eq!(format!("{:#?}", documented.connectors), format!("{:#?}", default.connectors));
    assert_eq!(documented.warnings, []);
}

#[test]
fn the_documented_blocks_mention_every_key() {
    use sluice::config::schema::{CONNECTOR, WORKER};
    // Keys that the blocks explain in comments.
    let explained = ["topics_regex", "app_id.name", "app_id.pattern", "time.pointer", "time.format"];
    for (schema, file) in [(&WORKER, "configs/worker.yaml"), (&CONNECTOR, "connectors/app-logs.yaml")] {
        let text = std::fs::read_to_string(Path::new("tests/fixtures/interface").join(file)).unwrap();
        for key in schema.keys {
            let name = key.path.rsplit('.').next().unwrap();
            assert!(text.contains(&format!("{name}:")) || explained.contains(&key.path), "{}", key.path);
        }
    }
}

#[test]
fn the_shipped_example_loads() {
    let options = LoadOptions { host_name: "h".to_owned(), ..LoadOptions::default() };
    let loaded = load(&options, &Environment::new()).unwrap();
    assert_eq!(loaded.files_used, [Path::new("configs/worker.yaml"), Path::new("connectors/app-logs.yaml")]);
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.connectors[0].name, "app-logs");
    assert_eq!(loaded.connectors[0].sink.url, SinkUrl::File { dir: PathBuf::from("/var/lib/sluice/archive") });
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let worker =
        "{ kafka: { bootstrap_servers: ['f:1'] }, memory_max_bytes: 64MiB, spool: { dir: /f, max_bytes: 1GiB } }";
    let (_directory, file) = place(worker, &[("c.yaml", REQUIRED)]);
    let environment = environment(&[
        ("SLUICE_KAFKA__BOOTSTRAP_SERVERS", "a:9092,b:9092"),
        ("SLUICE_SPOOL__DIR", "/e"),
        ("SLUICE_WORKER__MAX_TASKS", "3"),
        ("SLUICE_KAFKA__GROUP_OFFSETS", "false"),
        ("SLUICE_HTTP__LISTEN", "0.0.0.0:8083"),
        ("SLUICE_HTTP__AUTH", "none"),
        ("SLUICE_SHUTDOWN_TIMEOUT", ""),
    ]);
    let worker = load(&options(&file), &environment).unwrap().worker;
    assert_eq!(worker.kafka.bootstrap_servers, ["a:9092", "b:9092"]);
    assert_eq!(worker.spool.dir, Path::new("/e"));
    assert_eq!(worker.spool.max_bytes, 1 << 30);
    assert_eq!(worker.memory_max_bytes, 64 << 20);
    assert_eq!(worker.max_tasks, Some(3));
    assert!(!worker.kafka.group_offsets);
    assert_eq!(worker.http.auth, HttpAuth::None);
    assert_eq!(worker.shutdown_timeout, Duration::from_secs(60));
    assert_eq!(worker.id, "host-7");
}

#[test]
fn a_null_or_empty_section_is_its_defaults() {
    let worker = "kafka:\n  bootstrap_servers: ['f:1']\n  security:\nspool: null\nmemory_max_bytes: ~\nhttp: {}\n";
    let (_directory, file) = place(worker, &[("c.yaml", REQUIRED)]);
    let worker = load(&options(&file), &Environment::new()).unwrap().worker;
    assert_eq!(worker.memory_max_bytes, 192 << 20);
    assert_eq!(worker.spool.max_bytes, 20 << 30);
    assert_eq!(worker.http.listen, "127.0.0.1:8083");
}

#[test]
fn variables_come_into_files() {
    let (_directory, file) = place(
        WORKER,
        &[("c.yaml", "{ topics: ['${T}'], app_id: { from: key }, tasks_max: '${N}', sink: { url: 'file://${D}/x' } }")],
    );
    let environment = environment(&[("T", "orders"), ("N", "4"), ("D", "/data")]);
    let connectors = load(&options(&file), &environment).unwrap().connectors;
    assert!(matches!(&connectors[0].topics, TopicSelection::List(names) if names == &["orders"]));
    assert_eq!(connectors[0].tasks_max.get(), 4);
    assert_eq!(connectors[0].sink.url, SinkUrl::File { dir: PathBuf::from("/data/x") });
}

#[test]
fn connectors_are_found_beside_configs_in_order_of_names() {
    let named = |name: &str| REQUIRED.replace("prefix", name);
    let (directory, file) = place(
        WORKER,
        &[("b.yml", &named("b")), ("a.yaml", &named("a")), (".c.yaml", "damaged: ["), ("README.md", "damaged: [")],
    );
    let names = |loaded: &Loaded| loaded.connectors.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let loaded = load(&options(&file), &Environment::new()).unwrap();
    assert_eq!(names(&loaded), ["a", "b"]);
    assert_eq!(loaded.files_used.len(), 3);
    let folder = directory.path().join("connectors");
    let asked = LoadOptions { connectors: vec![folder.join("b.yml"), folder.clone()], ..options(&file) };
    assert_eq!(names(&load(&asked, &Environment::new()).unwrap()), ["b", "a"]);
    let beside = directory.path().join("worker.yaml");
    std::fs::rename(&file, &beside).unwrap();
    assert_eq!(names(&load(&options(&beside), &Environment::new()).unwrap()), ["a", "b"]);
}

#[test]
fn no_connector_at_all_is_a_problem_that_names_the_directory() {
    let (directory, file) = place(WORKER, &[]);
    let folder = directory.path().join("connectors");
    let message = load(&options(&file), &Environment::new()).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: no connector in", folder.display())), "{message}");
    let asked = LoadOptions { connectors: vec![directory.path().join("nowhere")], ..options(&file) };
    let message = load(&asked, &Environment::new()).unwrap_err().to_string();
    assert!(message.contains("nowhere: can't be read"), "{message}");
}

#[test]
fn a_worker_without_a_file_needs_only_the_environment() {
    let missing = LoadOptions { config: Some(PathBuf::from("/nonexistent/worker.yaml")), ..LoadOptions::default() };
    let missing = LoadOptions { connectors: vec![PathBuf::from("connectors")], ..missing };
    let message = load(&missing, &Environment::new()).unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/worker.yaml: can't be read"), "{message}");
}

#[test]
fn every_choice_of_a_connector_is_understood() {
    let config = connector(
        "{ topics_regex: '^app-.*$', partitions: [2, 0x1], start_from: 2026-11-22T08:00:00+08:00, isolation: read_committed,\n\
         app_id: { from: header, name: app, missing: dead_letter },\n\
         time: { from: json, pointer: /t, format: '%Y-%m-%d %H:%M:%S', zone: Asia/Shanghai, bucket: 1h },\n\
         format: json, compression: { codec: zstd, level: 3 }, sink: { url: s3://logs, endpoint: 'http://127.0.0.1:9000' },\n\
         on_error: fail, dead_letter: { path: _dead } }",
    );
    assert!(config.topics.holds("app-x") && !config.topics.holds("x-app-"));
    assert_eq!(config.partitions.unwrap().into_iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(config.start_from, StartFrom::TimestampMs(1_795_305_600_000));
    assert!(matches!(config.app_id.from, AppIdFrom::Header { name } if name == "app"));
    assert_eq!(config.app_id.missing, MissingAppId::DeadLetter);
    assert_eq!(config.time.bucket, Bucket::Hour);
    assert_eq!(config.time.zone.iana_name(), Some("Asia/Shanghai"));
    let format = TimeFormat::Pattern("%Y-%m-%d %H:%M:%S".to_owned());
    assert_eq!(config.time.from, TimeFrom::Json { pointer: "/t".to_owned(), format });
    assert_eq!((config.sink.flavor, config.dead_letter.path.as_str()), (Flavor::Generic, "_dead"));
}

#[test]
fn flavors_follow_from_the_address() {
    for (sink, flavor) in [
        ("url: s3://logs", Flavor::Aws),
        ("url: s3://logs, endpoint: 'https://s3.eu-west-1.amazonaws.com'", Flavor::Aws),
        ("url: s3://logs, endpoint: 'https://s3.oss-cn-hangzhou.aliyuncs.com'", Flavor::Oss),
        ("url: s3://logs, endpoint: 'https://minio.example'", Flavor::Generic),
        ("url: s3://logs, endpoint: 'https://minio.example', flavor: minio", Flavor::Minio),
        ("url: oss://logs, endpoint: internal", Flavor::Oss),
    ] {
        let config = connector(&format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ {sink} }} }}"));
        assert_eq!(config.sink.flavor, flavor, "{sink}");
    }
}

#[test]
fn app_ids_and_times_ask_for_what_they_need() {
    let with = |rest: &str| refused(&format!("{{ topics: [t], sink: {{ url: s3://logs }}, {rest} }}"));
    for (rest, message) in [
        ("app_id: { from: json }", "app_id.pointer: is missing"),
        ("app_id: { from: header }", "app_id.name: is missing"),
        ("app_id: { from: regex }", "app_id.pattern: is missing"),
        ("app_id: { from: regex, pattern: 'a' }", "has 0 groups"),
        ("app_id: { from: regex, pattern: '(' }", "is not a regular expression: unclosed group"),
        ("app_id: { from: key, pointer: /a }", "app_id.pointer: is not used with from: key"),
        ("app_id: { from: key, missing: _sluice }", "app_id.missing: `_sluice` is reserved"),
        ("app_id: { from: key, missing: '..' }", "is not one folder's name"),
        ("app_id: { from: key }, time: { from: json }", "time.pointer: is missing"),
        ("app_id: { from: key }, time: { pointer: /t }", "time.pointer: is not used with from: record"),
        (
            "app_id: { from: key }, time: { from: json, pointer: /t, format: '%H:%M' }",
            "does not tell a date and a time",
        ),
        ("app_id: { from: key }, time: { from: json, pointer: /t, format: '%Y-%1!' }", "is not a pattern"),
        ("app_id: { from: key }, time: { from: json, pointer: /t, format: unix }", "is not known"),
        ("app_id: { from: key }, partitions: []", "partitions: is an empty list"),
        ("app_id: { from: key }, dead_letter: { path: _sluice }", "dead_letter.path: `_sluice` is reserved"),
        ("app_id: { from: key }, dead_letter: { path: a/b }", "is not one folder's name"),
        ("app_id: { from: key }, compression: { codec: lz4, level: 1 }", "compression.level: `1`"),
    ] {
        let found = with(rest);
        assert!(found.contains(message) && found.lines().count() == 1, "{rest}\n{found}");
    }
    // The empty pointer is the whole value.
    let whole = connector("{ topics: [t], app_id: { from: json, pointer: '' }, sink: { url: s3://logs } }");
    assert!(matches!(whole.app_id.from, AppIdFrom::Json { pointer } if pointer.is_empty()));
    for format in ["%s", "%Y-%m-%dT%H:%M:%S%z", "%d/%b/%Y:%H:%M:%S %z", "%Y%m%d %H%M%S%.f"] {
        connector(&format!(
            "{{ topics: [t], app_id: {{ from: key }}, sink: {{ url: s3://logs }}, time: {{ from: json, pointer: /t, format: '{format}' }} }}"
        ));
    }
}

#[test]
fn two_connectors_may_not_share_a_place() {
    let sink =
        |url: &str, rest: &str| format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ url: '{url}'{rest} }} }}");
    let minio = ", endpoint: 'http://minio:9000'";
    for (left, right, shared) in [
        (sink("s3://logs/a", ""), sink("s3://logs/a/", ""), true),
        (sink("s3://logs/a/b", ""), sink("s3://logs/a", ""), true),
        (sink("s3://logs", ""), sink("s3://logs/a", ""), true),
        (sink("s3://logs/a", ""), sink("s3://logs/ab", ""), false),
        (sink("s3://logs/a", ""), sink("s3://other/a", ""), false),
        (sink("s3://logs/a", ""), sink("s3://logs/a", minio), false),
        (sink("s3://logs/a", minio), sink("s3://logs/a", ", endpoint: 'http://MINIO:9000/'"), true),
        (sink("oss://logs/a", ""), sink("s3://logs/a", ", endpoint: 'https://s3.oss-cn-hangzhou.aliyuncs.com'"), true),
        (sink("file:///data/a", ""), sink("file:///data/a/b", ""), true),
        (sink("file:///data/a", ""), sink("file:///data/b", ""), false),
        (sink("file:///data/a", ""), sink("file:///var/lib/sluice/spool/x", ""), true),
        (sink("file:///data/a", ""), sink("file:///var/lib/sluice", ""), true),
    ] {
        let (_directory, file) = place(WORKER, &[("l.yaml", &left), ("r.yaml", &right)]);
        let found = load(&options(&file), &Environment::new());
        assert_eq!(found.is_err(), shared, "{left}\n{right}");
        if let Err(problems) = found {
            assert!(problems.0.iter().all(|problem| problem.key == "sink.url"), "{problems}");
        }
    }
}

#[test]
fn kafka_security_is_checked() {
    let with = |security: &str| {
        let worker = format!("kafka: {{ bootstrap_servers: ['a:1'], security: {{ {security} }} }}");
        let (_directory, file) = place(&worker, &[("c.yaml", REQUIRED)]);
        load(&options(&file), &Environment::new()).map(|_| ()).map_err(|problems| problems.to_string())
    };
    assert_eq!(with("protocol: SSL"), Ok(()));
    assert_eq!(with("protocol: SASL_SSL, sasl: { mechanism: PLAIN, username: u, password_file: /p }"), Ok(()));
    assert!(with("protocol: SASL_SSL").unwrap_err().contains("kafka.security.sasl.mechanism: is missing"));
    let scram = with("protocol: SASL_SSL, sasl: { mechanism: SCRAM-SHA-512, username: u }").unwrap_err();
    assert!(scram.contains("password_file: is missing: `SCRAM-SHA-512` needs it"), "{scram}");
    assert_eq!(with("protocol: PLAINTEXT, tls: { verify_hostname: false }"), Ok(()));
}

#[test]
fn an_open_address_needs_auth() {
    let with = |http: &str| {
        let (_directory, file) = place(&format!("{WORKER}\nhttp: {{ {http} }}"), &[("c.yaml", REQUIRED)]);
        load(&options(&file), &Environment::new()).map(|loaded| loaded.worker.http.auth).map_err(|p| p.to_string())
    };
    for listen in ["0.0.0.0:1", "'[::]:1'", "10.1.1.1:1", "sluice.example:1"] {
        assert!(with(&format!("listen: {listen}")).unwrap_err().contains("can be reached from other machines"));
        assert_eq!(with(&format!("listen: {listen}, auth: none")), Ok(HttpAuth::None));
        let token = HttpAuth::BearerTokenFile(PathBuf::from("/t"));
        assert_eq!(with(&format!("listen: {listen}, auth: {{ bearer_token_file: /t }}")), Ok(token));
    }
    assert_eq!(with("listen: '[::1]:1'"), Ok(HttpAuth::Unset));
    assert!(with("auth: { bearer_token_file: /t, basic_file: /b }").unwrap_err().contains("write one of them"));
    assert!(with("auth: off").unwrap_err().contains("is the word `none`"));
}

#[test]
fn what_this_version_does_not_do_is_never_ignored() {
    let with = |settings: &str| {
        let (_directory, file) = place(&format!("{WORKER}\n{settings}"), &[("c.yaml", REQUIRED)]);
        load(&options(&file), &Environment::new())
    };
    for (settings, key, message) in [
        ("worker: { group: blue }", "worker.group", "has no effect without coordination.url"),
        (
            "state: { url: 'redis://:planted@h' }\ncoordination: { url: 'redis-cluster://:planted@a,h:6379' }",
            "coordination.url",
            "is the Redis of state.url",
        ),
    ] {
        let warnings = with(settings).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].key == key, "{warnings:?}");
        assert!(
            warnings[0].message.starts_with(message) && !format!("{warnings:?}").contains("planted"),
            "{warnings:?}"
        );
    }
    for (settings, message) in [
        ("state: { url: 'redis://:planted@h:6379/x' }", "state.url: the URL has a path that is no database number"),
        ("coordination: { url: 'redis-sentinel://:planted@h' }", "coordination.url: the URL names no master"),
        ("worker: { max_tasks: 0 }", "worker.max_tasks: is 0, and without coordination.url"),
        ("state: { url: 'https://:planted@h' }", "state.url: the URL begins with none of file://, s3://, oss://"),
    ] {
        let found = with(settings).unwrap_err().to_string();
        assert!(found.contains(message) && found.lines().count() == 1 && !found.contains("planted"), "{found}");
    }
}

#[test]
fn state_has_a_place_of_its_own() {
    let with = |state: &str, sink: &str| {
        let connector = format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ url: '{sink}' }} }}");
        let (_directory, file) = place(&format!("{WORKER}\nstate: {{ url: '{state}' }}"), &[("c.yaml", &connector)]);
        load(&options(&file), &Environment::new()).map(|loaded| loaded.worker.state_url).map_err(|p| p.to_string())
    };
    for (state, sink) in [
        ("file:///state", "file:///data"),
        ("file:///state", "s3://logs/a"),
        ("s3://state", "s3://logs"),
        ("s3://logs/state", "s3://logs/a"),
        ("oss://state/x/", "oss://logs"),
    ] {
        assert_eq!(with(state, sink), Ok(Some(StateUrl::Store(SinkUrl::parse(state).unwrap()))), "{state} {sink}");
    }
    for (state, sink, message) in [
        ("file:///data/state", "file:///data", "sink.url: lies in, or around, state.url (file:///data/state)"),
        ("s3://logs", "s3://logs/a", "sink.url: lies in, or around, state.url (s3://logs/)"),
        ("s3://state", "file:///data", "sink.url: is of another kind than state.url (s3://state/)"),
        ("oss://state", "s3://logs", "is of another kind"),
        ("file:///var/lib/sluice", "s3://logs", "state.url: lies in, or around, spool.dir"),
    ] {
        let found = with(state, sink).unwrap_err();
        assert!(found.contains(message) && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn what_shapes_content_is_pinned() {
    let settings = |text: &str| {
        let loaded = load_connector_str(Path::new("c.yaml"), text, &Environment::new());
        loaded.unwrap().0.content_settings().to_string()
    };
    let default = settings(REQUIRED);
    assert_eq!(
        default,
        r#"{"app_id":{"from":"json","missing":"_unknown","pointer":"/app_id"},"compression":{"codec":"lz4","level":null},"dead_letter":{"path":"_dead_letter","topic":null},"format":"raw","isolation":"read_committed","key":"{app_id}/{date}/{time}_{topic}+{partition}+{offset}.{ext}","on_error":"dead_letter","partitions":null,"split_version":1,"time":{"bucket":"1d","from":"record","zone":"UTC","zone_data":null}}"#
    );
    let with = |more: &str| {
        settings(&REQUIRED.replace(" }", &format!(", {more} }}")).replacen(&format!(", {more} }}"), " }", 2))
    };
    for same in ["rotate: { max_bytes: 1GiB, max_interval: 1h }", "tasks_max: 3", "start_from: latest", "name: other"] {
        assert_eq!(with(same), default, "{same}");
    }
    for other in [
        "format: json",
        "partitions: [1]",
        "isolation: read_uncommitted",
        "on_error: fail",
        "compression: { codec: gzip }",
        "dead_letter: { path: _dl }",
        "time: { bucket: 1h }",
        "time: { from: json, pointer: /t }",
    ] {
        assert_ne!(with(other), default, "{other}");
    }
    assert!(with("time: { zone: Asia/Shanghai }").contains(r#""zone":"Asia/Shanghai","zone_data":"2"#));
}

#[test]
fn a_sink_asks_for_what_fits_its_store() {
    let with = |sink: &str, rest: &str| {
        let text = format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ {sink} }}{rest} }}");
        load_connector_str(Path::new("c.yaml"), &text, &Environment::new())
    };
    for (sink, rest, message) in [
        ("url: s3://logs, part_bytes: 5MiB", ", rotate: { max_bytes: 100GiB }", "sink.part_bytes: `5MiB` is too small"),
        ("url: s3://logs, endpoint: internal", "", "sink.endpoint: `internal` is for oss:// only"),
        (
            "url: s3://logs, endpoint: 'http://u:planted@h'",
            "",
            "sink.endpoint: `http://***@h` holds a user or password",
        ),
        ("url: oss://logs, flavor: minio", "", "sink.flavor: `minio` does not fit oss://"),
        ("url: s3://logs, key: '{topic}/{offset}'", "", "sink.key: `{topic}/{offset}`"),
        ("url: s3://logs, tags: { a: [1] }", "", "sink.tags.a: takes a plain value"),
        ("url: s3://logs, tags: { '': 1 }", "", "sink.tags: holds a tag beyond"),
        (
            "url: s3://logs, tags: {a: 1,b: 1,c: 1,d: 1,e: 1,f: 1,g: 1,h: 1,i: 1,j: 1,k: 1}",
            "",
            "sink.tags: holds 11 tags",
        ),
        ("url: s3://logs, credentials: { from: static }", "", "`static` needs key_file and secret_file"),
        ("url: s3://logs, credentials: { from: file }", "", "`file` needs key_file and secret_file, or a profile"),
        ("url: s3://logs, credentials: { secret_file: /s }", "", "needs sink.credentials.key_file too"),
        ("url: file:///data, sse: { mode: AES256 }", "", "sink.sse.mode: is for s3:// and oss://"),
        ("url: oss://logs, credentials: { from: ecs-ram-role, role_arn: r }", "", "role_arn: is for `oidc`"),
        ("url: s3://logs, credentials: { role_arn: r }", "", "sink.credentials.role_arn: is for `oidc`"),
        ("url: s3://logs, credentials: { from: ecs-ram-role }", "", "`ecs-ram-role` is for flavor oss"),
        ("url: s3://logs, endpoint: 'http://h', credentials: { from: oidc }", "", "`oidc` is for flavors oss and aws"),
        (
            "url: s3://logs, credentials: { from: oidc, endpoint: 'http://h' }",
            "",
            "sink.credentials.endpoint: is for flavor oss",
        ),
        ("url: oss://logs, credentials: { endpoint: 'http://h' }", "", "is for `oidc` and `ecs-ram-role`"),
        (
            "url: oss://logs, credentials: { from: oidc, endpoint: 'http://u:planted@h' }",
            "",
            "sink.credentials.endpoint: `http://***@h` holds a user or password",
        ),
    ] {
        let found = with(sink, rest).unwrap_err().to_string();
        assert!(found.contains(message) && found.lines().count() == 1 && !found.contains("planted"), "{sink}\n{found}");
    }
    for (sink, rest) in [
        ("url: file:///data, part_bytes: 5MiB", ", rotate: { max_bytes: 100GiB }"),
        ("url: s3://logs, tags: { team: a, 'x.y': 2 }, sse: { mode: 'aws:kms', kms_key_id: k }", ""),
        ("url: oss://logs, credentials: { from: env }, endpoint: internal", ""),
        (
            "url: oss://logs, credentials: { from: oidc, role_arn: r, token_file: /t, endpoint: 'https://sts.example' }",
            "",
        ),
        ("url: oss://logs, credentials: { from: ecs-ram-role, endpoint: 'http://127.0.0.1' }", ""),
        ("url: s3://logs, credentials: { from: oidc, role_arn: r, token_file: /t }", ""),
    ] {
        assert_eq!(with(sink, rest).unwrap().1, [], "{sink}");
    }
    let (_, warnings) = with("url: file:///data, region: r, tags: { a: 1 }", "").unwrap();
    let keys: Vec<_> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["sink.region", "sink.tags"]);
}
