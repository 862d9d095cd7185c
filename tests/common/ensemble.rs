//! Ensembles of real replicas, on loopback or in a network of their own.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deadline::wait_until;
use crate::server::{STOP_LIMIT, four_letter_word_to};
use crate::{Directory, Network, Process, binary, free_port};

/// How long members may take to agree on a leader, or one of them to be brought up to date.
pub const SERVICE_LIMIT: Duration = Duration::from_secs(40);

/// One member, running or not.
#[derive(Debug)]
struct Member {
    id: u8,
    client_port: u16,
    line: String,
    /// Lines of its configuration file that the others do not have.
    settings: String,
    process: Option<Process>,
}

/// Voters and observers, each a process with its own data.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Member>,
    settings: String,
    /// What runs in the place of `znoded`, with its first arguments.
    program: Option<(PathBuf, Vec<String>)>,
    network: Option<Network>,
    directory: Directory,
}

impl Ensemble {
    /// Starts `voters` and `observers` with empty directories and waits until all of them serve.
    pub fn start(voters: u8, observers: u8) -> Ensemble {
        Ensemble::start_with(voters, observers, "")
    }

    /// The same with more lines for every configuration file.
    pub fn start_with(voters: u8, observers: u8, settings: &str) -> Ensemble {
        let mut ensemble = Ensemble::configure(voters, observers, settings);
        for id in ensemble.ids() {
            ensemble.start_member(id);
        }
        for id in ensemble.ids() {
            ensemble.wait_until_serving(id);
        }
        ensemble
    }

    /// Chooses ports and directories, and starts nobody.
    pub fn configure(voters: u8, observers: u8, settings: &str) -> Ensemble {
        Ensemble::configure_on(None, voters, observers, settings)
    }

    /// The same with every member in a node of a network; loopback where there is none.
    pub fn configure_on(
        network: Option<Network>,
        voters: u8,
        observers: u8,
        settings: &str,
    ) -> Ensemble {
        let directory = Directory::new();
        let member = |id: u8| {
            let host = host_of(&network, id);
            let (client_port, quorum, election) = (free_port(), free_port(), free_port());
            let role = if id > voters { ":observer" } else { "" };
            let line = format!("server.{id}={host}:{quorum}:{election}{role};{host}:{client_port}");
            Member { id, client_port, line, settings: String::new(), process: None }
        };
        let members: Vec<Member> = (1..=voters + observers).map(member).collect();
        let settings = settings.to_string();
        Ensemble { members, settings, program: None, network, directory }
    }

    /// The ids of all members, voters first.
    pub fn ids(&self) -> Vec<u8> {
        self.members.iter().map(|member| member.id).collect()
    }

    fn member(&self, id: u8) -> &Member {
        &self.members[usize::from(id) - 1]
    }

    /// Gives a member another line; clients find it at the new line's port from now on.
    pub fn set_line(&mut self, id: u8, line: &str) {
        let (_, port) = line.rsplit_once(':').expect("a line that ends with the client's address");
        let member = &mut self.members[usize::from(id) - 1];
        member.client_port = port.parse().expect("a port");
        member.line = line.to_string();
    }

    /// Where a member keeps its data.
    pub fn data_directory(&self, id: u8) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// A member's line of the configuration files, `server.N=…`.
    pub fn line(&self, id: u8) -> &str {
        &self.member(id).line
    }

    /// `HOST:PORT` of a member for clients.
    pub fn address(&self, id: u8) -> String {
        format!("{}:{}", host_of(&self.network, id), self.member(id).client_port)
    }

    /// Its network, if it is not on loopback.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// All members for a client.
    pub fn connect_string(&self) -> String {
        let all: Vec<String> = self.ids().into_iter().map(|id| self.address(id)).collect();
        all.join(",")
    }

    /// Gives a member lines for its configuration file that the others do not have; they count from
    /// its next start.
    pub fn set_settings(&mut self, id: u8, settings: &str) {
        self.members[usize::from(id) - 1].settings = settings.to_string();
    }

    /// Lets members be this program from their next start on, with these arguments in front of those of
    /// `znoded`.
    pub fn set_program(&mut self, program: PathBuf, arguments: Vec<String>) {
        self.program = Some((program, arguments));
    }

    /// Starts a member with the data it has.
    pub fn start_member(&mut self, id: u8) {
        self.start_member_with(id, &[]);
    }

    /// The same with more arguments for `znoded`.
    pub fn start_member_with(&mut self, id: u8, arguments: &[&str]) {
        self.start_member_knowing(id, &self.ids(), arguments);
    }

    /// The same with the server lines of these members only.
    pub fn start_member_knowing(&mut self, id: u8, known: &[u8], arguments: &[&str]) {
        let data = self.directory.subdirectory(&id.to_string());
        std::fs::write(data.join("myid"), format!("{id}\n")).expect("a file in a fresh directory");
        let lines: Vec<&str> = known.iter().map(|id| self.line(*id)).collect();
        let configuration = format!(
            "dataDir={}\n4lw.commands.whitelist=*\n{}\n{}\n{}\n",
            data.display(),
            self.settings,
            self.member(id).settings,
            lines.join("\n")
        );
        let file = self.directory.join(format!("{id}.cfg"));
        std::fs::write(&file, configuration).expect("the same");
        let mut command = match &self.program {
            Some((program, first)) => {
                let mut command = Command::new(program);
                command.args(first);
                command
            }
            None => Command::new(binary("znoded")),
        };
        command.args(arguments).arg(file);
        if let Some(network) = &self.network {
            network.put(id, &mut command);
        }
        let log = self.log_file(id);
        self.members[usize::from(id) - 1].process = Some(Process::spawn(&mut command, &log));
    }

    /// The process of a running member.
    ///
    /// # Panics
    /// If it was not started.
    pub fn process(&mut self, id: u8) -> &mut Process {
        let process = self.members[usize::from(id) - 1].process.as_mut();
        process.unwrap_or_else(|| panic!("member {id} is not running"))
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: u8) {
        self.process(id).kill();
        self.members[usize::from(id) - 1].process = None;
    }

    /// `kill -9` of several members at the same moment.
    pub fn kill_at_once(&mut self, ids: &[u8]) {
        ids.iter().for_each(|id| self.process(*id).signal(Signal::SIGKILL));
        ids.iter().for_each(|id| self.kill(*id));
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, id: u8) {
        let status = self.process(id).terminate(STOP_LIMIT);
        // One that has only just been started may not yet have heard of signals.
        let untouched = status.signal() == Some(Signal::SIGTERM as i32);
        assert!(status.success() || untouched, "member {id} ended with {status}");
        self.members[usize::from(id) - 1].process = None;
    }

    /// Removes all data of a member that does not run.
    pub fn wipe(&self, id: u8) {
        std::fs::remove_dir_all(self.data_directory(id)).expect("the data of a stopped member");
    }

    /// Whether a member serves clients.
    pub fn is_serving(&self, id: u8) -> bool {
        self.word(id, "srvr").is_some_and(|answer| answer.contains("Mode: "))
    }

    /// # Panics
    /// If the member does not serve within [`SERVICE_LIMIT`].
    #[track_caller]
    pub fn wait_until_serving(&self, id: u8) {
        wait_until(&format!("member {id} serves"), SERVICE_LIMIT, || self.is_serving(id));
    }

    /// A four-letter word's answer.
    pub fn word(&self, id: u8, word: &str) -> Option<String> {
        four_letter_word_to(&self.address(id), word)
    }

    /// One value of a member's `mntr`.
    pub fn monitored(&self, id: u8, key: &str) -> Option<String> {
        let answer = self.word(id, "mntr")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
        line.map(str::to_string)
    }

    /// What a member says it is: `leader`, `follower`, `observer`; `None` while it does not serve.
    pub fn role(&self, id: u8) -> Option<String> {
        self.monitored(id, "zk_server_state")
    }

    /// The member that leads.
    ///
    /// # Panics
    /// If there is none within [`SERVICE_LIMIT`].
    #[track_caller]
    pub fn leader(&self) -> u8 {
        let mut found = None;
        wait_until("one member leads", SERVICE_LIMIT, || {
            let leads = |id: &u8| {
                self.member(*id).process.is_some() && self.role(*id).as_deref() == Some("leader")
            };
            found = self.ids().into_iter().find(leads);
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// A voter that runs and does not lead.
    #[track_caller]
    pub fn follower(&self) -> u8 {
        let mut found = None;
        wait_until("one member follows", SERVICE_LIMIT, || {
            let follows = |id: &u8| {
                self.member(*id).process.is_some() && self.role(*id).as_deref() == Some("follower")
            };
            found = self.ids().into_iter().find(follows);
            found.is_some()
        });
        found.unwrap_or_default()
    }

    /// The file with what a member has written to its log.
    pub fn log_file(&self, id: u8) -> PathBuf {
        self.directory.join(format!("{id}.log"))
    }

    /// What a member has written to its log.
    pub fn log_text(&self, id: u8) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file(id)).unwrap_or_default()).into_owned()
    }
}

fn host_of(network: &Option<Network>, id: u8) -> String {
    network.as_ref().map_or("127.0.0.1".into(), |network| network.address(id))
}
