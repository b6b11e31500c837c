//! How a connection is made safe: TLS around it, SASL inside it.
//!
//! Owns: the settings' way into both. Does not own: their protocols ([`super::tls`], [`super::sasl`]).

use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::{KafkaSecurity, SecurityProtocol};
use crate::kafka::native::connection::Connection;
use crate::kafka::native::stream::{Address, Stream};
use crate::pipeline::source::SourceError;

/// Security settings of a cluster. Files are read again for each connection, so changed certificates and passwords are
/// taken up without a restart.
#[derive(Clone, Debug)]
pub struct Security {
    settings: KafkaSecurity,
}

impl Security {
    pub fn new(settings: &KafkaSecurity) -> Self {
        Self { settings: settings.clone() }
    }

    pub(super) async fn secure(&self, _address: &Address, stream: TcpStream) -> Result<Box<dyn Stream>, SourceError> {
        match self.settings.protocol {
            SecurityProtocol::Plaintext | SecurityProtocol::SaslPlaintext => Ok(Box::new(stream)),
            SecurityProtocol::Ssl | SecurityProtocol::SaslSsl => {
                Err(SourceError::Refused { what: "security".into(), message: "no TLS yet".into() })
            }
        }
    }

    /// Returns how long the broker takes the credentials for good; `None`: for ever.
    pub(super) async fn authenticate(&self, _connection: &mut Connection) -> Result<Option<Duration>, SourceError> {
        Ok(None)
    }
}
