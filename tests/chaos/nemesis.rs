//! What is done to the members: killed, one or many at once, stopped, paused for longer than every
//! timeout, cut off in one direction or both, for long or again and again, their disks filled up or
//! lost, removed from the ensemble and taken back. Every choice comes from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::deadline::{Deadline, pause};
use znodefs_tests::network::CLIENTS;
use znodefs_tests::{Ensemble, Random, SmallDisk};

use crate::members::Changer;

/// How long everybody may take to serve again once nothing is wrong any more.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    Blackout,
    Stop,
    Pause,
    Cut,
    Flap,
    FullDisk,
    LostDisk,
    Reconfiguration,
}

impl Fault {
    /// What a summary calls it.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9 of one",
            Fault::Blackout => "kill -9 of most at once",
            Fault::Stop => "stop in order",
            Fault::Pause => "SIGSTOP",
            Fault::Cut => "partition",
            Fault::Flap => "flapping link",
            Fault::FullDisk => "full disk",
            Fault::LostDisk => "lost disk",
            Fault::Reconfiguration => "reconfiguration asked for",
        }
    }
}

/// A member's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Runs,
    Down,
    Paused,
}

/// Whoever does it.
pub struct Nemesis {
    pub random: Random,
    /// How often what was done.
    pub done: BTreeMap<Fault, u64>,
    pub changer: Changer,
    conditions: Vec<Condition>,
    disks: Vec<SmallDisk>,
    full: Option<u8>,
    /// Whose disk was lost and who may not have everything again.
    wiped: Option<u8>,
    /// Whether members make a mistake: one that finds its history of no use and ends gets an empty disk
    /// instead, as operators do, so that clients may notice as well.
    pub makes_mistakes: bool,
    /// What the last member said that ended by itself because of a mistake.
    pub complaint: Option<String>,
    /// Either members are removed and taken back in this round, or disks are lost: of two voters none may
    /// lose its disk, since one that is empty has no vote.
    members_change: bool,
    cuts: Vec<(u8, u8)>,
}

impl Nemesis {
    pub fn new(random: Random, members: usize, disks: Vec<SmallDisk>) -> Nemesis {
        Nemesis {
            random,
            done: BTreeMap::new(),
            changer: Changer::default(),
            conditions: vec![Condition::Runs; members],
            disks,
            full: None,
            wiped: None,
            makes_mistakes: false,
            complaint: None,
            members_change: false,
            cuts: Vec::new(),
        }
    }

    fn count(&mut self, fault: Fault) {
        *self.done.entry(fault).or_default() += 1;
    }

    /// Anybody, and the leader more often than its share: there is most to break.
    fn someone(&mut self, ensemble: &Ensemble) -> u8 {
        let any = self.random.between(1, self.conditions.len() as u64 + 1) as u8;
        if self.random.between(0, 3) > 0 {
            return any;
        }
        let leads = |id: &u8| {
            self.conditions[usize::from(*id) - 1] == Condition::Runs
                && ensemble.role(*id).as_deref() == Some("leader")
        };
        ensemble.ids().into_iter().find(leads).unwrap_or(any)
    }

    fn condition(&mut self, id: u8) -> &mut Condition {
        &mut self.conditions[usize::from(id) - 1]
    }

    /// Does something to somebody; an error if a member has ended by itself.
    fn strike(&mut self, ensemble: &mut Ensemble) -> Result<(), String> {
        self.start_who_gave_up(ensemble)?;
        let id = self.someone(ensemble);
        match self.random.between(0, 27) {
            0..7 => self.change(ensemble, id),
            7..13 => self.cut_someone(ensemble, id),
            13 => self.flap(ensemble, id),
            14 | 15 => self.fill_or_empty(id),
            16 | 17 => self.black_out(ensemble),
            18 if !self.members_change => self.lose_disk(ensemble, id),
            18..21 if self.members_change => {
                if self.changer.change(ensemble, &mut self.random) {
                    self.count(Fault::Reconfiguration);
                }
            }
            _ => self.ease(ensemble),
        }
        Ok(())
    }

    /// Mends the network, and lets most of those that are not there come back: who never serves breaks
    /// no promise.
    fn ease(&mut self, ensemble: &mut Ensemble) {
        self.mend_network(ensemble);
        for id in ensemble.ids() {
            if self.random.between(0, 4) > 0 {
                self.bring_back(ensemble, id);
            }
        }
    }

    fn bring_back(&mut self, ensemble: &mut Ensemble, id: u8) {
        match *self.condition(id) {
            Condition::Runs => {}
            Condition::Down => ensemble.start_member(id),
            Condition::Paused => ensemble.process(id).signal(Signal::SIGCONT),
        }
        *self.condition(id) = Condition::Runs;
    }

    /// One whose disk is full may end, and says so; an operator makes room and starts it again.
    fn start_who_gave_up(&mut self, ensemble: &mut Ensemble) -> Result<(), String> {
        for id in ensemble.ids() {
            if *self.condition(id) != Condition::Runs {
                continue;
            }
            let Some(status) = ensemble.process(id).exit_status() else { continue };
            let log = ensemble.log_text(id);
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            if !last.contains("No space left") && !last.contains("disk is full") {
                let complaint = format!("member {id} ended by itself with {status}:\n{last}");
                if !self.makes_mistakes {
                    return Err(complaint);
                }
                self.complaint = Some(complaint);
                empty(ensemble, id);
            }
            self.make_room();
            ensemble.start_member(id);
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if let Some(id) = self.full.take() {
            self.disks[usize::from(id) - 1].free();
        }
    }

    fn change(&mut self, ensemble: &mut Ensemble, id: u8) {
        let choice = self.random.between(0, 10);
        let condition = match (*self.condition(id), choice) {
            (Condition::Runs, 0..5) => {
                self.count(Fault::Kill);
                ensemble.kill(id);
                Condition::Down
            }
            (Condition::Runs, 5..7) if self.full.is_none() => {
                self.count(Fault::Stop);
                ensemble.stop(id);
                Condition::Down
            }
            (Condition::Runs, _) => {
                self.count(Fault::Pause);
                ensemble.process(id).signal(Signal::SIGSTOP);
                Condition::Paused
            }
            (Condition::Down, _) => {
                ensemble.start_member(id);
                Condition::Runs
            }
            (Condition::Paused, 0..2) => {
                self.count(Fault::Kill);
                ensemble.kill(id);
                Condition::Down
            }
            (Condition::Paused, _) => {
                ensemble.process(id).signal(Signal::SIGCONT);
                Condition::Runs
            }
        };
        *self.condition(id) = condition;
    }

    /// All go at the same moment, or just more than half, and some of them come back soon.
    fn black_out(&mut self, ensemble: &mut Ensemble) {
        self.count(Fault::Blackout);
        let mut ids = ensemble.ids();
        for place in (1..ids.len()).rev() {
            ids.swap(place, self.random.between(0, place as u64 + 1) as usize);
        }
        let most = ids.len() / 2 + 1;
        if self.random.between(0, 2) == 0 {
            ids.truncate(most);
        }
        ids.retain(|id| *self.condition(*id) != Condition::Down);
        ensemble.kill_at_once(&ids);
        ids.iter().for_each(|id| *self.condition(*id) = Condition::Down);
        pause(Duration::from_millis(self.random.between(0, 300)));
        for id in ids.into_iter().take(most) {
            ensemble.start_member(id);
            *self.condition(id) = Condition::Runs;
        }
    }

    /// A new disk in the place of a broken one. The next one may break when this one is full again:
    /// what only those had that lost it is gone, with any protocol.
    fn lose_disk(&mut self, ensemble: &mut Ensemble, id: u8) {
        let is_whole = |wiped: u8| ensemble.is_serving(wiped);
        if self.wiped.is_some_and(|wiped| !is_whole(wiped)) || self.full == Some(id) {
            return;
        }
        self.count(Fault::LostDisk);
        if *self.condition(id) != Condition::Down {
            ensemble.kill(id);
        }
        empty(ensemble, id);
        ensemble.start_member(id);
        *self.condition(id) = Condition::Runs;
        self.wiped = Some(id);
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
        self.count(Fault::Cut);
        let others: Vec<u8> = ensemble.ids().into_iter().filter(|other| *other != id).collect();
        let other = others[self.random.between(0, others.len() as u64) as usize];
        match self.random.between(0, 8) {
            0 | 1 => {
                for other in others {
                    self.cut(ensemble, id, other);
                    self.cut(ensemble, other, id);
                }
            }
            2 | 3 => others.iter().for_each(|other| self.cut(ensemble, id, *other)),
            4 => others.iter().for_each(|other| self.cut(ensemble, *other, id)),
            5 => self.cut(ensemble, id, other),
            6 => {
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
        self.count(Fault::Flap);
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
            disk.fill();
            self.full = Some(id);
            self.count(Fault::FullDisk);
        }
    }

    fn mend_network(&mut self, ensemble: &Ensemble) {
        if let Some(network) = ensemble.network() {
            self.cuts.drain(..).for_each(|(from, to)| network.mend(from, to));
        }
    }

    /// Strikes until `end`, with pauses of which the longest are longer than every timeout. `look` is
    /// called in between, and ends it with an error.
    pub fn rage(
        &mut self,
        ensemble: &mut Ensemble,
        end: Deadline,
        mut look: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        self.members_change = self.random.between(0, 2) == 0;
        while !end.has_passed() {
            let longest = if self.random.between(0, 6) == 0 { 5000 } else { 900 };
            let pause_ms = Duration::from_millis(self.random.between(10, longest));
            pause(pause_ms.min(end.remaining()));
            self.strike(ensemble)?;
            look()?;
        }
        Ok(())
    }

    /// Does no more harm, and mends what can be mended at once.
    pub fn let_go(&mut self, ensemble: &mut Ensemble) {
        self.mend_network(ensemble);
        self.make_room();
        for id in ensemble.ids() {
            self.bring_back(ensemble, id);
        }
    }

    /// Makes everything good again, and waits until everybody serves.
    pub fn relent(&mut self, ensemble: &mut Ensemble) -> Result<(), String> {
        self.let_go(ensemble);
        let limit = Deadline::after(RECOVERY_LIMIT);
        self.changer.restore(ensemble, limit)?;
        loop {
            self.start_who_gave_up(ensemble)?;
            let absent = |id: &u8| !ensemble.is_serving(*id);
            let absent: Vec<u8> = ensemble.ids().into_iter().filter(absent).collect();
            if absent.is_empty() {
                self.wiped = None;
                return Ok(());
            }
            if limit.has_passed() {
                let seconds = RECOVERY_LIMIT.as_secs();
                return Err(format!("{absent:?} do not serve {seconds} s after the last fault"));
            }
            pause(Duration::from_millis(50));
        }
    }
}

/// Removes what is on the disk of a member that does not run.
fn empty(ensemble: &Ensemble, id: u8) {
    let data = ensemble.data_directory(id).join("znodefs-1");
    // One that has never been started has nothing to lose.
    let _ = std::fs::remove_dir_all(data);
}
