//! What happens when in a run. Time moves from one event to the next; those of the same microsecond
//! come in the order in which they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Everything that is planned, and the present.
pub struct Agenda<T> {
    now: u64,
    /// When, its number in the order of planning, and its place among the planned.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    planned: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Agenda<T> {
    /// Nothing is planned at the beginning of time.
    pub fn new() -> Agenda<T> {
        Agenda {
            now: 0,
            queue: BinaryHeap::new(),
            planned: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }

    /// The present, in microseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Plans something; what would be in the past is done now.
    pub fn schedule(&mut self, at: u64, happening: T) {
        let place = match self.free.pop() {
            Some(place) => {
                self.planned[place] = Some(happening);
                place
            }
            None => {
                self.planned.push(Some(happening));
                self.planned.len() - 1
            }
        };
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence, place)));
    }

    /// Plans something after a delay.
    pub fn schedule_in(&mut self, delay: u64, happening: T) {
        self.schedule(self.now + delay, happening);
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next thing, at its time.
    pub fn pop(&mut self) -> Option<T> {
        let Reverse((at, _, place)) = self.queue.pop()?;
        self.now = at;
        self.free.push(place);
        self.planned[place].take()
    }

    /// Lets time pass in which nothing happens.
    pub fn wait_until(&mut self, time: u64) {
        self.now = time;
    }
}
