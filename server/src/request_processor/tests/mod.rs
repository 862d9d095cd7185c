//! What the request processor lets through, what it refuses and with which error, and what is
//! prepared on top of what is not applied yet.

mod checks;
mod model;
mod multi;
mod reconfig;
mod sessions;
mod special_nodes;

use znodefs::wire::Response;

/// The path that a creation was answered with.
fn created_path(response: Response) -> String {
    match response {
        Response::Path(path) | Response::Created { path, .. } => path,
        other => panic!("no reply to a creation: {other:?}"),
    }
}
