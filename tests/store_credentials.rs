//! Where a store's credentials come from, on the wire: metadata services and STS that play those of both clouds, a store that
//! sees what it is shown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, also outside of a test's own function")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use sluice::clock::{Clock, Environment, SystemClock, SystemRandom};
use sluice::config::{CredentialsFrom, Flavor, SinkConfig};
use sluice::store::s3::{S3Options, S3Store};
use sluice::store::{Fault, Store};
use support::cloud_server::{Asked, CloudServer, Given, ROLE, SECRET, TOKEN, http_client_with_aws_at};
use support::s3_server::{Fate, Play, S3Server, Seen};
use support::{http_client_without_dns, sink};

/// The system's, ahead by what a test says.
#[derive(Debug, Default)]
struct Ahead(AtomicI64);

impl Ahead {
    fn minutes(&self, minutes: i64) {
        self.0.store(minutes * 60_000, Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
}

/// A store that plays OSS and a cloud beside it.
struct World {
    oss: S3Server,
    cloud: CloudServer,
    dir: tempfile::TempDir,
    clock: Arc<Ahead>,
}

impl World {
    async fn new(script: impl FnMut(&Asked) -> support::cloud_server::Answer + Send + 'static) -> Self {
        Self {
            oss: S3Server::start(Play::Oss).await,
            cloud: CloudServer::start(script).await,
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::default(),
        }
    }

    fn sink(&self, from: CredentialsFrom) -> SinkConfig {
        let endpoint = format!("http://s3.oss-cn-test.aliyuncs.com:{}", self.oss.addr.port());
        let mut sink = sink(self.dir.path(), Flavor::Oss, &endpoint, "logs", ("file-key", "s"));
        let credentials = &mut sink.credentials;
        (credentials.key_file, credentials.secret_file) = (None, None);
        credentials.from = from;
        credentials.endpoint = Some(self.cloud.url());
        sink
    }

    async fn open(&self, sink: &SinkConfig, variables: &[(&str, String)]) -> S3Store {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let clock = Arc::clone(&self.clock);
        let options = S3Options {
            http_client: Some(http_client_without_dns()),
            environment: Some(Environment { clock, random: Arc::new(SystemRandom) }),
            variables: Some(variables.collect::<BTreeMap<_, _>>()),
            ..S3Options::default()
        };
        S3Store::open_with(sink, options).await.unwrap()
    }

    /// The environment of a pod with RRSA.
    fn pod(&self) -> Vec<(&'static str, String)> {
        let file = self.dir.path().join("oidc-token");
        std::fs::write(&file, "planted.oidc.token+/=").unwrap();
        vec![
            ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/logs".to_owned()),
            ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/pods".to_owned()),
            ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", file.display().to_string()),
        ]
    }

    /// What the last request to the store was signed with.
    fn shown(&self) -> String {
        key_of(self.oss.seen().last().unwrap())
    }

    fn questions(&self) -> Vec<String> {
        self.cloud.asked().iter().map(Asked::what).collect()
    }
}

fn key_of(seen: &Seen) -> String {
    let credential = seen.header("authorization").unwrap().split("Credential=").nth(1).unwrap();
    credential.split('/').next().unwrap().to_owned()
}

async fn is_none(store: &S3Store) -> bool {
    store.head("a").await.unwrap().is_none()
}

const TOKEN_PATH: &str = "PUT /latest/api/token";
const ROLES_PATH: &str = "GET /latest/meta-data/ram/security-credentials/";

#[tokio::test]
async fn an_instance_shows_its_role_in_hardened_mode() {
    let world = World::new(|asked| Given::new("STS.1").by_ecs(asked, true)).await;
    let store = world.open(&world.sink(CredentialsFrom::EcsRamRole), &[]).await;
    assert!(is_none(&store).await && is_none(&store).await);
    assert_eq!(world.questions(), [TOKEN_PATH, ROLES_PATH, &format!("{ROLES_PATH}{ROLE}")]);
    let seen = world.oss.seen();
    assert_eq!((seen.len(), key_of(&seen[1]).as_str()), (2, "STS.1"));
    assert_eq!(seen[1].header("x-amz-security-token"), Some(TOKEN));
}

#[tokio::test]
async fn an_instance_in_normal_mode_is_asked_without_a_token_unless_that_is_forbidden() {
    let world = World::new(|asked| Given::new("STS.1").by_ecs(asked, false)).await;
    let named = [("ALIBABA_CLOUD_ECS_METADATA", ROLE.to_owned())];
    let store = world.open(&world.sink(CredentialsFrom::EcsRamRole), &named).await;
    assert!(is_none(&store).await);
    assert_eq!(world.questions(), [TOKEN_PATH, &format!("{ROLES_PATH}{ROLE}")]);
    let only = [("ALIBABA_CLOUD_IMDSV1_DISABLED", "true".to_owned())];
    let store = world.open(&world.sink(CredentialsFrom::EcsRamRole), &only).await;
    let error = store.head("a").await.unwrap_err();
    assert_eq!(error.fault, Fault::Denied);
    assert!(error.message.contains("ECS metadata service") && error.message.contains("404"), "{error}");
    assert!(error.message.contains("sink.credentials"), "{error}");
}

/// In a container the answer to PUT often does not arrive: it may pass no more than one router.
#[tokio::test]
async fn a_metadata_service_that_hangs_is_given_up_soon() {
    let world = World::new(|asked| match asked.method.as_str() {
        "PUT" => None,
        _ => Given::new("STS.1").by_ecs(asked, false),
    })
    .await;
    let store = world.open(&world.sink(CredentialsFrom::EcsRamRole), &[]).await;
    assert!(is_none(&store).await);
    assert_eq!(world.shown(), "STS.1");
}

#[tokio::test]
async fn an_instance_without_a_role_says_so() {
    let world = World::new(|_| Some((404, "no such page".to_owned()))).await;
    let store = world.open(&world.sink(CredentialsFrom::EcsRamRole), &[]).await;
    let error = store.head("a").await.unwrap_err();
    assert!(error.fault == Fault::Denied && error.message.contains("no such RAM role"), "{error}");
    // Not JSON, incomplete, without an end, far too long: none of it is shown, none of it is used.
    let long = format!("{{\"AccessKeyId\":\"{}\"}}", "planted".repeat(100_000));
    for answer in ["planted", "{\"AccessKeyId\":\"planted\"}", &long] {
        let answer = answer.to_owned();
        world.cloud.script(move |asked| match asked.method.as_str() {
            "PUT" => Some((404, String::new())),
            _ if asked.target.ends_with(ROLE) => Some((200, answer.clone())),
            _ => Some((200, ROLE.to_owned())),
        });
        let error = store.head("a").await.unwrap_err().to_string();
        assert!(error.contains("ECS metadata service") && !error.contains("planted"), "{error}");
    }
    assert!(world.oss.seen().is_empty());
}

#[tokio::test]
async fn a_pod_takes_a_role_on_with_its_token() {
    let world = World::new(|_| Given::new("STS.2").by_alibaba_sts()).await;
    let store = world.open(&world.sink(CredentialsFrom::Oidc), &world.pod()).await;
    assert!(is_none(&store).await && is_none(&store).await);
    assert_eq!(world.shown(), "STS.2");
    let asked = world.cloud.asked();
    assert_eq!((asked.len(), asked[0].what().as_str()), (1, "POST /"));
    for part in ["Action=AssumeRoleWithOIDC", "Format=JSON", "Version=2015-04-01", "Timestamp=20"] {
        assert!(asked[0].target.contains(part), "{}", asked[0].target);
    }
    assert_eq!(
        asked[0].body,
        "RoleArn=acs%3Aram%3A%3A1%3Arole%2Flogs&OIDCProviderArn=acs%3Aram%3A%3A1%3Aoidc-provider%2Fpods&\
         OIDCToken=planted.oidc.token%2B%2F%3D&RoleSessionName=sluice&DurationSeconds=3600"
    );
    // The token is read again, and settings come before the environment.
    let variables = world.pod();
    std::fs::write(world.dir.path().join("oidc-token"), "another").unwrap();
    let mut sink = world.sink(CredentialsFrom::Oidc);
    sink.credentials.role_arn = Some("mine".to_owned());
    assert!(is_none(&world.open(&sink, &variables).await).await);
    let body = &world.cloud.asked()[1].body;
    assert!(body.starts_with("RoleArn=mine&") && body.contains("OIDCToken=another&"), "{body}");
}

#[tokio::test]
async fn a_refused_token_is_told_without_it() {
    let world = World::new(|asked| {
        let words = format!("the token planted.oidc.token+/= is bad: {}", asked.body.len());
        Some((
            400,
            format!(
                "{{\"Code\":\"AuthenticationFail.OIDCToken.Expired\",\"Message\":\"{words}\",\"RequestId\":\"S7\"}}"
            ),
        ))
    })
    .await;
    let store = world.open(&world.sink(CredentialsFrom::Oidc), &world.pod()).await;
    let error = store.head("a").await.unwrap_err();
    assert_eq!(error.fault, Fault::Denied);
    let shown = format!("{error} {error:?} {store:?}");
    assert!(shown.contains("OIDCToken.Expired") && shown.contains("S7") && !shown.contains("planted"), "{shown}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_asked_for_again() {
    let mut count = 0;
    let world = World::new(move |_| {
        count += 1;
        if count < 3 { Some((503, "away".to_owned())) } else { Given::new("STS.3").by_alibaba_sts() }
    })
    .await;
    let store = world.open(&world.sink(CredentialsFrom::Oidc), &world.pod()).await;
    assert!(is_none(&store).await);
    assert_eq!(world.questions().len(), 3);
}

#[tokio::test]
async fn they_are_renewed_before_they_end_and_once_for_all_requests() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let world =
        World::new(move |_| Given::new(&format!("STS.{}", counted.fetch_add(1, Ordering::Relaxed))).by_alibaba_sts())
            .await;
    let store = world.open(&world.sink(CredentialsFrom::Oidc), &world.pod()).await;
    let all = || futures::future::join_all((0..20).map(|_| is_none(&store)));
    assert!(all().await.iter().all(|none| *none));
    assert_eq!(count.load(Ordering::Relaxed), 1);
    world.clock.minutes(40);
    assert!(is_none(&store).await);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    world.clock.minutes(55);
    assert!(all().await.iter().all(|none| *none));
    assert!(is_none(&store).await);
    assert_eq!((count.load(Ordering::Relaxed), world.shown().as_str()), (2, "STS.1"));
    // STS is away: the old ones serve until they end, and not longer.
    world.cloud.script(|_| Some((500, "away".to_owned())));
    world.clock.minutes(59);
    assert!(is_none(&store).await);
    world.clock.minutes(125);
    let error = store.head("a").await.unwrap_err();
    assert!(error.fault == Fault::Denied && error.message.contains("STS"), "{error}");
}

#[tokio::test]
async fn a_store_that_refuses_them_is_shown_others_at_once() {
    let count = Arc::new(AtomicUsize::new(0));
    for code in ["ExpiredToken", "SecurityTokenExpired", "InvalidAccessKeyId"] {
        let counted = Arc::clone(&count);
        counted.store(0, Ordering::Relaxed);
        let world = World::new(move |_| {
            Given::new(&format!("STS.{}", counted.fetch_add(1, Ordering::Relaxed))).by_alibaba_sts()
        })
        .await;
        let store = world.open(&world.sink(CredentialsFrom::Oidc), &world.pod()).await;
        assert!(is_none(&store).await);
        let ended = |seen: &Seen| if key_of(seen) == "STS.0" { Some(Fate::Refused(403, code, None)) } else { None };
        world.oss.script(move |seen| ended(seen).unwrap_or(Fate::Well));
        world.clock.minutes(5);
        let body = sluice::store::Body::Bytes("x".into());
        assert_eq!(store.create("a", &body, None).await.unwrap(), sluice::store::Created::New, "{code}");
        assert_eq!((world.shown().as_str(), count.load(Ordering::Relaxed)), ("STS.1", 2), "{code}");
        // New ones that are refused too: said, not asked for again and again.
        world.oss.script(move |_| Fate::Refused(403, code, None));
        let error = store.create("b", &body, None).await.unwrap_err();
        assert!(error.fault == Fault::Denied && error.message.contains(code), "{error}");
        assert_eq!(count.load(Ordering::Relaxed), 2);
        let shown = format!("{error} {error:?} {store:?}");
        assert!(!shown.contains(SECRET) && !shown.contains(TOKEN), "{shown}");
    }
}

#[tokio::test]
async fn auto_takes_the_first_that_is_there() {
    let world = World::new(|asked| match asked.method.as_str() {
        "POST" => Given::new("by-oidc").by_alibaba_sts(),
        _ => Given::new("by-ecs").by_ecs(asked, true),
    })
    .await;
    let mut variables = world.pod();
    variables.push(("ALIBABA_CLOUD_ACCESS_KEY_ID", "by-env".to_owned()));
    variables.push(("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s".to_owned()));
    let mut sink = world.sink(CredentialsFrom::Auto);
    sink.credentials.key_file = Some(world.dir.path().join("access-key"));
    sink.credentials.secret_file = Some(world.dir.path().join("secret-key"));
    assert!(is_none(&world.open(&sink, &variables).await).await);
    assert_eq!(world.shown(), "file-key");
    (sink.credentials.key_file, sink.credentials.secret_file) = (None, None);
    assert!(is_none(&world.open(&sink, &variables).await).await);
    assert_eq!(world.shown(), "by-env");
    assert!(is_none(&world.open(&sink, &world.pod()).await).await);
    assert_eq!(world.shown(), "by-oidc");
    assert!(is_none(&world.open(&sink, &[]).await).await);
    assert_eq!(world.shown(), "by-ecs");
}

/// AWS's chain down to the role of an EC2 instance, and IRSA.
#[tokio::test]
async fn awss_own_ways_lead_to_its_services() {
    let s3 = S3Server::start(Play::S3).await;
    let dir = tempfile::tempdir().unwrap();
    let open = async |from, script: fn(&Asked) -> support::cloud_server::Answer| {
        let cloud = CloudServer::start(script).await;
        let mut sink =
            sink(dir.path(), Flavor::Aws, &format!("http://127.0.0.1:{}", s3.addr.port()), "logs", ("k", "s"));
        sink.flavor = Flavor::Minio;
        (sink.credentials.key_file, sink.credentials.secret_file) = (None, None);
        sink.credentials.from = from;
        sink.credentials.role_arn = Some("arn:aws:iam::1:role/logs".to_owned());
        sink.credentials.token_file = Some(file(dir.path(), "irsa-token", "planted.irsa.token"));
        let options = S3Options { http_client: Some(http_client_with_aws_at(cloud.addr)), ..S3Options::default() };
        let store = S3Store::open_with(&sink, options).await.unwrap();
        (cloud, store)
    };
    let (cloud, store) = open(CredentialsFrom::Oidc, |_| Given::new("by-irsa").by_aws_sts()).await;
    assert!(is_none(&store).await);
    assert_eq!(key_of(s3.seen().last().unwrap()), "by-irsa");
    let asked = cloud.asked();
    assert!(asked[0].body.contains("Action=AssumeRoleWithWebIdentity") && asked[0].body.contains("planted.irsa.token"));
}

fn file(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
