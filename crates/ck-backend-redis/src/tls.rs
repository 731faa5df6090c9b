use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::Certificates;
use crate::error::Fault;
use crate::stream::{Stream, broken};

/// Whom to trust, read once: the system has many authorities, and there are many connections.
pub(crate) struct Tls {
    certificates: Certificates,
    config: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) fn new(certificates: Certificates) -> Self {
        Self {
            certificates,
            config: OnceLock::new(),
        }
    }

    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, Fault> {
        let config = match self.config.get() {
            Some(config) => config,
            None => {
                let config = Arc::new(configure(&self.certificates)?);
                self.config.get_or_init(|| config)
            }
        };
        let host = ServerName::try_from(host.to_owned()).map_err(unusable)?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(host, stream).await.map_err(broken)?;
        Ok(Box::new(stream))
    }
}

/// The client library trusts the same.
fn configure(certificates: &Certificates) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    match &certificates.roots {
        Some(pem) => {
            for root in CertificateDer::pem_slice_iter(pem) {
                roots.add(root.map_err(unusable)?).map_err(unusable)?;
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let Some((certificate, key)) = &certificates.client else {
        return Ok(config.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(unusable)?;
    let config = config.with_client_auth_cert(chain.map_err(unusable)?, key);
    config.map_err(unusable)
}

fn unusable(error: impl std::fmt::Display) -> Fault {
    let code = redis::ErrorKind::InvalidClientConfig;
    Fault::Redis((code, "unusable for TLS", error.to_string()).into())
}
