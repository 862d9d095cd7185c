//! Replay: a helper process of the mount performs what others changed once more on the mountpoint,
//! so that the kernel emits genuine inotify events and brings its caches up to date in the same
//! stroke.
//!
//! Here: what the mount process and its helper say to each other. The helper's work is in
//! [`helper`], starting it and talking to it in [`process`]; what is to be replayed, and how the
//! handlers answer the helper's requests, is decided in the file system.

pub mod helper;
pub mod process;

pub use helper::{HELPER_NAME, is_helper, run};
pub use process::ReplayHelper;

/// How many commands the helper performs at the same time, each in a directory of its own.
pub const WORKERS: usize = 16;

/// The handle under which the helper's open files are known: there is nothing to know of them.
pub const HELPER_HANDLE: u64 = u64::MAX;

/// What is to be done in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `open(O_CREAT|O_EXCL)`, and with a length other than 0 an ftruncate to it.
    CreateFile(u64),
    /// `mkdir`.
    CreateDirectory,
    /// `open` for writing and ftruncate to this length.
    Modify(u64),
    /// `unlink`.
    Unlink,
    /// `rmdir`.
    RemoveDirectory,
}

/// An order to the helper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The directory's path below the mountpoint, without a slash at either end; empty is the root.
    pub directory: String,
    /// The name in it.
    pub name: String,
    /// What to do.
    pub action: Action,
}

/// Longest frame that the helper takes: the longest path of a znode, each name with one `@` more.
const FRAME_LENGTH_MAX: usize = 4 << 20;

/// What the mount process sends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// The device number (major, minor) of the mount: from now on commands may come.
    Arm(u32, u32),
    /// A command with its number.
    Perform(u64, Command),
}

impl Order {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Order::Arm(major, minor) => {
                body.push(0);
                body.extend(major.to_le_bytes());
                body.extend(minor.to_le_bytes());
            }
            Order::Perform(number, Command { directory, name, action }) => {
                let (code, length) = match action {
                    Action::CreateFile(length) => (1, *length),
                    Action::CreateDirectory => (2, 0),
                    Action::Modify(length) => (3, *length),
                    Action::Unlink => (4, 0),
                    Action::RemoveDirectory => (5, 0),
                };
                body.push(code);
                body.extend(number.to_le_bytes());
                body.extend(length.to_le_bytes());
                body.extend(directory.as_bytes());
                body.push(0);
                body.extend(name.as_bytes());
            }
        }
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.append(&mut body);
        frame
    }

    /// Reads what stands behind a frame's length.
    fn decode(body: &[u8]) -> Option<Order> {
        let (code, rest) = body.split_first()?;
        if *code == 0 {
            let (major, minor) = rest.split_first_chunk::<4>()?;
            let minor: [u8; 4] = minor.try_into().ok()?;
            return Some(Order::Arm(u32::from_le_bytes(*major), u32::from_le_bytes(minor)));
        }
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        let action = match code {
            1 => Action::CreateFile(length),
            2 => Action::CreateDirectory,
            3 => Action::Modify(length),
            4 => Action::Unlink,
            5 => Action::RemoveDirectory,
            _ => return None,
        };
        let (directory, name) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
        let (directory, name) = (directory.to_string(), name.to_string());
        Some(Order::Perform(u64::from_le_bytes(*number), Command { directory, name, action }))
    }
}

/// What the helper answers: a command's number and the errno it came to, 0 for success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    number: u64,
    errno: i32,
}

impl Answer {
    const LENGTH: usize = 12;

    fn encode(self) -> [u8; Answer::LENGTH] {
        let mut bytes = [0; Answer::LENGTH];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.errno.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; Answer::LENGTH]) -> Answer {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Answer {
            number: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            errno: i32::from_le_bytes([i, j, k, l]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_survive_the_pipe() {
        let command = |action| Command { directory: "a/b".into(), name: "c d".into(), action };
        let actions = [
            Action::CreateFile(3),
            Action::CreateDirectory,
            Action::Modify(1 << 40),
            Action::Unlink,
            Action::RemoveDirectory,
        ];
        let orders = actions.map(|action| Order::Perform(u64::MAX, command(action)));
        for order in orders.into_iter().chain([Order::Arm(0, 77)]) {
            let frame = order.encode();
            assert_eq!(frame[..4], (frame.len() as u32 - 4).to_le_bytes());
            assert_eq!(Order::decode(&frame[4..]), Some(order));
        }
        for nonsense in [&b""[..], b"\x00123", b"\x09", b"\x01short"] {
            assert_eq!(Order::decode(nonsense), None);
        }
        let answer = Answer { number: 7, errno: libc::EBUSY };
        assert_eq!(Answer::decode(answer.encode()), answer);
    }
}
