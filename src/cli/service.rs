//! The connection of a command that stays: with events handed on, and opened again after a session was
//! lost.

use znodefs::client::{Client, ClientOptions, ConnectString, Error, Sink};

use super::Global;
use super::failure::Failure;
use super::no_quorum;

/// How a command reaches the servers.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// The options given.
    pub global: &'a Global,
    /// The servers chosen.
    pub servers: &'a ConnectString,
}

impl Service<'_> {
    /// Opens a session, or says within the connect timeout why not. With `renew_session`, the client
    /// opens another one by itself after an expiry.
    pub async fn open(&self, sink: impl Sink, renew_session: bool) -> Result<Client, Failure> {
        let options = ClientOptions { renew_session, ..self.global.options()? };
        match Client::connect_with_sink(self.servers, options, sink).await {
            Ok(client) => Ok(client),
            Err(Error::NoServer { waited, attempts }) => {
                Err(no_quorum::explain(waited, attempts).await)
            }
            Err(error) => Err(Failure::connecting(error)),
        }
    }

    /// Opens a session however long it takes, for who had one and lost it.
    pub async fn open_again(&self, sink: impl Sink) -> Result<Client, Failure> {
        let options = ClientOptions { connect_timeout: None, ..self.global.options()? };
        Client::connect_with_sink(self.servers, options, sink).await.map_err(Failure::connecting)
    }

    /// The variables with which a command run by us finds the same servers.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("ZNODE_SERVERS", self.servers.to_string())]
    }
}

/// Closes a session that is not needed any more. If no server can be told, it ends by itself.
pub async fn close(client: &Client) {
    if let Err(error) = client.close().await {
        tracing::info!("{error}");
    }
}

/// Whether trying again, in a new session if need be, can help.
pub fn is_outage(error: &Error) -> bool {
    matches!(error, Error::SessionExpired | Error::TimedOut { .. } | Error::ConnectionLoss { .. })
}
