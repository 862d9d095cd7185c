//! Time limits, and the clean end of a leadership.

use super::*;

/// tickTime 2 s, syncLimit 5, initLimit 10.
const TICK_MS: u64 = 2_000;

fn pings(effects: &[Effect], connection: u64) -> usize {
    sent(effects, connection).iter().filter(|p| matches!(p, Packet::Ping { .. })).count()
}

#[test]
fn leader_pings_twice_a_tick() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let mut count = 0;
    for _ in 0..4 {
        let deadline = leader.zab.deadline().unwrap();
        let effects = leader.pass(deadline - leader.now);
        count += pings(&effects, 1);
        leader.packet(1, Packet::Ping { sequence: count as u64, touched: Vec::new() });
    }
    assert_eq!(count, 4);
    assert!(leader.now <= 1_000 + 2 * TICK_MS);
}

#[test]
fn silent_follower_is_dropped_after_sync_limit() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.pass(5 * TICK_MS - 1_000);
    assert!(leader.zab.is_serving());
    let effects = leader.pass(TICK_MS);
    assert!(effects.iter().any(|e| matches!(e, Effect::Disconnect(ConnectionId(1)))));
    assert_eq!(looked(&effects), Some("the quorum of followers is lost"));
}

#[test]
fn follower_that_answers_pings_but_logs_nothing_is_dropped() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.join(2);
    leader.packet(2, Packet::Ack(Ack::forged(zxid(2, 0))));
    leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    leader.packet(1, Packet::Ack(Ack::forged(zxid(2, 1))));
    for sequence in 1..=11 {
        leader.pass(TICK_MS / 2);
        for id in [1, 2] {
            leader.packet(id, Packet::Ping { sequence, touched: Vec::new() });
        }
    }
    assert!(leader.zab.is_serving());
    assert!(!leader.zab.learners.is_empty());
    let Role::Leading(role) = &leader.zab.role else { panic!() };
    assert!(role.handler(server(2)).is_none(), "its oldest proposal is syncLimit old");
    assert!(role.handler(server(1)).is_some());
}

#[test]
fn follower_leaves_a_silent_leader_after_sync_limit() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    assert_eq!(replica.zab.deadline(), Some(replica.now + 5 * TICK_MS + 1));
    let effects = replica.pass(5 * TICK_MS);
    assert!(effects.is_empty());
    let effects = replica.pass(1);
    assert_eq!(looked(&effects), Some("nothing was heard from the leader within syncLimit"));
    assert!(matches!(effects[0], Effect::StopServing));
}

#[test]
fn follower_looks_at_once_when_its_leaders_connection_goes() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let effects = replica.step(Event::Disconnected(ConnectionId(9)));
    assert_eq!(looked(&effects), Some("the connection to the leader is lost"));
    assert_eq!(notified(&effects).len(), 1);
}

#[test]
fn learner_tries_again_while_the_leader_does_not_listen_yet() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.step(Event::Start);
    let vote = Vote { epoch: Epoch(9), zxid: zxid(9, 9), leader: server(3) };
    replica.hear(3, looking(1, vote));
    replica.pass(20);
    replica.step(Event::ConnectFailed { peer: server(3) });
    let retry = replica.zab.deadline().unwrap() - replica.now;
    assert!((20..=30).contains(&retry), "{retry}");
    let effects = replica.pass(retry);
    assert!(matches!(effects[..], [Effect::Connect { peer: ServerId(3) }]));
    let effects = replica.pass(1_000);
    assert_eq!(looked(&effects), Some("the leader could not be reached"));
}

/// ZOOKEEPER-3109: a voter changes its mind just before the leader activates; ZooKeeper's leader
/// waits initLimit.
#[test]
fn zookeeper_3109_item_31_leader_that_nobody_comes_to_gives_up_before_init_limit() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    let elsewhere = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: server(2) };
    leader.hear(1, looking(50, elsewhere));
    assert_eq!(leader.zab.role(), RoleKind::Leading);
    let effects = leader.hear(2, looking(50, elsewhere));
    assert_eq!(looked(&effects), Some("too many voters look for another leader"));

    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    let effects = leader.pass(1_000);
    assert_eq!(looked(&effects), Some("no quorum of followers came"));
}

#[test]
fn elections_that_lead_to_nothing_make_patient() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    leader.pass(1_000);
    let vote = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: server(3) };
    leader.hear(1, looking(leader.zab.election.round(), vote));
    leader.pass(20);
    assert_eq!(leader.zab.role(), RoleKind::Leading);
    assert!(leader.pass(1_000).is_empty());
    let effects = leader.pass(1_000);
    assert_eq!(looked(&effects), Some("no quorum of followers came"));
}

#[test]
fn leader_that_shuts_down_names_the_follower_with_the_longest_history() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.join(2);
    leader.packet(2, Packet::Ack(Ack::forged(zxid(2, 0))));
    leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    assert!(leader.step(Event::Shutdown).is_empty(), "2.1 is not committed yet");
    assert_eq!(leader.zab.next_zxid(), None);
    let effects = leader.packet(1, Packet::Ack(Ack::forged(zxid(2, 1))));
    let handover = Packet::Handover { successor: server(1) };
    for follower in [1, 2] {
        assert_eq!(sent(&effects, follower), [commit(2, 1), handover.clone()]);
    }
    assert!(matches!(effects.last(), Some(Effect::Retired)), "{effects:?}");
}

fn commit(epoch: u32, counter: u32) -> Packet {
    Packet::Commit { zxid: zxid(epoch, counter) }
}

#[test]
fn shutdown_waits_for_a_commit_only_so_long() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    leader.step(Event::Shutdown);
    assert_eq!(leader.zab.deadline(), Some(leader.now + 20));
    let effects = leader.pass(20);
    assert!(matches!(effects.last(), Some(Effect::Retired)));
}

#[test]
fn successor_leads_and_the_others_follow_without_an_election() {
    let mut successor = Replica::with_history(1, 3, 0);
    successor.follow_to_broadcast();
    let effects = successor.packet(9, Packet::Handover { successor: server(1) });
    assert_eq!(successor.zab.role(), RoleKind::Leading);
    assert!(matches!(effects[0], Effect::StopServing));

    let mut other = Replica::with_history(2, 3, 0);
    other.follow_to_broadcast();
    let effects = other.packet(9, Packet::Handover { successor: server(1) });
    assert_eq!(other.zab.role(), RoleKind::Following(server(1)));
    assert!(effects.iter().any(|e| matches!(e, Effect::Connect { peer: ServerId(1) })));
}

/// ZOOKEEPER-1366: time is what the driver's monotonic clock says, and it never goes back.
#[test]
fn zookeeper_1366_item_33_clock_that_goes_back_changes_nothing() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let deadline = replica.zab.deadline();
    replica.now = 0;
    replica.packet(9, Packet::Ping { sequence: 1, touched: Vec::new() });
    assert_eq!(replica.zab.deadline(), deadline);
    assert!(replica.zab.is_serving());
}
