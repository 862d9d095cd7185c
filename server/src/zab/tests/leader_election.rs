//! Fast leader election: who is voted for, when a vote is decided, whose vote counts.

use super::*;

fn vote(epoch: u32, last: Zxid, leader: u32) -> Vote {
    Vote { epoch: Epoch(epoch), zxid: last, leader: ServerId(leader) }
}

fn settled(state: PeerState, round: u64, leader: u32) -> Notification {
    Notification { state, ..looking(round, vote(1, zxid(1, 3), leader)) }
}

#[test]
fn replica_that_starts_votes_for_itself() {
    let mut replica = Replica::with_history(2, 3, 1);
    let effects = replica.step(Event::Start);
    let expected = looking(1, vote(1, zxid(1, 3), 2));
    assert_eq!(notified(&effects), [(vec![1, 3], expected)]);
}

#[test]
fn single_voter_leads_and_serves_without_asking_anyone() {
    let mut replica = Replica::new(1, 1, 0, &Recovered::default());
    let effects = replica.step_and_sync(Event::Start);
    assert!(replica.zab.is_serving(), "{effects:?}");
    assert_eq!(replica.zab.next_zxid(), Some(zxid(1, 1)));
}

#[test]
fn greater_vote_is_adopted_and_told_to_everyone() {
    let mut replica = Replica::with_history(2, 5, 0);
    replica.step(Event::Start);
    let better = vote(1, zxid(1, 4), 1);
    let effects = replica.hear(1, looking(1, better));
    assert_eq!(notified(&effects), [(vec![1, 3, 4, 5], looking(1, better))]);
}

#[test]
fn smaller_vote_is_answered_with_our_own() {
    let mut replica = Replica::with_history(2, 5, 0);
    replica.step(Event::Start);
    let effects = replica.hear(5, looking(1, vote(1, zxid(1, 2), 5)));
    assert_eq!(notified(&effects), [(vec![5], looking(1, vote(1, zxid(1, 3), 2)))]);
}

/// "higher round: adopt it, clear received votes, re-vote max(own initial, received)".
#[test]
fn later_round_starts_the_election_anew() {
    let mut replica = Replica::with_history(2, 5, 0);
    replica.step(Event::Start);
    replica.hear(1, looking(1, vote(1, zxid(1, 9), 1)));
    let effects = replica.hear(3, looking(7, vote(1, zxid(1, 1), 3)));
    let expected = looking(7, vote(1, zxid(1, 3), 2));
    assert_eq!(notified(&effects), [(vec![1, 3, 4, 5], expected)], "the vote of round 1 is gone");
}

#[test]
fn earlier_round_is_answered_and_not_counted() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.step(Event::Start);
    replica.hear(1, looking(5, vote(1, zxid(1, 1), 1)));
    let effects = replica.hear(2, looking(4, vote(1, zxid(1, 3), 3)));
    assert_eq!(notified(&effects), [(vec![2], looking(5, vote(1, zxid(1, 3), 3)))]);
    assert_eq!(replica.zab.role(), RoleKind::Looking);
}

#[test]
fn wait_for_a_better_vote_ends_when_every_reachable_voter_has_spoken() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.step(Event::Start);
    replica.step(Event::LinkUp(server(1)));
    let own = vote(1, zxid(1, 3), 3);
    replica.hear(1, looking(1, own));
    assert_eq!(replica.zab.role(), RoleKind::Leading, "2 is not reachable");

    let mut replica = Replica::with_history(3, 3, 0);
    replica.step(Event::Start);
    replica.step(Event::LinkUp(server(1)));
    replica.step(Event::LinkUp(server(2)));
    replica.hear(1, looking(1, own));
    assert_eq!(replica.zab.role(), RoleKind::Looking, "2 may know better");
    replica.step(Event::LinkDown(server(2)));
    assert_eq!(replica.zab.role(), RoleKind::Leading);
}

#[test]
fn wait_for_a_better_vote_lasts_twenty_milliseconds_at_most() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.step(Event::Start);
    replica.step(Event::LinkUp(server(2)));
    replica.hear(1, looking(1, vote(1, zxid(1, 3), 3)));
    assert_eq!(replica.zab.deadline(), Some(replica.now + 20));
    replica.pass(19);
    assert_eq!(replica.zab.role(), RoleKind::Looking);
    replica.pass(1);
    assert_eq!(replica.zab.role(), RoleKind::Leading);
}

#[test]
fn better_vote_during_the_wait_ends_it() {
    let mut replica = Replica::with_history(3, 5, 0);
    replica.step(Event::Start);
    replica.step(Event::LinkUp(server(5)));
    replica.hear(1, looking(1, vote(1, zxid(1, 3), 3)));
    replica.hear(2, looking(1, vote(1, zxid(1, 3), 3)));
    replica.hear(4, looking(1, vote(1, zxid(1, 4), 4)));
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Looking, "only two vote for 4");
}

/// "Observers get an immediate answer; their votes are never counted."
#[test]
fn vote_of_an_observer_is_answered_and_not_counted() {
    let mut replica = Replica::with_history(3, 3, 2);
    replica.step(Event::Start);
    let effects = replica.hear(4, looking(1, vote(1, zxid(1, 3), 3)));
    assert_eq!(notified(&effects).len(), 1);
    assert_eq!(replica.zab.role(), RoleKind::Looking);
}

#[test]
fn later_round_of_an_observer_is_taken_over_so_that_answers_end() {
    let mut replica = Replica::with_history(3, 3, 1);
    replica.step(Event::Start);
    let effects = replica.hear(4, looking(7, vote(1, zxid(1, 3), 2)));
    let expected = looking(7, vote(1, zxid(1, 3), 3));
    assert_eq!(notified(&effects), [(vec![1, 2], expected.clone()), (vec![4], expected)]);
}

#[test]
fn replicas_without_a_vote_do_not_answer_each_other_for_ever() {
    let mut replica = Replica::with_history(4, 3, 2);
    replica.step(Event::Start);
    let other = looking(1, vote(1, zxid(1, 3), 5));
    assert_eq!(notified(&replica.hear(5, other.clone())).len(), 1, "it may count our vote");
    assert_eq!(notified(&replica.hear(5, other)), []);
}

#[test]
fn same_answer_is_not_given_again_at_once() {
    let mut replica = Replica::with_history(3, 5, 0);
    replica.step(Event::Start);
    let smaller = looking(1, vote(1, zxid(1, 2), 1));
    assert_eq!(notified(&replica.hear(1, smaller.clone())).len(), 1);
    assert_eq!(notified(&replica.hear(1, smaller.clone())), [], "it has its answer");
    assert_eq!(notified(&replica.hear(2, smaller.clone())).len(), 1, "another has not");
    replica.now += 25;
    assert_eq!(notified(&replica.hear(1, smaller.clone())).len(), 1, "it may be lost");
    replica.hear(5, looking(1, vote(1, zxid(1, 4), 5)));
    assert_eq!(notified(&replica.hear(1, smaller)).len(), 1, "that is another answer");
}

/// A quorum of both configurations may need the vote of one that has not heard of the new one.
#[test]
fn one_that_is_no_voter_here_is_voted_for_when_its_history_is_longer() {
    let mut replica = Replica::with_history(3, 3, 1);
    replica.step(Event::Start);
    let equal = vote(1, zxid(1, 3), 4);
    assert_eq!(notified(&replica.hear(1, looking(1, equal))), []);
    assert_eq!(replica.zab.role(), RoleKind::Looking);
    replica.hear(1, looking(1, vote(1, zxid(1, 4), 4)));
    assert_eq!(replica.zab.role(), RoleKind::Following(server(4)));
}

#[test]
fn empty_replicas_vote_does_not_count() {
    let mut replica = Replica::with_history(3, 3, 0);
    replica.step(Event::Start);
    let empty = Notification { standing: EMPTY, ..looking(1, vote(1, zxid(1, 3), 3)) };
    replica.hear(1, empty.clone());
    replica.hear(2, empty);
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Looking, "two voters have lost their data");
    replica.hear(2, looking(1, vote(1, zxid(1, 3), 3)));
    assert_eq!(replica.zab.role(), RoleKind::Leading);
}

#[test]
fn new_ensemble_forms_when_all_its_voters_are_there_and_empty() {
    let mut replica = Replica::new(3, 3, 0, &Recovered::default());
    replica.step(Event::Start);
    let empty = Notification { standing: EMPTY, ..looking(1, vote(0, Zxid::ZERO, 3)) };
    replica.hear(1, empty.clone());
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Looking, "2 may have data");
    replica.hear(2, empty);
    assert_eq!(replica.zab.role(), RoleKind::Leading);
}

#[test]
fn operator_can_vouch_for_empty_replicas() {
    let initialize = Recovered { initialize: true, ..Recovered::default() };
    let mut replica = Replica::new(3, 3, 0, &initialize);
    replica.step(Event::Start);
    let standing = Standing { initialized: true, has_data: false };
    replica.hear(1, Notification { standing, ..looking(1, vote(0, Zxid::ZERO, 3)) });
    assert_eq!(replica.zab.role(), RoleKind::Leading);
}

#[test]
fn a_replica_whose_disk_lost_something_is_neither_counted_nor_taken_for_empty() {
    for last in [Zxid::ZERO, zxid(1, 2)] {
        let lost = Recovered {
            accepted_epoch: Epoch(1),
            last_logged: last,
            incomplete: true,
            initialize: true,
            ..Recovered::default()
        };
        let mut replica = Replica::new(3, 3, 0, &lost);
        replica.step(Event::Start);
        for id in [1, 2] {
            replica
                .hear(id, Notification { standing: EMPTY, ..looking(1, vote(0, Zxid::ZERO, 3)) });
        }
        replica.pass(20);
        assert_eq!(replica.zab.role(), RoleKind::Looking, "others may have lost it as well");
        replica.hear(1, looking(1, vote(1, zxid(1, 3), 1)));
        replica.pass(20);
        assert_eq!(replica.zab.role(), RoleKind::Looking, "one vote of three that counts");
        replica.hear(2, looking(1, vote(1, zxid(1, 3), 1)));
        assert_eq!(replica.zab.role(), RoleKind::Following(server(1)));
    }
}

/// "Join when a quorum of such votes name the same leader and the leader itself has said LEADING."
#[test]
fn zookeeper_1818_and_1732_item_30_latecomer_joins_a_leader_that_says_it_leads() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.step(Event::Start);
    replica.hear(2, settled(PeerState::Following, 40, 3));
    assert_eq!(replica.zab.role(), RoleKind::Looking);
    let other = Notification { vote: vote(2, zxid(2, 7), 3), ..settled(PeerState::Leading, 41, 3) };
    let effects = replica.hear(3, other);
    assert_eq!(replica.zab.role(), RoleKind::Following(server(3)), "zxid and round may differ");
    assert!(matches!(effects.last(), Some(Effect::ChangeRole { .. })), "{effects:?}");
    assert!(effects.iter().any(|e| matches!(e, Effect::Connect { peer: ServerId(3) })));
}

#[test]
fn leader_that_nobody_follows_is_not_joined() {
    let mut replica = Replica::with_history(1, 5, 0);
    replica.step(Event::Start);
    replica.hear(3, settled(PeerState::Leading, 40, 3));
    replica.hear(2, settled(PeerState::Following, 40, 3));
    assert_eq!(replica.zab.role(), RoleKind::Looking, "two of five");
}

#[test]
fn settled_replica_answers_whoever_looks() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    let effects = replica.hear(2, looking(70, vote(1, zxid(1, 1), 2)));
    let [(to, notification)] = &notified(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((to.as_slice(), notification.state), ([2].as_slice(), PeerState::Following));
    assert_eq!(notification.vote.leader, server(3));
    assert_eq!(notification.vote.epoch, Epoch(2), "as every member tells it (ZOOKEEPER-1732)");
    assert!(replica.zab.is_serving());
}

#[test]
fn observer_follows_and_never_votes() {
    let mut replica = Replica::with_history(4, 3, 1);
    replica.step(Event::Start);
    replica.hear(1, looking(1, vote(1, zxid(1, 3), 3)));
    replica.hear(2, looking(1, vote(1, zxid(1, 3), 3)));
    replica.pass(20);
    assert_eq!(replica.zab.role(), RoleKind::Looking);
    replica.hear(2, settled(PeerState::Following, 1, 3));
    replica.hear(3, settled(PeerState::Leading, 1, 3));
    assert_eq!(replica.zab.role(), RoleKind::Observing(server(3)));
}

#[test]
fn unanswered_vote_is_told_again_at_growing_intervals() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.step(Event::Start);
    let mut intervals = Vec::new();
    for _ in 0..8 {
        let deadline = replica.zab.deadline().unwrap();
        intervals.push(deadline - replica.now);
        let effects = replica.pass(deadline - replica.now);
        assert_eq!(notified(&effects).len(), 1);
    }
    assert!(intervals[0] >= 37 && intervals[0] <= 63, "{intervals:?}");
    assert!(intervals[7] >= 750 && intervals[7] <= 1_250, "{intervals:?}");
}
