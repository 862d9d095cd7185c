//! TLS between replicas, on real processes: it carries everything, keeps strangers out, and takes new
//! certificates without a restart.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_tests::certificates::{quorum_settings, replace};
use znodefs_tests::{Authority, Directory, Ensemble, Process, binary, wait_until};

use crate::load::{Load, assert_nothing_is_lost, client_of, create};
use crate::reconfig;

const LIMIT: Duration = Duration::from_secs(40);

/// Writes key and trust of a member; returns what its configuration says of them.
fn store(directory: &Path, id: u8, signer: &Authority, trusted: &[&Authority]) -> String {
    quorum_settings(directory, id, "127.0.0.1", signer, trusted)
}

fn wait_for_progress(load: &Load, more: usize) {
    let enough = load.count() + more;
    wait_until("writes flow", Duration::from_secs(60), || load.count() >= enough);
}

#[test]
fn an_ensemble_with_tls_works_and_fails_over() {
    let directory = Directory::new();
    let authority = Authority::new("authority");
    let mut ensemble = Ensemble::configure(3, 1, "snapCount=500\n");
    for id in ensemble.ids() {
        ensemble.set_settings(id, &store(&directory, id, &authority, &[&authority]));
        ensemble.start_member(id);
    }
    ensemble.ids().into_iter().for_each(|id| ensemble.wait_until_serving(id));
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 8);
    for _ in 0..2 {
        wait_for_progress(&load, 200);
        let leader = ensemble.leader();
        ensemble.kill(leader);
        wait_for_progress(&load, 200);
        // It comes back empty, so that a snapshot goes over TLS as well.
        ensemble.wipe(leader);
        ensemble.start_member(leader);
        ensemble.wait_until_serving(leader);
    }
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn a_replica_joins_an_ensemble_with_tls_and_one_without_a_certificate_does_not() {
    let directory = Directory::new();
    let (authority, foreign) = (Authority::new("authority"), Authority::new("foreign"));
    let mut ensemble = Ensemble::configure(4, 0, &reconfig::settings());
    for id in 1..=4 {
        let signer = if id == 4 { &foreign } else { &authority };
        ensemble.set_settings(id, &store(&directory, id, signer, &[&authority]));
    }
    ensemble.start_member_knowing(1, &[1], &[]);
    ensemble.wait_until_serving(1);
    for id in [2, 3] {
        ensemble.start_member_knowing(id, &[1, id], &[]);
        let line = ensemble.line(id).to_string();
        reconfig::znode(&ensemble.address(1), &["reconfig", "--add", &line]).ok();
    }
    ensemble.start_member_knowing(4, &[1, 2, 3, 4], &[]);
    wait_until("members say why 4 is refused", LIMIT, || {
        let said = "its certificate is not signed by an authority that this side trusts";
        (1..=3).any(|id| ensemble.log_text(id).contains(said))
    });
    let line = ensemble.line(4).to_string();
    let replacing = ["reconfig", "--remove", "2,3", "--add", &line, "--wait", "0"];
    reconfig::znode(&ensemble.address(1), &replacing).fails("waiting for server.4");
    // The links between those that joined carry a change of leader.
    ensemble.kill(1);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client_of(&format!("{},{}", ensemble.address(2), ensemble.address(3))).await;
        create(&client, "/after", b"").await.expect("two of three");
    });
    assert!(!ensemble.is_serving(4));
}

/// Two members agree; `3` is a stranger. What it and they say of it.
#[track_caller]
fn stranger_is_refused(settings_of: impl Fn(u8) -> String, by_members: &str, by_stranger: &str) {
    let mut ensemble = Ensemble::configure(3, 0, "");
    for id in 1..=3 {
        ensemble.set_settings(id, &settings_of(id));
        ensemble.start_member_with(id, if id < 3 { &["--initialize"] } else { &[] });
    }
    ensemble.wait_until_serving(1);
    ensemble.wait_until_serving(2);
    wait_until("both sides say why", LIMIT, || {
        ensemble.log_text(3).contains(by_stranger)
            && (1..=2).all(|id| ensemble.log_text(id).contains(by_members))
    });
    // Meanwhile it goes on trying, many times a second.
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client_of(&ensemble.address(1)).await;
        for number in 0..200 {
            create(&client, &format!("/without-it-{number}"), b"").await.expect("a create");
        }
    });
    znodefs_tests::deadline::pause(Duration::from_secs(2));
    assert!(!ensemble.is_serving(3));
    for (id, words) in [(1, by_members), (2, by_members), (3, by_stranger)] {
        let said = ensemble.log_text(id).lines().filter(|line| line.contains(words)).count();
        // Once for each port and peer.
        assert!(said <= 4, "member {id} said it {said} times");
    }
}

#[test]
fn a_replica_without_tls_is_refused_and_both_sides_say_why() {
    let directory = Directory::new();
    let authority = Authority::new("authority");
    let settings = |id| match id {
        3 => String::new(),
        _ => store(&directory, id, &authority, &[&authority]),
    };
    stranger_is_refused(settings, "it speaks no TLS", "it demands TLS (sslQuorum)");
}

#[test]
fn a_replica_with_tls_among_others_without_is_refused_and_both_sides_say_why() {
    let directory = Directory::new();
    let authority = Authority::new("authority");
    let settings = |id| match id {
        3 => store(&directory, id, &authority, &[&authority]),
        _ => String::new(),
    };
    stranger_is_refused(settings, "it speaks TLS, this replica does not", "it does not speak TLS");
}

#[test]
fn a_certificate_of_a_foreign_authority_is_refused_and_both_sides_say_why() {
    let directory = Directory::new();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let settings = |id| match id {
        // It trusts us; that is not enough.
        3 => store(&directory, id, &theirs, &[&ours, &theirs]),
        _ => store(&directory, id, &ours, &[&ours]),
    };
    stranger_is_refused(
        settings,
        "its certificate is not signed by an authority that this side trusts",
        "it does not trust the authority that signed this side's certificate",
    );
}

#[test]
fn an_authority_is_replaced_without_a_restart() {
    let directory = Directory::new();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut ensemble = Ensemble::configure(3, 0, "");
    for id in 1..=3 {
        ensemble.set_settings(id, &store(&directory, id, &old, &[&old]));
        ensemble.start_member(id);
    }
    (1..=3).for_each(|id| ensemble.wait_until_serving(id));
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client_of(&ensemble.address(1)).await;
        create(&client, "/before", b"").await.expect("a create");
    });
    // As it is done: trust both, show the new, trust the new alone.
    type Step<'a> = (&'a Authority, &'a [&'a Authority]);
    let steps: [Step<'_>; 3] = [(&old, &[&old, &new]), (&new, &[&old, &new]), (&new, &[&new])];
    for (step, (signer, trusted)) in steps.into_iter().enumerate() {
        let reloads = |ensemble: &Ensemble, id: u8| {
            ensemble.log_text(id).matches("certificates were read again").count()
        };
        let before: Vec<usize> = (1..=3).map(|id| reloads(&ensemble, id)).collect();
        (1..=3).for_each(|id| drop(store(&directory, id, signer, trusted)));
        wait_until(&format!("step {step} is taken over"), LIMIT, || {
            (1..=3).all(|id| reloads(&ensemble, id) > before[usize::from(id) - 1])
        });
    }
    // Who starts now knows the new authority alone: the others must show what it signed.
    let follower = ensemble.follower();
    ensemble.kill(follower);
    ensemble.start_member(follower);
    ensemble.wait_until_serving(follower);
    let leader = ensemble.leader();
    ensemble.kill(leader);
    ensemble.wait_until_serving(follower);
    runtime.block_on(async {
        let client = client_of(&ensemble.address(follower)).await;
        client.sync("/before").await.expect("a sync");
        assert!(client.exists("/before", false).await.expect("a read").is_some());
    });
}

#[test]
fn files_that_cannot_be_used_stop_the_start_with_file_and_line() {
    let directory = Directory::new();
    let authority = Authority::new("authority");
    let log = directory.join("log");
    let data = directory.subdirectory("data");
    std::fs::write(data.join("myid"), "1").expect("a file in a fresh directory");
    let start = |settings: &str| {
        let file = directory.join("zoo.cfg");
        let lines = "server.1=127.0.0.1:1:2;127.0.0.1:3\nserver.2=127.0.0.1:4:5";
        let text = format!("dataDir={}\n{settings}{lines}\n", data.display());
        std::fs::write(&file, text).expect("the same");
        std::fs::write(&log, "").expect("the same");
        let mut command = std::process::Command::new(binary("znoded"));
        let mut process = Process::spawn(command.arg(&file), &log);
        let status = process.wait(LIMIT).expect("it ends");
        assert_eq!(status.code(), Some(2));
        process.log_text()
    };
    let good = store(&directory, 1, &authority, &[&authority]);
    let said = start("sslQuorum=true\n");
    assert!(said.contains("ssl.quorum.keyStore.location is missing"), "{said}");
    let said = start(&good.replace("1-trust.pem", "nowhere.pem"));
    let place =
        format!("{}:5: ssl.quorum.trustStore.location=", directory.join("zoo.cfg").display());
    assert!(said.contains(&place) && said.contains("cannot be read"), "{said}");
    let said = start(&good.replace("1-key.pem", "1-key.jks"));
    assert!(said.contains("zoo.cfg:4: ") && said.contains("openssl pkcs12"), "{said}");
    // The certificate alone.
    let key = directory.join("1-key.pem");
    let text = std::fs::read_to_string(&key).expect("the key store");
    replace(&key, &text[text.find("-----BEGIN CERTIFICATE").expect("a certificate")..]);
    let said = start(&good);
    assert!(said.contains("zoo.cfg:4: ") && said.contains("no private key in it"), "{said}");
}
