//! What went wrong with TLS, in words for the log: what the other side is, and what to look at. No I/O.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why TLS with a peer failed, if it was TLS that failed.
pub fn reason(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(words)
}

fn words(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it showed no certificate".into(),
        Error::InvalidCertificate(error) => certificate_words(error),
        Error::AlertReceived(alert) => alert_words(*alert),
        Error::InvalidMessage(_) => {
            "it does not speak TLS: set sslQuorum to the same on both sides".into()
        }
        other => other.to_string(),
    }
}

/// Why a certificate is not accepted.
pub(super) fn certificate_words(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by an authority that this side trusts".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: look at the clocks".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is for {}, not for {}",
            presented_words(presented),
            expected.to_str()
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose (extended key usage)".into()
        }
        other => format!("its certificate is of no use: {other}"),
    }
}

/// rustls shows names as `DnsName("zoo1")`.
fn presented_words(presented: &[String]) -> String {
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_string();
    match presented {
        [] => "no host".into(),
        names => names.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it demands a certificate of this side".into(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it does not trust the authority that signed this side's certificate".into()
        }
        AlertDescription::CertificateExpired => {
            "it says that this side's certificate has expired, or is not valid yet".into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            "it does not accept this side's certificate".into()
        }
        other => format!("it ended TLS: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_every_day_is_said_in_plain_words() {
        let wrapped = |error: Error| reason(&io::Error::other(error)).unwrap();
        assert!(wrapped(Error::NoCertificatesPresented).contains("showed no certificate"));
        let alert = Error::AlertReceived(AlertDescription::UnknownCA);
        assert!(wrapped(alert).contains("does not trust the authority"));
        let foreign = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(wrapped(foreign).contains("not signed by an authority"));
        assert_eq!(reason(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
