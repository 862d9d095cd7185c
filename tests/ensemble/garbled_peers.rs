//! Peers that send rubbish: bytes that are no frames, frames that were damaged on the way, and whole
//! frames of a member gone mad. A member stays up, serves, says what is wrong in a few clear lines, and
//! keeps nothing of it in memory.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use znodefs::{Epoch, SessionId, Zxid};
use znodefs_server::codec;
use znodefs_server::link::Plane;
use znodefs_server::link::frame::{HEADER_LENGTH, put_frame};
use znodefs_server::link::handshake::Hello;
use znodefs_server::zab::{
    AckEpoch, Entry, LearnerInfo, Notification, Packet, PeerState, ServerId, Standing, Vote,
};
use znodefs_tests::{Ensemble, Random, WireClient, wait_until};

use crate::load::{Load, assert_nothing_is_lost};

const LIMIT: Duration = Duration::from_secs(40);

/// How long an answer is waited for that may never come.
const ANSWER_LIMIT: Duration = Duration::from_millis(100);

/// In the bytes of a message between learner and leader, what says that a packet of the protocol
/// follows.
const PACKET_TAG: u8 = 3;

/// Memory that a member may use more than before.
const MORE_MIB_MAX: u64 = 96;

/// Quorum and election port of a member's line.
fn ports(line: &str) -> [u16; 2] {
    let replicas = line.split(';').next().unwrap_or_default();
    let mut parts = replicas.split(':').skip(1).map(|port| port.parse().expect("a port"));
    [parts.next().expect("a quorum port"), parts.next().expect("an election port")]
}

fn encoded(record: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_into(record, &mut bytes).expect("a small record");
    bytes
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(&mut frame, payload);
    frame
}

fn hello(own_id: u32, plane: Plane, meant: u8) -> Hello {
    let meant = Some(ServerId(meant.into()));
    Hello { own_id: ServerId(own_id), plane, ensemble_id: None, instance: 77, meant }
}

/// What a follower says to its leader, a leader to its follower, and both beside it.
fn packets() -> Vec<Vec<u8>> {
    let zxid = Zxid::new(Epoch(1), 1);
    let entries: Arc<[Entry]> = [Entry { zxid, payload: Bytes::from_static(b"set /a") }].into();
    let standing = Standing { initialized: true, has_data: true };
    let info = LearnerInfo { accepted_epoch: Epoch(1), standing, configuration: Zxid::ZERO };
    let ack_epoch: AckEpoch = {
        // The type lets nobody promise what is not on disk; the bytes do.
        let bytes = encoded(&(Epoch(1), zxid, false));
        codec::decode(&bytes).expect("an AckEpoch's fields")
    };
    let session_id = SessionId(7);
    let packets = [
        Packet::FollowerInfo(info.clone()),
        Packet::ObserverInfo(info),
        Packet::LeaderInfo { epoch: Epoch(9), counts: true },
        Packet::AckEpoch(ack_epoch),
        Packet::Diff { zxid },
        Packet::Trunc { zxid },
        Packet::NewLeader { epoch: Epoch(9) },
        Packet::UpToDate { committed: zxid },
        Packet::Proposal { entries: entries.clone() },
        Packet::Commit { zxid },
        Packet::Inform { entries },
        Packet::Ping { sequence: 3, touched: vec![(session_id, 4000)] },
        Packet::Revalidate { session_id, timeout_ms: 4000, valid: None },
        Packet::Request { payload: Bytes::from_static(b"create /a") },
        Packet::Sync { token: 5 },
        Packet::Handover { successor: ServerId(2) },
    ];
    packets.iter().map(|packet| [&[PACKET_TAG], &encoded(packet)[..]].concat()).collect()
}

fn notification() -> Vec<u8> {
    let vote = Vote { epoch: Epoch(1), zxid: Zxid::new(Epoch(1), 1), leader: ServerId(3) };
    let standing = Standing { initialized: true, has_data: true };
    let (state, configuration) = (PeerState::Looking, Default::default());
    encoded(&Notification { state, round: 4, vote, standing, configuration })
}

/// One to four of the usual accidents.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.between(1, 5) {
        let place = random.between(0, bytes.len().max(1) as u64) as usize;
        match random.between(0, 6) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, random.next_u64() as u8),
            2 => bytes.extend(random.bytes(9)),
            // What announces a length, or the greatest one.
            3 if place < bytes.len() => bytes[place] = random.between(250, 256) as u8,
            _ if place < bytes.len() => bytes[place] ^= 1 << random.between(0, 8),
            _ => {}
        }
    }
}

/// What the other side answers until it closes the connection, or until it says nothing for a while.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a timeout that is not zero");
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return bytes,
        }
    }
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("a member that listens")
}

/// Resident memory of a member, MiB.
fn resident_mib(ensemble: &mut Ensemble, id: u8) -> u64 {
    let status = format!("/proc/{}/status", ensemble.process(id).pid());
    let text = std::fs::read_to_string(status).expect("a running process");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("resident memory in kB") / 1024
}

/// Members are up, and their logs tell of it without end neither of panics.
fn assert_unharmed(ensemble: &mut Ensemble, ids: &[u8], before: &[u64], lines_max: usize) {
    for (id, before) in ids.iter().zip(before) {
        assert!(ensemble.process(*id).exit_status().is_none(), "member {id} has ended");
        let log = ensemble.log_text(*id);
        assert!(!log.contains("panicked"), "member {id}:\n{log}");
        let refusals = log.lines().filter(|line| line.contains("refused:")).count();
        assert!(refusals <= lines_max, "member {id}: {refusals} lines\n{log}");
        let now = resident_mib(ensemble, *id);
        assert!(now < before + MORE_MIB_MAX, "member {id}: {before} MiB before, {now} MiB now");
    }
}

/// Noise and damaged handshakes on both ports of every member, while clients write.
#[test]
fn zookeeper_2201_item_32_rubbish_on_the_replicas_ports_costs_nothing() {
    let mut random = Random::announced();
    let mut ensemble = Ensemble::start(3, 0);
    let ids = ensemble.ids();
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 4);
    let before: Vec<u64> = ids.iter().map(|id| resident_mib(&mut ensemble, *id)).collect();
    for round in 0..240 {
        let id = ids[random.between(0, 3) as usize];
        let [quorum, election] = ports(ensemble.line(id));
        let (port, plane) = [(quorum, Plane::Quorum), (election, Plane::Election)][round % 2];
        let good = framed(&encoded(&hello(random.between(0, 9) as u32, plane, id)));
        let bytes = match random.between(0, 4) {
            0 => {
                let length = random.between(1, 3000) as usize;
                random.bytes(length)
            }
            // Damaged on the way: the checksum does not fit any more.
            1 => {
                let mut bytes = good;
                mutate(&mut bytes, &mut random);
                bytes
            }
            // A frame, and nothing in it that makes sense.
            2 => {
                let mut payload = good[HEADER_LENGTH..].to_vec();
                mutate(&mut payload, &mut random);
                framed(&payload)
            }
            // Much is announced, and little comes.
            _ => {
                let mut bytes = good;
                bytes[4..8].copy_from_slice(&(random.next_u64() as u32).to_le_bytes());
                bytes
            }
        };
        let mut stream = connect(port);
        // It may have been closed in the middle.
        let _ = stream.write_all(&bytes);
        answer(&mut stream);
    }
    let enough = load.count() + 200;
    wait_until("writes flow", LIMIT, || load.count() >= enough);
    assert_unharmed(&mut ensemble, &ids, &before, 120);
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

/// Frames that are whole, of a member whose memory is not: it agrees to a link, and then says what
/// nobody can mean, or the right thing at the wrong time. What such a one acknowledges nobody can
/// protect; that the others live on is checked.
#[test]
fn zookeeper_2201_item_32_a_member_that_says_anything_takes_nobody_with_it() {
    let mut random = Random::announced();
    let mut ensemble = Ensemble::start(3, 0);
    let gone = ensemble.follower();
    ensemble.kill(gone);
    let left: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != gone).collect();
    let before: Vec<u64> = left.iter().map(|id| resident_mib(&mut ensemble, *id)).collect();
    let mut agreed = 0;
    for round in 0..240 {
        let id = left[random.between(0, 2) as usize];
        let [quorum, election] = ports(ensemble.line(id));
        let (port, plane) = [(quorum, Plane::Quorum), (election, Plane::Election)][round % 2];
        let mut stream = connect(port);
        stream.write_all(&framed(&encoded(&hello(gone.into(), plane, id)))).expect("a handshake");
        let mut header = [0; HEADER_LENGTH];
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout that is not zero");
        if stream.read_exact(&mut header).is_err() {
            continue;
        }
        agreed += 1;
        for _ in 0..random.between(1, 6) {
            let mut payload = match plane {
                Plane::Quorum => {
                    let mut all = packets();
                    let place = random.between(0, all.len() as u64) as usize;
                    all.swap_remove(place)
                }
                Plane::Election => notification(),
            };
            if random.between(0, 4) > 0 {
                mutate(&mut payload, &mut random);
            }
            // The other side may have had enough.
            let _ = stream.write_all(&framed(&payload));
        }
        answer(&mut stream);
    }
    assert!(agreed > 100, "{agreed} of 240 were talked to");
    for id in &left {
        assert!(ensemble.process(*id).exit_status().is_none(), "member {id} has ended");
        ensemble.wait_until_serving(*id);
    }
    assert_unharmed(&mut ensemble, &left, &before, 120);
    let mut client = WireClient::connect(&ensemble.address(ensemble.leader()));
    client.create("/after", Some(b"1"));
    assert_eq!(client.data("/after").as_deref(), Some(&b"1"[..]));
}
