//! `znode wait`: conditions, limits, outages.

use znodefs_tests::deadline::pause;
use znodefs_tests::{Proxy, on_znoded};

use crate::world::{SOON, Service};

use std::time::Duration;

fn what_is_so_already_is_not_waited_for(service: &mut Service) {
    service.sh("znode create /a one && znode create /a/b x && znode create /a/c x").ok();
    for condition in
        ["/a --exists", "/x --gone", "/a --value one", "/a --children 2", "/x --childless"]
    {
        service.sh(&format!("znode wait {condition} -w 0")).ok();
        service.sh(&format!("znode wait -w 10 {condition}")).ok();
    }
    for (condition, said) in [
        ("/x --exists", "does not exist"),
        ("/a --gone", "still exists"),
        ("/a --value two", "does not have the value"),
        ("/a --children 3", "does not have 3 children"),
        ("/a --childless", "still has children"),
        ("/x --value ''", "does not have the value"),
    ] {
        service.sh(&format!("znode wait {condition} -w 0")).says_only(1, &[said]);
        service.sh(&format!("znode wait {condition} -w 0.1")).says_only(1, &[said, "after 0.1 s"]);
    }
    assert_eq!(service.sh("znode wait /a").code, 2);
    assert_eq!(service.sh("znode wait /a --exists --gone").code, 2);
}

fn it_returns_when_it_becomes_true(service: &mut Service) {
    service.sh("znode create /w x").ok();
    for (condition, cause) in [
        ("/a --exists", "znode create /a one"),
        ("/a --value two", "znode set /a two"),
        ("/a --children 1", "znode create /a/b x"),
        ("/a --childless", "znode rm /a/b"),
        ("/a --gone", "znode rm /a"),
        ("/b --value x", "znode create /b y; znode set /b x"),
        ("/c --children 2", "znode create /c x; znode create /c/1 x; znode create /c/2 x"),
    ] {
        let mut waiting = service.start(&format!("exec znode wait {condition}"));
        pause(Duration::from_millis(100));
        assert_eq!(waiting.exit_status(), None, "{condition}");
        service.sh(cause).ok();
        let status = waiting.wait(SOON).unwrap_or_else(|| panic!("{condition} after {cause}"));
        assert!(status.success(), "{condition}: {}", waiting.log_text());
    }
}

fn it_waits_through_an_expired_session(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let mut waiting = service.start_to(proxy.address(), "exec znode --timeout 2s wait /a --exists");
    let mut unlucky =
        service.start_to(proxy.address(), "exec znode --timeout 2s wait /b --exists -w 4");
    pause(Duration::from_millis(300));
    proxy.fall_silent();
    pause(Duration::from_secs(7));
    service.sh("znode create /a x").ok();
    assert_eq!(unlucky.wait(SOON).and_then(|status| status.code()), Some(1));
    assert_eq!(waiting.exit_status(), None);
    proxy.speak();
    let status = waiting.wait(SOON).expect("it sees what was created meanwhile");
    assert!(status.success(), "{}", waiting.log_text());
}

on_znoded![|server| &mut super::Service::of(server);
    what_is_so_already_is_not_waited_for,
    it_returns_when_it_becomes_true,
    it_waits_through_an_expired_session,
];
