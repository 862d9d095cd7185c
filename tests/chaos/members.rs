//! Changes of the ensemble itself: members are removed and come back, lose their vote and get it again,
//! while everything else goes wrong too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use znodefs::acl::digest_id;
use znodefs::wire::{ConnectRequest, Request, Response};
use znodefs_tests::deadline::{Deadline, pause};
use znodefs_tests::wire_client::Limits;
use znodefs_tests::{Ensemble, Random, WireClient};

const SUPER: &str = "super:chaos";

/// Members that always vote, whatever else changes.
const VOTERS_MIN: usize = 2;

const LIMITS: Limits =
    Limits { connect: Duration::from_millis(300), answer: Duration::from_millis(2000) };

/// What configuration files say so that the ensemble can be changed.
pub fn settings() -> String {
    let id = digest_id(SUPER);
    format!("reconfigEnabled=true\nDigestAuthenticationProvider.superDigest={id}\n")
}

/// One member: its id, and whether it votes.
type Member = (u8, bool);

/// Changes the ensemble, one change at a time, in a thread of its own.
#[derive(Default)]
pub struct Changer {
    made: Arc<AtomicU64>,
    /// The change under way.
    thread: Option<JoinHandle<()>>,
}

impl Changer {
    /// How many changes were answered with success.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Asks somebody for some change; `false` while the last one is still asked for.
    pub fn change(&mut self, ensemble: &Ensemble, random: &mut Random) -> bool {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return false;
        }
        let mut ids = ensemble.ids();
        for place in (1..ids.len()).rev() {
            ids.swap(place, random.between(0, place as u64 + 1) as usize);
        }
        let asked: Vec<String> = ids.iter().rev().map(|id| ensemble.address(*id)).collect();
        let mut wish = |id: u8| (id, random.between(0, 3) > 0, ensemble.line(id).to_string());
        let wishes: Vec<Wish> = ids.into_iter().map(&mut wish).collect();
        let made = Arc::clone(&self.made);
        self.thread = Some(std::thread::spawn(move || {
            // Some are not there; whoever answers is the last one asked.
            let mut answers = asked.iter().map(|asked| change_one(asked, &wishes));
            if answers.find_map(|answer| answer) == Some(true) {
                made.fetch_add(1, Ordering::Relaxed);
            }
        }));
        true
    }

    /// Waits for the end of the change under way.
    pub fn settle(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a thread that does not panic");
        }
    }

    /// Gives everybody the place that the files say.
    pub fn restore(&mut self, ensemble: &Ensemble, limit: Deadline) -> Result<(), String> {
        self.settle();
        let wanted: Vec<Member> = ensemble
            .ids()
            .into_iter()
            .map(|id| (id, !ensemble.line(id).contains(":observer")))
            .collect();
        let mut last = String::from("nobody answers");
        let mut ids = ensemble.ids().into_iter().cycle();
        while let Some(id) = ids.next().filter(|_| !limit.has_passed()) {
            let Some(mut client) = superuser(&ensemble.address(id)) else {
                pause(Duration::from_millis(50));
                continue;
            };
            let Some(members) = members(&mut client) else { continue };
            if members == wanted {
                return Ok(());
            }
            let differ = wanted.iter().filter(|member| !members.contains(member));
            let lines: Vec<&str> = differ.map(|(id, _)| ensemble.line(*id)).collect();
            let joining = lines.join(",");
            let request = Request::Reconfig {
                joining: Some(&joining),
                leaving: None,
                new_members: None,
                current_config_id: -1,
            };
            last = format!("the members are {members:?}: {:?}", client.try_call(&request));
            pause(Duration::from_millis(50));
        }
        Err(format!("the members cannot be made what they were: {last}"))
    }
}

/// What may be made of a member: its id, whether it is to vote, and its line.
type Wish = (u8, bool, String);

/// Grants the first wish that can be granted; whether that was done, `None` if nobody was asked.
fn change_one(asked: &str, wishes: &[Wish]) -> Option<bool> {
    let mut client = superuser(asked)?;
    let members = members(&mut client)?;
    let voters = members.iter().filter(|(_, votes)| *votes).count();
    let spare = voters > VOTERS_MIN;
    for (id, votes, line) in wishes {
        let line = with_role(line, *votes);
        let present = members.iter().find(|member| member.0 == *id).map(|member| member.1);
        let goes = match present {
            Some(true) if !spare => continue,
            // Whoever is to vote and does, or is not to and does not, is to go altogether.
            Some(now) => now == *votes,
            None => false,
        };
        let leaving = id.to_string();
        let (joining, leaving) = match goes {
            true => (None, Some(leaving.as_str())),
            false => (Some(line.as_str()), None),
        };
        let request =
            Request::Reconfig { joining, leaving, new_members: None, current_config_id: -1 };
        // Without an answer nobody knows.
        return Some(client.try_call(&request).is_ok_and(|answer| answer.is_ok()));
    }
    Some(false)
}

/// A `server.N` line that gives this role.
fn with_role(line: &str, votes: bool) -> String {
    let line = line.replace(":observer", "");
    match (votes, line.split_once(';')) {
        (false, Some((replicas, clients))) => format!("{replicas}:observer;{clients}"),
        _ => line,
    }
}

fn superuser(address: &str) -> Option<WireClient> {
    let request = ConnectRequest { timeout_ms: 10_000, ..Default::default() };
    let mut client = WireClient::connect_within(address, &request, LIMITS).ok()?;
    let credential = Bytes::from_static(SUPER.as_bytes());
    client.try_call(&Request::Auth { scheme: "digest", credential }).ok()?.ok()?;
    Some(client)
}

/// The members as the configuration says, ascending.
fn members(client: &mut WireClient) -> Option<Vec<Member>> {
    let path = "/zookeeper/config";
    client.try_call(&Request::Sync { path }).ok()?.ok()?;
    let answer = client.try_call(&Request::GetData { path, watch: false }).ok()?.ok()?;
    let Response::Data { data, .. } = answer else { return None };
    let text = String::from_utf8(data?.to_vec()).ok()?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("server."));
    let member = |line: &str| {
        let (id, rest) = line.split_once('=')?;
        Some((id.parse().ok()?, rest.contains(":participant")))
    };
    let mut members: Vec<Member> = lines.filter_map(member).collect();
    members.sort_unstable();
    Some(members)
}
