//! A disk that is full: the replica leaves, takes part in nothing, and comes back with what it has.

use super::*;

fn on_disk(epoch: u32, last: Zxid, delivered: Zxid) -> Event {
    let epoch = Epoch(epoch);
    Event::DiskHasRoom(OnDisk {
        accepted_epoch: epoch,
        current_epoch: epoch,
        last_logged: last,
        delivered,
    })
}

#[test]
fn leader_without_room_hands_over_and_stops_serving() {
    let mut leader = Replica::with_history(3, 3, 0);
    leader.establish();
    leader.join(2);
    leader.packet(2, Packet::Ack(Ack::forged(zxid(2, 0))));
    leader.step(Event::Propose(vec![entry(2, 1)]));
    leader.packet(2, Packet::Ack(Ack::forged(zxid(2, 1))));
    let effects = leader.step(Event::DiskFull);
    for follower in [1, 2] {
        assert_eq!(sent(&effects, follower), [Packet::Handover { successor: server(2) }]);
    }
    assert!(effects.iter().any(|effect| matches!(effect, Effect::StopServing)));
    assert_eq!(looked(&effects), Some("the disk is full"));
    assert_eq!((leader.zab.role(), leader.zab.next_zxid()), (RoleKind::Looking, None));
}

#[test]
fn replica_without_room_is_silent_and_votes_for_nobody() {
    let mut replica = Replica::with_history(1, 3, 0);
    replica.follow_to_broadcast();
    replica.step(Event::DiskFull);
    assert_eq!(replica.zab.deadline(), None);
    let vote = Vote { epoch: Epoch(9), zxid: zxid(9, 9), leader: server(3) };
    assert!(replica.hear(3, looking(50, vote)).is_empty());
    assert!(replica.step(Event::LinkUp(server(2))).is_empty());
    let connected =
        Event::Connected { connection: ConnectionId(4), peer: server(2), outgoing: false };
    let effects = replica.step(connected);
    assert!(matches!(effects[..], [Effect::Disconnect(ConnectionId(4))]), "{effects:?}");
    let effects = replica.step(Event::Shutdown);
    assert!(matches!(effects.last(), Some(Effect::Retired)));
}

#[test]
fn what_the_disk_did_not_take_is_neither_acknowledged_nor_voted_with() {
    let mut follower = Replica::with_history(1, 3, 0);
    follower.follow_to_broadcast();
    let last = follower.zab.last_logged();
    let proposal = Packet::Proposal { entries: vec![entry(2, 1), entry(2, 2)].into() };
    let effects = follower.packet(9, proposal);
    assert!(sent(&effects, 9).is_empty(), "nothing is durable yet");
    follower.packet(9, Packet::Commit { zxid: zxid(2, 2) });
    assert_eq!(follower.zab.last_logged(), zxid(2, 2));
    follower.step(Event::DiskFull);
    // The first of the two had reached the disk unheard.
    let effects = follower.step(on_disk(2, zxid(2, 1), last));
    assert_eq!(follower.zab.role(), RoleKind::Looking);
    assert_eq!((follower.zab.last_logged(), follower.zab.delivered()), (zxid(2, 1), last));
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Notify { notification, .. } => Some(notification.vote),
        _ => None,
    });
    assert_eq!(told, Some(Vote { epoch: Epoch(2), zxid: zxid(2, 1), leader: server(1) }));
}

#[test]
fn epoch_that_found_no_room_was_never_promised() {
    let mut follower = Replica::with_history(1, 3, 0);
    follower.follow(3);
    let effects = follower.packet(9, Packet::LeaderInfo { epoch: Epoch(5), counts: true });
    assert!(sent(&effects, 9).is_empty() && follower.zab.accepted_epoch() == Epoch(5));
    follower.step(Event::DiskFull);
    let last = follower.zab.last_logged();
    follower.step(on_disk(1, last, Zxid::ZERO));
    assert_eq!(follower.zab.accepted_epoch(), Epoch(1));
}
