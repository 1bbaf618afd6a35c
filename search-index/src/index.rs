//! Writing the index, and the snapshot a search reads.
//!
//! Beside the listings, the index keeps the folded facts of every entity a listing is made of, opaque here, so that
//! facts, documents and the position they reflect are one atomic commit. It is a cache of the lake: damaged or made
//! by another version, it is emptied, and its owner fills it again.

use std::{collections::BTreeSet, fs, io, path::Path, sync::Arc};

use schemas::Position;
use serde::{Deserialize, Serialize};
use tantivy::{
    DocAddress, DocSet, Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, SegmentReader,
    TERMINATED, TantivyDocument, Term,
    schema::{IndexRecordOption, Value},
};

use crate::{
    columns::Segments,
    fields::Fields,
    listing::{Listing, ListingStatus},
    unsynced_directory::UnsyncedDirectory,
    words::register_tokenizers,
};

/// Memory for documents not yet committed.
const WRITER_MEMORY: usize = 64 << 20;
/// Changes whenever the meaning of the stored facts does: an index of another version is rebuilt.
const VERSION: u32 = 4;

/// What keeps the index from being read or written. The lake still has everything: delete the folder to rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("cannot use the index folder")]
    Folder(#[source] io::Error),
    #[error("the index failed")]
    Engine(#[from] tantivy::TantivyError),
    #[error("the index holds a listing that cannot be read")]
    Document(#[from] serde_json::Error),
}

/// One entity to be written.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Unique, `kind/id`.
    pub key: &'a str,
    /// The entity's facts.
    pub state: &'a [u8],
    /// Its document, when it is a listing.
    pub listing: Option<&'a Listing>,
}

/// What a commit reflects, as it is kept with it.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    version: u32,
    position: u64,
    event_time: Option<i64>,
    #[serde(default)]
    retirements: u64,
}

/// What a commit reflects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    pub position: Position,
    /// The latest event time, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The lake's number of retirements by then: the facts of what retention took are not in it.
    pub retirements: u64,
}

impl From<&Payload> for Reflected {
    fn from(payload: &Payload) -> Self {
        let Payload { position, event_time, retirements, .. } = *payload;
        Self { position: Position::new(position), event_time, retirements }
    }
}

/// The writing side; one task owns it.
pub struct ListingIndex {
    fields: Arc<Fields>,
    reader: IndexReader,
    writer: IndexWriter,
    committed: Arc<ListingSnapshot>,
}

impl ListingIndex {
    /// Open the index in `folder`; empty, at the start of the log, when there is none that can be used.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, IndexError> {
        fs::create_dir_all(folder).map_err(IndexError::Folder)?;
        match Self::open_existing(folder) {
            Ok(Some(index)) => Ok(index),
            Ok(None) => Self::create(folder),
            Err(error) => {
                tracing::warn!(error = %error, "the index is damaged; building it again");
                Self::create(folder)
            }
        }
    }

    /// The index in `folder` as it was last committed, if there is one that can be used. Nothing is written.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn look(folder: &Path) -> Result<Option<Arc<ListingSnapshot>>, IndexError> {
        let Some((index, payload)) = stored(folder)? else { return Ok(None) };
        register_tokenizers(&index);
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        ListingSnapshot::first(&reader, Reflected::from(&payload)).map(|snapshot| Some(Arc::new(snapshot)))
    }

    fn open_existing(folder: &Path) -> Result<Option<Self>, IndexError> {
        let Some((index, payload)) = stored(folder)? else { return Ok(None) };
        Self::start(&index, Reflected::from(&payload)).map(Some)
    }

    fn create(folder: &Path) -> Result<Self, IndexError> {
        fs::remove_dir_all(folder).map_err(IndexError::Folder)?;
        fs::create_dir_all(folder).map_err(IndexError::Folder)?;
        let directory = UnsyncedDirectory::open(folder).map_err(tantivy::TantivyError::from)?;
        let index = Index::create(directory, Fields::new().0, IndexSettings::default())?;
        Self::start(&index, Reflected::default())
    }

    fn start(index: &Index, reflected: Reflected) -> Result<Self, IndexError> {
        register_tokenizers(index);
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let writer = index.writer_with_num_threads(1, WRITER_MEMORY)?;
        let committed = Arc::new(ListingSnapshot::first(&reader, reflected)?);
        Ok(Self { fields: Arc::clone(&committed.fields), reader, writer, committed })
    }

    /// What searches may read: the last commit.
    #[must_use]
    pub fn snapshot(&self) -> Arc<ListingSnapshot> {
        Arc::clone(&self.committed)
    }

    /// Replace an entity, in the commit that will reflect `position`.
    ///
    /// # Errors
    /// When the index cannot take it.
    pub fn put(&mut self, entry: &Entry<'_>, position: Position) -> Result<(), IndexError> {
        self.writer.delete_term(Term::from_field_text(self.fields.key, entry.key));
        let mut document = TantivyDocument::default();
        document.add_text(self.fields.key, entry.key);
        document.add_bytes(self.fields.state, entry.state);
        if let Some(listing) = entry.listing {
            document.add_bytes(self.fields.listing, &serde_json::to_vec(listing)?);
            document.add_u64(self.fields.written, position.get());
            self.add_search_fields(&mut document, listing);
        }
        self.writer.add_document(document)?;
        Ok(())
    }

    /// Take an entity out.
    pub fn delete(&mut self, key: &str) {
        self.writer.delete_term(Term::from_field_text(self.fields.key, key));
    }

    fn add_search_fields(&self, document: &mut TantivyDocument, listing: &Listing) {
        let fields = &self.fields;
        document.add_text(fields.listing_id, &listing.listing_id);
        if listing.status != ListingStatus::Public {
            return;
        }
        document.add_u64(fields.public, 1);
        document.add_bool(fields.unavailable, listing.unavailable);
        for (field, value) in [
            (fields.reserved_until, listing.reserved_until),
            (fields.price_cents, listing.price_cents),
            (fields.year, listing.year),
            (fields.mileage, listing.mileage),
            (fields.listed_at, listing.listed_at),
            (fields.owner_count, listing.owner_count),
            (fields.price_drop_cents, listing.price_drop_cents()),
            (fields.featured_from, listing.featured_from),
            (fields.featured_to, listing.featured_to),
        ] {
            if let Some(value) = value {
                document.add_i64(field, value);
            }
        }
        if let Some(currency) = &listing.currency {
            document.add_text(fields.currency, currency);
        }
        document.add_f64(fields.popularity, listing.popularity);
        if let Some(accident_free) = listing.accident_free {
            document.add_bool(fields.accident_free, accident_free);
        }
        if let (Some(latitude), Some(longitude)) = (listing.latitude, listing.longitude) {
            document.add_f64(fields.latitude, latitude);
            document.add_f64(fields.longitude, longitude);
        }
        for &(facet, field) in &fields.facets {
            for value in facet.values(listing) {
                document.add_text(field, value);
            }
        }
        fields.add_texts(document, listing);
    }

    /// Make everything put so far visible, as reflecting `position`.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn commit(&mut self, reflected: Reflected) -> Result<Arc<ListingSnapshot>, IndexError> {
        let Reflected { position, event_time, retirements } = reflected;
        let payload = Payload { version: VERSION, position: position.get(), event_time, retirements };
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(&serde_json::to_string(&payload)?);
        prepared.commit()?;
        self.reader.reload()?;
        self.committed = Arc::new(self.committed.next(&self.reader, reflected)?);
        Ok(self.snapshot())
    }
}

/// The index as of one commit.
pub struct ListingSnapshot {
    pub(crate) fields: Arc<Fields>,
    pub(crate) searcher: Searcher,
    pub(crate) segments: Segments,
    /// What it reflects.
    pub position: Position,
    /// The latest event time reflected, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The lake's number of retirements: the facts of what retention took are not in it.
    pub retirements: u64,
}

impl ListingSnapshot {
    fn first(reader: &IndexReader, reflected: Reflected) -> Result<Self, IndexError> {
        Self::of(Arc::new(Fields::new().1), &Segments::default(), reader, reflected)
    }

    /// What a later commit left.
    fn next(&self, reader: &IndexReader, reflected: Reflected) -> Result<Self, IndexError> {
        Self::of(Arc::clone(&self.fields), &self.segments, reader, reflected)
    }

    fn of(
        fields: Arc<Fields>,
        before: &Segments,
        reader: &IndexReader,
        reflected: Reflected,
    ) -> Result<Self, IndexError> {
        let Reflected { position, event_time, retirements } = reflected;
        let searcher = reader.searcher();
        let segments = before.next(searcher.segment_readers())?;
        Ok(Self { fields, searcher, segments, position, event_time, retirements })
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
        for segment in self.searcher.segment_readers() {
            let index = segment.inverted_index(self.fields.key)?;
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
        for segment in self.searcher.segment_readers() {
            let fast = segment.fast_fields();
            let (public, Some(column)) = (fast.u64("public")?, fast.str("listing_id")?) else { continue };
            for doc in segment.doc_ids_alive().filter(|doc| public.first(*doc) == Some(1)) {
                let mut id = String::new();
                if let Some(ord) = column.ords().first(doc)
                    && column.ord_to_str(ord, &mut id).map_err(tantivy::TantivyError::from)?
                {
                    ids.push(id);
                }
            }
        }
        ids.sort_unstable();
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
        const AT_ONCE: usize = 500;
        let mut some = Vec::new();
        for (ord, segment) in (0_u32..).zip(self.searcher.segment_readers()) {
            let fast = segment.fast_fields();
            let columns = || Ok::<_, tantivy::TantivyError>((fast.u64("written")?, fast.u64("public")?));
            let (written, public) = columns().map_err(IndexError::from)?;
            if written.max_value() <= position.get() {
                continue;
            }
            let is_meant = |doc: &u32| written.first(*doc) > Some(position.get()) && public.first(*doc) == Some(1);
            for doc in segment.doc_ids_alive().filter(is_meant) {
                some.extend(self.listing_at(DocAddress::new(ord, doc))?);
                if some.len() == AT_ONCE {
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
        self.listing_of(&self.searcher.doc(address)?)
    }

    fn listing_of(&self, document: &TantivyDocument) -> Result<Option<Listing>, IndexError> {
        let bytes = document.get_first(self.fields.listing).and_then(|value| value.as_bytes());
        Ok(bytes.map(serde_json::from_slice).transpose()?)
    }

    fn document(&self, key: &str) -> Result<Option<TantivyDocument>, IndexError> {
        let term = Term::from_field_text(self.fields.key, key);
        for (ord, segment) in (0_u32..).zip(self.searcher.segment_readers()) {
            let index = segment.inverted_index(self.fields.key)?;
            let postings = index.read_postings(&term, IndexRecordOption::Basic).map_err(tantivy::TantivyError::from)?;
            let Some(mut postings) = postings else { continue };
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if !segment.is_deleted(doc) {
                    return Ok(Some(self.searcher.doc(DocAddress::new(ord, doc))?));
                }
                doc = postings.advance();
            }
        }
        Ok(None)
    }
}

/// What lies in a folder, and the payload of its last commit; none that another version wrote.
fn stored(folder: &Path) -> Result<Option<(Index, Payload)>, IndexError> {
    let directory = UnsyncedDirectory::open(folder).map_err(tantivy::TantivyError::from)?;
    if !Index::exists(&directory).map_err(tantivy::TantivyError::from)? {
        return Ok(None);
    }
    let index = Index::open(directory)?;
    let (schema, _) = Fields::new();
    let Some(payload) = index.load_metas()?.payload else { return Ok(None) };
    let Ok(payload) = serde_json::from_str::<Payload>(&payload) else { return Ok(None) };
    let damaged = !index.validate_checksum()?.is_empty();
    if damaged || payload.version != VERSION || index.schema() != schema {
        tracing::warn!(damaged, version = payload.version, "the index cannot be used");
        return Ok(None);
    }
    Ok(Some((index, payload)))
}

/// Whether a term has a document that was not deleted.
fn alive(segment: &SegmentReader, mut postings: impl DocSet) -> bool {
    let mut doc = postings.doc();
    while doc != TERMINATED {
        if !segment.is_deleted(doc) {
            return true;
        }
        doc = postings.advance();
    }
    false
}

#[cfg(test)]
mod tests;
