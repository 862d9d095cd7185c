//! Who makes a system call: the kernel tells the thread, what counts is its process.

/// The user, group and thread behind a request of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// The thread's id in our pid namespace; 0 when it has none there.
    pub thread: u32,
}

impl Caller {
    /// The caller of a request.
    pub fn of(request: &fuser::Request) -> Caller {
        Caller { uid: request.uid(), gid: request.gid(), thread: request.pid() }
    }

    /// The process that the calling thread belongs to (its thread group); 0 when it is not known.
    pub fn process(&self) -> u32 {
        if self.thread == 0 {
            return 0;
        }
        // The thread waits for our answer, so it is still there, unless it is being killed.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread));
        status.ok().as_deref().and_then(thread_group).unwrap_or(0)
    }
}

fn thread_group(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_a_thread_is_its_thread_group() {
        let main = std::process::id();
        let thread = nix::unistd::gettid().as_raw() as u32;
        assert_ne!(thread, main, "tests run on threads of their own");
        assert_eq!(Caller { uid: 0, gid: 0, thread }.process(), main);
        assert_eq!(Caller { uid: 0, gid: 0, thread: main }.process(), main);
        assert_eq!(Caller { uid: 0, gid: 0, thread: 0 }.process(), 0);
    }
}
