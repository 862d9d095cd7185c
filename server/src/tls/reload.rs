//! Follows the files of TLS: when they change, and have stopped changing for a moment, they are read
//! again for the connections to come. What is in use stays when the new files are of no use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::QuorumTls;
use crate::config::tls::TlsFiles;

/// How long nothing must have changed before the files count as written.
const QUIET: Duration = Duration::from_millis(300);

/// What the files hold, to tell a change of theirs from one of their neighbours.
type Contents = Vec<Option<Vec<u8>>>;

/// Follows the files until the task is aborted or nobody uses them anymore.
pub(super) fn follow(files: &TlsFiles, tls: Weak<QuorumTls>) -> AbortHandle {
    let paths = vec![files.key_store.path.clone(), files.trust_store.path.clone()];
    let (sender, events) = unbounded_channel();
    let watcher = notify::recommended_watcher(move |_event| {
        // The receiver goes when nobody follows anymore.
        let _ = sender.send(());
    });
    let watcher = watcher.and_then(|mut watcher| {
        for directory in directories(&paths) {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    let last = contents(&paths);
    tokio::spawn(async move {
        match watcher {
            Ok(watcher) => {
                reload_on(events, &tls, &paths, last).await;
                drop(watcher);
            }
            Err(error) => warn!(
                "certificates are not read again when they change (sslQuorumReloadCertFiles): {error}"
            ),
        }
    })
    .abort_handle()
}

/// Files are replaced by a rename in their directory, or in that of what they link to.
fn directories(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let targets = paths.iter().filter_map(|path| path.canonicalize().ok());
    paths.iter().map(|path| parent(path)).chain(targets.map(|path| parent(&path))).collect()
}

fn contents(paths: &[PathBuf]) -> Contents {
    paths.iter().map(|path| std::fs::read(path).ok()).collect()
}

async fn reload_on(
    mut events: UnboundedReceiver<()>,
    tls: &Weak<QuorumTls>,
    paths: &[PathBuf],
    mut last: Contents,
) {
    while events.recv().await.is_some() {
        while let Ok(Some(())) = tokio::time::timeout(QUIET, events.recv()).await {}
        let now = contents(paths);
        if now == last {
            continue;
        }
        last = now;
        let Some(tls) = tls.upgrade() else { return };
        match tls.reload() {
            Ok(()) => info!("certificates were read again: new connections use them"),
            Err(error) => warn!("new certificates are of no use, the old ones stay: {error}"),
        }
    }
}
