//! TLS: keys, certificates and trust from PEM files, checked before a replica starts and read again
//! when they change. What does not live here: the connections that use it (`link`).

mod reload;
mod store;
mod verify;
pub mod words;

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::tls::{QuorumTlsConfig, TlsFiles};
pub use store::TlsError;
use store::{Credentials, authorities, credentials};
use verify::PeerVerifier;

/// TLS between replicas; both sides show a certificate.
pub struct QuorumTls {
    /// Whether other replicas are dialled with it.
    pub dials: bool,
    /// Whether replicas without it are let in as well.
    pub takes_plain: bool,
    files: TlsFiles,
    current: RwLock<Arc<Ends>>,
    watching: Option<AbortHandle>,
}

/// The two ends of a connection, made of the files as they were read.
pub struct Ends {
    /// For those who dial this replica.
    pub acceptor: TlsAcceptor,
    /// For those whom this replica dials.
    pub connector: TlsConnector,
}

impl std::fmt::Debug for QuorumTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuorumTls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl QuorumTls {
    /// Reads the files, and follows them if the configuration says so. Must be called inside a tokio
    /// runtime.
    pub fn load(config: &QuorumTlsConfig) -> Result<Arc<QuorumTls>, TlsError> {
        let ends = Ends::load(&config.files)?;
        Ok(Arc::new_cyclic(|tls| QuorumTls {
            dials: config.dials,
            takes_plain: config.takes_plain,
            files: config.files.clone(),
            current: RwLock::new(Arc::new(ends)),
            watching: config.files.reload.then(|| reload::follow(&config.files, tls.clone())),
        }))
    }

    /// What new connections are made with.
    pub fn ends(&self) -> Arc<Ends> {
        Arc::clone(&self.current.read())
    }

    /// Reads the files again; what is in use stays when they are of no use.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let ends = Ends::load(&self.files)?;
        *self.current.write() = Arc::new(ends);
        Ok(())
    }
}

impl Drop for QuorumTls {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

impl Ends {
    fn load(files: &TlsFiles) -> Result<Ends, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(authorities(files)?);
        let credentials = credentials(files)?;
        check_own(files, &credentials.chain, &roots, &provider)?;
        let unusable = |error: Error| {
            let reason = match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    "the private key does not belong to the first certificate".to_string()
                }
                other => format!("of no use: {other}"),
            };
            TlsError::new(&files.key_store, reason)
        };
        let Credentials { chain, key } = credentials;
        let distrusted = |error: &dyn std::fmt::Display| {
            TlsError::new(&files.trust_store, format!("of no use: {error}"))
        };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| distrusted(&error))?;
        let signatures =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(|error| distrusted(&error))?;
        let verifier = PeerVerifier {
            roots,
            algorithms: provider.signature_verification_algorithms,
            verify_hostname: files.verify_hostname,
            signatures,
        };
        // Both ends are ours: nothing older is needed.
        let versions = &[&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        // Every connection shows its certificates anew, so that a reload counts for the next one.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.resumption = Resumption::disabled();
        Ok(Ends {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }
}

/// A certificate that no peer would accept is told at the start, not by everybody else.
fn check_own(
    files: &TlsFiles,
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), TlsError> {
    let (own, intermediates) = chain.split_first().ok_or_else(|| {
        TlsError::new(&files.key_store, "there is no certificate in it (BEGIN CERTIFICATE)")
    })?;
    let now = UnixTime::now();
    let as_client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| TlsError::new(&files.trust_store, format!("of no use: {error}")))
        .map(|verifier| verifier.verify_client_cert(own, intermediates, now).map(|_| ()))?;
    let as_server = rustls::server::ParsedCertificate::try_from(own).and_then(|parsed| {
        let algorithms = provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            roots,
            intermediates,
            now,
            algorithms,
        )
    });
    for checked in [as_client, as_server] {
        match checked {
            Ok(()) => {}
            // While an authority is being replaced, the others may trust it already.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                tracing::warn!(
                    "{}={}: the certificate is not signed by an authority in {}: replicas that \
                     trust the same authorities will refuse this one",
                    files.key_store.named_by,
                    files.key_store.path.display(),
                    files.trust_store.path.display()
                );
                return Ok(());
            }
            Err(Error::InvalidCertificate(error)) => {
                return Err(TlsError::new(&files.key_store, own_words(&error)));
            }
            Err(error) => {
                return Err(TlsError::new(&files.key_store, format!("of no use: {error}")));
            }
        }
    }
    Ok(())
}

fn own_words(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired: have it renewed".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet: look at this machine's clock".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate must be allowed for servers and for clients (extended key usage \
             serverAuth and clientAuth), since replicas dial each other"
                .into()
        }
        other => format!("the certificate is of no use: {other}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
