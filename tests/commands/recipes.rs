//! The scripts of `scripts/recipes`, run with dash as Debian's sh, by many processes on several mounts
//! of one tree. Mutual exclusion is judged by a record on the local disk that knows nothing of znodefs.

use nix::sys::signal::Signal;
use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Mount, Ran, wait_until};

use crate::world::{Background, SOON, Service, count_processes};

/// How many take part where it is a matter of many.
const CONTENDERS: usize = 20;

/// A tree mounted several times.
struct Mounted {
    // First, so that they end before their server.
    mounts: Vec<Mount>,
    service: Service,
}

impl Mounted {
    fn new(mounts: usize) -> Mounted {
        let service = Service::new();
        let address = service.server.address();
        Mounted { mounts: (0..mounts).map(|_| Mount::of(&address, &[])).collect(), service }
    }

    /// A script that finds the recipes and in which `$mount` is one of the mounts.
    fn script(&self, mount: usize, script: &str) -> String {
        let recipes = source_directory().join("scripts/recipes");
        let mount = &self.mounts[mount % self.mounts.len()];
        format!("mount={}; PATH=$PATH:{}; {script}", mount.display(), recipes.display())
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        self.service.sh(&self.script(0, script))
    }

    fn start(&self, mount: usize, script: &str) -> Background {
        self.service.start(&self.script(mount, script))
    }
}

/// Waits until all have ended well.
#[track_caller]
fn wait_for_all(processes: &mut [Background]) {
    for process in processes {
        let ended = process.wait(3 * SOON);
        let status = ended.unwrap_or_else(|| panic!("it starves: {}", process.log_text()));
        assert!(status.success(), "{status}: {}", process.log_text());
    }
}

/// A critical section that notes whoever else is in it.
const SECTION: &str = "bash -c 'set -C; { : > inside; } 2>/dev/null || echo VIOLATION >> record; set +C; \
                       echo in >> record; sleep 0.02; echo out >> record; rm -f inside'";

#[track_caller]
fn assert_exclusive(service: &Service, count: usize) {
    let record = service.read("record");
    assert!(!record.contains("VIOLATION"), "{record}");
    let lines: Vec<_> = record.lines().collect();
    assert_eq!(lines.len(), 2 * count, "{record}");
    assert!(lines.chunks(2).all(|pair| pair == ["in", "out"]), "{record}");
}

#[test]
fn mkdir_excludes_while_the_replica_is_restarted() {
    let mut world = Mounted::new(3);
    world.sh("mkdir $mount/locks").ok();
    let script = format!("mutex-mkdir.sh $mount /locks/one {SECTION}");
    let mut contenders: Vec<_> =
        (0..CONTENDERS).map(|number| world.start(number, &script)).collect();
    world.service.wait_for_line("record", "out");
    world.service.server.start_again();
    wait_for_all(&mut contenders);
    assert_exclusive(&world.service, CONTENDERS);
    assert_eq!(world.sh("ls $mount/locks").ok(), "");
    world.sh("mutex-mkdir.sh $mount /missing/one true").says_only(1, &["No such file"]);
    assert_eq!(world.sh("mutex-mkdir.sh $mount /locks/one sh -c 'exit 5'").code, 5);
}

#[test]
fn a_read_write_lock_lets_readers_in_together_and_writers_alone() {
    let world = Mounted::new(1);
    let writer = format!("read-write-lock.sh write /locks/rw {SECTION}");
    // A reader finds no writer inside, and leaves a mark for writers to find.
    let reader = "read-write-lock.sh read /locks/rw bash -c '[ ! -e inside ] || echo VIOLATION >> record; \
                  echo read >> reads; sleep 0.02; [ ! -e inside ] || echo VIOLATION >> record'";
    let mut contenders: Vec<_> = (0..CONTENDERS)
        .map(|number| world.start(0, if number % 2 == 0 { &writer } else { reader }))
        .collect();
    wait_for_all(&mut contenders);
    assert_exclusive(&world.service, CONTENDERS / 2);
    assert_eq!(world.service.read("reads").lines().count(), CONTENDERS / 2);
    // Two readers meet inside: each waits for the other.
    let meet = |own: &str, other: &str| {
        let script = format!(
            "read-write-lock.sh read /locks/rw sh -c 'znode create /{own} x; \
                              znode wait /{other} --exists'"
        );
        world.start(0, &script)
    };
    wait_for_all(&mut [meet("one", "two"), meet("two", "one")]);
}

#[test]
fn the_next_candidate_leads_when_the_leader_has_gone() {
    let world = Mounted::new(1);
    let observer = world.start(0, "exec leader-election.sh observe /leader > told");
    world.service.wait_for_line("told", "leader: nobody");
    let stand = |name: &str| {
        let candidate =
            world.start(0, &format!("exec leader-election.sh stand /leader {name} sleep 1000"));
        world.sh("znode wait /leader --exists -w 20").ok();
        candidate
    };
    let mut first = stand("one");
    world.service.wait_for_line("told", "leader: one");
    let _second = stand("two");
    world.service.wait_for_children("/leader", 2);
    first.kill();
    world.service.wait_for_line("told", "leader: two");
    drop(observer);
}

#[test]
fn the_members_of_a_group_are_those_that_run() {
    let world = Mounted::new(1);
    let _follower = world.start(0, "exec group-membership.sh follow /group > told");
    let join = |name: &str| {
        world.start(0, &format!("exec group-membership.sh join /group {name} sleep 1000"))
    };
    let ann = join("ann");
    world.service.wait_for_line("told", "+ ann");
    let _bob = join("bob");
    world.service.wait_for_line("told", "+ bob");
    assert_eq!(world.sh("group-membership.sh list $mount /group").ok(), "ann\nbob\n");
    ann.signal(Signal::SIGTERM);
    world.service.wait_for_line("told", "- ann");
    world.sh("znode wait /group/ann --gone -w 20").ok();
    assert_eq!(world.sh("group-membership.sh list $mount /group").ok(), "bob\n");
}

#[test]
fn nobody_passes_a_barrier_before_it_is_opened() {
    let world = Mounted::new(2);
    world.sh("barrier.sh close $mount /barrier").ok();
    world.sh("barrier.sh close $mount /barrier").fails("File exists");
    let mut waiting: Vec<_> = (0..CONTENDERS)
        .map(|number| world.start(number, "barrier.sh pass $mount /barrier; echo passed >> record"))
        .collect();
    wait_until("all have come", SOON, || count_processes("--gone") == CONTENDERS);
    assert_eq!(world.service.read("record"), "");
    world.sh("barrier.sh open $mount /barrier").ok();
    wait_for_all(&mut waiting);
    world.sh("barrier.sh pass $mount /barrier").ok();
}

#[test]
fn at_a_double_barrier_all_start_together_and_go_on_together() {
    let world = Mounted::new(1);
    let mut members: Vec<_> = (0..CONTENDERS)
        .map(|number| {
            let command = "sh -c \"echo start >> record; echo end >> record\"";
            let script = format!(
                "echo came >> record; double-barrier.sh /run {CONTENDERS} {number} \
                                  {command}; echo left >> record"
            );
            world.start(0, &script)
        })
        .collect();
    wait_for_all(&mut members);
    let record = world.service.read("record");
    let place = |word: &str| {
        let places = || record.lines().enumerate().filter(|(_, line)| *line == word);
        assert_eq!(places().count(), CONTENDERS, "{word}: {record}");
        let mut found = places().map(|(number, _)| number);
        let first = found.next().unwrap_or_default();
        (first, found.last().unwrap_or_default())
    };
    assert!(place("came").1 < place("start").0, "{record}");
    assert!(place("end").1 < place("left").0, "{record}");
}

#[test]
fn those_who_meet_learn_the_address_of_the_host() {
    let world = Mounted::new(1);
    let mut guests: Vec<_> =
        (0..3).map(|_| world.start(0, "rendezvous.sh meet /rendezvous >> told")).collect();
    wait_until("all wait", SOON, || count_processes("/rendezvous") >= 3);
    let mut host = world.start(0, "exec rendezvous.sh host /rendezvous 'host 1:80' sleep 1000");
    wait_for_all(&mut guests);
    assert_eq!(world.service.read("told"), "host 1:80\nhost 1:80\nhost 1:80\n");
    host.kill();
}

#[test]
fn each_item_of_a_queue_is_taken_once_and_in_order() {
    let world = Mounted::new(3);
    // Takers come before the items.
    let mut takers: Vec<_> = (0..CONTENDERS)
        .map(|number| world.start(number, "queue.sh take $mount /queue >> taken"))
        .collect();
    for number in 0..CONTENDERS {
        world.sh(&format!("printf 'item {number}\\n' | queue.sh put /queue")).ok();
    }
    wait_for_all(&mut takers);
    let mut taken: Vec<_> = world.service.read("taken").lines().map(String::from).collect();
    taken.sort();
    let mut expected: Vec<_> = (0..CONTENDERS).map(|number| format!("item {number}")).collect();
    expected.sort();
    assert_eq!(taken, expected);
    // One taker alone sees the order.
    let script = "for n in 1 2 3; do echo $n | queue.sh put /queue; done; \
                  for n in 1 2 3; do queue.sh take $mount /queue; done";
    assert_eq!(world.sh(script).ok(), "1\n2\n3\n");
    assert_eq!(
        world
            .sh("head -c 5000 /dev/urandom > bytes; queue.sh put /queue < bytes; \
                         queue.sh take $mount /queue | cmp - bytes")
            .code,
        0
    );
}

#[test]
fn a_configuration_is_followed_and_never_seen_in_part() {
    let world = Mounted::new(2);
    world.sh("mkdir $mount/app").ok();
    let _follower =
        world.start(1, "exec config.sh follow /app/config sh -c 'cat > seen; cat seen >> all'");
    for number in 0..10 {
        // Two lines of one configuration belong together.
        let value = format!("a={number}\\nb={number}\\n");
        world.sh(&format!("printf '{value}' | config.sh publish $mount /app/config")).ok();
    }
    wait_until("the last one is seen", SOON, || world.service.read("seen") == "a=9\nb=9\n");
    let all = world.service.read("all");
    let lines: Vec<_> = all.lines().collect();
    let is_whole = |pair: &[&str]| pair.len() == 2 && pair[0][2..] == pair[1][2..];
    assert!(lines.chunks(2).all(is_whole), "{all}");
    assert_eq!(world.sh("ls -A $mount/app").ok(), "config\n");
}

#[test]
fn services_are_listed_with_their_address_while_they_run() {
    let world = Mounted::new(1);
    let _follower =
        world.start(0, "exec service-registration.sh follow /web sh -c 'cat > instances'");
    let run = |name: &str, port: u16| {
        let script = format!("exec service-registration.sh run /web {name} host:{port} sleep 1000");
        world.start(0, &script)
    };
    let one = run("one", 80);
    world.service.wait_for_line("instances", "one host:80");
    let _two = run("two", 81);
    world.service.wait_for_line("instances", "two host:81");
    assert_eq!(
        world.sh("service-registration.sh list $mount /web").ok(),
        "one host:80\ntwo host:81\n"
    );
    one.signal(Signal::SIGTERM);
    wait_until("one is gone", SOON, || world.service.read("instances") == "two host:81\n");
}

#[test]
fn a_recipe_that_is_used_wrongly_says_how_it_is_used() {
    let world = Mounted::new(1);
    let recipes = std::fs::read_dir(source_directory().join("scripts/recipes")).unwrap();
    for recipe in recipes.flatten() {
        let name = recipe.file_name().into_string().unwrap();
        let ran = world.sh(&name);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.starts_with("usage: "), "{ran:?}");
        assert!(ran.stderr.contains(&name), "{ran:?}");
    }
}
