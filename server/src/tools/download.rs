//! A backup from the admin server of a running replica, over the network.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::error::ToolError;
use super::progress::Progress;

/// How long an answer, or the next part of one, is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an error's body that are shown.
const ERROR_LENGTH_MAX: usize = 4 << 10;

/// Whether a backup's source is an admin server.
pub fn is_url(source: &Path) -> bool {
    source.to_string_lossy().starts_with("http://")
}

/// Writes what the admin server at `source`, `http://HOST:PORT`, sends into a new file.
pub fn download(source: &str, credential: &[u8], file: &Path) -> Result<(), ToolError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ToolError::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(fetch(source, credential, file))
}

async fn fetch(source: &str, credential: &[u8], file: &Path) -> Result<(), ToolError> {
    let failed = |reason: String| ToolError::Failed(format!("{source}: {reason}"));
    let mut response = ask(source, credential).await.map_err(&failed)?;
    if response.status() != StatusCode::OK {
        let reason = refusal(response).await;
        return Err(failed(reason));
    }
    let length = response.body().size_hint().exact();
    let progress = Progress::bytes("receiving", length);
    let mut part = PartialFile::create(file)?;
    while let Some(frame) = in_time(response.body_mut().frame()).await.map_err(&failed)? {
        let frame = frame.map_err(|error| failed(format!("the transfer broke off: {error}")))?;
        if let Ok(bytes) = frame.into_data() {
            part.write(&bytes)?;
            progress.advance(bytes.len() as u64);
        }
    }
    part.finish()
}

async fn in_time<T>(next: impl Future<Output = T>) -> Result<T, String> {
    let seconds = PATIENCE.as_secs();
    tokio::time::timeout(PATIENCE, next)
        .await
        .map_err(|_| format!("nothing came for {seconds} seconds"))
}

async fn ask(source: &str, credential: &[u8]) -> Result<Response<Incoming>, String> {
    let expected = "expected http://HOST:PORT of an admin server (admin.serverPort)";
    let uri: Uri = source.parse().map_err(|_| expected.to_string())?;
    let host = uri.host().ok_or(expected)?;
    let port = uri.port_u16().unwrap_or(8080);
    let stream = in_time(TcpStream::connect((host.trim_matches(['[', ']']), port)))
        .await?
        .map_err(|error| format!("{error}; is admin.enableServer=true there?"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Ends with the response, or with the runtime.
    tokio::spawn(connection);
    let mut authorization = b"digest ".to_vec();
    authorization.extend_from_slice(credential);
    let mut authorization = HeaderValue::from_bytes(&authorization)
        .map_err(|_| "the credentials hold what a header cannot".to_string())?;
    authorization.set_sensitive(true);
    let request = Request::get("/commands/snapshot")
        .header(HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(AUTHORIZATION, authorization)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    in_time(sender.send_request(request)).await?.map_err(|error| error.to_string())
}

/// What an admin server said instead of a backup.
async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let limited = http_body_util::Limited::new(response.into_body(), ERROR_LENGTH_MAX);
    let told = match in_time(limited.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
    match told["error"].as_str() {
        Some(error) => format!("refused: {error}"),
        None => format!("it answered {status}"),
    }
}

/// A file under another name until it is whole; dropped before, nothing of it is left.
struct PartialFile {
    out: File,
    part: PathBuf,
    file: PathBuf,
}

impl PartialFile {
    fn create(file: &Path) -> Result<PartialFile, ToolError> {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let part = file.with_file_name(name);
        // It holds every value whatever the ACLs say.
        let out = File::options().write(true).create_new(true).mode(0o600).open(&part);
        let out = out.map_err(|error| cannot_write(&part, &error))?;
        let partial = PartialFile { out, part, file: file.to_owned() };
        let permissions = partial.out.set_permissions(Permissions::from_mode(0o600));
        permissions.map_err(|error| cannot_write(&partial.part, &error))?;
        Ok(partial)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ToolError> {
        self.out.write_all(bytes).map_err(|error| cannot_write(&self.part, &error))
    }

    fn finish(self) -> Result<(), ToolError> {
        let parent = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = self.out.sync_all();
        // Unlike a rename, this replaces nothing.
        let linked = synced.and_then(|()| std::fs::hard_link(&self.part, &self.file));
        let named = linked.and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all());
        named.map_err(|error| cannot_write(&self.file, &error))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> ToolError {
    ToolError::Failed(format!("{} cannot be written: {error}", path.display()))
}
