//! Several sessions write without a pause while the replica is killed, or loses its power, again and
//! again: every acknowledged write is there afterwards, and of requests that were sent together a
//! prefix.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use znodefs::wire::Request;
use znodefs::wire::request::CreateRequest;
use znodefs::{Acl, CreateMode};
use znodefs_tests::deadline::pause;
use znodefs_tests::{Random, Server, WireClient, Znoded};

use crate::machine::Machine;
use crate::rounds;

const WRITERS: usize = 4;

/// Requests that a writer sends together.
const BATCH: usize = 16;

/// Kills or power cuts in one round.
const CRASHES: usize = 12;

/// A batch: the directory that its znodes are in, and how many of them were acknowledged.
struct Batch {
    directory: String,
    acknowledged: usize,
}

/// What all writers have done so far.
#[derive(Default)]
struct Record {
    batches: Mutex<Vec<Batch>>,
    is_over: AtomicBool,
}

/// Ends the writers, also when the test fails.
struct Over<'a>(&'a Record);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Record {
    /// Writes batches until it is over, through a new session whenever the connection is lost.
    fn write(&self, writer: usize, address: &str) {
        let mut number = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok(mut client) = WireClient::try_connect(address) else {
                pause(Duration::from_millis(5));
                continue;
            };
            loop {
                number += 1;
                let directory = format!("/writer-{writer}-{number}");
                let is_made = client.try_call(&create(&directory)).is_ok_and(|made| made.is_ok());
                let acknowledged = if is_made { send_batch(&mut client, &directory) } else { 0 };
                if is_made {
                    let mut batches = self.batches.lock().expect("no panic in between");
                    batches.push(Batch { directory, acknowledged });
                }
                if acknowledged < BATCH || self.is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    }

    /// Looks up what was acknowledged before `until`.
    ///
    /// # Panics
    /// If something is missing, or if a request took effect and one sent before it did not.
    fn assert_is_there(&self, until: usize, client: &mut WireClient) {
        for batch in &self.batches.lock().expect("no panic in between")[..until] {
            let there = client.children(&batch.directory);
            let expected: Vec<String> = (0..there.len()).map(name).collect();
            assert_eq!(there, expected, "{}: not the first ones", batch.directory);
            let (directory, acknowledged) = (&batch.directory, batch.acknowledged);
            assert!(there.len() >= acknowledged, "{directory}: {acknowledged} were acknowledged");
        }
    }

    fn len(&self) -> usize {
        self.batches.lock().expect("no panic in between").len()
    }
}

fn name(number: usize) -> String {
    format!("{number:02}")
}

fn create(path: &str) -> Request<'_> {
    let data = Some(Bytes::from_static(b"value"));
    Request::Create(CreateRequest::new(path, data, Acl::open(), CreateMode::Persistent, 0))
}

/// Sends a batch at once and counts the answers until the connection ends.
fn send_batch(client: &mut WireClient, directory: &str) -> usize {
    let paths: Vec<String> =
        (0..BATCH).map(|number| format!("{directory}/{}", name(number))).collect();
    let requests: Vec<Request<'_>> = paths.iter().map(|path| create(path)).collect();
    if client.send(&requests.iter().collect::<Vec<_>>()).is_err() {
        return 0;
    }
    let answered = requests
        .iter()
        .take_while(|request| client.receive(request).is_ok_and(|answer| answer.is_ok()));
    answered.count()
}

/// Lets writers write while `crash` ends the replica and starts it again, a number of times.
fn survives(address: &str, mut crash: impl FnMut()) {
    let record = Record::default();
    std::thread::scope(|scope| {
        let over = Over(&record);
        for writer in 0..WRITERS {
            let record = &record;
            scope.spawn(move || record.write(writer, address));
        }
        for _ in 0..CRASHES {
            let before = record.len();
            crash();
            record.assert_is_there(before, &mut WireClient::connect(address));
        }
        drop(over);
    });
    record.assert_is_there(record.len(), &mut WireClient::connect(address));
    eprintln!("{} batches", record.len());
    assert!(record.len() > CRASHES, "hardly anything was written");
}

#[test]
fn acknowledged_writes_survive_kills_of_the_replica() {
    let mut random = Random::announced();
    for _ in 0..rounds() {
        let mut server = Znoded::start();
        let address = server.address();
        survives(&address, || {
            pause(Duration::from_micros(random.between(1_000, 300_000)));
            server.start_again();
        });
    }
}

#[test]
fn acknowledged_writes_survive_power_cuts_of_the_replica() {
    let mut random = Random::announced();
    for _ in 0..rounds() * 4 {
        let mut machine = Machine::new(random.next_u64());
        let address = machine.address();
        survives(&address, || {
            machine.cut_power(random.between(0, 400), || false);
            machine.restart();
        });
    }
}
