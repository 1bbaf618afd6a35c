//! Sets of a segment's documents, a bit each.

use fixedbitset::FixedBitSet;
use rayon::prelude::*;
use tantivy::{BitSet, DocId};

/// Documents that a word of a set is about.
const BLOCK: usize = usize::BITS as usize;
/// Documents of a segment from which on it is worth the while to work on it on all cores.
pub(crate) const MANY: usize = if cfg!(test) { 1 << 12 } else { 1 << 17 };

pub(super) fn bits(docs: usize, set: impl Iterator<Item = DocId>) -> FixedBitSet {
    let mut bits = FixedBitSet::with_capacity(docs);
    set.for_each(|doc| bits.insert(doc as usize));
    bits
}

/// Those of some documents that pass a test.
pub(crate) fn select(docs: &FixedBitSet, test: impl Fn(usize) -> bool + Sync) -> FixedBitSet {
    of_blocks(docs, |at, block| tested(block, at, &test))
}

/// Those of some documents whose value passes a test that costs nothing.
pub(crate) fn select_by<T: Copy + Sync>(
    docs: &FixedBitSet,
    values: &[T],
    test: impl Fn(T) -> bool + Sync,
) -> FixedBitSet {
    of_blocks(docs, |at, block| {
        if block == 0 {
            return 0;
        }
        let from = at * BLOCK;
        let values = &values[from..values.len().min(from + BLOCK)];
        // First all tests, then all bits: so the machine does many at once.
        let passed = match <[T; BLOCK]>::try_from(values) {
            Ok(values) => values.map(|value| u8::from(test(value))),
            Err(_) => {
                let mut passed = [0; BLOCK];
                passed.iter_mut().zip(values).for_each(|(passed, value)| *passed = u8::from(test(*value)));
                passed
            }
        };
        bits_of(passed) & block
    })
}

/// Those of some documents that pass a test. Of all documents of a block from one on, it is told at once which surely do,
/// and which may: only these are tested.
pub(crate) fn select_told(
    docs: &FixedBitSet,
    told: impl Fn(usize) -> [[u8; BLOCK]; 2] + Sync,
    test: impl Fn(usize) -> bool + Sync,
) -> FixedBitSet {
    of_blocks(docs, |at, block| {
        if block == 0 {
            return 0;
        }
        let [surely, maybe] = told(at * BLOCK).map(bits_of);
        block & surely | tested(block & maybe & !surely, at, &test)
    })
}

/// Those of a block's documents that pass a test.
fn tested(block: usize, at: usize, test: impl Fn(usize) -> bool) -> usize {
    let (mut left, mut selected) = (block, 0);
    while left != 0 {
        let bit = left.trailing_zeros();
        selected |= usize::from(test(at * BLOCK + bit as usize)) << bit;
        left &= left - 1;
    }
    selected
}

/// A set made of another block by block; of a large one on all cores.
fn of_blocks(docs: &FixedBitSet, make: impl Fn(usize, usize) -> usize + Sync) -> FixedBitSet {
    let blocks = docs.as_slice();
    if docs.len() < MANY {
        return FixedBitSet::with_capacity_and_blocks(
            docs.len(),
            (0..).zip(blocks).map(|(at, block)| make(at, *block)),
        );
    }
    let made = blocks.par_iter().enumerate().with_min_len(MANY / BLOCK / 4).map(|(at, block)| make(at, *block));
    FixedBitSet::with_capacity_and_blocks(docs.len(), made.collect::<Vec<_>>())
}

/// A bit for each byte, which is 0 or 1.
fn bits_of(bytes: [u8; BLOCK]) -> usize {
    // The byte at `i` is moved to the bit at `56 + i`: no two of the products meet.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, _) = bytes.as_chunks::<8>();
    eights
        .iter()
        .rev()
        .fold(0, |bits, eight| bits << 8 | usize::from((u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) as u8))
}

/// The same set, word by word.
#[expect(clippy::cast_possible_truncation, reason = "a machine's word is half of it at least, and then every second")]
pub(crate) fn set_of(docs: usize, set: &BitSet) -> FixedBitSet {
    let buckets = 0..set.max_value().div_ceil(u64::BITS);
    let words = buckets.map(|bucket| u64::from_le_bytes(set.tinyset(bucket).into_bytes()));
    if usize::BITS == u64::BITS {
        FixedBitSet::with_capacity_and_blocks(docs, words.map(|word| word as usize))
    } else {
        FixedBitSet::with_capacity_and_blocks(docs, words.flat_map(|word| [word as usize, (word >> 32) as usize]))
    }
}
