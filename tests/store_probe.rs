//! `sluice check --probe` on stores: a server in this process that plays S3 and OSS, a cloud that gives credentials, and MinIO.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, also outside of a test's own function")]
#![allow(clippy::print_stdout, reason = "a test that does not run says why")]

mod support;

use std::path::PathBuf;
use std::process::Command;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleAndOperator, LifecycleRuleFilter, Tag, VersioningConfiguration,
};
use support::cloud_server::{CloudServer, Given, SECRET, TOKEN};
use support::process::service;
use support::s3_server::{BUCKET, Fate, Play, S3Server};

/// Settings of one connector, and the keys `access` and `secret` in files.
struct Place(tempfile::TempDir);

impl Place {
    fn new(sink: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.path("connectors")).unwrap();
        std::fs::write(place.path("key"), "access").unwrap();
        std::fs::write(place.path("secret"), "planted-file-secret").unwrap();
        // Nobody is there: what is said of Kafka is not looked at.
        let worker = format!(
            "kafka: {{ bootstrap_servers: ['127.0.0.1:1'] }}\nspool: {{ dir: {} }}\n",
            place.path("spool").display()
        );
        std::fs::write(place.path("worker.yaml"), worker).unwrap();
        let connector = format!("topics: [t]\napp_id: {{ from: key }}\nsink: {{ {sink} }}\n");
        std::fs::write(place.path("connectors/c.yaml"), connector).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with_keys(sink: &str) -> Self {
        let place = Self::new("url: 's3://x'");
        let credentials =
            format!("key_file: {}, secret_file: {}", place.path("key").display(), place.path("secret").display());
        let connector =
            format!("topics: [t]\napp_id: {{ from: key }}\nsink: {{ {sink}, credentials: {{ {credentials} }} }}\n");
        std::fs::write(place.path("connectors/c.yaml"), connector).unwrap();
        place
    }

    /// The lines that tell of the sink, each with its outcome.
    async fn probe(&self, variables: &[(&str, String)]) -> Vec<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(["check", "--probe", "--config"]).arg(self.path("worker.yaml"));
        command.arg("--connectors").arg(self.path("connectors")).env_clear();
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("planted"), "{text}");
        let lines: Vec<String> =
            text.lines().filter(|line| line.contains("connector c: sink")).map(ToOwned::to_owned).collect();
        assert!(!lines.is_empty(), "{text}");
        lines
    }
}

/// By this machine's address, which stands for a custom domain of the bucket.
fn oss(server: &S3Server) -> String {
    format!("url: 'oss://{BUCKET}/prod', endpoint: 'http://{}', region: cn-test", server.addr)
}

fn minio(server: &S3Server) -> String {
    format!("url: 's3://{BUCKET}/prod', endpoint: 'http://{}', flavor: minio", server.addr)
}

const WORKS: &str = "write, read, read a range, head, list, create only, delete";
const PARTS: &str = "<Rule><ID>parts</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
                     <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>";

#[tokio::test]
async fn what_a_bucket_does_by_itself_is_told() {
    let server = S3Server::start(Play::Oss).await;
    let place = Place::with_keys(&oss(&server));
    let lines = place.probe(&[]).await;
    assert!(lines[0].starts_with("ok ") && lines[0].ends_with(WORKS), "{lines:?}");
    assert!(lines.len() == 2 && lines[1].starts_with("note ") && lines[1].contains("AbortIncomplete"), "{lines:?}");
    assert_eq!(server.object_count(), 0, "nothing is left");

    server.set_lifecycle(PARTS);
    assert_eq!(place.probe(&[]).await.len(), 1);

    let freezes = "<Rule><ID>cold</ID><Prefix>prod/</Prefix><Status>Enabled</Status><Transition><Days>30</Days>\
                   <StorageClass>ColdArchive</StorageClass></Transition></Rule>";
    let deletes = "<Rule><ID>year</ID><Filter><And><Prefix>prod</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan></And>\
                   </Filter><Status>Enabled</Status><Expiration><Days>365</Days></Expiration></Rule>";
    let by_tag = "<Rule><ID>tagged</ID><Filter><Tag><Key>kind</Key><Value>log</Value></Tag></Filter><Status>Enabled</Status>\
                  <Expiration><Days>365</Days></Expiration></Rule>";
    let off =
        "<Rule><ID>off</ID><Prefix></Prefix><Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>";
    server.set_lifecycle(&[PARTS, freezes, deletes, by_tag, off].concat());
    let lines = place.probe(&[]).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].contains("\"cold\" moves to ColdArchive what lies below prod/_sluice/"), "{lines:?}");
    assert!(lines[2].contains("\"year\" deletes what lies below prod/_sluice/"), "{lines:?}");

    server.script(|seen| match seen.query.keys().any(|name| name == "lifecycle" || name == "versioning") {
        true => Fate::Refused(403, "AccessDenied", None),
        false => Fate::Well,
    });
    let lines = place.probe(&[]).await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[1..].iter().all(|line| line.starts_with("note ") && line.contains("could not be read: 403 AccessDenied")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn versions_are_told_as_the_reason_that_oss_overwrites() {
    let server = S3Server::start(Play::OssVersioned).await;
    server.set_versioning("Suspended");
    server.set_lifecycle(PARTS);
    let lines = Place::with_keys(&oss(&server)).probe(&[]).await;
    assert!(
        lines[1].starts_with("FAILED") && lines[1].contains("create only: the store let a second writer"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("note") && lines[2].contains("versioning, enabled or suspended"), "{lines:?}");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_words() {
    let server = S3Server::start(Play::S3).await;
    let place = Place::with_keys(&minio(&server));
    let cases = [
        (301, "PermanentRedirect", Some(("x-amz-bucket-region", "eu-west-1")), "region eu-west-1"),
        (400, "AuthorizationHeaderMalformed", None, "sink.region"),
        (403, "RequestTimeTooSkewed", None, "clock"),
        (403, "AccessDenied", None, "lack a permission"),
        (403, "InvalidAccessKeyId", None, "does not know the access key"),
        (403, "SecurityTokenExpired", None, "expired"),
        (404, "NoSuchBucket", None, "correct sink.url"),
    ];
    for (status, code, header, words) in cases {
        server.script(move |_| Fate::Refused(status, code, header));
        let lines = place.probe(&[]).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("FAILED") && lines[0].contains("write: ") && lines[0].contains(words),
            "{lines:?}"
        );
    }
    // Writing is allowed, the rest is not.
    server.script(|seen| match seen.method.as_str() {
        "PUT" => Fate::Well,
        _ => Fate::Refused(403, "AccessDenied", None),
    });
    let lines = place.probe(&[]).await;
    let failed: Vec<&String> = lines.iter().filter(|line| line.starts_with("FAILED")).collect();
    assert!(lines[0].ends_with(": write") && failed.len() == 6, "{lines:?}");
    let path_style = S3Server::start(Play::Oss).await;
    let lines = Place::with_keys(&minio(&path_style)).probe(&[]).await;
    assert!(lines[0].starts_with("FAILED") && lines[0].contains("set sink.flavor to oss"), "{lines:?}");
}

/// The program itself, with the environment that a pod or a machine gives it.
#[tokio::test]
async fn credentials_come_from_where_the_program_runs() {
    let (oss_server, s3) = (S3Server::start(Play::Oss).await, S3Server::start(Play::S3).await);
    let cloud = CloudServer::start(|asked| match asked.method.as_str() {
        "POST" => Given::new("by-oidc").by_alibaba_sts(),
        _ if asked.target.contains("/ram/") || asked.header("x-aliyun-ecs-metadata-token-ttl-seconds").is_some() => {
            Given::new("by-ecs").by_ecs(asked, true)
        }
        _ => Given::new("by-ec2").by_ec2(asked),
    })
    .await;
    let given = |from: &str| format!("credentials: {{ from: {from}, endpoint: '{}' }}", cloud.url());
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "planted-oidc-token").unwrap();
    let pod = vec![
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/logs".to_owned()),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/pods".to_owned()),
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", token_file.path().display().to_string()),
    ];
    let profile = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(profile.path(), "[logs]\naws_access_key_id = by-profile\naws_secret_access_key = planted-s\n")
        .unwrap();
    let files = vec![
        ("AWS_SHARED_CREDENTIALS_FILE", profile.path().display().to_string()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
    ];
    let ec2 = vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.url()), ("AWS_CONFIG_FILE", "/dev/null".to_owned())];
    let keys = vec![("AWS_ACCESS_KEY_ID", "by-env".to_owned()), ("AWS_SECRET_ACCESS_KEY", "planted-s".to_owned())];
    for (server, sink, variables, key) in [
        (&oss_server, format!("{}, {}", oss(&oss_server), given("oidc")), &pod, "by-oidc"),
        (&oss_server, format!("{}, {}", oss(&oss_server), given("ecs-ram-role")), &vec![], "by-ecs"),
        (&oss_server, format!("{}, credentials: {{ profile: logs }}", oss(&oss_server)), &files, "by-profile"),
        (&s3, format!("{}, credentials: {{ from: file, profile: logs }}", minio(&s3)), &files, "by-profile"),
        (&s3, format!("{}, credentials: {{ from: aws-chain }}", minio(&s3)), &ec2, "by-ec2"),
        (&s3, minio(&s3), &ec2, "by-ec2"),
        (&s3, minio(&s3), &keys, "by-env"),
    ] {
        let lines = Place::new(&sink).probe(variables).await;
        assert!(lines[0].starts_with("ok ") && lines[0].ends_with(WORKS), "{sink}: {lines:?}");
        let signed = server.seen().last().unwrap().header("authorization").unwrap().to_owned();
        assert!(signed.contains(&format!("Credential={key}/")), "{sink}: {signed}");
        assert!(!lines.join("").contains(SECRET) && !lines.join("").contains(TOKEN));
    }
}

/// The rule that docs/lifecycle.md has for MinIO.
fn documented_rule() -> serde_json::Value {
    let page = include_str!("../docs/lifecycle.md");
    let (_, rest) = page.split_once("<!-- minio -->\n```json\n").unwrap();
    let rules: serde_json::Value = serde_json::from_str(rest.split_once("```").unwrap().0).unwrap();
    rules["Rules"][0].clone()
}

#[tokio::test]
async fn minio_tells_its_own() {
    let Some(endpoint) = service("SLUICE_TEST_MINIO") else { return };
    let bucket = support::kafka::unique("lifecycle");
    let (key, secret) = support::own::MINIO_KEYS;
    support::make_bucket(&endpoint, &bucket, key, secret).await;
    let sink = |bucket: &str| format!("url: 's3://{bucket}/prod', endpoint: '{endpoint}', flavor: minio");
    let place = Place::with_keys(&sink(&bucket));
    std::fs::write(place.path("key"), key).unwrap();
    std::fs::write(place.path("secret"), secret).unwrap();
    let lines = place.probe(&[]).await;
    assert!(lines.len() == 1 && lines[0].ends_with(WORKS), "{lines:?}");

    let client = support::s3_client(&endpoint, key, secret);
    let rule = |id: &str, days: i32, filter: LifecycleRuleFilter| {
        let expiration = LifecycleExpiration::builder().days(days).build();
        let rule = LifecycleRule::builder().id(id).status(ExpirationStatus::Enabled).filter(filter);
        rule.expiration(expiration).build().unwrap()
    };
    let documented = documented_rule();
    let text = |pointer: &str| documented.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let tag =
        Tag::builder().key(text("/Filter/And/Tags/0/Key")).value(text("/Filter/And/Tags/0/Value")).build().unwrap();
    let and = LifecycleRuleAndOperator::builder().prefix(text("/Filter/And/Prefix")).tags(tag).build();
    let days = documented["Expiration"]["Days"].as_i64().unwrap() as i32;
    let by_tag = rule(&text("/ID"), days, LifecycleRuleFilter::builder().and(and).build());
    let by_prefix = rule("year", 365, LifecycleRuleFilter::builder().prefix("prod/").build());
    for (rules, told) in [(vec![by_tag.clone()], 1), (vec![by_tag, by_prefix], 2)] {
        let rules = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().unwrap();
        client
            .put_bucket_lifecycle_configuration()
            .bucket(&bucket)
            .lifecycle_configuration(rules)
            .send()
            .await
            .unwrap();
        let lines = place.probe(&[]).await;
        assert_eq!(lines.len(), told, "{lines:?}");
        assert!(told == 1 || lines[1].contains("\"year\" deletes what lies below prod/_sluice/"), "{lines:?}");
    }
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    client.put_bucket_versioning().bucket(&bucket).versioning_configuration(enabled).send().await.unwrap();
    let lines = place.probe(&[]).await;
    assert!(lines[0].ends_with(WORKS), "create-only holds with versions here: {lines:?}");
    assert!(lines.last().unwrap().contains("NoncurrentVersionExpiration"), "{lines:?}");

    let gone = Place::with_keys(&sink("no-such-bucket-anywhere"));
    std::fs::write(gone.path("key"), key).unwrap();
    std::fs::write(gone.path("secret"), secret).unwrap();
    let lines = gone.probe(&[]).await;
    assert!(lines[0].starts_with("FAILED") && lines[0].contains("correct sink.url"), "{lines:?}");
    std::fs::write(place.path("secret"), "wrong").unwrap();
    let lines = place.probe(&[]).await;
    assert!(lines[0].starts_with("FAILED") && lines[0].contains("secret does not belong"), "{lines:?}");
}
