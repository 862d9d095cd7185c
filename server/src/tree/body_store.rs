//! Where names and data lie: pieces of a few sizes, cut from large chunks. No I/O.
//!
//! A million small allocations cost 16 to 24 bytes each in the allocator's own records and rounding,
//! and an 8-byte pointer to find them; a slot here costs its rounding to 8 bytes and a 4-byte number.
//! Long bodies have allocations of their own.

/// Sizes of slots are multiples of this many bytes.
const STEP: usize = 8;
/// Longer bodies are allocated one by one.
const SLOT_LENGTH_MAX: usize = 1024;
const CHUNK_BITS: u32 = 8;
const SLOTS_PER_CHUNK: usize = 1 << CHUNK_BITS;
const NONE: u32 = u32::MAX;

/// A body's place; it takes the body's length to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// Slots of one size.
#[derive(Debug)]
struct SizeClass {
    chunks: Vec<Box<[u8]>>,
    /// Slots handed out so far, free ones included.
    length: u32,
    /// First of the list of free slots; each holds the number of the next in its first bytes.
    free: u32,
    in_use: u32,
}

/// All bodies.
#[derive(Debug, Default)]
pub(super) struct BodyStore {
    classes: Vec<SizeClass>,
    long: Vec<Box<[u8]>>,
    free_long: Vec<u32>,
}

/// Where a slot is: its chunk and its first byte there.
fn place(slot: Slot, slot_length: usize) -> (usize, usize) {
    let chunk = (slot.0 >> CHUNK_BITS) as usize;
    (chunk, slot.0 as usize % SLOTS_PER_CHUNK * slot_length)
}

fn class_of(length: usize) -> usize {
    length.div_ceil(STEP)
}

impl SizeClass {
    fn new() -> SizeClass {
        SizeClass { chunks: Vec::new(), length: 0, free: NONE, in_use: 0 }
    }

    fn take(&mut self, slot_length: usize) -> Slot {
        self.in_use += 1;
        if self.free != NONE {
            let slot = Slot(self.free);
            let (chunk, start) = place(slot, slot_length);
            // A slot is never shorter than the number of the next one.
            let next = self.chunks[chunk][start..].first_chunk().copied();
            self.free = next.map_or(NONE, u32::from_ne_bytes);
            return slot;
        }
        let slot = Slot(self.length);
        self.length += 1;
        if place(slot, slot_length).0 == self.chunks.len() {
            self.chunks.push(vec![0; SLOTS_PER_CHUNK * slot_length].into_boxed_slice());
        }
        slot
    }

    fn give_back(&mut self, slot: Slot, slot_length: usize) {
        self.in_use -= 1;
        if self.in_use == 0 {
            *self = SizeClass::new();
            return;
        }
        let (chunk, start) = place(slot, slot_length);
        self.chunks[chunk][start..start + 4].copy_from_slice(&self.free.to_ne_bytes());
        self.free = slot.0;
    }
}

impl BodyStore {
    /// Stores a body of two parts.
    pub fn insert(&mut self, first: &[u8], second: &[u8]) -> Slot {
        let length = first.len() + second.len();
        if length > SLOT_LENGTH_MAX {
            let body = [first, second].concat().into_boxed_slice();
            return self.insert_long(body);
        }
        let class = class_of(length);
        if class == 0 {
            return Slot(0);
        }
        while self.classes.len() <= class {
            self.classes.push(SizeClass::new());
        }
        let slot_length = class * STEP;
        let slot = self.classes[class].take(slot_length);
        let (chunk, start) = place(slot, slot_length);
        let body = &mut self.classes[class].chunks[chunk][start..start + length];
        let (front, back) = body.split_at_mut(first.len());
        front.copy_from_slice(first);
        back.copy_from_slice(second);
        slot
    }

    fn insert_long(&mut self, body: Box<[u8]>) -> Slot {
        if let Some(number) = self.free_long.pop() {
            self.long[number as usize] = body;
            return Slot(number);
        }
        self.long.push(body);
        Slot(self.long.len() as u32 - 1)
    }

    /// The body of `length` bytes at `slot`.
    pub fn get(&self, slot: Slot, length: usize) -> &[u8] {
        if length > SLOT_LENGTH_MAX {
            return &self.long[slot.0 as usize];
        }
        let class = class_of(length);
        if class == 0 {
            return &[];
        }
        let (chunk, start) = place(slot, class * STEP);
        &self.classes[class].chunks[chunk][start..start + length]
    }

    /// The same, for changing its bytes.
    pub fn get_mut(&mut self, slot: Slot, length: usize) -> &mut [u8] {
        if length > SLOT_LENGTH_MAX {
            return &mut self.long[slot.0 as usize];
        }
        let class = class_of(length);
        if class == 0 {
            return &mut [];
        }
        let (chunk, start) = place(slot, class * STEP);
        &mut self.classes[class].chunks[chunk][start..start + length]
    }

    /// Takes a body's slot back.
    pub fn remove(&mut self, slot: Slot, length: usize) {
        if length > SLOT_LENGTH_MAX {
            self.long[slot.0 as usize] = Box::default();
            self.free_long.push(slot.0);
            return;
        }
        let class = class_of(length);
        if class > 0 {
            self.classes[class].give_back(slot, class * STEP);
        }
    }

    /// Whether two lengths share a slot, so that a body can be changed where it lies.
    pub fn share_slot(one: usize, other: usize) -> bool {
        let short = one <= SLOT_LENGTH_MAX && other <= SLOT_LENGTH_MAX;
        one == other || (short && class_of(one) == class_of(other))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bodies_stay_what_they_are_while_others_come_and_go(
            steps in prop::collection::vec((any::<bool>(), 0..40_usize, 0..1100_usize), 1..400),
        ) {
            let mut store = BodyStore::default();
            let mut kept: BTreeMap<usize, (Slot, Vec<u8>)> = BTreeMap::new();
            for (place, (keep, key, length)) in steps.into_iter().enumerate() {
                if let Some((slot, body)) = kept.remove(&key) {
                    store.remove(slot, body.len());
                }
                if keep {
                    // Lengths close together, so that slots are used again.
                    let length = if length > 900 { length } else { length % 24 };
                    let body = vec![place as u8; length];
                    let (first, second) = body.split_at(length / 3);
                    kept.insert(key, (store.insert(first, second), body));
                }
                for (slot, body) in kept.values() {
                    prop_assert_eq!(store.get(*slot, body.len()), &body[..]);
                }
            }
        }
    }

    #[test]
    fn a_size_that_nobody_uses_any_more_gives_its_memory_back() {
        let mut store = BodyStore::default();
        let slots: Vec<Slot> = (0..1000).map(|_| store.insert(b"name", b"data")).collect();
        for slot in slots {
            store.remove(slot, 8);
        }
        assert!(store.classes.iter().all(|class| class.chunks.is_empty()));
    }
}
