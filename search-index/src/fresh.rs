//! What was said since the last commit, as small segments in memory: so it is found within milliseconds, and the disk hears
//! of it in larger parts.

use std::collections::BTreeMap;

use tantivy::{
    Index, IndexSettings, SegmentReader, TantivyDocument,
    directory::RamDirectory,
    index::SegmentId,
    indexer::{AddOperation, SegmentWriter},
    schema::Schema,
    store::Compressor,
};

/// A segment takes in those before it up to so many entities: a larger one takes longer to make than a reader should wait.
const MOST_ENTITIES: usize = 64;
/// Memory for the words of one. More is taken when it is needed.
const WRITER_MEMORY: usize = 1 << 20;

/// The last that was said of each entity: its document, or that it is gone.
pub(crate) type Said = BTreeMap<String, Option<TantivyDocument>>;

/// What one refresh, or some together, said.
pub(crate) struct Fresh {
    pub(crate) said: Said,
    /// The segment with the documents; none, when there are none.
    pub(crate) segment: Option<SegmentId>,
    /// It is part of the commit that runs.
    pub(crate) in_commit: bool,
}

/// What is taken in by what is said next: so segments stay few, and nothing is written often.
pub(crate) fn take_in(fresh: &mut Vec<Fresh>, mut said: Said) -> (Said, Vec<SegmentId>) {
    let mut gone = Vec::new();
    while let Some(last) = fresh.pop_if(|last| {
        !last.in_commit && last.said.len() <= said.len() && last.said.len() + said.len() <= MOST_ENTITIES
    }) {
        let newer = std::mem::replace(&mut said, last.said);
        said.extend(newer);
        gone.extend(last.segment);
    }
    (said, gone)
}

/// A segment in memory that has no documents yet. Making one takes as long as filling it with a few.
pub(crate) struct Blank {
    segment: tantivy::Segment,
    writer: SegmentWriter,
}

impl Blank {
    pub(crate) fn new(schema: &Schema) -> tantivy::Result<Self> {
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let index = Index::create(RamDirectory::create(), schema.clone(), settings)?;
        let segment = index.new_segment();
        let writer = SegmentWriter::for_segment(WRITER_MEMORY, segment.clone())?;
        Ok(Self { segment, writer })
    }

    /// The segment with these documents, one at least.
    pub(crate) fn with(mut self, said: &Said) -> tantivy::Result<SegmentReader> {
        for document in said.values().flatten() {
            self.writer.add_document(AddOperation { opstamp: 0, document: document.clone() })?;
        }
        let documents = self.writer.max_doc();
        self.writer.finalize()?;
        SegmentReader::open(&self.segment.with_max_doc(documents))
    }
}
