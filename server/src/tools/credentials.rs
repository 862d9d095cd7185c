//! Who a tool says it is to a running replica.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;

use super::error::ToolError;

/// What a tool is told of it.
#[derive(Debug, Default, Args)]
pub struct CredentialArguments {
    /// A credential for a running ensemble, such as digest:user:password (other users of this machine
    /// can see it: --credentials keeps it secret)
    #[arg(long = "auth", value_name = "SCHEME:CREDENTIAL", value_parser = parse)]
    auth: Vec<(String, Bytes)>,

    /// A file with one SCHEME:CREDENTIAL on each line; # starts a comment
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

fn parse(text: &str) -> Result<(String, Bytes), String> {
    match text.split_once(':') {
        Some((scheme, credential)) if !scheme.is_empty() => {
            Ok((scheme.into(), Bytes::copy_from_slice(credential.as_bytes())))
        }
        _ => Err("expected SCHEME:CREDENTIAL, such as digest:user:password".into()),
    }
}

impl CredentialArguments {
    /// Schemes and credentials, those of the file last.
    pub fn all(&self) -> Result<Vec<(String, Bytes)>, ToolError> {
        let mut all = self.auth.clone();
        let Some(path) = &self.credentials else { return Ok(all) };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ToolError::Usage(format!("{shown} cannot be read: {error}")))?;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself is a secret: it is not repeated.
            let credential = parse(line)
                .map_err(|reason| ToolError::Usage(format!("{shown}, line {number}: {reason}")))?;
            all.push(credential);
        }
        Ok(all)
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
