//! `/commands/snapshot`: the state of this replica as a backup, for whoever may read everything. It is
//! made as `znoded backup` makes one, from the files, beside the running service; no write waits for
//! it.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tracing::{info, warn};
use znodefs::{Acl, Permissions};

use super::{Body, failure};
use crate::authentication::authenticate;
use crate::service::Service;
use crate::tools::backup::{self, Backup};
use crate::tools::location::Location;
use crate::tree::access::SUPER_SCHEME;
use crate::txn::Identity;

const COMMAND: &str = "snapshot";
/// Bytes handed over at once.
const CHUNK_LENGTH: usize = 256 << 10;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// The header that says which transaction a backup is of.
pub(crate) const LAST_ZXID: &str = "last-zxid";

pub(super) async fn answer(
    service: &Arc<Service>,
    backups: &Arc<Semaphore>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Response<Body> {
    let header = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let credential = match header.map(|header| header.strip_prefix(b"digest ")) {
        Some(Some(credential)) => credential,
        _ => {
            let reason = "say who you are: Authorization: digest USER:PASSWORD";
            let mut refused = failure(StatusCode::UNAUTHORIZED, COMMAND, reason);
            refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("digest"));
            return refused;
        }
    };
    if !may_read_everything(service, credential, peer) {
        warn!("a backup was refused to {}: wrong credentials", peer.ip());
        let reason = "these credentials may not read everything: use the superuser's, or those of a \
                      digest that has all permissions on /";
        return failure(StatusCode::FORBIDDEN, COMMAND, reason);
    }
    let Ok(permit) = Arc::clone(backups).try_acquire_owned() else {
        let reason = "another backup is being made: try again when it is done";
        return failure(StatusCode::TOO_MANY_REQUESTS, COMMAND, reason);
    };
    let making = Arc::clone(service);
    let made = tokio::task::spawn_blocking(move || make(&making)).await;
    let (file, backup) = match made {
        Ok(Ok(made)) => made,
        Ok(Err(reason)) => {
            warn!("no backup for {}: {reason}", peer.ip());
            return failure(StatusCode::INTERNAL_SERVER_ERROR, COMMAND, &reason);
        }
        Err(error) => {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, COMMAND, &error.to_string());
        }
    };
    info!("a backup as of {} goes to {}", backup.zxid, peer.ip());
    let length = backup.length;
    let (sender, chunks) = channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        for chunk in Chunks(file) {
            // The administrator has gone.
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Download { chunks, left: length }.boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(zxid) = HeaderValue::from_str(&backup.zxid.to_string()) {
        headers.insert(LAST_ZXID, zxid);
    }
    response
}

/// A backup holds every value whatever its ACL says. So it is for the superuser, and for a digest
/// that has every permission on the root by an entry of its own: not for everybody, even where
/// everybody may do everything with the root itself.
fn may_read_everything(service: &Service, credential: &[u8], peer: SocketAddr) -> bool {
    let super_digest = service.config.super_digest.as_deref();
    let Ok(identities) = authenticate("digest", credential, peer.ip(), super_digest) else {
        return false;
    };
    let tree = service.database.tree.read();
    let root = tree.node("/").map(|root| Arc::clone(root.acl()));
    drop(tree);
    let grants = |entry: &Acl, identity: &Identity| {
        entry.permissions == Permissions::ALL
            && entry.scheme == identity.scheme
            && entry.id == identity.id
    };
    identities.iter().any(|identity| {
        identity.scheme == SUPER_SCHEME
            || root.iter().flat_map(|acl| acl.iter()).any(|entry| grants(entry, identity))
    })
}

/// Makes a backup in a file that has no name anymore.
fn make(service: &Service) -> Result<(File, Backup), String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let config = &service.config;
    let location = Location::find(&config.data_dir, config.data_log_dir.as_deref())
        .map_err(|error| error.to_string())?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("backup-{}-{number}.tmp", std::process::id());
    let path = config.data_dir.join(name);
    let made = backup::back_up(&location, &path).map_err(|error| error.to_string());
    let opened = made.and_then(|backup| {
        let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
        Ok((file, backup))
    });
    let _ = std::fs::remove_file(&path);
    opened
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

struct Chunks(File);

impl Iterator for Chunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut chunk = vec![0; CHUNK_LENGTH];
        match self.0.read(&mut chunk) {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                Some(Ok(chunk.into()))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// A body of known length that comes in chunks.
struct Download {
    chunks: Receiver<io::Result<Bytes>>,
    left: u64,
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.chunks.poll_recv(context).map(|chunk| {
            let chunk = chunk?;
            if let Ok(bytes) = &chunk {
                self.left = self.left.saturating_sub(bytes.len() as u64);
            }
            Some(chunk.map(Frame::data))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
