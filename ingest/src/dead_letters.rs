//! Where messages go that are no events: kept whole, with the reason.

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, try_join_all},
};
use schemas::{Position, Rejection};

use crate::{Log, LogError, RawMessage, topology};

/// Copies on their way at once: acknowledgements are awaited in slices, as the client bounds how many may wait.
const SLICE: usize = 500;
/// Longest subject told in a header; the lake's table has it whole.
const MAX_SUBJECT: usize = 1_024;
const POSITION_HEADER: &str = "Forecourt-Position";

/// A message of the log that is no event.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub position: Position,
    /// When the log took it: microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub subject: String,
    pub payload: Bytes,
    pub rejection: Rejection,
}

impl DeadLetter {
    #[must_use]
    pub fn new(message: RawMessage, rejection: Rejection) -> Self {
        let RawMessage { position, ingested_at, subject, payload } = message;
        Self { position, ingested_at, subject, payload, rejection }
    }

    /// Where in the pipeline it was found: messages are judged when they are decoded.
    pub const STAGE: &'static str = "decode";
}

/// Copies dead letters to their own stream, each once.
pub struct DeadLetters {
    log: Log,
    /// The highest position already copied.
    last: Position,
}

impl DeadLetters {
    /// Continue after what the stream already holds.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn open(log: Log) -> BoxFuture<'static, Result<Self, LogError>> {
        async move {
            let last = Self::last_copied(&log).await?;
            Ok(Self { log, last })
        }
        .boxed()
    }

    async fn last_copied(log: &Log) -> Result<Position, LogError> {
        let state = log.state(topology::DEAD_LETTERS).await?;
        if state.messages == 0 {
            return Ok(Position::START);
        }
        let failed = |source: async_nats::Error| LogError::State { stream: topology::DEAD_LETTERS, source };
        let stream = log.context().get_stream(topology::DEAD_LETTERS).await.map_err(|e| failed(e.into()))?;
        let message = stream.get_raw_message(state.last_sequence).await.map_err(|e| failed(e.into()))?;
        let position = message.headers.get(POSITION_HEADER).and_then(|value| value.as_str().parse().ok());
        Ok(Position::new(position.unwrap_or_default()))
    }

    /// Copy letters, in the order of their positions. Those already copied are passed over.
    ///
    /// # Errors
    /// When the server does not acknowledge; copying the same letters again is safe.
    pub fn copy<'a>(&'a mut self, letters: &'a [DeadLetter]) -> BoxFuture<'a, Result<(), async_nats::Error>> {
        async move {
            let room = self.log.client().max_payload();
            let new: Vec<&DeadLetter> = letters.iter().filter(|letter| letter.position > self.last).collect();
            for slice in new.chunks(SLICE) {
                let mut acks = Vec::new();
                for letter in slice {
                    let headers = headers(letter);
                    if wire_length(&headers) + letter.payload.len() > room {
                        // A message as large as messages get has no room for the reason. The lake's table has it whole.
                        tracing::warn!(position = letter.position.get(), "a dead letter is too large to copy");
                        continue;
                    }
                    let subject = format!("dead.{}.{}", DeadLetter::STAGE, letter.rejection.code.as_str());
                    acks.push(self.log.context().publish_with_headers(subject, headers, letter.payload.clone()).await?);
                }
                try_join_all(acks.into_iter().map(std::future::IntoFuture::into_future)).await?;
                self.last = slice.iter().map(|letter| letter.position).max().unwrap_or(self.last).max(self.last);
            }
            Ok(())
        }
        .boxed()
    }
}

/// What headers take in a message.
fn wire_length(headers: &HeaderMap) -> usize {
    /// `NATS/1.0` with its line breaks, and the empty line at the end.
    const FRAME: usize = 14;
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| name.len() + value.as_str().len() + 4)
    });
    FRAME + lines.sum::<usize>()
}

fn headers(letter: &DeadLetter) -> HeaderMap {
    let position = letter.position.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, format!("{}-{position}", DeadLetter::STAGE));
    let mut set = |name: &'static str, value: &str| {
        // A header is one line.
        headers.insert(name, value.replace(['\r', '\n'], " ").as_str());
    };
    set(POSITION_HEADER, &position);
    set("Forecourt-Subject", &letter.subject.chars().take(MAX_SUBJECT).collect::<String>());
    set("Forecourt-Reason", letter.rejection.code.as_str());
    set("Forecourt-Message", &letter.rejection.message);
    if let Some(field) = &letter.rejection.field {
        set("Forecourt-Field", field);
    }
    headers
}
