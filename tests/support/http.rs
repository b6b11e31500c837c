//! HTTP as any client would: bytes over a socket.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// 0: nobody answered.
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// An address where nobody listens, for a process that is to be told one.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sends one request; a body is JSON where `headers` do not say otherwise.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let nobody = |error: std::io::Error| Answer { status: 0, head: String::new(), body: error.to_string() };
    let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    let mut given: Vec<(String, String)> = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut default = |name: &str, value: String| {
        if !given.iter().any(|(known, _)| known == name) {
            given.push((name.to_owned(), value));
        }
    };
    default("host", address.to_string());
    if let Some(body) = body {
        default("content-type", "application/json".to_owned());
        default("content-length", body.len().to_string());
    }
    for (name, value) in given {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        Err(error) => return nobody(error),
    };
    let mut bytes = Vec::new();
    // A server that refuses a body may close before it has all of it.
    let sent = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body.unwrap_or_default().as_bytes()));
    if let Err(error) = stream.read_to_end(&mut bytes).or(sent.map(|()| 0))
        && bytes.is_empty()
    {
        return nobody(error);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, head: format!("{head}\r\n"), body: unchunked(head, body) }
}

fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole += &after[..size];
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}
