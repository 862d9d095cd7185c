//! The scripts of `scripts/recipes`, run with dash as Debian's sh on several mounts of one tree: what
//! each of them does for those who use it. Many contenders on an ensemble whose members come and go:
//! `recipes_contended`; lost sessions: `recipes_lost`.

use nix::sys::signal::Signal;
use znodefs_tests::binaries::source_directory;
use znodefs_tests::restarts::settle;
use znodefs_tests::{Mount, Ran, Replicas, Server, on_znoded, wait_until};

use crate::world::{Background, SOON, Shells, count_processes};

/// Who serves the tree of a test.
pub enum Serving {
    /// Somebody who outlives the tree's mounts.
    Another,
    One(#[allow(dead_code, reason = "it serves as long as it is there")] Box<dyn Server>),
    Several(Box<dyn Replicas>),
}

/// A tree mounted several times, and shells that find the recipes.
pub struct Mounted {
    // First, so that they end before their server.
    pub mounts: Vec<Mount>,
    pub serving: Serving,
    pub servers: String,
    pub shells: Shells,
}

/// The recipes that run a command while they hold something, each with what stands before the command.
pub const HOLDERS: [&str; 6] = [
    "mutex-mkdir.sh $mount/held",
    "mutex-pid.sh $mount/held",
    "mutex-flock.sh $mount/held",
    "read-write-lock.sh read $mount/held",
    "read-write-lock.sh write $mount/held",
    "leader-election.sh stand $mount/held ann",
];

impl Mounted {
    pub fn on(server: &dyn Server, mounts: usize) -> Mounted {
        Mounted::of(Serving::Another, &server.address(), mounts, &[])
    }

    /// Mounts what is served at an address.
    pub fn of(serving: Serving, address: &str, mounts: usize, arguments: &[&str]) -> Mounted {
        let mounts = (0..mounts).map(|_| Mount::of(address, arguments)).collect();
        Mounted { mounts, serving, servers: address.to_string(), shells: Shells::new() }
    }

    /// A script that finds the recipes and in which `$mount` is one of the mounts.
    fn script(&self, mount: usize, script: &str) -> String {
        settle(&self.servers);
        let recipes = source_directory().join("scripts/recipes");
        let mount = &self.mounts[mount % self.mounts.len()];
        format!("mount={}; PATH=$PATH:{}; {script}", mount.display(), recipes.display())
    }

    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        // Nobody needs a server: everything is done on the mount.
        self.shells.sh_to("nowhere.invalid", &self.script(0, script))
    }

    pub fn start(&self, mount: usize, script: &str) -> Background {
        self.shells.start_to("nowhere.invalid", &self.script(mount, script))
    }
}

/// How many processes of inotifywait look at a file or directory of the mounts: those of waiters, and those
/// of keepers.
fn watchers(world: &Mounted, name: &str) -> usize {
    let paths: Vec<_> = world.mounts.iter().map(|mount| mount.join(name)).collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let lines =
        processes.flatten().filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
    let looks = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split('\0');
        words.next() == Some("inotifywait")
            && words.any(|word| paths.iter().any(|path| path.as_os_str() == word))
    };
    lines.filter(looks).count()
}

/// How many stand in the queue of a file's lock.
fn queue_length(world: &Mounted, name: &str) -> usize {
    let listed = world.sh(&format!("ls $mount/znodefs/locks/%2F{name} | wc -l"));
    listed.stdout.trim().parse().unwrap_or(0)
}

/// Waits until all have ended well.
#[track_caller]
pub fn wait_for_all(processes: &mut [Background]) {
    for process in processes {
        let ended = process.wait(3 * SOON);
        let status = ended.unwrap_or_else(|| panic!("it starves: {}", process.log_text()));
        assert!(status.success(), "{status}: {}", process.log_text());
    }
}

fn recipes() -> Vec<String> {
    let found = std::fs::read_dir(source_directory().join("scripts/recipes")).unwrap().flatten();
    let names = found.map(|recipe| recipe.file_name().into_string().unwrap());
    names.filter(|name| name != "common.sh").collect()
}

#[test]
fn every_recipe_is_plain_posix_shell() {
    let world = Shells::new();
    let directory = source_directory().join("scripts/recipes");
    let script = format!(
        "cd {}; for recipe in *.sh; do dash -n $recipe || exit; done; \
         shellcheck --severity=warning --shell=sh --external-sources *.sh",
        directory.display()
    );
    world.sh_to("", &script).ok();
}

fn a_recipe_that_is_used_wrongly_says_how_it_is_used(server: &mut dyn Server) {
    let world = Mounted::on(server, 1);
    for name in recipes() {
        for arguments in ["", "nonsense", "nonsense $mount/x"] {
            // Those have no word for what is to be done.
            if arguments.contains("mount") && (name.contains("mutex") || name.contains("barrier")) {
                continue;
            }
            let ran = world.sh(&format!("{name} {arguments}"));
            assert_eq!(ran.code, 2, "{ran:?}");
            assert!(ran.stderr.starts_with("usage: "), "{ran:?}");
            assert!(ran.stderr.contains(&name), "{ran:?}");
        }
    }
}

fn a_recipe_says_clearly_that_there_is_no_mount(server: &mut dyn Server) {
    let mut world = Mounted::on(server, 1);
    for holder in HOLDERS {
        let elsewhere = holder.replace("$mount", "$PWD");
        world.sh(&format!("{elsewhere} true")).says_only(1, &["not on a mount of znodefs"]);
        let missing = holder.replace("$mount", "$mount/no/such");
        world.sh(&format!("{missing} true")).says_only(1, &["No such file"]);
    }
    world.sh("barrier.sh pass $PWD/barrier").says_only(1, &["not on a mount of znodefs"]);
    // Who waits at a barrier must not take an unmounted tree for an open one.
    world.sh("barrier.sh close $mount/barrier").ok();
    let mut waiting = world.start(0, "exec barrier.sh pass $mount/barrier");
    wait_until("it waits", SOON, || watchers(&world, "barrier") == 1);
    world.mounts[0].stop(Signal::SIGTERM);
    assert_eq!(waiting.wait(SOON).and_then(|status| status.code()), Some(1));
    assert!(waiting.log_text().contains("the mount is gone"), "{}", waiting.log_text());
}

fn arguments_input_and_status_are_those_of_the_command(server: &mut dyn Server) {
    let world = Mounted::on(server, 1);
    let others = [
        "group-membership.sh join $mount/group ann",
        "service-registration.sh run $mount/web one host:80",
        "rendezvous.sh host $mount/meeting host:80",
        "double-barrier.sh $mount/run 1 ann",
    ];
    for recipe in HOLDERS.into_iter().chain(others) {
        let printf = format!("{recipe} printf '%s|' '$HOME; a b' -n -- '' '*'");
        assert_eq!(world.sh(&printf).ok(), "$HOME; a b|-n|--||*|", "{recipe}");
        assert_eq!(world.sh(&format!("echo input | {recipe} cat")).ok(), "input\n", "{recipe}");
        assert_eq!(world.sh(&format!("{recipe} sh -c 'exit 7'")).code, 7, "{recipe}");
        assert_eq!(world.sh(&format!("{recipe} sh -c 'kill -TERM $$'")).code, 143, "{recipe}");
        assert_eq!(world.sh(&format!("{recipe} no-such-program")).code, 127, "{recipe}");
        // The run is over, and so is its barrier; the lock of one recipe is the file of another.
        world.sh("rm -r $mount/run $mount/held; true").ok();
    }
}

fn a_signal_reaches_the_command_and_the_lock_is_free_afterwards(server: &mut dyn Server) {
    let world = Mounted::on(server, 1);
    for recipe in HOLDERS {
        let command = "bash -c 'trap \"echo usr1 >> got\" USR1; trap \"echo term >> got; exit 4\" TERM; \
                       echo ready >> got; while :; do sleep 0.05; done'";
        let _ = std::fs::remove_file(world.shells.path("got"));
        let mut holder = world.start(0, &format!("exec {recipe} {command}"));
        world.shells.wait_for_line("got", "ready");
        holder.signal(Signal::SIGUSR1);
        world.shells.wait_for_line("got", "usr1");
        holder.signal(Signal::SIGTERM);
        let status = holder.wait(SOON).and_then(|status| status.code());
        assert_eq!(status, Some(4), "{recipe}: {}", holder.log_text());
        world.sh(&format!("{recipe} true; rm -r $mount/held; true")).ok();
    }
}

fn a_killed_holder_leaves_no_lock_and_a_waiter_that_is_told_to_end_no_place_in_the_queue(
    server: &mut dyn Server,
) {
    let world = Mounted::on(server, 2);
    for recipe in HOLDERS.into_iter().filter(|recipe| !recipe.contains("mkdir")) {
        let _ = std::fs::remove_file(world.shells.path("in"));
        let hold = "sh -c 'echo in >> in; exec sleep 1000'";
        let mut holder = world.start(0, &format!("exec {recipe} {hold}"));
        world.shells.wait_for_line("in", "in");
        let writer = recipe.replace(" read ", " write ");
        let mut waiting = world.start(1, &format!("exec {writer} touch ran"));
        wait_until("another waits", SOON, || match recipe {
            recipe if recipe.contains("leader") => {
                world.sh("ls $mount/held | wc -l").stdout == "2\n"
            }
            // The keeper of the one that holds it looks after it too.
            recipe if recipe.contains("pid") => watchers(&world, "held") == 2,
            _ => queue_length(&world, "held") == 2,
        });
        waiting.signal(Signal::SIGTERM);
        assert_eq!(waiting.wait(SOON).and_then(|status| status.code()), Some(143), "{recipe}");
        holder.kill();
        world.sh(&format!("{recipe} true")).ok();
        assert!(!world.shells.path("ran").exists());
        world.sh("rm -rf $mount/held").ok();
    }
}

fn a_lock_removed_by_hand_ends_the_command(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    for recipe in ["mutex-mkdir.sh $mount/held", "mutex-pid.sh $mount/held"] {
        // With a grandchild in a process group of its own, and deaf to most signals.
        let command = "sh -c 'trap \"\" TERM; timeout 9876700 sleep 9876701; true'";
        let mut holder = world.start(0, &format!("exec {recipe} {command}"));
        wait_until("it runs", SOON, || count_processes("9876701") == 2);
        world.sh("rmdir $mount/held").ok();
        let status = holder.wait(SOON).and_then(|status| status.code());
        assert!(status.is_none_or(|code| code == 137), "{status:?}: {}", holder.log_text());
        wait_until("all of it is gone", SOON, || count_processes("9876701") == 0);
        assert!(holder.log_text().contains("is lost"), "{}", holder.log_text());
    }
}

fn readers_share_a_lock_and_writers_do_not(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    // Two readers meet inside: each waits for the other.
    let meet = |mount, own: &str, other: &str| {
        let wait = format!("touch {own}; until [ -e {other} ]; do sleep 0.05; done");
        world.start(mount, &format!("read-write-lock.sh read $mount/table sh -c '{wait}'"))
    };
    wait_for_all(&mut [meet(0, "one", "two"), meet(1, "two", "one")]);
    let mut writer = world
        .start(0, "exec read-write-lock.sh write $mount/table sh -c 'touch in; sleep 9876703'");
    wait_until("it writes", SOON, || world.shells.path("in").exists());
    let mut reader = world.start(1, "read-write-lock.sh read $mount/table touch read");
    wait_until("it waits", SOON, || queue_length(&world, "table") == 2);
    assert!(!world.shells.path("read").exists());
    writer.kill();
    world.sh("pkill --full --exact 'sleep 9876703'").ok();
    wait_for_all(std::slice::from_mut(&mut reader));
}

fn the_next_candidate_leads_when_the_leader_has_gone(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    let _observer = world.start(1, "exec leader-election.sh observe $mount/leader > told");
    world.shells.wait_for_line("told", "leader: nobody");
    world.sh("leader-election.sh leader $mount/leader").says_only(1, &["nobody leads"]);
    let stand = |mount, name: &str| {
        let script = format!(
            "exec leader-election.sh stand $mount/leader {name} sh -c 'echo {name} $ELECTION_TERM >> led; \
             exec sleep 1000'"
        );
        world.start(mount, &script)
    };
    let mut first = stand(0, "one");
    world.shells.wait_for_line("told", "leader: one");
    let _second = stand(1, "two");
    wait_until("another stands", SOON, || world.sh("ls $mount/leader | wc -l").stdout == "2\n");
    assert_eq!(world.sh("leader-election.sh leader $mount/leader").ok(), "one\n");
    first.kill();
    world.shells.wait_for_line("told", "leader: two");
    wait_until("it leads", SOON, || world.shells.read("led").lines().count() == 2);
    let led = world.shells.read("led");
    let terms: Vec<_> = led.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(terms[0] < terms[1], "{led}");
}

fn the_members_of_a_group_are_those_that_run(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    let _follower = world.start(1, "exec group-membership.sh follow $mount/group > told");
    let join = |mount, name: &str| {
        world.start(mount, &format!("exec group-membership.sh join $mount/group {name} sleep 1000"))
    };
    let mut ann = join(0, "ann");
    world.shells.wait_for_line("told", "+ ann");
    let _bob = join(1, "bob");
    world.shells.wait_for_line("told", "+ bob");
    assert_eq!(world.sh("group-membership.sh list $mount/group").ok(), "ann\nbob\n");
    // One of the same name waits until it is free.
    let second = join(1, "ann");
    wait_until("it waits", SOON, || second.log_text().contains("is there already"));
    ann.kill();
    world.shells.wait_for_line("told", "- ann");
    wait_until("it is there", SOON, || world.shells.read("told") == "+ ann\n+ bob\n- ann\n+ ann\n");
    world.sh("group-membership.sh join $mount/group a/b true").says_only(1, &["'a/b'", "name"]);
}

fn a_member_that_somebody_removes_stays_removed(server: &mut dyn Server) {
    let world = Mounted::on(server, 1);
    let member = world.start(
        0,
        "exec group-membership.sh join $mount/group ann sh -c 'echo in > in; sleep 1000'",
    );
    world.shells.wait_for_line("in", "in");
    world.sh("rm $mount/group/ann").ok();
    wait_until("it says so", SOON, || member.log_text().contains("was removed by somebody"));
    assert_eq!(world.sh("group-membership.sh list $mount/group").ok(), "");
}

fn at_a_barrier_that_is_open_nobody_waits(server: &mut dyn Server) {
    let world = Mounted::on(server, 1);
    world.sh("barrier.sh pass $mount/barrier").ok();
    world.sh("barrier.sh close $mount/barrier").ok();
    world.sh("barrier.sh close $mount/barrier").fails("File exists");
    world.sh("barrier.sh open $mount/barrier; barrier.sh pass $mount/barrier").ok();
    world.sh("barrier.sh open $mount/barrier").fails("No such file");
}

fn those_who_meet_learn_the_address_of_the_host(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    world.sh("mkdir $mount/met").ok();
    let mut guests: Vec<_> =
        (0..3).map(|n| world.start(n, "rendezvous.sh meet $mount/met/here >> told")).collect();
    wait_until("all wait", SOON, || watchers(&world, "met") == 3);
    let mut host = world.start(0, "exec rendezvous.sh host $mount/met/here 'host 1:80' sleep 1000");
    wait_for_all(&mut guests);
    assert_eq!(world.shells.read("told"), "host 1:80\nhost 1:80\nhost 1:80\n");
    host.kill();
    wait_until("it is gone with its host", SOON, || world.sh("ls $mount/met").ok().is_empty());
}

fn one_taker_sees_the_items_of_a_queue_in_order_and_whole(server: &mut dyn Server) {
    let world = Mounted::on(server, 1);
    let script = "for n in 1 2 3; do echo $n | queue.sh put $mount/queue; done; \
                  for n in 1 2 3; do queue.sh take $mount/queue; done";
    assert_eq!(world.sh(script).ok(), "1\n2\n3\n");
    let bytes = "head -c 300000 /dev/urandom > bytes; queue.sh put $mount/queue < bytes; \
                 queue.sh take $mount/queue | cmp - bytes";
    world.sh(bytes).ok();
    world.sh("head -c 600000 /dev/zero | queue.sh put $mount/queue").says_only(1, &["at most"]);
    assert_eq!(world.sh("ls -A $mount/queue").ok(), "");
}

fn a_configuration_is_followed_and_never_seen_in_part(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    world.sh("mkdir $mount/app").ok();
    let follower = world.start(
        1,
        "exec config.sh follow $mount/app/config sh -c 'cat > seen; cat seen >> all; [ ! -e bad ]'",
    );
    for number in 0..10 {
        // Two lines of one configuration belong together.
        let value = format!("a={number}\\nb={number}\\n");
        world.sh(&format!("printf '{value}' | config.sh publish $mount/app/config")).ok();
    }
    wait_until("the last one is seen", SOON, || world.shells.read("seen") == "a=9\nb=9\n");
    let all = world.shells.read("all");
    let lines: Vec<_> = all.lines().collect();
    let is_whole = |pair: &[&str]| pair.len() == 2 && pair[0][2..] == pair[1][2..];
    assert!(lines.chunks(2).all(is_whole), "{all}");
    assert_eq!(world.sh("ls -A $mount/app").ok(), "config\n");
    // A command that fails is told of, and the next value reaches it all the same.
    world.sh("touch bad; echo a=10 | config.sh publish $mount/app/config").ok();
    wait_until("it fails", SOON, || follower.log_text().contains("ended with status 1"));
    world.sh("rm $mount/app/config; echo a=11 | config.sh publish $mount/app/config").ok();
    wait_until("it goes on", SOON, || world.shells.read("seen") == "a=11\n");
    // A signal may come again and again, to the recipe and to what it has started: timeout(1) sends two.
    let script = "mkdir tmp; export TMPDIR=$PWD/tmp
        for i in 1 2 3 4 5 6 7 8 9 10; do
            setsid config.sh follow $mount/app/config true & pid=$!
            until test -e tmp/*/last; do read -t 0.01 < /dev/zero; done
            for again in {1..100}; do kill -- -$pid; done 2>/dev/null; wait $pid
        done
        find tmp -type f";
    assert_eq!(world.sh(script).stdout, "", "something is left of what was ended");
}

fn services_are_listed_with_their_address_while_they_run(server: &mut dyn Server) {
    let world = Mounted::on(server, 2);
    let _follower =
        world.start(1, "exec service-registration.sh follow $mount/web sh -c 'cat > instances'");
    let run = |name: &str, port: u16| {
        let recipe = "exec service-registration.sh run";
        world.start(0, &format!("{recipe} $mount/web {name} host:{port} sleep 1000"))
    };
    let one = run("one", 80);
    world.shells.wait_for_line("instances", "one host:80");
    let _two = run("two", 81);
    world.shells.wait_for_line("instances", "two host:81");
    let list = world.sh("service-registration.sh list $mount/web").ok();
    assert_eq!(list, "one host:80\ntwo host:81\n");
    one.signal(Signal::SIGTERM);
    wait_until("one is gone", SOON, || world.shells.read("instances") == "two host:81\n");
}

on_znoded![
    a_recipe_that_is_used_wrongly_says_how_it_is_used,
    a_recipe_says_clearly_that_there_is_no_mount,
    arguments_input_and_status_are_those_of_the_command,
    a_signal_reaches_the_command_and_the_lock_is_free_afterwards,
    a_killed_holder_leaves_no_lock_and_a_waiter_that_is_told_to_end_no_place_in_the_queue,
    a_lock_removed_by_hand_ends_the_command,
    readers_share_a_lock_and_writers_do_not,
    the_next_candidate_leads_when_the_leader_has_gone,
    the_members_of_a_group_are_those_that_run,
    a_member_that_somebody_removes_stays_removed,
    at_a_barrier_that_is_open_nobody_waits,
    those_who_meet_learn_the_address_of_the_host,
    one_taker_sees_the_items_of_a_queue_in_order_and_whole,
    a_configuration_is_followed_and_never_seen_in_part,
    services_are_listed_with_their_address_while_they_run,
];
