//! The keys of connectors/NAME.yaml.
//!
//! Owns: their paths, kinds, defaults and docs. Does not own: rules between them.

use std::time::Duration;

use super::{DAY, GIB, KIB, Key, Kind, MIB, Schema, TIB, names};
use crate::archive::codec::Codec;
use crate::archive::format::Format;
use crate::config::{AppIdKind, Bucket, CredentialsFrom, Flavor, OnError, TimeKind};
use crate::pipeline::source::Isolation;

pub static CONNECTOR: Schema = Schema {
    keys: &[
        Key {
            path: "name",
            kind: Kind::Text,
            default: Some("null"),
            doc: "letters, digits, `.`, `_`, `-`; not first `.` or `_`. `null`: the file's name without `.yaml`. A renamed \
                  connector is a new one, without the old one's state",
            cost: "",
        },
        Key {
            path: "topics",
            kind: Kind::List,
            default: Some("null"),
            doc: "topics to archive. Either this or `topics_regex`",
            cost: "",
        },
        Key {
            path: "topics_regex",
            kind: Kind::Text,
            default: Some("null"),
            doc: "archive every topic that matches; new ones are picked up. Write `^` and `$` to match whole names",
            cost: "",
        },
        Key {
            path: "partitions",
            kind: Kind::List,
            default: Some("null"),
            doc: "only these partitions, for a trial beside another archiver. `null`: all",
            cost: "",
        },
        Key {
            path: "tasks_max",
            kind: Kind::Integer { min: 1, max: 1024 },
            default: Some("1"),
            doc: "tasks for each topic. One task already uses all cores of its worker",
            cost: "More spreads a topic over several workers; each task writes its own file of an app, so files get more and \
                   smaller.",
        },
        Key {
            path: "start_from",
            kind: Kind::Text,
            default: Some("earliest"),
            doc: "`earliest`, `latest` or a time like `2026-11-22T00:00:00Z`; used only where nothing was archived yet",
            cost: "",
        },
        Key {
            path: "isolation",
            kind: Kind::Choice(names::<Isolation>),
            default: Some("read_committed"),
            doc: "whether records of aborted transactions are left out",
            cost: "`read_committed` waits for open transactions to end.",
        },
        Key {
            path: "app_id.from",
            kind: Kind::Choice(names::<AppIdKind>),
            default: None,
            doc: "where a record's app id is found: `json` (with `pointer`), `header` (with `name`), the record's `key`, the \
                  `topic`, or `regex` (with `pattern`)",
            cost: "",
        },
        Key {
            path: "app_id.pointer",
            kind: Kind::Text,
            default: Some("null"),
            doc: "JSON pointer (RFC 6901) into the value, like `/kubernetes/labels/app`; needed with `from: json`",
            cost: "",
        },
        Key {
            path: "app_id.name",
            kind: Kind::Text,
            default: Some("null"),
            doc: "name of the header; needed with `from: header`",
            cost: "",
        },
        Key {
            path: "app_id.pattern",
            kind: Kind::Text,
            default: Some("null"),
            doc: "regular expression with one group, searched in the value; needed with `from: regex`",
            cost: "",
        },
        Key {
            path: "app_id.missing",
            kind: Kind::Text,
            default: Some("_unknown"),
            doc: "folder of the records without an app id, or `dead_letter`",
            cost: "",
        },
        Key {
            path: "time.from",
            kind: Kind::Choice(names::<TimeKind>),
            default: Some("record"),
            doc: "a record's time: Kafka's timestamp (`record`), or a field of the value (`json`, with `pointer` and \
                  `format`)",
            cost: "`json` costs a look into every value.",
        },
        Key {
            path: "time.pointer",
            kind: Kind::Text,
            default: Some("null"),
            doc: "JSON pointer (RFC 6901) to the time; needed with `from: json`",
            cost: "",
        },
        Key {
            path: "time.format",
            kind: Kind::Text,
            default: Some("null"),
            doc: "with `from: json`: `rfc3339` (also where it is `null`), `unix_seconds`, `unix_millis`, or a pattern like \
                  `%Y-%m-%d %H:%M:%S`; a pattern without an offset is read in `zone`",
            cost: "",
        },
        Key {
            path: "time.zone",
            kind: Kind::Text,
            default: Some("UTC"),
            doc: "time zone (IANA name) of dates in keys and of buckets",
            cost: "",
        },
        Key {
            path: "time.bucket",
            kind: Kind::Choice(names::<Bucket>),
            default: Some("1d"),
            doc: "records of two buckets never share a file: `none`, `1h` or `1d`",
            cost: "Smaller: a reader opens fewer files that it does not need; files get more and smaller.",
        },
        Key {
            path: "rotate.max_bytes",
            kind: Kind::Bytes { min: 64 * KIB, max: 4 * TIB },
            default: Some("128MiB"),
            doc: "a file is finished at this size, as stored",
            cost: "More: fewer files of busy apps; more of the spool is taken and more is uploaded again after a failure.",
        },
        Key {
            path: "rotate.max_interval",
            kind: Kind::Duration { min: Duration::from_secs(1), max: Duration::from_secs(30 * DAY.as_secs()) },
            default: Some("30m"),
            doc: "a file is finished this long after its first record arrived",
            cost: "More: fewer files and requests; the newest records appear later in the store, and a restart without the \
                   spool reads up to this much again. It must stay well below the topic's retention.",
        },
        Key {
            path: "format",
            kind: Kind::Choice(names::<Format>),
            default: Some("raw"),
            doc: "`raw`: values, a line each; `json`: one JSON object a record, with key, headers, timestamp",
            cost: "`json` is reversible to the byte; `raw` is smaller, keys and headers are lost.",
        },
        Key {
            path: "compression.codec",
            kind: Kind::Choice(names::<Codec>),
            default: Some("lz4"),
            doc: "`lz4`, `zstd`, `gzip` or `none`",
            cost: "`zstd` and `gzip` make smaller files than `lz4` for more CPU.",
        },
        Key {
            path: "compression.level",
            kind: Kind::Integer { min: -1000, max: 1000 },
            default: Some("null"),
            doc: "in the codec's own scale; `lz4` and `none` have no levels. `null`: the codec's default",
            cost: "More: smaller files for more CPU.",
        },
        Key {
            path: "compression.frame_bytes",
            kind: Kind::Bytes { min: 64 * KIB, max: 16 * MIB },
            default: Some("1MiB"),
            doc: "bytes of a block before compression; blocks can be read one by one",
            cost: "More: a little smaller files. Less: less memory for each app that has records waiting, and readers of a \
                   short time range fetch less.",
        },
        Key {
            path: "sink.url",
            kind: Kind::Url,
            default: None,
            doc: "where files go: `oss://bucket/prefix`, `s3://bucket/prefix` or `file:///dir`. Two connectors never share \
                  or nest them",
            cost: "",
        },
        Key {
            path: "sink.key",
            kind: Kind::Text,
            default: Some("{app_id}/{date}/{time}_{topic}+{partition}+{offset}.{ext}"),
            doc: "a file's name below the prefix. Must keep `{app_id}`, `{topic}`, `{partition}` and `{offset}`; may use \
                  `{date} {time} {year} {month} {day} {hour} {connector} {ext}`",
            cost: "App id before date keeps one app in one folder, and stores split load by the first letters of keys.",
        },
        Key {
            path: "sink.endpoint",
            kind: Kind::Text,
            default: Some("null"),
            doc: "address of the store, `https://host:port`; with `oss://` also the word `internal`. `null`: by region",
            cost: "",
        },
        Key { path: "sink.region", kind: Kind::Text, default: Some("null"), doc: "region of the bucket", cost: "" },
        Key {
            path: "sink.flavor",
            kind: Kind::Choice(names::<Flavor>),
            default: Some("null"),
            doc: "the store's dialect: `aws`, `oss`, `minio` or `generic`. `null`: `oss` for `oss://` and endpoints of \
                  aliyuncs.com; for other `s3://` `aws` without an endpoint or with one of amazonaws.com, else `generic`",
            cost: "",
        },
        Key {
            path: "sink.storage_class",
            kind: Kind::Text,
            default: Some("null"),
            doc: "storage class of the files, in the store's spelling. `null`: the bucket's",
            cost: "Colder classes cost less to keep and more to read; some ask for a minimum of days.",
        },
        Key {
            path: "sink.sse.mode",
            kind: Kind::Text,
            default: Some("null"),
            doc: "encryption by the store: `AES256`, `aws:kms`, on OSS `AES256`, `KMS` or `SM4`. `null`: the bucket's",
            cost: "",
        },
        Key {
            path: "sink.sse.kms_key_id",
            kind: Kind::Text,
            default: Some("null"),
            doc: "id of the key for the KMS modes. `null`: the store's own",
            cost: "",
        },
        Key {
            path: "sink.tags",
            kind: Kind::Map,
            default: Some("{}"),
            doc: "tags of every file, at most 10",
            cost: "",
        },
        Key {
            path: "sink.part_bytes",
            kind: Kind::Bytes { min: 5 * MIB, max: 5 * GIB },
            default: Some("16MiB"),
            doc: "files above this size are uploaded in parts of it",
            cost: "More: fewer requests. Less: a broken connection costs less to repeat.",
        },
        Key {
            path: "sink.max_uploads",
            kind: Kind::Integer { min: 1, max: 1024 },
            default: Some("16"),
            doc: "uploads at the same time",
            cost: "More: a burst of finished files is stored sooner; more connections and memory.",
        },
        Key {
            path: "sink.ca_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "certificates (PEM) that sign the store's. `null`: the well-known ones",
            cost: "",
        },
        Key {
            path: "sink.credentials.from",
            kind: Kind::Choice(names::<CredentialsFrom>),
            default: Some("auto"),
            doc: "where credentials come from; `auto` tries what the machine offers. `static` reads `key_file` and \
                  `secret_file`, `file` these or a `profile`, `oidc` a `token_file`. This version refuses `ecs-ram-role` and \
                  `oidc`",
            cost: "",
        },
        Key {
            path: "sink.credentials.role_arn",
            kind: Kind::Text,
            default: Some("null"),
            doc: "role to take on. This version refuses it",
            cost: "",
        },
        Key {
            path: "sink.credentials.profile",
            kind: Kind::Text,
            default: Some("null"),
            doc: "profile of the shared credentials file",
            cost: "",
        },
        Key {
            path: "sink.credentials.key_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file that holds the access key id; together with `secret_file`",
            cost: "",
        },
        Key {
            path: "sink.credentials.secret_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file that holds the secret access key",
            cost: "",
        },
        Key {
            path: "sink.credentials.token_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file that holds the session token or the OIDC token",
            cost: "",
        },
        Key {
            path: "on_error",
            kind: Kind::Choice(names::<OnError>),
            default: Some("dead_letter"),
            doc: "a record that can't be split or formatted: `fail` stops the task, `skip` leaves it out and counts it, \
                  `dead_letter` keeps it aside",
            cost: "",
        },
        Key {
            path: "dead_letter.topic",
            kind: Kind::Text,
            default: Some("null"),
            doc: "a Kafka topic for dead letters, which has to be there; at least once, with Kafka Connect's \
                  `__connect.errors.*` headers. Records above 900 KiB go to `path` all the same. `null`: files of their own \
                  below `path`, exactly once",
            cost: "",
        },
        Key {
            path: "dead_letter.path",
            kind: Kind::Text,
            default: Some("_dead_letter"),
            doc: "folder of the dead letters, in place of the app id; begins with `_`",
            cost: "",
        },
    ],
};
