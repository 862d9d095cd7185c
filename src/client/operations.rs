//! The operations of the service as functions: what goes in, what comes out. No logic beyond taking
//! the reply's record apart.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::error::Error;
use super::{Client, Pending};
use crate::acl::Acl;
use crate::stat::Stat;
use crate::wire::request::CreateRequest;
use crate::wire::response::ClientInfo;
use crate::wire::{
    AddWatchMode, CreateMode, ErrorCode, MultiOp, MultiResult, OpCode, Request, Response,
    WatcherType,
};
use crate::zxid::Zxid;

/// Takes a reply apart with `extract`, which gives the record back where it is another.
async fn answer<T>(
    pending: Pending,
    operation: OpCode,
    extract: fn(Response) -> Result<T, Response>,
) -> Result<T, Error> {
    let reply = pending.await?;
    extract(reply.response).map_err(|response| unexpected(operation, &response))
}

fn unexpected(operation: OpCode, response: &Response) -> Error {
    let mut reason = format!("{response:?}");
    reason.truncate(reason.floor_char_boundary(100));
    Error::UnexpectedReply { operation, path: String::new(), reason }
}

fn empty(response: Response) -> Result<(), Response> {
    match response {
        Response::Empty => Ok(()),
        other => Err(other),
    }
}

fn stat(response: Response) -> Result<Stat, Response> {
    match response {
        Response::Stat(stat) => Ok(stat),
        other => Err(other),
    }
}

fn created(response: Response) -> Result<(String, Stat), Response> {
    match response {
        Response::Created { path, stat } => Ok((path, stat)),
        other => Err(other),
    }
}

/// Versions: `None` stands for any.
fn version_code(version: Option<i32>) -> i32 {
    version.unwrap_or(-1)
}

impl Client {
    fn ask<T: 'static>(
        &self,
        request: &Request<'_>,
        extract: fn(Response) -> Result<T, Response>,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T> {
        answer(self.submit(request), request.op_code(), extract)
    }

    /// Creates a znode; the result is its path (a sequential one has its counter appended) and
    /// stat. Data `None` is null, which differs from empty data.
    pub fn create(
        &self,
        path: &str,
        data: Option<Bytes>,
        acl: Vec<Acl>,
        mode: CreateMode,
    ) -> impl Future<Output = Result<(String, Stat), Error>> + Send + 'static + use<> {
        self.ask(&Request::Create(CreateRequest::new(path, data, acl, mode, 0)), created)
    }

    /// Creates a znode that the service deletes once it is childless and was not set for `ttl`
    /// (whole milliseconds). Servers have to be told to allow it.
    pub fn create_ttl(
        &self,
        path: &str,
        data: Option<Bytes>,
        acl: Vec<Acl>,
        mode: CreateMode,
        ttl: Duration,
    ) -> impl Future<Output = Result<(String, Stat), Error>> + Send + 'static + use<> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        self.ask(&Request::Create(CreateRequest::new(path, data, acl, mode, ttl_ms)), created)
    }

    /// Deletes a znode; with a version, only if its data still has that one.
    pub fn delete(
        &self,
        path: &str,
        version: Option<i32>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        self.ask(&Request::Delete { path, version: version_code(version) }, empty)
    }

    /// The stat of a znode; `None` where there is none. A watch is set either way.
    pub fn exists(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<Option<Stat>, Error>> + Send + 'static + use<> {
        let stat = self.ask(&Request::Exists { path, watch }, stat);
        async move {
            match stat.await {
                Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
                result => result.map(Some),
            }
        }
    }

    /// Data and stat of a znode. The data shares the memory it was received in: who keeps many
    /// small values for long copies them.
    pub fn get_data(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<(Option<Bytes>, Stat), Error>> + Send + 'static + use<> {
        self.ask(&Request::GetData { path, watch }, |response| match response {
            Response::Data { data, stat } => Ok((data, stat)),
            other => Err(other),
        })
    }

    /// Replaces a znode's data; with a version, only if it still has that one.
    pub fn set_data(
        &self,
        path: &str,
        data: Option<Bytes>,
        version: Option<i32>,
    ) -> impl Future<Output = Result<Stat, Error>> + Send + 'static + use<> {
        self.ask(&Request::SetData { path, data, version: version_code(version) }, stat)
    }

    /// The names of a znode's children, in no order, and its stat.
    pub fn get_children(
        &self,
        path: &str,
        watch: bool,
    ) -> impl Future<Output = Result<(Vec<String>, Stat), Error>> + Send + 'static + use<> {
        self.ask(&Request::GetChildren2 { path, watch }, |response| match response {
            Response::Children { names, stat } => Ok((names, stat)),
            other => Err(other),
        })
    }

    /// A znode's access control list and stat.
    pub fn get_acl(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<(Vec<Acl>, Stat), Error>> + Send + 'static + use<> {
        self.ask(&Request::GetAcl { path }, |response| match response {
            Response::Acl { acl, stat } => Ok((acl, stat)),
            other => Err(other),
        })
    }

    /// Replaces a znode's access control list; with a version, only if it still has that one
    /// ([`Stat::aversion`]).
    pub fn set_acl(
        &self,
        path: &str,
        acl: Vec<Acl>,
        version: Option<i32>,
    ) -> impl Future<Output = Result<Stat, Error>> + Send + 'static + use<> {
        self.ask(&Request::SetAcl { path, acl, version: version_code(version) }, stat)
    }

    /// Waits until the server has caught up with every write that was acknowledged before.
    pub fn sync(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        self.ask(&Request::Sync { path }, |response| match response {
            Response::Path(_) => Ok(()),
            other => Err(other),
        })
    }

    /// Does several writes as one: all of them or none. The error names the operation that failed.
    pub fn multi<'a>(
        &self,
        operations: Vec<MultiOp<'a>>,
    ) -> impl Future<Output = Result<Vec<MultiResult>, Error>> + Send + use<'a> {
        let request = Request::Multi(operations);
        let results = self.ask(&request, multi_results);
        async move {
            let results = results.await?;
            let Request::Multi(operations) = &request else { return Ok(results) };
            check_multi(operations, results)
        }
    }

    /// Does several reads of data and children as one; each has its own result.
    pub fn multi_read(
        &self,
        operations: Vec<MultiOp<'_>>,
    ) -> impl Future<Output = Result<Vec<MultiResult>, Error>> + Send + 'static + use<> {
        self.ask(&Request::MultiRead(operations), multi_results)
    }

    /// Adds a watch that stays until it is removed. It survives reconnections, but what happened
    /// without a connection is not told afterwards.
    pub fn add_watch(
        &self,
        path: &str,
        mode: AddWatchMode,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        self.ask(&Request::AddWatch { path, mode: mode.code() }, |response| match response {
            Response::Number(_) | Response::Empty => Ok(()),
            other => Err(other),
        })
    }

    /// Removes the session's watches of a kind from a znode.
    pub fn remove_watches(
        &self,
        path: &str,
        watcher_type: WatcherType,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let request = Request::RemoveWatches { path, watcher_type: watcher_type.code() };
        self.ask(&request, empty)
    }

    /// Changes the members of the ensemble; the result is the new configuration's text and the stat
    /// of `/zookeeper/config`. `joining` are lines `server.N=…`, `leaving` numbers, both separated by
    /// commas; or `new_members` are all the lines there are to be. With a version, only if the
    /// configuration still has it.
    pub fn reconfig(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
        new_members: Option<&str>,
        from_version: Option<Zxid>,
    ) -> impl Future<Output = Result<(Option<Bytes>, Stat), Error>> + Send + 'static + use<> {
        let current_config_id = from_version.map_or(-1, |version| version.0);
        let request = Request::Reconfig { joining, leaving, new_members, current_config_id };
        self.ask(&request, |response| match response {
            Response::Data { data, stat } => Ok((data, stat)),
            other => Err(other),
        })
    }

    /// Proves an identity, on this connection and on all that follow. A refusal ends the session.
    pub fn add_auth(
        &self,
        scheme: &str,
        credential: Bytes,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        self.ask(&Request::Auth { scheme, credential }, empty)
    }

    /// The identities that the server knows of this connection.
    pub fn who_am_i(
        &self,
    ) -> impl Future<Output = Result<Vec<ClientInfo>, Error>> + Send + 'static + use<> {
        self.ask(&Request::WhoAmI, |response| match response {
            Response::WhoAmI(identities) => Ok(identities),
            other => Err(other),
        })
    }

    /// The paths of the session's ephemeral znodes that start with `prefix`.
    pub fn ephemerals(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send + 'static + use<> {
        self.ask(&Request::GetEphemerals { prefix_path: prefix }, |response| match response {
            Response::Names(paths) => Ok(paths),
            other => Err(other),
        })
    }

    /// The number of a znode's descendants.
    pub fn all_children_number(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<i32, Error>> + Send + 'static + use<> {
        self.ask(&Request::GetAllChildrenNumber { path }, |response| match response {
            Response::Number(number) => Ok(number),
            other => Err(other),
        })
    }

    /// Ends the session: its ephemeral znodes go at once. What was submitted before is done first,
    /// what is submitted later fails with [`Error::Closed`].
    ///
    /// An error says that no server could be told; the service then ends the session when it times
    /// out.
    pub fn close(&self) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let pending = self.shared.outbox.close();
        async move {
            match pending.await {
                Ok(_) | Err(Error::Closed) => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}

fn multi_results(response: Response) -> Result<Vec<MultiResult>, Response> {
    match response {
        Response::Multi(results) => Ok(results),
        other => Err(other),
    }
}

/// Makes an error of a multi's results if they hold one: operations before the failed one report 0,
/// those behind it -2.
fn check_multi(
    operations: &[MultiOp<'_>],
    results: Vec<MultiResult>,
) -> Result<Vec<MultiResult>, Error> {
    let failed = results.iter().enumerate().find_map(|(index, result)| match result {
        MultiResult::Error(code) => ErrorCode::from_code(*code).map(|code| (index, code)),
        MultiResult::Ok(..) => None,
    });
    let Some((index, code)) = failed else { return Ok(results) };
    let operation = operations.get(index);
    Err(Error::MultiFailed {
        index,
        code,
        operation: operation.map_or(OpCode::Multi, Request::op_code),
        path: operation.and_then(Request::path).unwrap_or_default().to_string(),
    })
}
