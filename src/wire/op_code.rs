//! Opcodes of requests and the modes of creation. No I/O.

macro_rules! op_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What a request asks for (`ZooDefs.OpCode`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum OpCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl OpCode {
            /// The opcode with this number.
            pub fn from_code(code: i32) -> Option<OpCode> {
                match code {
                    $($code => Some(OpCode::$name),)*
                    _ => None,
                }
            }

            /// The operation's usual name.
            pub fn name(self) -> &'static str {
                match self {
                    $(OpCode::$name => $text,)*
                }
            }
        }
    };
}

op_codes! {
    /// Create a znode, answered with its path.
    Create = 1, "create";
    /// Delete a znode.
    Delete = 2, "delete";
    /// Whether a znode exists.
    Exists = 3, "exists";
    /// A znode's data.
    GetData = 4, "getData";
    /// Replace a znode's data.
    SetData = 5, "setData";
    /// A znode's ACL.
    GetAcl = 6, "getACL";
    /// Replace a znode's ACL.
    SetAcl = 7, "setACL";
    /// The names of a znode's children.
    GetChildren = 8, "getChildren";
    /// Catch up with the leader.
    Sync = 9, "sync";
    /// Keep the session alive.
    Ping = 11, "ping";
    /// The names of a znode's children, and its stat.
    GetChildren2 = 12, "getChildren2";
    /// Check a version, inside a multi.
    Check = 13, "check";
    /// Several writes as one.
    Multi = 14, "multi";
    /// Create a znode, answered with path and stat.
    Create2 = 15, "create2";
    /// Change the ensemble.
    Reconfig = 16, "reconfig";
    /// Whether watches are set.
    CheckWatches = 17, "checkWatches";
    /// Remove watches.
    RemoveWatches = 18, "removeWatches";
    /// Create a container znode.
    CreateContainer = 19, "createContainer";
    /// Delete an empty container; only the leader itself may.
    DeleteContainer = 20, "deleteContainer";
    /// Create a znode with a time to live.
    CreateTtl = 21, "createTTL";
    /// Several reads as one.
    MultiRead = 22, "multiRead";
    /// Prove an identity.
    Auth = 100, "auth";
    /// Set watches again after a reconnection.
    SetWatches = 101, "setWatches";
    /// SASL.
    Sasl = 102, "sasl";
    /// The session's ephemeral znodes.
    GetEphemerals = 103, "getEphemerals";
    /// The number of a znode's descendants.
    GetAllChildrenNumber = 104, "getAllChildrenNumber";
    /// Set watches again after a reconnection, persistent ones too.
    SetWatches2 = 105, "setWatches2";
    /// Add a persistent watch.
    AddWatch = 106, "addWatch";
    /// The connection's identities.
    WhoAmI = 107, "whoAmI";
    /// Open a session; internal.
    CreateSession = -10, "createSession";
    /// Close the session.
    CloseSession = -11, "closeSession";
}

/// How a znode is created (`CreateMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CreateMode {
    /// Stays until it is deleted.
    #[default]
    Persistent,
    /// Goes with its session.
    Ephemeral,
    /// Persistent, with a counter appended to its name.
    PersistentSequential,
    /// Ephemeral, with a counter appended to its name.
    EphemeralSequential,
    /// Deleted by the service once its last child is gone.
    Container,
    /// Deleted by the service when childless and unmodified for its time to live.
    PersistentWithTtl,
    /// The same, with a counter appended to its name.
    PersistentSequentialWithTtl,
}

impl CreateMode {
    /// The number on the wire.
    pub fn flags(self) -> i32 {
        self as i32
    }

    /// The mode with this number on the wire.
    pub fn from_flags(flags: i32) -> Option<CreateMode> {
        use CreateMode::*;
        let modes = [
            Persistent,
            Ephemeral,
            PersistentSequential,
            EphemeralSequential,
            Container,
            PersistentWithTtl,
            PersistentSequentialWithTtl,
        ];
        modes.get(usize::try_from(flags).ok()?).copied()
    }

    /// Whether the znode goes with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }

    /// Whether a counter is appended to the name.
    pub fn is_sequential(self) -> bool {
        use CreateMode::*;
        matches!(self, PersistentSequential | EphemeralSequential | PersistentSequentialWithTtl)
    }

    /// Whether the request carries a time to live.
    pub fn has_ttl(self) -> bool {
        matches!(self, CreateMode::PersistentWithTtl | CreateMode::PersistentSequentialWithTtl)
    }
}
