//! A member's disk is full: it leaves, the others go on, and it comes back by itself when there is room.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use znodefs::wire::{ConnectRequest, Request};
use znodefs_tests::{Ensemble, SmallDisk, WireClient, wait_until};

use crate::load::{Load, assert_nothing_is_lost};

const SOON: Duration = Duration::from_secs(60);
const MEGABYTES: u64 = 24;

/// What the log of a member says once when its disk is full.
const SAID: &str = "this replica takes no part in the ensemble";

/// Three members, and the small disks of some of them.
fn ensemble_on_small_disks(small: &[u8], settings: &str) -> (Ensemble, Vec<SmallDisk>) {
    let mut ensemble = Ensemble::configure(3, 0, settings);
    let disk = |id: &u8| SmallDisk::mount(&ensemble.data_directory(*id), MEGABYTES);
    let disks = small.iter().map(disk).collect();
    ensemble.ids().into_iter().for_each(|id| ensemble.start_member(id));
    ensemble.ids().into_iter().for_each(|id| ensemble.wait_until_serving(id));
    (ensemble, disks)
}

fn is_full(ensemble: &Ensemble, id: u8) -> bool {
    ensemble.word(id, "srvr").is_some_and(|answer| answer.contains("Disk: full"))
}

fn wait_for_progress(load: &Load) {
    let enough = load.count() + 100;
    wait_until("writes flow", SOON, || load.count() >= enough);
}

#[test]
fn a_leader_and_a_follower_without_room_leave_and_come_back_with_everything() {
    // The highest id leads where all else is equal. Snapshots are tried on the full disk too.
    let (mut ensemble, disks) = ensemble_on_small_disks(&[3], "snapCount=400\n");
    let disk = &disks[0];
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 8);
    wait_for_progress(&load);
    assert_eq!(ensemble.leader(), 3);
    disk.fill();
    wait_until("the leader leaves", SOON, || is_full(&ensemble, 3));
    wait_until("another one leads", SOON, || {
        [1, 2].iter().any(|id| ensemble.role(*id).as_deref() == Some("leader"))
    });
    wait_for_progress(&load);
    assert!(is_full(&ensemble, 3) && ensemble.process(3).exit_status().is_none());
    assert_eq!(ensemble.log_text(3).matches(SAID).count(), 1, "said once");
    disk.free();
    ensemble.wait_until_serving(3);
    wait_for_progress(&load);
    assert_eq!(ensemble.monitored(3, "zk_disk_full").as_deref(), Some("0"));

    // Now it follows.
    assert_eq!(ensemble.role(3).as_deref(), Some("follower"));
    disk.fill();
    wait_until("the follower leaves", SOON, || is_full(&ensemble, 3));
    wait_for_progress(&load);
    // A start finds no room either.
    ensemble.kill(3);
    ensemble.start_member(3);
    wait_until("it waits for room", SOON, || is_full(&ensemble, 3));
    wait_for_progress(&load);
    assert!(ensemble.process(3).exit_status().is_none());
    disk.free();
    ensemble.wait_until_serving(3);
    wait_for_progress(&load);
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
    // What it wrote last was whole: it starts again with it.
    ensemble.kill(3);
    ensemble.start_member(3);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn with_all_disks_full_reads_go_on_where_configured_and_writes_come_back_with_room() {
    let settings = "readonlymode.enabled=true\ntickTime=500\nmaxSessionTimeout=30000\n";
    let (mut ensemble, disks) = ensemble_on_small_disks(&[1, 2, 3], settings);
    let mut client = WireClient::connect(&ensemble.address(1));
    client.create("/a", Some(b"kept"));
    client.create("/big", None);
    disks.iter().for_each(SmallDisk::fill);
    let data = Some(Bytes::from(vec![b'x'; 500_000]));
    let write = Request::SetData { path: "/big", data, version: -1 };
    // What is acknowledged is on two disks; sooner or later none takes more.
    while client.try_call(&write).is_ok_and(|answer| answer.is_ok()) {}
    for id in ensemble.ids() {
        let mut tries = 0;
        wait_until("it serves reads", SOON, || {
            // Those that still had room go on until they have none.
            tries += 1;
            if let Ok(mut client) = WireClient::try_connect(&ensemble.address(id)) {
                let _ = client.try_call(&write);
            }
            ensemble.word(id, "isro").as_deref() == Some("ro")
        });
        let reader = ConnectRequest {
            timeout_ms: 10_000,
            read_only: Some(true),
            ..ConnectRequest::default()
        };
        let mut reader =
            WireClient::connect_with(&ensemble.address(id), &reader).expect("a session");
        assert_eq!(reader.data("/a").as_deref(), Some(&b"kept"[..]));
        assert!(ensemble.process(id).exit_status().is_none());
    }
    disks.iter().for_each(SmallDisk::free);
    for id in ensemble.ids() {
        wait_until("it serves", SOON, || ensemble.word(id, "isro").as_deref() == Some("rw"));
    }
    let mut client = WireClient::connect(&ensemble.address(2));
    assert_eq!(client.call(&write).map(drop), Ok(()));
    assert_eq!(client.data("/a").as_deref(), Some(&b"kept"[..]));
}
