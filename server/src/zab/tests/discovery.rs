//! Discovery. Zab paper, section 4: "upon receiving CEPOCH(e) messages from a quorum Q of followers,
//! the prospective leader l makes NEWEPOCH(e'), where e' is later than any e received".

use super::*;

fn follower_of_3(accepted: u32, current: u32) -> Replica {
    let mut replica = Replica::new(1, 3, 0, &recovered(accepted, current, zxid(1, 3), zxid(1, 3)));
    replica.follow(3);
    replica
}

/// Loses connection 9 to replica 3, follows it again, and has connection 10 to it.
fn connect_again(replica: &mut Replica) {
    replica.step(Event::Disconnected(ConnectionId(9)));
    let vote = Vote { epoch: Epoch(9), zxid: zxid(9, 9), leader: server(3) };
    replica.hear(3, looking(2, vote));
    replica.pass(20);
    let (connection, peer) = (ConnectionId(10), server(3));
    replica.step(Event::Connected { connection, peer, outgoing: true });
}

#[test]
fn epoch_is_above_every_one_accepted_by_a_quorum() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.elect();
    replica.learner_connects(1);
    let effects = replica.packet(1, Packet::FollowerInfo(learner_info(6)));
    assert!(
        matches!(effects[..], [Effect::PersistAcceptedEpoch { epoch: Epoch(7), .. }]),
        "LEADERINFO waits for the leader's own promise: {effects:?}"
    );
    let effects = replica.step(Event::Durable(last_ticket(&effects).unwrap()));
    assert_eq!(sent(&effects, 1), [Packet::LeaderInfo { epoch: Epoch(7), counts: true }]);
}

/// ZOOKEEPER-2959.
#[test]
fn observers_epoch_is_ignored_and_observers_make_no_quorum() {
    let mut replica = Replica::with_history(3, 3, 1);
    replica.elect();
    replica.learner_connects(4);
    let effects = replica.packet(4, Packet::ObserverInfo(learner_info(50)));
    assert!(effects.is_empty(), "{effects:?}");
    replica.learner_connects(1);
    let effects = replica.packet(1, Packet::FollowerInfo(learner_info(1)));
    assert!(matches!(effects[..], [Effect::PersistAcceptedEpoch { epoch: Epoch(2), .. }]));
}

#[test]
fn empty_replica_makes_no_quorum_for_an_epoch() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.elect();
    replica.learner_connects(1);
    let info = LearnerInfo { standing: EMPTY, ..learner_info(0) };
    assert!(replica.packet(1, Packet::FollowerInfo(info)).is_empty());
}

#[test]
fn promise_is_told_once_it_is_on_disk() {
    let mut replica = follower_of_3(1, 1);
    let effects = replica.packet(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    assert!(matches!(effects[..], [Effect::PersistAcceptedEpoch { epoch: Epoch(2), .. }]));
    let effects = replica.step(Event::Durable(last_ticket(&effects).unwrap()));
    let [Packet::AckEpoch(ack)] = &sent(&effects, 9)[..] else { panic!("{effects:?}") };
    assert!(ack.is_promise());
    assert_eq!((ack.current_epoch, ack.last_zxid), (Epoch(1), zxid(1, 3)));
}

/// "e = accepted: ACKEPOCH(-1), which does not count as a promise": two candidates may have chosen
/// the same number.
#[test]
fn epoch_promised_to_someone_else_is_not_promised_again() {
    let mut replica = follower_of_3(2, 1);
    let effects = replica.packet(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    let [Packet::AckEpoch(ack)] = &sent(&effects, 9)[..] else { panic!("{effects:?}") };
    assert!(!ack.is_promise());
}

#[test]
fn epoch_below_the_promised_one_is_refused() {
    let mut replica = follower_of_3(3, 1);
    let effects = replica.packet(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    assert_eq!(looked(&effects), Some("the leader's epoch is below the one promised"));
    assert!(sent(&effects, 9).is_empty());
}

#[test]
fn same_leader_may_count_the_promise_again_after_a_reconnect() {
    let mut replica = follower_of_3(1, 1);
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    connect_again(&mut replica);
    let effects = replica.packet(10, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
    let [Packet::AckEpoch(ack)] = &sent(&effects, 10)[..] else { panic!("{effects:?}") };
    assert!(ack.is_promise());
}

#[test]
fn promise_under_way_is_waited_for_also_where_it_does_not_count() {
    let mut replica = follower_of_3(1, 1);
    let info = Packet::LeaderInfo { epoch: Epoch(2), counts: false };
    let promising = replica.packet(9, info.clone());
    connect_again(&mut replica);
    let effects = replica.packet(10, info);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = replica.step(Event::Durable(last_ticket(&promising).unwrap()));
    let [Packet::AckEpoch(ack)] = &sent(&effects, 10)[..] else { panic!("{effects:?}") };
    assert!(!ack.is_promise());
}

#[test]
fn leader_adopts_the_epoch_on_a_quorum_of_promises() {
    let mut replica = Replica::with_history(5, 5, 0);
    replica.step(Event::Start);
    let vote = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: server(5) };
    replica.hear(1, looking(1, vote));
    replica.hear(2, looking(1, vote));
    for id in [1, 2] {
        replica.learner_connects(id);
        replica.packet_and_sync(id.into(), Packet::FollowerInfo(learner_info(1)));
    }
    let ack = Packet::AckEpoch(AckEpoch::forged(Epoch(1), zxid(1, 3)));
    assert!(replica.packet(1, ack.clone()).is_empty(), "two of five");
    let effects = replica.packet(2, ack);
    assert!(
        matches!(effects[0], Effect::PersistCurrentEpoch { epoch: Epoch(2), .. }),
        "{effects:?}"
    );
}

/// "if any acker has (currentEpoch, zxid) greater than its own: abandon leadership".
#[test]
fn leader_that_learns_of_a_more_recent_history_gives_up() {
    for (epoch, last) in [(1, zxid(1, 4)), (2, zxid(1, 1))] {
        let mut replica = Replica::with_history(3, 3, 0);
        replica.elect();
        replica.learner_connects(1);
        replica.packet_and_sync(1, Packet::FollowerInfo(learner_info(2)));
        let ack = AckEpoch::forged(Epoch(epoch), last);
        let effects = replica.packet(1, Packet::AckEpoch(ack));
        assert_eq!(looked(&effects), Some("a follower has a more recent history"));
    }
}

#[test]
fn voter_that_promised_a_later_epoch_brings_about_a_new_one() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.establish();
    replica.learner_connects(2);
    let effects = replica.packet(2, Packet::FollowerInfo(learner_info(5)));
    assert_eq!(looked(&effects), Some("a voter has promised a later epoch"));
}

#[test]
fn learner_with_a_newer_configuration_is_refused() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.elect();
    replica.learner_connects(1);
    let info = LearnerInfo { configuration: zxid(1, 1), ..learner_info(1) };
    let effects = replica.packet(1, Packet::FollowerInfo(info));
    assert!(effects.iter().any(|e| matches!(e, Effect::Disconnect(ConnectionId(1)))));
}

/// What a follower said before we knew that we lead is not lost.
#[test]
fn follower_that_is_quicker_than_the_election_is_heard() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.step(Event::Start);
    replica.learner_connects(1);
    replica.packet(1, Packet::FollowerInfo(learner_info(1)));
    let vote = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: server(3) };
    let effects = replica.hear(1, looking(1, vote));
    assert!(effects.iter().any(|e| matches!(e, Effect::PersistAcceptedEpoch { .. })));
}

#[test]
fn second_connection_of_a_learner_replaces_the_first() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.elect();
    replica.learner_connects(1);
    replica.packet_and_sync(1, Packet::FollowerInfo(learner_info(1)));
    let (connection, peer) = (ConnectionId(77), server(1));
    replica.step(Event::Connected { connection, peer, outgoing: false });
    let effects = replica.packet(77, Packet::FollowerInfo(learner_info(1)));
    assert!(matches!(effects[0], Effect::Disconnect(ConnectionId(1))), "{effects:?}");
    assert_eq!(sent(&effects, 77), [Packet::LeaderInfo { epoch: Epoch(2), counts: true }]);
    assert!(replica.packet(1, Packet::Sync { token: 1 }).is_empty(), "the old one is deaf");
}

#[test]
fn follower_keeps_who_takes_it_for_the_leader_until_it_is_appointed() {
    let introduces = Packet::FollowerInfo(learner_info(1));
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    replica.learner_connects(2);
    assert!(replica.packet(2, introduces.clone()).is_empty());
    let effects = replica.packet(9, Packet::Handover { successor: server(1) });
    assert!(effects.iter().any(|e| matches!(e, Effect::PersistAcceptedEpoch { .. })));

    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    replica.learner_connects(2);
    replica.packet(2, introduces);
    assert_eq!(replica.zab.deadline(), Some(replica.now + 50));
    let effects = replica.pass(50);
    assert!(matches!(effects[..], [Effect::Disconnect(ConnectionId(2))]), "{effects:?}");
}

/// Its voters have not noticed that its disk was replaced.
#[test]
fn replica_without_data_does_not_lead_those_that_have_some() {
    let mut replica = Replica::new(3, 3, 0, &Recovered::default());
    replica.step(Event::Start);
    let vote = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: ServerId(3) };
    replica.hear(1, looking(5, vote));
    replica.hear(2, looking(5, vote));
    assert_eq!(replica.zab.role(), RoleKind::Leading);
    replica.learner_connects(1);
    replica.packet(1, Packet::FollowerInfo(learner_info(1)));
    replica.learner_connects(2);
    let effects = replica.packet(2, Packet::FollowerInfo(learner_info(1)));
    assert_eq!(looked(&effects), Some("this replica has lost the history it was elected for"));
    assert_eq!(last_ticket(&effects), None, "it promises nothing");
}
