//! What goes wrong with disks: power cut between two operations, a sync that fails, no room, bits
//! that rot, writes that go astray; the latter two on a minority of the voters only.

use znodefs_server::persistence::disk::Operation;
use znodefs_server::persistence::memory_disk::Fault;

use super::world::{Happening, World};

/// Bits do not rot so near to the end of a log's last file: its last record could then not be told
/// from one that was being written when the power went.
const TAIL_LENGTH: usize = 2_048;

impl World {
    /// The power goes between two operations of the disk.
    pub fn cut_power(&mut self, node: usize) {
        let count = self.fault_random.between(0, 30);
        let state = &self.nodes[node];
        let disk = if self.plan.log_apart && self.fault_random.percent(50) {
            &state.log_disk
        } else {
            &state.data
        };
        disk.cut_power_after(count);
        self.log.fault(self.agenda.now(), || {
            format!("node {node}: the power goes after {count} changes")
        });
    }

    /// The next sync of a log, or of any file, fails.
    pub fn fail_sync(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        state.disk_fails = true;
        let (disk, name) = match self.fault_random.below(3) {
            0 => (&state.data, "snapshot"),
            1 => (&state.data, ""),
            _ => (&state.log_disk, "log"),
        };
        let operation = match self.fault_random.below(4) {
            0 => Operation::Write,
            _ => Operation::Sync,
        };
        let skip = self.fault_random.between(0, 3);
        disk.inject(Fault::new(operation, libc::EIO).on(name).after(skip));
        self.counts.disk_failures += 1;
        self.log
            .fault(self.agenda.now(), || format!("node {node}: {operation} of {name} will fail"));
    }

    /// A disk has little room for a while.
    pub fn fill_disk(&mut self, node: usize) {
        let room = self.fault_random.between(0, 8_192);
        let state = &mut self.nodes[node];
        state.disk_fails = true;
        for disk in [&state.data, &state.log_disk] {
            disk.set_capacity(Some(disk.used() + room));
        }
        self.counts.full_disks += 1;
        self.log.fault(self.agenda.now(), || {
            format!("node {node}: its disk has room for {room} bytes")
        });
        let time = self.some_time();
        self.agenda.schedule_in(time, Happening::Room { node });
    }

    /// There is room again.
    pub fn make_room(&mut self, node: usize) {
        self.log.fault(self.agenda.now(), || format!("node {node}: its disk has room again"));
        for disk in [&self.nodes[node].data, &self.nodes[node].log_disk] {
            disk.set_capacity(None);
        }
    }

    /// A bit of some file rots.
    pub fn rot(&mut self, node: usize) {
        if !self.may_lose(node) || !self.may_vote(node) {
            return;
        }
        let state = &self.nodes[node];
        let apart = self.plan.log_apart && self.fault_random.percent(50);
        let disk = if apart { &state.log_disk } else { &state.data };
        let mut names = disk.names();
        names.sort();
        names.retain(|name| !name.ends_with(".tmp"));
        let last_log = names.iter().rfind(|name| name.starts_with("log.")).cloned();
        if names.is_empty() {
            return;
        }
        let name = names[self.fault_random.below(names.len())].clone();
        let bytes = disk.contents(&name).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let end =
            if Some(&name) == last_log.as_ref() { used.saturating_sub(TAIL_LENGTH) } else { used };
        if end == 0 {
            return;
        }
        let offset = self.fault_random.below(end) as u64;
        let mask = 1 << self.fault_random.below(8);
        disk.flip(&name, offset, mask);
        self.nodes[node].damaged = true;
        self.counts.rotten_bits += 1;
        self.log
            .fault(self.agenda.now(), || format!("node {node}: a bit of {name} at {offset} rots"));
    }

    /// The next write to a log goes astray.
    pub fn misdirect(&mut self, node: usize) {
        if !self.may_lose(node) || !self.may_vote(node) {
            return;
        }
        self.nodes[node].log_disk.misdirect("log.");
        self.nodes[node].damaged = true;
        self.counts.misdirected_writes += 1;
        self.log.fault(self.agenda.now(), || {
            format!("node {node}: the next write of its log goes astray")
        });
    }
}
