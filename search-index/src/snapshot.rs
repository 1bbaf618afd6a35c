//! The index as of one refresh or commit: what searches read.

use std::{collections::BTreeSet, sync::Arc};

use schemas::Position;
use tantivy::{
    DocAddress, DocSet, TERMINATED, TantivyDocument, Term,
    schema::{IndexRecordOption, Value},
};

use crate::{
    error::IndexError,
    fields::Fields,
    listing::Listing,
    market::{Market, MarketInUse},
    reflected::Reflected,
    segments::{Segment, Segments},
};

/// The index as of one refresh or commit.
pub struct ListingSnapshot {
    pub(crate) fields: Arc<Fields>,
    pub(crate) segments: Segments,
    pub(crate) market: MarketInUse,
    /// What it reflects.
    pub position: Position,
    /// The latest event time reflected, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The lake's number of retirements: the facts of what retention took are not in it.
    pub retirements: u64,
}

impl ListingSnapshot {
    pub(crate) const fn new(
        fields: Arc<Fields>,
        segments: Segments,
        market: MarketInUse,
        reflected: Reflected,
    ) -> Self {
        let Reflected { position, event_time, retirements } = reflected;
        Self { fields, segments, market, position, event_time, retirements }
    }

    /// Learn a market from the public listings.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn market(&self) -> Result<Market, IndexError> {
        Market::of(&self.segments, self.reflected())
    }

    /// Rate the segments of later commits with this market before they are shown.
    pub fn rate_with(&self, market: &Arc<Market>) {
        self.market.set(market);
    }

    /// What it reflects, as one.
    #[must_use]
    pub const fn reflected(&self) -> Reflected {
        Reflected { position: self.position, event_time: self.event_time, retirements: self.retirements }
    }

    /// The key of every entity, in order.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn keys(&self) -> Result<BTreeSet<String>, IndexError> {
        let mut keys = BTreeSet::new();
        for segment in &self.segments.segments {
            let index = segment.reader.inverted_index(self.fields.key)?;
            let mut terms = index.terms().stream().map_err(tantivy::TantivyError::from)?;
            while terms.advance() {
                let postings = index
                    .read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)
                    .map_err(tantivy::TantivyError::from)?;
                if alive(segment, postings) {
                    keys.insert(String::from_utf8_lossy(terms.key()).into_owned());
                }
            }
        }
        Ok(keys)
    }

    /// The facts of an entity.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn state(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        let Some(document) = self.document(key)? else { return Ok(None) };
        Ok(document.get_first(self.fields.state).and_then(|value| value.as_bytes().map(<[u8]>::to_vec)))
    }

    /// A listing by its id, public or not.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn listing(&self, id: &str) -> Result<Option<Listing>, IndexError> {
        match self.document(&format!("listing/{id}"))? {
            Some(document) => self.listing_of(&document),
            None => Ok(None),
        }
    }

    /// The ids of public listings, in order.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn public_ids(&self) -> Result<Vec<String>, IndexError> {
        let mut ids = Vec::new();
        for segment in &self.segments.segments {
            ids.extend(segment.shown_ids()?.into_iter().map(|(id, _)| id));
        }
        // Each segment's are sorted already.
        ids.sort();
        Ok(ids)
    }

    /// The public listings that were written after a position, some at a time.
    ///
    /// # Errors
    /// When the index cannot be read, or `each` fails.
    pub fn each_written_after<E: From<IndexError>>(
        &self,
        position: Position,
        mut each: impl FnMut(&[Listing]) -> Result<(), E>,
    ) -> Result<(), E> {
        const MAX_LISTINGS_PER_CALL: usize = 500;
        let mut some = Vec::new();
        for (ord, segment) in (0_u32..).zip(&self.segments.segments) {
            let written = segment.reader.fast_fields().u64("written").map_err(IndexError::from)?;
            if written.max_value() <= position.get() {
                continue;
            }
            for doc in segment.shown().filter(|doc| written.first(*doc) > Some(position.get())) {
                some.extend(self.listing_at(DocAddress::new(ord, doc))?);
                if some.len() == MAX_LISTINGS_PER_CALL {
                    each(&some)?;
                    some.clear();
                }
            }
        }
        if some.is_empty() { Ok(()) } else { each(&some) }
    }

    /// Every listing, public or not, by id.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn every_listing(&self) -> Result<Vec<Listing>, IndexError> {
        let keys = self.keys()?;
        let ids = keys.iter().filter_map(|key| key.strip_prefix("listing/"));
        ids.filter_map(|id| self.listing(id).transpose()).collect()
    }

    pub(crate) fn listing_at(&self, address: DocAddress) -> Result<Option<Listing>, IndexError> {
        let segment = self.segments.segments.get(address.segment_ord as usize);
        segment.map_or(Ok(None), |segment| self.listing_of(&segment.document(address.doc_id)?))
    }

    fn listing_of(&self, document: &TantivyDocument) -> Result<Option<Listing>, IndexError> {
        let bytes = document.get_first(self.fields.listing).and_then(|value| value.as_bytes());
        Ok(bytes.map(serde_json::from_slice).transpose()?)
    }

    fn document(&self, key: &str) -> Result<Option<TantivyDocument>, IndexError> {
        let term = Term::from_field_text(self.fields.key, key);
        for segment in &self.segments.segments {
            if let Some(doc) = segment.find(&term)? {
                return Ok(Some(segment.document(doc)?));
            }
        }
        Ok(None)
    }
}

/// Whether a term has a document that was not deleted.
fn alive(segment: &Segment, mut postings: impl DocSet) -> bool {
    let mut doc = postings.doc();
    while doc != TERMINATED {
        if segment.is_alive(doc) {
            return true;
        }
        doc = postings.advance();
    }
    false
}
