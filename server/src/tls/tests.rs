//! What files make TLS, and what is said of those that do not. Certificates are made here.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use super::*;
use crate::config::tls::{KeyPassword, StoreFile, StoreKind};

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A key and a certificate for `host`, as the text of a key store.
    pub(crate) fn key_store(
        &self,
        host: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> String {
        let mut params = CertificateParams::new(vec![host.to_string()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }
}

/// Key and trust in files of a directory.
pub(crate) fn files(directory: &Path, key_store: &str, trusted: &[&Authority]) -> TlsFiles {
    let store = |name: &str, text: &str| {
        let path: PathBuf = directory.join(name);
        std::fs::write(&path, text).unwrap();
        StoreFile { path, named_by: format!("zoo.cfg:7: {name}"), kind: StoreKind::Pem }
    };
    let trust: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
    TlsFiles {
        key_store: store("keyStore", key_store),
        key_password: None,
        trust_store: store("trustStore", &trust),
        verify_hostname: true,
        reload: false,
    }
}

/// Both ends of a replica on this machine that trusts `trusted` and has a certificate of `signer`.
pub(crate) fn quorum_tls(
    directory: &Path,
    signer: &Authority,
    trusted: &[&Authority],
    reload: bool,
) -> Arc<QuorumTls> {
    let key_store = signer.key_store("127.0.0.1", |_| {});
    let files = TlsFiles { reload, ..files(directory, &key_store, trusted) };
    QuorumTls::load(&QuorumTlsConfig { files, dials: true, takes_plain: false }).unwrap()
}

#[track_caller]
fn refused(files: &TlsFiles, words: &[&str]) {
    let message = Ends::load(files).err().expect("of no use").to_string();
    for word in words.iter().chain(&["zoo.cfg:7: "]) {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let good = authority.key_store("localhost", |_| {});
    let with = |key_store: &str| files(directory.path(), key_store, &[&authority]);
    assert!(Ends::load(&with(&good)).is_ok());

    let expired = authority.key_store("localhost", |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    refused(&with(&expired), &["keyStore=", "has expired"]);
    let future = authority.key_store("localhost", |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
    });
    refused(&with(&future), &["not valid yet"]);
    let for_servers = authority.key_store("localhost", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    refused(&with(&for_servers), &["serverAuth and clientAuth"]);
    let other_key = authority.key_store("localhost", |_| {});
    let certificate = &good[good.find("-----BEGIN CERTIFICATE").unwrap()..];
    let key = &other_key[..other_key.find("-----BEGIN CERTIFICATE").unwrap()];
    refused(&with(&format!("{key}{certificate}")), &["does not belong to the first certificate"]);
    refused(&with(certificate), &["no private key in it"]);
    refused(&with(key), &["no certificate in it"]);
    refused(&with("\u{0}\u{1}binary"), &["is no PEM file", "openssl pkcs12"]);
    refused(&with(&good.replace("END CERTIFICATE", "END")), &["damaged"]);
    let mut missing = with(&good);
    missing.trust_store.path = directory.path().join("nowhere.pem");
    refused(&missing, &["nowhere.pem", "cannot be read"]);
    for (kind, words) in [(StoreKind::Jks, "keytool"), (StoreKind::Pkcs12, "openssl pkcs12 -in")] {
        let mut other = with(&good);
        other.key_store.kind = kind;
        refused(&other, &[words, "name that file"]);
    }
}

/// `openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -v2 aes256 -passout pass:secret`
const ENCRYPTED_KEY: &str = include_str!("encrypted_key.pem");

#[test]
fn an_encrypted_key_is_opened_by_its_password_alone() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let good = authority.key_store("localhost", |_| {});
    let certificate = &good[good.find("-----BEGIN CERTIFICATE").unwrap()..];
    let mut store =
        files(directory.path(), &format!("{ENCRYPTED_KEY}{certificate}"), &[&authority]);
    refused(&store, &["is encrypted", "keyStore.password"]);
    store.key_password = Some(KeyPassword::Text("wrong".into()));
    refused(&store, &["wrong password"]);
    let password = directory.path().join("password");
    store.key_password = Some(KeyPassword::File(password.clone()));
    refused(&store, &["keyStore.passwordPath", "cannot be read"]);
    std::fs::write(&password, "secret\n").unwrap();
    // It opens; it only belongs to another certificate.
    refused(&store, &["does not belong to the first certificate"]);
}

#[test]
fn a_certificate_of_an_authority_that_is_not_trusted_yet_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let store = files(directory.path(), &new.key_store("localhost", |_| {}), &[&old]);
    assert!(Ends::load(&store).is_ok());
}
