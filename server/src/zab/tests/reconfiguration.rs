//! Reconfiguration: who decides from when to when, who is told, who hands over, and what a crash or a
//! lost leadership leaves of it.

use super::*;

/// A reconfiguration as an entry: "voters 1 2 observers 3".
fn reconfiguration(epoch: u32, counter: u32, voters: &[u32], observers: &[u32]) -> Entry {
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let payload = format!("voters {} observers {}", list(voters), list(observers));
    Entry { zxid: zxid(epoch, counter), payload: Bytes::from(payload) }
}

fn read(entry: &Entry) -> Option<Ensemble> {
    let text = std::str::from_utf8(&entry.payload).ok()?;
    let (voters, observers) = text.strip_prefix("voters ")?.split_once(" observers ")?;
    let ids = |list: &str| -> Vec<ServerId> {
        list.split_whitespace().map(|id| ServerId(id.parse().unwrap())).collect()
    };
    Some(Ensemble::new(entry.zxid, ids(voters), ids(observers)))
}

fn made(counter: u32, voters: &[u32], observers: &[u32]) -> Ensemble {
    read(&reconfiguration(2, counter, voters, observers)).unwrap()
}

fn changeable(mut replica: Replica, proposed: Option<Ensemble>) -> Replica {
    replica.zab = replica.zab.with_configurations(read, proposed);
    replica
}

/// Replica 3 leads epoch 2 of 1, 2 and 3; learner 1 is synchronized.
fn leader() -> Replica {
    let mut leader = changeable(Replica::with_history(3, 3, 0), None);
    leader.establish();
    leader
}

/// A learner comes as far as UPTODATE; the packets it was sent last.
fn synchronize(leader: &mut Replica, id: u32) -> Vec<Packet> {
    leader.learner_connects(id);
    leader.packet(id.into(), Packet::ObserverInfo(learner_info(1)));
    let last = leader.zab.committed();
    leader.packet(id.into(), Packet::AckEpoch(AckEpoch::forged(Epoch(2), last)));
    sent(&leader.packet(id.into(), Packet::Ack(Ack::forged(zxid(2, 0)))), u64::from(id))
}

fn acknowledge(leader: &mut Replica, id: u32, counter: u32) -> Vec<Effect> {
    leader.packet(id.into(), Packet::Ack(Ack::forged(zxid(2, counter))))
}

fn committed(leader: &Replica) -> Zxid {
    leader.zab.committed()
}

#[test]
fn commit_of_a_reconfiguration_needs_a_quorum_of_both_configurations() {
    let mut leader = leader();
    for id in [2, 4, 5] {
        let packets = synchronize(&mut leader, id);
        assert!(matches!(packets[..], [Packet::UpToDate { .. }]), "{packets:?}");
    }
    let new = reconfiguration(2, 1, &[3, 4, 5], &[]);
    let effects = leader.step_and_sync(Event::Propose(vec![new]));
    let joint = |effect: &Effect| matches!(effect, Effect::Configure(QuorumVerifier::Joint { .. }));
    assert!(effects.iter().any(joint), "{effects:?}");
    // The joiners have it, and with the leader they are a majority of the new configuration.
    acknowledge(&mut leader, 4, 1);
    acknowledge(&mut leader, 5, 1);
    assert_eq!(committed(&leader), zxid(1, 3), "nobody of the old configuration but the leader");
    let effects = acknowledge(&mut leader, 1, 1);
    assert_eq!(committed(&leader), zxid(2, 1));
    let configured = effects.iter().position(|effect| matches!(effect, Effect::Configure(_)));
    let delivered = effects.iter().position(|effect| matches!(effect, Effect::Deliver(_)));
    assert!(configured.unwrap() < delivered.unwrap(), "kept before anybody hears of it");
    // From now on the old members do not count.
    leader.step_and_sync(Event::Propose(vec![entry(2, 2)]));
    acknowledge(&mut leader, 1, 2);
    acknowledge(&mut leader, 2, 2);
    assert_eq!(committed(&leader), zxid(2, 1));
    acknowledge(&mut leader, 4, 2);
    assert_eq!(committed(&leader), zxid(2, 2));
}

#[test]
fn old_quorum_alone_does_not_commit_a_reconfiguration() {
    let mut leader = leader();
    synchronize(&mut leader, 4);
    synchronize(&mut leader, 5);
    let new = reconfiguration(2, 1, &[3, 4, 5], &[]);
    leader.step_and_sync(Event::Propose(vec![new, entry(2, 2)]));
    acknowledge(&mut leader, 1, 2);
    assert_eq!(committed(&leader), zxid(1, 3));
    // What was proposed behind it is committed by the new configuration, in the same step.
    acknowledge(&mut leader, 5, 2);
    assert_eq!(committed(&leader), zxid(2, 2));
}

/// One voter alone grows: the joiner's acknowledgement is needed as soon as it is proposed.
#[test]
fn learner_that_gains_a_vote_is_sent_what_is_not_committed() {
    let mut leader = leader();
    let packets = synchronize(&mut leader, 4);
    assert_eq!(packets, [Packet::UpToDate { committed: zxid(1, 3) }]);
    let first = leader.step_and_sync(Event::Propose(vec![entry(2, 1)]));
    assert!(sent(&first, 4).is_empty(), "it hears of what is committed: {first:?}");
    let new = reconfiguration(2, 2, &[1, 3, 4], &[]);
    let effects = leader.step_and_sync(Event::Propose(vec![new.clone()]));
    assert_eq!(sent(&effects, 4), [proposal(&[entry(2, 1)]), proposal(&[new])]);
    acknowledge(&mut leader, 4, 2);
    let effects = acknowledge(&mut leader, 1, 2);
    assert_eq!(sent(&effects, 4), [Packet::Commit { zxid: zxid(2, 2) }]);
}

#[test]
fn observer_acknowledges_from_the_reconfiguration_on_that_gives_it_a_vote() {
    let mut replica = changeable(Replica::with_history(4, 3, 1), None);
    replica.step(Event::Start);
    for id in [2, 3] {
        let state = if id == 3 { PeerState::Leading } else { PeerState::Following };
        let vote = Vote { epoch: Epoch(2), zxid: zxid(1, 3), leader: server(3) };
        replica.hear(id, Notification { state, ..looking(5, vote) });
    }
    let (connection, peer) = (ConnectionId(9), server(3));
    let effects = replica.step(Event::Connected { connection, peer, outgoing: true });
    assert!(matches!(sent(&effects, 9)[..], [Packet::ObserverInfo(_)]), "{effects:?}");
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(2), counts: false });
    replica.packet(9, Packet::Diff { zxid: zxid(1, 3) });
    replica.packet_and_sync(9, Packet::NewLeader { epoch: Epoch(2) });
    replica.packet(9, Packet::UpToDate { committed: zxid(1, 3) });
    let entries = [entry(2, 1)].into();
    let effects = replica.packet_and_sync(9, Packet::Inform { entries });
    assert!(sent(&effects, 9).is_empty(), "no vote, no acknowledgement: {effects:?}");
    let new = reconfiguration(2, 2, &[1, 2, 3, 4], &[]);
    let effects = replica.packet_and_sync(9, proposal(&[new]));
    assert_eq!(sent(&effects, 9), [Packet::Ack(Ack::forged(zxid(2, 2)))]);
    assert_eq!(replica.zab.role(), RoleKind::Following(server(3)));
    // And back: a later INFORM commits no more than it says.
    replica.packet(9, Packet::Commit { zxid: zxid(2, 2) });
    let back = reconfiguration(2, 3, &[1, 2, 3], &[4]);
    replica.packet_and_sync(9, proposal(&[back, entry(2, 4)]));
    replica.packet(9, Packet::Commit { zxid: zxid(2, 3) });
    assert_eq!(replica.zab.role(), RoleKind::Observing(server(3)));
    assert_eq!(replica.zab.delivered(), zxid(2, 3));
}

#[test]
fn truncation_gives_the_old_configuration_back() {
    let old = Ensemble::new(Zxid::ZERO, (1..=3).map(ServerId), []);
    let recovered = recovered(2, 2, zxid(2, 2), zxid(2, 1));
    let proposed = made(2, &[1, 4, 5], &[]);
    let mut replica = changeable(Replica::new(1, 3, 0, &recovered), Some(proposed.clone()));
    assert_eq!(replica.zab.quorum().last_seen(), &proposed);
    assert_eq!(replica.zab.quorum().committed(), &old);
    // 2 and 3 go on without it: a quorum of the old configuration is enough to follow.
    replica.step(Event::Start);
    let vote = Vote { epoch: Epoch(3), zxid: zxid(3, 1), leader: server(3) };
    replica.hear(3, Notification { state: PeerState::Leading, ..looking(7, vote) });
    replica.hear(4, Notification { state: PeerState::Following, ..looking(7, vote) });
    assert_eq!(replica.zab.role(), RoleKind::Looking, "no quorum of either");
    replica.hear(2, Notification { state: PeerState::Following, ..looking(7, vote) });
    assert_eq!(replica.zab.role(), RoleKind::Following(server(3)));
    let (connection, peer) = (ConnectionId(9), server(3));
    replica.step(Event::Connected { connection, peer, outgoing: true });
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(4), counts: true });
    let effects = replica.packet_and_sync(9, Packet::Trunc { zxid: zxid(2, 1) });
    let configured = effects.iter().find_map(|effect| match effect {
        Effect::Configure(quorum) => Some(quorum),
        _ => None,
    });
    assert_eq!(configured, Some(&QuorumVerifier::Majority(old)));
}

/// A crash between proposal and commit: what the log ends with may have been committed by both, so
/// both are asked.
#[test]
fn election_with_a_pending_reconfiguration_needs_both_configurations() {
    let recovered = recovered(2, 2, zxid(2, 2), zxid(2, 1));
    let proposed = made(2, &[3, 4, 5], &[]);
    let mut replica = changeable(Replica::new(3, 3, 0, &recovered), Some(proposed.clone()));
    let effects = replica.step(Event::Start);
    let (to, _) = notified(&effects).remove(0);
    assert_eq!(to, [1, 2, 4, 5], "everyone whose vote counts is asked");
    let round = replica.zab.election.round();
    let vote = Vote { epoch: Epoch(2), zxid: zxid(2, 2), leader: server(3) };
    replica.hear(1, looking(round, vote));
    replica.hear(2, looking(round, vote));
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Looking, "no vote of the new configuration");
    replica.hear(4, looking(round, vote));
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Leading);
    // So does the promise, and the new epoch; member 4 does not know that it votes.
    replica.learner_connects(1);
    let info = LearnerInfo { accepted_epoch: Epoch(2), ..learner_info(2) };
    replica.packet_and_sync(1, Packet::FollowerInfo(info.clone()));
    assert_eq!(replica.zab.accepted_epoch(), Epoch(2), "1 and 3 are no quorum of both");
    replica.learner_connects(4);
    let old = LearnerInfo { configuration: Zxid::ZERO, ..info };
    let joiner_knows_less = replica.packet_and_sync(4, Packet::ObserverInfo(old));
    assert_eq!(replica.zab.accepted_epoch(), Epoch(3), "{joiner_knows_less:?}");
    for id in [1, 4] {
        let ack = AckEpoch::forged(Epoch(2), zxid(2, 2));
        replica.packet_and_sync(id, Packet::AckEpoch(ack));
    }
    replica.packet_and_sync(1, Packet::Ack(Ack::forged(zxid(3, 0))));
    assert!(!replica.zab.is_serving());
    replica.packet_and_sync(4, Packet::Ack(Ack::forged(zxid(3, 0))));
    assert!(replica.zab.is_serving());
    assert_eq!(replica.zab.quorum(), &QuorumVerifier::Majority(proposed));
}

#[test]
fn replica_without_a_vote_repeats_the_best_one_it_hears() {
    let mut replica = Replica::with_history(4, 3, 1);
    replica.step(Event::Start);
    let round = replica.zab.election.round();
    let vote =
        |epoch, leader| Vote { epoch: Epoch(epoch), zxid: zxid(1, 3), leader: server(leader) };
    for (from, heard, told) in [(1, vote(1, 1), 1), (3, vote(2, 3), 3), (2, vote(1, 2), 3)] {
        let effects = replica.hear(from, looking(round, heard));
        let told_last = notified(&effects).pop().map(|(_, notification)| notification.vote.leader);
        assert_eq!(told_last, Some(server(told)), "after {from}");
    }
    assert_eq!(replica.zab.role(), RoleKind::Looking, "it decides nothing");
}

#[test]
fn committed_configuration_is_learned_from_notifications_by_who_looks() {
    let mut replica = Replica::with_history(4, 1, 0);
    replica.step(Event::Start);
    let newer = made(7, &[1, 2, 3], &[]).described("server.1=…");
    let vote = Vote { epoch: Epoch(2), zxid: zxid(2, 9), leader: server(3) };
    let told = |state, standing| Notification {
        state,
        standing,
        configuration: newer.clone(),
        ..looking(9, vote)
    };
    replica.hear(2, told(PeerState::Following, EMPTY));
    assert_eq!(
        replica.zab.quorum().committed().version,
        Zxid::ZERO,
        "of another ensemble, perhaps"
    );
    let effects = replica.hear(2, told(PeerState::Following, INITIALIZED));
    let learned = QuorumVerifier::Majority(newer.clone());
    assert!(effects.iter().any(|e| matches!(e, Effect::Configure(quorum) if *quorum == learned)));
    replica.hear(3, told(PeerState::Leading, INITIALIZED));
    assert_eq!(replica.zab.role(), RoleKind::Observing(server(3)), "it is no member");
}

#[test]
fn snapshot_brings_its_configuration() {
    let proposed = made(2, &[1, 4, 5], &[]);
    let recovered = recovered(2, 2, zxid(2, 2), zxid(2, 1));
    let mut replica = changeable(Replica::new(1, 3, 0, &recovered), Some(proposed));
    replica.step(Event::Start);
    let vote = Vote { epoch: Epoch(3), zxid: zxid(3, 9), leader: server(3) };
    replica.hear(3, Notification { state: PeerState::Leading, ..looking(7, vote) });
    replica.hear(2, Notification { state: PeerState::Following, ..looking(7, vote) });
    let (connection, peer) = (ConnectionId(9), server(3));
    replica.step(Event::Connected { connection, peer, outgoing: true });
    replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(4), counts: true });
    let configuration = Ensemble::new(zxid(3, 1), [3, 6, 7].map(ServerId), []);
    let snap = Packet::Snap { zxid: zxid(3, 9), configuration: configuration.clone() };
    replica.packet(9, snap);
    assert_eq!(replica.zab.quorum(), &QuorumVerifier::Majority(configuration));
}

/// A leader whose reconfiguration comes to nothing: the next one has not got it.
#[test]
fn deposed_leader_takes_its_reconfiguration_back() {
    let mut leader = leader();
    synchronize(&mut leader, 4);
    leader.step_and_sync(Event::Propose(vec![reconfiguration(2, 1, &[1, 2, 3, 4], &[])]));
    let effects = leader.step(Event::Disconnected(ConnectionId(1)));
    assert_eq!(looked(&effects), Some("the quorum of followers is lost"));
    assert!(leader.zab.quorum().is_joint(), "it is in the log, whoever leads");
    let vote = Vote { epoch: Epoch(1), zxid: zxid(3, 1), leader: server(2) };
    leader.hear(2, Notification { state: PeerState::Leading, ..looking(7, vote) });
    leader.hear(1, Notification { state: PeerState::Following, ..looking(7, vote) });
    assert_eq!(leader.zab.role(), RoleKind::Following(server(2)));
    let (connection, peer) = (ConnectionId(9), server(2));
    leader.step(Event::Connected { connection, peer, outgoing: true });
    leader.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(3), counts: true });
    leader.packet_and_sync(9, Packet::Trunc { zxid: zxid(1, 3) });
    assert_eq!(leader.zab.quorum().last_seen().version, Zxid::ZERO);
    assert!(!leader.zab.quorum().is_joint());
}

#[test]
fn leader_that_loses_its_vote_hands_over_when_the_others_have_the_reconfiguration() {
    let mut leader = leader();
    synchronize(&mut leader, 2);
    leader.step_and_sync(Event::Propose(vec![reconfiguration(2, 1, &[1, 2], &[])]));
    acknowledge(&mut leader, 1, 1);
    assert_eq!(leader.zab.role(), RoleKind::Leading, "2 has not got it");
    let effects = acknowledge(&mut leader, 2, 1);
    let handover = Packet::Handover { successor: server(2) };
    assert_eq!(sent(&effects, 1).last(), Some(&handover));
    let delivers = effects.iter().position(|effect| matches!(effect, Effect::Deliver(_)));
    let stops = effects.iter().position(|effect| matches!(effect, Effect::StopServing));
    assert!(delivers < stops, "who asked for it is answered first: {effects:?}");
    assert_eq!(leader.zab.role(), RoleKind::Observing(server(2)));
}

#[test]
fn leader_that_loses_its_vote_does_not_wait_for_long() {
    let mut leader = leader();
    synchronize(&mut leader, 2);
    synchronize(&mut leader, 4);
    let new = reconfiguration(2, 1, &[1, 2, 4], &[3]);
    leader.step_and_sync(Event::Propose(vec![new]));
    acknowledge(&mut leader, 1, 1);
    acknowledge(&mut leader, 2, 1);
    assert_eq!(leader.zab.role(), RoleKind::Leading);
    let wait = leader.zab.deadline().unwrap() - leader.now;
    assert!(wait <= 20, "{wait} ms");
    let effects = leader.pass(wait);
    assert!(sent(&effects, 4).contains(&Packet::Handover { successor: server(2) }));
    assert_eq!(leader.zab.role(), RoleKind::Observing(server(2)));
}

#[test]
fn stranger_with_a_newer_configuration_is_turned_away_and_deposes_nobody() {
    let mut leader = leader();
    leader.learner_connects(9);
    let info = LearnerInfo { configuration: zxid(9, 9), ..learner_info(1) };
    let effects = leader.packet(9, Packet::ObserverInfo(info));
    assert!(matches!(effects[..], [Effect::Disconnect(ConnectionId(9))]), "{effects:?}");
    assert!(leader.zab.is_serving());
}

#[test]
fn only_who_is_synchronized_may_be_made_a_voter() {
    let mut leader = leader();
    leader.learner_connects(4);
    leader.packet(4, Packet::ObserverInfo(learner_info(1)));
    assert_eq!(leader.zab.synced()[..], [server(1), server(3)]);
    synchronize(&mut leader, 5);
    assert_eq!(leader.zab.synced()[..], [server(1), server(3), server(5)]);
}

/// Two leaders may know that a replica votes when it does not know itself: what it promised to one
/// it keeps against the other.
#[test]
fn promise_that_a_leader_counts_is_kept_by_who_does_not_know_of_its_vote() {
    let recovered = recovered(7, 5, zxid(5, 1), zxid(5, 1));
    let follow = |counts| {
        let mut replica = changeable(Replica::new(4, 3, 1, &recovered), None);
        replica.step(Event::Start);
        for id in [2, 3] {
            let state = if id == 3 { PeerState::Leading } else { PeerState::Following };
            let vote = Vote { epoch: Epoch(6), zxid: zxid(6, 1), leader: server(3) };
            replica.hear(id, Notification { state, ..looking(5, vote) });
        }
        let (connection, peer) = (ConnectionId(9), server(3));
        replica.step(Event::Connected { connection, peer, outgoing: true });
        replica.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(6), counts })
    };
    assert_eq!(looked(&follow(true)), Some("the leader's epoch is below the one promised"));
    let effects = follow(false);
    assert_eq!(looked(&effects), None);
    let Packet::AckEpoch(ack) = &sent(&effects, 9)[0] else { panic!("{effects:?}") };
    assert!(!ack.is_promise());
}

/// What somebody says who looks for a leader and knows this to be the configuration.
fn looking_with(configuration: Ensemble) -> Notification {
    let vote = Vote { epoch: Epoch(1), zxid: zxid(1, 3), leader: ServerId(2) };
    Notification { configuration, ..looking(1, vote) }
}

#[test]
fn replica_that_learns_while_it_looks_that_it_votes_alone_decides() {
    let mut replica = changeable(Replica::with_history(1, 2, 0), None);
    replica.step(Event::Start);
    assert_eq!(replica.zab.role(), RoleKind::Looking, "it needs the vote of 2");
    replica.hear(2, looking_with(made(5, &[1], &[2])));
    assert_eq!(replica.zab.role(), RoleKind::Leading);
}

#[test]
fn replica_that_has_lost_its_data_forms_no_ensemble_where_there_is_one() {
    let mut replica = changeable(Replica::new(2, 3, 0, &Recovered::default()), None);
    replica.step(Event::Start);
    // Of long ago: the other does not know either what came after.
    replica.hear(3, looking_with(made(5, &[2], &[1, 3])));
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Looking);
}

#[test]
fn of_equal_histories_that_of_a_voter_whom_everybody_knows_is_preferred() {
    let proposed = Some(made(1, &[1, 3], &[]));
    let at_reconfiguration = recovered(2, 2, zxid(2, 1), zxid(1, 3));
    let mut replica = changeable(Replica::new(2, 2, 0, &at_reconfiguration), proposed);
    replica.step(Event::Start);
    let vote = |leader| Vote { epoch: Epoch(2), zxid: zxid(2, 1), leader: ServerId(leader) };
    let effects = replica.hear(3, looking(1, vote(3)));
    assert_eq!(notified(&effects), [(vec![3], looking(1, vote(2)))], "3 votes only by the new one");
    let longer = Vote { zxid: zxid(2, 2), ..vote(3) };
    let effects = replica.hear(3, looking(1, longer));
    assert_eq!(notified(&effects), [(vec![1, 3], looking(1, longer))]);
}
