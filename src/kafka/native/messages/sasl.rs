//! SaslHandshake and SaslAuthenticate (KIP-43, KIP-152).

use bytes::Bytes;

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslHandshake {
    pub mechanism: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslHandshakeAnswer {
    pub error: i16,
    /// What the broker would accept.
    pub mechanisms: Vec<String>,
}

impl Request for SaslHandshake {
    type Answer = SaslHandshakeAnswer;
    const API: Api = Api { name: "SaslHandshake", key: 17, versions: (1, 1), flexible: i16::MAX };

    fn write(&self, out: &mut Writer, _version: i16) {
        out.string(self.mechanism);
    }

    fn read(wire: &mut Reader, _version: i16) -> Result<SaslHandshakeAnswer, WireError> {
        Ok(SaslHandshakeAnswer { error: wire.i16()?, mechanisms: wire.array(2, Reader::string)? })
    }
}

/// One step of a mechanism. It holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct SaslAuthenticate {
    pub token: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct SaslAuthenticateAnswer {
    pub error: i16,
    pub message: Option<String>,
    pub token: Bytes,
    /// Milliseconds until the broker wants to see the credentials again; 0: never.
    pub lifetime_ms: i64,
}

impl Request for SaslAuthenticate {
    type Answer = SaslAuthenticateAnswer;
    const API: Api = Api { name: "SaslAuthenticate", key: 36, versions: (0, 2), flexible: 2 };

    fn write(&self, out: &mut Writer, _version: i16) {
        out.bytes(&self.token);
        out.no_tags();
    }

    fn read(wire: &mut Reader, version: i16) -> Result<SaslAuthenticateAnswer, WireError> {
        let answer = SaslAuthenticateAnswer {
            error: wire.i16()?,
            message: wire.nullable_string()?,
            token: wire.nullable_bytes()?.unwrap_or_default(),
            lifetime_ms: if version >= 1 { wire.i64()? } else { 0 },
        };
        wire.skip_tags()?;
        Ok(answer)
    }
}
