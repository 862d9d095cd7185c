//! Backups of a running ensemble over the network, and into another running one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use znodefs::acl::Acl;
use znodefs::client::{Client, ClientOptions};
use znodefs::{CreateMode, Permissions};
use znodefs_tests::{Directory, Ensemble, Process, Ran, Shell, binary, free_port, wait_until};

use crate::load::{Load, ROOT, client_of, create, names_at};

const LIMIT: Duration = Duration::from_secs(120);
/// `super:test`.
const SUPER_DIGEST: &str =
    "DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=\n";
const SUPER: [&str; 2] = ["--auth", "digest:super:test"];

/// Three members with a superuser and an admin server each; its ports.
fn ensemble() -> (Ensemble, Vec<u16>) {
    let mut ensemble = Ensemble::configure(3, 0, SUPER_DIGEST);
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    for (id, port) in (1..=3).zip(&ports) {
        ensemble.set_settings(id, &format!("admin.enableServer=true\nadmin.serverPort={port}\n"));
        ensemble.start_member(id);
    }
    (1..=3).for_each(|id| ensemble.wait_until_serving(id));
    (ensemble, ports)
}

fn znoded(arguments: &[&str]) -> Ran {
    let shell = Shell::new(&std::env::temp_dir()).time_limit(LIMIT);
    shell.run(Command::new(binary("znoded")).args(arguments))
}

fn back_up(port: u16, file: &Path, credential: &[&str]) -> Ran {
    let url = format!("http://127.0.0.1:{port}");
    znoded(&[&["backup", &url, file.to_str().expect("a path")], credential].concat())
}

fn restore(file: &Path, ensemble: &Ensemble, more: &[&str]) -> Ran {
    let servers = ensemble.connect_string();
    let file = file.to_str().expect("a path");
    znoded(&[&["restore", file, "--servers", &servers], more].concat())
}

async fn superuser(ensemble: &Ensemble, id: u8) -> Client {
    let auth = vec![("digest".to_string(), Bytes::from_static(b"super:test"))];
    let options = ClientOptions { auth, ..ClientOptions::default() };
    let servers = ensemble.address(id).parse().expect("an address");
    Client::connect(&servers, options).await.expect("a session")
}

/// One znode of every kind.
async fn fill(client: &Client) {
    let mut read_only = Acl::open();
    read_only[0].permissions = Permissions::READ;
    let make = async |path: &str, data: Option<&'static [u8]>, acl: &[Acl], mode| {
        client.create(path, data.map(Bytes::from_static), acl.to_vec(), mode).await.expect(path);
    };
    let open = &Acl::open()[..];
    make("/null", None, open, CreateMode::Persistent).await;
    make("/closed", Some(b"look only"), &read_only, CreateMode::Persistent).await;
    make("/closed/below", Some(b""), &read_only, CreateMode::Persistent).await;
    make("/container", None, open, CreateMode::Container).await;
    make("/container/child", Some(b"x"), open, CreateMode::Persistent).await;
    make("/queue", None, open, CreateMode::Persistent).await;
    for _ in 0..7 {
        make("/queue/n-", None, open, CreateMode::PersistentSequential).await;
    }
    for number in 0..6 {
        client.delete(&format!("/queue/n-{number:010}"), None).await.expect("a delete");
    }
    make("/ephemeral", None, open, CreateMode::Ephemeral).await;
    make("/zookeeper/quota/queue", None, open, CreateMode::Persistent).await;
    let limits = Some(&b"count=1000,bytes=-1"[..]);
    make("/zookeeper/quota/queue/zookeeper_limits", limits, open, CreateMode::Persistent).await;
}

async fn assert_filled(ensemble: &Ensemble, id: u8) {
    let client = superuser(ensemble, id).await;
    client.sync("/").await.expect("a sync");
    let data = async |path: &str| client.get_data(path, false).await.expect(path).0;
    assert_eq!(data("/null").await, None);
    assert_eq!(data("/closed/below").await, Some(Bytes::new()));
    assert_eq!(data("/closed").await.as_deref(), Some(&b"look only"[..]));
    assert_eq!(data("/container/child").await.as_deref(), Some(&b"x"[..]));
    let limits = data("/zookeeper/quota/queue/zookeeper_limits").await;
    assert_eq!(limits.as_deref(), Some(&b"count=1000,bytes=-1"[..]));
    let (acl, _) = client.get_acl("/closed").await.expect("a list");
    assert_eq!(acl[0].permissions, Permissions::READ);
    assert!(client.exists("/ephemeral", false).await.expect("a read").is_none());
    let (names, _) = client.get_children("/queue", false).await.expect("children");
    assert_eq!(names, ["n-0000000006"]);
}

#[test]
fn an_ensemble_under_load_is_backed_up_over_the_network_and_restored_into_another() {
    let directory = Directory::new();
    let file = directory.join("backup");
    let runtime = Runtime::new().expect("a runtime");
    let (source, ports) = ensemble();
    // Lives, and its ephemeral znode with it, while the backup is made.
    let client = runtime.block_on(superuser(&source, 1));
    runtime.block_on(fill(&client));
    let load = Load::start(&runtime, &source, 4);
    wait_until("writes flow", LIMIT, || load.count() >= 300);
    let member = source.follower();
    // All that this member has shown before the backup begins.
    let before = runtime.block_on(names_at(&source.address(member)));
    let said = back_up(ports[usize::from(member) - 1], &file, &SUPER).ok();
    assert!(said.contains("as of transaction"), "{said}");
    load.stop(&runtime);
    drop(client);

    let (target, _) = ensemble();
    let said = restore(&file, &target, &SUPER).ok();
    assert!(said.contains("1 ephemeral znodes were dropped"), "{said}");
    let mut shown = None;
    for id in 1..=3 {
        runtime.block_on(assert_filled(&target, id));
        let names = runtime.block_on(names_at(&target.address(id)));
        let lost: Vec<_> = before.difference(&names).collect();
        assert!(lost.is_empty(), "not in the backup: {lost:?}");
        assert_eq!(shown.get_or_insert_with(|| names.clone()), &names, "member {id}");
    }
    runtime.block_on(async {
        let client = client_of(&target.address(1)).await;
        let mode = CreateMode::PersistentSequential;
        let (path, _) =
            client.create("/queue/n-", None, Acl::open(), mode).await.expect("a create");
        assert!(*path > *"/queue/n-0000000006", "{path} comes twice");
        create(&client, "/later", b"").await.expect("a create");
    });

    let said = restore(&file, &target, &SUPER).fails("nothing is overwritten");
    assert!(said.contains("--replace"), "{said}");
    restore(&file, &target, &[&SUPER[..], &["--replace"]].concat()).ok();
    for id in 1..=3 {
        runtime.block_on(assert_filled(&target, id));
        runtime.block_on(async {
            let client = client_of(&target.address(id)).await;
            client.sync("/").await.expect("a sync");
            assert!(client.exists("/later", false).await.expect("a read").is_none());
        });
    }
}

#[test]
fn a_backup_is_for_those_who_may_read_everything() {
    let directory = Directory::new();
    let file = directory.join("backup");
    let (ensemble, ports) = ensemble();
    for credential in ["digest:super:wrong", "digest:somebody:else"] {
        back_up(ports[0], &file, &["--auth", credential]).fails("may not read everything");
    }
    back_up(ports[0], &file, &[]).ends_saying(2, &["--credentials"]);
    assert!(get(ports[0], "/commands/snapshot").starts_with("HTTP/1.1 401 "));
    assert_eq!(std::fs::read_dir(&*directory).unwrap().count(), 0, "nothing is left");
    // A digest that has everything on the root may as well.
    Runtime::new().expect("a runtime").block_on(async {
        let client = superuser(&ensemble, 1).await;
        let id = znodefs::acl::digest_id("keeper:secret");
        let entry = Acl { permissions: Permissions::ALL, scheme: "digest".into(), id };
        client.set_acl("/", vec![entry], None).await.expect("a list");
    });
    let credentials = directory.join("credentials");
    std::fs::write(&credentials, "# for backups\ndigest:keeper:secret\n").unwrap();
    let credentials = ["--credentials", credentials.to_str().expect("a path")];
    wait_until("member 1 has heard of it", LIMIT, || {
        let _ = std::fs::remove_file(&file);
        back_up(ports[0], &file, &credentials).code == 0
    });
    let said = back_up(ports[0], &file, &credentials).fails("is there already");
    assert!(said.contains(&file.display().to_string()), "{said}");
}

#[test]
fn a_damaged_backup_or_one_with_lists_that_cannot_be_restored_changes_nothing() {
    let directory = Directory::new();
    let (file, damaged) = (directory.join("backup"), directory.join("damaged"));
    let runtime = Runtime::new().expect("a runtime");
    let (source, ports) = ensemble();
    runtime.block_on(async { fill(&superuser(&source, 1).await).await });
    back_up(ports[0], &file, &SUPER).ok();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let (target, _) = ensemble();
    runtime.block_on(async {
        let client = client_of(&target.address(1)).await;
        create(&client, "/mine", b"").await.expect("a create");
    });
    restore(&damaged, &target, &[&SUPER[..], &["--replace"]].concat()).fails("is damaged at byte");
    restore(&file, &target, &["--replace"]).fails("only the superuser");
    restore(&file, &target, &["--replace", "--auth", "digest:super:wrong"])
        .fails("only the superuser");
    runtime.block_on(async {
        let client = client_of(&target.address(1)).await;
        let (mut names, _) = client.get_children("/", false).await.expect("children");
        names.sort();
        assert_eq!(names, ["mine", "zookeeper"]);
    });
}

#[test]
fn a_restore_goes_on_when_the_leader_dies() {
    const COUNT: usize = 20_000;
    let directory = Directory::new();
    let file = directory.join("backup");
    let runtime = Runtime::new().expect("a runtime");
    let (source, ports) = ensemble();
    runtime.block_on(async {
        let client = client_of(&source.address(1)).await;
        create(&client, ROOT, b"").await.expect("a create");
        let mut under_way = Vec::new();
        for number in 0..COUNT {
            let data = Some(Bytes::from(vec![b'x'; 300]));
            let path = format!("{ROOT}/{number}");
            under_way.push(client.create(&path, data, Acl::open(), CreateMode::Persistent));
            if under_way.len() == 500 {
                for one in under_way.drain(..) {
                    one.await.expect("a create");
                }
            }
        }
    });
    wait_until("member 1 has all", LIMIT, || {
        runtime.block_on(names_at(&source.address(1))).len() == COUNT
    });
    back_up(ports[0], &file, &SUPER).ok();
    let (mut target, _) = ensemble();
    let leader = target.leader();
    let mut command = Command::new(binary("znoded"));
    command.arg("restore").arg(&file).args(["--servers", &target.connect_string()]);
    let mut restoring = Process::spawn(&mut command, &directory.join("log"));
    wait_until("the restore has begun", LIMIT, || {
        let count = target.monitored(leader, "zk_znode_count").and_then(|text| text.parse().ok());
        count.is_some_and(|count: usize| count > 500)
    });
    target.kill(leader);
    let status = restoring.wait(LIMIT).expect("it ends");
    assert!(status.success(), "{}", restoring.log_text());
    target.start_member(leader);
    for id in 1..=3 {
        target.wait_until_serving(id);
        let names = runtime.block_on(names_at(&target.address(id)));
        assert_eq!(names.len(), COUNT, "member {id}");
    }
}

/// What an admin server answers.
fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the admin server");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn probes_and_monitoring_ask_over_http() {
    let (mut ensemble, ports) = ensemble();
    let answers = |port, path: &str, status: &str, words: &[&str]| {
        let answer = get(port, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        for word in words {
            assert!(answer.contains(word), "{path}: {word}: {answer}");
        }
    };
    answers(ports[0], "/live", "200", &["live"]);
    answers(ports[0], "/ready", "200", &["ready"]);
    answers(ports[0], "/commands", "200", &["\"monitor\"", "\"mntr\""]);
    answers(ports[0], "/commands/ruok", "200", &["\"error\": null"]);
    for name in ["monitor", "mntr"] {
        answers(ports[0], &format!("/commands/{name}"), "200", &["\"quorum_size\": 3"]);
    }
    answers(ports[0], "/commands/conf", "200", &["\"client_port\": ", "\"tick_time\": 3000"]);
    answers(ports[0], "/commands/leader", "200", &["\"leader_id\": "]);
    answers(ports[0], "/commands/nonsense", "404", &["no such command"]);
    ensemble.kill(2);
    ensemble.kill(3);
    wait_until("the one that is left is not ready", LIMIT, || {
        get(ports[0], "/ready").starts_with("HTTP/1.1 503")
    });
    answers(ports[0], "/live", "200", &[]);
    answers(ports[0], "/commands/monitor", "503", &["not currently serving"]);
    answers(ports[0], "/commands/ruok", "200", &[]);
}
