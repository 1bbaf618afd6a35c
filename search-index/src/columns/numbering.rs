//! One number for a value in all segments of an index.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use crate::{
    columns::counted::{Counted, NONE},
    query::{Facet, Range},
};

/// Things by number, from 1.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    numbers: HashMap<K, u32>,
    things: Vec<K>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash> Numbers<K> {
    /// A thing's number; a new one for a thing that had none.
    fn number(&mut self, thing: K) -> u32 {
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.things.push(thing.clone());
            u32::try_from(self.things.len()).unwrap_or(u32::MAX)
        })
    }

    /// Everything that was counted, in the order of its numbers.
    pub(crate) fn counted<'a>(&'a self, counts: &'a [u64]) -> impl Iterator<Item = (&'a K, u64)> {
        self.things.iter().zip(counts.iter().skip(1).copied()).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn thing(&self, number: u32) -> Option<&K> {
        self.things.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

/// The numbers of all values that segments of one index have had.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    facets: [Numbers<String>; Facet::STORED.len()],
    /// Values in small letters, with the numbers of those that are written so.
    small: [HashMap<String, Vec<u32>>; Facet::STORED.len()],
    /// Make, model and trim together, each by its number.
    pub(crate) names: Numbers<[u32; 3]>,
    /// The finest buckets.
    pub(super) buckets: [Numbers<i64>; Range::ALL.len()],
}

impl Numbering {
    pub(super) fn value(&mut self, at: usize, value: &str) -> u32 {
        if let Some(number) = self.facets[at].numbers.get(value) {
            return *number;
        }
        let number = self.facets[at].number(value.to_owned());
        self.small[at].entry(value.to_lowercase()).or_default().push(number);
        number
    }

    /// Which numbers a facet's values have, however they are written; by number.
    pub(crate) fn chosen(&self, facet: Facet, values: &[String]) -> Vec<bool> {
        let at = place_of(facet);
        let mut chosen = vec![false; self.facets[at].things.len() + 1];
        for number in values.iter().filter_map(|value| self.small[at].get(&value.to_lowercase())).flatten() {
            chosen[*number as usize] = true;
        }
        chosen
    }

    pub(crate) const fn values(&self, facet: Facet) -> &Numbers<String> {
        &self.facets[place_of(facet)]
    }

    pub(crate) const fn buckets(&self, range: Range) -> &Numbers<i64> {
        &self.buckets[range as usize]
    }
}

/// Where a stored facet is among them: they come first.
pub(super) const fn place_of(facet: Facet) -> usize {
    facet as usize
}

/// Number the things of a segment. Searches wait only while those that are new get their numbers.
pub(super) fn numbered<K: Clone + Eq + Hash>(
    things: impl Iterator<Item = Option<K>>,
    numbering: &RwLock<Numbering>,
    of: impl FnOnce(&mut Numbering) -> &mut Numbers<K>,
) -> Counted {
    let mut own = Numbers::default();
    let things: Vec<u32> = things.map(|thing| thing.map_or(NONE, |thing| own.number(thing))).collect();
    let mut all = write(numbering);
    let all = of(&mut all);
    let numbers: Vec<u32> = own.things.into_iter().map(|thing| all.number(thing)).collect();
    let number = |own: u32| (own as usize).checked_sub(1).map_or(NONE, |own| numbers[own]);
    Counted::single(things.into_iter().map(number).collect())
}

pub(super) fn write(numbering: &RwLock<Numbering>) -> RwLockWriteGuard<'_, Numbering> {
    numbering.write().unwrap_or_else(PoisonError::into_inner)
}
