//! Who a tool says it is to a running replica.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use znodefs::Credential;

use super::error::ToolError;

/// What a tool is told of it.
#[derive(Debug, Default, Args)]
pub struct CredentialArguments {
    /// A credential for a running ensemble, such as digest:user:password (other users of this machine
    /// can see it: --credentials keeps it secret)
    #[arg(long = "auth", value_name = "SCHEME:CREDENTIAL")]
    auth: Vec<Credential>,

    /// A file with one SCHEME:CREDENTIAL on each line; # starts a comment
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

impl CredentialArguments {
    /// As a client presents them, those of the file last.
    pub fn all(&self) -> Result<Vec<(String, Bytes)>, ToolError> {
        let mut all = self.auth.clone();
        if let Some(path) = &self.credentials {
            let read = Credential::read_file(path);
            all.extend(read.map_err(|error| ToolError::Usage(error.to_string()))?);
        }
        Ok(all.iter().map(Credential::to_auth).collect())
    }

    /// The first of scheme `digest`, `user:password`.
    pub fn digest(&self) -> Result<Bytes, ToolError> {
        let digest = self.all()?.into_iter().find(|(scheme, _)| scheme == "digest");
        digest.map(|(_, credential)| credential).ok_or_else(|| {
            let reason = "say who you are: add --credentials FILE with a line digest:USER:PASSWORD";
            ToolError::Usage(reason.into())
        })
    }
}
