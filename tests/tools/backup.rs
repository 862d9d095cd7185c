//! `znoded backup` and `znoded restore`.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use znodefs::CreateMode;
use znodefs_tests::{Directory, Process, Server, WireClient, binary, free_port, wait_until};

use crate::damage::{VALUES, names, path};
use crate::damage::{assert_values, damage_value, filled, filled_and_killed, log_file, znoded};

const START_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A replica on restored data.
fn start(data: &std::path::Path, log: &std::path::Path) -> (Process, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = std::process::Command::new(binary("znoded"));
    command.arg("--standalone").arg(data).args(["--listen", &address]);
    let process = Process::spawn(&mut command, log);
    wait_until("the restored replica serves", START_LIMIT, || {
        WireClient::try_connect(&address).is_ok()
    });
    (process, address)
}

#[test]
fn a_running_replica_is_backed_up_and_restored_without_its_sessions() {
    let server = filled();
    let directory = Directory::new();
    let (file, data) = (directory.join("backup"), directory.join("data"));
    let mut client = WireClient::connect(&server.address());
    client.create_with("/mine", Some(b"x"), CreateMode::Ephemeral).expect("an ephemeral");
    let said = znoded(["backup".as_ref(), server.data_directory().as_os_str(), file.as_os_str()]);
    assert!(said.ok().contains("as of transaction"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    client.create("/later", None);
    // It is a snapshot like any other.
    let shown = znoded(["inspect".as_ref(), "--tree".as_ref(), file.as_os_str()]).ok();
    assert!(shown.contains("/mine ephemeral") && !shown.contains("/later"), "{shown}");

    let said = znoded(["restore".as_ref(), file.as_os_str(), data.as_os_str()]).ok();
    assert!(said.contains("1 ephemeral znodes were dropped"), "{said}");
    let (_process, address) = start(&data, &directory.join("log"));
    assert_values(&address, 0..VALUES);
    let mut restored = WireClient::connect(&address);
    assert!(restored.stat("/mine").is_none() && restored.stat("/later").is_none());
    restored.create("/afterwards", None);
}

#[test]
fn a_backup_under_load_holds_everything_acknowledged_before_it_began() {
    let server = filled();
    let directory = Directory::new();
    let (done, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = WireClient::connect(&server.address());
            while !done.load(Ordering::Acquire) {
                let number = acknowledged.load(Ordering::Acquire);
                client.create(&format!("/load-{number}"), Some(&[b'x'; 500]));
                acknowledged.store(number + 1, Ordering::Release);
            }
        });
        for round in 0..3 {
            let file = directory.join(format!("backup-{round}"));
            let before = acknowledged.load(Ordering::Acquire);
            let source = server.data_directory();
            let ran = znoded(["backup".as_ref(), source.as_os_str(), file.as_os_str()]);
            // Whatever fails, the writer is to end.
            if ran.code != 0 {
                done.store(true, Ordering::Release);
            }
            ran.ok();
            let shown = znoded(["inspect".as_ref(), "--tree".as_ref(), file.as_os_str()]).ok();
            let held = shown.lines().filter(|line| line.trim().starts_with("/load-")).count();
            let complete =
                held >= before && (0..held).all(|n| shown.contains(&format!("/load-{n} ")));
            if !complete {
                done.store(true, Ordering::Release);
            }
            assert!(complete, "{held} of {before} in round {round}");
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn nothing_is_overwritten() {
    let server = filled_and_killed();
    let directory = Directory::new();
    let data = server.data_directory();
    let file = directory.join("backup");
    znoded(["backup".as_ref(), data.as_os_str(), file.as_os_str()]).ok();
    let shown = file.display().to_string();
    znoded(["backup".as_ref(), data.as_os_str(), file.as_os_str()])
        .ends_saying(1, &[&shown, "is there already"]);
    let before = names(&data);
    znoded(["restore".as_ref(), file.as_os_str(), data.as_os_str()])
        .ends_saying(3, &[&data.display().to_string(), "holds data"]);
    assert_eq!(names(&data), before);
}

#[test]
fn a_damaged_replica_and_a_damaged_backup_are_refused() {
    let server = filled_and_killed();
    let directory = Directory::new();
    let (source, data) = (server.data_directory(), directory.join("data"));
    let file = directory.join("backup");
    znoded(["backup".as_ref(), source.as_os_str(), file.as_os_str()]).ok();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    znoded(["restore".as_ref(), file.as_os_str(), data.as_os_str()])
        .ends_saying(1, &[&file.display().to_string(), "is damaged at byte", "another backup"]);
    assert!(!data.exists(), "nothing was made");
    damage_value(&log_file(&source), 50);
    let other = directory.join("other");
    znoded(["backup".as_ref(), source.as_os_str(), other.as_os_str()])
        .ends_saying(3, &["is damaged", "znoded repair"]);
    assert!(!other.exists());
}

#[test]
fn who_may_not_read_the_directory_may_not_back_it_up() {
    let server = filled_and_killed();
    let directory = Directory::new();
    let data = server.data_directory();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(data.join("znodefs-1"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(data.parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = directory.join("znoded");
    std::fs::copy(binary("znoded"), &program).unwrap();
    let file = directory.join("backup");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command.arg("backup").arg(&data).arg(&file);
    znodefs_tests::Shell::new(&directory)
        .run(&mut command)
        .ends_saying(3, &[&data.display().to_string(), "ermission denied"]);
    assert!(!file.exists(), "{}", path(0));
}
