//! How a connection is made safe: TLS around it, SASL inside it.
//!
//! Owns: which of both a protocol asks for. Does not own: how they work ([`super::tls`], [`super::sasl`]).

use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::{KafkaSecurity, SecurityProtocol};
use crate::kafka::native::connection::Connection;
use crate::kafka::native::oauth::Tokens;
use crate::kafka::native::stream::{Address, Stream};
use crate::kafka::native::{sasl, tls};
use crate::pipeline::source::SourceError;

/// Security settings of a cluster. Files are read again for each connection, so changed certificates and passwords are
/// taken up without a restart.
#[derive(Debug)]
pub struct Security {
    settings: KafkaSecurity,
    tokens: Tokens,
}

impl Security {
    pub fn new(settings: &KafkaSecurity) -> Self {
        Self { settings: settings.clone(), tokens: Tokens::new(&settings.tls) }
    }

    pub(super) async fn secure(&self, address: &Address, stream: TcpStream) -> Result<Box<dyn Stream>, SourceError> {
        match self.settings.protocol {
            SecurityProtocol::Plaintext | SecurityProtocol::SaslPlaintext => Ok(Box::new(stream)),
            SecurityProtocol::Ssl | SecurityProtocol::SaslSsl => {
                tls::connect(&self.settings.tls, address, stream).await
            }
        }
    }

    /// Returns how long the broker takes the credentials for good; `None`: for ever.
    pub(super) async fn authenticate(&self, connection: &mut Connection) -> Result<Option<Duration>, SourceError> {
        match self.settings.protocol {
            SecurityProtocol::Plaintext | SecurityProtocol::Ssl => Ok(None),
            SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl => {
                sasl::authenticate(connection, &self.settings.sasl, &self.tokens).await
            }
        }
    }
}
