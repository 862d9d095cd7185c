//! Servers under test, each on a fresh port of loopback: the project's replica and Debian's
//! ZooKeeper.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::deadline::wait_for;
use crate::{Directory, Process, binary, free_port};

/// How long a server may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long the answer to a four-letter word is waited for.
const WORD_LIMIT: Duration = Duration::from_millis(500);

/// How long a server may take to end when asked to.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What the tests need to know of a running server.
pub trait Server: Send + Sync {
    /// `HOST:PORT` for clients; several of them, separated by commas, for an ensemble.
    fn address(&self) -> String;

    /// Kills it with `kill -9` if it still runs, and starts it again on the same port with the data
    /// it had.
    fn start_again(&mut self);
}

/// `znoded --standalone`.
#[derive(Debug)]
pub struct Znoded {
    process: Process,
    port: u16,
    directory: Directory,
}

impl Znoded {
    /// Starts a replica with an empty directory and waits until it serves.
    pub fn start() -> Znoded {
        let (directory, port) = (Directory::new(), free_port());
        let process = spawn_znoded(&mut Znoded::command(&directory, port), &directory);
        let mut znoded = Znoded { process, port, directory };
        wait_until_serving(znoded.port, &mut znoded.process);
        znoded
    }

    /// The command that starts a replica with its data in `data` of `directory`.
    pub fn command(directory: &Path, port: u16) -> Command {
        let mut command = Command::new(binary("znoded"));
        command.arg("--standalone").arg(data_directory(directory));
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Where the replica keeps its data.
    pub fn data_directory(&self) -> PathBuf {
        data_directory(&self.directory)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, for its log and for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Server for Znoded {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn start_again(&mut self) {
        self.process.kill();
        let mut command = Znoded::command(&self.directory, self.port);
        self.process = spawn_znoded(&mut command, &self.directory);
        wait_until_serving(self.port, &mut self.process);
    }
}

fn data_directory(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn spawn_znoded(command: &mut Command, directory: &Path) -> Process {
    Process::spawn(command, &directory.join("znoded.log"))
}

/// Debian's ZooKeeper server, as the package `zookeeper` installs it.
#[derive(Debug)]
pub struct DebianZooKeeper {
    process: Process,
    port: u16,
    directory: Directory,
}

impl DebianZooKeeper {
    /// Starts it with an empty directory and waits until it serves.
    pub fn start() -> DebianZooKeeper {
        let (directory, port) = (Directory::new(), free_port());
        let configuration = format!(
            "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             4lw.commands.whitelist=*\nadmin.enableServer=false\n",
            data_directory(&directory).display()
        );
        std::fs::write(directory.join("zoo.cfg"), configuration)
            .expect("a file in a fresh directory");
        write_log4j(&directory);
        let mut process = spawn_zookeeper(&directory);
        wait_until_serving(port, &mut process);
        DebianZooKeeper { process, port, directory }
    }
}

/// Writes the logger's configuration beside the server's.
pub(crate) fn write_log4j(directory: &Path) {
    std::fs::write(directory.join("log4j.properties"), LOG4J).expect("a file in a fresh directory");
}

/// Starts the server whose configuration is in `directory`.
pub(crate) fn spawn_zookeeper(directory: &Path) -> Process {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    // Its durability is not under test here, and the tests run on slow disks too.
    command.arg("-Dzookeeper.forceSync=no");
    command.arg("-cp").arg(format!("{}:{JARS}", directory.display()));
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(directory.join("zoo.cfg"));
    Process::spawn(&mut command, &directory.join("zookeeper.log"))
}

/// The package's server and the logger it was built for.
const JARS: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-log4j12.jar:\
                    /usr/share/java/log4j-1.2.jar";

const LOG4J: &str = "log4j.rootLogger=WARN, C
log4j.appender.C=org.apache.log4j.ConsoleAppender
log4j.appender.C.layout=org.apache.log4j.PatternLayout
log4j.appender.C.layout.ConversionPattern=%d %p %c: %m%n
";

impl Server for DebianZooKeeper {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn_zookeeper(&self.directory);
        wait_until_serving(self.port, &mut self.process);
    }
}

/// Sends a four-letter word and returns the answer; `None` if nobody answers.
pub fn four_letter_word(port: u16, word: &str) -> Option<String> {
    four_letter_word_to(&format!("127.0.0.1:{port}"), word)
}

/// The same for `IP:PORT`.
pub fn four_letter_word_to(address: &str, word: &str) -> Option<String> {
    let address = address.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, WORD_LIMIT).ok()?;
    stream.set_read_timeout(Some(WORD_LIMIT)).ok()?;
    stream.write_all(word.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Whether a server on `port` takes clients: `srvr` is the word that needs no permission, and it
/// names the mode only once the server serves.
pub fn is_serving(port: u16) -> bool {
    four_letter_word(port, "srvr").is_some_and(|answer| answer.contains("Mode: "))
}

/// # Panics
/// If the server ends instead, or does not serve in time.
fn wait_until_serving(port: u16, process: &mut Process) {
    let serving = wait_for(START_LIMIT, || {
        if let Some(status) = process.exit_status() {
            panic!("the server ended while starting ({status}): {}", process.log_text());
        }
        is_serving(port).then_some(())
    });
    let log = || process.log_text();
    assert!(serving.is_some(), "the server does not serve within {START_LIMIT:?}: {}", log());
}
