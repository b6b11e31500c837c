//! `sluice ls`, `cat` and `grep` as a user runs them, on a directory and on MinIO.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sluice::archive::codec::Codec;
use sluice::archive::format::Format;
use sluice::store::Store;
use sluice::store::local::LocalStore;
use sluice::store::s3::S3Store;

use crate::support::archive::{Made, Writer};
use crate::support::kafka::unique;
use crate::support::process::service;
use crate::support::{make_bucket, sink};

/// 2026-11-22 00:00 UTC.
const DAY: i64 = 1_795_305_600_000;

/// What the program wrote, and how it ended.
#[derive(Debug)]
struct Ran {
    out: String,
    err: String,
    status: i32,
}

fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap(),
    }
}

fn sluice(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args);
    command
}

/// Two apps over two days, half of the files raw, half json, all codecs; one file of another tool.
async fn archive(store: &Arc<dyn Store>) {
    let codecs = [Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::None];
    for (number, codec) in (0i64..).zip(codecs) {
        let format = if number % 2 == 0 { Format::Raw } else { Format::Json };
        let mut writer = Writer::new(Arc::clone(store), format, codec);
        writer.frame_records = 7;
        let records: Vec<Made> = (number * 50..(number + 1) * 50)
            .map(|offset| {
                let level = if offset % 10 == 3 { "ERROR" } else { "info" };
                let value = format!("{level} payment {offset} of many");
                Made::line(i32::try_from(offset % 2).unwrap(), offset, DAY + offset * 600_000, &value)
            })
            .collect();
        let (today, tomorrow): (Vec<Made>, Vec<Made>) =
            records.into_iter().partition(|record| record.timestamp_ms < DAY + 86_400_000);
        for records in [today, tomorrow] {
            if !records.is_empty() {
                writer.put("payments", &records).await;
            }
        }
        let mut writer = Writer::new(Arc::clone(store), Format::Raw, codec);
        writer.put("pay/slips", &[Made::line(0, number, DAY + number, "ERROR none")]).await;
    }
}

/// The commands on an archive that `place` names.
fn check(place: &dyn Fn(&[&str]) -> Command) {
    let cat = run(&mut place(&["cat", "@", "--app", "payments"]));
    assert_eq!((cat.status, cat.out.lines().count(), cat.err.as_str()), (0, 200, ""), "{cat:?}");
    assert!(cat.out.starts_with("info payment 0 of many\n"), "{}", cat.out);

    let window = ["--since", "2026-11-22T10:00:00Z", "--until", "2026-11-22T11:00:00Z", "--stats"];
    let cat = run(&mut place(&[&["cat", "@", "--app", "payments", "--json"], window.as_slice()].concat()));
    let offsets: Vec<i64> = cat
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_i64().unwrap())
        .collect();
    let mut sorted = offsets.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (60..66).collect::<Vec<i64>>());
    assert!(cat.err.contains("get requests") && cat.err.contains("bytes fetched"), "{}", cat.err);

    let sorted =
        run(&mut place(&["cat", "@", "--app", "payments", "--json", "--sort", "time", "--since", "2026-11-23"]));
    let times: Vec<i64> = sorted
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["timestamp"].as_i64().unwrap())
        .collect();
    assert!(times.len() == 56 && times.is_sorted(), "{}", sorted.out);

    let grep = run(&mut place(&["grep", "@", "ERROR payment 1?3 ", "--app", "payments"]));
    assert_eq!(grep.out, "ERROR payment 3 of many\nERROR payment 13 of many\n", "{grep:?}");
    let grep = run(&mut place(&["grep", "@", "error", "-i", "-c", "--app", "pay*"]));
    assert_eq!((grep.out.as_str(), grep.status), ("pay/slips:4\npayments:20\n", 0));
    let grep = run(&mut place(&["grep", "@", "ERROR none", "--app", "pay*"]));
    assert_eq!(grep.out, "pay/slips:ERROR none\n".repeat(4));
    let grep = run(&mut place(&["grep", "@", "payment 23 ", "-F", "--json", "--app", "payments"]));
    assert!(grep.out.starts_with("{\"topic\":\"applogs\",\"partition\":1,\"offset\":23,\"timestamp\""), "{grep:?}");
    let grep = run(&mut place(&["grep", "@", "no such thing", "--app", "payments"]));
    assert_eq!((grep.status, grep.out.as_str(), grep.err.as_str()), (1, "", ""));
    let grep = run(&mut place(&["grep", "@", "payment", "-v", "--app", "payments"]));
    assert_eq!(grep.status, 1, "{grep:?}");
    let grep = run(&mut place(&["grep", "@", "payment 43 ", "-A1", "-B2", "--app", "payments"]));
    assert_eq!(grep.out.lines().count(), 4, "{grep:?}");

    let ls = run(&mut place(&["ls", "@", "--app", "payments", "--json"]));
    let records: u64 = ls
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["records"].as_u64().unwrap())
        .sum();
    assert_eq!((records, ls.out.lines().count()), (200, 5));
    let ls = run(&mut place(&["ls", "@"]));
    assert!(ls.out.starts_with("APP ") && ls.out.lines().count() == 10, "{ls:?}");
    let ls = run(&mut place(&["ls", "@", "--since", "2026-11-23"]));
    assert_eq!(ls.out.lines().count(), 3, "{ls:?}");

    let nothing = run(&mut place(&["cat", "@", "--app", "nobody"]));
    assert_eq!((nothing.status, nothing.out.as_str()), (0, ""));
    assert!(nothing.err.contains("there is nothing of app nobody"), "{nothing:?}");
    for (args, what) in [
        (["cat", "@", "--app", "payments", "--since", "yesterday"], "no time"),
        (["cat", "@", "--app", "pay*", "--since", "-1m"], "cat writes one app"),
        (["grep", "@", "(", "--app", "payments", "-i"], "unclosed group"),
    ] {
        let wrong = run(&mut place(&args));
        assert!(wrong.status == 2 && wrong.err.contains(what), "{wrong:?}");
    }
}

fn settings(dir: &Path, sink: &str) {
    fs::create_dir_all(dir.join("connectors")).unwrap();
    fs::write(dir.join("worker.yaml"), "kafka: { bootstrap_servers: ['127.0.0.1:1'] }\n").unwrap();
    let connector = format!("topics: [applogs]\napp_id: {{ from: json, pointer: /app }}\nsink: {sink}\n");
    fs::write(dir.join("connectors/app-logs.yaml"), connector).unwrap();
}

fn of_connector(dir: &Path, args: &[&str]) -> Command {
    let args: Vec<&str> = args.iter().map(|&arg| if arg == "@" { "app-logs" } else { arg }).collect();
    let mut command = sluice(&args);
    command.arg("--config").arg(dir.join("worker.yaml")).arg("--connectors").arg(dir.join("connectors"));
    command
}

#[tokio::test]
async fn a_directory_is_read_by_connector_and_by_url() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().join("archive").display());
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path().join("archive")).unwrap());
    archive(&store).await;
    settings(dir.path(), &format!("{{ url: '{url}' }}"));
    check(&|args| of_connector(dir.path(), args));
    let by_url = |args: &[&str]| {
        let args: Vec<&str> = args.iter().map(|&arg| if arg == "@" { url.as_str() } else { arg }).collect();
        sluice(&args)
    };
    check(&by_url);
    // Damage is named, and the rest is read.
    let ls = run(&mut by_url(&["ls", "@", "--json", "--app", "payments"]));
    let first: serde_json::Value = serde_json::from_str(ls.out.lines().next().unwrap()).unwrap();
    let key = first["key"].as_str().unwrap();
    let path = dir.path().join("archive").join(key);
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let cat = run(&mut by_url(&["cat", "@", "--app", "payments"]));
    assert!(cat.status == 4 && cat.err.contains(key) && cat.out.lines().count() == 193, "{cat:?}");
    let missing = run(&mut sluice(&["ls", "file:///no/such/directory"]));
    assert!(missing.status == 2 && missing.err.contains("no such directory"), "{missing:?}");
    let unknown = run(&mut of_connector(dir.path(), &["ls", "app-log"]));
    assert!(unknown.status == 2 && unknown.err.contains("there is no connector app-log"), "{unknown:?}");
}

#[tokio::test]
async fn a_bucket_is_read_by_connector_and_by_url() {
    let Some(endpoint) = service("SLUICE_TEST_MINIO") else { return };
    let keys = (service("SLUICE_TEST_MINIO_KEY").unwrap(), service("SLUICE_TEST_MINIO_SECRET").unwrap());
    let (dir, bucket) = (tempfile::tempdir().unwrap(), unique("reading"));
    make_bucket(&endpoint, &bucket, &keys.0, &keys.1).await;
    let sink = sink(dir.path(), sluice::config::Flavor::Minio, &endpoint, &bucket, (&keys.0, &keys.1));
    let store: Arc<dyn Store> = Arc::new(S3Store::open(&sink).await.unwrap());
    archive(&store).await;
    let url = format!("s3://{bucket}/pre/fix");
    let file = |name: &str| dir.path().join(name).display().to_string();
    settings(
        dir.path(),
        &format!(
            "{{ url: '{url}', endpoint: '{endpoint}', flavor: minio, region: us-east-1, credentials: {{ from: static, \
             key_file: '{}', secret_file: '{}' }} }}",
            file("access-key"),
            file("secret-key")
        ),
    );
    check(&|args| of_connector(dir.path(), args));
    check(&|args| {
        let args: Vec<&str> = args.iter().map(|&arg| if arg == "@" { url.as_str() } else { arg }).collect();
        let mut command = sluice(&args);
        command.args(["--endpoint", &endpoint, "--region", "us-east-1"]);
        command.env("AWS_ACCESS_KEY_ID", &keys.0).env("AWS_SECRET_ACCESS_KEY", &keys.1);
        command
    });
    // Nobody listens: said soon, exit 3.
    let mut away = sluice(&["ls", &url, "--endpoint", "http://127.0.0.1:1", "--region", "us-east-1"]);
    away.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
    let away = run(&mut away);
    assert!(away.status == 3 && away.err.contains("s3://"), "{away:?}");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path()).unwrap());
    let mut writer = Writer::new(Arc::clone(&store), Format::Raw, Codec::Lz4);
    let records: Vec<Made> = (0..20_000).map(|offset| Made::line(0, offset, DAY + offset, "a line of a log")).collect();
    writer.put("a", &records).await;
    let url = format!("file://{}", dir.path().display());
    for args in [["cat", url.as_str(), "--app", "a"].as_slice(), &["grep", &url, "line", "--app", "a"]] {
        let mut child = sluice(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "a line of a log\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    }
}
