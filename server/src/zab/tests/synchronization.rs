//! Synchronization: the decision table, what is durable before ACK of NEWLEADER, and when service
//! begins. Zab paper, section 4, phase 2.

use super::*;

/// A leader of epoch 2 whose log is 1.1 to 1.5 in memory.
pub(super) fn leader_with_window() -> Replica {
    let mut replica = Replica::new(3, 3, 1, &recovered(1, 1, Zxid::ZERO, Zxid::ZERO));
    replica.follow(2);
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    replica.packet(9, Packet::Diff { zxid: Zxid::ZERO });
    let history: Vec<Entry> = (1..=5).map(|counter| entry(1, counter)).collect();
    replica.packet_and_sync(9, proposal(&history));
    replica.packet_and_sync(9, Packet::NewLeader { epoch: Epoch(2) });
    replica.packet(9, Packet::UpToDate { committed: zxid(1, 5) });
    replica.step(Event::Disconnected(ConnectionId(9)));
    let vote = Vote { epoch: Epoch(2), zxid: zxid(1, 5), leader: server(3) };
    let round = replica.zab.election.round();
    replica.hear(1, looking(round, vote));
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Leading);
    replica
}

/// What the leader sends to follower 1 whose log ends here.
pub(super) fn sync_with(leader: &mut Replica, last: Zxid) -> Vec<Packet> {
    leader.learner_connects(1);
    leader.packet_and_sync(1, Packet::FollowerInfo(learner_info(2)));
    let ack = AckEpoch::forged(Epoch(1), last);
    let effects = leader.packet_and_sync(1, Packet::AckEpoch(ack));
    sent(&effects, 1)
}

const NEW_LEADER: Packet = Packet::NewLeader { epoch: Epoch(3) };

#[test]
fn follower_with_the_same_history_gets_an_empty_diff() {
    let packets = sync_with(&mut leader_with_window(), zxid(1, 5));
    assert_eq!(packets, [Packet::Diff { zxid: zxid(1, 5) }, NEW_LEADER]);
}

#[test]
fn follower_behind_gets_what_it_lacks() {
    let packets = sync_with(&mut leader_with_window(), zxid(1, 3));
    let lacking = proposal(&[entry(1, 4), entry(1, 5)]);
    assert_eq!(packets, [Packet::Diff { zxid: zxid(1, 3) }, lacking, NEW_LEADER]);
}

#[test]
fn empty_follower_gets_everything_that_is_in_memory() {
    let packets = sync_with(&mut leader_with_window(), Zxid::ZERO);
    assert_eq!(packets.len(), 3);
    assert_eq!(packets[0], Packet::Diff { zxid: Zxid::ZERO });
}

#[test]
fn follower_ahead_is_truncated_to_the_end() {
    let packets = sync_with(&mut leader_with_window(), zxid(1, 9));
    assert_eq!(packets, [Packet::Trunc { zxid: zxid(1, 5) }, NEW_LEADER]);
}

#[test]
fn zookeeper_1154_and_1156_item_13_unknown_tail_is_cut_at_the_greatest_common_entry() {
    let mut leader = leader_with_window();
    sync_with(&mut leader, zxid(1, 5));
    leader.packet_and_sync(1, Packet::Ack(Ack::forged(zxid(3, 0))));
    leader.step_and_sync(Event::Propose(vec![entry(3, 1)]));
    leader.learner_connects(2);
    leader.packet(2, Packet::FollowerInfo(learner_info(2)));
    let ack = AckEpoch::forged(Epoch(1), zxid(1, 8));
    let effects = leader.packet(2, Packet::AckEpoch(ack));
    let follows = proposal(&[entry(3, 1)]);
    assert_eq!(sent(&effects, 2), [Packet::Trunc { zxid: zxid(1, 5) }, follows, NEW_LEADER]);
}

/// ZOOKEEPER-4352: what is below the window is never assumed to be in it.
#[test]
fn what_memory_does_not_reach_is_read_from_the_log() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    leader.learner_connects(1);
    leader.packet_and_sync(1, Packet::FollowerInfo(learner_info(1)));
    let ack = AckEpoch::forged(Epoch(1), zxid(1, 1));
    let effects = leader.packet_and_sync(1, Packet::AckEpoch(ack));
    assert!(sent(&effects, 1).is_empty());
    let read = effects.iter().find_map(|effect| match effect {
        Effect::ReadLog { read, from, through, required: false, .. } => {
            assert_eq!((*from, *through), (zxid(1, 1), zxid(1, 3)));
            Some(*read)
        }
        _ => None,
    });
    let read = read.unwrap();
    let entries = vec![entry(1, 2), entry(1, 3)];
    let answer = LogRead::Entries { after: zxid(1, 1), entries: entries.clone() };
    let effects = leader.step(Event::LogRead { read, answer });
    let new_leader = Packet::NewLeader { epoch: Epoch(2) };
    let diff = Packet::Diff { zxid: zxid(1, 1) };
    assert_eq!(sent(&effects, 1), [diff, proposal(&entries), new_leader]);
}

#[test]
fn log_that_does_not_reach_back_means_a_snapshot() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    leader.learner_connects(1);
    leader.packet_and_sync(1, Packet::FollowerInfo(learner_info(1)));
    let ack = AckEpoch::forged(Epoch(1), zxid(1, 1));
    leader.packet_and_sync(1, Packet::AckEpoch(ack));
    let answer = LogRead::Unavailable;
    let effects = leader.step(Event::LogRead { read: ReadId(1), answer });
    assert!(
        matches!(effects[0], Effect::SendSnapshot { zxid: at, .. } if at == zxid(1, 3)),
        "{effects:?}"
    );
    assert_eq!(sent(&effects, 1), [Packet::NewLeader { epoch: Epoch(2) }]);
}

/// A leader that has just restarted has applied less than it has logged: its tree is older than the
/// follower, so the log it must be.
#[test]
fn tree_older_than_the_follower_is_not_sent() {
    let mut leader = Replica::new(3, 3, 0, &recovered(1, 1, zxid(1, 9), zxid(1, 2)));
    leader.elect();
    leader.learner_connects(1);
    leader.packet_and_sync(1, Packet::FollowerInfo(learner_info(1)));
    let ack = AckEpoch::forged(Epoch(1), zxid(1, 4));
    let effects = leader.packet_and_sync(1, Packet::AckEpoch(ack));
    assert!(effects.iter().any(|e| matches!(e, Effect::ReadLog { required: true, .. })));
}

/// TLA+ `protocol-spec/issues.md`, 1: proposals flow from the moment the sync is decided.
#[test]
fn proposals_made_during_a_sync_follow_it() {
    let mut leader = leader_with_window();
    sync_with(&mut leader, zxid(1, 5));
    leader.packet_and_sync(1, Packet::Ack(Ack::forged(zxid(3, 0))));
    leader.learner_connects(2);
    leader.packet(2, Packet::FollowerInfo(learner_info(2)));
    leader.packet(2, Packet::AckEpoch(AckEpoch::forged(Epoch(1), zxid(1, 5))));
    let effects = leader.step_and_sync(Event::Propose(vec![entry(3, 1)]));
    assert_eq!(sent(&effects, 2), [proposal(&[entry(3, 1)])]);
    let effects = leader.packet(1, Packet::Ack(Ack::forged(zxid(3, 1))));
    assert_eq!(sent(&effects, 2), [Packet::Commit { zxid: zxid(3, 1) }]);
    // Issue 3: UPTODATE conveys the latest commit.
    let effects = leader.packet(2, Packet::Ack(Ack::forged(zxid(3, 0))));
    assert_eq!(sent(&effects, 2), [Packet::UpToDate { committed: zxid(3, 1) }]);
}

/// "Upon receiving ACK-LD from a quorum", not before; and not without the leader's own disk.
#[test]
fn leader_serves_once_a_quorum_has_adopted_the_epoch() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.elect();
    leader.learner_connects(1);
    leader.packet_and_sync(1, Packet::FollowerInfo(learner_info(1)));
    let ack = AckEpoch::forged(Epoch(1), zxid(1, 3));
    let adopting = leader.packet(1, Packet::AckEpoch(ack));
    let effects = leader.packet(1, Packet::Ack(Ack::forged(zxid(2, 0))));
    assert!(effects.is_empty() && !leader.zab.is_serving(), "currentEpoch is not on disk");
    let effects = leader.step(Event::Durable(last_ticket(&adopting).unwrap()));
    assert!(leader.zab.is_serving());
    assert_eq!(sent(&effects, 1), [Packet::UpToDate { committed: zxid(1, 3) }]);
    assert_eq!(leader.zab.next_zxid(), Some(zxid(2, 1)));
}

#[test]
fn observer_is_synchronized_by_an_established_leader_only() {
    let mut leader = Replica::with_history(3, 3, 1);
    leader.elect();
    leader.learner_connects(4);
    leader.packet(4, Packet::ObserverInfo(learner_info(1)));
    leader.join(1);
    let ack = AckEpoch::without_promise(Epoch(1), zxid(1, 3));
    let effects = leader.packet(4, Packet::AckEpoch(ack));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = leader.packet_and_sync(1, Packet::Ack(Ack::forged(zxid(2, 0))));
    let diff = Packet::Diff { zxid: zxid(1, 3) };
    assert_eq!(sent(&effects, 4), [diff, Packet::NewLeader { epoch: Epoch(2) }]);
}

/// A follower that has answered LEADERINFO of epoch 2, with 1.1 to 1.3 in its log and 1.1 delivered.
fn follower() -> Replica {
    let mut replica = Replica::new(1, 3, 0, &recovered(1, 1, zxid(1, 3), zxid(1, 1)));
    replica.follow(3);
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    replica
}

/// ZOOKEEPER-3911, -4646: history and then currentEpoch are on disk before NEWLEADER is
/// acknowledged. ZOOKEEPER-4643: in that order.
#[test]
fn zookeeper_3911_and_4646_item_1_new_leader_is_acknowledged_when_all_is_on_disk() {
    let mut replica = follower();
    replica.packet(9, Packet::Diff { zxid: zxid(1, 3) });
    let history = replica.packet(9, proposal(&[entry(1, 4)]));
    let adoption = replica.packet(9, Packet::NewLeader { epoch: Epoch(2) });
    let (history, adoption) = (last_ticket(&history).unwrap(), last_ticket(&adoption).unwrap());
    assert!(history < adoption);
    assert!(replica.step(Event::Durable(history)).is_empty());
    let effects = replica.step(Event::Durable(adoption));
    assert_eq!(sent(&effects, 9), [Packet::Ack(Ack::forged(zxid(2, 0)))]);
    assert!(!replica.zab.is_serving());
}

/// ZOOKEEPER-4394: a COMMIT may come between NEWLEADER and UPTODATE.
#[test]
fn zookeeper_4394_item_4_commit_before_up_to_date_is_kept_for_it() {
    let mut replica = follower();
    replica.packet(9, Packet::Diff { zxid: zxid(1, 3) });
    replica.packet_and_sync(9, Packet::NewLeader { epoch: Epoch(2) });
    let effects = replica.packet_and_sync(9, proposal(&[entry(2, 1)]));
    assert_eq!(sent(&effects, 9), [Packet::Ack(Ack::forged(zxid(2, 1)))]);
    let effects = replica.packet(9, Packet::Commit { zxid: zxid(2, 1) });
    assert!(effects.is_empty(), "nothing is applied before UPTODATE: {effects:?}");
    let effects = replica.packet(9, Packet::UpToDate { committed: zxid(1, 3) });
    assert!(
        matches!(
            effects[0],
            Effect::DeliverFromLog { after, through }
                if after == zxid(1, 1) && through == zxid(1, 3)
        ),
        "{effects:?}"
    );
    assert_eq!(delivered(&effects), [zxid(2, 1)]);
    assert!(replica.zab.is_serving());
}

#[test]
fn service_begins_when_what_up_to_date_promised_is_applied() {
    let mut replica = follower();
    replica.packet(9, Packet::Diff { zxid: zxid(1, 3) });
    replica.packet_and_sync(9, Packet::NewLeader { epoch: Epoch(2) });
    let append = replica.packet(9, proposal(&[entry(2, 1)]));
    replica.packet(9, Packet::UpToDate { committed: zxid(2, 1) });
    assert!(!replica.zab.is_serving(), "2.1 is not on this disk yet");
    replica.step(Event::Durable(last_ticket(&append).unwrap()));
    assert!(replica.zab.is_serving());
}

#[test]
fn truncation_comes_before_what_follows_it() {
    let mut replica = follower();
    let cut = replica.packet(9, Packet::Trunc { zxid: zxid(1, 2) });
    assert!(matches!(cut[..], [Effect::TruncateLog { zxid: at, .. }] if at == zxid(1, 2)));
    assert_eq!(replica.zab.last_logged(), zxid(1, 2));
    let append = replica.packet(9, proposal(&[entry(2, 1)]));
    assert!(last_ticket(&cut) < last_ticket(&append));
}

/// ZOOKEEPER-3526: a wrong TRUNC destroyed data.
#[test]
fn truncation_below_what_is_committed_halts_the_replica() {
    let mut replica = follower();
    let effects = replica.packet(9, Packet::Trunc { zxid: Zxid::ZERO });
    assert!(effects.iter().any(|e| matches!(e, Effect::Halt { .. })), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::TruncateLog { .. })));
}

/// ZOOKEEPER-3642, -2872: after a SNAP nothing of the old log remains and nothing is acknowledged
/// before it is installed.
#[test]
fn zookeeper_2872_item_7_snapshot_replaces_log_and_tree_before_it_counts() {
    let mut replica = follower();
    let configuration = Ensemble::default();
    let install = replica.packet(9, Packet::Snap { zxid: zxid(1, 8), configuration });
    assert!(matches!(install[..], [Effect::InstallSnapshot { zxid: at, .. }] if at == zxid(1, 8)));
    assert_eq!((replica.zab.last_logged(), replica.zab.delivered()), (zxid(1, 8), zxid(1, 8)));
    let effects = replica.packet_and_sync(9, Packet::NewLeader { epoch: Epoch(2) });
    assert_eq!(sent(&effects, 9), [Packet::Ack(Ack::forged(zxid(2, 0)))]);
}

#[test]
fn gap_in_the_history_is_refused() {
    let mut replica = follower();
    replica.packet(9, Packet::Diff { zxid: zxid(1, 3) });
    let effects = replica.packet(9, proposal(&[entry(1, 5)]));
    assert_eq!(looked(&effects), Some("PROPOSAL leaves a gap"));
}

#[test]
fn diff_for_another_history_is_refused() {
    let mut replica = follower();
    let effects = replica.packet(9, Packet::Diff { zxid: zxid(1, 2) });
    assert_eq!(looked(&effects), Some("DIFF out of place"));
}
