//! Certificates for tests, made anew each time.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// An authority with a key of its own.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names at all");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate, for a trust store.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A new key with a certificate for `host`, whose subject is `CN=name`: a key store.
    pub fn key_store(&self, name: &str, host: &str) -> String {
        let mut params = CertificateParams::new(vec![host.to_string()]).expect("a host's name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }
}

/// Writes key and trust of a member that is reached at `host`; returns what its configuration says
/// of them.
pub fn quorum_settings(
    directory: &Path,
    id: u8,
    host: &str,
    signer: &Authority,
    trusted: &[&Authority],
) -> String {
    let (key, trust) = (format!("{id}-key.pem"), format!("{id}-trust.pem"));
    let (key, trust) = (directory.join(key), directory.join(trust));
    replace(&key, &signer.key_store(&format!("replica {id}"), host));
    replace(&trust, &trusted.iter().map(|authority| authority.pem()).collect::<String>());
    format!(
        "sslQuorum=true\nsslQuorumReloadCertFiles=true\nssl.quorum.keyStore.location={}\n\
         ssl.quorum.trustStore.location={}\n",
        key.display(),
        trust.display()
    )
}

/// As certificates are renewed: written beside, and renamed.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("a file in a fresh directory");
    std::fs::rename(&beside, path).expect("the same");
}
