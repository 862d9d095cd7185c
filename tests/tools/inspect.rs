//! `znoded inspect`.

use znodefs_tests::{Directory, Server, WireClient};

use crate::damage::{
    VALUES, contents, damage_value, filled, filled_and_killed, log_file, path, value, znoded,
};

#[test]
fn a_running_replica_is_shown_and_not_disturbed() {
    let mut server = filled();
    let data = server.data_directory();
    let shown = data.display().to_string();
    let text = znoded(["inspect", &shown]).ok();
    let pid = format!("in use by process {}", server.process().pid());
    for part in [pid.as_str(), "a replica alone, ensemble ", "log.100000001: ", "whole up to"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains(&path(1)), "transactions are shown only when asked for");
    WireClient::connect(&server.address()).create("/still-served", None);
}

#[test]
fn nothing_is_changed() {
    let server = filled_and_killed();
    let data = server.data_directory();
    let before = contents(&data);
    znoded(["inspect".as_ref(), "--txns".as_ref(), "--tree".as_ref(), data.as_os_str()]).ok();
    znoded(["inspect".as_ref(), log_file(&data).as_os_str()]).ok();
    assert!(before == contents(&data));
}

#[test]
fn transactions_are_chosen_by_number_and_by_path() {
    let server = filled_and_killed();
    let data = server.data_directory().display().to_string();
    let all = znoded(["inspect", "--txns", &data]).ok();
    assert_eq!(all.lines().filter(|line| line.contains(" create /value-")).count(), VALUES);
    assert!(all.contains("session begins, timeout"), "{all}");
    assert!(!all.contains(&value(5)), "values are shown only when asked for");
    let one = znoded(["inspect", "--path", &path(5), "--data", &data]).ok();
    assert_eq!(one.lines().filter(|line| line.contains(" create ")).count(), 1, "{one}");
    assert!(one.contains(&value(5)), "{one}");
    let some = znoded(["inspect", "--from", "0x100000003", "--to", "4294967300", &data]).ok();
    assert_eq!(some.lines().filter(|line| line.contains(" create ")).count(), 2, "{some}");
    znoded(["inspect", "--from", "x", &data]).fails("no transaction number");
}

#[test]
fn json_is_one_object_a_line_with_every_transaction_and_znode() {
    let server = filled_and_killed();
    let data = server.data_directory().display().to_string();
    let text = znoded(["inspect", "--json", "--txns", "--tree", "--data", &data]).ok();
    let mut kinds = std::collections::BTreeMap::new();
    for line in text.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        let kind = line.split("\"kind\":\"").nth(1).unwrap().split('"').next().unwrap();
        *kinds.entry(kind.to_string()).or_insert(0) += 1;
    }
    assert_eq!(kinds["directory"], 1);
    assert_eq!(kinds["segment"], 1);
    assert_eq!(kinds["verdict"], 1);
    assert_eq!(kinds["znode"], VALUES + 4);
    assert!(kinds["txn"] > VALUES);
    assert!(text.contains(&format!("\"data\":\"{}\"", value(7))));
}

#[test]
fn damage_is_named_with_file_and_offset_and_what_lies_behind_is_readable() {
    let server = filled_and_killed();
    let data = server.data_directory();
    let log = log_file(&data);
    damage_value(&log, 60);
    let shown = data.display().to_string();
    let ran = znoded(["inspect", "--txns", &shown]);
    ran.ends_saying(1, &["damage was found"]);
    let place = format!("{} is damaged at byte ", log.display());
    let repair = format!("run `znoded repair {shown}`");
    for part in [place.as_str(), "39 transactions can be read behind it", &repair] {
        assert!(ran.stdout.contains(part), "{part} is not in {ran:#?}");
    }
    assert_eq!(ran.stdout.matches("[behind damage]").count(), 39);
}

#[test]
fn garbage_is_reported_and_never_a_panic() {
    let directory = Directory::new();
    let inner = directory.subdirectory("znodefs-1");
    let names = ["log.1", "log.ffffffffffffffff", "snapshot.7", "identity", "acceptedEpoch"];
    for (round, byte) in [0u8, 0x5a, 0xff].into_iter().enumerate() {
        for name in names {
            std::fs::write(inner.join(name), vec![byte; 5000 * round + 7]).unwrap();
        }
        let shown = directory.display().to_string();
        let ran = znoded(["inspect", "--txns", "--tree", &shown]);
        ran.ends_saying(1, &["damage was found"]);
        for name in names {
            let ran = znoded(["inspect", "--tree", &inner.join(name).display().to_string()]);
            assert!((0..=3).contains(&ran.code) && !ran.stderr.contains("panicked"), "{ran:#?}");
        }
    }
}
