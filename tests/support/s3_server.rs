//! An S3 server in this process, with the rules of OSS when asked, and with faults by script.
//!
//! Owns: one bucket named `logs` in memory, what clients sent, what goes wrong.
//! Does not own: signatures (MinIO checks those); it looks only at which headers were signed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use md5::{Digest, Md5};
use tokio::net::TcpListener;

pub const BUCKET: &str = "logs";

/// What kind of store it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    S3,
    Oss,
    /// OSS with versioning: x-oss-forbid-overwrite is ignored.
    OssVersioned,
    /// S3 that does not know If-None-Match.
    Overwrites,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Without the bucket, decoded.
    pub key: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub virtual_host: bool,
    pub body_bytes: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub fn is_part(&self) -> bool {
        self.query.contains_key("partNumber")
    }

    pub fn is_complete(&self) -> bool {
        self.method == Method::POST && self.query.contains_key("uploadId")
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Well,
    /// Nothing happens; status, code, an extra header.
    Refused(u16, &'static str, Option<(&'static str, &'static str)>),
    /// Nothing happens; the connection is closed without an answer.
    Reset,
    /// Nothing happens; no answer ever comes.
    Hang,
    /// Nothing happens; status 200 with an error for a body.
    ErrorIn200,
    /// It happens; the connection is closed without an answer.
    LostAnswer,
}

/// Requests that fail, by a seed: `percent` of them, each way in its turn. Counts how often each was taken.
pub fn misery(
    seed: u64,
    percent: u64,
    taken: Arc<Mutex<BTreeMap<&'static str, u64>>>,
) -> impl FnMut(&Seen) -> Fate + Send {
    let ways = [
        ("500", Fate::Refused(500, "InternalError", None)),
        ("503", Fate::Refused(503, "SlowDown", None)),
        ("503 of OSS", Fate::Refused(503, "UploadQpsLimitExceeded", Some(("x-oss-qos-delay-time", "5")))),
        ("429", Fate::Refused(429, "QpsLimitExceeded", None)),
        ("409", Fate::Refused(409, "ConditionalRequestConflict", None)),
        ("reset", Fate::Reset),
        ("lost answer", Fate::LostAnswer),
        ("hang", Fate::Hang),
        ("error in 200", Fate::ErrorIn200),
        ("lost answer", Fate::LostAnswer),
    ];
    let (mut state, mut failed) = (seed, 0);
    move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (state >> 33) % 100 >= percent {
            return Fate::Well;
        }
        let (name, fate) = &ways[failed % ways.len()];
        failed += 1;
        *taken.lock().unwrap().entry(name).or_default() += 1;
        fate.clone()
    }
}

/// How many ways [`misery`] has.
pub const MISERIES: usize = 9;

type Script = Box<dyn FnMut(&Seen) -> Fate + Send>;

#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub etag: String,
    /// The headers it was made with.
    pub made_with: HeaderMap,
}

#[derive(Debug)]
struct Upload {
    key: String,
    made_with: HeaderMap,
    parts: BTreeMap<u32, (Bytes, String)>,
}

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    upload_count: u64,
    seen: Vec<Seen>,
    overwritten: usize,
    /// XML; `None`: the bucket has no rules.
    lifecycle: Option<String>,
    /// Enabled, Suspended.
    versioning: Option<&'static str>,
}

struct State {
    play: Play,
    bucket: Mutex<Bucket>,
    script: Mutex<Option<Script>>,
}

/// A running server; it stops with the runtime.
pub struct S3Server {
    pub addr: SocketAddr,
    state: Arc<State>,
}

impl S3Server {
    pub async fn start(play: Play) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State { play, bucket: Mutex::default(), script: Mutex::new(None) });
        tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = Arc::clone(&state);
                    let service = service_fn(move |request| serve(Arc::clone(&state), request));
                    // An error of the service closes the connection without an answer.
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
            }
        });
        Self { addr, state }
    }

    pub fn script(&self, script: impl FnMut(&Seen) -> Fate + Send + 'static) {
        *self.state.script.lock().unwrap() = Some(Box::new(script));
    }

    pub fn heal(&self) {
        *self.state.script.lock().unwrap() = None;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.bucket().seen.clone()
    }

    pub fn object(&self, key: &str) -> Option<Object> {
        self.bucket().objects.get(key).cloned()
    }

    pub fn object_count(&self) -> usize {
        self.bucket().objects.len()
    }

    pub fn open_uploads(&self) -> usize {
        self.bucket().uploads.len()
    }

    /// How often a finished object was replaced.
    pub fn overwritten(&self) -> usize {
        self.bucket().overwritten
    }

    /// The rules of a LifecycleConfiguration.
    pub fn set_lifecycle(&self, rules: &str) {
        self.bucket().lifecycle = Some(format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>"));
    }

    pub fn set_versioning(&self, status: &'static str) {
        self.bucket().versioning = Some(status);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.state.bucket.lock().unwrap()
    }
}

/// A connection closed on purpose.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed")
    }
}

impl std::error::Error for Closed {}

async fn serve(state: Arc<State>, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Closed> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| Closed)?;
    let host = parts.headers.get("host").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let path = decode(parts.uri.path().trim_start_matches('/'));
    // This machine's address serves as a custom domain of OSS, for those who can't be told what a name stands for.
    let custom =
        matches!(state.play, Play::Oss | Play::OssVersioned) && host.starts_with("127.") && !path.starts_with("logs/");
    let virtual_host = host.starts_with("logs.") || custom;
    let (bucket, key) = match path.split_once('/') {
        _ if virtual_host => (BUCKET.to_owned(), path),
        Some((bucket, key)) => (bucket.to_owned(), key.to_owned()),
        None => (path, String::new()),
    };
    let query = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = query.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    });
    let seen = Seen {
        method: parts.method,
        key,
        query: query.collect(),
        headers: parts.headers,
        virtual_host,
        body_bytes: body.len(),
    };
    let fate = state.script.lock().unwrap().as_mut().map_or(Fate::Well, |script| script(&seen));
    let answer = |status, code: &str| error(status, code, "injected");
    match fate {
        Fate::Well | Fate::LostAnswer => {
            let response = act(&state, &seen, &bucket, body).unwrap_or_else(|refused| *refused);
            state.bucket.lock().unwrap().seen.push(seen);
            if matches!(fate, Fate::LostAnswer) { Err(Closed) } else { Ok(response) }
        }
        Fate::Refused(status, code, extra) => {
            let mut response = answer(status, code);
            if let Some((name, value)) = extra {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            Ok(response)
        }
        Fate::ErrorIn200 => Ok(answer(200, "InternalError")),
        Fate::Reset => Err(Closed),
        Fate::Hang => std::future::pending::<Result<_, Infallible>>().await.map_err(|_| Closed),
    }
}

type Answer = Result<Response<Body>, Box<Response<Body>>>;

fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Response::builder().status(status).header("x-amz-request-id", "R0").body(Body::from(xml)).unwrap()
}

fn refuse<T>(status: u16, code: &str, message: &str) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(error(status, code, message)))
}

fn xml(text: String) -> Response<Body> {
    Response::new(Body::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}")))
}

fn act(state: &State, seen: &Seen, bucket: &str, body: Bytes) -> Answer {
    if bucket != BUCKET {
        return refuse(404, "NoSuchBucket", "the specified bucket does not exist");
    }
    let oss = matches!(state.play, Play::Oss | Play::OssVersioned);
    check_rules(seen, oss)?;
    let has_body = seen.method == Method::PUT;
    if has_body {
        check_sum(seen, &body, oss)?;
    }
    let mut bucket = state.bucket.lock().unwrap();
    let upload_id = seen.query.get("uploadId");
    match (&seen.method, upload_id) {
        (&Method::GET, None) if seen.key.is_empty() && seen.query.contains_key("lifecycle") => {
            match &bucket.lifecycle {
                Some(rules) => Ok(xml(rules.clone())),
                None => refuse(404, "NoSuchLifecycleConfiguration", "the lifecycle configuration does not exist"),
            }
        }
        (&Method::GET, None) if seen.key.is_empty() && seen.query.contains_key("versioning") => {
            let status = bucket.versioning.map(|status| format!("<Status>{status}</Status>")).unwrap_or_default();
            Ok(xml(format!("<VersioningConfiguration>{status}</VersioningConfiguration>")))
        }
        (&Method::GET, None) if seen.key.is_empty() => Ok(list(&bucket, &seen.query)),
        (&Method::GET | &Method::HEAD, None) => read(&bucket, seen, oss),
        (&Method::PUT, None) => {
            check_create_only(state, seen, &bucket)?;
            let etag = etag_of(&[&body], oss);
            put(&mut bucket, &seen.key, Object { bytes: body, etag: etag.clone(), made_with: seen.headers.clone() });
            Ok(Response::builder().header("etag", etag).body(Body::empty()).unwrap())
        }
        (&Method::POST, None) if seen.query.contains_key("uploads") => {
            if oss {
                check_create_only(state, seen, &bucket)?;
            }
            bucket.upload_count += 1;
            let id = format!("upload {}+/=", bucket.upload_count);
            let upload = Upload { key: seen.key.clone(), made_with: seen.headers.clone(), parts: BTreeMap::new() };
            bucket.uploads.insert(id.clone(), upload);
            Ok(xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>")))
        }
        (&Method::PUT, Some(id)) => {
            let number = seen.query["partNumber"].parse().unwrap();
            let etag = etag_of(&[&body], oss);
            let Some(upload) = bucket.uploads.get_mut(id).filter(|u| u.key == seen.key) else {
                return refuse(404, "NoSuchUpload", "no such upload");
            };
            upload.parts.insert(number, (body, etag.clone()));
            Ok(Response::builder().header("etag", etag).body(Body::empty()).unwrap())
        }
        (&Method::POST, Some(id)) => complete(state, seen, &mut bucket, id, &body, oss),
        (&Method::DELETE, Some(id)) => match bucket.uploads.remove(id) {
            Some(_) => Ok(no_content()),
            None => refuse(404, "NoSuchUpload", "no such upload"),
        },
        (&Method::DELETE, None) => {
            bucket.objects.remove(&seen.key);
            Ok(no_content())
        }
        _ => refuse(501, "NotImplemented", "a request that this server does not know"),
    }
}

fn no_content() -> Response<Body> {
    Response::builder().status(StatusCode::NO_CONTENT).body(Body::empty()).unwrap()
}

fn put(bucket: &mut Bucket, key: &str, object: Object) {
    if bucket.objects.insert(key.to_owned(), object).is_some() {
        bucket.overwritten += 1;
    }
}

/// Rules on headers that hold for every request.
fn check_rules(seen: &Seen, oss: bool) -> Result<(), Box<Response<Body>>> {
    let chunked = seen.header("content-encoding").is_some_and(|v| v.contains("aws-chunked"))
        || seen.header("x-amz-content-sha256").is_some_and(|v| v.starts_with("STREAMING"));
    if chunked {
        return refuse(400, "InvalidArgument", "aws-chunked encoding is not supported");
    }
    let signed = seen.header("authorization").and_then(|a| a.split("SignedHeaders=").nth(1));
    let Some(signed) = signed.and_then(|rest| rest.split(',').next()) else {
        return refuse(403, "AccessDenied", "the request is not signed");
    };
    if !oss {
        return Ok(());
    }
    if !seen.virtual_host {
        return refuse(403, "SecondLevelDomainForbidden", "please use the virtual hosted style");
    }
    if seen.method != Method::GET && (seen.header("if-none-match").is_some() || seen.header("if-match").is_some()) {
        return refuse(501, "NotImplemented", "a header you provided implies functionality that is not implemented");
    }
    let mut ours = seen.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-oss-"));
    match ours.find(|name| !signed.split(';').any(|s| s == *name)) {
        Some(name) => refuse(403, "SignatureDoesNotMatch", &format!("{name} is not signed")),
        None => Ok(()),
    }
}

/// Every body comes with a checksum that fits: OSS knows Content-MD5 only.
fn check_sum(seen: &Seen, body: &[u8], oss: bool) -> Result<(), Box<Response<Body>>> {
    let base64 = |bytes: &[u8]| aws_smithy_types::base64::encode(bytes);
    let md5 = base64(&Md5::digest(body));
    let crc = base64(&crc32c::crc32c(body).to_be_bytes());
    match (seen.header("content-md5"), seen.header("x-amz-checksum-crc32c")) {
        (Some(sent), _) if sent == md5 => Ok(()),
        (None, Some(sent)) if !oss && sent == crc => Ok(()),
        (None, None) => refuse(400, "InvalidRequest", "no checksum"),
        _ => refuse(400, "BadDigest", "the checksum you sent is not that of what arrived"),
    }
}

fn check_create_only(state: &State, seen: &Seen, bucket: &Bucket) -> Result<(), Box<Response<Body>>> {
    if !bucket.objects.contains_key(&seen.key) {
        return Ok(());
    }
    match state.play {
        Play::S3 if seen.header("if-none-match") == Some("*") => {
            refuse(412, "PreconditionFailed", "at least one of the preconditions did not hold")
        }
        Play::Oss if seen.header("x-oss-forbid-overwrite") == Some("true") => {
            refuse(409, "FileAlreadyExists", "the object you specified already exists and can not be overwritten")
        }
        _ => Ok(()),
    }
}

fn complete(state: &State, seen: &Seen, bucket: &mut Bucket, id: &str, body: &[u8], oss: bool) -> Answer {
    let Some(upload) = bucket.uploads.get(id).filter(|upload| upload.key == seen.key) else {
        return refuse(404, "NoSuchUpload", "no such upload");
    };
    let wanted = String::from_utf8_lossy(body).into_owned();
    let text = |part: &str, tag: &str| {
        let rest = part.split_once(&format!("<{tag}>"))?.1;
        Some(rest.split_once("</")?.0.replace("&quot;", "\"").replace("&#34;", "\""))
    };
    let listed: Vec<_> = wanted.split("<Part>").skip(1).map(|p| (text(p, "PartNumber"), text(p, "ETag"))).collect();
    let held: Vec<_> = upload.parts.iter().map(|(n, (_, etag))| (Some(n.to_string()), Some(etag.clone()))).collect();
    if listed != held {
        return refuse(400, "InvalidPart", "one or more of the specified parts could not be found");
    }
    let sizes: Vec<usize> = upload.parts.values().map(|(bytes, _)| bytes.len()).collect();
    if sizes.split_last().is_some_and(|(_, rest)| rest.iter().any(|size| *size < 5 << 20)) {
        return refuse(400, "EntityTooSmall", "a part is smaller than the minimum allowed");
    }
    check_create_only(state, seen, bucket)?;
    let upload = bucket.uploads.remove(id).unwrap();
    let parts: Vec<&[u8]> = upload.parts.values().map(|(bytes, _)| &bytes[..]).collect();
    let object = Object { bytes: parts.concat().into(), etag: etag_of(&parts, oss), made_with: upload.made_with };
    let etag = object.etag.clone();
    put(bucket, &seen.key, object);
    Ok(xml(format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>")))
}

fn etag_of(parts: &[&[u8]], oss: bool) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let text = match parts {
        [whole] => hex(&Md5::digest(whole)),
        parts => {
            let all: Vec<u8> = parts.iter().flat_map(Md5::digest).collect();
            format!("{}-{}", hex(&Md5::digest(&all)), parts.len())
        }
    };
    format!("\"{}\"", if oss { text.to_uppercase() } else { text })
}

fn read(bucket: &Bucket, seen: &Seen, oss: bool) -> Answer {
    let Some(object) = bucket.objects.get(&seen.key) else {
        return refuse(404, "NoSuchKey", "the specified key does not exist");
    };
    if seen.header("if-match").is_some_and(|wanted| wanted != object.etag) {
        return refuse(412, "PreconditionFailed", "at least one of the preconditions did not hold");
    }
    let size = object.bytes.len();
    let mut response = Response::builder().header("etag", &object.etag);
    for (name, value) in &object.made_with {
        if name.as_str().starts_with("x-amz-meta-") {
            response = response.header(name, value);
        }
    }
    let standard = !oss || seen.header("x-oss-range-behavior") == Some("standard");
    let range = match seen.header("range").map(|text| parse_range(text, size, standard)) {
        None | Some(Some(None)) => None,
        Some(None) => return refuse(416, "InvalidRange", "the requested range is not satisfiable"),
        Some(Some(Some(range))) => Some(range),
    };
    let bytes = match range {
        None => object.bytes.clone(),
        Some((start, end)) => {
            response = response.status(206).header("content-range", format!("bytes {start}-{}/{size}", end - 1));
            object.bytes.slice(start..end)
        }
    };
    response = response.header("content-length", bytes.len());
    let body = if seen.method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
    Ok(response.body(body).unwrap())
}

/// `None`: not satisfiable; `Some(None)`: the whole object, as OSS answers what it can't satisfy.
fn parse_range(text: &str, size: usize, standard: bool) -> Option<Option<(usize, usize)>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", last) => (size.saturating_sub(last.parse().ok()?), size),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.saturating_add(1)),
    };
    let fits = start < size && start < end;
    match standard {
        true if fits => Some(Some((start, end.min(size)))),
        true => None,
        false if fits && end <= size => Some(Some((start, end))),
        false => Some(None),
    }
}

fn list(bucket: &Bucket, query: &BTreeMap<String, String>) -> Response<Body> {
    let get = |name: &str| query.get(name).map(String::as_str);
    let prefix = get("prefix").unwrap_or_default();
    let max = get("max-keys").and_then(|n| n.parse().ok()).unwrap_or(1000).min(1000);
    // A token stands for everything up to and including an entry; start-after for a key only.
    let token = get("continuation-token");
    let start_after = get("start-after").filter(|_| token.is_none());
    let (mut entries, mut more): (Vec<(String, Option<usize>)>, bool) = (Vec::new(), false);
    for (key, object) in bucket.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
        if start_after.is_some_and(|after| key.as_str() <= after) {
            continue;
        }
        let folder =
            get("delimiter").and_then(|d| key[prefix.len()..].find(d).map(|at| &key[..prefix.len() + at + d.len()]));
        let (name, size) = match folder {
            Some(folder) => (folder, None),
            None => (key.as_str(), Some(object.bytes.len())),
        };
        let repeated = entries.last().is_some_and(|(last, _)| last == name);
        if repeated || token.is_some_and(|token| name <= token) {
            continue;
        }
        if entries.len() == max {
            more = true;
            break;
        }
        entries.push((name.to_owned(), size));
    }
    let url = get("encoding-type") == Some("url");
    let show = |name: &str| if url { encode(name) } else { name.replace('&', "&amp;").replace('<', "&lt;") };
    let mut out = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
    if url {
        out.push_str("<EncodingType>url</EncodingType>");
    }
    if let (true, Some((last, _))) = (more, entries.last()) {
        out.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", encode(last)));
    }
    for (name, size) in &entries {
        out.push_str(&match size {
            Some(size) => format!("<Contents><Key>{}</Key><Size>{size}</Size></Contents>", show(name)),
            None => format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", show(name)),
        });
    }
    out.push_str("</ListBucketResult>");
    xml(out)
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let one = |b: u8| match b {
        b' ' => "+".to_owned(),
        b if plain(b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex: String = [bytes.next(), bytes.next()].into_iter().flatten().map(char::from).collect();
            out.push(u8::from_str_radix(&hex, 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}
