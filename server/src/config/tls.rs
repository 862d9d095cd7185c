//! The keys of TLS, `ssl.quorum.*` between replicas and `ssl.*` for clients: which files hold the key,
//! the certificates and the authorities, and how far to trust. Opens no file.

use std::fmt;
use std::path::{Path, PathBuf};

/// What TLS on one sort of port is told.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The private key and its certificate chain (`keyStore.*`).
    pub key_store: StoreFile,
    /// What the private key is encrypted with (`keyStore.password`, `keyStore.passwordPath`).
    pub key_password: Option<KeyPassword>,
    /// The certificates of the authorities whose signature is trusted (`trustStore.*`).
    pub trust_store: StoreFile,
    /// Whether the certificate of who is dialled must be for the host that was dialled
    /// (`hostnameVerification`).
    pub verify_hostname: bool,
    /// Whether the files are read again when they change (`sslQuorumReloadCertFiles`).
    pub reload: bool,
}

/// TLS between replicas.
#[derive(Clone, Debug)]
pub struct QuorumTlsConfig {
    /// Keys and trust (`ssl.quorum.*`).
    pub files: TlsFiles,
    /// Whether other replicas are dialled with TLS (`sslQuorum`).
    pub dials: bool,
    /// Whether replicas without TLS are let in as well, while an ensemble goes over to it
    /// (`portUnification`).
    pub takes_plain: bool,
}

/// A file that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFile {
    /// The file.
    pub path: PathBuf,
    /// Where it is named, `zoo.cfg:7: ssl.quorum.keyStore.location`.
    pub named_by: String,
    /// What it is made of.
    pub kind: StoreKind,
}

/// What a store is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Text blocks, `-----BEGIN …-----`.
    Pem,
    /// Java's own.
    Jks,
    /// PKCS #12.
    Pkcs12,
}

/// Where the password of a private key is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyPassword {
    /// In the configuration.
    Text(String),
    /// The first line of this file.
    File(PathBuf),
}

impl fmt::Debug for KeyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyPassword::Text(_) => "a password",
            KeyPassword::File(_) => "a password in a file",
        })
    }
}

impl StoreKind {
    fn parse(value: &str) -> Result<StoreKind, String> {
        match value.to_ascii_uppercase().as_str() {
            "PEM" => Ok(StoreKind::Pem),
            "JKS" => Ok(StoreKind::Jks),
            "PKCS12" => Ok(StoreKind::Pkcs12),
            _ => Err("expected PEM".into()),
        }
    }

    fn of(path: &Path) -> StoreKind {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match ending.as_str() {
            "jks" => StoreKind::Jks,
            "p12" | "pfx" => StoreKind::Pkcs12,
            _ => StoreKind::Pem,
        }
    }
}

#[derive(Default)]
struct StoreDraft {
    location: Option<(PathBuf, String)>,
    kind: Option<StoreKind>,
}

impl StoreDraft {
    fn finish(self) -> Option<StoreFile> {
        let (path, named_by) = self.location?;
        let kind = self.kind.unwrap_or_else(|| StoreKind::of(&path));
        Some(StoreFile { path, named_by, kind })
    }
}

/// The keys with one prefix, as far as they were read.
pub(super) struct TlsDraft {
    prefix: &'static str,
    key_store: StoreDraft,
    key_password: Option<KeyPassword>,
    trust_store: StoreDraft,
    verify_hostname: bool,
}

impl TlsDraft {
    pub(super) fn new(prefix: &'static str) -> TlsDraft {
        TlsDraft {
            prefix,
            key_store: StoreDraft::default(),
            key_password: None,
            trust_store: StoreDraft::default(),
            verify_hostname: true,
        }
    }

    /// Takes a key that `place`, `zoo.cfg:7`, has; `false` for one that sets nothing.
    pub(super) fn set(&mut self, key: &str, value: &str, place: &str) -> Result<bool, String> {
        let Some(bare) = key.strip_prefix(self.prefix) else { return Ok(false) };
        let location = || -> Result<Option<(PathBuf, String)>, String> {
            if value.is_empty() {
                return Err("expected a file".into());
            }
            Ok(Some((PathBuf::from(value), format!("{place}: {key}"))))
        };
        match bare {
            "keyStore.location" => self.key_store.location = location()?,
            "keyStore.type" => self.key_store.kind = Some(StoreKind::parse(value)?),
            "keyStore.password" => {
                self.key_password = (!value.is_empty()).then(|| KeyPassword::Text(value.into()));
            }
            "keyStore.passwordPath" => self.key_password = Some(KeyPassword::File(value.into())),
            "trustStore.location" => self.trust_store.location = location()?,
            "trustStore.type" => self.trust_store.kind = Some(StoreKind::parse(value)?),
            // Certificates are no secret, and PEM files of them are not encrypted.
            "trustStore.password" | "trustStore.passwordPath" => {}
            "hostnameVerification" => self.verify_hostname = super::keys::boolean(value)?,
            "clientHostnameVerification" | "crl" | "ocsp" => {
                // Ignoring it would let in whom the administrator means to keep out.
                if super::keys::boolean(value)? {
                    return Err("expected false: znoded cannot check that".into());
                }
            }
            "clientAuth" => {
                if !value.eq_ignore_ascii_case("need") {
                    return Err("expected need: replicas always authenticate each other".into());
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What was said; the error is the key that is missing, with what to write.
    pub(super) fn finish(self, reload: bool) -> Result<TlsFiles, (String, String)> {
        let missing = |prefix: &str, store: &str, what: &str| {
            let key = format!("{prefix}{store}.location");
            let hint = format!("add {key}=FILE.pem, which holds {what}");
            (key, hint)
        };
        let prefix = self.prefix;
        let key_store = self.key_store.finish();
        let trust_store = self.trust_store.finish();
        Ok(TlsFiles {
            key_store: key_store.ok_or_else(|| {
                missing(prefix, "keyStore", "the private key and its certificate chain")
            })?,
            key_password: self.key_password,
            trust_store: trust_store.ok_or_else(|| {
                missing(prefix, "trustStore", "the certificates of the trusted authorities")
            })?,
            verify_hostname: self.verify_hostname,
            reload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(lines: &[(&str, &str)]) -> Result<TlsDraft, String> {
        let mut draft = TlsDraft::new("ssl.quorum.");
        for (key, value) in lines {
            assert!(draft.set(key, value, "zoo.cfg:7")?, "{key}");
        }
        Ok(draft)
    }

    #[test]
    fn stores_are_known_by_their_ending_or_their_type() {
        let files = draft(&[
            ("ssl.quorum.keyStore.location", "/k.p12"),
            ("ssl.quorum.keyStore.type", "pem"),
            ("ssl.quorum.keyStore.password", "secret"),
            ("ssl.quorum.trustStore.location", "/t.jks"),
        ]);
        let files = files.unwrap().finish(true).unwrap();
        assert_eq!(
            (files.key_store.kind, files.trust_store.kind),
            (StoreKind::Pem, StoreKind::Jks)
        );
        assert_eq!(files.trust_store.named_by, "zoo.cfg:7: ssl.quorum.trustStore.location");
        assert!(files.verify_hostname && files.reload);
        assert!(!format!("{files:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_be_checked_is_refused_rather_than_ignored() {
        for (key, value) in [
            ("ssl.quorum.crl", "true"),
            ("ssl.quorum.ocsp", "true"),
            ("ssl.quorum.clientHostnameVerification", "true"),
            ("ssl.quorum.clientAuth", "none"),
            ("ssl.quorum.keyStore.type", "BCFKS"),
            ("ssl.quorum.keyStore.location", ""),
        ] {
            assert!(draft(&[(key, value)]).is_err_and(|e| e.contains("expected")), "{key}");
        }
    }

    #[test]
    fn a_missing_store_is_named_with_what_belongs_there() {
        let (key, hint) = draft(&[]).unwrap().finish(false).unwrap_err();
        assert_eq!(key, "ssl.quorum.keyStore.location");
        assert!(hint.contains("private key"), "{hint}");
        let draft = draft(&[("ssl.quorum.keyStore.location", "/k.pem")]).unwrap();
        assert_eq!(draft.finish(false).unwrap_err().0, "ssl.quorum.trustStore.location");
    }
}
