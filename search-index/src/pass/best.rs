//! The first of what was found, by a key and then by id.

use std::{cmp::Ordering, collections::BinaryHeap, io};

use tantivy::{DocAddress, DocId, SegmentOrdinal, columnar::StrColumn};

use crate::query::Cursor;

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
    id: u64,
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
    ids: Option<&'a StrColumn>,
    after: Option<&'a Cursor>,
    most: usize,
    /// The last on top, to be dropped first.
    found: BinaryHeap<Candidate>,
    failure: Option<io::Error>,
}

impl<'a> Best<'a> {
    pub(super) const fn new(ids: Option<&'a StrColumn>, after: Option<&'a Cursor>, most: usize) -> Self {
        Self { ids, after, most, found: BinaryHeap::new(), failure: None }
    }

    pub(super) fn offer(&mut self, doc: usize, key: f64) {
        let is_full = self.found.len() >= self.most;
        if is_full && self.found.peek().is_none_or(|last| key.total_cmp(&last.key) == Ordering::Greater) {
            return;
        }
        let Ok(doc) = DocId::try_from(doc) else { return };
        let id = self.ids.and_then(|ids| ids.ords().first(doc)).unwrap_or_default();
        if !self.is_after(key, id) {
            return;
        }
        self.found.push(Candidate { key, id, doc });
        if self.found.len() > self.most {
            self.found.pop();
        }
    }

    /// What is beyond this key is not among the first.
    pub(super) fn last(&self) -> f64 {
        if self.found.len() < self.most {
            f64::INFINITY
        } else {
            self.found.peek().map_or(f64::INFINITY, |last| last.key)
        }
    }

    fn is_after(&mut self, key: f64, id: u64) -> bool {
        let Some(cursor) = self.after else { return true };
        match key.total_cmp(&cursor.key) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => match listing_id(self.ids, id) {
                Ok(listing_id) => listing_id > cursor.listing_id,
                Err(error) => {
                    self.failure = Some(error);
                    false
                }
            },
        }
    }

    pub(super) fn end(self, ord: SegmentOrdinal) -> io::Result<Vec<Ranked>> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let ranked = |Candidate { key, id, doc }: Candidate| {
            Ok(Ranked { key, listing_id: listing_id(self.ids, id)?, address: DocAddress::new(ord, doc) })
        };
        self.found.into_iter().map(ranked).collect()
    }
}

fn listing_id(ids: Option<&StrColumn>, ord: u64) -> io::Result<String> {
    let mut value = String::new();
    if let Some(ids) = ids {
        ids.ord_to_str(ord, &mut value)?;
    }
    Ok(value)
}
