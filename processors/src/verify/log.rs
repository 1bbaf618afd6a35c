//! The log against the lake: a position holds the same message in both.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use arrow::{array::AsArray, datatypes::Int64Type};
use futures::TryStreamExt;
use ingest::{Log, LogReader, RawMessage, topology::subject_context};
use schemas::{EventKey, Position, validation::parse_event};

use super::{Check, Subject, VerifyError};

/// Positions compared at once: what is held in memory.
const AT_ONCE: u64 = 500_000;
/// How long the log may take for its next messages.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the lake says of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// An event, or a repetition of one.
    Event(EventKey),
    /// No event: the hash of its bytes.
    Letter(u64),
}

impl Subject<'_> {
    /// Compare every message that the log still holds.
    pub(super) async fn log(&self, log: &Log) -> Result<Check, VerifyError> {
        let mut check = Check::new("log", "a position holds in the lake what it holds in the log");
        let end = log.last_message().await?.min(self.view.position);
        let mut reached = log.look().await?.before_first;
        let gaps = self.gaps(end.as_i64()).await?;
        let mut reader = LogReader::after(log.clone(), reached).quietly();
        let (mut held, mut held_to) = (HashMap::new(), reached);
        while reached < end {
            let messages = tokio::time::timeout(PATIENCE, reader.next_messages()).await;
            let messages = messages.map_err(|_| VerifyError::LogEnded { reached, end })?;
            // The last message may have been deleted: what comes after it ends the comparison as well.
            reached = messages.last().map_or(reached, |last| last.position);
            for message in messages.into_iter().filter(|message| message.position <= end) {
                if message.position > held_to {
                    held = self.held(message.position).await?;
                    held_to = Position::new(message.position.get() + AT_ONCE - 1);
                }
                check.checked += 1;
                let position = message.position;
                match held.get(&position.as_i64()) {
                    Some(held) if self.is(*held, &message) => {}
                    Some(Held::Event(_)) => {
                        check.differs(|| format!("position {position} is another event in the lake"))
                    }
                    Some(Held::Letter(_)) => {
                        check.differs(|| format!("position {position} is a dead letter of other bytes in the lake"));
                    }
                    None if gaps.iter().any(|(first, last)| (*first..=*last).contains(&position.as_i64())) => {
                        check
                            .differs(|| format!("position {position} is a gap in the lake, and the log has a message"));
                    }
                    // Said of the positions already.
                    None => {}
                }
            }
        }
        Ok(check)
    }

    fn is(&self, held: Held, message: &RawMessage) -> bool {
        match held {
            Held::Letter(hash) => hash == hash_of(&message.payload),
            Held::Event(key) => {
                let event = parse_event(self.catalogue, &message.payload, subject_context(&message.subject));
                // What was an event may be none under another catalogue.
                let id = match event {
                    Ok(event) => Some(event.id.key()),
                    Err(rejection) => rejection.event_id.map(|id| EventKey::of(&id)),
                };
                id == Some(key)
            }
        }
    }

    /// What the lake holds from a position on.
    async fn held(&self, from: Position) -> Result<HashMap<i64, Held>, VerifyError> {
        let (from, to) = (from.as_i64(), Position::new(from.get() + AT_ONCE).as_i64());
        let within = format!("position >= {from} AND position < {to}");
        let mut held = HashMap::new();
        for table in ["lake.events", "system.duplicates", "system.retired"] {
            let mut rows = self.stream(&format!("SELECT position, event_id FROM {table} WHERE {within}")).await?;
            while let Some(batch) = rows.try_next().await.map_err(VerifyError::Rows)? {
                let ids = batch.column(1).as_string::<i32>().iter().flatten();
                let positions = batch.column(0).as_primitive::<Int64Type>().values();
                held.extend(positions.iter().copied().zip(ids.map(|id| Held::Event(EventKey::of(id)))));
            }
        }
        let mut rows =
            self.stream(&format!("SELECT position, payload FROM system.dead_letters WHERE {within}")).await?;
        while let Some(batch) = rows.try_next().await.map_err(VerifyError::Rows)? {
            let payloads = batch.column(1).as_binary::<i32>().iter().flatten();
            let positions = batch.column(0).as_primitive::<Int64Type>().values();
            held.extend(positions.iter().copied().zip(payloads.map(|bytes| Held::Letter(hash_of(bytes)))));
        }
        Ok(held)
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
