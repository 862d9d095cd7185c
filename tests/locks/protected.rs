//! Where the service lets nobody make or list the znodes of locks.

use znodefs_tests::{Server, World, binary, on_every_server};

fn is_refused_with_the_way_out(server: &mut dyn Server, acl: &str) {
    let mut world = World::of(server, &[]);
    world.sh("echo x > f").ok();
    let mut client = world.client();
    for path in ["/znodefs", "/znodefs/locks", "/znodefs/locks/%2Ff"] {
        client.create(path, None);
    }
    let znode = format!("{} --servers {}", binary("znode").display(), world.address);
    world.sh(&format!("{znode} acl set /znodefs/locks/%2Ff {acl}")).ok();
    world.sh("flock f true").fails("Permission denied");
    world.sh("flock --nonblock f true").fails("Permission denied");
    let lock = "import fcntl; fcntl.lockf(open(\"f\", \"r+\"), fcntl.LOCK_EX)";
    world.sh(&format!("/usr/bin/python3 -c '{lock}'")).fails("Permission denied");
    assert_eq!(world.sh("echo y > f; cat f").ok(), "y\n", "the file itself is open");
    let log = world.mount.process().log_text();
    let told: Vec<_> = log.lines().filter(|line| line.contains("no permission")).collect();
    assert_eq!(told.len(), 1, "{acl}: once: {log}");
    assert!(told[0].contains("/znodefs/locks/%2Ff") && told[0].contains("cdrwa"), "{log}");
}

fn locks_that_nobody_may_make_are_refused_with_the_way_out(server: &mut dyn Server) {
    is_refused_with_the_way_out(server, "world:anyone:ra");
}

fn locks_that_nobody_may_list_are_refused_with_the_way_out(server: &mut dyn Server) {
    is_refused_with_the_way_out(server, "world:anyone:cdwa");
}

on_every_server![
    locks_that_nobody_may_make_are_refused_with_the_way_out,
    locks_that_nobody_may_list_are_refused_with_the_way_out,
];
