//! A vector that grows by chunks, so that growing neither copies what is there nor reserves twice as
//! much. No I/O.

use std::ops::{Index, IndexMut};

const CHUNK_BITS: u32 = 10;
const CHUNK_LENGTH: usize = 1 << CHUNK_BITS;

/// The vector; places are counted in 32 bits.
#[derive(Debug)]
pub(super) struct ChunkedVec<T> {
    chunks: Vec<Vec<T>>,
    length: u32,
}

impl<T> Default for ChunkedVec<T> {
    fn default() -> Self {
        ChunkedVec { chunks: Vec::new(), length: 0 }
    }
}

fn split(place: u32) -> (usize, usize) {
    ((place >> CHUNK_BITS) as usize, place as usize % CHUNK_LENGTH)
}

impl<T> ChunkedVec<T> {
    pub fn length(&self) -> u32 {
        self.length
    }

    pub fn get(&self, place: u32) -> Option<&T> {
        let (chunk, place) = split(place);
        self.chunks.get(chunk)?.get(place)
    }

    /// Adds an element; its place.
    ///
    /// # Panics
    ///
    /// With 2^32 - 1 elements, whose numbers are all taken.
    pub fn push(&mut self, element: T) -> u32 {
        let place = self.length;
        assert!(place != u32::MAX, "all 2^32 - 1 numbers are taken");
        if place as usize == self.chunks.len() * CHUNK_LENGTH {
            self.chunks.push(Vec::with_capacity(CHUNK_LENGTH));
        }
        // The chunk was pushed when its first place was handed out.
        self.chunks[split(place).0].push(element);
        self.length += 1;
        place
    }
}

impl<T> Index<u32> for ChunkedVec<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        let (chunk, place) = split(place);
        &self.chunks[chunk][place]
    }
}

impl<T> IndexMut<u32> for ChunkedVec<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        let (chunk, place) = split(place);
        &mut self.chunks[chunk][place]
    }
}
