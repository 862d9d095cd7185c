//! What a client can be told when it is made. No I/O.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::FRAME_LENGTH_MAX_DEFAULT;

/// How a client behaves; the default is what most want.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The session timeout to ask for; the service may answer with another. Default 10 s.
    pub session_timeout: Duration,
    /// Credentials presented on every connection: scheme and credential, such as `digest` and
    /// `user:password`.
    pub auth: Vec<(String, Bytes)>,
    /// Whether a server that is cut off from its quorum, and so serves only reads, will do.
    pub read_only: bool,
    /// Greatest length of a request in bytes; the servers close the connection on a longer one
    /// (their `jute.maxbuffer`). Default 1,048,575.
    pub frame_length_max: usize,
    /// Greatest length of a reply in bytes. Servers do not limit theirs, and a long list of
    /// children may exceed [`frame_length_max`](Self::frame_length_max). Default 64 MiB.
    pub reply_length_max: usize,
    /// How long the first session is waited for; `None` for as long as it takes. Default 10 s.
    pub connect_timeout: Option<Duration>,
    /// Whether reads in flight when a connection is lost are sent again on the next; otherwise they
    /// fail as writes do. Default true.
    pub retry_reads: bool,
    /// Whether a new session starts by itself after an expiry, with the persistent watches added
    /// again. Default false: the client is of no use after an expiry.
    pub renew_session: bool,
    /// Seed of what is left to chance (order of the servers, jitter); `None` takes a fresh one.
    pub random_seed: Option<u64>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            session_timeout: Duration::from_secs(10),
            auth: Vec::new(),
            read_only: false,
            frame_length_max: FRAME_LENGTH_MAX_DEFAULT,
            reply_length_max: 64 << 20,
            connect_timeout: Some(Duration::from_secs(10)),
            retry_reads: true,
            renew_session: false,
            random_seed: None,
        }
    }
}
