//! The services of a cloud that give credentials, in this process: metadata of an instance, STS.
//!
//! Owns: what was asked, the answers of both clouds in their own form. Does not own: what a test expects.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_smithy_http_client::Builder;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// One question as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `PUT /latest/api/token`, without the query.
    pub fn what(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

/// `None`: no answer ever comes.
pub type Answer = Option<(u16, String)>;

type Script = Box<dyn FnMut(&Asked) -> Answer + Send>;

/// A running server; it stops with the runtime.
pub struct CloudServer {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Script>>,
}

impl CloudServer {
    pub async fn start(script: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        tokio::spawn({
            let (asked, script) = (Arc::clone(&asked), Arc::clone(&script));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (asked, script) = (Arc::clone(&asked), Arc::clone(&script));
                    let service = service_fn(move |request| serve(Arc::clone(&asked), Arc::clone(&script), request));
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
            }
        });
        Self { addr, asked, script }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn script(&self, script: impl FnMut(&Asked) -> Answer + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Script>>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
    let question = Asked {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let answer = (script.lock().unwrap())(&question);
    // EC2 says with a token how long it holds.
    let holds = question.header("x-aws-ec2-metadata-token-ttl-seconds").unwrap_or_default().to_owned();
    asked.lock().unwrap().push(question);
    match answer {
        Some((status, text)) => Ok(Response::builder()
            .status(status)
            .header("x-aws-ec2-metadata-token-ttl-seconds", holds)
            .body(Body::from(text))
            .unwrap()),
        None => std::future::pending().await,
    }
}

/// What a cloud gives: key, secret, token and the end in RFC 3339.
#[derive(Clone, Debug)]
pub struct Given {
    pub key: String,
    pub end: String,
}

pub const SECRET: &str = "planted-secret";
pub const TOKEN: &str = "planted-session-token";
pub const ROLE: &str = "log-archiver";

impl Given {
    /// Holds for an hour from now on.
    pub fn new(key: &str) -> Self {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        Self { key: key.to_owned(), end: end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() }
    }

    fn fields(&self, secret: &str, token: &str) -> String {
        let Self { key, end } = self;
        format!("\"AccessKeyId\":\"{key}\",\"{secret}\":\"{SECRET}\",\"{token}\":\"{TOKEN}\",\"Expiration\":\"{end}\"")
    }

    /// As the metadata service of an ECS instance answers. `hardened`: only to those who have its token.
    pub fn by_ecs(&self, asked: &Asked, hardened: bool) -> Answer {
        let roles = "/latest/meta-data/ram/security-credentials/";
        let known = asked.header("x-aliyun-ecs-metadata-token") == Some("metadata-token");
        Some(match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token") if hardened => {
                match asked.header("x-aliyun-ecs-metadata-token-ttl-seconds").map(str::parse::<u32>) {
                    Some(Ok(1..=21_600)) => (200, "metadata-token".to_owned()),
                    _ => (400, "no time to live".to_owned()),
                }
            }
            ("PUT", _) => (404, "no such page".to_owned()),
            _ if hardened && !known => (403, "no token".to_owned()),
            ("GET", target) if target == roles => (200, format!("{ROLE}\n")),
            ("GET", target) if target == format!("{roles}{ROLE}") => {
                (200, format!("{{{},\"Code\":\"Success\"}}", self.fields("AccessKeySecret", "SecurityToken")))
            }
            _ => (404, "no such page".to_owned()),
        })
    }

    /// As Alibaba's STS answers to AssumeRoleWithOIDC.
    pub fn by_alibaba_sts(&self) -> Answer {
        let credentials = self.fields("AccessKeySecret", "SecurityToken");
        Some((200, format!("{{\"RequestId\":\"S1\",\"Credentials\":{{{credentials}}}}}")))
    }

    /// As AWS's STS answers to AssumeRoleWithWebIdentity.
    pub fn by_aws_sts(&self) -> Answer {
        let Self { key, end } = self;
        Some((
            200,
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}\
                 </AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken><Expiration>{end}\
                 </Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>r:s\
                 </AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        ))
    }

    /// As the metadata service of an EC2 instance answers, in its only mode that the SDK knows.
    pub fn by_ec2(&self, asked: &Asked) -> Answer {
        let roles = "/latest/meta-data/iam/security-credentials/";
        let known = asked.header("x-aws-ec2-metadata-token") == Some("metadata-token");
        Some(match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token") => (200, "metadata-token".to_owned()),
            _ if !known => (401, "no token".to_owned()),
            ("GET", target) if target.trim_end_matches('/') == roles.trim_end_matches('/') => (200, ROLE.to_owned()),
            ("GET", target) if target == format!("{roles}{ROLE}") => (
                200,
                format!(
                    "{{{},\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2026-01-01T00:00:00Z\"}}",
                    self.fields("SecretAccessKey", "Token")
                ),
            ),
            _ => (404, "no such page".to_owned()),
        })
    }
}

/// An HTTP client that takes every request for a host of AWS to `cloud`, in plain HTTP, and every other one where it goes.
#[derive(Debug)]
struct Redirected {
    cloud: SocketAddr,
    inner: SharedHttpClient,
}

pub fn http_client_with_aws_at(cloud: SocketAddr) -> SharedHttpClient {
    SharedHttpClient::new(Redirected { cloud, inner: Builder::new().build_http() })
}

impl HttpClient for Redirected {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Redirecting { cloud: self.cloud, inner })
    }
}

#[derive(Debug)]
struct Redirecting {
    cloud: SocketAddr,
    inner: SharedHttpConnector,
}

impl HttpConnector for Redirecting {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let uri = request.uri().to_owned();
        if let Some((_, rest)) = uri.split_once("amazonaws.com") {
            let rest = if rest.is_empty() { "/" } else { rest };
            request.set_uri(format!("http://{}{rest}", self.cloud)).unwrap();
        }
        self.inner.call(request)
    }
}
