//! Where messages go that are no events: kept whole, with the reason.

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, try_join_all},
};
use schemas::{Position, Rejection};

use crate::{
    Log, LogError, RawMessage,
    stored_message::{self, Asked, parse_headers},
    topology,
};

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
    /// Its block of headers, if that is what is wrong with it.
    pub headers: Option<Bytes>,
    pub rejection: Rejection,
}

impl DeadLetter {
    #[must_use]
    pub fn new(message: RawMessage, rejection: Rejection) -> Self {
        let RawMessage { position, ingested_at, subject, payload, fault } = message;
        Self { position, ingested_at, subject, payload, headers: fault.and_then(|fault| fault.headers), rejection }
    }

    /// Where in the pipeline it was found: messages are judged when they are decoded.
    pub const STAGE: &'static str = "decode";
}

/// What is copied of a dead letter.
#[derive(Clone, Debug)]
pub struct LetterCopy {
    pub position: Position,
    pub subject: String,
    /// Why it is no event, as a code and in words.
    pub reason: String,
    pub message: String,
    pub field: Option<String>,
    pub payload: Bytes,
    /// Its block of headers, if that is what is wrong with it.
    pub headers: Option<Bytes>,
}

/// Copies dead letters to their own stream, each once.
pub struct DeadLetterStream {
    log: Log,
    /// The highest position already copied.
    last: Position,
}

impl DeadLetterStream {
    /// Continue after what the stream already holds; after `from`, when that is gone. A stream that was deleted is made again.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn open(log: Log, from: Position) -> BoxFuture<'static, Result<Self, LogError>> {
        async move {
            log.prepare_dead_letters().await?;
            let last = Self::last_copied(&log, from).await?;
            Ok(Self { log, last })
        }
        .boxed()
    }

    /// The position of the last copy. Of a stream whose copies are gone it is `from`; a new one has none.
    async fn last_copied(log: &Log, from: Position) -> Result<Position, LogError> {
        let state = log.state(topology::DEAD_LETTERS).await?;
        if state.last_sequence == 0 {
            return Ok(Position::START);
        }
        let last = stored_message::get(log.context(), topology::DEAD_LETTERS, Asked::last("dead.>")).await;
        let last = last.map_err(|source| LogError::State { stream: topology::DEAD_LETTERS, source: source.into() })?;
        let headers = last.and_then(|message| parse_headers(&message.headers?).ok());
        let position = headers.and_then(|headers| headers.get(POSITION_HEADER)?.as_str().parse().ok());
        Ok(position.map_or(from, Position::new))
    }

    /// The highest position that is copied.
    #[must_use]
    pub const fn last(&self) -> Position {
        self.last
    }

    /// Copy letters, in the order of their positions. Those already copied are passed over.
    ///
    /// # Errors
    /// When the server does not acknowledge; copying the same letters again is safe.
    pub fn copy<'a>(&'a mut self, letters: &'a [LetterCopy]) -> BoxFuture<'a, Result<(), async_nats::Error>> {
        async move {
            let room = self.log.client().max_payload();
            let new: Vec<&LetterCopy> = letters.iter().filter(|letter| letter.position > self.last).collect();
            for slice in new.chunks(SLICE) {
                let mut acks = Vec::new();
                for letter in slice {
                    let headers = headers(letter);
                    if wire_length(&headers) + letter.payload.len() > room {
                        // A message as large as messages get has no room for the reason. The lake's table has it whole.
                        tracing::warn!(position = letter.position.get(), "a dead letter is too large to copy");
                        continue;
                    }
                    let subject = format!("dead.{}.{}", DeadLetter::STAGE, letter.reason);
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

fn headers(letter: &LetterCopy) -> HeaderMap {
    let position = letter.position.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, format!("{}-{position}", DeadLetter::STAGE));
    let mut set = |name: &'static str, value: &str| {
        // A header is one line.
        headers.insert(name, value.replace(['\r', '\n'], " ").as_str());
    };
    set(POSITION_HEADER, &position);
    set("Forecourt-Subject", &letter.subject.chars().take(MAX_SUBJECT).collect::<String>());
    set("Forecourt-Reason", &letter.reason);
    set("Forecourt-Message", &letter.message);
    if let Some(field) = &letter.field {
        set("Forecourt-Field", field);
    }
    if let Some(block) = &letter.headers {
        set("Forecourt-Headers-Base64", &BASE64_STANDARD.encode(block));
    }
    headers
}
