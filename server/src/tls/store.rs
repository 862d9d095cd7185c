//! Reads the PEM files of TLS: a private key with its certificate chain, and the certificates of
//! authorities. Says of what cannot be used which file, who named it, why, and the way out.

use std::path::Path;

use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::tls::{KeyPassword, StoreFile, StoreKind, TlsFiles};

/// Why TLS cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("{named_by}={}: {reason}", path.display())]
pub struct TlsError {
    /// The line and key of the configuration.
    pub named_by: String,
    /// The file.
    pub path: std::path::PathBuf,
    /// What is wrong, and the way out.
    pub reason: String,
}

impl TlsError {
    pub(super) fn new(file: &StoreFile, reason: impl Into<String>) -> TlsError {
        let (named_by, path) = (file.named_by.clone(), file.path.clone());
        TlsError { named_by, path, reason: reason.into() }
    }
}

/// What this side shows of itself.
pub(super) struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// The text of a store.
fn read(file: &StoreFile) -> Result<String, TlsError> {
    let shown = file.path.display();
    match file.kind {
        StoreKind::Pem => {}
        StoreKind::Pkcs12 => {
            return Err(TlsError::new(
                file,
                format!(
                    "a PKCS12 store cannot be read: convert it with `openssl pkcs12 -in {shown} \
                     -noenc -out FILE.pem` and name that file"
                ),
            ));
        }
        StoreKind::Jks => {
            return Err(TlsError::new(
                file,
                format!(
                    "a JKS store cannot be read: convert it with `keytool -importkeystore \
                     -srckeystore {shown} -destkeystore FILE.p12 -deststoretype PKCS12` and `openssl \
                     pkcs12 -in FILE.p12 -noenc -out FILE.pem`, and name that file"
                ),
            ));
        }
    }
    let bytes = std::fs::read(&file.path)
        .map_err(|error| TlsError::new(file, format!("cannot be read: {error}")))?;
    let no_text = "is no PEM file: expected blocks that begin with -----BEGIN; if it is a PKCS12 \
                   store, convert it with `openssl pkcs12 -in FILE.p12 -noenc -out FILE.pem`";
    match String::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN ") => Ok(text),
        _ => Err(TlsError::new(file, no_text)),
    }
}

fn certificates(file: &StoreFile, text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| TlsError::new(file, format!("a block is damaged: {error}")))?;
    if all.is_empty() {
        return Err(TlsError::new(file, "there is no certificate in it (BEGIN CERTIFICATE)"));
    }
    Ok(all)
}

/// The trusted authorities.
pub(super) fn authorities(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let file = &files.trust_store;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(file, &read(file)?)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            TlsError::new(file, format!("certificate {} of it is of no use: {error}", index + 1))
        })?;
    }
    Ok(roots)
}

/// The private key and its certificates.
pub(super) fn credentials(files: &TlsFiles) -> Result<Credentials, TlsError> {
    let file = &files.key_store;
    let text = read(file)?;
    let chain = certificates(file, &text)?;
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let reason = "the private key is encrypted in an old form: convert it with `openssl pkcs8 \
                      -topk8 -in KEY -out KEY.pem`";
        return Err(TlsError::new(file, reason));
    }
    let key = match encrypted_block(&text) {
        Some(block) => decrypt(file, block, files.key_password.as_ref())?,
        None => PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
            let reason = match error {
                rustls::pki_types::pem::Error::NoItemsFound => {
                    "there is no private key in it (BEGIN PRIVATE KEY); it must stand in the same \
                     file as its certificates"
                        .to_string()
                }
                other => format!("the private key is damaged: {other}"),
            };
            TlsError::new(file, reason)
        })?,
    };
    Ok(Credentials { chain, key })
}

fn encrypted_block(text: &str) -> Option<&str> {
    let begin = text.find(ENCRYPTED_BEGIN)?;
    let end = text[begin..].find(ENCRYPTED_END)?;
    Some(&text[begin..begin + end + ENCRYPTED_END.len()])
}

fn decrypt(
    file: &StoreFile,
    block: &str,
    password: Option<&KeyPassword>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let password = match password {
        None => {
            return Err(TlsError::new(
                file,
                "the private key is encrypted: add keyStore.password or keyStore.passwordPath",
            ));
        }
        Some(KeyPassword::Text(text)) => text.clone(),
        Some(KeyPassword::File(path)) => first_line(file, path)?,
    };
    let damaged = |reason: String| {
        TlsError::new(file, format!("the encrypted private key is damaged: {reason}"))
    };
    let block = block.replace("\r\n", "\n");
    let (_, document) =
        SecretDocument::from_pem(&block).map_err(|error| damaged(error.to_string()))?;
    let encrypted = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .map_err(|error| damaged(error.to_string()))?;
    let plain = encrypted.decrypt(password).map_err(|_| {
        TlsError::new(file, "keyStore.password does not open the private key: wrong password")
    })?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec())))
}

fn first_line(store: &StoreFile, path: &Path) -> Result<String, TlsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().next().unwrap_or_default().to_string()),
        Err(error) => Err(TlsError::new(
            store,
            format!("keyStore.passwordPath {}: cannot be read: {error}", path.display()),
        )),
    }
}
