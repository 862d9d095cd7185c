//! How `znoded` says that it serves: to systemd, and to whoever waits for a file.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;

use tracing::warn;

/// Tells the service manager that started us (`sd_notify(3)`); does nothing where none did.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        warn!("cannot notify {}: {error}", socket.to_string_lossy());
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // A leading @ stands for the abstract namespace.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => UnixAddress::from_abstract_name(name)?,
        _ => UnixAddress::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Writes the client port's address and a line feed to `path`, in one step, so that a reader sees all
/// of it or nothing.
pub(super) fn write_ready_file(path: &Path, address: SocketAddr) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    std::fs::write(&beside, format!("{address}\n"))?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_and_the_ready_file_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut buffer = [0; 16];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");

        let ready = directory.path().join("ready");
        write_ready_file(&ready, "127.0.0.1:5".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(ready).unwrap(), "127.0.0.1:5\n");
    }
}
