//! Numbered values of every document of a segment, and how they are counted.

use std::ops;

use fixedbitset::FixedBitSet;

use super::sets::{select, select_by};

/// The number of having no value.
pub(crate) const NONE: u32 = 0;

/// The numbers of every document, those of one behind those of another.
#[derive(Debug)]
enum Flat {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Flat {
    fn of(numbers: Vec<u32>) -> Self {
        match numbers.iter().map(|number| u16::try_from(*number)).collect() {
            Ok(narrow) => Self::Narrow(narrow),
            Err(_) => Self::Wide(numbers),
        }
    }
}

/// Numbered values of every document, to be counted.
#[derive(Debug)]
pub(crate) struct Counted {
    flat: Flat,
    /// Where a document's numbers begin, and after the last, where they end; without it, each has one, which may be
    /// [`NONE`].
    starts: Option<Vec<u32>>,
    /// How often each number is there.
    totals: Vec<u64>,
}

impl Counted {
    pub(crate) fn single(numbers: Vec<u32>) -> Self {
        Self::new(numbers, None)
    }

    pub(super) fn new(numbers: Vec<u32>, starts: Option<Vec<u32>>) -> Self {
        let mut totals = Vec::new();
        for number in &numbers {
            let at = *number as usize;
            if totals.len() <= at {
                totals.resize(at + 1, 0);
            }
            totals[at] += 1;
        }
        Self { flat: Flat::of(numbers), starts, totals }
    }

    /// Those of some documents that have one of the chosen numbers.
    pub(crate) fn select(&self, docs: &FixedBitSet, chosen: &[bool]) -> FixedBitSet {
        let is_chosen = |number: usize| chosen.get(number).copied().unwrap_or(false);
        let mut numbers = (0..).zip(chosen).filter(|(_, is_chosen)| **is_chosen).map(|(number, _)| number);
        let only = numbers.next().filter(|_| numbers.next().is_none());
        match (&self.flat, &self.starts, only) {
            (Flat::Narrow(numbers), None, Some(only)) => select_by(docs, numbers, |number| u32::from(number) == only),
            (Flat::Wide(numbers), None, Some(only)) => select_by(docs, numbers, |number| number == only),
            (Flat::Narrow(numbers), None, None) => select_by(docs, numbers, |number| is_chosen(usize::from(number))),
            (Flat::Wide(numbers), None, None) => select_by(docs, numbers, |number| is_chosen(number as usize)),
            (Flat::Narrow(numbers), Some(starts), _) => {
                select(docs, |doc| numbers[several(starts, doc)].iter().any(|number| is_chosen(usize::from(*number))))
            }
            (Flat::Wide(numbers), Some(starts), _) => {
                select(docs, |doc| numbers[several(starts, doc)].iter().any(|number| is_chosen(*number as usize)))
            }
        }
    }

    /// Add the numbers of some documents to `counts`.
    pub(crate) fn count(&self, part: &Part<'_>, counts: &mut Vec<u64>) {
        if counts.len() < self.totals.len() {
            counts.resize(self.totals.len(), 0);
        }
        match part {
            Part::These(docs) => self.each(docs.ones(), |number| counts[number] += 1),
            Part::AllBut(docs) => {
                for (count, total) in counts.iter_mut().zip(&self.totals) {
                    *count += total;
                }
                self.each(docs.ones(), |number| counts[number] -= 1);
            }
        }
    }

    /// A document's first number.
    pub(crate) fn first(&self, doc: usize) -> u32 {
        let mut own = self.starts.as_ref().map_or(doc..doc + 1, |starts| several(starts, doc));
        own.next().map_or(NONE, |at| match &self.flat {
            Flat::Narrow(numbers) => u32::from(numbers[at]),
            Flat::Wide(numbers) => numbers[at],
        })
    }

    fn each(&self, docs: impl Iterator<Item = usize>, mut take: impl FnMut(usize)) {
        match (&self.flat, &self.starts) {
            (Flat::Narrow(numbers), None) => docs.for_each(|doc| take(usize::from(numbers[doc]))),
            (Flat::Wide(numbers), None) => docs.for_each(|doc| take(numbers[doc] as usize)),
            (Flat::Narrow(numbers), Some(starts)) => {
                docs.flat_map(|doc| &numbers[several(starts, doc)]).for_each(|number| take(usize::from(*number)));
            }
            (Flat::Wide(numbers), Some(starts)) => {
                docs.flat_map(|doc| &numbers[several(starts, doc)]).for_each(|number| take(*number as usize));
            }
        }
    }
}

/// Where the numbers of a document are.
fn several(starts: &[u32], doc: usize) -> ops::Range<usize> {
    starts[doc] as usize..starts[doc + 1] as usize
}

/// Some of a segment's documents, to be counted: what is most of them is counted by what it is not.
pub(crate) enum Part<'a> {
    These(&'a FixedBitSet),
    AllBut(FixedBitSet),
}

impl<'a> Part<'a> {
    pub(crate) fn new(docs: &'a FixedBitSet, all: &FixedBitSet) -> Self {
        if docs.count_ones(..) * 2 <= all.count_ones(..) {
            return Self::These(docs);
        }
        let mut others = all.clone();
        others.difference_with(docs);
        Self::AllBut(others)
    }
}
