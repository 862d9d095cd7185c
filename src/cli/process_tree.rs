//! The processes that a command consists of, as /proc shows them: its process group and everything else
//! that it has started. Shells with job control and timeout(1) put what they run into process groups of
//! their own, and daemons leave the session, so the group alone is not the whole command.

use std::collections::HashSet;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid};

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    parent: Pid,
    group: Pid,
    /// It has ended; only its parent has not looked yet.
    is_zombie: bool,
}

/// Which processes belong to a command.
#[derive(Clone, Debug)]
pub struct Command {
    /// The command's own process group, named like the process that was started.
    pub group: Pid,
    /// Children that this process had before it started the command.
    pub strangers: Vec<Pid>,
}

impl Command {
    /// The command's processes that still run, the first one included.
    pub fn running(&self) -> Vec<Pid> {
        members(&processes(), self, getpid())
    }

    /// Sends a signal to the process group.
    pub fn signal_group(&self, signal: Signal) {
        // A group that is gone needs no signal.
        let _ = killpg(self.group, signal);
    }

    /// Kills every process of the command that there is now. One that is just being started may
    /// escape: repeat it until none runs.
    pub fn kill(&self) {
        self.signal_group(Signal::SIGKILL);
        for pid in self.running() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// The children of this process.
pub fn own_children() -> Vec<Pid> {
    let own = getpid();
    processes().into_iter().filter(|process| process.parent == own).map(|found| found.pid).collect()
}

/// The pids among `all` that belong to the command and run, where `ancestor` is the process that
/// started it and adopts its orphans.
fn members(all: &[Process], command: &Command, ancestor: Pid) -> Vec<Pid> {
    let mut descendants: HashSet<Pid> = HashSet::from([ancestor]);
    // Pids are not ordered by age, so descent is followed until nothing is added.
    loop {
        let known = descendants.len();
        let children = all.iter().filter(|process| {
            descendants.contains(&process.parent) && !command.strangers.contains(&process.pid)
        });
        let children: Vec<Pid> = children.map(|process| process.pid).collect();
        descendants.extend(children);
        if descendants.len() == known {
            break;
        }
    }
    let belongs = |process: &&Process| {
        let is_ours = process.group == command.group || descendants.contains(&process.pid);
        process.pid != ancestor && !process.is_zombie && is_ours
    };
    all.iter().filter(belongs).map(|process| process.pid).collect()
}

/// Every process that /proc shows.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        // Gone meanwhile: not there.
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&String::from_utf8_lossy(&stat))
    })
    .collect()
}

/// Reads a line of /proc/PID/stat (proc(5)): `PID (NAME) STATE PARENT GROUP …`, where the name
/// may hold anything.
fn parse_stat(line: &str) -> Option<Process> {
    let (pid, rest) = line.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let mut number = || Some(Pid::from_raw(fields.next()?.parse().ok()?));
    Some(Process {
        pid: Pid::from_raw(pid.parse().ok()?),
        parent: number()?,
        group: number()?,
        is_zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, group: i32) -> Process {
        let [pid, parent, group] = [pid, parent, group].map(Pid::from_raw);
        Process { pid, parent, group, is_zombie: false }
    }

    fn member_pids(all: &[Process]) -> Vec<i32> {
        let command = Command { group: Pid::from_raw(20), strangers: vec![Pid::from_raw(15)] };
        members(all, &command, Pid::from_raw(10)).into_iter().map(Pid::as_raw).collect()
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "17 (a) S 1 (b) Z 5 6 7 8 -1 4194304 100";
        let expected = Process { is_zombie: true, ..process(17, 5, 6) };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("17 (a"), None);
        assert_eq!(parse_stat("17 (a) S x"), None);
    }

    #[test]
    fn neither_job_control_nor_orphans_nor_daemons_leave_a_command() {
        let all = [
            process(10, 1, 10),
            process(20, 10, 20),
            // Started by timeout(1), in a group of its own, by a child with a higher pid.
            process(11, 22, 22),
            process(22, 20, 22),
            // An orphan of the group that init has adopted.
            process(23, 1, 20),
            // A daemon that we have adopted, and what it started.
            process(25, 10, 25),
            process(26, 25, 25),
            // Others.
            process(15, 10, 10),
            process(16, 15, 10),
            process(9, 1, 9),
        ];
        assert_eq!(member_pids(&all), [20, 11, 22, 23, 25, 26]);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let all = [process(10, 1, 10), Process { is_zombie: true, ..process(20, 10, 20) }];
        assert_eq!(member_pids(&all), []);
    }
}
