//! Certificates for one test: an authority, and a server that it vouches for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// An authority and the files of a server named `localhost` and `127.0.0.1`.
pub struct Certificates {
    directory: TempDir,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Certificates {
    /// New ones, which nobody else trusts.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let ca_key = KeyPair::generate().expect("a key can be made");
        let mut ca = CertificateParams::new(Vec::<String>::new()).expect("no names, no wrong ones");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).expect("a root signs itself");
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names).expect("valid names");
        let leaf =
            server.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).expect("the root signs");
        for (name, text) in
            [("ca.pem", root.pem()), ("server.pem", leaf.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(directory.path().join(name), text)
                .expect("the temporary directory can be written to");
        }
        Self { directory, chain: vec![leaf.der().clone()], key: key.serialize_der() }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The server's certificate and key.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        let file = |name| Path::join(self.directory.path(), name);
        (file("server.pem"), file("key.pem"))
    }

    /// Takes TLS connections with the server's certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key of PKCS 8");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .expect("the key is the certificate's");
        TlsAcceptor::from(Arc::new(config))
    }
}
