//! The keys of configs/worker.yaml.
//!
//! Owns: their paths, kinds, defaults and docs. Does not own: rules between them.

use std::time::Duration;

use super::{DAY, Key, Kind, MIB, Schema, TIB, names};
use crate::config::{LogFormat, SaslMechanism, SecurityProtocol};

pub static WORKER: Schema = Schema {
    keys: &[
        Key {
            path: "worker.id",
            kind: Kind::Text,
            default: Some("null"),
            doc: "this worker's name in logs, status and the tasks' logs. `null`: the host name",
            cost: "",
        },
        Key {
            path: "worker.group",
            kind: Kind::Text,
            default: Some("default"),
            doc: "workers of one group share the tasks of their connectors (letters, digits, `.`, `_`, `-`). Has \
                  an effect with `coordination.url` only",
            cost: "",
        },
        Key {
            path: "worker.max_tasks",
            kind: Kind::Integer { min: 0, max: 100_000 },
            default: Some("null"),
            doc: "the most tasks that this worker takes. `null`: as many as there are. 0, with `coordination.url` only: it looks on",
            cost: "A small number limits what a canary can break; too small a sum over all workers leaves tasks unassigned.",
        },
        Key {
            path: "kafka.bootstrap_servers",
            kind: Kind::List,
            default: None,
            doc: "brokers to ask for the cluster's layout, `host:port` each",
            cost: "One is enough to start with; two or three let a start succeed while one is down.",
        },
        Key {
            path: "kafka.security.protocol",
            kind: Kind::Choice(names::<SecurityProtocol>),
            default: Some("PLAINTEXT"),
            doc: "how brokers are talked to",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.mechanism",
            kind: Kind::Choice(names::<SaslMechanism>),
            default: Some("null"),
            doc: "needed with `SASL_PLAINTEXT` and `SASL_SSL`, not used otherwise",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.username",
            kind: Kind::Text,
            default: Some("null"),
            doc: "for `PLAIN` and `SCRAM-*`",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.password_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file that holds the password, for `PLAIN` and `SCRAM-*`",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.token_endpoint",
            kind: Kind::Text,
            default: Some("null"),
            doc: "the URL that gives tokens, for `OAUTHBEARER`",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.client_id",
            kind: Kind::Text,
            default: Some("null"),
            doc: "for `OAUTHBEARER`",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.client_secret_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file that holds the client's secret, for `OAUTHBEARER`",
            cost: "",
        },
        Key {
            path: "kafka.security.sasl.scope",
            kind: Kind::Text,
            default: Some("null"),
            doc: "the scope to ask for, for `OAUTHBEARER`",
            cost: "",
        },
        Key {
            path: "kafka.security.tls.ca_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "certificates (PEM) that sign the brokers'. `null`: the well-known ones",
            cost: "",
        },
        Key {
            path: "kafka.security.tls.cert_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "this client's certificate (PEM); together with `key_file`",
            cost: "",
        },
        Key {
            path: "kafka.security.tls.key_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "the key of `cert_file` (PEM)",
            cost: "",
        },
        Key {
            path: "kafka.security.tls.verify_hostname",
            kind: Kind::Bool,
            default: Some("true"),
            doc: "whether a broker's certificate must carry its host name",
            cost: "`false` lets anyone with a certificate of the same authority stand in for a broker.",
        },
        Key {
            path: "kafka.client_rack",
            kind: Kind::Text,
            default: Some("null"),
            doc: "this machine's rack or zone; brokers that allow it let a near replica be read",
            cost: "Reading in the own zone saves traffic charges, at a little more delay.",
        },
        Key {
            path: "kafka.group_offsets",
            kind: Kind::Bool,
            default: Some("true"),
            doc: "copy what is safely archived to the Kafka group `sluice-<connector>`, for lag tools. Sluice itself never \
                  reads it",
            cost: "",
        },
        Key {
            path: "state.url",
            kind: Kind::Url,
            default: Some("null"),
            doc: "where the tasks' logs lie. `null`: beside each connector's data, under `<prefix>/_sluice/`. Else \
                  `file://`, or `s3://` or `oss://` like the sinks, whose endpoint and credentials it takes, or a Redis \
                  (addresses as under `coordination.url`), the weaker choice: see operations.md. Chosen once: a \
                  connector that has begun refuses to start with another",
            cost: "Needed only where the data's bucket can't create an object only if there is none. Whatever forgets a log, \
                   a machine's own disk for example, archives twice or not at all afterwards.",
        },
        Key {
            path: "coordination.url",
            kind: Kind::Url,
            default: Some("null"),
            doc: "a Redis (5 or later, or Valkey) by which the workers of a group share tasks: \
                  `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS, `redis-sentinel://host,host/master`, \
                  `redis-cluster://host,host` (the last two with TLS: `?tls=true`). May be flushed at any time. `null`: this is \
                  the only worker",
            cost: "With it a worker that starts while Redis is away waits; one that archives goes on.",
        },
        Key {
            path: "spool.dir",
            kind: Kind::Path,
            default: Some("/var/lib/sluice/spool"),
            doc: "where compressed records wait for their upload. May be lost with the machine",
            cost: "A lost spool costs reading the same records again.",
        },
        Key {
            path: "spool.max_bytes",
            kind: Kind::Bytes { min: MIB, max: 1024 * TIB },
            default: Some("20GiB"),
            doc: "the most that the spool may hold",
            cost: "Less: under load files are finished early and get small, and a store outage stops the reading sooner. \
                   More: disk space.",
        },
        Key {
            path: "memory_max_bytes",
            kind: Kind::Bytes { min: 8 * MIB, max: 16 * TIB },
            default: Some("192MiB"),
            doc: "the most that records may take in memory: fetched, waiting to be compressed, being compressed",
            cost: "Less: blocks are compressed before they are full (lower ratio), then reading waits. More: memory; \
                   nothing is gained once blocks fill.",
        },
        Key {
            path: "compression_threads",
            kind: Kind::Integer { min: 1, max: 1024 },
            default: Some("null"),
            doc: "threads that compress, shared by all tasks. `null`: one for each core",
            cost: "Less leaves cores to other programs; catching up takes longer.",
        },
        Key {
            path: "http.listen",
            kind: Kind::Text,
            default: Some("127.0.0.1:8083"),
            doc: "`host:port` of status, metrics and REST. An address that others can reach needs `http.auth`",
            cost: "",
        },
        Key {
            path: "http.metrics_listen",
            kind: Kind::Text,
            default: Some("null"),
            doc: "a second `host:port` for `/metrics` and `/health` alone, without auth",
            cost: "",
        },
        Key {
            path: "http.auth",
            kind: Kind::SectionOr("none"),
            default: Some("{}"),
            doc: "who may use `http.listen`: one of the two keys below, or the word `none`: everyone, also from other \
                  machines",
            cost: "",
        },
        Key {
            path: "http.auth.bearer_token_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file that holds the token which clients send as `Authorization: Bearer`",
            cost: "",
        },
        Key {
            path: "http.auth.basic_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "a file with a `user:password` line for each client of basic auth",
            cost: "",
        },
        Key {
            path: "http.tls.cert_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "certificate (PEM) of `http.listen`; together with `key_file`. `null`: plain HTTP. Renewed files are taken up by themselves",
            cost: "",
        },
        Key {
            path: "http.tls.key_file",
            kind: Kind::Path,
            default: Some("null"),
            doc: "the key of `cert_file` (PEM)",
            cost: "",
        },
        Key {
            path: "http.allow_sinks",
            kind: Kind::List,
            default: Some("[]"),
            doc: "what connectors made over HTTP may use: places to write to (`s3://bucket/prefix`, `oss://`, `file://`), addresses of \
                  stores (`https://host:port`), folders of secrets (`file://`). Empty: everything while only this machine can \
                  reach `http.listen`, else nothing",
            cost: "",
        },
        Key {
            path: "shutdown_timeout",
            kind: Kind::Duration { min: Duration::from_secs(1), max: DAY },
            default: Some("60s"),
            doc: "how long a stop waits for uploads in flight",
            cost: "Less: a stop is quicker, what was cut off is uploaded again. More: nothing, where the service manager \
                   waits as long.",
        },
        Key {
            path: "log.format",
            kind: Kind::Choice(names::<LogFormat>),
            default: Some("text"),
            doc: "how the log on stderr is written; `journald` writes to the journal instead",
            cost: "",
        },
        Key {
            path: "log.level",
            kind: Kind::Text,
            default: Some("info"),
            doc: "`off`, `error`, `warn`, `info`, `debug` or `trace` of Sluice itself; libraries then say warnings only. For parts \
                  of the program: `info,sluice::log=debug`, taken as it is",
            cost: "`debug` writes some lines for each file, `trace` for each request.",
        },
    ],
};
