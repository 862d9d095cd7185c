//! The task that owns a client's connection.

use std::sync::Arc;

use super::delivery::Sink;
use super::error::Error;
use super::{ClientOptions, ConnectString, Shared};

pub(super) async fn start(
    _servers: &ConnectString,
    _options: ClientOptions,
    shared: Arc<Shared>,
    _sink: Box<dyn Sink>,
) -> Result<(), Error> {
    shared.outbox.refuse(Error::Closed);
    shared.outbox.submitted().await;
    drop(shared.outbox.take());
    Err(Error::Closed)
}
