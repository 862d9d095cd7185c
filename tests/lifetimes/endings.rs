//! However a process ends and wherever its descriptors go: a znode of `@fd` goes with the last of them, one of
//! `@pid` with its process.

use nix::sys::signal::Signal;
use znodefs_tests::{Background, World, on_every_backend};

use crate::wait_until_gone;

/// A Python program in the root of the mount, itself the process.
fn python(world: &World, program: &str) -> Background {
    let program = format!("import os, signal, socket, sys, threading, time\n{program}");
    Background::start(&world.mount, &format!("exec /usr/bin/python3 -uc '{program}'"))
}

/// How both kinds are made, in Python; `f` is the descriptor.
const MAKE: &str = "
f = os.open(\"member@fd\", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.mkdir(f\"lock@pid={os.getpid()}\")
print(\"ready\")
";

#[track_caller]
fn is_there(world: &World, znode: &str) {
    assert!(world.client().stat(znode).is_some(), "{znode}");
}

fn every_end_of_a_process_is_an_end(world: &World) {
    for ending in [
        "os._exit(3)",
        "sys.exit(0)",
        "os.abort()",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.execvp(\"true\", [\"true\"])",
        "raise SystemExit",
    ] {
        let mut process = python(world, &format!("{MAKE}{ending}"));
        process.wait_for("ready");
        wait_until_gone(world, "/member");
        wait_until_gone(world, "/lock");
        process.code();
    }
}

fn a_process_that_nobody_waits_for_has_ended_all_the_same(world: &World) {
    let _parent = python(
        world,
        &format!(
            "
if os.fork() == 0:
    {}
    os._exit(0)
time.sleep(1000)",
            MAKE.replace('\n', "\n    ")
        ),
    );
    _parent.wait_for("ready");
    wait_until_gone(world, "/member");
    wait_until_gone(world, "/lock");
}

fn another_program_in_the_same_process_keeps_what_it_inherits(world: &World) {
    let mut process = python(
        world,
        &format!(
            "{MAKE}
g = os.open(\"closes@fd\", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
os.set_inheritable(f, True)
print(\"both\")
os.execvp(\"sleep\", [\"sleep\", \"1000\"])"
        ),
    );
    process.wait_for("both");
    wait_until_gone(world, "/closes");
    is_there(world, "/member");
    is_there(world, "/lock");
    process.process().signal(Signal::SIGKILL);
    wait_until_gone(world, "/member");
    wait_until_gone(world, "/lock");
}

fn a_descriptor_that_is_duplicated_inherited_or_sent_is_still_open(world: &World) {
    let mut process = python(
        world,
        &format!(
            "{MAKE}
one, other = socket.socketpair()
kept = os.dup(f)
child = os.fork()
if child == 0:
    os.close(f); os.close(kept)
    print(\"child\", os.getpid())
    # What is in a socket is open too.
    _, received, _, _ = socket.recv_fds(other, 1, 1)
    other.send(b\"got\")
    time.sleep(1000)
os.close(f)
os.dup2(kept, 9)
os.close(kept)
socket.send_fds(one, [b\"x\"], [9])
os.close(9)
one.recv(3)
os.rmdir(\"lock\")
print(\"sent\")
signal.pause()
os.kill(child, signal.SIGKILL)"
        ),
    );
    process.wait_for("sent");
    // Only the receiver has it now.
    is_there(world, "/member");
    world.sh("[ -e member ] && ! [ -e lock ]").ok();
    let said = process.process().log_text();
    let child = said.lines().find_map(|line| line.strip_prefix("child ")).expect("its number");
    process.process().signal(Signal::SIGKILL);
    process.code();
    is_there(world, "/member");
    world.sh(&format!("kill -9 {child}")).ok();
    wait_until_gone(world, "/member");
}

fn a_thread_that_ends_is_no_end(world: &World) {
    let mut process = python(
        world,
        "
def make():
    global f
    f = os.open(\"member@fd\", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.mkdir(f\"lock@pid={os.getpid()}\")
thread = threading.Thread(target=make)
thread.start(); thread.join()
print(\"ended\")
time.sleep(1000)",
    );
    process.wait_for("ended");
    // Something that would end behind them, if they did.
    world.sh("mkdir last@pid=$$").ok();
    wait_until_gone(world, "/last");
    is_there(world, "/member");
    is_there(world, "/lock");
    process.process().signal(Signal::SIGTERM);
    wait_until_gone(world, "/member");
    wait_until_gone(world, "/lock");
}

fn a_mapping_keeps_a_file_open(world: &World) {
    let process = python(
        world,
        "
import mmap
f = os.open(\"member@fd\", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.write(f, b\"x\" * 100); os.fsync(f)
m = mmap.mmap(f, 100, flags=mmap.MAP_PRIVATE)
os.close(f)
print(\"mapped\")
os.mkdir(f\"last@pid={os.getpid()}\")
sys.stdin.close()
while not os.path.exists(\"go\"): time.sleep(0.01)
m.close()
print(\"unmapped\")
time.sleep(1000)",
    );
    process.wait_for("mapped");
    is_there(world, "/member");
    world.sh("touch go").ok();
    process.wait_for("unmapped");
    wait_until_gone(world, "/member");
}

on_every_backend!(
    every_end_of_a_process_is_an_end,
    a_process_that_nobody_waits_for_has_ended_all_the_same,
    another_program_in_the_same_process_keeps_what_it_inherits,
    a_descriptor_that_is_duplicated_inherited_or_sent_is_still_open,
    a_thread_that_ends_is_no_end,
    a_mapping_keeps_a_file_open,
);
