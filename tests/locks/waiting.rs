//! Waiting for a lock: in order, until a signal or the time says otherwise.

use nix::sys::signal::Signal;
use znodefs_tests::{Background, World, on_every_backend, wait_until};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
const LOCK: &str = "/znodefs/locks/%2Ff";

#[track_caller]
fn wait_for_contenders(world: &World, count: usize) {
    let mut client = world.client();
    wait_until("so many contenders", LIMIT, || {
        client.stat(LOCK).is_some_and(|stat| stat.num_children as usize == count)
    });
}

fn holder_of(world: &World) -> Background {
    world.sh("touch f").ok();
    let holder = Background::start(&world.mount, "exec 9<f; flock 9; echo in; exec sleep 1000");
    holder.wait_for("in");
    holder
}

fn ten_waiters_get_the_lock_in_the_order_in_which_they_came(world: &World) {
    let there = world.mount_again(&[]);
    let holder = holder_of(world);
    let mut waiters = Vec::new();
    for number in 0..10 {
        let mount = if number % 2 == 0 { &world.mount } else { &there };
        let script = format!("exec flock f -c 'echo {number} >> order'");
        waiters.push(Background::start(mount, &script));
        wait_for_contenders(world, waiters.len() + 1);
    }
    drop(holder);
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.code(), 0));
    assert_eq!(world.sh("tr '\\n' ' ' < order").ok(), "0 1 2 3 4 5 6 7 8 9 ");
    wait_for_contenders(world, 0);
}

fn who_waits_long_enough_gives_up_and_is_in_nobodys_way(world: &World) {
    let there = world.mount_again(&[]);
    let holder = holder_of(world);
    assert_eq!(there.sh("flock -w 0.3 -E 9 f true").code, 9);
    assert_eq!(there.sh("timeout --signal=INT 0.3 flock f true").code, 124);
    wait_for_contenders(world, 1);
    drop(holder);
    there.sh("flock -w 20 f true").ok();
}

fn a_signal_ends_the_wait_at_once(world: &World) {
    let _holder = holder_of(world);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut waiter = Background::start(&world.mount, "exec flock f true");
        wait_for_contenders(world, 2);
        waiter.process().signal(signal);
        assert_eq!(waiter.code(), 128 + signal as i32);
        wait_for_contenders(world, 1);
    }
}

fn a_handled_signal_interrupts_and_a_blocked_one_does_not(world: &World) {
    let holder = holder_of(world);
    let script = "exec /usr/bin/python3 -uc '
import fcntl, signal
class Interrupted(Exception): pass
def interrupt(*_): raise Interrupted()
signal.signal(signal.SIGUSR1, interrupt)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
f = open(\"f\")
try: fcntl.flock(f, fcntl.LOCK_EX)
except Interrupted: print(\"interrupted\")
fcntl.flock(f, fcntl.LOCK_EX)
print(\"locked\")'";
    let mut waiter = Background::start(&world.mount, script);
    wait_for_contenders(world, 2);
    waiter.process().signal(Signal::SIGUSR2);
    assert!(!waiter.has_said("interrupted"));
    waiter.process().signal(Signal::SIGUSR1);
    waiter.wait_for("interrupted");
    wait_for_contenders(world, 2);
    drop(holder);
    waiter.wait_for("locked");
    assert_eq!(waiter.code(), 0);
}

fn many_waiters_do_not_keep_others_from_the_mount(world: &World) {
    let holder = holder_of(world);
    let mut waiters: Vec<_> =
        (0..20).map(|_| Background::start(&world.mount, "exec flock f true")).collect();
    wait_for_contenders(world, 21);
    world.sh("mkdir d; echo x > d/x; ls; cat d/x; rm -r d").ok();
    drop(holder);
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.code(), 0));
}

on_every_backend!(
    ten_waiters_get_the_lock_in_the_order_in_which_they_came,
    who_waits_long_enough_gives_up_and_is_in_nobodys_way,
    a_signal_ends_the_wait_at_once,
    a_handled_signal_interrupts_and_a_blocked_one_does_not,
    many_waiters_do_not_keep_others_from_the_mount,
);
