//! Records on their way into a Kafka topic.
//!
//! Owns: what is asked of [`super::source::Kafka::produce`], what its failures mean.
//! Does not own: the wire protocol, what is done about a failure.

use crate::record::{Headers, write_header};

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// `None`: by the key as Java's producer does, or in turn where there is none.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: HeaderList,
    /// Milliseconds since the Unix epoch; the topic's settings may replace it by the broker's time.
    pub timestamp_ms: i64,
}

impl Outgoing {
    /// About what it takes on the wire before compression.
    pub fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.value) + self.headers.bytes.len() + 32
    }
}

/// Headers in Kafka's encoding, see [`Headers`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderList {
    count: u32,
    bytes: Vec<u8>,
}

impl HeaderList {
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        write_header(&mut self.bytes, key, value);
        self.count += 1;
    }

    pub fn as_headers(&self) -> Headers<'_> {
        Headers::new(self.count, &self.bytes)
    }
}

impl From<Headers<'_>> for HeaderList {
    fn from(headers: Headers<'_>) -> Self {
        Self { count: headers.len() as u32, bytes: headers.as_bytes().to_vec() }
    }
}

/// Where a record was written: all in-sync replicas have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub partition: i32,
    /// -1 where the broker does not tell.
    pub offset: i64,
}

/// Why a record is not known to be written, by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Nobody said that it was written, in the time that there was: try again. It may be there all the same.
    #[error("writing to topic {topic}: {message}")]
    Unreachable { topic: String, message: String },
    /// The topic, or the partition asked for, does not exist. It is not made.
    #[error("topic {topic} does not exist, or has no such partition")]
    NoTopic { topic: String },
    /// This record is above what the topic takes.
    #[error("a record of {bytes} bytes is too large for topic {topic}: raise its max.message.bytes")]
    TooLarge { topic: String, bytes: usize },
    /// Permissions or the topic's settings forbid it.
    #[error("topic {topic} refuses records: {message}")]
    Refused { topic: String, message: String },
}
