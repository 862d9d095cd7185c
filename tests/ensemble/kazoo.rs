//! kazoo, the Python client, at every member of an ensemble and at all of them at once.

use std::process::Command;

use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::{Ensemble, Shell, WireClient};

#[test]
fn kazoo_does_all_it_does_with_an_ensemble() {
    let ensemble = Ensemble::start(3, 1);
    let script = source_directory().join("tests/clients/kazoo_client.py");
    let shell = Shell::new(&std::env::temp_dir());
    let mut servers: Vec<String> = ensemble.ids().iter().map(|id| ensemble.address(*id)).collect();
    servers.push(ensemble.connect_string());
    for (number, servers) in servers.iter().enumerate() {
        for step in ["create_read_delete", "watches", "transactions", "access", "recipes"] {
            // Each run finds an empty tree.
            let root = format!("/{step}-{number}");
            WireClient::connect(&ensemble.address(1)).create(&root, None);
            let mut command = Command::new(python());
            let servers = format!("{servers}{root}");
            shell.run(command.arg("-B").arg(&script).arg(servers).arg(step)).ok();
        }
    }
}
