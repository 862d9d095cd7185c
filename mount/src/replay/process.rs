//! The mount process' side: starts the helper, hands it commands, and starts another when it dies.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Answer, Command, HELPER_NAME, Order, WORKERS};

/// How long the mount waits before it starts another helper in place of one that died.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The helper of a mount.
pub struct ReplayHelper {
    shared: Arc<Shared>,
}

struct Shared {
    mountpoint: PathBuf,
    /// The helper's threads, as the kernel names them; 0 is none.
    threads: [AtomicU32; WORKERS],
    last_number: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Frames, with the number of the command in each; 0 for none.
    orders: mpsc::Sender<(u64, Vec<u8>)>,
    /// Where orders go; none while there is no helper.
    pipe: Mutex<Option<ChildStdin>>,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    device: Option<(u32, u32)>,
    commands: HashMap<u64, oneshot::Sender<i32>>,
}

/// Why a command came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The system call failed.
    #[error("{0}")]
    Refused(Errno),
    /// The helper died meanwhile; another is coming.
    #[error("the helper process died")]
    Lost,
    /// No more commands are taken.
    #[error("replaying has ended")]
    Stopped,
}

impl ReplayHelper {
    /// Starts the helper of what will be mounted at `mountpoint` (absolute, no symbolic links).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mountpoint: &Path) -> io::Result<ReplayHelper> {
        let (orders, queue) = mpsc::channel::<(u64, Vec<u8>)>();
        let shared = Arc::new(Shared {
            mountpoint: mountpoint.to_path_buf(),
            threads: Default::default(),
            last_number: AtomicU64::new(0),
            waiting: Mutex::default(),
            orders,
            pipe: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let (started, first) = mpsc::channel();
        let keeper = shared.clone();
        // The helper is to end with the thread that starts it: so that thread stays.
        std::thread::Builder::new().name("replay".into()).spawn(move || keeper.keep(&started))?;
        if let Err(error) = first.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())) {
            shared.is_stopped.store(true, Ordering::Release);
            return Err(error);
        }
        let writer = Arc::downgrade(&shared);
        // Nobody who answers the kernel may wait for a pipe.
        std::thread::Builder::new().name("replay-orders".into()).spawn(move || {
            while let Ok((number, frame)) = queue.recv() {
                let Some(shared) = writer.upgrade() else { return };
                let written = shared.pipe.lock().as_mut().map(|pipe| pipe.write_all(&frame));
                if !matches!(written, Some(Ok(()))) {
                    // Dropping the sender tells whoever waits.
                    shared.waiting.lock().commands.remove(&number);
                }
            }
        })?;
        Ok(ReplayHelper { shared })
    }

    /// Names the device (major, minor) of the mount; commands are performed from now on.
    pub fn arm(&self, device: (u32, u32)) {
        self.shared.waiting.lock().device = Some(device);
        // It fails only when the writing thread has ended with the process.
        let _ = self.shared.orders.send((0, Order::Arm(device.0, device.1).encode()));
    }

    /// Whether a thread is one of the helper's.
    pub fn has_thread(&self, thread: u32) -> bool {
        thread != 0
            && self.shared.threads.iter().any(|known| known.load(Ordering::Acquire) == thread)
    }

    /// Has a command performed.
    ///
    /// # Errors
    /// What the system call says, or that nobody performs commands (any more).
    pub async fn perform(&self, command: Command) -> Result<(), ReplayError> {
        let number = self.shared.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if self.shared.is_stopped.load(Ordering::Acquire) {
                return Err(ReplayError::Stopped);
            }
            waiting.commands.insert(number, sender);
        }
        let frame = Order::Perform(number, command).encode();
        self.shared.orders.send((number, frame)).map_err(|_| ReplayError::Stopped)?;
        match receiver.await {
            Ok(0) => Ok(()),
            Ok(errno) => Err(ReplayError::Refused(Errno::from_raw(errno))),
            Err(_) if self.shared.is_stopped.load(Ordering::Acquire) => Err(ReplayError::Stopped),
            Err(_) => Err(ReplayError::Lost),
        }
    }

    /// Takes no more commands and waits, for a short while, for those under way: a mount in which
    /// the helper is at work cannot be unmounted.
    pub async fn stop(&self) {
        const WAIT_MAX: Duration = Duration::from_millis(500);
        self.shared.is_stopped.store(true, Ordering::Release);
        let idle = async {
            while !self.shared.waiting.lock().commands.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // What hangs is nobody's to wait for.
        let _ = tokio::time::timeout(WAIT_MAX, idle).await;
    }
}

impl Drop for ReplayHelper {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // The helper ends when nothing more can come.
        *self.shared.pipe.lock() = None;
    }
}

impl Shared {
    /// Keeps a helper alive until replaying has ended.
    fn keep(&self, started: &mpsc::Sender<io::Result<()>>) {
        loop {
            match self.spawn() {
                Ok((mut process, mut answers)) => {
                    let _ = started.send(Ok(()));
                    self.read_answers(&mut answers);
                    self.forget_helper();
                    // It has closed its output: it is dead or as good as that.
                    let _ = process.kill();
                    let _ = process.wait();
                    if self.is_stopped.load(Ordering::Acquire) {
                        return;
                    }
                    tracing::warn!("the replay helper process died; starting another");
                }
                Err(error) => {
                    if started.send(Err(io::Error::new(error.kind(), error.to_string()))).is_err() {
                        tracing::error!("changes made elsewhere cause no events: {error}");
                    }
                    if self.is_stopped.load(Ordering::Acquire) {
                        return;
                    }
                }
            }
            std::thread::sleep(RESTART_PAUSE);
            if self.is_stopped.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn spawn(&self) -> io::Result<(Child, ChildStdout)> {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0(HELPER_NAME).arg(std::process::id().to_string()).arg(&self.mountpoint);
        // It says nothing, and whoever waits for the end of our standard error must not wait for it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.current_dir("/");
        let mut process = command.spawn()?;
        let missing = || io::Error::other("the replay helper has no pipes");
        let mut pipe = process.stdin.take().ok_or_else(missing)?;
        let mut answers = process.stdout.take().ok_or_else(missing)?;
        let mut hello = [0; 4 * WORKERS];
        answers.read_exact(&mut hello)?;
        for (slot, thread) in self.threads.iter().zip(hello.as_chunks::<4>().0) {
            slot.store(u32::from_le_bytes(*thread), Ordering::Release);
        }
        let device = self.waiting.lock().device;
        if let Some((major, minor)) = device {
            pipe.write_all(&Order::Arm(major, minor).encode())?;
        }
        *self.pipe.lock() = Some(pipe);
        Ok((process, answers))
    }

    fn read_answers(&self, answers: &mut ChildStdout) {
        let mut bytes = [0; Answer::LENGTH];
        while answers.read_exact(&mut bytes).is_ok() {
            let answer = Answer::decode(bytes);
            let waiting = self.waiting.lock().commands.remove(&answer.number);
            if let Some(waiting) = waiting {
                // Whoever asked may not care any more.
                let _ = waiting.send(answer.errno);
            }
        }
    }

    fn forget_helper(&self) {
        *self.pipe.lock() = None;
        for thread in &self.threads {
            thread.store(0, Ordering::Release);
        }
        // Dropping the senders tells those who wait.
        self.waiting.lock().commands.clear();
    }
}
