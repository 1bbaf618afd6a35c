//! The sink that keeps the index.
//!
//! It folds rows into the facts of their entities, builds the listings those touch, and writes facts, listings and
//! position together. Its owner is one blocking thread.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    path::Path,
    sync::Arc,
    thread,
};

use arrow::array::RecordBatch;
use schemas::{Catalogue, Context, Position};
use search_index::{Entry, IndexError, Listing, ListingIndex, ListingSnapshot, Reflected};

use crate::listing_fold::{self, CONTEXTS, Entity, EntityKey, EntityKind, catch_panic};

/// Entities used lately that are kept in memory, and as many used before them; the others are read from the index again.
const CACHED_ENTITIES: usize = 50_000;

/// What keeps listings from being folded.
#[derive(Debug, thiserror::Error)]
pub enum ListingsError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the index holds facts that cannot be read; delete its folder to build it again")]
    Facts(#[from] serde_json::Error),
}

/// The index and the entities being worked on.
pub struct Listings {
    catalogue: Arc<Catalogue>,
    index: ListingIndex,
    /// Used since the last time the cache was turned over.
    recent: HashMap<EntityKey, Entity>,
    older: HashMap<EntityKey, Entity>,
    /// Changed since the last refresh or commit: always in the cache.
    touched: BTreeSet<EntityKey>,
    /// The lake's number of retirements whose events' facts are not in it any more.
    retirements: u64,
}

impl Listings {
    /// Open the index in `folder`, or begin it anew.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(folder: &Path, catalogue: Arc<Catalogue>) -> Result<Self, ListingsError> {
        let index = ListingIndex::open(folder)?;
        let retirements = index.snapshot().retirements;
        let (recent, older, touched) = (HashMap::new(), HashMap::new(), BTreeSet::new());
        Ok(Self { catalogue, index, recent, older, touched, retirements })
    }

    #[must_use]
    pub fn snapshot(&self) -> Arc<ListingSnapshot> {
        self.index.snapshot()
    }

    /// The position of the last refresh or commit.
    #[must_use]
    pub fn position(&self) -> Position {
        self.index.snapshot().position
    }

    /// The lake's number of retirements whose events' facts are not in it any more.
    #[must_use]
    pub const fn retirements(&self) -> u64 {
        self.retirements
    }

    /// Nothing was folded that retention has taken by now.
    pub const fn set_retirements(&mut self, count: u64) {
        self.retirements = count;
    }

    /// Replace what is known of entities of which retention took events: by what is left, or nothing.
    ///
    /// # Errors
    /// When facts cannot be read back.
    pub fn replace(
        &mut self,
        keys: &HashSet<EntityKey>,
        mut left: HashMap<EntityKey, Entity>,
    ) -> Result<(), ListingsError> {
        for key in keys {
            // What shows the facts that go is built again as well.
            let listings = self.listings_of(key)?;
            self.touched.extend(listings);
        }
        for key in keys {
            self.recent.insert(key.clone(), left.remove(key).unwrap_or_default());
            self.touched.insert(key.clone());
        }
        Ok(())
    }

    /// Fold in rows of one context, numbered as in the catalogue. Rows the index already reflects are passed over.
    ///
    /// # Errors
    /// When facts cannot be read back.
    pub fn fold(&mut self, context: &Context, batch: &RecordBatch) -> Result<(), ListingsError> {
        if !CONTEXTS.contains(&context.name.as_str()) {
            return Ok(());
        }
        for (key, change) in listing_fold::changes(context, batch, self.position()) {
            self.entity(&key)?.apply(change);
            self.touched.insert(key);
        }
        Ok(())
    }

    /// Fold in rows of every context, by table number.
    ///
    /// # Errors
    /// When facts cannot be read back.
    pub fn fold_tables(&mut self, tables: &[(usize, RecordBatch)]) -> Result<(), ListingsError> {
        let catalogue = Arc::clone(&self.catalogue);
        for (table, batch) in tables {
            if let Some(context) = catalogue.contexts().get(*table) {
                self.fold(context, batch)?;
            }
        }
        Ok(())
    }

    /// How many entities wait to be visible.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.touched.len()
    }

    /// Make what was touched and the listings built from it visible, as reflecting `position`. It is kept after a commit.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn refresh(
        &mut self,
        position: Position,
        event_time: Option<i64>,
    ) -> Result<Arc<ListingSnapshot>, ListingsError> {
        self.put_touched(position)?;
        Ok(self.index.refresh(self.reflected(position, event_time))?)
    }

    /// Make ready what the next refresh needs, when there is time: it takes less then.
    ///
    /// # Errors
    /// When the index failed.
    pub fn prepare(&mut self) -> Result<(), ListingsError> {
        Ok(self.index.prepare()?)
    }

    /// Make what was touched and the listings built from it visible and keep it, as reflecting `position`.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn commit(
        &mut self,
        position: Position,
        event_time: Option<i64>,
    ) -> Result<Arc<ListingSnapshot>, ListingsError> {
        self.put_touched(position)?;
        Ok(self.index.commit(self.reflected(position, event_time))?)
    }

    /// Commit what was refreshed, beside whatever else is done. Whether all of it is kept by now.
    ///
    /// # Errors
    /// When a commit failed.
    pub fn keep(&mut self) -> Result<bool, ListingsError> {
        Ok(self.index.keep()?)
    }

    /// The position of the last commit.
    #[must_use]
    pub const fn committed(&self) -> Position {
        self.index.committed()
    }

    const fn reflected(&self, position: Position, event_time: Option<i64>) -> Reflected {
        Reflected { position, event_time, retirements: self.retirements }
    }

    fn put_touched(&mut self, position: Position) -> Result<(), ListingsError> {
        let mut written = mem::take(&mut self.touched);
        for key in written.clone() {
            written.extend(self.listings_of(&key)?);
        }
        for key in &written {
            if self.entity(key)?.is_empty() {
                self.index.delete(key.as_str())?;
                continue;
            }
            let listing = match key.id(EntityKind::Listing) {
                Some(id) => self.build(id)?,
                None => None,
            };
            let state = serde_json::to_vec(self.entity(key)?)?;
            self.index.put(&Entry { key: key.as_str(), state: &state, listing: listing.as_ref() }, position)?;
        }
        self.turn_over(written.len());
        Ok(())
    }

    /// Keep only what was used lately in memory, after so many entities were written.
    fn turn_over(&mut self, written: usize) {
        if self.recent.len() <= CACHED_ENTITIES {
            return;
        }
        let mut gone = [mem::take(&mut self.older), mem::take(&mut self.recent)];
        // Whoever wrote so many at once has built the index again, and goes on with others.
        if written <= 2 * CACHED_ENTITIES {
            mem::swap(&mut self.older, &mut gone[1]);
        }
        // Freeing so many small things takes as long as many refreshes: none waits for it.
        if let Err(error) = thread::Builder::new().name("forget".to_owned()).spawn(move || drop(gone)) {
            tracing::debug!(error = %error, "no thread to forget entities on");
        }
    }

    /// The listings that an entity's facts show in, itself included.
    fn listings_of(&mut self, key: &EntityKey) -> Result<Vec<EntityKey>, ListingsError> {
        if key.id(EntityKind::Listing).is_some() {
            return Ok(vec![key.clone()]);
        }
        // A reservation that moved shows in the listings of every vehicle it was ever of.
        let vehicles: Vec<EntityKey> = if key.id(EntityKind::Vehicle).is_some() {
            vec![key.clone()]
        } else {
            self.entity(key)?.links().cloned().collect()
        };
        let mut listings = Vec::new();
        for vehicle in vehicles {
            let linked = self.entity(&vehicle)?.links().filter(|link| link.id(EntityKind::Listing).is_some());
            listings.extend(linked.cloned());
        }
        Ok(listings)
    }

    /// A listing as its facts have it; none, if they are too much for it.
    fn build(&mut self, id: &str) -> Result<Option<Listing>, ListingsError> {
        let own = self.entity(&EntityKind::Listing.key(id))?.clone();
        let vehicle = match own.vehicle() {
            Some(key) => self.entity(&key)?.clone(),
            None => Entity::default(),
        };
        let (mut reservations, mut inspections) = (Vec::new(), Vec::new());
        for link in vehicle.links() {
            if link.id(EntityKind::Reservation).is_some() {
                reservations.extend(self.lent(link, &own)?);
            } else if link.id(EntityKind::Inspection).is_some() {
                inspections.extend(self.lent(link, &own)?);
            }
        }
        let listing = catch_panic(|| listing_fold::listing(id, &own, &vehicle, &reservations, &inspections));
        if listing.is_none() {
            tracing::error!(listing = id, "a listing's facts are too much for the index; it is left out");
        }
        Ok(listing)
    }

    /// An entity linked to a listing's vehicle, unless it belongs to another vehicle by now.
    fn lent(&mut self, link: &EntityKey, own: &Entity) -> Result<Option<Entity>, ListingsError> {
        let entity = self.entity(link)?.clone();
        Ok((entity.vehicle() == own.vehicle()).then_some(entity))
    }

    /// An entity's facts: from the cache, else as last refreshed, else none yet.
    fn entity(&mut self, key: &EntityKey) -> Result<&mut Entity, ListingsError> {
        if !self.recent.contains_key(key) {
            let entity = match self.older.remove(key) {
                Some(entity) => entity,
                None => match self.index.snapshot().state(key.as_str())? {
                    Some(state) => serde_json::from_slice(&state)?,
                    None => Entity::default(),
                },
            };
            self.recent.insert(key.clone(), entity);
        }
        Ok(self.recent.entry(key.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use schemas::Catalogue;

    use super::{CACHED_ENTITIES, Entity, EntityKind, Listings};

    #[test]
    fn only_what_was_used_lately_stays_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::embedded().unwrap();
        let mut listings = Listings::open(folder.path(), catalogue).unwrap();
        let mut used = 0;
        let mut keep_after = |listings: &mut Listings, count: usize| {
            for _ in 0..count {
                used += 1;
                listings.recent.insert(EntityKind::Vehicle.key(&used.to_string()), Entity::default());
            }
            listings.turn_over(count);
            (listings.recent.len(), listings.older.len())
        };
        assert_eq!(keep_after(&mut listings, CACHED_ENTITIES), (CACHED_ENTITIES, 0));
        assert_eq!(keep_after(&mut listings, 1), (0, CACHED_ENTITIES + 1));
        assert_eq!(keep_after(&mut listings, CACHED_ENTITIES + 2), (0, CACHED_ENTITIES + 2));
        assert!(!listings.older.contains_key(&EntityKind::Vehicle.key("1")));
        // As many as when the index is built again.
        assert_eq!(keep_after(&mut listings, 2 * CACHED_ENTITIES + 1), (0, 0));
    }
}
