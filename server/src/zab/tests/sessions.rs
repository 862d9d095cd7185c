//! Forwarded requests, syncs, touched and revalidated sessions.

use bytes::Bytes;
use znodefs::SessionId;

use super::*;

fn pong(sequence: u64) -> Packet {
    Packet::Ping { sequence, touched: Vec::new() }
}

/// The number of the ping among these effects.
fn ping(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { packet: Packet::Ping { sequence, .. }, .. } => Some(*sequence),
        _ => None,
    })
}

/// ZOOKEEPER-1675: a deposed leader must not answer.
#[test]
fn zookeeper_1675_item_36_sync_is_answered_once_a_quorum_confirms_the_leader() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let effects = leader.packet(1, Packet::Sync { token: 5 });
    let sequence = ping(&effects).unwrap();
    assert!(!sent(&effects, 1).contains(&Packet::Sync { token: 5 }));
    let effects = leader.packet(1, pong(sequence - 1));
    assert!(effects.is_empty(), "that ping was sent before the sync came");
    let effects = leader.packet(1, pong(sequence));
    assert_eq!(sent(&effects, 1), [Packet::Sync { token: 5 }]);
}

#[test]
fn syncs_that_come_while_one_is_confirmed_share_the_next_ping() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let first = ping(&leader.step(Event::Sync { token: 1 })).unwrap();
    assert_eq!(ping(&leader.step(Event::Sync { token: 2 })), None);
    assert_eq!(ping(&leader.packet(1, Packet::Sync { token: 3 })), None);
    let effects = leader.packet(1, pong(first));
    assert!(matches!(effects[0], Effect::SyncDone { token: 1 }), "{effects:?}");
    let second = ping(&effects).unwrap();
    let effects = leader.packet(1, pong(second));
    assert!(matches!(effects[0], Effect::SyncDone { token: 2 }), "{effects:?}");
    assert_eq!(sent(&effects, 1), [Packet::Sync { token: 3 }]);
}

/// "leader replies after proposals outstanding at arrival are committed, in order on the same
/// channel".
#[test]
fn sync_waits_for_what_was_proposed_before_it() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    let sequence = ping(&leader.packet(1, Packet::Sync { token: 5 })).unwrap();
    assert!(leader.packet(1, pong(sequence)).is_empty());
    let effects = leader.packet(1, Packet::Ack(Ack::forged(zxid(2, 1))));
    let commit = Packet::Commit { zxid: zxid(2, 1) };
    assert_eq!(sent(&effects, 1), [commit, Packet::Sync { token: 5 }]);
}

#[test]
fn follower_answers_a_sync_when_it_has_applied_what_came_before() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let effects = replica.step(Event::Sync { token: 8 });
    assert_eq!(sent(&effects, 9), [Packet::Sync { token: 8 }]);
    let append = replica.packet(9, proposal(&[entry(2, 1)]));
    replica.packet(9, Packet::Commit { zxid: zxid(2, 1) });
    let effects = replica.packet(9, Packet::Sync { token: 8 });
    assert!(effects.is_empty(), "2.1 is committed and not applied here: {effects:?}");
    let effects = replica.step(Event::Durable(last_ticket(&append).unwrap()));
    assert!(matches!(effects.last(), Some(Effect::SyncDone { token: 8 })), "{effects:?}");
}

#[test]
fn sync_dies_with_the_service() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.step(Event::Sync { token: 1 });
    let effects = leader.step(Event::Disconnected(ConnectionId(1)));
    assert!(effects.iter().any(|e| matches!(e, Effect::StopServing)));
    assert!(!effects.iter().any(|e| matches!(e, Effect::SyncDone { .. })));
}

#[test]
fn single_voter_answers_a_sync_alone() {
    let mut replica = Replica::new(1, 1, 0, &Recovered::default());
    replica.step_and_sync(Event::Start);
    let effects = replica.step(Event::Sync { token: 3 });
    assert!(effects.iter().any(|e| matches!(e, Effect::SyncDone { token: 3 })), "{effects:?}");
}

#[test]
fn touched_sessions_travel_with_the_answer_to_a_ping() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    for session in [7, 8, 7] {
        let session_id = SessionId(session);
        replica.step(Event::SessionTouched { session_id, timeout_ms: 4_000 });
    }
    let effects = replica.packet(9, pong(31));
    let touched = vec![(SessionId(7), 4_000), (SessionId(8), 4_000)];
    assert_eq!(sent(&effects, 9), [Packet::Ping { sequence: 31, touched: touched.clone() }]);
    let effects = replica.packet(9, pong(32));
    assert_eq!(sent(&effects, 9), [pong(32)], "told once");

    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let effects = leader.packet(1, Packet::Ping { sequence: 1, touched: touched.clone() });
    assert!(
        matches!(&effects[..], [Effect::SessionsTouched { from: ServerId(1), touched: t }] if *t == touched)
    );
}

#[test]
fn revalidation_goes_to_the_leader_and_comes_back() {
    let session_id = SessionId(7);
    let timeout_ms = 4_000;
    let asked = Packet::Revalidate { session_id, timeout_ms, valid: None };
    let answered = Packet::Revalidate { session_id, timeout_ms, valid: Some(true) };

    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let effects = replica.step(Event::Revalidate { session_id, timeout_ms });
    assert_eq!(sent(&effects, 9), std::slice::from_ref(&asked));
    let effects = replica.packet(9, answered.clone());
    assert!(matches!(effects[..], [Effect::SessionRevalidated { valid: true, .. }]));

    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let effects = leader.packet(1, asked);
    let [Effect::RevalidateSession { connection, from: ServerId(1), .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let valid = true;
    let effects =
        leader.step(Event::SessionRevalidated { connection, session_id, timeout_ms, valid });
    assert_eq!(sent(&effects, 1), [answered]);
}

#[test]
fn forwarded_requests_reach_the_request_processor_in_order() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let payload = Bytes::from_static(b"create /a");
    let effects = replica.step(Event::Forward(payload.clone()));
    let request = Packet::Request { payload };
    assert_eq!(sent(&effects, 9), std::slice::from_ref(&request));

    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let effects = leader.packet(1, request.clone());
    assert!(matches!(effects[..], [Effect::Request { from: ServerId(1), .. }]));
    leader.step(Event::Shutdown);
    assert!(leader.packet(1, request).is_empty(), "a leader that leaves takes nothing new");
}
