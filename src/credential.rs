//! Who one says one is to the service: `SCHEME:SECRET`, as an argument or as lines of a file. A secret
//! never appears in a message.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;

use crate::acl::digest_id;

/// The longest file that is read, in bytes.
const FILE_LENGTH_MAX: u64 = 64 << 10;

/// What a credential looks like.
const FORM: &str = "expected SCHEME:CREDENTIAL, such as digest:user:password";

/// One authentication: a scheme that the servers know, and what it takes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `digest`, or the name of another authentication provider.
    pub scheme: String,
    /// For `digest` it is `user:password`.
    pub secret: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:***", self.scheme)
    }
}

/// Why a file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("credentials file {}: {reason}", path.display())]
pub struct CredentialsError {
    /// The file.
    pub path: PathBuf,
    /// Why, and what to do.
    pub reason: String,
}

impl CredentialsError {
    /// What is wrong with the file.
    pub fn new(path: &Path, reason: impl ToString) -> CredentialsError {
        CredentialsError { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl FromStr for Credential {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Credential, &'static str> {
        let (scheme, secret) = text.split_once(':').ok_or(FORM)?;
        if scheme.is_empty() || (scheme == "digest" && !secret.contains(':')) {
            return Err(FORM);
        }
        Ok(Credential { scheme: scheme.into(), secret: secret.into() })
    }
}

impl Credential {
    /// The scheme and id that stand for it in an access control list.
    pub fn identity(&self) -> (String, String) {
        let id = match self.scheme.as_str() {
            "digest" => digest_id(&self.secret),
            _ => self.secret.clone(),
        };
        (self.scheme.clone(), id)
    }

    /// As a client presents it.
    pub fn to_auth(&self) -> (String, Bytes) {
        (self.scheme.clone(), Bytes::copy_from_slice(self.secret.as_bytes()))
    }

    /// Reads a file with one credential on each line; blank lines and lines that begin with `#` are
    /// passed over.
    pub fn read_file(path: &Path) -> Result<Vec<Credential>, CredentialsError> {
        let file = File::open(path).map_err(|error| CredentialsError::new(path, error))?;
        Credential::read(path, file)
    }

    /// Reads the same from a file that is open already.
    pub fn read(path: &Path, file: File) -> Result<Vec<Credential>, CredentialsError> {
        let mut text = String::new();
        let read = file.take(FILE_LENGTH_MAX + 1).read_to_string(&mut text);
        let length = read.map_err(|error| CredentialsError::new(path, error))?;
        if length as u64 > FILE_LENGTH_MAX {
            let reason = format!("it is longer than {FILE_LENGTH_MAX} bytes");
            return Err(CredentialsError::new(path, reason));
        }
        Credential::parse_lines(&text).map_err(|reason| CredentialsError::new(path, reason))
    }

    fn parse_lines(text: &str) -> Result<Vec<Credential>, String> {
        let mut credentials = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if !line.is_empty() && !line.starts_with('#') {
                let credential = line.parse().map_err(|form| format!("line {number}: {form}"))?;
                credentials.push(credential);
            }
        }
        if credentials.is_empty() {
            return Err("it has no line of the form digest:user:password".into());
        }
        Ok(credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_lines_of_scheme_and_secret_and_keep_their_colons() {
        let text = "# for the tree\n\n digest:alice:p:w \nother:secret\n";
        let read = Credential::parse_lines(text).unwrap();
        let expected = [("digest", "alice:p:w"), ("other", "secret")];
        let parts = read.iter().map(|one| (one.scheme.as_str(), one.secret.as_str()));
        assert!(parts.eq(expected), "{read:?}");
        assert_eq!(format!("{read:?}"), "[digest:***, other:***]");
        assert_eq!(read[0].identity(), ("digest".into(), digest_id("alice:p:w")));
        assert_eq!(read[1].to_auth(), ("other".into(), Bytes::from_static(b"secret")));
        for text in ["digest:a:pw\nsecret\n", "digest:a:pw\ndigest:secret\n", "#\n:secret\n"] {
            let error = Credential::parse_lines(text).unwrap_err();
            assert!(error.starts_with("line 2: expected") && !error.contains("secret"), "{error}");
        }
        assert!(Credential::parse_lines("#\n").unwrap_err().contains("no line"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let read = |path: &str| Credential::read_file(Path::new(path)).unwrap_err().to_string();
        assert!(read("/nonexistent/c").contains("/nonexistent/c: No such file"));
        assert!(read("/dev").starts_with("credentials file /dev: "));
        assert!(read("/dev/zero").ends_with("it is longer than 65536 bytes"));
        assert!(read("/dev/null").contains("it has no line"));
    }
}
