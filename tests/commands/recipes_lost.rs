//! Holders whose mount loses its session: the recipe ends its command before another can hold what it held,
//! and those who only are there come back.

use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::deadline::pause;
use znodefs_tests::{Mount, Proxy, Server, Znoded, wait_until};

use crate::recipes::{HOLDERS, Mounted, Serving};
use crate::world::{SOON, Shells};

/// The shortest that a server grants by default.
const SHORT_SESSION: [&str; 2] = ["-o", "session_timeout=4"];

/// A tree with two mounts, of which the first reaches the server through a proxy.
fn severable() -> (Mounted, Proxy) {
    let server = Znoded::start();
    let proxy = Proxy::of(&server.address());
    let mounts = [proxy.address().to_string(), server.address()]
        .map(|address| Mount::of(&address, &SHORT_SESSION));
    let servers = server.address();
    let serving = Serving::One(Box::new(server));
    (Mounted { mounts: mounts.into(), serving, servers, shells: Shells::new() }, proxy)
}

/// Does the same with all of these recipes at once.
fn with_each(recipes: impl Iterator<Item = &'static str>, test: fn(&str)) {
    std::thread::scope(|scope| {
        for recipe in recipes {
            scope.spawn(move || test(recipe));
        }
    });
}

/// Both write to one file; who comes second finds the first gone.
#[test]
fn the_command_of_a_cut_off_holder_has_ended_before_the_next_one_starts() {
    with_each(HOLDERS.into_iter().filter(|recipe| !recipe.contains(" read ")), |recipe| {
        let (world, proxy) = severable();
        // Deaf to SIGTERM, and with a child in a process group of its own that does the writing.
        let section = "trap \"echo term >> got\" TERM; timeout 1000 bash -c \"trap : TERM; while :; do \
                       echo old >> got; sleep 0.01; done\" & while :; do wait; done";
        let mut old = world.start(0, &format!("exec {recipe} bash -c '{section}'"));
        world.shells.wait_for_line("got", "old");
        let mut new = world.start(1, &format!("{recipe} sh -c 'echo new >> got; sleep 2'"));
        pause(Duration::from_millis(500));
        proxy.fall_silent();
        world.shells.wait_for_line("got", "new");
        let status = new.wait(SOON).expect("the next one ends");
        assert!(status.success(), "{recipe}: {status}: {}", new.log_text());
        let got = world.shells.read("got");
        let (before, after) = got.split_once("new\n").expect("the new holder came");
        assert!(!after.contains("old"), "{recipe}: two held at once: {}", old.log_text());
        assert!(before.contains("term"), "{recipe}: asked to end first: {}", old.log_text());
        let said = old.log_text();
        assert!(said.contains("the servers are silent"), "{recipe}: {said}");
        // What is left of the recipe itself may wait for the mount until its session is lost.
        proxy.speak();
        assert!(old.wait(2 * SOON).is_some(), "{recipe}");
    });
}

#[test]
fn a_short_silence_disturbs_no_holder() {
    with_each(HOLDERS.into_iter(), |recipe| {
        let (world, proxy) = severable();
        let section = "trap \"echo term >> got\" TERM; echo in >> got; \
                       while [ ! -e end ]; do sleep 0.1; done; echo done >> got";
        let mut holder = world.start(0, &format!("exec {recipe} sh -c '{section}'"));
        world.shells.wait_for_line("got", "in");
        proxy.fall_silent();
        // A third of the timeout.
        pause(Duration::from_millis(1300));
        proxy.speak();
        pause(Duration::from_secs(5));
        std::fs::write(world.shells.path("end"), "").unwrap();
        let status = holder.wait(SOON).expect("the command ends");
        assert!(status.success(), "{recipe}: {status}: {}", holder.log_text());
        assert_eq!(world.shells.read("got"), "in\ndone\n", "{recipe}");
    });
}

#[test]
fn a_mount_that_is_killed_ends_the_commands_that_rely_on_it() {
    with_each(HOLDERS.into_iter(), |recipe| {
        let (mut world, _proxy) = severable();
        let mut holder =
            world.start(0, &format!("exec {recipe} sh -c 'echo in >> got; sleep 1000'"));
        world.shells.wait_for_line("got", "in");
        world.mounts[0].process().signal(Signal::SIGKILL);
        let status = holder.wait(SOON).expect("the command ends");
        assert!(!status.success(), "{recipe}: {}", holder.log_text());
        assert!(holder.log_text().contains("is lost"), "{recipe}: {}", holder.log_text());
        world.mounts[0].process().wait(SOON);
    });
}

#[test]
fn members_and_services_come_back_in_the_next_session() {
    let (world, proxy) = severable();
    let member = "group-membership.sh join $mount/group ann";
    let service = "service-registration.sh run $mount/web one host:80";
    let running =
        world.start(0, &format!("exec {member} {service} sh -c 'echo run >> told; sleep 1000'"));
    world.shells.wait_for_line("told", "run");
    let there = world.mounts[1].to_path_buf();
    let listed = || {
        let members = std::fs::read_dir(there.join("group")).map_or(0, Iterator::count);
        let address = std::fs::read_to_string(there.join("web/one")).unwrap_or_default();
        (members, address)
    };
    assert_eq!(listed(), (1, "host:80\n".into()));
    proxy.fall_silent();
    wait_until("they are gone", SOON, || listed() == (0, String::new()));
    proxy.speak();
    wait_until("they are there again", SOON, || listed() == (1, "host:80\n".into()));
    wait_until("it is said", SOON, || running.log_text().matches("registered again").count() == 2);
    assert_eq!(world.shells.read("told"), "run\n");
}
