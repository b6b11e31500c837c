//! One connection to a broker: one request at a time, each with its answer.
//!
//! Owns: framing, headers, correlation ids, negotiated versions, time limits. Does not own: reconnecting, what is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::kafka::native::errors;
use crate::kafka::native::messages::api_versions::ApiVersions;
use crate::kafka::native::messages::{Api, Request};
use crate::kafka::native::output::Pool;
use crate::kafka::native::security::Security;
use crate::kafka::native::stream::{Address, Stream};
use crate::kafka::native::tls;
use crate::kafka::native::wire::{Reader, WireError, Writer};
use crate::pipeline::source::SourceError;

/// Longest wait for the first byte of an answer that the broker doesn't hold back on purpose.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of an answer, or of a request that the broker doesn't take.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// No answer is larger: Kafka's own clients stop there as well.
const FRAME_MAX_BYTES: usize = i32::MAX as usize;
/// Memory for an answer grows as its bytes come; a length alone gets this much.
const FRAME_STEP_BYTES: usize = 8 * 1024 * 1024;
/// Buffers of answers that are kept for the next ones, and the largest of them: answers to fetches are seldom above 2 MiB.
const FRAMES_KEPT: usize = 4;
const FRAME_KEPT_BYTES: usize = 3 * 1024 * 1024;
const CLIENT_ID: &str = "sluice";

/// An open, authenticated connection with negotiated versions.
pub struct Connection {
    stream: Box<dyn Stream>,
    address: Address,
    frames: Pool,
    /// Api key to the lowest and highest version of the broker.
    versions: BTreeMap<i16, (i16, i16)>,
    correlation_id: i32,
    answered: bool,
    /// A request was begun and its answer not read to the end: nothing that comes can be trusted.
    broken: bool,
    /// When the broker wants to see the credentials again.
    expires: Option<Instant>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

/// Reads an answer with its header.
pub(super) fn read_frame<R: Request>(frame: Bytes, version: i16) -> Result<R::Answer, WireError> {
    let flexible = version >= R::API.flexible;
    let is_versions = R::API.key == ApiVersions::API.key;
    // A broker that doesn't know our version of ApiVersions answers in version 0.
    let unsupported = is_versions && frame.get(4..6) == Some(&errors::UNSUPPORTED_VERSION.to_be_bytes());
    let version = if unsupported { 0 } else { version };
    let mut wire = Reader::new(frame, flexible);
    wire.i32()?;
    // The header of this one answer never has tagged fields.
    if !is_versions {
        wire.skip_tags()?;
    }
    if is_versions && version == 0 {
        wire.set_flexible(false);
    }
    let answer = R::read(&mut wire, version)?;
    wire.finish()?;
    Ok(answer)
}

impl Connection {
    /// Connects, agrees on versions, authenticates.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`], or [`SourceError::Refused`] for credentials, certificates and brokers that speak none
    /// of our versions.
    pub async fn open(address: &Address, security: &Security) -> Result<Self, SourceError> {
        let stream = security.secure(address, address.connect().await?).await?;
        let mut connection = Self {
            stream,
            address: address.clone(),
            frames: Pool::new(FRAMES_KEPT, FRAME_KEPT_BYTES),
            versions: BTreeMap::new(),
            correlation_id: 0,
            answered: false,
            broken: false,
            expires: None,
        };
        connection.negotiate().await?;
        if let Some(lifetime) = security.authenticate(&mut connection).await? {
            // Sooner than the broker, which would close the connection in the middle of something.
            connection.expires = Some(Instant::now() + lifetime.mul_f64(0.8));
        }
        Ok(connection)
    }

    /// Whether another request may be sent.
    pub fn is_usable(&self) -> bool {
        !self.broken && self.expires.is_none_or(|expires| Instant::now() < expires)
    }

    async fn negotiate(&mut self) -> Result<(), SourceError> {
        let newest = ApiVersions::API.versions.1;
        let mut answer = self.ask_in(&ApiVersions, newest, ANSWER_LIMIT).await?;
        if answer.error == errors::UNSUPPORTED_VERSION {
            // Brokers before 2.4 answer in version 0, without telling what they speak (KIP-511).
            answer = self.ask_in(&ApiVersions, 0, ANSWER_LIMIT).await?;
        }
        if answer.error != errors::NONE {
            return Err(self.refused(format!("ApiVersions: {}", errors::name(answer.error))));
        }
        self.versions = answer.apis.into_iter().map(|(key, lowest, highest)| (key, (lowest, highest))).collect();
        Ok(())
    }

    /// The version of a request that both sides speak.
    ///
    /// # Errors
    /// [`SourceError::Refused`]: there is none.
    pub fn version(&self, api: Api) -> Result<i16, SourceError> {
        let (ours_lowest, ours_highest) = api.versions;
        match self.versions.get(&api.key) {
            Some(&(lowest, highest)) if lowest.max(ours_lowest) <= highest.min(ours_highest) => {
                Ok(highest.min(ours_highest))
            }
            Some((lowest, highest)) => Err(self.refused(format!(
                "speaks {} {lowest} to {highest}, this client {ours_lowest} to {ours_highest} (Kafka 2.1 and later)",
                api.name
            ))),
            None => Err(self.refused(format!("doesn't speak {}", api.name))),
        }
    }

    /// Sends a request and waits for its answer, in the newest version that both sides speak.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] also for an answer that can't be read; the connection is of no more use then.
    pub async fn ask<R: Request>(&mut self, request: &R) -> Result<R::Answer, SourceError> {
        let version = self.version(R::API)?;
        self.ask_in(request, version, ANSWER_LIMIT).await
    }

    async fn ask_in<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        limit: Duration,
    ) -> Result<R::Answer, SourceError> {
        self.send(request, version).await?;
        let length = self.answer_length(R::API.name, limit).await?;
        let frame = self.answer_body(R::API.name, length).await?;
        self.read_answer::<R>(frame, version)
    }

    /// Reads an answer's frame after its header.
    ///
    /// # Errors
    /// The frame doesn't hold what the schema says.
    pub fn read_answer<R: Request>(&mut self, frame: Bytes, version: i16) -> Result<R::Answer, SourceError> {
        read_frame::<R>(frame, version).map_err(|error| {
            self.broken = true;
            self.unreachable(format!("answer to {} v{version} can't be read: {error}", R::API.name))
        })
    }

    /// Sends a request; [`Self::answer_length`] and [`Self::answer_body`] have to follow, so that there can be room made for
    /// the answer in between.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`]; the connection is of no more use then.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), SourceError> {
        let mut out = Writer::new(version >= R::API.flexible);
        self.correlation_id = self.correlation_id.wrapping_add(1);
        out.i32(0);
        out.i16(R::API.key);
        out.i16(version);
        out.i32(self.correlation_id);
        out.old_string(CLIENT_ID);
        out.no_tags();
        request.write(&mut out, version);
        let mut frame = out.bytes;
        let length = i32::try_from(frame.len() - 4).map_err(|_| self.refused("a request above 2 GiB".into()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.broken = true;
        let written = tokio::time::timeout(SILENCE_LIMIT, async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(format!("{}: {error}", R::API.name))),
            Err(_) => Err(self.unreachable(format!("{} not taken within {} s", R::API.name, SILENCE_LIMIT.as_secs()))),
        }
    }

    /// Waits up to `limit` for an answer to begin and returns its size in bytes.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`]; the connection is of no more use then.
    pub async fn answer_length(&mut self, what: &str, limit: Duration) -> Result<usize, SourceError> {
        let mut head = [0; 4];
        let mut filled = self.read_some(&mut head, what, limit).await?;
        while filled < head.len() {
            filled += self.read_some(&mut head[filled..], what, SILENCE_LIMIT).await?;
        }
        let length = i32::from_be_bytes(head);
        let length = usize::try_from(length).ok().filter(|length| (4..=FRAME_MAX_BYTES).contains(length));
        length.ok_or_else(|| self.unreachable(format!("answer to {what} has an impossible length")))
    }

    /// Reads an answer of `length` bytes, its header included.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`]; the connection is of no more use then.
    pub async fn answer_body(&mut self, what: &str, length: usize) -> Result<Bytes, SourceError> {
        let mut frame = self.frames.output();
        while frame.len() < length {
            let (left, spare) = (length - frame.len(), frame.spare());
            let room = left.min(if spare > 0 { spare } else { FRAME_STEP_BYTES.max(frame.len()) });
            let (_, space) = frame.split(room);
            let read = self.read_some(&mut space[..room], what, SILENCE_LIMIT).await?;
            frame.advance(read);
        }
        let frame = frame.finish();
        match frame.first_chunk::<4>() {
            Some(id) if i32::from_be_bytes(*id) == self.correlation_id => {
                self.broken = false;
                self.answered = true;
                Ok(frame)
            }
            _ => Err(self.unreachable(format!("answer to {what} has the wrong correlation id"))),
        }
    }

    /// Reads what is there and returns how much, at least a byte.
    async fn read_some(&mut self, into: &mut [u8], what: &str, limit: Duration) -> Result<usize, SourceError> {
        match tokio::time::timeout(limit, self.stream.read(into)).await {
            Ok(Ok(0)) if !self.answered => Err(self.unreachable(format!(
                "connection closed instead of an answer to {what}: is this the right listener (TLS, SASL), and Kafka 2.1 or later?"
            ))),
            Ok(Ok(0)) => Err(self.unreachable(format!("connection closed instead of an answer to {what}"))),
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(self.failed(what, &error)),
            Err(_) => Err(self.unreachable(format!("no answer to {what} within {} s", limit.as_secs()))),
        }
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> SourceError {
        tls::explain(format!("broker {}", self.address), what, error)
    }

    pub(super) fn unreachable(&self, message: String) -> SourceError {
        SourceError::Unreachable { what: format!("broker {}", self.address), message }
    }

    pub(super) fn refused(&self, message: String) -> SourceError {
        SourceError::Refused { what: format!("broker {}", self.address), message }
    }
}
