//! What TLS is told once, when a cache is built: files are read here, and never again.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::TlsClient;
use crate::builder::TlsOptions;
use crate::error::ConfigError;

impl TlsClient {
    /// # Errors
    /// A file cannot be read or does not hold what it should, or `host` is no name that a certificate could have.
    pub(crate) fn new(options: &TlsOptions, host: &str) -> Result<Self, ConfigError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new("url", format!("TLS cannot be set up: {error}")))?;
        let builder = if options.accepts_any_certificate {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(match &options.ca_file {
                Some(file) => roots_of(file)?,
                None => system_roots()?,
            })
        };
        let config = match &options.client_certificate {
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates("tls_client_certificate", certificate)?, key_of(key)?)
                .map_err(|error| {
                    ConfigError::new("tls_client_certificate", format!("does not go with its key: {error}"))
                })?,
            None => builder.with_no_client_auth(),
        };
        let name = server_name(options.server_name.as_deref(), host)?;
        let shows_certificate = options.client_certificate.is_some();
        Ok(Self { config: Arc::new(config), name, shows_certificate })
    }
}

fn server_name(given: Option<&str>, host: &str) -> Result<ServerName<'static>, ConfigError> {
    let (field, problem) = match given {
        Some(_) => ("tls_server_name", "is no host name and no IP address"),
        None => ("url", "its host is no name that a certificate can have; give that as tls_server_name"),
    };
    ServerName::try_from(given.unwrap_or(host).to_owned()).map_err(|_| ConfigError::new(field, problem))
}

fn roots_of(file: &Path) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls_ca_file", file)? {
        roots.add(certificate).map_err(|error| unfit("tls_ca_file", file, error))?;
    }
    Ok(roots)
}

/// Of the system's certificates some may be old or odd; one that is needed and missing is told when a server is refused.
fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable > 0 {
        return Ok(roots);
    }
    let problem = "is not given, and this system has no root certificates: install them (the package is mostly called \
                   ca-certificates), or give a file";
    Err(ConfigError::new("tls_ca_file", problem))
}

fn certificates(field: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unfit(field, file, error))?;
    if certificates.is_empty() {
        return Err(unfit(field, file, "it has no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

fn key_of(file: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => unfit(
            "tls_client_certificate",
            file,
            "it has no private key in PEM form (-----BEGIN PRIVATE KEY-----), or an encrypted one",
        ),
        other => unfit("tls_client_certificate", file, other),
    })
}

fn unfit(field: &'static str, file: &Path, why: impl std::fmt::Display) -> ConfigError {
    ConfigError::new(field, format!("cannot use {}: {why}", file.display()))
}

/// Believes every certificate, but not that somebody holds its key who does not.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
