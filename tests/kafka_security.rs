//! TLS, SASL and permissions against a real broker of the test's own with a listener for each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]
// The helpers are shared with tests that need more of them.
#![allow(dead_code)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice::config::{KafkaConfig, SaslMechanism, SecurityProtocol};
use sluice::kafka::native;
use sluice::pipeline::source::{Isolation, SourceError};
use support::kafka::{HANG, Oracle, Reading, address, ends, repository, request, unique};

const COMMITTED: Isolation = Isolation::ReadCommitted;

struct Broker {
    dir: tempfile::TempDir,
    child: Child,
    plaintext: u16,
    sasl_plaintext: u16,
    sasl_ssl: u16,
    ssl: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().expect("openssl runs");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A CA and another one, a server's certificate for 127.0.0.1 alone, a client's certificate from each CA.
fn certificates(dir: &Path) {
    let new_key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    for ca in ["ca", "other-ca"] {
        openssl(
            dir,
            &format!(
                "{new_key} -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -addext basicConstraints=critical,CA:TRUE"
            ),
        );
    }
    for (name, file, san, ca) in [
        ("server", "server", "IP:127.0.0.1", "ca"),
        ("client", "client", "DNS:client", "ca"),
        ("client", "renewed-client", "DNS:client", "other-ca"),
    ] {
        openssl(
            dir,
            &format!(
                "{new_key} -keyout {file}.key -out {file}.pem -subj /CN={name} -addext subjectAltName={san} -addext basicConstraints=CA:FALSE -CA {ca}.pem -CAkey {ca}.key"
            ),
        );
    }
    let both = std::fs::read_to_string(dir.join("server.key")).unwrap()
        + &std::fs::read_to_string(dir.join("server.pem")).unwrap();
    std::fs::write(dir.join("server-store.pem"), both).unwrap();
}

fn kafka_run(arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("dev/kafka"));
    command.arg("run").args(arguments);
    command
}

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let [plaintext, sasl_plaintext, sasl_ssl, ssl, controller] = std::array::from_fn(|_| free_port());
        let home = dir.path().display();
        let module = "org.apache.kafka.common.security";
        let mut properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{plaintext},SASL_PLAINTEXT://127.0.0.1:{sasl_plaintext},SASL_SSL://127.0.0.1:{sasl_ssl},SSL://127.0.0.1:{ssl},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT\n\
             log.dirs={home}/data\noffsets.topic.replication.factor=1\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS;User:CN=client\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             ssl.keystore.type=PEM\nssl.keystore.location={home}/server-store.pem\n\
             ssl.truststore.type=PEM\nssl.truststore.location={home}/ca.pem\n\
             listener.name.ssl.ssl.client.auth=required\n\
             listener.name.sasl_plaintext.scram-sha-256.connections.max.reauth.ms=1000\n"
        );
        for listener in ["sasl_plaintext", "sasl_ssl"] {
            for (mechanism, jaas) in [
                ("plain", format!("{module}.plain.PlainLoginModule required user_alice=\"secret\";")),
                ("scram-sha-256", format!("{module}.scram.ScramLoginModule required;")),
                ("scram-sha-512", format!("{module}.scram.ScramLoginModule required;")),
                (
                    "oauthbearer",
                    format!(
                        "{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
                    ),
                ),
            ] {
                properties.push_str(&format!("listener.name.{listener}.{mechanism}.sasl.jaas.config={jaas}\n"));
            }
        }
        let file = dir.path().join("server.properties");
        std::fs::write(&file, properties).unwrap();
        let file = file.display().to_string();
        let formatted = kafka_run(&["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", &file])
            .args(["--add-scram", "SCRAM-SHA-256=[name=alice,password=secret]"])
            .args(["--add-scram", "SCRAM-SHA-512=[name=alice,password=secret]"])
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let child = Self::run(dir.path());
        let mut broker = Self { dir, child, plaintext, sasl_plaintext, sasl_ssl, ssl };
        broker.wait_for_listeners();
        broker
    }

    fn run(dir: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        kafka_run(&["kafka.Kafka", &dir.join("server.properties").display().to_string()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait_for_listeners(&mut self) {
        let give_up = Instant::now() + HANG;
        while TcpStream::connect(("127.0.0.1", self.ssl)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < give_up, "{}", self.log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Kills the broker and starts it on the same ports, trusting the clients of this CA alone.
    fn restart_trusting(&mut self, ca: &str) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let file = self.file("server.properties");
        let properties = std::fs::read_to_string(&file).unwrap();
        let (before, after) = ("/ca.pem\n", format!("/{ca}\n"));
        assert_eq!(properties.matches(before).count(), 1);
        std::fs::write(file, properties.replace(before, &after)).unwrap();
        self.child = Self::run(self.dir.path());
        self.wait_for_listeners();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn secret(&self, text: &str) -> PathBuf {
        let file = self.file(&format!("secret-{text}"));
        std::fs::write(&file, format!("{text}\n")).unwrap();
        file
    }

    fn sasl(&self, mechanism: SaslMechanism, password: &str) -> KafkaConfig {
        let mut config = KafkaConfig::plaintext(&format!("127.0.0.1:{}", self.sasl_plaintext));
        config.security.protocol = SecurityProtocol::SaslPlaintext;
        config.security.sasl.mechanism = Some(mechanism);
        config.security.sasl.username = Some("alice".into());
        config.security.sasl.password_file = Some(self.secret(password));
        config
    }

    fn ssl(&self, ca: &str) -> KafkaConfig {
        let mut config = KafkaConfig::plaintext(&format!("127.0.0.1:{}", self.ssl));
        config.security.protocol = SecurityProtocol::Ssl;
        config.security.tls.ca_file = Some(self.file(ca));
        config.security.tls.cert_file = Some(self.file("client.pem"));
        config.security.tls.key_file = Some(self.file("client.key"));
        config
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn records(config: &KafkaConfig, topic: &str) -> Result<usize, SourceError> {
    let kafka = native::connect(config).await?;
    let wanted = request(&*kafka, topic, COMMITTED).await;
    let ends = ends(&*kafka, &wanted).await;
    let mut reading = Reading::start(&*kafka, wanted);
    reading.until(&ends).await;
    Ok(reading.lines.len())
}

async fn refusal(config: &KafkaConfig) -> String {
    match native::connect(config).await {
        Err(SourceError::Refused { what, message }) => format!("{what}: {message}"),
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("connected"),
    }
}

/// A token endpoint that answers one kind of request with a token that the broker takes without a signature.
fn token_endpoint() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&asked).contains("scope=") {
                let read = stream.read(&mut part).unwrap();
                assert!(read > 0, "the request ends early");
                asked.extend(&part[..read]);
            }
            let asked = String::from_utf8_lossy(&asked).into_owned();
            // id:s%3Dcret
            let right = asked.contains("Basic aWQ6cyUzRGNyZXQ=")
                && asked.ends_with("grant_type=client_credentials&scope=a%20b");
            let now = jiff::Timestamp::now().as_second();
            let claims = format!("{{\"sub\":\"alice\",\"iat\":{now},\"exp\":{}}}", now + 600);
            let token = format!("{}.{}.", URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"), URL_SAFE_NO_PAD.encode(claims));
            let (status, body) = if right {
                ("200 OK", format!("{{\"access_token\":\"{token}\",\"token_type\":\"bearer\",\"expires_in\":600}}"))
            } else {
                ("401 Unauthorized", "{\"error\":\"invalid_client\"}".to_owned())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_in_works_and_every_wrong_one_is_named() {
    if address().is_none() {
        return;
    }
    let broker = Broker::start();
    let mut oracle = Oracle::start(&format!("127.0.0.1:{}", broker.plaintext));
    let (topic, secret) = (unique("open"), unique("secret"));
    for each in [&topic, &secret] {
        oracle.ask(&format!("create {each} 1 1"));
        oracle.ask(&format!("produce {each} 0 lz4 100 100"));
    }
    oracle.ask(&format!("allow alice {topic}"));

    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        assert_eq!(records(&broker.sasl(mechanism, "secret"), &topic).await.unwrap(), 100, "{mechanism:?}");
        let refused = refusal(&broker.sasl(mechanism, "wrong")).await;
        assert!(refused.contains("SASL_AUTHENTICATION_FAILED"), "{refused}");
        assert!(!refused.contains("wrong"), "no password in messages: {refused}");
        let mut both = broker.sasl(mechanism, "secret");
        both.bootstrap_servers = vec![format!("127.0.0.1:{}", broker.sasl_ssl)];
        both.security.protocol = SecurityProtocol::SaslSsl;
        both.security.tls.ca_file = Some(broker.file("ca.pem"));
        assert_eq!(records(&both, &topic).await.unwrap(), 100, "{mechanism:?} over TLS");
    }

    let mut oauth = broker.sasl(SaslMechanism::OauthBearer, "unused");
    oauth.security.sasl.token_endpoint = Some(format!("http://127.0.0.1:{}/token", token_endpoint()));
    oauth.security.sasl.client_id = Some("id".into());
    oauth.security.sasl.client_secret_file = Some(broker.secret("s=cret"));
    oauth.security.sasl.scope = Some("a b".into());
    assert_eq!(records(&oauth, &topic).await.unwrap(), 100);
    oauth.security.sasl.client_secret_file = Some(broker.secret("wrong"));
    let refused = refusal(&oauth).await;
    assert!(refused.contains("401") && refused.contains("invalid_client"), "{refused}");

    // The certificate's CN is a super user here.
    assert_eq!(records(&broker.ssl("ca.pem"), &topic).await.unwrap(), 100);
    let refused = refusal(&broker.ssl("other-ca.pem")).await;
    assert!(refused.contains("certificate"), "{refused}");
    let mut by_name = broker.ssl("ca.pem");
    by_name.bootstrap_servers = vec![format!("localhost:{}", broker.ssl)];
    let refused = refusal(&by_name).await;
    assert!(refused.contains("certificate"), "{refused}");
    by_name.security.tls.verify_hostname = false;
    native::connect(&by_name).await.unwrap();
    let mut other_ca = broker.ssl("other-ca.pem");
    other_ca.security.tls.verify_hostname = false;
    refusal(&other_ca).await;
    let mut anonymous = broker.ssl("ca.pem");
    (anonymous.security.tls.cert_file, anonymous.security.tls.key_file) = (None, None);
    let refused = refusal(&anonymous).await;
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");

    // Certificates and passwords are read again for each connection: a cluster that is connected takes up new ones.
    let mut renewed = broker.ssl("renewed.pem");
    std::fs::copy(broker.file("ca.pem"), broker.file("renewed.pem")).unwrap();
    let kafka = native::connect(&renewed).await.unwrap();
    let wanted = request(&*kafka, &topic, COMMITTED).await;
    std::fs::copy(broker.file("other-ca.pem"), broker.file("renewed.pem")).unwrap();
    let error = Reading::start(&*kafka, wanted.clone()).failure().await;
    assert!(matches!(&error, SourceError::Refused { message, .. } if message.contains("certificate")), "{error}");
    std::fs::copy(broker.file("ca.pem"), broker.file("renewed.pem")).unwrap();
    Reading::start(&*kafka, wanted).until(&BTreeMap::from([(0, 100)])).await;
    renewed = broker.sasl(SaslMechanism::Plain, "secret");
    renewed.security.sasl.password_file = Some(broker.file("password"));
    std::fs::write(broker.file("password"), "secret").unwrap();
    let kafka = native::connect(&renewed).await.unwrap();
    let wanted = request(&*kafka, &topic, COMMITTED).await;
    std::fs::write(broker.file("password"), "outdated").unwrap();
    let error = Reading::start(&*kafka, wanted).failure().await;
    assert!(matches!(&error, SourceError::Refused { message, .. } if message.contains("AUTHENTICATION")), "{error}");

    let kafka = native::connect(&broker.sasl(SaslMechanism::Plain, "secret")).await.unwrap();
    let error = kafka.retention(&topic).await.unwrap_err();
    assert!(matches!(&error, SourceError::Refused { what, .. } if what.contains("settings")), "{error}");
    let error = kafka.topic(&secret).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::Refused { message, .. } if message.contains("TOPIC_AUTHORIZATION_FAILED")),
        "{error}"
    );

    // A plain client at a TLS listener, and the other way round.
    let mut wrong_way = KafkaConfig::plaintext(&format!("127.0.0.1:{}", broker.ssl));
    let error = native::connect(&wrong_way).await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
    wrong_way = broker.ssl("ca.pem");
    wrong_way.bootstrap_servers = vec![format!("127.0.0.1:{}", broker.plaintext)];
    let error = native::connect(&wrong_way).await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");

    // A session that the broker ends after a second (KIP-368) is renewed without a gap.
    let kafka = native::connect(&broker.sasl(SaslMechanism::ScramSha256, "secret")).await.unwrap();
    let wanted = request(&*kafka, &topic, COMMITTED).await;
    let mut reading = Reading::start(&*kafka, wanted.clone());
    reading.until(&ends(&*kafka, &wanted).await).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    oracle.ask(&format!("produce {topic} 0 lz4 50 100"));
    reading.until(&ends(&*kafka, &wanted).await).await;
    assert_eq!(reading.lines.len(), 150);
    assert_eq!(reading.waits, 0, "no connection was lost");
}

/// The broker stops to trust the CA of the old certificate: whoever still shows it is turned away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_that_is_renewed_is_used_by_the_reader_that_runs() {
    if address().is_none() {
        return;
    }
    let mut broker = Broker::start();
    let mut oracle = Oracle::start(&format!("127.0.0.1:{}", broker.plaintext));
    let topic = unique("renewed");
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 lz4 100 100"));

    let install = |from: &str| {
        for kind in ["pem", "key"] {
            std::fs::copy(broker.file(&format!("{from}.{kind}")), broker.file(&format!("live.{kind}"))).unwrap();
        }
    };
    install("client");
    let old = broker.ssl("ca.pem");
    let mut live = old.clone();
    live.security.tls.cert_file = Some(broker.file("live.pem"));
    live.security.tls.key_file = Some(broker.file("live.key"));
    let kafka = native::connect(&live).await.unwrap();
    let wanted = request(&*kafka, &topic, COMMITTED).await;
    let mut reading = Reading::start(&*kafka, wanted);
    reading.until(&BTreeMap::from([(0, 100)])).await;
    let stale = native::connect(&old).await.unwrap();
    let mut left_behind = Reading::start(&*stale, request(&*stale, &topic, COMMITTED).await);
    left_behind.until(&BTreeMap::from([(0, 100)])).await;

    install("renewed-client");
    broker.restart_trusting("other-ca.pem");
    oracle.ask(&format!("produce {topic} 0 lz4 50 100"));
    reading.until(&BTreeMap::from([(0, 150)])).await;
    assert_eq!(reading.lines.len(), 150, "each record once, before and after");
    let error = left_behind.failure().await;
    assert!(matches!(&error, SourceError::Refused { message, .. } if message.contains("ertificate")), "{error}");
    assert_eq!(left_behind.lines.len(), 100);
    // Also the questions of a running client go out with the new one.
    assert!(kafka.topic(&topic).await.unwrap().is_some());
    refusal(&old).await;
}
