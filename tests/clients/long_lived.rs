//! Sessions that live longer than any member of their ensemble: each kind of client holds an ephemeral while
//! every member is restarted several times, and holds the same one in the end.

use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs::client::{Client, ClientOptions};
use znodefs::{Acl, CreateMode, SessionId, Zxid};
use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::restarts::Restarted;
use znodefs_tests::{
    Background, Directory, Mount, Process, Random, Server, WireClient, binary, wait_until,
};

/// How often each member is restarted.
const RESTARTS: usize = 2;

/// For how long at most.
const LIMIT: Duration = Duration::from_secs(150);

/// Who made an ephemeral, and when.
fn identity(client: &mut WireClient, path: &str) -> Option<(SessionId, Zxid)> {
    client.stat(path).map(|stat| (stat.ephemeral_owner, stat.czxid))
}

/// kazoo with a lock; the contender's name is not known before.
fn kazoo(servers: &str, directory: &Directory) -> Process {
    let script = source_directory().join("tests/commands/kazoo_holder.py");
    let mut command = Command::new(python());
    command.arg("-B").arg(script).args([servers, "Lock", "/kazoo"]).current_dir(directory);
    Process::spawn(&mut command, &directory.join("kazoo.log"))
}

/// The client library with an ephemeral.
async fn library(servers: &str) -> Client {
    let servers = servers.parse().expect("a connect string");
    let client = Client::connect(&servers, ClientOptions::default()).await.expect("a session");
    // A lost answer is looked after.
    while client.exists("/library", false).await.expect("a read").is_none() {
        let mode = CreateMode::Ephemeral;
        let _ = client.create("/library", None, Acl::open(), mode).await;
    }
    client
}

#[test]
fn the_session_of_every_kind_of_client_outlives_every_member() {
    let restarted = Restarted::start(false, &mut Random::announced());
    let servers = restarted.address();
    let mut plain = WireClient::connect(&servers);
    plain.create_with("/plain", None, CreateMode::Ephemeral).expect("an ephemeral");
    let directory = Directory::new();
    let _kazoo = kazoo(&servers, &directory);
    let znode =
        format!("exec {} -s {servers} register /registered sleep 1000", binary("znode").display());
    let _registered = Background::start(&directory, &znode);
    let mount = Mount::of(&servers, &[]);
    let holder = Background::start(&mount, "exec 9<>mounted@fd; echo ready; exec sleep 1000");
    holder.wait_for("ready");
    let runtime = Runtime::new().expect("a runtime");
    let library = runtime.block_on(library(&servers));
    wait_until("kazoo holds its lock", LIMIT, || directory.join("in").exists());
    wait_until("it is registered", LIMIT, || plain.stat("/registered").is_some());
    let lock = format!("/kazoo/{}", plain.children("/kazoo").remove(0));
    let paths = ["/plain", &lock, "/registered", "/mounted", "/library"];
    let before = paths.map(|path| identity(&mut plain, path).expect(path));
    assert_eq!(before[0].0, plain.session_id);
    assert_eq!(before[4].0, library.session_id());
    let session = mount.sh("cat @status/session").ok();

    let so_far = restarted.restarts_of_each();
    wait_until("every member is restarted", LIMIT, || {
        let now = restarted.restarts_of_each();
        // Each goes on all the while.
        assert_eq!(paths.map(|path| identity(&mut plain, path).expect(path)), before);
        now.iter().zip(&so_far).all(|(now, so_far)| now - so_far >= RESTARTS)
    });
    assert_eq!(paths.map(|path| identity(&mut plain, path).expect(path)), before);
    assert_eq!(mount.sh("cat @status/session; echo x > file; cat file").ok(), session + "x\n");
    runtime.block_on(async {
        assert!(library.exists("/library", false).await.expect("a read").is_some());
        library.close().await.expect("a close");
    });
    assert_eq!(plain.stat("/library"), None);
}
