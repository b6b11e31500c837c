//! Connections to the worker's HTTP server.
//!
//! Owns: accepting, TLS, limits of time and number, the end. Does not own: paths and answers ([`super::http`]).

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::refusal;
use crate::config::HttpTls;
use crate::pem;

/// Others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// For a TLS handshake, and for a request's head; a connection without requests is closed after it too.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// For a request's body and its answer's head.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);
/// Requests that take longer are cut off at the stop of the worker.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// After a failure to accept, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Answers connections until `stop`.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<Tls>>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "http can't take a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            match tls {
                None => answer(stream, router, stop).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => answer(stream, router, stop).await,
                    // Scanners and clients that do not trust us are no news.
                    Err(why) => tracing::debug!(why, "http: no TLS handshake"),
                },
            }
        });
    }
    connections.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        tracing::debug!("requests that took too long are cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = TowerToHyperService::new(router.clone());
        async move {
            let answered = tokio::time::timeout(REQUEST_LIMIT, router.call(without_slash(request))).await;
            Ok::<Response<Body>, Infallible>(match answered {
                Ok(Ok(answer)) => answer,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    let message = format!("no answer within {} s", REQUEST_LIMIT.as_secs());
                    refusal(StatusCode::SERVICE_UNAVAILABLE, message)
                }
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of http ended early");
    }
}

/// Clients of Kafka Connect end paths in a slash or not.
fn without_slash<B>(mut request: Request<B>) -> Request<B> {
    let path = request.uri().path();
    let short = path.trim_end_matches('/');
    if short.len() == path.len() || short.is_empty() {
        return request;
    }
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(uri) = format!("{short}{query}").parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

/// The worker's certificate, read again when its files change.
#[derive(Debug)]
pub struct Tls {
    files: HttpTls,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    stamps: [Option<SystemTime>; 2],
    config: Arc<ServerConfig>,
}

impl Tls {
    /// # Errors
    /// The files can't be read or don't belong together.
    pub fn open(files: &HttpTls) -> Result<Self, String> {
        let current = Current { stamps: stamps(files), config: Arc::new(read(files)?) };
        Ok(Self { files: files.clone(), current: Mutex::new(current) })
    }

    async fn accept(&self, stream: TcpStream) -> Result<tokio_rustls::server::TlsStream<TcpStream>, String> {
        let handshake = TlsAcceptor::from(self.config()).accept(stream);
        match tokio::time::timeout(HEAD_LIMIT, handshake).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not done within {} s", HEAD_LIMIT.as_secs())),
        }
    }

    fn config(&self) -> Arc<ServerConfig> {
        // Replaced whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != current.stamps {
            match read(&self.files) {
                Ok(config) => {
                    tracing::info!(file = %self.files.cert_file.display(), "the certificate of http is renewed");
                    *current = Current { stamps: now, config: Arc::new(config) };
                }
                // A certificate and its key are two files: the other one may follow in a moment.
                Err(why) => {
                    tracing::warn!(why, "the certificate of http changed and can't be used; the old one is kept")
                }
            }
        }
        Arc::clone(&current.config)
    }
}

fn stamps(files: &HttpTls) -> [Option<SystemTime>; 2] {
    let stamp = |file: &Path| std::fs::metadata(file).and_then(|found| found.modified()).ok();
    [stamp(&files.cert_file), stamp(&files.key_file)]
}

fn read(files: &HttpTls) -> Result<ServerConfig, String> {
    let key = pem::key(&files.key_file).map_err(|why| format!("http.tls.key_file {why}"))?;
    let certificates = pem::certificates(&files.cert_file).map_err(|why| format!("http.tls.cert_file {why}"))?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| format!("http.tls.cert_file {}: {error}", files.cert_file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_end_make_no_difference() {
        for (given, wanted) in [("/connectors/?a=b", "/connectors?a=b"), ("/", "/"), ("/a//", "/a"), ("/a/b", "/a/b")] {
            let request = without_slash(Request::get(given).body(()).unwrap());
            assert_eq!(request.uri().to_string(), wanted);
        }
    }
}
