//! Twenty contenders over three mounts on an ensemble of three whose members are killed at random, for
//! every recipe, on `znoded` and on Debian's ZooKeeper: mutual exclusion is judged by a lock on the local
//! disk that knows nothing of znodefs, and nobody starves.
//!
//! `ZNODEFS_RECIPE_ROUNDS` says how often each contender comes to each lock, every day twice, and once with
//! ZooKeeper, whose servers take longer to start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use znodefs_tests::deadline::pause;
use znodefs_tests::replicas::restart_one;
use znodefs_tests::{Deadline, Ensemble, Random, Replicas, ZooKeeperEnsemble};

use crate::recipes::{Mounted, Serving};
use crate::world::Background;

const CONTENDERS: usize = 20;
const MOUNTS: usize = 3;

/// How long everybody may take to get through once, on a machine that does much else.
const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// A critical section: the local lock shows whether another is in it, and goes with the processes of one
/// that is killed in the middle.
const SECTION: &str = "#!/bin/sh
exec 5>>inside
flock --nonblock 5 || echo \"VIOLATION $1\" >>record
echo \"in $1\" >>record
sleep 0.02
echo \"out $1\" >>record
";

/// A reader finds no writer in the section, and readers may find each other.
const READING: &str = "#!/bin/sh
exec 5>>inside
flock --nonblock --shared 5 || echo \"VIOLATION $1\" >>record
echo \"read $1\" >>record
sleep 0.02
";

fn rounds(everyday: usize) -> usize {
    let given = std::env::var("ZNODEFS_RECIPE_ROUNDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(everyday)
}

/// An ensemble, its mounts, and the chance that decides who is killed when.
struct Arena {
    world: Mounted,
    random: Random,
    restarts: usize,
    rounds: usize,
}

impl Arena {
    fn of(replicas: Box<dyn Replicas>, everyday_rounds: usize) -> Arena {
        let random = Random::announced();
        let address = replicas.connect_string();
        let world = Mounted::of(Serving::Several(replicas), &address, MOUNTS, &[]);
        for (name, script) in [("section", SECTION), ("reading", READING)] {
            std::fs::write(world.shells.path(name), script).expect("a file of the test");
        }
        world.sh("chmod +x section reading").ok();
        Arena { world, random, restarts: 0, rounds: rounds(everyday_rounds) }
    }

    /// Starts twenty of them; `script` sees the number of each.
    fn start(&self, script: impl Fn(usize) -> String) -> Vec<Background> {
        (0..CONTENDERS).map(|number| self.world.start(number, &script(number))).collect()
    }

    /// Kills members until all have ended.
    #[track_caller]
    fn restart_until_all_end(&mut self, what: &str, running: &mut [Background]) {
        let deadline = Deadline::after(ROUND_LIMIT * (self.rounds as u32 + 1));
        let Serving::Several(replicas) = &mut self.world.serving else {
            unreachable!("an ensemble")
        };
        while running.iter_mut().any(|one| one.exit_status().is_none()) {
            if deadline.has_passed() {
                let logs: Vec<_> = running
                    .iter_mut()
                    .filter_map(|one| one.exit_status().is_none().then(|| one.log_text()))
                    .collect();
                let record = self.world.shells.read("record");
                panic!("{what}: {} starve: {logs:#?}\n{record}", logs.len());
            }
            restart_one(replicas.as_mut(), &mut self.random);
            self.restarts += 1;
            pause(Duration::from_millis(self.random.between(500, 2000)));
        }
        for one in running {
            let status = one.exit_status().expect("it has ended");
            assert!(status.success(), "{what}: {status}: {}", one.log_text());
        }
    }

    /// A lock that everybody comes to `rounds` times; the `command` before what is done under it.
    fn contend(&mut self, command: &str, is_fair: bool) {
        let is_shared = |number: usize| command.contains("MODE") && number % 2 == 1;
        // Who was ended because its mount could not know whether it still held comes again.
        let mut running = self.start(|number| {
            let (mode, work) = if is_shared(number) { ("read", "reading") } else { ("write", "section") };
            let command = command.replace("MODE", mode).replace("NUMBER", &number.to_string());
            format!(
                "for round in $(seq {}); do echo \"ask {number}\" >> record; \
                 until {command} ./{work} {number}; do echo \"again {number}\" >> record; done; done",
                self.rounds
            )
        });
        self.restart_until_all_end(command, &mut running);
        let record = self.world.shells.read("record");
        let again = record.lines().filter(|line| line.starts_with("again")).count();
        assert_nobody_met(command, &record);
        assert_all_came(command, &record, self.rounds);
        let longest = longest_wait(&record);
        eprintln!(
            "{command}: {again} came again; at most {longest} turns of one other in one wait"
        );
        if is_fair && again == 0 {
            // In a queue everybody else comes once before it is our turn again; a second time those who
            // came between the moment we said so and the one in which we stood in it.
            assert!(
                longest <= 3,
                "{command}: one other had {longest} turns in one wait:\n{record}"
            );
        }
        self.world.sh("mv record last; rm -f inside").ok();
    }
}

/// Nobody was in the section beside a writer.
#[track_caller]
fn assert_nobody_met(what: &str, record: &str) {
    assert!(!record.contains("VIOLATION"), "{what}: {record}");
    let mut inside = None;
    for line in record.lines() {
        let (word, who) = line.split_once(' ').expect("two words");
        match word {
            // One that was killed inside has not said that it went out.
            "in" => inside = Some(who),
            "out" => assert_eq!(inside.take(), Some(who), "{what}: {record}"),
            _ => {}
        }
    }
}

/// Everybody came through as often as wanted.
#[track_caller]
fn assert_all_came(what: &str, record: &str, rounds: usize) {
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    for line in record.lines() {
        if let Some(who) = line.strip_prefix("out ").or_else(|| line.strip_prefix("read ")) {
            *done.entry(who).or_default() += 1;
        }
    }
    assert_eq!(done.len(), CONTENDERS, "{what}: {record}");
    assert!(done.values().all(|count| *count >= rounds), "{what}: {done:?}");
}

/// The most turns that one other has had while somebody waited for one.
fn longest_wait(record: &str) -> usize {
    let mut turns: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut longest = 0;
    for line in record.lines() {
        let (word, who) = line.split_once(' ').unwrap_or_default();
        match word {
            "ask" => drop(turns.insert(who, BTreeMap::new())),
            "in" | "read" => {
                let others = turns.remove(who).unwrap_or_default();
                longest = longest.max(others.values().copied().max().unwrap_or(0));
                for waiting in turns.values_mut() {
                    *waiting.entry(who).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    longest
}

fn locks_exclude_and_nobody_starves(replicas: Box<dyn Replicas>, everyday_rounds: usize) {
    let mut arena = Arena::of(replicas, everyday_rounds);
    arena.contend("mutex-mkdir.sh $mount/mkdir", false);
    arena.contend("mutex-pid.sh $mount/pid", false);
    arena.contend("mutex-flock.sh $mount/flock", true);
    arena.contend("read-write-lock.sh MODE $mount/table", true);
    arena.contend("leader-election.sh stand $mount/leader NUMBER", true);
    assert_eq!(arena.world.sh("ls -A $mount $mount/leader").ok().matches("candidate").count(), 0);
    eprintln!("{} members were killed", arena.restarts);
    assert!(arena.restarts > 0);
}

/// Where the words `first` and `last` stand in the record: all of `first` before any of `last`.
#[track_caller]
fn assert_all_before_any(record: &str, first: &str, last: &str) {
    let places = |word: &str| {
        let lines = record.lines().enumerate().filter(|(_, line)| *line == word);
        let places: Vec<usize> = lines.map(|(number, _)| number).collect();
        assert_eq!(places.len(), CONTENDERS, "{word}: {record}");
        places
    };
    assert!(places(first).last() < places(last).first(), "{first} before {last}: {record}");
}

fn everybody_meets(replicas: Box<dyn Replicas>, everyday_rounds: usize) {
    let mut arena = Arena::of(replicas, everyday_rounds);
    for round in 0..arena.rounds.div_ceil(3) {
        // A barrier, opened when all have come to it.
        arena.world.sh("barrier.sh close $mount/barrier").ok();
        let mut running = arena.start(|number| match number {
            0 => "until [ $(grep -c came record) = 19 ]; do sleep 0.1; done; echo came >> record; \
                  echo open >> record; barrier.sh open $mount/barrier && echo passed >> record"
                .to_string(),
            _ => "echo came >> record; barrier.sh pass $mount/barrier && echo passed >> record"
                .into(),
        });
        arena.restart_until_all_end("barrier", &mut running);
        let record = arena.world.shells.read("record");
        assert_all_before_any(&record, "came", "passed");
        arena.world.sh("mv record last").ok();

        // A double barrier.
        let mut running = arena.start(|number| {
            format!(
                "echo came >> record; double-barrier.sh $mount/run-{round} {CONTENDERS} {number} \
                 sh -c 'echo start >> record; echo end >> record' && echo left >> record"
            )
        });
        arena.restart_until_all_end("double barrier", &mut running);
        let record = arena.world.shells.read("record");
        assert_all_before_any(&record, "came", "start");
        assert_all_before_any(&record, "end", "left");
        arena.world.sh("mv record last").ok();

        // A rendezvous: the host comes last, and stays until all have been told.
        let mut running = arena.start(|number| match number {
            0 => "sleep 1; rendezvous.sh host $mount/meeting room-7 sh -c \
                  'until [ $(grep -c room-7 record) = 19 ]; do sleep 0.1; done'"
                .to_string(),
            _ => "rendezvous.sh meet $mount/meeting >> record".into(),
        });
        arena.restart_until_all_end("rendezvous", &mut running);
        arena.world.sh("mv record last").ok();
    }
    eprintln!("{} members were killed", arena.restarts);
}

fn nothing_is_lost_or_done_twice(replicas: Box<dyn Replicas>, everyday_rounds: usize) {
    let mut arena = Arena::of(replicas, everyday_rounds);
    let items = 5 * arena.rounds;
    // Half of them put, half of them take; takers come before the items.
    let mut running = arena.start(|number| match number % 2 {
        0 => format!(
            "for n in $(seq {items}); do echo {number}-$n | queue.sh put $mount/queue || exit; done"
        ),
        _ => format!(
            "for n in $(seq {items}); do queue.sh take $mount/queue >> record || exit; done"
        ),
    });
    arena.restart_until_all_end("queue", &mut running);
    let record = arena.world.shells.read("record");
    let taken: BTreeSet<_> = record.lines().collect();
    assert_eq!(record.lines().count(), CONTENDERS / 2 * items, "once each: {record}");
    assert_eq!(taken.len(), CONTENDERS / 2 * items, "all of them: {record}");
    assert_eq!(arena.world.sh("ls -A $mount/queue").ok(), "");
    arena.world.sh("mv record last; mkdir $mount/app").ok();

    // One publishes, the others follow: whole values, the last one everywhere.
    let mut running = arena.start(|number| match number {
        0 => format!(
            "for n in $(seq {items}); do printf 'a=%d\\nb=%d\\n' $n $n | config.sh publish $mount/app/config; \
             sleep 0.3; done"
        ),
        _ => format!(
            "config.sh follow $mount/app/config sh -c 'cat > seen.{number}; cat seen.{number} >> all.{number}; \
             ! grep -qx a={items} seen.{number} || kill -TERM $PPID' || [ $? = 143 ]"
        ),
    });
    arena.restart_until_all_end("configuration", &mut running);
    for number in 1..CONTENDERS {
        let all = arena.world.shells.read(&format!("all.{number}"));
        let lines: Vec<_> = all.lines().collect();
        let is_whole = |pair: &[&str]| pair.len() == 2 && pair[0][2..] == pair[1][2..];
        assert!(lines.chunks(2).all(is_whole), "{all}");
        let values: Vec<usize> =
            lines.iter().step_by(2).filter_map(|line| line[2..].parse().ok()).collect();
        assert!(values.is_sorted(), "never back in time: {all}");
    }
    eprintln!("{} members were killed", arena.restarts);
}

fn all_are_listed(replicas: Box<dyn Replicas>, everyday_rounds: usize) {
    let mut arena = Arena::of(replicas, everyday_rounds);
    // Members that all see each other before the first one leaves, and then a group that is empty.
    let mut running = arena.start(|number| {
        let count = format!("[ $(group-membership.sh list $mount/group | wc -l) = {CONTENDERS} ]");
        let web = format!(
            "[ $(service-registration.sh list $mount/web | grep -c host:) = {CONTENDERS} ]"
        );
        format!(
            "export mount; group-membership.sh join $mount/group {number} \
             service-registration.sh run $mount/web n{number} host:{number} \
             sh -c 'until {count} && {web}; do sleep 0.2; done; echo seen >> record; \
                    until [ $(grep -c seen record) = {CONTENDERS} ]; do sleep 0.1; done'"
        )
    });
    arena.restart_until_all_end("membership", &mut running);
    assert_eq!(arena.world.sh("ls -A $mount/group $mount/web | grep -c host").stdout, "0\n");
    let is_empty = "for n in $(seq 100); do [ -z \"$(ls -A $mount/group; ls -A $mount/web)\" ] && exit; \
                    sleep 0.1; done; exit 1";
    arena.world.sh(is_empty).ok();
    eprintln!("{} members were killed", arena.restarts);
}

macro_rules! on_both_ensembles {
    ($($name:ident),* $(,)?) => {
        mod znoded {
            $(#[test] fn $name() { super::$name(Box::new(super::Ensemble::start(3, 0)), 2); })*
        }
        mod zookeeper {
            $(#[test] fn $name() { super::$name(Box::new(super::ZooKeeperEnsemble::start()), 1); })*
        }
    };
}

on_both_ensembles!(
    locks_exclude_and_nobody_starves,
    everybody_meets,
    nothing_is_lost_or_done_twice,
    all_are_listed,
);
