//! A network of the test's own: every replica and the clients in a network namespace of their own,
//! joined by a router in another, which can be told to drop what one sends to another. The host's
//! network is not touched; everything is removed at the end, also behind a test that was killed.
//!
//! It needs the rights of root and iproute2.

use std::fs::File;
use std::io::Error;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::reaper::Reaper;

/// The node from which clients come.
pub const CLIENTS: u8 = 200;

/// Networks of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Namespaces joined by a router.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    nodes: Vec<u8>,
    _reaper: Reaper,
}

impl Network {
    /// Makes one node for each id, and one for clients; everybody reaches everybody.
    pub fn new(ids: &[u8]) -> Network {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("znodefs-{}-{number}", std::process::id());
        let nodes: Vec<u8> = ids.iter().copied().chain([CLIENTS]).collect();
        let reaper = Reaper::of_network(&prefix);
        let network = Network { prefix, nodes, _reaper: reaper };
        let router = network.name("router");
        ip(&format!("netns add {router}"));
        for node in &network.nodes {
            let name = network.name(&node.to_string());
            ip(&format!("netns add {name}"));
            ip(&format!("-n {router} link add to{node} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {router} addr add 10.77.{node}.1/30 dev to{node}"));
            ip(&format!("-n {router} link set to{node} up"));
            ip(&format!("-n {name} addr add {}/30 dev eth0", network.address(*node)));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} route add default via 10.77.{node}.1"));
        }
        let mut forward = Command::new("sh");
        forward.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        network.put_into("router", &mut forward);
        assert!(forward.status().expect("a shell").success(), "the router forwards");
        network
    }

    fn name(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// A node's address.
    pub fn address(&self, node: u8) -> String {
        format!("10.77.{node}.2")
    }

    fn namespace(&self, node: &str) -> File {
        let path = format!("/run/netns/{}", self.name(node));
        File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Lets a command run in a node.
    pub fn put(&self, node: u8, command: &mut Command) {
        self.put_into(&node.to_string(), command);
    }

    fn put_into(&self, node: &str, command: &mut Command) {
        let namespace = self.namespace(node);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || enter(&namespace));
        }
    }

    /// Puts the calling thread, and every thread that it starts from now on, where clients are.
    pub fn become_client(&self) {
        enter(&self.namespace(&CLIENTS.to_string())).expect("the namespace just made");
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub fn cut(&self, from: u8, to: u8) {
        let rule = self.rule(from, to);
        // Once is enough, and easier to mend.
        self.mend(from, to);
        ip(&format!("-n {} rule add {rule} blackhole", self.name("router")));
    }

    /// What `from` sends reaches `to` again.
    pub fn mend(&self, from: u8, to: u8) {
        let rule = self.rule(from, to);
        // There may be nothing to mend.
        let _ = try_ip(&format!("-n {} rule del {rule} blackhole", self.name("router")));
    }

    fn rule(&self, from: u8, to: u8) -> String {
        let priority = 1000 + u32::from(from) * 256 + u32::from(to);
        format!("priority {priority} from {} to {}", self.address(from), self.address(to))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in self.nodes.iter().map(u8::to_string).chain(["router".to_string()]) {
            let _ = try_ip(&format!("netns del {}", self.name(&node)));
        }
    }
}

/// Moves the calling thread into a network namespace.
fn enter(namespace: &File) -> std::io::Result<()> {
    // SAFETY: setns takes a descriptor, which is open, and touches no memory.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

fn try_ip(arguments: &str) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments.split(' ')).output();
    let ran = ran.map_err(|error| format!("ip (of iproute2) cannot be started: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}

/// # Panics
/// If it fails.
#[track_caller]
fn ip(arguments: &str) {
    if let Err(error) = try_ip(arguments) {
        panic!("ip {arguments}: {error}");
    }
}
