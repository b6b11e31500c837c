//! Every kind of Redis address on real servers of the test's own: users, TLS, sentinels with a fail-over, a cluster.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::cluster::redis::RedisCoordinator;
use sluice::cluster::{Card, Coordinator, Instance, LEASE, Phase, TaskName, contract};
use sluice::config::RedisUrl;
use sluice::log::LogDoor;
use sluice::log::store_log::StoreLog;
use sluice::store::redis::RedisStore;

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// False, with the reason printed, where there is no server to start.
fn installed() -> bool {
    let found = Command::new("redis-server").arg("--version").output().is_ok();
    if !found {
        println!("not run: redis-server is not installed");
        assert_ne!(std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Ok("1"), "redis-server is required");
    }
    found
}

struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `settings` are lines of redis.conf, made from the port; `client` what redis-cli needs to know.
    fn start(sentinel: bool, client: &[&str], settings: impl Fn(u16) -> String) -> Self {
        // Somebody may be faster with a port that was free.
        for _ in 0..20 {
            let port = free_port();
            let dir = tempfile::tempdir().unwrap();
            let conf = dir.path().join("redis.conf");
            let text = format!("bind 127.0.0.1\ndir {}\nsave \"\"\n{}\n", dir.path().display(), settings(port));
            std::fs::write(&conf, text).unwrap();
            let mut command = Command::new("redis-server");
            command.arg(&conf).args(sentinel.then_some("--sentinel"));
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let begun = Instant::now();
            while child.try_wait().unwrap().is_none() {
                if cli(port, client, &["ping"]).contains("PONG") {
                    return Self { child, port, _dir: dir };
                }
                assert!(begun.elapsed() < HANG, "redis-server does not answer");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("redis-server does not start");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below the range that the kernel gives to clients; the bus of a cluster has one 10,000 above, which it is told.
fn free_port() -> u16 {
    loop {
        let port = 15_000 + u16::try_from(getrandom::u32().unwrap() % 15_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn cli(port: u16, client: &[&str], command: &[&str]) -> String {
    let port = port.to_string();
    let output = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(client).args(command).output();
    let output = output.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < HANG, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `check --probe` says of this address, stdout and stderr.
fn probe(url: &str, certificates: Option<&Path>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (worker, connector) = (dir.path().join("worker.yaml"), dir.path().join("c.yaml"));
    let text = format!(
        "kafka: {{ bootstrap_servers: ['{closed}'] }}\ncoordination: {{ url: '{url}' }}\nspool: {{ dir: '{}' }}\n",
        dir.path().join("spool").display()
    );
    std::fs::write(&worker, text).unwrap();
    let data = dir.path().join("data");
    std::fs::write(
        &connector,
        format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ url: 'file://{}' }} }}", data.display()),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["check", "--probe", "--config"]).arg(&worker).arg("--connectors").arg(&connector);
    if let Some(file) = certificates {
        command.env("SSL_CERT_FILE", file);
    }
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const LEASE_WORKS: &str = ": takes and releases a lease";

#[test]
fn users_need_their_password_and_their_rights() {
    if !installed() {
        return;
    }
    let server = Server::start(false, &["--user", "admin", "--pass", "planted-0"], |port| {
        format!(
            "port {port}\nuser default off\nuser admin on >planted-0 ~* &* +@all\n\
             user sluice on >planted-1@/ ~{{sluice:*}}:* +@all -@dangerous\nuser other on >planted-2 ~other:* +@all"
        )
    });
    let host = format!("127.0.0.1:{}", server.port);
    let out = probe(&format!("redis://sluice:planted-1%40%2F@{host}/0"), None);
    assert!(out.contains(&format!("ok      redis {host}: answers PING")), "{out}");
    assert!(
        out.contains(&format!("ok      coordination redis://{host}/0{LEASE_WORKS}; of group default nobody is there")),
        "{out}"
    );
    for (login, why) in
        [("sluice:planted-wrong", "authentication failed"), ("other:planted-2", "NOPERM"), ("", "NOAUTH")]
    {
        let at = if login.is_empty() { "" } else { "@" };
        let out = probe(&format!("redis://{login}{at}{host}"), None);
        assert!(out.contains(&format!("FAILED  coordination redis://{host}: ")), "{login}: {out}");
        assert!(out.to_lowercase().contains(&why.to_lowercase()) && !out.contains("planted"), "{login}: {out}");
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tls_trusts_what_the_system_trusts() {
    if !installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    openssl(dir.path(), "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca");
    openssl(dir.path(), "req -newkey rsa:2048 -nodes -keyout s.key -out s.csr -subj /CN=localhost");
    std::fs::write(dir.path().join("s.ext"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        dir.path(),
        "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem -days 2 -extfile s.ext",
    );
    let path = |name: &str| dir.path().join(name).display().to_string();
    let ca = path("ca.pem");
    let server = Server::start(false, &["--tls", "--cacert", &ca, "--sni", "localhost", "-a", "planted"], |port| {
        format!(
            "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {ca}\ntls-auth-clients no\n\
             requirepass planted",
            path("s.pem"),
            path("s.key")
        )
    });
    let url = format!("rediss://:planted@localhost:{}", server.port);
    let out = probe(&url, Some(&dir.path().join("ca.pem")));
    assert!(out.contains(LEASE_WORKS) && !out.contains("planted"), "{out}");
    // Another name than the certificate's, and an authority that nobody trusts.
    for (url, certificates) in [(url.replace("localhost", "127.0.0.1"), Some(dir.path().join("ca.pem"))), (url, None)] {
        let out = probe(&url, certificates.as_deref());
        assert!(out.contains("FAILED  coordination rediss://") && !out.contains("planted"), "{out}");
    }
}

fn url(text: &str) -> RedisUrl {
    RedisUrl::parse(text).unwrap()
}

fn card() -> Card {
    Card {
        worker: "w".to_owned(),
        max_tasks: None,
        phase: Phase::Ready,
        offers: BTreeMap::from([("c/t".to_owned(), 1)]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_both_contracts() {
    if !installed() {
        return;
    }
    let servers: Vec<Server> = (0..3)
        .map(|_| {
            Server::start(false, &[], |port| {
                format!("port {port}\ncluster-enabled yes\ncluster-port {}", port + 10_000)
            })
        })
        .collect();
    let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(hosts.iter().map(String::as_str));
    create.push("--cluster-yes");
    let made = Command::new("redis-cli").args(&create).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    for server in &servers {
        wait_until("the cluster is one", || cli(server.port, &[], &["cluster", "info"]).contains("cluster_state:ok"));
    }
    // One node is enough to begin with; the others are found.
    let address = url(&format!("redis-cluster://{}", hosts[0]));
    let groups = std::sync::atomic::AtomicU32::new(0);
    contract::run(|lease| {
        // Groups fall on different nodes.
        let group = format!("g{}", groups.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let open = || Arc::new(RedisCoordinator::new(&address, &group, lease)) as Arc<dyn Coordinator>;
        (open(), open())
    })
    .await;
    let logs = std::sync::atomic::AtomicU32::new(0);
    let store = Arc::new(RedisStore::open(&address));
    sluice::log::contract::run(|| {
        let number = logs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(StoreLog::new(store.clone(), &format!("_sluice/c/t/1/{number}"))) as Arc<dyn LogDoor>
    })
    .await;
    let out = tokio::task::spawn_blocking(move || probe(&format!("redis-cluster://{}", hosts.join(",")), None))
        .await
        .unwrap();
    assert!(out.contains(LEASE_WORKS) && out.matches("answers PING").count() == 3, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_new_master() {
    if !installed() {
        return;
    }
    let auth = "requirepass planted-1\nmasterauth planted-1";
    let client = ["-a", "planted-1"];
    let mut master = Server::start(false, &client, |port| format!("port {port}\n{auth}"));
    let replicaof = format!("{auth}\nreplicaof 127.0.0.1 {}\nrepl-diskless-sync-delay 0", master.port);
    let replica = Server::start(false, &client, |port| format!("port {port}\n{replicaof}"));
    wait_until("the replica follows", || {
        cli(replica.port, &client, &["info", "replication"]).contains("master_link_status:up")
    });
    let monitored = master.port;
    let sentinel = Server::start(true, &["-a", "planted-2"], |port| {
        format!(
            "port {port}\nrequirepass planted-2\nsentinel monitor mine 127.0.0.1 {monitored} 1\nsentinel auth-pass mine planted-1\n\
             sentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 5000"
        )
    });
    let client = ["-a", "planted-2"];
    wait_until("the sentinel knows the replica", || {
        cli(sentinel.port, &client, &["sentinel", "replicas", "mine"]).contains(&replica.port.to_string())
    });
    let address = format!("redis-sentinel://:planted-1@127.0.0.1:{}/mine?sentinel_password=planted-2", sentinel.port);
    let coordinator = RedisCoordinator::new(&url(&address), "g", LEASE);
    let (me, task) = (Instance("me".to_owned()), TaskName::new("c", "t", 0));
    assert!(!coordinator.sync(&me, &card(), std::slice::from_ref(&task)).await.unwrap().known);
    master.child.kill().unwrap();
    master.child.wait().unwrap();
    let begun = Instant::now();
    let mut failures = 0;
    let view = loop {
        match coordinator.sync(&me, &card(), std::slice::from_ref(&task)).await {
            Ok(view) => break view,
            Err(error) => {
                failures += 1;
                assert!(!error.to_string().contains("planted"), "{error}");
                assert!(begun.elapsed() < HANG, "{error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    assert!(failures > 0, "the master was gone");
    assert_eq!(view.leases, BTreeMap::from([(task, me)]));
    let out = tokio::task::spawn_blocking(move || probe(&address, None)).await.unwrap();
    assert!(out.contains(LEASE_WORKS) && !out.contains("planted"), "{out}");
    assert!(cli(replica.port, &["-a", "planted-1"], &["hget", "{sluice:g}:leases", "c/t/0"]).contains(":me"));
}
