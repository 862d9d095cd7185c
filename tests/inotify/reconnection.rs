//! What others change while a mount is cut off from its servers is announced once it is back.

use std::time::Duration;

use znodefs_tests::{DebianZooKeeper, Mount, Proxy, Server, Znoded, wait_for, wait_until};

use crate::fixture::{Inotifywait, LIMIT};

/// A mount through a proxy, which can be cut off, and one that is not.
struct CutOff {
    here: Mount,
    there: Mount,
    proxy: Proxy,
    // Last, so that it ends after its clients.
    _server: Box<dyn Server>,
}

impl CutOff {
    fn new(server: impl Server + 'static, session_timeout: &str) -> CutOff {
        let proxy = Proxy::of(&server.address());
        let option = format!("timeout={session_timeout}");
        let here = Mount::of(proxy.address(), &["-o", &option]);
        let there = Mount::of(&server.address(), &[]);
        CutOff { here, there, proxy, _server: Box::new(server) }
    }

    fn wait_for_state(&self, state: &str) {
        let file = self.here.join("@status/state");
        let is_so = || std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == state);
        wait_until(&format!("the mount is {state}"), LIMIT, is_so);
    }

    fn cut(&self) {
        self.proxy.cut();
        self.wait_for_state("suspended");
    }

    fn mend(&self) {
        self.proxy.mend();
        self.wait_for_state("connected");
    }
}

fn count(events: &[String], event: &str) -> usize {
    events.iter().filter(|known| *known == event).count()
}

const BEFORE: &str = "mkdir -p d/going d/staying d/turning; echo 1 > d/file; echo 1 > d/same; \
                      echo 1 > d/replaced; echo 1 > d/gone; mkdir -p d/of-data/child; echo 1 > d/of-data/@data";
const MEANWHILE: &str = "rmdir d/going; rmdir d/turning; echo now a file > d/turning; \
                         echo 2 > d/file; rm d/replaced; echo 2 > d/replaced; rm d/gone; \
                         mkdir d/new; echo x > d/new/inside; touch d/made; \
                         echo brief > d/brief; rm d/brief; echo 2 > d/of-data/@data";

/// Every event that MEANWHILE has to cause, exactly once each.
const EXPECTED: [&str; 11] = [
    "DELETE,ISDIR going",
    "DELETE,ISDIR turning",
    "CREATE turning",
    "MODIFY file",
    "DELETE replaced",
    "CREATE replaced",
    "DELETE gone",
    "CREATE,ISDIR new",
    "CREATE made",
    "MODIFY of-data/@data",
    "CREATE new/inside",
];

fn everything_is_announced_after_an_outage(mounts: &CutOff, outage: impl FnOnce()) {
    mounts.there.sh(BEFORE).ok();
    // Nobody here has looked at what is in it.
    let watching = Inotifywait::of(&mounts.here.join("d"));
    // Each directory is replayed in order: what came before is told once these are.
    mounts.there.sh("touch d/quiet d/of-data/quiet").ok();
    watching.wait_for("CREATE of-data/quiet");
    let before = watching.wait_for("CREATE quiet").len();
    mounts.cut();
    mounts.there.sh(MEANWHILE).ok();
    outage();
    mounts.mend();
    // What is in a new directory nobody was looking at; inotifywait looks as soon as it hears of it.
    let wanted = &EXPECTED[..EXPECTED.len() - 1];
    for event in wanted {
        let is_told = || count(&watching.events()[before..], event) > 0;
        wait_until(&format!("{event} is announced"), LIMIT, is_told);
    }
    mounts.there.sh("touch d/last").ok();
    let events = &watching.wait_for("CREATE last")[before..];
    for event in wanted {
        assert_eq!(count(events, event), 1, "{event} in {events:#?}");
    }
    for name in ["same", "staying", "brief"] {
        assert!(!events.iter().any(|event| event.contains(name)), "{name} in {events:#?}");
    }
    let here = mounts.here.sh("cat d/turning d/file d/replaced d/of-data/@data; ls d").ok();
    assert_eq!(here, mounts.there.sh("cat d/turning d/file d/replaced d/of-data/@data; ls d").ok());
}

#[test]
fn changes_during_a_short_outage_are_announced() {
    let mounts = CutOff::new(Znoded::start(), "20s");
    everything_is_announced_after_an_outage(&mounts, || {});
}

#[test]
fn changes_during_a_short_outage_are_announced_zookeeper() {
    let mounts = CutOff::new(DebianZooKeeper::start(), "20s");
    everything_is_announced_after_an_outage(&mounts, || {});
}

#[test]
fn changes_are_announced_after_the_session_was_lost() {
    let mounts = CutOff::new(Znoded::start(), "2s");
    mounts.here.sh("touch own@eph").ok();
    let id = mounts.here.sh("grep id @status/session").ok();
    let watching = Inotifywait::of(&mounts.here);
    everything_is_announced_after_an_outage(&mounts, || {
        let expired = || mounts.there.sh("test -e own").code != 0;
        wait_until("the session has expired", LIMIT, expired);
    });
    watching.wait_for("DELETE own");
    assert_ne!(mounts.here.sh("grep id @status/session").ok(), id);
}

#[test]
fn files_that_are_open_and_watched_tell_of_what_happened_to_them() {
    let mounts = CutOff::new(Znoded::start(), "20s");
    mounts.there.sh("echo 1 > changed; echo 1 > deleted; echo 1 > same").ok();
    let open = std::fs::File::open(mounts.here.join("deleted")).expect("an open file");
    let watching: Vec<_> = ["changed", "deleted", "same"]
        .iter()
        .map(|name| Inotifywait::of(&mounts.here.join(name)))
        .collect();
    mounts.cut();
    mounts.there.sh("echo 2 > changed; rm deleted").ok();
    mounts.mend();
    watching[0].wait_for("MODIFY .");
    watching[1].wait_for("ATTRIB .");
    drop(open);
    watching[1].wait_for("DELETE_SELF .");
    assert_eq!(watching[2].events(), Vec::<String>::new());
}

#[test]
fn the_state_of_the_session_is_announced() {
    let mounts = CutOff::new(Znoded::start(), "3s");
    let watching = Inotifywait::of(&mounts.here.join("@status/state"));
    for round in 1..=3 {
        mounts.cut();
        let modified = || count(&watching.events(), "MODIFY .");
        wait_until("the loss is announced", LIMIT, || modified() >= 2 * round - 1);
        mounts.mend();
        wait_until("the return is announced", LIMIT, || modified() >= 2 * round);
    }
}

#[test]
fn a_mount_that_is_cut_off_again_and_again_misses_nothing() {
    let mounts = CutOff::new(Znoded::start(), "20s");
    mounts.there.sh("mkdir d").ok();
    let watching = Inotifywait::of(&mounts.here.join("d"));
    std::thread::scope(|scope| {
        let script = "for n in $(seq 1 400); do echo $n > d/f$n; sleep 0.01; done";
        let writer = scope.spawn(|| mounts.there.sh(script).ok());
        for _ in 0..8 {
            mounts.proxy.cut();
            std::thread::sleep(Duration::from_millis(150));
            mounts.proxy.mend();
            mounts.wait_for_state("connected");
        }
        writer.join().expect("the writer");
    });
    let not_once = || {
        let events = watching.events();
        let announced = |number: usize| count(&events, &format!("CREATE f{number}"));
        let wrong = (1..=400).map(|number| (number, announced(number))).filter(|(_, n)| *n != 1);
        wrong.collect::<Vec<_>>()
    };
    let is_told = wait_for(LIMIT, || not_once().is_empty().then_some(()));
    assert!(is_told.is_some(), "not announced once: {:?}", not_once());
    assert_eq!(mounts.here.sh("cat d/f* | sort -n | tail -1; ls d | wc -l").ok(), "400\n400\n");
}
