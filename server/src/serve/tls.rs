//! Encryption, as the server has it: its certificate, and whom it lets in by theirs.

use crate::failure::Failure;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Files of the server's certificate and key, and of the authority that clients' certificates are checked against, if they
/// must have any. All are PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

impl Certificates {
    /// Reads the files.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, Failure> {
        let chain = certificates("--tls-cert", &self.cert)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong("--tls-key", &self.key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Usage(format!("TLS: {error}")))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let refused = |error: &dyn Display| wrong("--tls-client-ca", path, error);
                let mut roots = RootCertStore::empty();
                for authority in certificates("--tls-client-ca", path)? {
                    roots.add(authority).map_err(|error| refused(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(&error))?)
            }
        };
        let config =
            builder.with_single_cert(chain, key).map_err(|error| wrong("--tls-cert", &self.cert, &error))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(wrong(option, path, &"there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(option, path, &error)),
    }
}

fn wrong(option: &str, path: &Path, error: &dyn Display) -> Failure {
    Failure::Usage(format!("{option} {}: {error}", path.display()))
}
