//! Messages become rows by context, duplicates and dead letters: each position exactly one of the three.

use std::sync::Arc;

use arrow::{array::RecordBatch, error::ArrowError};
use ingest::{
    DeadLetter, RawMessage, SeenError, SeenEvents,
    seen::Occurrence,
    topology::{event_subject, subject_context},
};
use lake::ledger::{DeadLetterRow, DuplicateRow, GapRow, dead_letters_batch, duplicates_batch, gaps_batch};
use schemas::{
    Catalogue, ContextBatchBuilder, ContextIndex, Event, EventId, EventKey, Position, Rejection, RejectionCode, Stamp,
    validation::parse_event,
};

/// Consecutive messages of the log, decoded.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Everything up to here has been decoded.
    pub to: Position,
    /// Rows by table, numbered as in [`lake::LakeView::tables`].
    pub tables: Vec<(usize, RecordBatch)>,
    pub dead_letters: Vec<DeadLetter>,
    /// Positions before and between the messages that the log no longer has.
    pub gaps: Vec<GapRow>,
    pub events: usize,
    pub duplicates: usize,
    /// The latest event time among the rows, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
}

/// What keeps messages from being decoded. It is no fault of theirs.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error("rows do not fit their columns")]
    Rows(#[from] ArrowError),
}

/// Decode the messages after a position, which are in the log's order. Decoding the same positions again gives the same.
///
/// # Errors
/// When the seen events cannot be read or written. Valid events always fit their columns.
pub fn decode(
    catalogue: &Arc<Catalogue>,
    seen: &SeenEvents,
    after: Position,
    messages: &[RawMessage],
) -> Result<Decoded, DecodeError> {
    let mut decoded =
        Decoded { to: messages.last().map_or(Position::START, |last| last.position), ..Decoded::default() };
    let mut valid: Vec<(Event, Stamp)> = Vec::with_capacity(messages.len());
    let mut before = after;
    for message in messages {
        if message.position > before.next() {
            let last = Position::new(message.position.get() - 1);
            decoded.gaps.push(GapRow { first: before.next(), last, ingested_at: message.ingested_at });
        }
        before = message.position;
        match read(catalogue, message) {
            Ok(event) => valid.push((event, Stamp { position: message.position, ingested_at: message.ingested_at })),
            Err(rejection) => decoded.dead_letters.push(DeadLetter::new(message.clone(), rejection)),
        }
    }
    // An id that the door took under another catalogue has no effect where its message is no event.
    let refused: Vec<(EventKey, Position)> = decoded
        .dead_letters
        .iter()
        .filter_map(|letter| Some((EventKey::of(letter.rejection.event_id.as_ref()?), letter.position)))
        .collect();
    seen.forget(&refused)?;
    let keys: Vec<(EventKey, Position)> = valid.iter().map(|(event, stamp)| (event.id.key(), stamp.position)).collect();
    let mut rows = vec![0; catalogue.contexts().len()];
    for (event, _) in &valid {
        rows[event.kind.context.get()] += 1;
    }
    let builder = |(index, _): (ContextIndex, _)| ContextBatchBuilder::new(catalogue, index, rows[index.get()]);
    let mut builders: Vec<ContextBatchBuilder> = catalogue.indexed().map(builder).collect();
    let mut duplicates: Vec<DuplicateRow> = Vec::new();
    for ((event, stamp), occurrence) in valid.into_iter().zip(seen.observe(&keys, decoded.to)?) {
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
            headers: letter.headers.as_deref(),
        });
        decoded.tables.push((contexts, dead_letters_batch(&rows.collect::<Vec<_>>())?));
    }
    if !decoded.gaps.is_empty() {
        decoded.tables.push((contexts + 1, gaps_batch(&decoded.gaps)?));
    }
    if !duplicates.is_empty() {
        decoded.tables.push((contexts + 2, duplicates_batch(&duplicates)?));
    }
    Ok(decoded)
}

/// The id that a payload carries, whatever else it is: it has not taken effect.
fn event_id(payload: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let id = ["eventId", "event_id", "id"].iter().find_map(|name| value.get(name)?.as_str())?;
    EventId::parse(id).map(|id| id.as_str().to_owned())
}

/// The event of a message, if it can be read and its subject says the same as its body.
fn read(catalogue: &Catalogue, message: &RawMessage) -> Result<Event, Rejection> {
    if let Some(fault) = &message.fault {
        let rejection = Rejection::new(RejectionCode::UnreadableMessage, fault.reason.as_str());
        return Err(Rejection { event_id: event_id(&message.payload), ..rejection });
    }
    let event = parse_event(catalogue, &message.payload, subject_context(&message.subject))?;
    let context = &catalogue.context_at(event.kind.context).name;
    let subject = event_subject(context, &catalogue.event_at(event.kind).name, &event.aggregate_id);
    if subject == message.subject {
        return Ok(event);
    }
    let text = format!("the subject is {} and the body says {subject}", message.subject);
    let event_id = Some(event.id.as_str().to_owned());
    Err(Rejection { event_id, ..Rejection::new(RejectionCode::SubjectMismatch, text) })
}

/// A message as its producer would publish it.
#[cfg(test)]
pub(crate) fn message(catalogue: &Catalogue, position: u64, event: &serde_json::Value) -> RawMessage {
    let payload = event.to_string().into_bytes();
    let parsed = parse_event(catalogue, &payload, None).unwrap();
    let context = &catalogue.context_at(parsed.kind.context).name;
    let subject = event_subject(context, &catalogue.event_at(parsed.kind).name, &parsed.aggregate_id);
    RawMessage { position: Position::new(position), ingested_at: 0, subject, payload: payload.into(), fault: None }
}

#[cfg(test)]
mod tests {
    use datasets::spoiled;
    use ingest::{MessageFault, RawMessage, SeenEvents, topology::event_subject};
    use rand::Rng;
    use schemas::{Catalogue, Position, validation::parse_event};
    use serde_json::json;

    use super::{decode, message};

    #[test]
    fn a_subject_that_says_otherwise_than_the_body_makes_a_dead_letter() {
        let catalogue = Catalogue::embedded().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenEvents::open(folder.path(), "log", Position::new(u64::MAX)).unwrap();
        let event = json!({
            "eventId": "e-1", "eventType": "PriceSet", "timestamp": "2026-11-02T08:30:00Z", "aggregateId": "lst.1",
            "data": {"listingId": "lst.1", "price": 9}
        });
        for (subject, good) in [
            ("events.inventory.PriceSet.lst_1", true),
            ("events.inventory.PriceSet.lst_2", false),
            ("events.inventory.PriceSet", false),
            ("events.inventory.ListingPublished.lst_1", false),
            ("events.support.PriceSet.lst_1", false),
            ("events.nowhere.PriceSet.lst_1", false),
        ] {
            let mut message = message(&catalogue, 1, &event);
            message.subject = subject.to_owned();
            let decoded = decode(&catalogue, &seen, Position::START, &[message]).unwrap();
            let reasons: Vec<_> = decoded.dead_letters.iter().map(|letter| letter.rejection.code.as_str()).collect();
            let expected: &[&str] = if good { &[] } else { &["subject_mismatch"] };
            assert_eq!((decoded.events == 1, reasons.as_slice()), (good, expected), "{subject}");
        }
    }

    #[test]
    fn positions_that_are_gone_and_messages_that_cannot_be_read_are_accounted_for() {
        let catalogue = Catalogue::embedded().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenEvents::open(folder.path(), "log", Position::new(u64::MAX)).unwrap();
        let event = json!({
            "eventId": "e-1", "eventType": "PriceSet", "timestamp": "2026-11-02T08:30:00Z", "aggregateId": "lst.1",
            "data": {"listingId": "lst.1", "price": 9}
        });
        let headers = Some(b"NATS/1.0\r\nX City: a\r\n\r\n".to_vec().into());
        let fault = Some(MessageFault { reason: "line 2".to_owned(), headers: headers.clone() });
        let messages = [message(&catalogue, 4, &event), RawMessage { fault, ..message(&catalogue, 9, &event) }];
        let decoded = decode(&catalogue, &seen, Position::new(1), &messages).unwrap();
        let gaps: Vec<_> = decoded.gaps.iter().map(|gap| (gap.first.get(), gap.last.get())).collect();
        assert_eq!((decoded.to.get(), decoded.events, gaps.as_slice()), (9, 1, &[(2, 3), (5, 8)][..]));
        let letter = &decoded.dead_letters[0];
        assert_eq!((letter.rejection.code.as_str(), &letter.headers), ("unreadable_message", &headers));
        let rows = |table: usize| {
            decoded.tables.iter().filter(|(index, _)| *index == table).map(|(_, rows)| rows.num_rows()).sum::<usize>()
        };
        let contexts = catalogue.contexts().len();
        assert_eq!((rows(contexts), rows(contexts + 1), rows(contexts + 2)), (1, 2, 0));
    }

    #[test]
    fn a_spoiled_message_is_a_row_a_dead_letter_or_a_duplicate() {
        let catalogue = Catalogue::embedded().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let seen = SeenEvents::open(folder.path(), "fuzz", Position::new(u64::MAX)).unwrap();
        let mut position = 0;
        spoiled::try_inputs(|rng| {
            let before = Position::new(position);
            let messages: Vec<RawMessage> = (0..rng.random_range(1..20))
                .map(|_| {
                    position += 1;
                    let mut payload = spoiled::event(&catalogue, rng);
                    spoiled::spoil(&mut payload, rng);
                    let mut subject = match parse_event(&catalogue, &payload, None) {
                        Ok(event) => {
                            let context = &catalogue.context_at(event.kind.context).name;
                            let name = &catalogue.event_at(event.kind).name;
                            event_subject(context, name, &event.aggregate_id).into_bytes()
                        }
                        Err(_) => b"events.inventory.PriceSet.x".to_vec(),
                    };
                    if rng.random_bool(0.2) {
                        spoiled::spoil(&mut subject, rng);
                    }
                    let subject = String::from_utf8_lossy(&subject).into_owned();
                    RawMessage {
                        position: Position::new(position),
                        ingested_at: 0,
                        subject,
                        payload: payload.into(),
                        fault: None,
                    }
                })
                .collect();
            let count = messages.len();
            let decoded = decode(&catalogue, &seen, before, &messages).unwrap();
            assert_eq!(decoded.events + decoded.duplicates + decoded.dead_letters.len(), count);
            let rows: usize = decoded.tables.iter().map(|(_, batch)| batch.num_rows()).sum();
            assert_eq!(rows, count, "every position is one row of one table");
        });
    }
}
