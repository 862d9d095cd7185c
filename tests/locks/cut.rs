//! A mount whose network is cut, for less and for more than its session may live: who holds a lock
//! goes on or can do nothing more, who waits for one gets it, and never do two hold it.

use std::fs;
use std::time::Duration;

use znodefs_tests::deadline::pause;
use znodefs_tests::{
    Background, DebianZooKeeper, Directory, Mount, Proxy, Server, Znoded, wait_until,
};

const LIMIT: Duration = Duration::from_secs(40);

struct Cut {
    here: Mount,
    there: Mount,
    proxy: Proxy,
    // Last, so that it ends after its clients.
    _server: Box<dyn Server>,
}

/// The test on each server, with a mount whose session lives so long without a connection.
fn on_each_server(session_timeout: &str, test: fn(&Cut)) {
    let servers: [fn() -> Box<dyn Server>; 2] =
        [|| Box::new(Znoded::start()), || Box::new(DebianZooKeeper::start())];
    for start in servers {
        let server = start();
        let proxy = Proxy::of(&server.address());
        let option = format!("session_timeout={session_timeout}");
        let here = Mount::of(proxy.address(), &["-o", &option]);
        let there = Mount::of(&server.address(), &[]);
        there.sh("echo first > f; echo first > g; echo first > held-there").ok();
        test(&Cut { here, there, proxy, _server: server });
    }
}

impl Cut {
    fn wait_for_state(&self, state: &str) {
        let file = self.here.join("@status/state");
        let is_so = || fs::read_to_string(&file).is_ok_and(|text| text.trim() == state);
        wait_until(&format!("the mount is {state}"), LIMIT, is_so);
    }

    /// Cuts the network when a lock is held there and waited for here; gives holder and waiter.
    fn cut_a_waiter_off(&self) -> (Background, Background) {
        let there =
            Background::start(&self.there, "exec 9<held-there; flock 9; echo in; exec sleep 1000");
        there.wait_for("in");
        let script = "exec 8<held-there; echo opened; flock 8 || exit; echo locked";
        let waiter = Background::start(&self.here, script);
        waiter.wait_for("opened");
        self.proxy.cut();
        self.wait_for_state("suspended");
        (there, waiter)
    }

    fn is_locked(&self, file: &str) -> bool {
        self.there.sh(&format!("flock -n {file} true")).code == 1
    }
}

/// Locks `f`, and then does what it is told by files outside of any mount: `go` to write through the
/// locked descriptor.
const HOLDER: &str = "exec 9<>f; flock 9; echo in; until [ -e $GO ]; do read -rt 0.02 <> <(:); done; \
                      if cat <&9 && echo second > f; then echo done; else echo refused; fi; \
                      exec 9>&-; echo out";

#[test]
fn a_cut_shorter_than_the_session_only_makes_everybody_wait() {
    on_each_server("30", |cut| {
        let directory = Directory::new();
        let go = directory.join("go");
        let holder_script = HOLDER.replace("$GO", &go.display().to_string());
        let mut holder = Background::start(&cut.here, &holder_script);
        holder.wait_for("in");
        let (there, mut waiter) = cut.cut_a_waiter_off();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| fs::read_to_string(cut.here.join("g")));
            let writing = scope.spawn(|| fs::write(cut.here.join("written"), "while cut off"));
            fs::write(&go, "").expect("a file outside");
            pause(Duration::from_millis(500));
            assert!(!reading.is_finished() && !writing.is_finished());
            assert!(cut.is_locked("f"), "the session lives, and so does its lock");
            cut.proxy.mend();
            assert_eq!(reading.join().expect("a reader").expect("the value"), "first\n");
            writing.join().expect("a writer").expect("it is written");
        });
        holder.wait_for("done");
        holder.wait_for("out");
        assert_eq!(holder.code(), 0);
        assert_eq!(cut.there.sh("cat f written").ok(), "second\nwhile cut off");
        drop(there);
        waiter.wait_for("locked");
        assert_eq!(waiter.code(), 0);
    });
}

#[test]
fn a_lock_asked_for_while_no_server_is_there_is_waited_for_unless_it_must_not_be() {
    on_each_server("4", |cut| {
        let script = "exec 8<f 9<g; echo opened; until [ -e $GO ]; do read -rt 0.02 <> <(:); done; \
                      flock -n 9 || echo refused; flock 8 && echo locked; exec sleep 1000";
        let directory = Directory::new();
        let go = directory.join("go");
        let script = script.replace("$GO", &go.display().to_string());
        let waiter = Background::start(&cut.here, &script);
        waiter.wait_for("opened");
        cut.proxy.cut();
        cut.wait_for_state("suspended");
        fs::write(&go, "").expect("a file outside");
        // As long as the session may live.
        waiter.wait_for("refused");
        cut.proxy.mend();
        waiter.wait_for("locked");
        assert!(cut.is_locked("f"));
        assert!(!cut.is_locked("g"));
        drop(waiter);
        cut.there.sh("flock -w 20 f true").ok();
    });
}

#[test]
fn a_cut_longer_than_the_session_ends_its_locks_and_nothing_else() {
    on_each_server("4", |cut| {
        let directory = Directory::new();
        let go = directory.join("go");
        let script = "exec 9<>f; flock 9; echo in; until [ -e $GO ]; do read -rt 0.02 <> <(:); done; \
                      until cat <&9 2>&1 | grep Stale; do read -rt 0.05 <> <(:); done; \
                      echo lost >&9; cat g";
        let mut holder =
            Background::start(&cut.here, &script.replace("$GO", &go.display().to_string()));
        holder.wait_for("in");
        let (there, mut waiter) = cut.cut_a_waiter_off();
        let read = fs::read_to_string(cut.here.join("g"));
        assert_eq!(read.map_err(|error| error.raw_os_error()), Err(Some(libc::ETIMEDOUT)));
        let written = fs::write(cut.here.join("written"), "never");
        assert_eq!(written.map_err(|error| error.raw_os_error()), Err(Some(libc::ETIMEDOUT)));
        // Whoever waited for the lock has it once the session has ended.
        cut.there.sh("flock -w 40 f sh -c 'echo theirs > f'").ok();
        fs::write(&go, "").expect("a file outside");
        cut.proxy.mend();
        cut.wait_for_state("connected");
        holder.code();
        let said = holder.process().log_text();
        assert!(said.contains("Stale file handle") && said.ends_with("first\n"), "{said}");
        assert_eq!(cut.there.sh("cat f; ! test -e written").ok(), "theirs\n");
        assert!(!said.contains("theirs"), "read through the lost lock: {said}");
        drop(there);
        waiter.wait_for("locked");
        assert_eq!(waiter.code(), 0);
        cut.here.sh("flock -w 20 f cat f").ok();
    });
}
