//! Who does not belong to an ensemble, or speaks or writes another version, is refused; both sides say
//! so in plain words, and the ensemble goes on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_server::link::frame::{HEADER_LENGTH, put_frame};
use znodefs_tests::{Directory, Ensemble, Process, binary, free_port, wait_until};

use crate::load::{Load, assert_nothing_is_lost, client_of, create};

const LIMIT: Duration = Duration::from_secs(40);

/// Where a frame has its version.
const VERSION_AT: usize = 2;

/// A replica beside an ensemble, with directory, number and lines of its own.
fn start_beside(directory: &Directory, id: u8, lines: &[&str]) -> Process {
    let data = directory.subdirectory("data");
    std::fs::write(data.join("myid"), id.to_string()).expect("a file in a fresh directory");
    let file = directory.join("zoo.cfg");
    let text = format!(
        "dataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\n{}\n",
        data.display(),
        free_port(),
        lines.join("\n")
    );
    std::fs::write(&file, text).expect("the same");
    Process::spawn(Command::new(binary("znoded")).arg(file), &directory.join("log"))
}

fn wait_until_said(words: &str, logs: &[&dyn Fn() -> String]) {
    wait_until(&format!("all say: {words}"), LIMIT, || {
        logs.iter().all(|log| log().contains(words))
    });
}

#[test]
fn of_two_replicas_with_one_id_the_second_is_refused_and_all_say_why() {
    let ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 4);
    let directory = Directory::new();
    let own_line = format!("server.3=127.0.0.1:{}:{}", free_port(), free_port());
    let second = start_beside(&directory, 3, &[ensemble.line(1), ensemble.line(2), &own_line]);
    let words = "two replicas have the id 3: give each its own number in myid";
    wait_until_said(
        words,
        &[&|| second.log_text(), &|| ensemble.log_text(1), &|| ensemble.log_text(2)],
    );
    let enough = load.count() + 200;
    wait_until("writes flow", LIMIT, || load.count() >= enough);
    assert!(!second.log_text().contains("clients are served"));
    assert_nothing_is_lost(&runtime, &ensemble, &load.stop(&runtime));
}

#[test]
fn a_replica_whose_place_is_taken_on_its_machine_says_what_to_look_at() {
    let ensemble = Ensemble::start(2, 0);
    let directory = Directory::new();
    let mut second = start_beside(&directory, 2, &[ensemble.line(1), ensemble.line(2)]);
    let status = second.wait(LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(14));
    let said = second.log_text();
    assert!(said.contains("of the line server.2: ") && said.contains("myid"), "{said}");
}

#[test]
fn a_replica_of_another_ensemble_is_refused_and_both_sides_say_why() {
    let mut ensemble = Ensemble::start(3, 0);
    let mut other = Ensemble::start(3, 0);
    ensemble.kill(3);
    other.kill(3);
    ensemble.wipe(3);
    let copied = Command::new("cp")
        .arg("--recursive")
        .args([other.data_directory(3), ensemble.data_directory(3)])
        .status()
        .expect("cp");
    assert!(copied.success());
    ensemble.start_member(3);
    wait_until_said(
        "the wrong data directory or the wrong server lines",
        &[&|| ensemble.log_text(1), &|| ensemble.log_text(2), &|| ensemble.log_text(3)],
    );
    assert!(!ensemble.is_serving(3));
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client_of(&ensemble.address(ensemble.leader())).await;
        create(&client, "/goes-on", b"").await.expect("a create");
    });
}

#[test]
fn a_replica_that_was_reached_in_place_of_another_is_refused_and_both_sides_say_why() {
    let ensemble = Ensemble::start(3, 0);
    let directory = Directory::new();
    // The lines of 1 and 2 are swapped here.
    let swap = |id: u8, text: &str| format!("server.{id}={}", text.split_once('=').unwrap().1);
    let one = swap(1, ensemble.line(2));
    let two = swap(2, ensemble.line(1));
    let own_line = format!("server.4=127.0.0.1:{}:{}", free_port(), free_port());
    let stranger = start_beside(&directory, 4, &[&one, &two, &own_line]);
    wait_until_said(
        "replica 2 was reached where replica 1 should be: check the server lines and myid",
        &[&|| stranger.log_text(), &|| ensemble.log_text(2)],
    );
}

/// The election port of a `server.N` line.
fn election_port(line: &str) -> u16 {
    let address = line.split(';').next().unwrap_or_default();
    address.split(':').nth(2).and_then(|port| port.parse().ok()).expect("an election port")
}

#[test]
fn a_message_of_another_version_is_recognised_and_both_sides_are_told() {
    let ensemble = Ensemble::start(3, 0);
    let mut frame = Vec::new();
    put_frame(&mut frame, &[0; 40]);
    frame[VERSION_AT] = 9;
    let mut stream = TcpStream::connect(("127.0.0.1", election_port(ensemble.line(1))))
        .expect("the election port");
    stream.write_all(&frame).expect("a frame");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer, then the end");
    let words = "the frame has version 9, this replica speaks version 1";
    assert!(String::from_utf8_lossy(&answer).contains(words), "{answer:?}");
    wait_until_said(words, &[&|| ensemble.log_text(1)]);
}

#[test]
fn a_peer_of_another_version_is_named_by_who_dials_it() {
    let newer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let line = format!("server.1=127.0.0.1:{}:{}", free_port(), newer.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in newer.incoming() {
            let mut stream = stream.expect("a connection");
            let mut frame = Vec::new();
            put_frame(&mut frame, &[0; 40]);
            frame[VERSION_AT] = 9;
            let mut header = [0; HEADER_LENGTH];
            // Whoever looks at the port and goes is no concern of the test.
            let _ = stream.read_exact(&mut header).and_then(|()| stream.write_all(&frame));
        }
    });
    let directory = Directory::new();
    let own_line = format!("server.2=127.0.0.1:{}:{}", free_port(), free_port());
    let replica = start_beside(&directory, 2, &[&line, &own_line]);
    wait_until_said(
        "the frame has version 9, this replica speaks version 1",
        &[&|| replica.log_text()],
    );
}

/// Gives a file of ours version 9, with a checksum that fits.
fn make_newer(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(path, bytes).expect("a file");
}

#[test]
fn a_file_of_another_version_stops_the_start_and_is_named_with_both_versions() {
    let mut ensemble = Ensemble::start_with(3, 0, "snapCount=200\n");
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 4);
    let member = ensemble.follower();
    let directory = ensemble.data_directory(member).join("znodefs-1");
    let newest = |start: &str| -> Option<PathBuf> {
        let entries = std::fs::read_dir(&directory).expect("the data");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let named = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(start) && !name.ends_with(".tmp")
        };
        paths.filter(named).max_by_key(|path| {
            let digits = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            u64::from_str_radix(&digits, 16).unwrap_or(0)
        })
    };
    wait_until("there is a snapshot", LIMIT, || newest("snapshot.").is_some());
    load.stop(&runtime);
    ensemble.kill(member);
    for (start, code) in
        [("snapshot.", 10), ("log.", 3), ("acceptedEpoch", 3), ("currentEpoch", 3), ("identity", 3)]
    {
        let path = newest(start).expect("a file");
        let before = std::fs::read(&path).expect("a file");
        make_newer(&path);
        ensemble.start_member(member);
        let status = ensemble.process(member).wait(LIMIT).expect("it ends");
        let said = ensemble.process(member).log_text();
        let said = said.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(code), "{start}: {said}");
        let words = "has format version 9, this program reads version 1";
        assert!(said.contains(&path.display().to_string()) && said.contains(words), "{said}");
        std::fs::write(&path, before).expect("a file");
    }
    ensemble.start_member(member);
    ensemble.wait_until_serving(member);
}
