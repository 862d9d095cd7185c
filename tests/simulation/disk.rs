//! A simulated disk: what is synced survives, of the rest a prefix may. Operations become durable in
//! the order of their tickets, in batches, after a delay. Knows nothing of the protocol.

use std::collections::VecDeque;
use std::sync::Arc;

use znodefs::{Epoch, Zxid};
use znodefs_server::zab::{Ensemble, Entry, LogRead, Recovered, Ticket};

use crate::database::Database;
use crate::random::Random;

/// One thing to make durable.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Append entries to the log.
    Append(Arc<[Entry]>),
    /// Cut the log behind this entry.
    Truncate(Zxid),
    /// Replace everything by a snapshot.
    Install(Database),
    /// Replace acceptedEpoch.
    AcceptedEpoch(Epoch),
    /// Replace currentEpoch.
    CurrentEpoch(Epoch),
}

/// What one batch has changed, for the invariants.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// The last ticket of the batch.
    pub ticket: Ticket,
}

/// The disk of one replica.
#[derive(Debug)]
pub struct Disk {
    /// acceptedEpoch.
    pub accepted_epoch: Epoch,
    /// currentEpoch.
    pub current_epoch: Epoch,
    /// Every entry above this zxid is in the log.
    pub base: Zxid,
    /// The synced log.
    pub log: Vec<Entry>,
    /// Whole snapshots, oldest first.
    pub snapshots: Vec<Database>,
    /// The committed configuration, in a file of its own.
    pub configuration: Ensemble,
    /// Given to the disk and not synced.
    pending: VecDeque<(Ticket, Operation)>,
    /// How many of those the running sync covers.
    in_flight: usize,
    /// Extra delay of every sync, in microseconds.
    pub slowness_us: u64,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Disk {
        Disk {
            accepted_epoch: Epoch(0),
            current_epoch: Epoch(0),
            base: Zxid::ZERO,
            log: Vec::new(),
            snapshots: Vec::new(),
            configuration: Ensemble::default(),
            pending: VecDeque::new(),
            in_flight: 0,
            slowness_us: 0,
        }
    }

    /// The last synced entry.
    pub fn last(&self) -> Zxid {
        self.log.last().map_or(self.base, |entry| entry.zxid)
    }

    /// Whether the synced history contains this entry (a snapshot stands for all before it).
    pub fn contains(&self, zxid: Zxid) -> bool {
        zxid <= self.base || self.log.binary_search_by_key(&zxid, |entry| entry.zxid).is_ok()
    }

    /// Adds an operation; the result is the delay of a sync that starts now, if none runs.
    pub fn submit(
        &mut self,
        ticket: Ticket,
        operation: Operation,
        random: &mut Random,
    ) -> Option<u64> {
        self.pending.push_back((ticket, operation));
        self.start(random)
    }

    fn start(&mut self, random: &mut Random) -> Option<u64> {
        if self.in_flight > 0 || self.pending.is_empty() {
            return None;
        }
        self.in_flight = self.pending.len();
        let delay = match random.below(200) {
            0 => random.between(20_000, 400_000),
            1..=20 => random.between(2_000, 20_000),
            _ => random.between(100, 2_000),
        };
        Some(delay + self.slowness_us)
    }

    /// The running sync has ended; the next one starts, with the delay that is returned.
    pub fn complete(&mut self, random: &mut Random) -> (Option<Synced>, Option<u64>) {
        let mut synced = None;
        for _ in 0..std::mem::take(&mut self.in_flight) {
            let Some((ticket, operation)) = self.pending.pop_front() else { break };
            self.write(operation);
            synced = Some(Synced { ticket });
        }
        (synced, self.start(random))
    }

    fn write(&mut self, operation: Operation) {
        match operation {
            Operation::Append(entries) => self.log.extend(entries.iter().cloned()),
            Operation::Truncate(zxid) => {
                self.log.truncate(self.log.partition_point(|entry| entry.zxid <= zxid));
                self.snapshots.retain(|snapshot| snapshot.zxid <= zxid);
            }
            Operation::Install(snapshot) => {
                self.log.clear();
                self.base = snapshot.zxid;
                self.snapshots = vec![snapshot];
            }
            Operation::AcceptedEpoch(epoch) => self.accepted_epoch = epoch,
            Operation::CurrentEpoch(epoch) => self.current_epoch = epoch,
        }
    }

    /// The power fails: of what was not synced some prefix is there, the last record torn (and cut
    /// by recovery).
    pub fn crash(&mut self, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        let survive = random.below(pending.len() + 1);
        for (index, (_, operation)) in pending.into_iter().enumerate() {
            if index < survive {
                self.write(operation);
            } else if let (true, Operation::Append(entries)) = (index == survive, operation) {
                let whole = random.below(entries.len());
                self.log.extend(entries[..whole].iter().cloned());
            }
        }
        self.in_flight = 0;
        self.slowness_us = 0;
    }

    /// What a replica finds when it starts.
    pub fn recover(&self) -> (Recovered, Database) {
        let database = self.snapshots.last().cloned().unwrap_or_else(Database::new);
        let recovered = Recovered {
            accepted_epoch: self.accepted_epoch,
            current_epoch: self.current_epoch,
            last_logged: self.last(),
            delivered: database.zxid,
            incomplete: false,
            initialize: false,
        };
        (recovered, database)
    }

    /// Keeps a snapshot of the applied state and drops the log before the older of two.
    pub fn keep_snapshot(&mut self, database: &Database, purge: bool) {
        let newest = self.snapshots.last().map_or(self.base, |snapshot| snapshot.zxid);
        if database.zxid <= newest {
            return;
        }
        self.snapshots.push(database.clone());
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
        if let (true, Some(oldest)) = (purge, self.snapshots.first()) {
            let keep = self.log.partition_point(|entry| entry.zxid <= oldest.zxid);
            if keep > 0 {
                self.base = oldest.zxid;
                self.log.drain(..keep);
            }
        }
    }

    /// Reads the log for a learner: at most `part_max` entries of it, and nothing when there are
    /// more than `worth_max`.
    pub fn read(&self, from: Zxid, through: Zxid, worth_max: usize, part_max: usize) -> LogRead {
        if from < self.base || through > self.last() {
            return LogRead::Unavailable;
        }
        let start = self.log.partition_point(|entry| entry.zxid <= from);
        let end = self.log.partition_point(|entry| entry.zxid <= through).max(start);
        if end - start > worth_max {
            return LogRead::Unavailable;
        }
        let after = if start == 0 { self.base } else { self.log[start - 1].zxid };
        let end = end.min(start + part_max);
        LogRead::Entries { after, entries: self.log[start..end].to_vec() }
    }
}
