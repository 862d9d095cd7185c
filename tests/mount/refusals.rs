//! What is refused although the errno alone does not say why: one line of the log names the place, the reason
//! and the way out.

use std::fs::File;
use std::io::Write;

use znodefs_tests::{Backend, Mount, Server, World, on_znoded};

/// What the mount has logged about refusals since the last call.
struct Log<'a> {
    mount: &'a mut Mount,
    seen: usize,
}

impl Log<'_> {
    fn of(mount: &mut Mount) -> Log<'_> {
        Log { mount, seen: 0 }
    }

    /// Runs a script in the mount that fails with this message, and expects one new line with these parts.
    #[track_caller]
    fn refuses(&mut self, script: &str, message: &str, parts: &[&str]) {
        self.mount.sh(script).fails(message);
        self.has_one_more(script, parts);
    }

    #[track_caller]
    fn has_one_more(&mut self, what: &str, parts: &[&str]) {
        let text = self.mount.process().log_text();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("refused: ")).collect();
        assert_eq!(lines.len(), self.seen + 1, "{what}: one line more in {text}");
        let line = lines[self.seen];
        for part in parts {
            assert!(line.contains(part), "{what}: '{part}' is not in: {line}");
        }
        self.seen = lines.len();
    }
}

fn a_suffix_that_makes_no_sense_is_told_with_what_would(server: &mut dyn Server) {
    let mut world = World::of(server, &[]);
    world.sh("mkdir d; touch plain").ok();
    let mut log = Log::of(&mut world.mount);
    for (name, reason) in [
        ("a@ttl=x", "as in @ttl=30s"),
        ("a@ttl=30", "ms, s, m, h or d"),
        ("a@pid=0", "as in @pid=$$"),
        ("a@pid=x", "as in @pid=$$"),
        ("a@eph,eph", "twice"),
        ("a@eph=1", "takes no value"),
        ("a@container,seq", "contradicts"),
        ("a@eph,ttl=30s", "contradicts"),
        ("a@eph@seq", "@seq,eph"),
    ] {
        let place = format!("/d/{name}: ");
        log.refuses(&format!("mkdir 'd/{name}'"), "Invalid argument", &[&place, reason]);
    }
    log.refuses("echo x > d/a@ttl=x", "Invalid argument", &["/d/a@ttl=x: "]);
    let mknod = "exec /usr/bin/python3 -c 'import os; os.mknod(\"d/a@ttl=x\")'";
    log.refuses(mknod, "Invalid argument", &["/d/a@ttl=x: "]);
    let rename = "exec /usr/bin/python3 -c 'import os; os.rename(\"plain\", \"d/a@ttl=x\")'";
    log.refuses(rename, "Invalid argument", &["/d/a@ttl=x: "]);
    log.refuses("mkdir d/a@fd", "Invalid argument", &["/d/a@fd: ", "descriptor"]);
    assert_eq!(world.client().children("/d"), [""; 0]);
}

fn a_process_that_cannot_be_followed_is_told_with_the_reason(server: &mut dyn Server) {
    let mut world = World::of(server, &["-o", "allow_other"]);
    let mut log = Log::of(&mut world.mount);
    log.refuses("mkdir a@pid=4194304", "No such process", &["/a: ", "4194304"]);
    let ended = "sh -c 'exit 0' & pid=$!; wait; mkdir a@pid=$pid";
    log.refuses(ended, "No such process", &["/a: ", "no longer"]);
    let as_nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";
    let other = format!("{as_nobody} mkdir a@pid=1");
    log.refuses(&other, "Operation not permitted", &["/a: ", "user 65534", "process 1"]);
    let elsewhere = "unshare --pid --fork sh -c 'mkdir a@pid=$$'";
    log.refuses(elsewhere, "Operation not permitted", &["/a: ", "pid namespace"]);
    assert_eq!(world.client().stat("/a"), None);
}

fn an_acl_that_makes_no_sense_is_told_with_the_form(server: &mut dyn Server) {
    let mut world = World::of(server, &[]);
    world.sh("mkdir d; echo x > d/f").ok();
    let mut log = Log::of(&mut world.mount);
    for (text, reason) in [
        ("", "SCHEME:ID:PERMISSIONS"),
        ("nonsense", "SCHEME:ID:PERMISSIONS"),
        ("world:anyone:rx", "cdrwa"),
        ("world:anyone:r,,", "''"),
        ("0sgP8=", "not UTF-8"),
        ("nowhere:me:r", "scheme"),
        ("digest:bob:r", "USER:HASH"),
        ("auth::r", "credentials"),
    ] {
        let script = format!("setfattr -n user.znode.acl -v '{text}' d/f");
        log.refuses(&script, "Invalid argument", &["/d/f: ", "user.znode.acl", reason]);
    }
    let acl = "getfattr --only-values -n user.znode.acl d/f";
    assert_eq!(world.sh(acl).ok(), "world:anyone:cdrwa");
    world.sh("setfattr -n user.znode.version -v 7 d/f").fails("Operation not supported");
    world.sh("setfattr -x user.znode.acl d/f").fails("Operation not supported");
}

fn a_value_over_the_limit_in_many_writes_is_told_once(server: &mut dyn Server) {
    const LIMIT: usize = 1_047_551;
    let mut world = World::of(server, &[]);
    let mut file = File::create(world.path("f")).unwrap();
    let chunk = [7; 4096];
    let whole = LIMIT / chunk.len();
    for _ in 0..whole {
        file.write_all(&chunk).unwrap();
    }
    for _ in 0..100 {
        let error = file.write(&chunk).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    }
    file.write_all(&chunk[..LIMIT % chunk.len()]).expect("what is left");
    drop(file);
    assert_eq!(world.client().data("/f").unwrap().len(), LIMIT, "what had been taken is kept");
    let limit = LIMIT.to_string();
    let mut log = Log::of(&mut world.mount);
    log.has_one_more("many writes", &["/f: ", &limit, "elsewhere"]);
    log.refuses("echo x >> f", "File too large", &["/f: "]);
    log.refuses("truncate --size=2M f", "File too large", &["/f: "]);
    let seek = "exec /usr/bin/python3 -c 'import os; os.truncate(\"f\", 1 << 50)'";
    log.refuses(seek, "File too large", &["/f: "]);
    assert_eq!(world.client().data("/f").unwrap().len(), LIMIT);
}

#[test]
fn a_time_to_live_that_the_servers_do_not_allow_is_told_with_their_setting() {
    // Which Debian's does not unless it is told to.
    let mut world = World::new(Backend::ZooKeeper);
    let mut log = Log::of(&mut world.mount);
    log.refuses("mkdir a@ttl=30s", "Operation not supported", &["/a: ", "extendedTypesEnabled"]);
}

on_znoded![
    a_suffix_that_makes_no_sense_is_told_with_what_would,
    a_process_that_cannot_be_followed_is_told_with_the_reason,
    an_acl_that_makes_no_sense_is_told_with_the_form,
    a_value_over_the_limit_in_many_writes_is_told_once,
];
