//! TLS: its parameters, and that they are not given in vain.

use std::path::PathBuf;

use super::RedisBuilder;
use crate::error::ConfigError;
use crate::redis::Security;
use crate::runtime::Endpoint;
use crate::url::RedisUrl;

/// What was asked for; the files are read when the cache is built.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate and its key.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
    pub(crate) accepts_any_certificate: bool,
}

/// # TLS
///
/// A `rediss://` URL asks for TLS, 1.3 or 1.2; it needs the feature `tls-rustls` of the driver crate. Files are read once, when
/// the cache is built. The handshake is part of what [`connect_timeout`](Self::connect_timeout) bounds. A certificate that
/// one side refuses is an error of [`connect`](Self::connect) even with the fallback on: waiting does not cure it.
impl RedisBuilder {
    /// A PEM file with the certificates of the authorities that may vouch for the server, in place of those that this
    /// system trusts. Default: the system's.
    #[doc(alias = "ssl_ca_certs")]
    pub fn tls_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(file.into());
        self
    }

    /// Two PEM files: the certificate that is shown to a server which asks for one, with what it takes to get from there to
    /// an authority, and its private key, not encrypted. Default none.
    #[doc(alias = "ssl_certfile")]
    pub fn tls_client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// The name that the server's certificate must have, which is also what the server is asked for (SNI). Default: the host
    /// of the URL.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls.server_name = Some(name.into());
        self
    }

    /// Lets anybody who can get between this process and the server read and change everything, the password included: the
    /// server's certificate is not verified. For a first try on one's own machine; [`tls_ca_file`](Self::tls_ca_file) is
    /// what a certificate of one's own takes.
    pub fn dangerously_accept_any_tls_certificate(mut self) -> Self {
        self.tls.accepts_any_certificate = true;
        self
    }

    /// How connections are to be secured.
    pub(super) fn security(&self, url: &RedisUrl) -> Result<Security, ConfigError> {
        if let (false, Some(field)) = (url.tls, self.tls.first_given()) {
            let problem = "is given, but the URL asks for no TLS; make it rediss://, or leave this out";
            return Err(ConfigError::new(field, problem));
        }
        if self.tls.accepts_any_certificate && self.tls.ca_file.is_some() {
            let problem = "makes tls_ca_file pointless; leave this out";
            return Err(ConfigError::new("dangerously_accept_any_tls_certificate", problem));
        }
        match &url.endpoint {
            Endpoint::Tcp { host, .. } if url.tls => self.tls.secure(host),
            _ => Ok(Security::Plain),
        }
    }
}

impl TlsOptions {
    #[cfg(feature = "tls-rustls")]
    fn secure(&self, host: &str) -> Result<Security, ConfigError> {
        crate::redis::TlsClient::new(self, host).map(Security::Tls)
    }

    #[cfg(not(feature = "tls-rustls"))]
    #[allow(clippy::unused_self, reason = "only TLS needs it")]
    fn secure(&self, _: &str) -> Result<Security, ConfigError> {
        let problem =
            "rediss:// needs TLS: turn on the feature `tls-rustls` of the driver crate, such as larder-tokio";
        Err(ConfigError::new("url", problem))
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("tls_ca_file", self.ca_file.is_some()),
            ("tls_client_certificate", self.client_certificate.is_some()),
            ("tls_server_name", self.server_name.is_some()),
            ("dangerously_accept_any_tls_certificate", self.accepts_any_certificate),
        ];
        given.into_iter().find_map(|(field, given)| given.then_some(field))
    }
}

#[cfg(all(test, not(feature = "tls-rustls")))]
mod tests {
    use super::*;
    use crate::cache::Cache;

    #[test]
    fn without_the_feature_the_error_names_it() {
        let builder = Cache::redis("rediss://localhost");
        let (url, _) = RedisUrl::parse("rediss://localhost").expect("a good URL");
        let error = builder.security(&url).expect_err("no TLS");
        assert!(error.field() == "url" && error.to_string().contains("`tls-rustls`"), "{error}");
    }
}
