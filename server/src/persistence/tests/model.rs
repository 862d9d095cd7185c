//! A replica reduced to its storage, and what must be there after a crash: every step says before it
//! runs which histories it may leave, and [`Model::reopen`] holds the disk to it.
//!
//! The "tree" is the list of all transactions; a snapshot holds the list, one block each.

use znodefs::{Epoch, Zxid};

use super::*;
use crate::persistence::storage::{self, Storage};
use crate::persistence::{SnapshotReader, StorageParts, purge};

pub type Entry = (Zxid, Vec<u8>);

/// One thing that a replica does with its storage.
#[derive(Clone, Debug)]
pub enum Step {
    /// Appends transactions with payloads of these lengths, without syncing.
    Append(Vec<usize>),
    /// Makes them durable.
    Sync,
    /// Snapshots the state of so many transactions ago; the blocks hold everything until now.
    Snapshot { back: usize },
    /// Removes so many transactions.
    Truncate { back: usize },
    /// Keeps so many snapshots.
    Purge { keep: usize },
    /// Replaces the history: so many transactions fewer, then some of a new leader.
    Install { back: usize, new: usize },
    /// Promises and adopts the next epoch.
    Epoch,
    /// Stops and starts in order.
    Restart,
    /// Stops without a word and starts; the machine goes on.
    Kill,
    /// The machine stops and starts.
    Crash,
}

/// The process must end: what is on the disk is unknown to it.
pub struct Stop;

pub struct Model {
    pub disk: MemoryDisk,
    parts: Option<StorageParts>,
    /// Everything that may be there.
    history: Vec<Entry>,
    /// So much of it must be there.
    certain: usize,
    /// A whole other history that may be there instead.
    alternative: Option<Vec<Entry>>,
    /// Epochs, and what they may have become: accepted, current.
    epochs: [(Epoch, Epoch); 2],
    /// Makes every payload another one.
    unique: u64,
    new_epoch: bool,
}

impl Model {
    pub fn new(seed: u64) -> Model {
        Model::on(MemoryDisk::new(seed))
    }

    pub fn on(disk: MemoryDisk) -> Model {
        Model {
            disk,
            parts: None,
            history: Vec::new(),
            certain: 0,
            alternative: None,
            epochs: [(Epoch(0), Epoch(0)); 2],
            unique: 0,
            new_epoch: true,
        }
    }

    /// How many transactions are there.
    pub fn len(&self) -> usize {
        self.history.len()
    }

    /// Runs the steps; an end of the process is followed by a start on the same machine or, where
    /// `crash`, on one that has forgotten.
    pub fn run(&mut self, steps: &[Step], crash: bool) {
        for step in steps {
            if self.parts.is_none() || self.step(step).is_err() {
                if crash {
                    self.disk.crash();
                }
                self.reopen();
            }
        }
    }

    /// Runs the steps until the first that ends the process.
    pub fn run_until_stop(&mut self, steps: &[Step]) {
        for step in steps {
            if self.step(step).is_err() {
                break;
            }
        }
        self.parts = None;
    }

    pub fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Append(lengths) => self.append(lengths),
            Step::Sync => self.sync(),
            Step::Snapshot { back } => self.snapshot(*back),
            Step::Truncate { back } => self.truncate(*back),
            Step::Purge { keep } => {
                let parts = self.parts.as_ref().ok_or(Stop)?;
                // A failed purge may be tried again later.
                let _ = purge(&parts.snapshots, &parts.reader, *keep);
                Ok(())
            }
            Step::Install { back, new } => self.install(*back, *new),
            Step::Epoch => self.next_epoch(),
            Step::Restart => {
                self.sync()?;
                self.parts.take().ok_or(Stop)?.log.close().map_err(|_| Stop)?;
                self.try_reopen()
            }
            Step::Kill => self.try_reopen(),
            Step::Crash => {
                self.disk.crash();
                self.try_reopen()
            }
        }
    }

    fn append(&mut self, lengths: &[usize]) -> Result<(), Stop> {
        let log = &mut self.parts.as_mut().ok_or(Stop)?.log;
        for length in lengths {
            let last = log.last_zxid();
            let zxid = if std::mem::take(&mut self.new_epoch) {
                Zxid::new(Epoch(last.epoch().0 + 1), 1)
            } else {
                last.next().unwrap()
            };
            self.unique += 1;
            let mut payload = self.unique.to_le_bytes().repeat(length / 8 + 1);
            payload.truncate(8 + length);
            log.append(zxid, &payload).map_err(|_| Stop)?;
            self.history.push((zxid, payload));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Stop> {
        let log = &mut self.parts.as_mut().ok_or(Stop)?.log;
        match log.write_and_sync() {
            Ok(durable) => {
                assert_eq!(durable, log.last_zxid());
                self.certain = self.history.len();
                Ok(())
            }
            Err(LogError::DiskFull { .. }) => {
                log.discard_pending();
                // Refused for certain: it must never be seen again.
                self.history.truncate(self.certain);
                Ok(())
            }
            Err(_) => Err(Stop),
        }
    }

    fn zxid_at(&self, count: usize) -> Zxid {
        count.checked_sub(1).map_or(Zxid::ZERO, |index| self.history[index].0)
    }

    fn snapshot(&mut self, back: usize) -> Result<(), Stop> {
        self.sync()?;
        let parts = self.parts.as_mut().ok_or(Stop)?;
        parts.log.roll().map_err(|_| Stop)?;
        let parts = self.parts.as_ref().ok_or(Stop)?;
        let zxid = self.zxid_at(self.certain.saturating_sub(back)).max(parts.reader.base());
        let newest = self.zxid_at(self.certain);
        let write = || {
            let mut writer = parts.snapshots.create(zxid)?;
            for (zxid, payload) in &self.history[..self.certain] {
                writer.write_block(&[&zxid.0.to_le_bytes()[..], payload].concat())?;
            }
            writer.finish(newest)
        };
        // A failed snapshot leaves those before, and the log.
        let _ = write();
        Ok(())
    }

    fn truncate(&mut self, back: usize) -> Result<(), Stop> {
        self.history.truncate(self.certain);
        let before = self.certain;
        self.certain = before.saturating_sub(back);
        let zxid = self.zxid_at(self.certain);
        let parts = self.parts.as_mut().ok_or(Stop)?;
        match storage::truncate(&mut parts.log, &parts.snapshots, zxid) {
            Ok(last) => {
                assert_eq!(last, zxid);
                self.history.truncate(self.certain);
                self.new_epoch = true;
                Ok(())
            }
            Err(crate::persistence::LogThreadError::Log(LogError::NotReachingBack { .. })) => {
                self.certain = before;
                parts.log.discard_pending();
                Ok(())
            }
            Err(_) => Err(Stop),
        }
    }

    fn install(&mut self, back: usize, new: usize) -> Result<(), Stop> {
        self.history.truncate(self.certain);
        let epoch = Epoch(self.zxid_at(self.certain).epoch().0 + 1);
        let mut installed = self.history[..self.certain.saturating_sub(back)].to_vec();
        for counter in 1..=new as u32 + 1 {
            self.unique += 1;
            installed.push((Zxid::new(epoch, counter), self.unique.to_le_bytes().to_vec()));
        }
        let zxid = installed[installed.len() - 1].0;
        let parts = self.parts.as_mut().ok_or(Stop)?;
        parts.log.discard_pending();
        self.alternative = Some(installed.clone());
        let write = || {
            let mut writer = parts.snapshots.create_installed(zxid)?;
            for (zxid, payload) in &installed {
                writer.write_block(&[&zxid.0.to_le_bytes()[..], payload].concat())?;
            }
            writer.finish(zxid)
        };
        let info = write().map_err(|_| Stop)?;
        self.alternative = None;
        self.certain = installed.len();
        self.history = installed;
        parts.log.reset(info.generation, zxid).map_err(|_| Stop)?;
        parts.snapshots.begin_generation(info.generation).map_err(|_| Stop)
    }

    fn next_epoch(&mut self) -> Result<(), Stop> {
        let epochs = &mut self.parts.as_mut().ok_or(Stop)?.epochs;
        let next = Epoch(epochs.accepted().0 + 1);
        self.epochs[1] = (next, self.epochs[0].1);
        epochs.set_accepted(next).map_err(|_| Stop)?;
        assert_eq!(epochs.accepted(), next);
        self.epochs = [(next, self.epochs[0].1), (next, next)];
        epochs.set_current(next).map_err(|_| Stop)?;
        self.epochs[0] = self.epochs[1];
        Ok(())
    }

    /// Starts again and compares; a start must succeed.
    pub fn reopen(&mut self) {
        if let Err(error) = self.start() {
            panic!("the start was refused: {error}");
        }
    }

    fn try_reopen(&mut self) -> Result<(), Stop> {
        self.start().map_err(|_| Stop)
    }

    /// Starts; the disk may fail, but what a start that works finds must be right.
    pub fn start(&mut self) -> Result<(), storage::StorageError> {
        self.parts = None;
        let disk = shared(&self.disk);
        let storage = Storage::open(disk.clone(), disk, storage_options())?;
        let restored = storage.restore(load)?;
        let (zxid, mut found) = restored.unwrap_or_default();
        storage.replay_after(zxid, |zxid, payload| {
            let entry = (zxid, payload.to_vec());
            if found.last().is_some_and(|(last, _)| *last >= zxid) {
                // Replaying what a fuzzy snapshot has already changes nothing.
                assert!(found.contains(&entry), "{zxid} differs between snapshot and log");
            } else {
                found.push(entry);
            }
            Ok(())
        })?;
        assert_eq!(storage.last_zxid(), found.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid));
        assert_eq!(storage.is_empty(), found.is_empty());
        self.check_history(found);
        let parts = storage.into_parts()?;
        let epochs = (parts.epochs.accepted(), parts.epochs.current());
        assert!(self.epochs.contains(&epochs), "{epochs:?} is none of {:?}", self.epochs);
        self.epochs = [epochs; 2];
        self.parts = Some(parts);
        self.new_epoch = !self.unique.is_multiple_of(3);
        Ok(())
    }

    fn check_history(&mut self, found: Vec<Entry>) {
        if self.alternative.take().is_some_and(|alternative| alternative == found) {
            self.history.clone_from(&found);
        }
        let describe = |entries: &[Entry]| -> String {
            entries.iter().map(|(zxid, payload)| format!("{zxid}+{} ", payload.len())).collect()
        };
        assert!(
            self.history.starts_with(&found) && found.len() >= self.certain.min(self.history.len()),
            "found {}\nof {}\nwhere {} are certain",
            describe(&found),
            describe(&self.history),
            self.certain
        );
        self.certain = found.len();
        self.history = found;
    }
}

fn load(reader: &mut SnapshotReader) -> Result<Vec<Entry>, storage::CallerError> {
    let mut entries = Vec::new();
    while let Some(block) = reader.next_block()? {
        let (zxid, payload) = block.split_first_chunk::<8>().ok_or("short block")?;
        entries.push((Zxid(i64::from_le_bytes(*zxid)), payload.to_vec()));
    }
    Ok(entries)
}

/// A life of a replica in which everything happens at least twice.
pub fn eventful_life() -> Vec<Step> {
    use Step::*;
    vec![
        Append(vec![10]),
        Sync,
        Append(vec![100, 0, 700]),
        Sync,
        Epoch,
        Append(vec![2000, 1000, 1500]),
        Sync,
        Append(vec![5]),
        Snapshot { back: 2 },
        Append(vec![40; 20]),
        Sync,
        Truncate { back: 12 },
        Append(vec![30, 30]),
        Sync,
        Append(vec![1200; 5]),
        Snapshot { back: 1 },
        Append(vec![1200; 4]),
        Sync,
        Append(vec![1300; 4]),
        Sync,
        Truncate { back: 10 },
        Append(vec![9]),
        Snapshot { back: 0 },
        Append(vec![9, 9]),
        Snapshot { back: 0 },
        Purge { keep: 2 },
        Append(vec![600; 9]),
        Sync,
        Restart,
        Epoch,
        Append(vec![10, 10]),
        Sync,
        Install { back: 5, new: 2 },
        Append(vec![10, 3000]),
        Sync,
        Append(vec![10, 3000]),
        Kill,
        Append(vec![64]),
        Snapshot { back: 1 },
        Purge { keep: 1 },
        Append(vec![8, 8]),
        Sync,
        Truncate { back: 1 },
        Append(vec![8]),
        Sync,
        Crash,
        Append(vec![500; 3]),
        Sync,
    ]
}
