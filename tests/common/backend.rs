//! What the tests of the mount run on: the same behaviour is asked of a mount of `znoded`, of the
//! replica inside the mount, and of Debian's ZooKeeper.

use std::path::PathBuf;

use crate::mount::Mount;
use crate::server::{DebianZooKeeper, Server, Znoded};
use crate::{Directory, Ran, WireClient};

/// Who serves the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A process of `znoded`.
    Znoded,
    /// The replica inside `znode-mount`.
    Embedded,
    /// Debian's ZooKeeper.
    ZooKeeper,
}

/// A served and mounted tree of one test.
pub struct World {
    /// The mount; first, so that it ends before its server does.
    pub mount: Mount,
    /// `HOST:PORT` of the service.
    pub address: String,
    _server: Option<Box<dyn Server>>,
    _data: Option<Directory>,
}

impl World {
    /// Serves an empty tree and mounts it.
    pub fn new(backend: Backend) -> World {
        World::with_options(backend, &[])
    }

    /// The same with further arguments of `znode-mount`.
    pub fn with_options(backend: Backend, arguments: &[&str]) -> World {
        let server: Box<dyn Server> = match backend {
            Backend::Znoded => Box::new(Znoded::start()),
            Backend::ZooKeeper => Box::new(DebianZooKeeper::start()),
            Backend::Embedded => {
                let data = Directory::new();
                let (mount, address) = Mount::embedded(&data, arguments);
                return World { mount, address, _server: None, _data: Some(data) };
            }
        };
        let address = server.address();
        let mount = Mount::of(&address, arguments);
        World { mount, address, _server: Some(server), _data: None }
    }

    /// Mounts the same tree once more, as another machine would.
    pub fn mount_again(&self, arguments: &[&str]) -> Mount {
        Mount::of(&self.address, arguments)
    }

    /// Runs a bash script in the root of the mount.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        self.mount.sh(script)
    }

    /// A path inside the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// A client of the service that knows nothing of the mount.
    pub fn client(&self) -> WireClient {
        WireClient::connect(&self.address)
    }
}

/// Makes each of these functions of a [`World`] a test on every backend.
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod znoded {
            $(#[test] fn $name() { super::$name(&$crate::World::new($crate::Backend::Znoded)); })*
        }
        mod embedded {
            $(#[test] fn $name() { super::$name(&$crate::World::new($crate::Backend::Embedded)); })*
        }
        mod zookeeper {
            $(#[test] fn $name() { super::$name(&$crate::World::new($crate::Backend::ZooKeeper)); })*
        }
    };
}

/// Makes each of these functions of a [`Server`] a test on `znoded` and on Debian's ZooKeeper,
/// which shows that it asks for what a ZooKeeper does.
#[macro_export]
macro_rules! on_every_server {
    ($($name:ident),* $(,)?) => {
        mod znoded {
            $(#[test] fn $name() { super::$name(&mut $crate::Znoded::start()); })*
        }
        mod zookeeper {
            $(#[test] fn $name() { super::$name(&mut $crate::DebianZooKeeper::start()); })*
        }
    };
}
