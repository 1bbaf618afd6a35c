//! Writing the index, and the snapshot a search reads.
//!
//! Beside the listings, the index keeps the folded facts of every entity a listing is made of, opaque here, so that
//! facts, documents and the position they reflect are one atomic commit. It is a cache of the lake: damaged or made
//! by another version, it is emptied, and its owner fills it again.
//!
//! What is put is seen after a refresh, which takes a few milliseconds and no disk, and kept after a commit, which runs
//! beside it. A restart begins at the last commit.

use std::{fs, path::Path, sync::Arc};

use schemas::{Position, scarcity::is_scarcity};
use serde::{Deserialize, Serialize};
use tantivy::{Index, IndexSettings, ReloadPolicy, TantivyDocument, Term, schema::Schema};

use crate::{
    error::IndexError,
    fields::Fields,
    fresh::{self, Blank, Fresh, Said},
    listing::{Listing, ListingStatus},
    market::MarketInUse,
    reflected::Reflected,
    segments::{Segment, Segments},
    snapshot::ListingSnapshot,
    store::{Disk, Store},
    unsynced_directory::UnsyncedDirectory,
};

/// Entities of one refresh. A segment of more takes so long to make that a commit is as good, and is made only once.
const MOST_FRESH: usize = 1_000;
/// Entities in memory. Where commits take so long that there are more, a refresh waits for one.
const MOST_IN_MEMORY: usize = 20_000;
/// The format of the index: it changes whenever the meaning of the stored facts does. An index of another one is built again.
pub const INDEX_FORMAT: u32 = 7;

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

impl From<&Payload> for Reflected {
    fn from(payload: &Payload) -> Self {
        let Payload { position, event_time, retirements, .. } = *payload;
        Self { position: Position::new(position), event_time, retirements }
    }
}

/// The writing side; one task owns it.
pub struct ListingIndex {
    schema: Schema,
    store: Store,
    /// The segments that the last commit left, and what it reflects.
    committed: (Segments, Reflected),
    /// What the commit that runs will reflect.
    committing: Reflected,
    /// What was put since the last refresh; not all of it, once it is more than a refresh takes: the next one commits.
    said: Said,
    /// What was refreshed since the last commit, in order.
    fresh: Vec<Fresh>,
    /// For the next refresh.
    blank: Option<Blank>,
    shown: Arc<ListingSnapshot>,
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
            // It is as it was, and can be opened when there is more.
            Err(error) if is_scarcity(&error) => Err(error),
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
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let segments = Segments::default().of(reader.searcher().segment_readers())?;
        let fields = Arc::new(Fields::new().1);
        Ok(Some(Arc::new(ListingSnapshot::new(fields, segments, MarketInUse::default(), Reflected::from(&payload)))))
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
        let fields = Arc::new(Fields::new().1);
        let disk = Disk::open(index, fields.key)?;
        let segments = disk.segments(&Segments::default())?;
        let shown = Arc::new(ListingSnapshot::new(fields, segments.clone(), MarketInUse::default(), reflected));
        Ok(Self {
            schema: index.schema(),
            store: Store::Idle(Box::new(disk)),
            committed: (segments, reflected),
            committing: reflected,
            said: Said::new(),
            fresh: Vec::new(),
            blank: None,
            shown,
        })
    }

    /// What searches may read: the last refresh or commit.
    #[must_use]
    pub fn snapshot(&self) -> Arc<ListingSnapshot> {
        Arc::clone(&self.shown)
    }

    /// Replace an entity, in the refresh or commit that will reflect `position`.
    ///
    /// # Errors
    /// When the index cannot take it.
    pub fn put(&mut self, entry: &Entry<'_>, position: Position) -> Result<(), IndexError> {
        let fields = &self.shown.fields;
        let mut document = TantivyDocument::default();
        document.add_text(fields.key, entry.key);
        document.add_bytes(fields.state, entry.state);
        if let Some(listing) = entry.listing {
            document.add_bytes(fields.listing, &serde_json::to_vec(listing)?);
            document.add_u64(fields.written, position.get());
            self.add_search_fields(&mut document, listing);
        }
        self.say(entry.key, Some(document))
    }

    /// Take an entity out.
    ///
    /// # Errors
    /// When the index cannot take it.
    pub fn delete(&mut self, key: &str) -> Result<(), IndexError> {
        self.say(key, None)
    }

    fn say(&mut self, key: &str, document: Option<TantivyDocument>) -> Result<(), IndexError> {
        if self.said.len() <= MOST_FRESH {
            self.said.insert(key.to_owned(), document.clone());
        }
        self.store.say(key, document)
    }

    fn add_search_fields(&self, document: &mut TantivyDocument, listing: &Listing) {
        let fields = &self.shown.fields;
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
        fields.add_words(document, listing);
    }

    /// Make everything put so far visible, as reflecting `reflected`. It is not kept before a commit. Very much at once is
    /// committed as well, which takes longer.
    ///
    /// # Errors
    /// When the index cannot be read or written: it has to be opened again.
    pub fn refresh(&mut self, reflected: Reflected) -> Result<Arc<ListingSnapshot>, IndexError> {
        self.take_ended_commit()?;
        let in_memory = self.fresh.iter().map(|fresh| fresh.said.len()).sum::<usize>();
        if self.said.len() > MOST_FRESH || in_memory > MOST_IN_MEMORY {
            return self.commit(reflected);
        }
        let mut segments = self.shown.segments.clone();
        let said = std::mem::take(&mut self.said);
        if !said.is_empty() {
            for key in said.keys() {
                let key = self.term(key);
                segments.remove(&key)?;
                self.store.replace(key);
            }
            let (said, taken_in) = fresh::take_in(&mut self.fresh, said);
            segments.segments.retain(|segment| !taken_in.contains(&segment.id()));
            let segment = if said.values().any(Option::is_some) {
                let blank = self.blank.take().map_or_else(|| Blank::new(&self.schema), Ok)?;
                Some(segments.add(&blank.with(&said)?)?)
            } else {
                None
            };
            self.fresh.push(Fresh { said, segment, in_commit: false });
        }
        Ok(self.show(segments, reflected))
    }

    /// Make ready what the next refresh needs, when there is time: it takes less then.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn prepare(&mut self) -> Result<(), IndexError> {
        if self.blank.is_none() {
            self.blank = Some(Blank::new(&self.schema)?);
        }
        Ok(())
    }

    /// Make everything put so far visible and keep it, as reflecting `reflected`.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn commit(&mut self, reflected: Reflected) -> Result<Arc<ListingSnapshot>, IndexError> {
        self.wait_for_commit()?;
        self.said.clear();
        // Whoever waits for so much need not wait for its ratings too.
        self.begin_commit(reflected, MarketInUse::default())?;
        self.wait_for_commit()?;
        let segments = self.shown.segments.clone();
        Ok(self.show(segments, reflected))
    }

    /// Keep what was refreshed, beside whatever else is done: begin a commit, and see to the one before. Whether all that
    /// is visible is kept by now.
    ///
    /// # Errors
    /// When a commit failed.
    pub fn keep(&mut self) -> Result<bool, IndexError> {
        self.take_ended_commit()?;
        let kept = self.fresh.is_empty() && self.committed.1 == self.shown.reflected();
        // What was put and is not visible yet belongs to a later position.
        if !kept && self.store.is_idle() && self.said.is_empty() {
            self.begin_commit(self.shown.reflected(), self.shown.market.clone())?;
        }
        Ok(kept)
    }

    /// What the last commit reflects: what is there after a restart.
    #[must_use]
    pub const fn committed(&self) -> Position {
        self.committed.1.position
    }

    fn begin_commit(&mut self, reflected: Reflected, market: MarketInUse) -> Result<(), IndexError> {
        let Reflected { position, event_time, retirements } = reflected;
        let payload = Payload { version: INDEX_FORMAT, position: position.get(), event_time, retirements };
        self.store.begin_commit(serde_json::to_string(&payload)?, self.committed.0.clone(), market)?;
        self.committing = reflected;
        self.fresh.iter_mut().for_each(|fresh| fresh.in_commit = true);
        Ok(())
    }

    fn take_ended_commit(&mut self) -> Result<(), IndexError> {
        if let Some(segments) = self.store.ended()? {
            self.take_commit(segments);
        }
        Ok(())
    }

    fn wait_for_commit(&mut self) -> Result<(), IndexError> {
        if let Some(segments) = self.store.wait()? {
            self.take_commit(segments);
        }
        Ok(())
    }

    /// Go on from what a commit left: only what was refreshed since is still in memory.
    fn take_commit(&mut self, mut segments: Segments) {
        self.committed = (segments.clone(), self.committing);
        self.fresh.retain(|fresh| !fresh.in_commit);
        let is_fresh = |segment: &&Arc<Segment>| self.fresh.iter().any(|fresh| fresh.segment == Some(segment.id()));
        segments.segments.extend(self.shown.segments.segments.iter().filter(is_fresh).cloned());
        self.show(segments, self.shown.reflected());
    }

    fn show(&mut self, segments: Segments, reflected: Reflected) -> Arc<ListingSnapshot> {
        let (fields, market) = (Arc::clone(&self.shown.fields), self.shown.market.clone());
        self.shown = Arc::new(ListingSnapshot::new(fields, segments, market, reflected));
        self.snapshot()
    }

    fn term(&self, key: &str) -> Term {
        Term::from_field_text(self.shown.fields.key, key)
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
    if damaged || payload.version != INDEX_FORMAT || index.schema() != schema {
        tracing::warn!(damaged, version = payload.version, "the index cannot be used");
        return Ok(None);
    }
    Ok(Some((index, payload)))
}

#[cfg(test)]
mod tests;
