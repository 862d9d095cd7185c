//! Broadcast: what an acknowledgement and a commit stand on. Zab paper, section 4, phase 3.

use super::*;

fn commit(epoch: u32, counter: u32) -> Packet {
    Packet::Commit { zxid: zxid(epoch, counter) }
}

fn ack(epoch: u32, counter: u32) -> Packet {
    Packet::Ack(Ack::forged(zxid(epoch, counter)))
}

#[test]
fn proposals_are_logged_and_sent_in_one_stroke() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let entries = [entry(2, 1), entry(2, 2)];
    let effects = leader.step(Event::Propose(entries.to_vec()));
    assert_eq!(sent(&effects, 1), [proposal(&entries)]);
    assert!(matches!(&effects[0], Effect::AppendTxns { entries: e, .. } if e[..] == entries));
    assert_eq!(leader.zab.next_zxid(), Some(zxid(2, 3)), "any number in flight");
}

/// "the leader's own ack: its own fsync, same path".
#[test]
fn leaders_own_log_counts_once_it_is_on_disk() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let append = leader.step(Event::Propose(vec![entry(2, 1)]));
    let effects = leader.packet(1, ack(2, 1));
    assert!(effects.is_empty(), "one disk of three: {effects:?}");
    let effects = leader.step(Event::Durable(last_ticket(&append).unwrap()));
    assert_eq!(sent(&effects, 1), [commit(2, 1)]);
    assert_eq!(delivered(&effects), [zxid(2, 1)]);
}

#[test]
fn quorum_of_followers_commits_before_the_leader_applies() {
    let mut leader = Replica::with_history(5, 5, 0);
    leader.step(Event::Start);
    let vote = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: server(5) };
    for id in [1, 2, 3] {
        leader.hear(id, looking(1, vote));
    }
    for id in [1, 2, 3] {
        leader.learner_connects(id);
        leader.packet_and_sync(id.into(), Packet::FollowerInfo(learner_info(1)));
    }
    for id in [1, 2, 3] {
        let promise = AckEpoch::forged(Epoch(1), zxid(1, 3));
        leader.packet_and_sync(id, Packet::AckEpoch(promise));
    }
    for id in [1, 2, 3] {
        leader.packet_and_sync(id, ack(2, 0));
    }
    let append = leader.step(Event::Propose(vec![entry(2, 1), entry(2, 2)]));
    leader.packet(1, ack(2, 2));
    leader.packet(2, ack(2, 1));
    let effects = leader.packet(3, ack(2, 2));
    assert_eq!(sent(&effects, 1), [commit(2, 1)], "three of five have 2.1, two have 2.2");
    assert!(delivered(&effects).is_empty(), "not on the leader's disk");
    let effects = leader.step(Event::Durable(last_ticket(&append).unwrap()));
    assert_eq!(sent(&effects, 2), [commit(2, 2)]);
    assert_eq!(delivered(&effects), [zxid(2, 1), zxid(2, 2)]);
}

#[test]
fn learner_that_has_not_adopted_the_epoch_does_not_count() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.join(2);
    leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    let effects = leader.packet(2, ack(2, 1));
    assert!(effects.iter().any(|e| matches!(e, Effect::Disconnect(ConnectionId(2)))));
    assert_eq!(leader.zab.committed(), zxid(1, 3));
}

#[test]
fn acknowledgement_of_what_was_not_proposed_is_refused() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let effects = leader.packet(1, ack(2, 9));
    assert!(effects.iter().any(|e| matches!(e, Effect::Disconnect(ConnectionId(1)))));
}

#[test]
fn observers_are_informed_after_the_commit() {
    let mut leader = Replica::with_history(3, 3, 1);
    leader.establish();
    leader.learner_connects(4);
    leader.packet(4, Packet::ObserverInfo(learner_info(1)));
    leader.packet(4, Packet::AckEpoch(AckEpoch::without_promise(Epoch(1), zxid(1, 3))));
    leader.packet(4, ack(2, 0));
    let effects = leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    assert!(sent(&effects, 4).is_empty(), "not before it is committed");
    let effects = leader.packet(1, ack(2, 1));
    assert_eq!(sent(&effects, 4), [Packet::Inform { entries: [entry(2, 1)].into() }]);
}

#[test]
fn proposal_is_acknowledged_once_it_is_on_disk() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let first = replica.packet(9, proposal(&[entry(2, 1)]));
    let second = replica.packet(9, proposal(&[entry(2, 2)]));
    assert!(sent(&first, 9).is_empty() && sent(&second, 9).is_empty());
    // Group commit: one sync, one acknowledgement.
    let effects = replica.step(Event::Durable(last_ticket(&second).unwrap()));
    assert_eq!(sent(&effects, 9), [ack(2, 2)]);
}

#[test]
fn committed_proposal_is_applied_once_it_is_on_this_disk() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let append = replica.packet(9, proposal(&[entry(2, 1)]));
    let effects = replica.packet(9, commit(2, 1));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = replica.step(Event::Durable(last_ticket(&append).unwrap()));
    assert_eq!(delivered(&effects), [zxid(2, 1)]);
}

#[test]
fn proposal_that_is_not_committed_is_not_applied() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let effects = replica.packet_and_sync(9, proposal(&[entry(2, 1), entry(2, 2)]));
    assert!(delivered(&effects).is_empty());
    let effects = replica.packet(9, commit(2, 1));
    assert_eq!(delivered(&effects), [zxid(2, 1)]);
}

#[test]
fn commit_of_what_was_not_proposed_ends_the_following() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let effects = replica.packet(9, commit(2, 7));
    assert_eq!(looked(&effects), Some("COMMIT of what was not proposed"));
    assert!(effects.iter().any(|e| matches!(e, Effect::StopServing)));
}

/// TLA+ `protocol-spec/issues.md`, 2.
#[test]
fn proposal_that_comes_twice_is_harmless() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    replica.packet_and_sync(9, proposal(&[entry(2, 1)]));
    let effects = replica.packet(9, proposal(&[entry(2, 1), entry(2, 2)]));
    assert!(matches!(&effects[..], [Effect::AppendTxns { entries, .. }] if entries.len() == 1));
}

/// ZOOKEEPER-1277.
#[test]
fn leader_resigns_when_the_epoch_has_no_zxid_left() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let mut window = log_window::LogWindow::new(zxid(2, u32::MAX - 1));
    std::mem::swap(&mut leader.zab.state.window, &mut window);
    let effects = leader.step(Event::Propose(vec![entry(2, u32::MAX)]));
    assert_eq!(looked(&effects), Some("the epoch has no zxid left"));
}

/// ZOOKEEPER-4712: nothing from the old term takes effect.
#[test]
fn zookeeper_4712_item_28_transactions_of_a_lost_leadership_are_dropped() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    let effects = leader.step(Event::Disconnected(ConnectionId(1)));
    assert_eq!(looked(&effects), Some("the quorum of followers is lost"));
    assert!(leader.step(Event::Propose(vec![entry(2, 1)])).is_empty());
    assert_eq!(leader.zab.next_zxid(), None);
}
