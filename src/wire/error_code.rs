//! The service's error codes (`KeeperException.Code`). No I/O.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// An error as the service reports it in a reply's header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code this version does not know.
            Unknown(i32),
        }

        impl ErrorCode {
            /// Every code this version knows.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code of the wire.
            pub fn code(self) -> i32 {
                match self {
                    $(ErrorCode::$name => $code,)*
                    ErrorCode::Unknown(code) => code,
                }
            }

            /// The error with this code; `None` for 0, which is success.
            pub fn from_code(code: i32) -> Option<ErrorCode> {
                match code {
                    0 => None,
                    $($code => Some(ErrorCode::$name),)*
                    other => Some(ErrorCode::Unknown(other)),
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                    ErrorCode::Unknown(_) => "unknown error",
                }
            }
        }
    };
}

error_codes! {
    /// The server failed in a way it cannot name.
    SystemError = -1, "system error";
    /// Found an inconsistency at run time; inside a failed multi, an operation after the failed one.
    RuntimeInconsistency = -2, "runtime inconsistency";
    /// Found an inconsistency in the data.
    DataInconsistency = -3, "data inconsistency";
    /// The connection was lost; whether the operation took effect is unknown.
    ConnectionLoss = -4, "connection lost, outcome unknown";
    /// The request could not be decoded.
    MarshallingError = -5, "request could not be decoded";
    /// The operation is not built, or not allowed here.
    Unimplemented = -6, "operation not available";
    /// The operation took too long.
    OperationTimeout = -7, "operation timed out";
    /// An argument makes no sense.
    BadArguments = -8, "bad arguments";
    /// A session the server has never heard of.
    UnknownSession = -12, "unknown session";
    /// No quorum of the new configuration is in sync.
    NewConfigNoQuorum = -13, "no quorum of the new configuration is connected and up to date";
    /// Another reconfiguration is under way.
    ReconfigInProgress = -14, "another reconfiguration is in progress";
    /// Any error of the API class.
    ApiError = -100, "API error";
    /// The znode does not exist.
    NoNode = -101, "no such znode";
    /// The ACL does not allow it.
    NoAuth = -102, "not permitted by the ACL";
    /// The znode's version is not the expected one.
    BadVersion = -103, "version conflict";
    /// Ephemeral znodes have no children.
    NoChildrenForEphemerals = -108, "ephemeral znodes may not have children";
    /// The znode exists already.
    NodeExists = -110, "znode exists already";
    /// The znode has children.
    NotEmpty = -111, "znode has children";
    /// The session expired.
    SessionExpired = -112, "session expired";
    /// The client library was given an invalid callback.
    InvalidCallback = -113, "invalid callback";
    /// The ACL is empty or malformed.
    InvalidAcl = -114, "invalid ACL";
    /// Authentication failed.
    AuthFailed = -115, "authentication failed";
    /// The session is attached to another replica by now.
    SessionMoved = -118, "session moved to another replica";
    /// The replica is read-only.
    NotReadOnly = -119, "replica is read-only";
    /// A local session cannot own ephemerals.
    EphemeralOnLocalSession = -120, "ephemeral znode on a local session";
    /// No such watch.
    NoWatcher = -121, "no such watch";
    /// The request waited too long.
    RequestTimeout = -122, "request timed out";
    /// Reconfiguration is disabled.
    ReconfigDisabled = -123, "reconfiguration is disabled";
    /// The session is closed because SASL is required.
    SessionClosedRequireSaslAuth = -124, "session closed: SASL authentication is required";
    /// The quota would be exceeded.
    QuotaExceeded = -125, "quota exceeded";
    /// The server is overloaded.
    ThrottledOp = -127, "operation refused: the server is overloaded";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ErrorCode::Unknown(code) => write!(f, "error {code}"),
            known => f.write_str(known.text()),
        }
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for &error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), Some(error));
        }
        assert_eq!(ErrorCode::from_code(0), None);
        assert_eq!(ErrorCode::from_code(-999), Some(ErrorCode::Unknown(-999)));
    }
}
