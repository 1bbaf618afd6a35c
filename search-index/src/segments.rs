//! What a snapshot is made of: segments of the engine, on disk or in memory, each with its columns and the documents of it
//! that count.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use fixedbitset::FixedBitSet;
use tantivy::{
    BitSet, DocId, DocSet, SegmentReader, TERMINATED, TantivyDocument, Term, index::SegmentId,
    schema::IndexRecordOption, store::StoreReader,
};

use crate::columns::{Columns, Numbering, set_of};

/// Blocks of documents kept decompressed.
const STORE_CACHE: usize = 100;

/// A segment as of one snapshot.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) reader: SegmentReader,
    pub(crate) columns: Arc<Columns>,
    store: Arc<StoreReader>,
    /// Those of its documents that were neither deleted nor replaced by then.
    alive: FixedBitSet,
    /// Those of them that are listings people may see.
    pub(crate) public: FixedBitSet,
}

impl Segment {
    fn new(reader: SegmentReader, columns: Arc<Columns>, store: Arc<StoreReader>) -> Self {
        let mut alive = BitSet::with_max_value_and_full(reader.max_doc());
        if let Some(known) = reader.alive_bitset() {
            alive.intersect_update(known.bitset());
        }
        let alive = set_of(columns.docs, &alive);
        let mut public = columns.all.clone();
        public.intersect_with(&alive);
        Self { reader, columns, store, alive, public }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.reader.segment_id()
    }

    pub(crate) fn is_alive(&self, doc: DocId) -> bool {
        self.alive.contains(doc as usize)
    }

    /// The documents that were neither deleted nor replaced.
    pub(crate) fn alive(&self) -> impl Iterator<Item = DocId> {
        (0..self.reader.max_doc()).filter(|doc| self.is_alive(*doc))
    }

    /// Those of them that are listings people may see.
    pub(crate) fn shown(&self) -> impl Iterator<Item = DocId> {
        self.public.ones().filter_map(|doc| DocId::try_from(doc).ok())
    }

    /// Their ids, in order, with their documents.
    pub(crate) fn shown_ids(&self) -> tantivy::Result<Vec<(String, DocId)>> {
        let Some(ids) = &self.columns.ids else { return Ok(Vec::new()) };
        let mut docs = vec![None; ids.num_terms()];
        for doc in self.shown() {
            if let Some(known) = docs.get_mut(self.columns.id_ords[doc as usize] as usize) {
                *known = Some(doc);
            }
        }
        let (mut shown, mut terms) = (Vec::new(), ids.dictionary().stream()?);
        for doc in docs {
            terms.advance();
            shown.extend(doc.map(|doc| (String::from_utf8_lossy(terms.key()).into_owned(), doc)));
        }
        Ok(shown)
    }

    pub(crate) fn document(&self, doc: DocId) -> tantivy::Result<TantivyDocument> {
        self.store.get(doc)
    }

    /// The document with a key, unless it was deleted or replaced.
    pub(crate) fn find(&self, key: &Term) -> tantivy::Result<Option<DocId>> {
        let index = self.reader.inverted_index(key.field())?;
        let Some(mut postings) = index.read_postings(key, IndexRecordOption::Basic)? else { return Ok(None) };
        let mut doc = postings.doc();
        while doc != TERMINATED && !self.is_alive(doc) {
            doc = postings.advance();
        }
        Ok((doc != TERMINATED).then_some(doc))
    }
}

/// The segments as of one snapshot.
#[derive(Clone, Default)]
pub(crate) struct Segments {
    pub(crate) segments: Vec<Arc<Segment>>,
    numbering: Arc<RwLock<Numbering>>,
}

impl Segments {
    /// These segments, as they are on disk or in memory. What is known of one is not read again.
    pub(crate) fn of(&self, readers: &[SegmentReader]) -> tantivy::Result<Self> {
        let mut segments = Vec::with_capacity(readers.len());
        for reader in readers {
            segments.push(self.segment(reader)?);
        }
        Ok(Self { segments, numbering: Arc::clone(&self.numbering) })
    }

    /// One more.
    pub(crate) fn add(&mut self, reader: &SegmentReader) -> tantivy::Result<SegmentId> {
        self.segments.push(self.segment(reader)?);
        Ok(reader.segment_id())
    }

    fn segment(&self, reader: &SegmentReader) -> tantivy::Result<Arc<Segment>> {
        let known = self.segments.iter().find(|segment| segment.id() == reader.segment_id());
        let (columns, store) = match known {
            Some(known) => (Arc::clone(&known.columns), Arc::clone(&known.store)),
            None => {
                let columns = Columns::of(reader, &self.numbering)?;
                (Arc::new(columns), Arc::new(reader.get_store_reader(STORE_CACHE)?))
            }
        };
        Ok(Arc::new(Segment::new(reader.clone(), columns, store)))
    }

    /// What has this key is not there any more.
    pub(crate) fn remove(&mut self, key: &Term) -> tantivy::Result<()> {
        for segment in &mut self.segments {
            if let Some(doc) = segment.find(key)? {
                let segment = Arc::make_mut(segment);
                segment.alive.set(doc as usize, false);
                segment.public.set(doc as usize, false);
                return Ok(());
            }
        }
        Ok(())
    }

    pub(crate) fn numbering(&self) -> RwLockReadGuard<'_, Numbering> {
        self.numbering.read().unwrap_or_else(PoisonError::into_inner)
    }
}
