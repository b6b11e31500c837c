//! TLS around a connection, with rustls.
//!
//! Owns: certificates from files, the check of the other side, what TLS errors mean. Does not own: TCP.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::TlsConfig;
use crate::kafka::native::stream::{Address, Stream};
use crate::pem;
use crate::pipeline::source::SourceError;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A certificate and its key are two files: between the writing of one and of the other they don't fit.
const FILES_ATTEMPTS: u32 = 5;
const FILES_WAIT: Duration = Duration::from_millis(300);

/// Encrypts a connection. The files are read again each time, so renewed certificates are taken up.
///
/// # Errors
/// [`SourceError::Refused`] for files and certificates that don't fit, [`SourceError::Unreachable`] for the rest.
pub async fn connect(
    settings: &TlsConfig,
    address: &Address,
    stream: TcpStream,
) -> Result<Box<dyn Stream>, SourceError> {
    let what = format!("broker {address}");
    let refused = |message: String| SourceError::Refused { what: what.clone(), message };
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| refused("its host is no name that a certificate could hold".into()))?;
    let settings = settings.clone();
    let config = patiently(move || client_config(&settings)).await.map_err(refused)?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(explain(what, "TLS", &error)),
        Err(_) => Err(SourceError::Unreachable {
            what,
            message: format!("no TLS handshake within {} s", HANDSHAKE_LIMIT.as_secs()),
        }),
    }
}

/// What is read from files that somebody may just be replacing; its last error if they stay wrong.
async fn patiently<T: Send + 'static>(
    read: impl Fn() -> Result<T, String> + Clone + Send + 'static,
) -> Result<T, String> {
    let mut attempt = 1;
    loop {
        // Reading the system's certificates takes a while.
        let found = tokio::task::spawn_blocking(read.clone()).await.map_err(|error| error.to_string()).flatten();
        if found.is_ok() || attempt == FILES_ATTEMPTS {
            return found;
        }
        attempt += 1;
        tokio::time::sleep(FILES_WAIT).await;
    }
}

/// What an error of a connection means, encrypted or not: certificates that don't fit are no passing trouble.
pub fn explain(what: String, doing: &str, error: &std::io::Error) -> SourceError {
    let message = format!("{doing}: {error}");
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None | Some(rustls::Error::AlertReceived(AlertDescription::InternalError | AlertDescription::UserCanceled)) => {
            SourceError::Unreachable { what, message }
        }
        Some(_) => SourceError::Refused { what, message },
    }
}

fn client_config(settings: &TlsConfig) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    match &settings.ca_file {
        Some(file) => {
            for certificate in pem::certificates(file)? {
                roots.add(certificate).map_err(|error| format!("tls.ca_file {}: {error}", file.display()))?;
            }
        }
        None => {
            // Some of a system's certificates are often unusable; that none is left shows below.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| format!("certificates to trust (tls.ca_file or the system's): {error}"))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if settings.verify_hostname {
        builder.with_webpki_verifier(verifier)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyHostname { verifier }))
    };
    let (Some(cert_file), Some(key_file)) = (&settings.cert_file, &settings.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = pem::key(key_file).map_err(|why| format!("tls.key_file {why}"))?;
    builder
        .with_client_auth_cert(pem::certificates(cert_file)?, key)
        .map_err(|error| format!("tls.cert_file {}: {error}", cert_file.display()))
}

/// Checks everything but the name: for managed brokers whose certificates name none that can be reached.
#[derive(Debug)]
struct AnyHostname {
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyHostname {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is checked last, after the chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Reads files that fit from attempt `fit_at` on; how many attempts were made.
    async fn replaced_at(fit_at: u32) -> (Result<u32, String>, u32) {
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        let found = patiently(move || match counted.fetch_add(1, Ordering::SeqCst) + 1 {
            attempt if attempt >= fit_at => Ok(attempt),
            attempt => Err(format!("attempt {attempt}")),
        })
        .await;
        (found, attempts.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_are_just_being_replaced_are_read_again() {
        assert_eq!(replaced_at(1).await, (Ok(1), 1));
        assert_eq!(replaced_at(3).await, (Ok(3), 3));
        let never = replaced_at(FILES_ATTEMPTS + 1).await;
        assert_eq!(never, (Err(format!("attempt {FILES_ATTEMPTS}")), FILES_ATTEMPTS));
    }
}
