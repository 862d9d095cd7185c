//! Without a connection nothing that was kept is used.

use std::fs;
use std::time::Duration;

use znodefs_tests::deadline::pause;
use znodefs_tests::{Mount, Proxy, Server, Znoded, wait_until};

use crate::LIMIT;

fn wait_for_state(mount: &Mount, state: &str) {
    let file = mount.join("@status/state");
    let is_so = || fs::read_to_string(&file).is_ok_and(|text| text.trim() == state);
    wait_until(&format!("the mount is {state}"), LIMIT, is_so);
}

#[test]
fn what_changed_meanwhile_is_seen_by_whoever_waited() {
    let server = Znoded::start();
    let proxy = Proxy::of(&server.address());
    let here = Mount::of(proxy.address(), &["-o", "timeout=60"]);
    let there = Mount::of(&server.address(), &[]);
    there.sh("mkdir d; echo old > d/f; touch d/going").ok();
    let look = || {
        let names = fs::read_dir(here.join("d")).map(|names| names.count()).ok();
        let value = fs::read_to_string(here.join("d/f")).ok();
        let [coming, going] = ["d/coming", "d/going"].map(|name| here.join(name).exists());
        (names, value, coming, going)
    };
    let old = (Some(2), Some("old\n".to_string()), false, true);
    for _ in 0..3 {
        assert_eq!(look(), old);
    }
    proxy.cut();
    wait_for_state(&here, "suspended");
    there.sh("echo new > d/f; rm d/going; touch d/coming d/another").ok();
    std::thread::scope(|scope| {
        let waiting = [scope.spawn(look), scope.spawn(look)];
        pause(Duration::from_millis(500));
        assert!(waiting.iter().all(|look| !look.is_finished()), "a look did not wait");
        proxy.mend();
        for look in waiting {
            let seen = look.join().expect("a look");
            assert_eq!(seen, (Some(3), Some("new\n".to_string()), true, false));
        }
    });
    assert_eq!(look(), (Some(3), Some("new\n".to_string()), true, false));
}

#[test]
fn looks_fail_once_the_session_cannot_live_any_more() {
    let server = Znoded::start();
    let proxy = Proxy::of(&server.address());
    let here = Mount::of(proxy.address(), &["-o", "timeout=2"]);
    here.sh("mkdir d; echo kept > d/f; ls d; cat d/f; ! test -e d/absent").ok();
    proxy.cut();
    wait_for_state(&here, "suspended");
    let timed_out = |error: std::io::Error| error.raw_os_error() == Some(libc::ETIMEDOUT);
    for name in ["d/f", "d/absent"] {
        assert!(fs::File::open(here.join(name)).is_err_and(timed_out), "{name}");
    }
    let listed = fs::read_dir(here.join("d")).and_then(|mut names| names.next().transpose());
    assert!(listed.is_err_and(timed_out));
    proxy.mend();
    wait_for_state(&here, "connected");
    assert_eq!(here.sh("cat d/f; ls d").ok(), "kept\nf\n");
}
