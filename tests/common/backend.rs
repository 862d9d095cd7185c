//! What the tests of the mount run on: the same behaviour is asked of a mount of `znoded`, of the
//! replica inside the mount, and of Debian's ZooKeeper.

use std::path::PathBuf;

use crate::mount::Mount;
use crate::restarts::settle;
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
    /// `HOST:PORT` of the service; several, separated by commas, of an ensemble.
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
        let world = World::of(&*server, arguments);
        World { _server: Some(server), ..world }
    }

    /// Mounts what a server serves that outlives this.
    pub fn of(server: &dyn Server, arguments: &[&str]) -> World {
        let address = server.address();
        let mount = Mount::of(&address, arguments);
        World { mount, address, _server: None, _data: None }
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
        settle(&self.address);
        self.mount.join(name)
    }

    /// A client of the service that knows nothing of the mount.
    pub fn client(&self) -> WireClient {
        WireClient::connect(&self.address)
    }
}

/// Makes each of these functions of a [`World`] a test on every backend, and on an ensemble whose members
/// are restarted.
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
        $crate::on_restarts![|server| &$crate::World::of(server, &[]); $($name),*];
    };
}

/// Makes each of these functions of a [`Server`] a test on `znoded` and on Debian's ZooKeeper,
/// which shows that it asks for what a ZooKeeper does, and on an ensemble whose members are restarted.
#[macro_export]
macro_rules! on_every_server {
    ($($name:ident),* $(,)?) => {
        mod znoded {
            $(#[test] fn $name() { super::$name(&mut $crate::Znoded::start()); })*
        }
        mod zookeeper {
            $(#[test] fn $name() { super::$name(&mut $crate::DebianZooKeeper::start()); })*
        }
        $crate::on_restarts![$($name),*];
    };
}

/// Makes each of these functions of a [`Server`], or of what is made of one, a test on `znoded` and on an
/// ensemble whose members are restarted.
#[macro_export]
macro_rules! on_znoded {
    ($($name:ident),* $(,)?) => {
        $crate::on_znoded![|server| server; $($name),*];
    };
    (|$server:ident| $world:expr; $($name:ident),* $(,)?) => {
        mod znoded {
            $(#[test] fn $name() {
                let $server: &mut dyn $crate::Server = &mut $crate::Znoded::start();
                super::$name($world);
            })*
        }
        $crate::on_restarts![|$server| $world; $($name),*];
    };
}

/// Makes one test of these functions of a [`Server`], or of what is made of one: they pass on an ensemble
/// whose members are restarted.
#[macro_export]
macro_rules! on_restarts {
    ($($name:ident),* $(,)?) => {
        $crate::on_restarts![|server| server; $($name),*];
    };
    (|$server:ident| $world:expr; $($name:ident),* $(,)?) => {
        mod restarts {
            #[test]
            fn all_pass_while_members_are_restarted() {
                $crate::restarts::pass(module_path!(), &[
                    $($crate::restarts::Case {
                        name: stringify!($name),
                        body: |$server| super::$name($world),
                    }),*
                ]);
            }
        }
    };
}
