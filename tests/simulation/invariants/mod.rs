//! What must hold after every step, whatever fails: one file a property, named as in ZooKeeper's own
//! TLA+ specification (`Zab.tla`) where it has it. The checks are told what happens and keep what
//! they need; each costs little enough to run at every step.

mod clients;
mod durability;
mod history;
mod leadership;
mod total_order;

use znodefs::Zxid;
use znodefs_server::zab::Ensemble;

pub use clients::Clients;
pub use durability::{check_ack, check_epochs, check_new_leader_ack, check_quorum, check_recovery};
pub use history::History;
pub use leadership::{Leadership, check_adopted};
pub use total_order::TotalOrder;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// How.
    pub detail: String,
}

/// The outcome of a check.
pub type Check = Result<(), Violation>;

/// A violation, with its text.
pub fn violation(invariant: &'static str, detail: String) -> Check {
    Err(Violation { invariant, detail })
}

/// All that the checks keep.
pub struct Invariants {
    /// Proposed transactions and what came before each.
    pub history: History,
    /// The one order in which transactions were delivered.
    pub total_order: TotalOrder,
    /// Who led when.
    pub leadership: Leadership,
    /// What clients were told.
    pub clients: Clients,
    /// The last reconfiguration that was delivered anywhere.
    pub configuration: Option<Ensemble>,
}

impl Invariants {
    /// Before anything has happened.
    pub fn new() -> Invariants {
        Invariants {
            history: History::new(),
            total_order: TotalOrder::new(),
            leadership: Leadership::new(),
            clients: Clients::new(),
            configuration: None,
        }
    }
}

/// A table by zxid: epochs are few, counters consecutive.
pub struct ByZxid<T> {
    epochs: Vec<Vec<T>>,
}

impl<T> ByZxid<T> {
    /// An empty table.
    pub fn new() -> ByZxid<T> {
        ByZxid { epochs: Vec::new() }
    }

    /// What is known of this zxid.
    pub fn get(&self, zxid: Zxid) -> Option<&T> {
        let counter = zxid.counter().checked_sub(1)?;
        self.epochs.get(zxid.epoch().0 as usize)?.get(counter as usize)
    }

    /// Adds the next zxid of its epoch; false when it is not the next.
    pub fn push(&mut self, zxid: Zxid, value: T) -> bool {
        let epoch = zxid.epoch().0 as usize;
        while self.epochs.len() <= epoch {
            self.epochs.push(Vec::new());
        }
        if zxid.counter() as usize != self.epochs[epoch].len() + 1 {
            return false;
        }
        self.epochs[epoch].push(value);
        true
    }
}
