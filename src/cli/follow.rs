//! Follows a znode or a subtree: gives every change once, from events while there is a connection and
//! by comparison when there was none.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use znodefs::client::{Client, Delivery, SessionState};
use znodefs::recipe::{Change, WatchedTree};
use znodefs::wire::{AddWatchMode, EventType, Request, Response, WatchedEvent};
use znodefs::{ErrorCode, OpCode, Stat, Zxid, path};

use super::failure::{Failure, say};
use super::service::Service;

/// How many requests of a look are on their way at most.
const WINDOW: usize = 500;

/// What the client hands over, in the order of the wire.
enum Step {
    Event(WatchedEvent),
    State(SessionState),
    /// The answer to a request of a look; `None` where there is no such znode.
    Found {
        request_id: u64,
        zxid: Zxid,
        found: Result<Option<(Stat, Vec<String>)>, ErrorCode>,
    },
}

/// What [`Follower::next`] gives.
pub enum Followed {
    Change(Change),
    /// Everything that was there when the watching began has been told.
    Begun(Zxid),
}

/// Follows one znode or subtree.
pub struct Follower {
    pub client: Client,
    path: String,
    is_recursive: bool,
    steps: mpsc::UnboundedReceiver<Step>,
    tree: WatchedTree,
    watched_since: Zxid,
    /// The newest transaction that any reply has shown.
    seen: Zxid,
    ready: VecDeque<Followed>,
    /// The look in progress: what is still to be asked for, and what was.
    to_ask: Vec<String>,
    asked: HashMap<u64, String>,
    /// Asked for because an event did not name its transaction.
    asked_for_zxid: HashMap<u64, String>,
    has_begun: bool,
    outage: Option<Outage>,
}

/// A time without a connection, and the comparison after it.
struct Outage {
    since: Instant,
    /// How long it was, once there is a connection again.
    lasted: Duration,
    is_new_session: bool,
    changes: usize,
}

impl Follower {
    /// Sets the watch and begins to look at what is there.
    pub async fn start(
        service: &Service<'_>,
        path: &str,
        is_recursive: bool,
    ) -> Result<Follower, Failure> {
        let (sender, steps) = mpsc::unbounded_channel();
        let sink = move |delivery: Delivery<'_>| {
            if let Some(step) = step(delivery) {
                // The follower is gone: so is the command.
                let _ = sender.send(step);
            }
        };
        let client = service.open(sink, true).await?;
        let mode = match is_recursive {
            true => AddWatchMode::PersistentRecursive,
            false => AddWatchMode::Persistent,
        };
        let request = Request::AddWatch { path, mode: mode.code() };
        let reply = client.submit(&request).await.map_err(|error| {
            Failure::operation(path, error, |code| {
                let is_old = code == ErrorCode::Unimplemented;
                is_old.then(|| "watching needs servers of ZooKeeper 3.6 or newer".into())
            })
        })?;
        let mut follower = Follower {
            client,
            path: path.to_string(),
            is_recursive,
            steps,
            tree: WatchedTree::new(is_recursive, reply.zxid),
            watched_since: reply.zxid,
            seen: reply.zxid,
            ready: VecDeque::new(),
            to_ask: Vec::new(),
            asked: HashMap::new(),
            asked_for_zxid: HashMap::new(),
            has_begun: false,
            outage: None,
        };
        follower.look();
        Ok(follower)
    }

    /// The next change, however long it takes. May be cancelled.
    pub async fn next(&mut self) -> Result<Followed, Failure> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Ok(followed);
            }
            let Some(step) = self.steps.recv().await else {
                return Err(Failure::failed(format!("{}: the session is closed", self.path)));
            };
            self.take(step)?;
        }
    }

    /// A change that is there already.
    pub fn try_next(&mut self) -> Result<Option<Followed>, Failure> {
        while self.ready.is_empty()
            && let Ok(step) = self.steps.try_recv()
        {
            self.take(step)?;
        }
        Ok(self.ready.pop_front())
    }

    fn take(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Event(event) => {
                let change = self.tree.event(&event, self.seen);
                let is_there = event.event_type != EventType::NodeDeleted;
                if event.zxid.is_none() && change.is_some() && is_there {
                    let request = Request::Exists { path: &event.path, watch: false };
                    let pending = self.client.submit(&request);
                    self.asked_for_zxid.insert(pending.request_id(), event.path);
                }
                self.ready.extend(change.map(Followed::Change));
            }
            Step::State(state) => return self.state_changed(state),
            Step::Found { request_id, zxid, found } => {
                self.seen = self.seen.max(zxid);
                if let Some(path) = self.asked_for_zxid.remove(&request_id) {
                    if let Ok(Some((stat, _))) = &found {
                        self.tree.confirm(&path, stat);
                    }
                }
                // An answer to a look that was given up is not looked at.
                else if let Some(path) = self.asked.remove(&request_id) {
                    self.found(&path, found)?;
                }
            }
        }
        Ok(())
    }

    fn found(
        &mut self,
        path: &str,
        found: Result<Option<(Stat, Vec<String>)>, ErrorCode>,
    ) -> Result<(), Failure> {
        let changes = match found {
            Ok(Some((stat, children))) => {
                self.to_ask.extend(children.iter().map(|name| path::join(path, name)));
                self.tree.found(path, &stat, &children)
            }
            Ok(None) => self.tree.absent(path),
            // What may not be read sends no events either.
            Err(ErrorCode::NoAuth) if path != self.path => Vec::new(),
            // A change of state follows, and another look.
            Err(ErrorCode::SessionExpired | ErrorCode::SessionMoved) => return Ok(()),
            Err(code) => return Err(Failure::failed(format!("{path}: {code}"))),
        };
        if let Some(outage) = &mut self.outage {
            outage.changes += changes.len();
        }
        self.ready.extend(changes.into_iter().map(Followed::Change));
        self.ask();
        if self.asked.is_empty() {
            self.look_has_ended();
        }
        Ok(())
    }

    fn state_changed(&mut self, state: SessionState) -> Result<(), Failure> {
        let path = &self.path;
        match state {
            SessionState::Suspended => {
                self.asked.clear();
                self.to_ask.clear();
                self.asked_for_zxid.clear();
                say(&format!("{path}: the connection is lost; waiting for a server"));
                // Lost again before everything was compared: it is one outage.
                self.outage.get_or_insert(Outage {
                    since: Instant::now(),
                    lasted: Duration::ZERO,
                    is_new_session: false,
                    changes: 0,
                });
            }
            SessionState::Expired => {
                if let Some(outage) = &mut self.outage {
                    outage.is_new_session = true;
                }
            }
            SessionState::Connected => {
                if let Some(outage) = &mut self.outage {
                    outage.lasted = outage.since.elapsed();
                    self.look();
                }
            }
            SessionState::AuthFailed => {
                return Err(Failure::failed(format!("{path}: the service refused a credential")));
            }
            SessionState::Closed => {
                return Err(Failure::failed(format!("{path}: the session is closed")));
            }
            SessionState::Connecting => {}
        }
        Ok(())
    }

    /// Looks at everything that is watched.
    fn look(&mut self) {
        self.asked.clear();
        self.to_ask = vec![self.path.clone()];
        self.ask();
    }

    /// Asks for more of what a look goes through.
    fn ask(&mut self) {
        while self.asked.len() < WINDOW
            && let Some(path) = self.to_ask.pop()
        {
            let request = match self.is_recursive {
                true => Request::GetChildren2 { path: &path, watch: false },
                false => Request::Exists { path: &path, watch: false },
            };
            // Its answer comes as a step, in the order of the wire.
            let pending = self.client.submit(&request);
            self.asked.insert(pending.request_id(), path);
        }
    }

    fn look_has_ended(&mut self) {
        if let Some(outage) = self.outage.take() {
            let lasted = outage.lasted.as_secs_f64();
            let session = if outage.is_new_session { ", and the session is a new one" } else { "" };
            let found = match outage.changes {
                0 => "nothing has changed".to_string(),
                1 => "1 change found".to_string(),
                changes => format!("{changes} changes found"),
            };
            say(&format!(
                "{}: there was no connection for {lasted:.1} s{session}; compared: {found}",
                self.path
            ));
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.ready.push_back(Followed::Begun(self.watched_since));
        }
    }
}

/// What of a delivery is followed.
fn step(delivery: Delivery<'_>) -> Option<Step> {
    match delivery {
        Delivery::Event(event) => Some(Step::Event(event.clone())),
        // Nothing outside the chroot is watched.
        Delivery::OutsideEvent(_) => None,
        Delivery::State(state) => Some(Step::State(state)),
        Delivery::Reply { request_id, op_code, zxid, result } => {
            if !matches!(op_code, OpCode::GetChildren2 | OpCode::Exists) {
                return None;
            }
            let found = match result {
                Ok(Response::Children { names, stat }) => Ok(Some((*stat, names.clone()))),
                Ok(Response::Stat(stat)) => Ok(Some((*stat, Vec::new()))),
                Ok(_) => Err(ErrorCode::MarshallingError),
                Err(ErrorCode::NoNode) => Ok(None),
                Err(code) => Err(code),
            };
            Some(Step::Found { request_id, zxid, found })
        }
    }
}
