//! Failures that others had in the wild, each by the steps that brought it about: named after the
//! ticket and its place in `tests/KNOWN_FAILURES.md`, which lists those that are tested elsewhere too.

use super::synchronization::{leader_with_window, sync_with};
use super::*;

/// A follower that has answered LEADERINFO of epoch 2, with 1.1 to 1.3 in its log and 1.1 delivered.
fn follower() -> Replica {
    let mut replica = Replica::new(1, 3, 0, &recovered(1, 1, zxid(1, 3), zxid(1, 1)));
    replica.follow(3);
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    replica
}

/// Loses a connection and its place with it, and finds a leader that it promises epoch 3, on connection
/// 10. The promise's ticket.
fn bounce(replica: &mut Replica, lost: u64, leader: u32) -> Ticket {
    replica.step(Event::Disconnected(ConnectionId(lost)));
    assert_eq!(replica.zab.role(), RoleKind::Looking);
    let vote = Vote { epoch: Epoch(9), zxid: zxid(9, 9), leader: server(leader) };
    let notification = looking(replica.zab.election.round(), vote);
    replica.hear(leader, notification);
    for _ in 0..100 {
        if replica.zab.role() != RoleKind::Looking {
            break;
        }
        replica.pass(20);
    }
    assert_eq!(replica.zab.role(), RoleKind::Following(server(leader)));
    let (connection, peer) = (ConnectionId(10), server(leader));
    replica.step(Event::Connected { connection, peer, outgoing: true });
    let effects = replica.packet(10, Packet::LeaderInfo { epoch: Epoch(3), counts: true });
    assert!(sent(&effects, 10).is_empty(), "nothing is told before it is on disk: {effects:?}");
    last_ticket(&effects).unwrap()
}

fn has_acked_epoch(effects: &[Effect], last: Zxid) -> bool {
    sent(effects, 10) == [Packet::AckEpoch(AckEpoch::forged(Epoch(1), last))]
}

#[test]
fn zookeeper_4643_item_2_current_epoch_is_written_behind_the_history_it_stands_for() {
    let mut replica = follower();
    let mut disk = Vec::new();
    for packet in [
        Packet::Diff { zxid: zxid(1, 3) },
        proposal(&[entry(1, 4)]),
        proposal(&[entry(1, 5)]),
        Packet::NewLeader { epoch: Epoch(2) },
    ] {
        disk.extend(replica.packet(9, packet));
    }
    // The disk does one after the other, so a crash between any two leaves the old epoch or all of it.
    let place = |what: fn(&Effect) -> bool| disk.iter().rposition(what);
    let history = place(|effect| matches!(effect, Effect::AppendTxns { .. })).unwrap();
    let epoch = place(|effect| matches!(effect, Effect::PersistCurrentEpoch { .. })).unwrap();
    assert!(history < epoch, "{disk:?}");
    assert!(last_ticket(&disk[..epoch]) < last_ticket(&disk[epoch..]));
    let epochs = disk.iter().filter(|effect| matches!(effect, Effect::PersistCurrentEpoch { .. }));
    assert_eq!(epochs.count(), 1);
}

#[test]
fn zookeeper_4785_item_3_a_follower_bounced_in_a_diff_answers_for_nothing_that_is_not_on_disk() {
    let mut replica = follower();
    replica.packet(9, Packet::Diff { zxid: zxid(1, 3) });
    let history = last_ticket(&replica.packet(9, proposal(&[entry(1, 4)]))).unwrap();
    let promise = bounce(&mut replica, 9, 2);
    assert!(history < promise, "the disk takes what was queued first");
    let effects = replica.step(Event::Durable(history));
    assert!(sent(&effects, 10).is_empty(), "{effects:?}");
    let effects = replica.step(Event::Durable(promise));
    assert!(has_acked_epoch(&effects, zxid(1, 4)), "{effects:?}");
}

#[test]
fn zookeeper_4925_item_5_what_came_by_a_diff_is_passed_on_without_a_hole_by_the_next_leader() {
    for last in 0..5 {
        let last = if last == 0 { Zxid::ZERO } else { zxid(1, last) };
        let packets = sync_with(&mut leader_with_window(), last);
        let passed: Vec<Zxid> = packets
            .iter()
            .filter_map(|packet| match packet {
                Packet::Proposal { entries } => Some(entries.iter().map(|entry| entry.zxid)),
                _ => None,
            })
            .flatten()
            .collect();
        let expected: Vec<Zxid> = (1..=5).map(|n| zxid(1, n)).filter(|z| *z > last).collect();
        assert_eq!(passed, expected, "to a follower at {last}");
    }
}

#[test]
fn zookeeper_3642_item_6_a_snapshot_counts_once_it_is_on_disk_though_its_leader_is_gone() {
    let mut replica = follower();
    let configuration = Ensemble::default();
    let install = replica.packet(9, Packet::Snap { zxid: zxid(1, 8), configuration });
    let install = last_ticket(&install).unwrap();
    // The leader dies before NEWLEADER.
    let promise = bounce(&mut replica, 9, 2);
    assert!(install < promise);
    let effects = replica.step(Event::Durable(install));
    assert!(sent(&effects, 10).is_empty(), "{effects:?}");
    let effects = replica.step(Event::Durable(promise));
    assert!(has_acked_epoch(&effects, zxid(1, 8)), "{effects:?}");
    // The next leader's DIFF continues what is on the disk.
    let effects = replica.packet(10, Packet::Diff { zxid: zxid(1, 8) });
    assert_eq!(looked(&effects), None);
    let effects = replica.packet(10, proposal(&[entry(1, 9)]));
    assert!(matches!(&effects[..], [Effect::AppendTxns { .. }]), "{effects:?}");
}

#[test]
fn zookeeper_2845_item_9_an_uncommitted_tail_is_never_in_the_tree_of_who_is_elected_again() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.establish();
    let effects = replica.step_and_sync(Event::Propose(vec![entry(2, 1), entry(2, 2)]));
    assert!(delivered(&effects).is_empty(), "nobody else has it");
    assert_eq!(replica.zab.last_logged(), zxid(2, 2));
    // It is not started anew, and follows one that never had the tail.
    let promise = bounce(&mut replica, 1, 2);
    assert_eq!(replica.zab.delivered(), zxid(1, 3));
    replica.step(Event::Durable(promise));
    let mut effects = Vec::new();
    for packet in [
        Packet::Trunc { zxid: zxid(1, 3) },
        Packet::NewLeader { epoch: Epoch(3) },
        Packet::UpToDate { committed: zxid(1, 3) },
        proposal(&[entry(3, 1)]),
        Packet::Commit { zxid: zxid(3, 1) },
    ] {
        effects.extend(replica.packet_and_sync(10, packet));
    }
    assert!(replica.zab.is_serving());
    assert_eq!(delivered(&effects), [zxid(3, 1)], "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::DeliverFromLog { .. })));
}

#[test]
fn zookeeper_4352_item_12_an_empty_follower_never_gets_a_diff_from_an_empty_window() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    leader.learner_connects(1);
    leader.packet_and_sync(1, Packet::FollowerInfo(learner_info(1)));
    let ack = AckEpoch::forged(Epoch(0), Zxid::ZERO);
    let effects = leader.packet_and_sync(1, Packet::AckEpoch(ack));
    let diffs =
        sent(&effects, 1).into_iter().filter(|packet| matches!(packet, Packet::Diff { .. }));
    assert_eq!(diffs.count(), 0, "{effects:?}");
    let reads = effects.iter().any(|effect| {
        matches!(effect, Effect::ReadLog { from, through, .. }
            if (*from, *through) == (Zxid::ZERO, zxid(1, 3)))
    });
    assert!(reads, "what it lacks comes from the log, or as a snapshot: {effects:?}");
}

#[test]
fn zookeeper_2355_item_25_a_follower_that_lost_a_proposal_is_synchronized_and_not_fed_on() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    replica.packet_and_sync(9, proposal(&[entry(2, 1)]));
    // The end of a session was lost on its way.
    let effects = replica.packet(9, proposal(&[entry(2, 3)]));
    assert!(looked(&effects).is_some(), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::AppendTxns { .. })));
    assert_eq!(replica.zab.last_logged(), zxid(2, 1));
}
