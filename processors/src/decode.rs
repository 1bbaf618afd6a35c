//! Messages become rows by context, duplicates and dead letters: each position exactly one of the three.

use std::sync::Arc;

use arrow::{array::RecordBatch, error::ArrowError};
use ingest::{DeadLetter, RawMessage, SeenEvents, seen::Occurrence, topology::subject_context};
use lake::ledger::{DeadLetterRow, DuplicateRow, dead_letters_batch, duplicates_batch};
use schemas::{Catalogue, ContextBatchBuilder, Event, EventKey, Position, Stamp, validation::parse_event};

/// Consecutive messages of the log, decoded.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Everything up to here has been decoded.
    pub to: Position,
    /// Rows by table, numbered as in [`lake::LakeView::tables`].
    pub tables: Vec<(usize, RecordBatch)>,
    pub dead_letters: Vec<DeadLetter>,
    pub events: usize,
    pub duplicates: usize,
    /// The latest event time among the rows, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
}

impl Decoded {
    /// The rows of one context.
    #[must_use]
    pub fn context(&self, catalogue: &Catalogue, name: &str) -> Option<&RecordBatch> {
        let (index, _) = catalogue.context(name)?;
        self.tables.iter().find(|(table, _)| *table == index.get()).map(|(_, batch)| batch)
    }
}

/// Decode messages, which are in the log's order. Decoding the same positions again gives the same.
///
/// # Errors
/// Never for valid events: rows are built to their columns.
pub fn decode(catalogue: &Arc<Catalogue>, seen: &SeenEvents, messages: Vec<RawMessage>) -> Result<Decoded, ArrowError> {
    let mut decoded =
        Decoded { to: messages.last().map_or(Position::START, |last| last.position), ..Decoded::default() };
    let mut valid: Vec<(Event, Stamp)> = Vec::with_capacity(messages.len());
    for message in messages {
        match parse_event(catalogue, &message.payload, subject_context(&message.subject)) {
            Ok(event) => valid.push((event, Stamp { position: message.position, ingested_at: message.ingested_at })),
            Err(rejection) => decoded.dead_letters.push(DeadLetter::new(message, rejection)),
        }
    }
    let keys: Vec<(EventKey, Position)> = valid.iter().map(|(event, stamp)| (event.id.key(), stamp.position)).collect();
    let mut builders: Vec<ContextBatchBuilder> =
        catalogue.indexed().map(|(index, _)| ContextBatchBuilder::new(catalogue, index)).collect();
    let mut duplicates: Vec<DuplicateRow> = Vec::new();
    for ((event, stamp), occurrence) in valid.into_iter().zip(seen.observe(&keys)) {
        match occurrence {
            Occurrence::First => {
                decoded.event_time = decoded.event_time.max(Some(event.time));
                decoded.events += 1;
                builders[event.kind.context.get()].push(catalogue, event, stamp);
            }
            Occurrence::Repeated(first_position) => duplicates.push(DuplicateRow {
                position: stamp.position,
                ingested_at: stamp.ingested_at,
                event_id: event.id.as_str().to_owned(),
                first_position,
            }),
        }
    }
    decoded.duplicates = duplicates.len();
    for (index, builder) in builders.iter_mut().enumerate().filter(|(_, builder)| !builder.is_empty()) {
        decoded.tables.push((index, builder.finish()?));
    }
    let contexts = catalogue.contexts().len();
    if !decoded.dead_letters.is_empty() {
        let rows = decoded.dead_letters.iter().map(|letter| DeadLetterRow {
            position: letter.position,
            ingested_at: letter.ingested_at,
            stage: DeadLetter::STAGE,
            rejection: &letter.rejection,
            subject: &letter.subject,
            payload: &letter.payload,
        });
        decoded.tables.push((contexts, dead_letters_batch(&rows.collect::<Vec<_>>())?));
    }
    if !duplicates.is_empty() {
        decoded.tables.push((contexts + 1, duplicates_batch(&duplicates)?));
    }
    Ok(decoded)
}
