//! Which tools read the files of each codec and format: they are asked, and must see what went in.

use std::path::PathBuf;
use std::process::Command;

use sluice::store::local::LocalStore;

use super::*;

/// Values of all kinds, and how many lines of the raw format they are.
fn records() -> Vec<(i32, MemoryRecord)> {
    let time = |n: usize| ((n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as i64;
    let line = |n: usize| match n % 10 {
        3 => format!("{{\"app_id\":\"pay\",\"n\":{n},\"text\":\"a, \\\"quoted\\\" text\\twith ü and \u{1f980}\"}}"),
        _ => format!("{{\"app_id\":\"pay\",\"n\":{n},\"text\":\"{}\"}}", format!("{n:x}").repeat(1 + n % 40)),
    };
    // Enough, and irregular enough, that the index of a gzip file has more than one member.
    let keyed = |n: usize| MemoryRecord {
        key: n.is_multiple_of(4).then(|| b"k".to_vec()),
        timestamp_ms: 1_795_317_125_000 + time(n),
        ..MemoryRecord::value(line(n))
    };
    (0..30_000).map(|n| ((n % 3) as i32, keyed(n))).collect()
}

/// The only file of an archive made with these settings.
async fn archived(dir: &Path, settings: &str, kafka: &MemoryKafka) -> PathBuf {
    let store = Arc::new(LocalStore::open(dir).unwrap());
    let (_spool, context) = context(kafka, Arc::clone(&store) as Arc<dyn Store>, settings, "w");
    assert_eq!(run(&context, true, CancellationToken::new()).await.unwrap(), End::CaughtUp);
    let page = store.list("pay/", Depth::All, None, 10).await.unwrap();
    let keys: Vec<String> =
        page.objects.into_iter().map(|object| object.key).filter(|key| !key.contains("/_")).collect();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    dir.join(key)
}

/// The path of a Python that has DuckDB and polars.
fn python() -> Option<String> {
    let dev = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/readers");
    let output = Command::new(dev).arg("python").output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("not run: dev/readers could not install DuckDB and polars: {why}");
    assert_ne!(
        std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(),
        Ok("1"),
        "DuckDB and polars are required: {why}"
    );
    None
}

/// Number of records and the sum of their `n`, by each way that a library has to read a file.
const SCRIPT: &str = r#"
import sys, duckdb, polars
file, format = sys.argv[1:]
field = "value.n" if format == "json" else "n"
column = polars.col("value").struct.field("n") if format == "json" else polars.col("n")
pick = [polars.len(), column.sum()]
raw = """read_csv(?, columns={'line': 'VARCHAR'}, delim=chr(1), quote='', escape='', header=false, auto_detect=false)"""
path = "$.value.n" if format == "json" else "$.n"
show = lambda name, rows: print(name, *rows[0])
show("duckdb-json", duckdb.execute(f"select count(*), sum({field}) from read_json(?)", [file]).fetchall())
show("duckdb-lines", duckdb.execute(f"select count(*), sum((line->>'{path}')::bigint) from {raw}", [file]).fetchall())
show("polars-read", polars.read_ndjson(file).select(pick).rows())
show("polars-scan", polars.scan_ndjson(file).select(pick).collect().rows())
"#;

#[tokio::test]
async fn tools_read_what_went_in() {
    let records = records();
    let kafka = kafka(3, &records);
    let python = python();
    let sum: usize = (0..records.len()).sum();
    for format in ["raw", "json"] {
        let mut plain: Option<Vec<u8>> = None;
        for (codec, tool) in [("none", "cat"), ("lz4", "lz4 -dc"), ("zstd", "zstd -dc"), ("gzip", "gzip -dc")] {
            let dir = tempfile::tempdir().unwrap();
            let settings = format!("format: {format}\ncompression: {{ codec: {codec}, frame_bytes: 64KiB }}\n");
            let file = archived(dir.path(), &settings, &kafka).await;
            let (name, args) = tool.split_once(' ').unwrap_or((tool, "-u"));
            let output = Command::new(name).arg(args).arg(&file).output().unwrap();
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            let text = output.stdout;
            let lines = text.split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(lines, records.len(), "{format} {codec}");
            // In which order the partitions come is the frames' business.
            let mut sorted: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
            sorted.sort_unstable();
            let sorted = sorted.join(&b'\n');
            assert!(plain.get_or_insert_with(|| sorted.clone()) == &sorted, "{format} {codec} reads as something else");
            if let Some(python) = python.as_ref().filter(|_| codec != "lz4") {
                let output = Command::new(python).args(["-c", SCRIPT]).arg(&file).arg(format).output().unwrap();
                let told = String::from_utf8_lossy(&output.stdout).into_owned();
                let all = ["duckdb-json", "duckdb-lines", "polars-read", "polars-scan"];
                let expected: String = all.iter().map(|way| format!("{way} {} {sum}\n", records.len())).collect();
                assert_eq!(told, expected, "{format} {codec}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}
