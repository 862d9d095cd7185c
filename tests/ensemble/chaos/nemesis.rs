//! What is done to the members: killed, stopped, paused for longer than every timeout, cut off in one
//! direction or both, for long or again and again, their disks filled up. Every choice comes from the
//! seed.

use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::deadline::{Deadline, pause};
use znodefs_tests::network::CLIENTS;
use znodefs_tests::{Ensemble, Random, SmallDisk};

/// A member's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Runs,
    Down,
    Paused,
}

/// Counts of what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub kills: u32,
    pub stops: u32,
    pub pauses: u32,
    pub cuts: u32,
    pub flaps: u32,
    pub full_disks: u32,
}

/// Whoever does it.
pub struct Nemesis {
    pub random: Random,
    pub done: Done,
    conditions: Vec<Condition>,
    /// Empty where the members have the host's disk.
    disks: Vec<SmallDisk>,
    full: Option<u8>,
    cuts: Vec<(u8, u8)>,
}

impl Nemesis {
    pub fn new(random: Random, members: usize, disks: Vec<SmallDisk>) -> Nemesis {
        let conditions = vec![Condition::Runs; members];
        Nemesis { random, done: Done::default(), conditions, disks, full: None, cuts: Vec::new() }
    }

    fn someone(&mut self) -> u8 {
        self.random.between(1, self.conditions.len() as u64 + 1) as u8
    }

    /// Does something to somebody.
    pub fn strike(&mut self, ensemble: &mut Ensemble) {
        self.start_who_gave_up(ensemble);
        let id = self.someone();
        match self.random.between(0, 20) {
            0..8 => self.change(ensemble, id),
            8..13 if ensemble.network().is_some() => self.cut_someone(ensemble, id),
            13 if ensemble.network().is_some() => self.flap(ensemble, id),
            14 | 15 if !self.disks.is_empty() => self.fill_or_empty(id),
            _ => self.mend_network(ensemble),
        }
    }

    /// One whose disk is full may end, and says so; an operator makes room and starts it again.
    fn start_who_gave_up(&mut self, ensemble: &mut Ensemble) {
        for id in ensemble.ids() {
            let place = usize::from(id) - 1;
            if self.conditions[place] != Condition::Runs {
                continue;
            }
            let Some(status) = ensemble.process(id).exit_status() else { continue };
            let log = ensemble.log_text(id);
            let had_no_room = log.contains("No space left") || log.contains("disk is full");
            assert!(had_no_room, "member {id} ended by itself with {status}:\n{log}");
            self.make_room();
            ensemble.start_member(id);
        }
    }

    fn make_room(&mut self) {
        if let Some(id) = self.full.take() {
            self.disks[usize::from(id) - 1].free();
        }
    }

    fn change(&mut self, ensemble: &mut Ensemble, id: u8) {
        let condition = &mut self.conditions[usize::from(id) - 1];
        *condition = match (*condition, self.random.between(0, 10)) {
            (Condition::Runs, 0..5) => {
                self.done.kills += 1;
                ensemble.kill(id);
                Condition::Down
            }
            (Condition::Runs, 5..7) if self.full.is_none() => {
                self.done.stops += 1;
                ensemble.stop(id);
                Condition::Down
            }
            (Condition::Runs, _) => {
                self.done.pauses += 1;
                ensemble.process(id).signal(Signal::SIGSTOP);
                Condition::Paused
            }
            (Condition::Down, _) => {
                ensemble.start_member(id);
                Condition::Runs
            }
            (Condition::Paused, 0..2) => {
                ensemble.kill(id);
                Condition::Down
            }
            (Condition::Paused, _) => {
                ensemble.process(id).signal(Signal::SIGCONT);
                Condition::Runs
            }
        };
    }

    fn cut(&mut self, ensemble: &Ensemble, from: u8, to: u8) {
        if from != to
            && let Some(network) = ensemble.network()
        {
            network.cut(from, to);
            self.cuts.push((from, to));
        }
    }

    /// From everybody or from one, both ways or one way; or in two halves; or from clients.
    fn cut_someone(&mut self, ensemble: &Ensemble, id: u8) {
        self.done.cuts += 1;
        let others: Vec<u8> = ensemble.ids().into_iter().filter(|other| *other != id).collect();
        let other = others[self.random.between(0, others.len() as u64) as usize];
        match self.random.between(0, 6) {
            0 => {
                for other in others {
                    self.cut(ensemble, id, other);
                    self.cut(ensemble, other, id);
                }
            }
            1 => others.iter().for_each(|other| self.cut(ensemble, id, *other)),
            2 => others.iter().for_each(|other| self.cut(ensemble, *other, id)),
            3 => self.cut(ensemble, id, other),
            4 => {
                for (number, other) in others.iter().enumerate() {
                    for another in &others[number + 1..] {
                        if (number + usize::from(*another)) % 2 == 0 {
                            self.cut(ensemble, *other, *another);
                            self.cut(ensemble, *another, *other);
                        }
                    }
                }
            }
            _ => {
                self.cut(ensemble, id, CLIENTS);
                if self.random.between(0, 2) == 0 {
                    self.cut(ensemble, CLIENTS, id);
                }
            }
        }
    }

    /// On and off, faster than anybody's timeout.
    fn flap(&mut self, ensemble: &Ensemble, id: u8) {
        self.done.flaps += 1;
        let Some(network) = ensemble.network() else { return };
        for _ in 0..self.random.between(2, 8) {
            for other in ensemble.ids().into_iter().filter(|other| *other != id) {
                network.cut(id, other);
            }
            pause(Duration::from_millis(self.random.between(20, 300)));
            for other in ensemble.ids().into_iter().filter(|other| *other != id) {
                network.mend(id, other);
            }
            pause(Duration::from_millis(self.random.between(20, 300)));
        }
    }

    fn fill_or_empty(&mut self, id: u8) {
        if self.full.is_some() {
            self.make_room();
        } else if let Some(disk) = self.disks.get(usize::from(id) - 1) {
            self.done.full_disks += 1;
            disk.fill();
            self.full = Some(id);
        }
    }

    fn mend_network(&mut self, ensemble: &Ensemble) {
        if let Some(network) = ensemble.network() {
            self.cuts.drain(..).for_each(|(from, to)| network.mend(from, to));
        }
    }

    /// Strikes until `end`, with pauses of which the longest are longer than every timeout.
    pub fn rage(&mut self, ensemble: &mut Ensemble, end: Deadline, mut progress: impl FnMut()) {
        while !end.has_passed() {
            let longest = if self.random.between(0, 6) == 0 { 5000 } else { 900 };
            pause(Duration::from_millis(self.random.between(10, longest)));
            self.strike(ensemble);
            progress();
        }
    }

    /// Makes everything good again, and waits until everybody serves.
    pub fn relent(&mut self, ensemble: &mut Ensemble) {
        self.mend_network(ensemble);
        self.make_room();
        for id in ensemble.ids() {
            match self.conditions[usize::from(id) - 1] {
                Condition::Runs => {}
                Condition::Down => ensemble.start_member(id),
                Condition::Paused => ensemble.process(id).signal(Signal::SIGCONT),
            }
            self.conditions[usize::from(id) - 1] = Condition::Runs;
        }
        self.start_who_gave_up(ensemble);
        let wait = Deadline::after(Duration::from_secs(60));
        while !ensemble.ids().into_iter().all(|id| ensemble.is_serving(id)) {
            self.start_who_gave_up(ensemble);
            assert!(!wait.has_passed(), "not everybody serves a minute after the last fault");
            pause(Duration::from_millis(50));
        }
    }
}
