//! Random clients of the service in memory: what it does right is never blamed, and each of its faults
//! is found.

use bytes::Bytes;

use super::service::{Fault, Service};
use crate::Random;
use crate::history::{Call, ClientId, History, OperationId, Outcome, Report, Value, Write};

const REPLICAS: usize = 3;
const STEPS: usize = 400;

/// Steps that make a history of 10,000 requests.
const MANY_STEPS: usize = 40_000;

struct Run {
    service: Service,
    random: Random,
    values: usize,
    /// Writes whose client has given up, still on their way.
    adrift: Vec<(ClientId, Call)>,
    /// Requests in flight.
    waiting: Vec<(OperationId, ClientId, Call)>,
}

impl Run {
    fn value(&mut self) -> Value {
        self.values += 1;
        // Some are alike, and some are null.
        match self.random.between(0, 20) {
            0 => None,
            1 => Some(Bytes::from_static(b"alike")),
            _ => Some(Bytes::from(format!("value {}", self.values))),
        }
    }

    fn path(&mut self) -> String {
        let name = self.random.between(0, 4);
        match self.random.between(0, 3) {
            0 => format!("/{name}"),
            _ => format!("/{name}/{}", self.random.between(0, 3)),
        }
    }

    fn version(&mut self) -> i32 {
        self.random.between(0, 6) as i32 - 1
    }

    fn write(&mut self) -> Write {
        let (path, version, data) = (self.path(), self.version(), self.value());
        match self.random.between(0, 8) {
            0..3 => {
                let ephemeral = self.random.between(0, 3) == 0 && path.len() > 2;
                let sequential = self.random.between(0, 4) == 0 && path.len() > 2;
                Write::Create { path, data, ephemeral, sequential }
            }
            3..6 => Write::SetData { path, data, version },
            6 => Write::Delete { path, version: -1 },
            _ => Write::Check { path, version },
        }
    }

    fn call(&mut self) -> Call {
        let watch = self.random.between(0, 2) == 0;
        match self.random.between(0, 12) {
            0..5 => {
                let write = match self.write() {
                    Write::Check { path, .. } => Write::Delete { path, version: -1 },
                    other => other,
                };
                Call::Write { writes: vec![write], multi: false }
            }
            5 => {
                let count = self.random.between(1, 4);
                let writes = (0..count).map(|_| self.write()).collect();
                Call::Write { writes, multi: true }
            }
            6..8 => Call::GetData { path: self.path(), watch },
            8 => Call::Exists { path: self.path(), watch },
            9..11 => Call::GetChildren { path: self.path(), watch },
            _ => Call::Sync,
        }
    }

    fn answer(&mut self, operation: OperationId, client: ClientId, call: &Call) {
        if !self.service.clients().contains(&client) {
            return;
        }
        let outcome = match call.is_write() {
            true => self.service.take(client, call),
            false => self.service.read(client, call),
        };
        self.service.reply(operation, outcome);
    }

    fn step(&mut self) {
        let replica = self.random.between(0, REPLICAS as u64) as usize;
        match self.random.between(0, 40) {
            0 => {
                self.service.open(replica);
            }
            1..8 => {
                let count = self.random.between(1, 4) as usize;
                self.service.catch_up(replica, count);
            }
            8 => {
                if let Some((client, call)) = self.adrift.pop() {
                    self.service.take(client, &call);
                }
            }
            9 => self.service.drop_ephemeral(),
            10..14 => self.answer_oldest(),
            number => {
                let clients = self.service.clients();
                let Some(client) =
                    clients.get(self.random.between(0, clients.len().max(1) as u64) as usize)
                else {
                    return;
                };
                self.client_step(*client, replica, number);
            }
        }
    }

    fn answer_oldest(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (operation, client, call) = self.waiting.remove(0);
        self.answer(operation, client, &call);
    }

    /// Answers what the client has in flight, so that what follows finds nothing.
    fn settle(&mut self, client: ClientId) {
        let waiting = std::mem::take(&mut self.waiting);
        for (operation, of, call) in waiting {
            match of == client {
                true => self.answer(operation, of, &call),
                false => self.waiting.push((operation, of, call)),
            }
        }
    }

    fn client_step(&mut self, client: ClientId, replica: usize, number: u64) {
        match number {
            14 => {
                self.settle(client);
                self.drop_adrift(client);
                self.service.move_to(client, replica);
            }
            15 => {
                self.settle(client);
                self.drop_adrift(client);
                let operation = self.service.invoke(client, Call::Close);
                self.answer(operation, client, &Call::Close);
            }
            16 => {
                self.settle(client);
                self.drop_adrift(client);
                self.service.expire(client);
                self.service.must_be_over(client);
            }
            17 | 18 => self.lose(client, replica),
            19..24 => {
                let call = self.call();
                self.drop_adrift(client);
                let operation = self.service.invoke(client, call.clone());
                self.waiting.push((operation, client, call));
            }
            _ => {
                self.settle(client);
                let call = self.call();
                if call.is_write() {
                    self.drop_adrift(client);
                }
                let operation = self.service.invoke(client, call.clone());
                self.answer(operation, client, &call);
            }
        }
    }

    /// What the session's next write overtakes is never done by a service that keeps the order.
    fn drop_adrift(&mut self, client: ClientId) {
        let is_adrift = self.adrift.iter().any(|(of, _)| *of == client);
        if is_adrift && self.service.breaks(Fault::DoesLateAfterOthers) {
            return;
        }
        self.adrift.retain(|(of, _)| *of != client);
    }

    /// A write whose reply does not come: done before the connection broke, later, or never.
    fn lose(&mut self, client: ClientId, replica: usize) {
        self.settle(client);
        self.drop_adrift(client);
        let call = loop {
            let call = self.call();
            if call.is_write() {
                break call;
            }
        };
        let operation = self.service.invoke(client, call.clone());
        match self.random.between(0, 3) {
            0 => {
                self.service.take(client, &call);
            }
            1 if self.adrift.iter().all(|(of, _)| *of != client) => {
                self.adrift.push((client, call));
            }
            _ => {}
        }
        self.service.reply(operation, Outcome::Unknown);
        self.service.move_to(client, replica);
    }
}

fn run(seed: u64, fault: Option<Fault>) -> Report {
    record(seed, fault, STEPS).check()
}

fn record(seed: u64, fault: Option<Fault>, steps: usize) -> History {
    let (adrift, waiting) = Default::default();
    let mut run = Run {
        service: Service::new(REPLICAS),
        random: Random::from_seed(seed),
        values: 0,
        adrift,
        waiting,
    };
    for replica in 0..REPLICAS {
        run.service.open(replica);
    }
    let break_at = run.random.between(50, steps as u64 / 2) as usize;
    for step in 0..steps {
        if step == break_at
            && let Some(fault) = fault
        {
            run.service.break_next(fault);
        }
        run.step();
    }
    // At the end somebody looks at everything.
    let client = run.service.open(0);
    let mut calls = vec![Call::Sync];
    for name in 0..4 {
        let path = format!("/{name}");
        calls.push(Call::GetData { path: path.clone(), watch: false });
        calls.push(Call::GetChildren { path: path.clone(), watch: false });
        for child in 0..3 {
            calls.push(Call::GetData { path: format!("{path}/{child}"), watch: false });
        }
    }
    for call in calls {
        let operation = run.service.invoke(client, call.clone());
        run.answer(operation, client, &call);
    }
    run.service.history
}

#[test]
fn what_a_right_service_does_is_never_blamed() {
    let (mut unknown, mut recognised, mut events) = (0, 0, 0);
    for seed in 0..600 {
        let report = run(seed, None);
        assert!(
            report.violations.is_empty() && report.undecided.is_empty(),
            "seed {seed}: {report}"
        );
        unknown += report.unknown;
        recognised += report.recognised;
        events += report.events;
    }
    assert!(unknown > 400 && recognised > 100 && events > 400, "{unknown} {recognised} {events}");
}

#[test]
fn every_fault_of_a_service_is_found() {
    let mut missed = Vec::new();
    for fault in Fault::ALL {
        let is_found = |seed: &u64| !run(*seed, Some(fault)).violations.is_empty();
        let found: Vec<u64> = (0..300).filter(is_found).take(3).collect();
        println!("{fault:?}: found in the histories of the seeds {found:?}");
        if found.len() < 3 {
            missed.push(fault);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn a_history_of_ten_thousand_requests_is_judged() {
    let history = record(1, None, MANY_STEPS);
    assert!(history.len() >= 10_000, "{}", history.len());
    let report = history.check();
    assert!(report.violations.is_empty() && report.undecided.is_empty(), "{report}");
    // The same with a fault in the middle of it.
    let report = record(1, Some(Fault::LosesAcknowledged), MANY_STEPS).check();
    assert!(!report.violations.is_empty());
}
