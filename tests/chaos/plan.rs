//! What is tormented, how and for how long.

use std::time::Duration;

use znodefs_server::mutation::Mistake;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where every choice comes from. The processes have a time of their own: equal seeds give similar
    /// runs, not equal ones.
    pub seed: u64,
    /// Members that vote; they come first.
    pub voters: u8,
    /// Members that only learn.
    pub observers: u8,
    /// How long faults strike.
    pub time: Duration,
    /// After so long peace is made and the history judged; then it goes on with a new one.
    pub round: Duration,
    /// Whether the members speak TLS with each other.
    pub tls: bool,
    /// How long a disk takes for a sync at most, where members lose with `kill -9` what they have not
    /// synchronized.
    pub forgets: Option<Duration>,
    /// A deliberate mistake.
    pub mistake: Option<Mistake>,
}

impl Plan {
    /// A run without anything special.
    pub fn new(seed: u64, voters: u8, observers: u8, time: Duration) -> Plan {
        let round = Duration::from_secs(120);
        Plan { seed, voters, observers, time, round, tls: false, forgets: None, mistake: None }
    }

    /// The ids of all members.
    pub fn ids(&self) -> Vec<u8> {
        (1..=self.voters + self.observers).collect()
    }

    /// The command that does the same once more.
    pub fn command(&self) -> String {
        let Plan { seed, voters, observers, .. } = self;
        let minutes = self.time.as_secs().div_ceil(60);
        let mut command = format!(
            "scripts/chaos --minutes {minutes} --seed {seed} --voters {voters} --observers {observers}"
        );
        if self.tls {
            command += " --tls";
        }
        if self.forgets.is_some() {
            command += " --power-cuts";
        }
        if let Some(mistake) = self.mistake {
            command += &format!(" --mistake {}", mistake.name());
        }
        command
    }
}
