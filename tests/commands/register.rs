//! `znode register`: a znode that is there while a command runs.

use znodefs_tests::{Proxy, on_znoded, wait_until};

use crate::world::{SOON, Service};

fn the_znode_is_there_while_the_command_runs(service: &mut Service) {
    let script = "znode register /s/web/one --data host:80 sh -c \
                  'echo $ZNODE_REGISTERED_PATH; znode get /s/web/one; exit 6'";
    let ran = service.sh(script);
    assert_eq!((ran.code, ran.stdout.as_str()), (6, "/s/web/one\nhost:80"));
    assert_eq!(service.sh("znode ls /s/web").ok(), "");
    let ran = service.sh("znode register -s /s/web/n- sh -c 'znode get $ZNODE_REGISTERED_PATH; \
                          echo $ZNODE_REGISTERED_PATH'");
    assert_eq!(ran.ok(), "/s/web/n-0000000001\n");
    service.sh("znode register /s/web/one no-such-program").says_only(69, &["no-such-program"]);
    assert_eq!(service.sh("znode ls /s/web").ok(), "");
}

fn a_name_that_is_taken_is_waited_for_and_then_given_up(service: &mut Service) {
    let mut first = service.start("exec znode register /s sleep 1000");
    service.sh("znode wait /s --exists -w 20").ok();
    service.sh("znode register -w 0.3 /s touch ran").ends_saying(1, &["/s", "session"]);
    assert!(!service.path("ran").exists());
    let mut second = service.start("exec znode register /s touch ran");
    wait_until("it waits", SOON, || second.log_text().contains("waiting until it goes"));
    first.terminate(SOON);
    assert!(second.wait(SOON).is_some_and(|status| status.success()));
    assert!(&service.path("ran").exists());
    service.sh("znode create /p x; znode register /p true").says_only(1, &["/p", "not ephemeral"]);
}

fn it_is_there_again_after_the_session_was_lost_and_the_command_goes_on(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let script =
        "exec znode --timeout 4s register /s --data d sh -c 'echo run >> told; exec sleep 1000'";
    let mut registered = service.start_to(proxy.address(), script);
    service.wait_for_line("told", "run");
    let first = service.client().stat("/s").expect("it is there");
    proxy.fall_silent();
    service.sh("znode wait /s --gone -w 20").ok();
    proxy.speak();
    service.sh("znode wait /s --value d -w 20").ok();
    let second = service.client().stat("/s").expect("it is there");
    assert_ne!(first.ephemeral_owner, second.ephemeral_owner);
    wait_until("it says so", SOON, || registered.log_text().contains("registered again"));
    assert_eq!(service.read("told"), "run\n");
    registered.terminate(SOON);
    assert_eq!(service.client().stat("/s"), None);
}

fn what_was_deleted_by_hand_stays_deleted(service: &mut Service) {
    let mut registered = service.start("exec znode register /s sleep 1000");
    service.sh("znode wait /s --exists -w 20; znode rm /s").ok();
    wait_until("it says so", SOON, || registered.log_text().contains("somebody has deleted it"));
    service.server.start_again();
    assert_eq!(registered.exit_status(), None);
    assert_eq!(service.client().stat("/s"), None);
    registered.terminate(SOON);
}

on_znoded![|server| &mut super::Service::of(server);
    the_znode_is_there_while_the_command_runs,
    a_name_that_is_taken_is_waited_for_and_then_given_up,
    it_is_there_again_after_the_session_was_lost_and_the_command_goes_on,
    what_was_deleted_by_hand_stays_deleted,
];
