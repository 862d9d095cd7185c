//! How a command fails: the message (which znode, why, what to do) and the exit code.

use std::io::Write;
use std::process::ExitCode;

use znodefs::ErrorCode;
use znodefs::client::Error;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// It failed; the message has been told already where it is empty. Exit code 1.
    Failed(String),
    /// It failed in a way that has an exit code of its own.
    WithCode(String, u8),
    /// It was used wrongly. Exit code 2.
    Usage(String),
    /// Nobody reads our output any more: not worth a word, and no failure of ours.
    OutputClosed,
}

impl Failure {
    /// A failure with this message.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::Failed(message.into())
    }

    /// A failure with this message and exit code.
    pub fn with_code(message: impl Into<String>, code: u8) -> Failure {
        Failure::WithCode(message.into(), code)
    }

    /// Wrong usage, found out after the arguments were read.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage(message.into())
    }

    /// No session could be opened.
    pub fn connecting(error: Error) -> Failure {
        let hint = match &error {
            Error::NoServer { .. } => {
                " (is a server running there? --servers or ZNODE_SERVERS name others)"
            }
            _ => "",
        };
        Failure::Failed(format!("{error}{hint}"))
    }

    /// An operation on a znode failed; `hint` may know what to do.
    pub fn operation(
        path: &str,
        error: Error,
        hint: impl FnOnce(ErrorCode) -> Option<String>,
    ) -> Failure {
        let code = match &error {
            Error::RequestTooLarge { length, limit, .. } => {
                return Failure::Failed(format!(
                    "{path}: too large: the request would have {length} bytes, and the servers \
                     take {limit} (their jute.maxbuffer)"
                ));
            }
            error => error.code(),
        };
        let Some(code) = code else { return Failure::Failed(error.to_string()) };
        match hint(code).or_else(|| general_hint(code)) {
            Some(hint) => Failure::Failed(format!("{path}: {code} ({hint})")),
            None => Failure::Failed(format!("{path}: {code}")),
        }
    }

    /// What the user is told; empty where there is nothing to be told.
    pub fn message(&self) -> &str {
        match self {
            Failure::Failed(message) | Failure::WithCode(message, _) | Failure::Usage(message) => {
                message
            }
            Failure::OutputClosed => "",
        }
    }

    /// Tells the user; returns the process's exit code.
    pub fn report(self) -> ExitCode {
        if !self.message().is_empty() {
            say(self.message());
        }
        ExitCode::from(match self {
            Failure::Failed(_) => 1,
            Failure::WithCode(_, code) => code,
            Failure::Usage(_) => 2,
            Failure::OutputClosed => 0,
        })
    }
}

/// Tells the user something on standard error.
pub fn say(message: &str) {
    // Nobody reads it: what we do goes on all the same.
    let _ = writeln!(std::io::stderr(), "znode: {message}");
}

/// What to do about errors that mean the same in every command.
fn general_hint(code: ErrorCode) -> Option<String> {
    let hint = match code {
        ErrorCode::NoAuth => "present a credential with --auth SCHEME:CREDENTIAL",
        ErrorCode::InvalidAcl => {
            "an entry is SCHEME:ID:PERMISSIONS, and 'auth' needs a credential from --auth"
        }
        ErrorCode::NotReadOnly => "it is cut off from its quorum: try again later",
        ErrorCode::QuotaExceeded => "see the limits below /zookeeper/quota",
        _ => return None,
    };
    Some(hint.into())
}

impl From<std::io::Error> for Failure {
    /// For errors of standard output.
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}
