//! The first of what was found, by a key and then by id.

use std::{cmp::Ordering, collections::BinaryHeap, io};

use tantivy::{DocAddress, DocId, SegmentOrdinal, columnar::TermOrdHit};

use crate::{columns::Columns, query::Cursor};

/// A hit with what decides its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) key: f64,
    pub(crate) listing_id: String,
    pub(crate) address: DocAddress,
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then_with(|| self.listing_id.cmp(&other.listing_id))
    }
}

#[derive(Debug, PartialEq)]
struct Candidate {
    key: f64,
    /// The listing id's ordinal: ids of a segment order like their ordinals.
    id: u32,
    doc: DocId,
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then(self.id.cmp(&other.id))
    }
}

/// The first of what is offered.
pub(super) struct Best<'a> {
    columns: &'a Columns,
    /// What comes after a cursor has a greater key, or the same and at least this id.
    after: Option<(f64, u64)>,
    most: usize,
    /// The last on top, to be dropped first.
    found: BinaryHeap<Candidate>,
}

impl<'a> Best<'a> {
    pub(super) fn new(columns: &'a Columns, after: Option<&Cursor>, most: usize) -> io::Result<Self> {
        let after = after.map(|cursor| {
            let Some(ids) = &columns.ids else { return Ok((cursor.key, 0)) };
            let next = match ids.dictionary().term_ord_or_next(&cursor.listing_id)? {
                TermOrdHit::Exact(id) => id + 1,
                TermOrdHit::Next(id) => id,
            };
            Ok::<_, io::Error>((cursor.key, next))
        });
        Ok(Self { columns, after: after.transpose()?, most, found: BinaryHeap::new() })
    }

    pub(super) fn offer(&mut self, doc: usize, key: f64) {
        let is_full = self.is_full();
        if is_full && self.found.peek().is_none_or(|last| key.total_cmp(&last.key) == Ordering::Greater) {
            return;
        }
        let id = self.columns.id_ords[doc];
        let Ok(doc) = DocId::try_from(doc) else { return };
        let candidate = Candidate { key, id, doc };
        // Of many with the same key, few are among the first.
        if is_full && self.found.peek().is_none_or(|last| candidate > *last) || !self.is_after(&candidate) {
            return;
        }
        self.found.push(candidate);
        if self.found.len() > self.most {
            self.found.pop();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= self.most
    }

    /// What is beyond this key is not among the first.
    pub(super) fn last(&self) -> f64 {
        let last = self.found.peek().filter(|_| self.is_full());
        last.map_or(f64::INFINITY, |last| last.key)
    }

    fn is_after(&self, candidate: &Candidate) -> bool {
        self.after.is_none_or(|(key, id)| match candidate.key.total_cmp(&key) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => u64::from(candidate.id) >= id,
        })
    }

    pub(super) fn end(self, ord: SegmentOrdinal) -> io::Result<Vec<Ranked>> {
        let ranked = |Candidate { key, id, doc }: Candidate| {
            let mut listing_id = String::new();
            if let Some(ids) = &self.columns.ids {
                ids.ord_to_str(u64::from(id), &mut listing_id)?;
            }
            Ok(Ranked { key, listing_id, address: DocAddress::new(ord, doc) })
        };
        self.found.into_iter().map(ranked).collect()
    }
}
