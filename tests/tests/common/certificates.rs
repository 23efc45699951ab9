//! Certificates, made for one test, and servers that show them.

use std::fs;
use std::path::{Path, PathBuf};

use larder_tests::{RedisServer, free_port};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority, and a directory with what it has issued.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("an authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        let dir = TempDir::with_prefix("larder-ca-").expect("a temporary directory");
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        fs::write(dir.path().join("ca.pem"), own.pem()).expect("a file");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// For a host name or an address.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.sign(name, name, 2100)
    }

    pub(crate) fn issue_expired(&self, name: &str) -> Identity {
        self.sign("expired", name, 2020)
    }

    fn sign(&self, file: &str, name: &str, until: i32) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |kind: &str| self.dir.path().join(format!("{file}.{kind}.pem"));
        let identity = Identity { certificate: path("certificate"), key: path("key") };
        fs::write(&identity.certificate, certificate.pem()).expect("a file");
        fs::write(&identity.key, key.serialize_pem()).expect("a file");
        identity
    }

    /// A Redis that shows `identity` on a port of its own, and asks its clients for a certificate of this authority or not.
    pub(crate) fn serve(&self, identity: &Identity, asks_clients: bool, args: &[&str]) -> TlsServer {
        let port = free_port();
        let redis = RedisServer::builder()
            .args(["--tls-port", &port.to_string()])
            .args(["--tls-auth-clients", if asks_clients { "yes" } else { "no" }])
            .arg("--tls-ca-cert-file")
            .arg(self.ca_file())
            .arg("--tls-cert-file")
            .arg(&identity.certificate)
            .arg("--tls-key-file")
            .arg(&identity.key)
            .args(args)
            .start();
        TlsServer { redis, port }
    }
}

/// A Redis that speaks TLS as well.
pub(crate) struct TlsServer {
    pub(crate) redis: RedisServer,
    /// Where it speaks TLS.
    pub(crate) port: u16,
}

impl TlsServer {
    pub(crate) fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }
}
