//! Records that refer to each other by number. No I/O.

/// No record.
pub(super) const NONE: u32 = u32::MAX;

/// Records by number; numbers of records that are gone are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    records: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub fn new() -> Slab<T> {
        Slab { records: Vec::new(), free: Vec::new() }
    }

    pub fn insert(&mut self, record: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.records[number as usize] = Some(record);
            return number;
        }
        self.records.push(Some(record));
        self.records.len() as u32 - 1
    }

    pub fn remove(&mut self, number: u32) {
        self.records[number as usize] = None;
        self.free.push(number);
    }

    pub fn is_empty(&self) -> bool {
        self.records.len() == self.free.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.records.iter().flatten()
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        // Links only ever hold numbers of records that are there.
        self.records[number as usize].as_ref().expect("a link to a record that is gone")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.records[number as usize].as_mut().expect("a link to a record that is gone")
    }
}
