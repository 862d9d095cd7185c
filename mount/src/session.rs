//! The mount's session: opened with the options of the command line, and shown to the file system
//! as its [`Service`](znodefs_mount::service::Service).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use znodefs::Credential;
use znodefs::client::{Client, ClientOptions, ConnectString, Delivery, Error};
use znodefs::wire::AddWatchMode;
use znodefs_mount::events::EventStream;
use znodefs_mount::service::{ClientService, Outside};

use crate::plan::Plan;

/// How long to wait before a request that no server has heard is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the session, whose replies and events go to `events`, and checks that the chroot exists.
///
/// # Errors
/// No server answered within the connect timeout (each address is named with its reason), a
/// credential was refused, or there is no such chroot.
pub async fn open(
    servers: &ConnectString,
    plan: &Plan,
    events: Arc<EventStream>,
) -> Result<ClientService> {
    let options = &plan.invocation.options;
    let client_options = ClientOptions {
        session_timeout: options.session_timeout,
        connect_timeout: Some(options.connect_timeout),
        auth: plan.credentials.iter().map(Credential::to_auth).collect(),
        renew_session: true,
        // Without a quorum there is still something to read.
        read_only: options.read_only,
        ..ClientOptions::default()
    };
    let outside = Outside::new(servers.chroot.as_deref().unwrap_or_default());
    let (outside_sink, events_sink) = (outside.clone(), events.clone());
    let sink = move |delivery: Delivery<'_>| {
        outside_sink.take(delivery);
        events_sink.deliver(delivery);
    };
    let client = Client::connect_with_sink(servers, client_options, sink).await?;
    let root = client.exists("/", false).await.context("cannot look at the root znode")?;
    if let (None, Some(chroot)) = (root, &servers.chroot) {
        let hosts = ConnectString { chroot: None, ..servers.clone() };
        // The answer does not depend on it.
        let _ = client.close().await;
        bail!(
            "znode {chroot} does not exist on {hosts}: create it with znode -s {hosts} create -p {chroot}"
        );
    }
    Ok(ClientService::new(client, outside, events))
}

/// Asks to be told of every change of the tree; whether the servers do that. The client asks again
/// after every reconnection and in every new session.
pub async fn watch_everything(client: &Client) -> bool {
    loop {
        let error = match client.add_watch("/", AddWatchMode::PersistentRecursive).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        if !matches!(error, Error::Service { .. } | Error::Closed) {
            // Of the servers that says nothing.
            tracing::info!("asking once more to be told of changes: {error}");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        tracing::warn!(
            "these servers do not tell of all changes (ZooKeeper does since 3.6): nothing is cached, \
             and changes made elsewhere cause no inotify events: {error}"
        );
        return false;
    }
}
