//! Encryption: who the server must be, and who the client says it is.

use crate::{ClientError, Options, socket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a server is recognised, and who the client says it is.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Trusts servers whose certificates one of these authorities has signed. All are PEM; the client's own certificate, with
    /// those between it and its authority behind it, and its key are for servers that ask for them.
    ///
    /// # Errors
    /// [`ClientError::Options`]: there is no certificate or key in what is given, or they do not belong together.
    pub fn from_pem(authorities: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self, ClientError> {
        let wrong = |what: &str, error: &dyn fmt::Display| ClientError::Options(format!("{what}: {error}"));
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities, "the authority's certificate")? {
            roots.add(authority).map_err(|error| wrong("the authority's certificate", &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS", &error))?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate, "the client's certificate")?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("the client's key", &error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("the client's certificate and key", &error))?
            }
        };
        Ok(Self { config: Arc::new(config), server_name: None })
    }

    /// Expects a certificate for this name or address, instead of that which is connected to.
    ///
    /// # Errors
    /// [`ClientError::Options`]: it is none.
    pub fn server_name(mut self, name: &str) -> Result<Self, ClientError> {
        self.server_name = Some(named(name)?);
        Ok(self)
    }

    pub(crate) async fn connect(
        &self,
        socket: TcpStream,
        options: &Options,
    ) -> Result<TlsStream<TcpStream>, ClientError> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => named(host(&options.address))?,
        };
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(name, socket);
        connecting.await.map_err(|error| socket::lost(options, &error))
    }
}

fn named(name: &str) -> Result<ServerName<'static>, ClientError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ClientError::Options(format!("\"{name}\" is no name or address of a server")))
}

/// What an address says before its port.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Those in a PEM text; at least one.
fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(ClientError::Options(format!("{what}: there is none in it"))),
        Ok(found) => Ok(found),
        Err(error) => Err(ClientError::Options(format!("{what}: {error}"))),
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_stands_before_its_port() {
        assert_eq!(host("store.example:4777"), "store.example");
        assert_eq!(host("127.0.0.1:4777"), "127.0.0.1");
        assert_eq!(host("[::1]:4777"), "::1");
    }

    #[test]
    fn what_is_no_certificate_says_so() {
        let error = Tls::from_pem(b"nothing", None).unwrap_err().to_string();
        assert!(error.contains("the authority's certificate: there is none"), "{error}");
    }
}
