//! Sessions: each begins once; none ends by its timeout that was heard within it, barring
//! disturbances; none comes back.

use std::collections::BTreeMap;

use znodefs::{SessionId, Zxid};
use znodefs_server::txn::{Txn, TxnBody};

use crate::invariants::{Check, violation};

/// How long a touch may take to the leader, in ticks, and in microseconds of network.
const TOUCH_TICKS: u64 = 2;
const TOUCH_US: u64 = 600_000;
/// How much faster than others a clock may be, in per mille, both counted.
const DRIFT_PER_MILLE: u64 = 45;

/// One session's life.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub closed: Option<Zxid>,
    /// By the request processor, in milliseconds.
    pub timeout_ms: u64,
    /// When a member that serves last heard of it, newest last, in microseconds.
    touches: Vec<u64>,
}

/// All sessions there ever were.
pub struct Sessions {
    lives: BTreeMap<SessionId, Life>,
    touches: BTreeMap<SessionId, Vec<u64>>,
    pub tick_us: u64,
    /// How many ended by their timeout.
    pub expired: u64,
    /// How often an expiry could be judged.
    pub judged: u64,
}

impl Sessions {
    /// None.
    pub fn new() -> Sessions {
        Sessions {
            lives: BTreeMap::new(),
            touches: BTreeMap::new(),
            tick_us: 0,
            expired: 0,
            judged: 0,
        }
    }

    /// A session's life.
    pub fn life(&self, session_id: SessionId) -> Option<&Life> {
        self.lives.get(&session_id)
    }

    /// A member that serves has heard of a session.
    pub fn touched(&mut self, session_id: SessionId, now: u64) {
        if session_id == SessionId(0) {
            return;
        }
        let touches = self.touches.entry(session_id).or_default();
        if touches.len() > 64 {
            touches.drain(..32);
        }
        touches.push(now);
    }

    /// A client asks for its session with this timeout, which it has from then on or a little later,
    /// whether or not the client hears of it.
    pub fn asked(&mut self, session_id: SessionId, timeout_ms: u64) {
        if let Some(life) = self.lives.get_mut(&session_id) {
            life.timeout_ms = life.timeout_ms.min(timeout_ms);
        }
    }

    /// A client has heard which timeout its session has.
    pub fn negotiated(&mut self, session_id: SessionId, timeout_ms: u64) {
        if let Some(life) = self.lives.get_mut(&session_id) {
            life.timeout_ms = timeout_ms;
        }
    }

    /// A transaction is committed, that was first logged at `proposed_us`.
    pub fn committed(
        &mut self,
        txn: &Txn,
        proposed_us: u64,
        _now: u64,
        disturbed_us: u64,
    ) -> Check {
        match &txn.body {
            TxnBody::CreateSession { timeout_ms } => {
                let life = Life { timeout_ms: (*timeout_ms).max(0) as u64, ..Life::default() };
                if self.lives.insert(txn.session_id, life).is_some() {
                    let detail = format!("{} begins again at {}", txn.session_id, txn.zxid);
                    return violation("a session begins once", detail);
                }
                Ok(())
            }
            TxnBody::CloseSession { .. } => {
                let touches = self.touches.remove(&txn.session_id).unwrap_or_default();
                let Some(life) = self.lives.get_mut(&txn.session_id) else {
                    let detail = format!("{} ends and never began", txn.session_id);
                    return violation("what ends has begun", detail);
                };
                if life.closed.is_some() {
                    // Its client's own goodbye met its expiry, or the other way round.
                    return Ok(());
                }
                life.closed = Some(txn.zxid);
                life.touches = touches;
                if txn.xid != 0 {
                    return Ok(());
                }
                self.expired += 1;
                self.check_expiry(txn, proposed_us, disturbed_us)
            }
            _ => Ok(()),
        }
    }

    fn check_expiry(&mut self, txn: &Txn, at: u64, disturbed_us: u64) -> Check {
        let Some(life) = self.lives.get(&txn.session_id) else { return Ok(()) };
        let timeout_us = life.timeout_ms * 1_000;
        let delay_us = TOUCH_TICKS * self.tick_us + TOUCH_US;
        let quiet_us = timeout_us + 2 * delay_us;
        if disturbed_us + quiet_us > at {
            return Ok(());
        }
        self.judged += 1;
        let from = at - timeout_us + timeout_us * DRIFT_PER_MILLE / 1_000 + 2_000;
        let to = at.saturating_sub(delay_us);
        match life.touches.iter().find(|touch| (from..to).contains(touch)) {
            None => Ok(()),
            Some(touch) => violation(
                "a session that is heard lives on",
                format!(
                    "{} expires {} ms after it was heard; its timeout is {} ms",
                    txn.session_id,
                    (at - touch) / 1_000,
                    life.timeout_ms
                ),
            ),
        }
    }
}
