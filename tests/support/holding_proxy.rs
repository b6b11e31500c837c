//! A TCP proxy before a store that holds uploads of data when it is told to, and lets the log through.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections until it is dropped with its runtime.
#[derive(Debug)]
pub struct HoldingProxy {
    /// `http://address` of the proxy.
    pub endpoint: String,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uploads {
    /// Forwarded.
    Through,
    Held,
    /// Forwarded, those that were held, too.
    Delivered,
}

#[derive(Debug)]
struct Shared {
    uploads: watch::Sender<Uploads>,
    held: watch::Sender<u64>,
}

impl HoldingProxy {
    /// `endpoint` is `http://host:port` of the store.
    pub async fn before(endpoint: &str) -> Self {
        let store = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { uploads: watch::Sender::new(Uploads::Through), held: watch::Sender::new(0) });
        let accepted = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, store.clone(), Arc::clone(&accepted)));
            }
        });
        Self { endpoint: format!("http://{address}"), shared }
    }

    /// From now on uploads of data are held, not forwarded. Returns when the first one is.
    pub async fn hold(&self) {
        let mut held = self.shared.held.subscribe();
        let before = *held.borrow_and_update();
        self.shared.uploads.send_replace(Uploads::Held);
        let first = tokio::time::timeout(Duration::from_secs(60), held.wait_for(|held| *held > before)).await;
        first.expect("no upload within a minute").unwrap();
    }

    /// From now on everything is forwarded; what was held never is.
    pub fn release(&self) {
        self.shared.uploads.send_replace(Uploads::Through);
    }

    /// From now on everything is forwarded, what was held, too.
    pub fn deliver(&self) {
        self.shared.uploads.send_replace(Uploads::Delivered);
    }
}

async fn forward(mut client: TcpStream, store: String, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(store).await else { return };
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.split();
    let requests = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_client.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            let mut bytes = buffer[..read].to_vec();
            if *shared.uploads.borrow() == Uploads::Held && is_data(&bytes) {
                let mut uploads = shared.uploads.subscribe();
                shared.held.send_modify(|held| *held += 1);
                // Until the client gives up or dies: nothing of it reaches the store, unless it is to be delivered.
                loop {
                    tokio::select! {
                        read = from_client.read(&mut buffer) => match read.unwrap_or(0) {
                            0 => return,
                            read => bytes.extend_from_slice(&buffer[..read]),
                        },
                        Ok(_) = uploads.wait_for(|uploads| *uploads == Uploads::Delivered) => break,
                    }
                }
            }
            if to_server.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// Whether these bytes begin a PUT or POST outside the log. A client sends a request's head at once, when it has read the
/// answer to the one before.
fn is_data(bytes: &[u8]) -> bool {
    let head = bytes.split(|byte| *byte == b'\r').next().unwrap_or(bytes);
    (head.starts_with(b"PUT ") || head.starts_with(b"POST ")) && !head.windows(9).any(|part| part == b"/_sluice/")
}
