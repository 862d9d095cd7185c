//! The admin server: HTTP for probes and administrators (ZooKeeper's AdminServer), off unless
//! `admin.enableServer=true`. `/live` and `/ready` for whoever restarts or routes, `/commands/NAME`
//! for the rest. HTTP itself is hyper's; what is told is in `commands`, backups are in `snapshot`.

mod commands;
mod snapshot;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::service::Service;

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, io::Error>;

struct Admin {
    service: Arc<Service>,
    /// One backup at a time: each needs as much memory as the tree.
    backups: Arc<Semaphore>,
}

/// Listens where the configuration says; the error names the address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, (SocketAddr, io::Error)> {
    TcpListener::bind(address).await.map_err(|error| (address, error))
}

/// Answers until the task is aborted.
pub(crate) fn start(listener: TcpListener, service: Arc<Service>) -> JoinHandle<()> {
    if let Ok(address) = listener.local_addr() {
        info!("admin server on http://{address}/commands");
    }
    let admin = Arc::new(Admin { service, backups: Arc::new(Semaphore::new(1)) });
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Never closed.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let admin = Arc::clone(&admin);
                    tokio::spawn(async move {
                        serve(admin, stream, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!("connection of an administrator not taken: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

async fn serve(admin: Arc<Admin>, stream: TcpStream, peer: SocketAddr) {
    let answer = service_fn(move |request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        debug!("administrator {peer}: {error}");
    }
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let path = request.uri().path().trim_end_matches('/').to_string();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return failure(StatusCode::METHOD_NOT_ALLOWED, &path, "only GET is answered");
        }
        match path.as_str() {
            "/live" => text(StatusCode::OK, "live\n"),
            "/ready" => match self.service.status.lock().serving {
                true => text(StatusCode::OK, "ready\n"),
                false => text(StatusCode::SERVICE_UNAVAILABLE, "not serving\n"),
            },
            "" | "/commands" => json_response(StatusCode::OK, &commands::list()),
            path => match path.strip_prefix("/commands/") {
                Some("snapshot" | "snap") => {
                    snapshot::answer(&self.service, &self.backups, &request, peer).await
                }
                Some(name) => self.command(name),
                None => failure(StatusCode::NOT_FOUND, path, "see /commands"),
            },
        }
    }

    fn command(&self, name: &str) -> Response<Body> {
        match commands::answer(name, &self.service) {
            Some(Ok(value)) => json_response(StatusCode::OK, &value),
            Some(Err(error)) => failure(StatusCode::SERVICE_UNAVAILABLE, name, &error),
            None => failure(StatusCode::NOT_FOUND, name, "no such command: see /commands"),
        }
    }
}

fn whole(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", text.into())
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    whole(status, "application/json", format!("{value:#}\n"))
}

fn failure(status: StatusCode, command: &str, error: &str) -> Response<Body> {
    json_response(status, &json!({ "command": command, "error": error }))
}
