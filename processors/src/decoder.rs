//! Decodes batches of messages with retries. A message that cannot be decoded becomes a dead letter.

use std::sync::Arc;

use ingest::{Backoff, MessageFault, RawMessage, SeenError, SeenEvents};
use schemas::{Catalogue, Position};
use tokio::sync::watch;

use crate::{
    decode::{DecodeError, Decoded},
    error::PipelineError,
};

/// Tries of decoding before the process ends. Its messages are in the log.
const MAX_DECODE_TRIES: u32 = 5;

/// Decodes messages in order.
pub(crate) struct Decoder {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) seen: Arc<SeenEvents>,
    /// What was decoded last.
    pub(crate) after: Position,
    /// Where the last dead letter was found.
    pub(crate) found: watch::Sender<Position>,
    /// What makes rows of messages.
    pub(crate) decode: Decode,
}

pub(crate) type Decode = fn(&Arc<Catalogue>, &SeenEvents, Position, &[RawMessage]) -> Result<Decoded, DecodeError>;

/// Why messages were not decoded.
enum DecodeFailure {
    /// The store of seen events, whatever the messages are.
    Seen(SeenError),
    /// One of the messages: it made this error, or a panic.
    Message(String),
}

impl Decoder {
    /// Decode on a thread for such work. What fails for a while is tried again; a message that cannot be decoded becomes a
    /// dead letter; a damaged store of seen events is deleted, to be filled from the lake by the next start.
    pub(crate) async fn decode_with_retries(
        &mut self,
        messages: Vec<RawMessage>,
    ) -> Result<Vec<Decoded>, PipelineError> {
        let (mut tries, mut backoff, messages) = (0, Backoff::default(), Arc::new(messages));
        loop {
            tries += 1;
            match self.decode(&messages).await {
                Ok(decoded) => {
                    self.after = decoded.to;
                    return Ok(vec![decoded]);
                }
                Err(DecodeFailure::Seen(error)) if tries < MAX_DECODE_TRIES || error.is_scarcity() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot decode; trying again");
                }
                Err(DecodeFailure::Seen(error)) => {
                    self.seen.discard()?;
                    return Err(error.into());
                }
                Err(DecodeFailure::Message(error)) if tries < MAX_DECODE_TRIES => {
                    tracing::warn!(error, "cannot decode; trying again");
                }
                Err(DecodeFailure::Message(_)) => return self.decode_each(&messages).await,
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    async fn decode(&self, messages: &Arc<Vec<RawMessage>>) -> Result<Decoded, DecodeFailure> {
        let (catalogue, seen) = (Arc::clone(&self.catalogue), Arc::clone(&self.seen));
        let (after, decode, messages) = (self.after, self.decode, Arc::clone(messages));
        match tokio::task::spawn_blocking(move || decode(&catalogue, &seen, after, &messages)).await {
            Ok(Ok(decoded)) => Ok(decoded),
            Ok(Err(DecodeError::Seen(error))) => Err(DecodeFailure::Seen(error)),
            Ok(Err(error @ DecodeError::Rows(_))) => Err(DecodeFailure::Message(error.to_string())),
            Err(error) => Err(DecodeFailure::Message(error.to_string())),
        }
    }

    /// Decode each message alone; one that cannot be becomes a dead letter.
    async fn decode_each(&mut self, messages: &[RawMessage]) -> Result<Vec<Decoded>, PipelineError> {
        let (mut each, mut backoff) = (Vec::with_capacity(messages.len()), Backoff::default());
        for message in messages {
            let mut message = message.clone();
            let decoded = loop {
                match self.decode(&Arc::new(vec![message.clone()])).await {
                    Ok(decoded) => break decoded,
                    Err(DecodeFailure::Seen(error)) if error.is_scarcity() => {
                        tokio::time::sleep(backoff.next_pause()).await
                    }
                    Err(DecodeFailure::Seen(error)) => {
                        self.seen.discard()?;
                        return Err(error.into());
                    }
                    Err(DecodeFailure::Message(error)) => {
                        let position = message.position.get();
                        tracing::error!(position, error, "a message cannot be decoded; it becomes a dead letter");
                        let reason = format!("it cannot be decoded: {error}");
                        message.fault = Some(MessageFault { reason, headers: None });
                    }
                }
            };
            self.after = decoded.to;
            each.push(decoded);
        }
        Ok(each)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ingest::{RawMessage, SeenEvents};
    use schemas::{Catalogue, Position};
    use serde_json::json;
    use tokio::sync::watch;

    use super::{Decode, Decoder};
    use crate::decode::{DecodeError, Decoded, decode, message};

    /// A decoder of which one message is too much, as long as it is to be decoded.
    fn spoiled(
        catalogue: &Arc<Catalogue>,
        seen: &SeenEvents,
        after: Position,
        messages: &[RawMessage],
    ) -> Result<Decoded, DecodeError> {
        let is_too_much = |message: &&RawMessage| message.position.get() == 3 && message.fault.is_none();
        assert!(!messages.iter().any(|message| is_too_much(&message)), "this one is too much");
        decode(catalogue, seen, after, messages)
    }

    async fn decoded(decode: Decode) -> (Vec<Decoded>, Position) {
        let catalogue = Catalogue::embedded().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let seen = Arc::new(SeenEvents::open(folder.path(), "log", Position::new(u64::MAX)).unwrap());
        let messages = (1..=5).map(|position| {
            let event = json!({
                "eventId": format!("e-{position}"), "eventType": "PriceSet", "timestamp": "2026-11-02T08:30:00Z",
                "aggregateId": "lst.1", "data": {"listingId": "lst.1", "price": 9}
            });
            message(&catalogue, position, &event)
        });
        let messages = messages.collect();
        let (found, _) = watch::channel(Position::START);
        let mut decoder = Decoder { catalogue, seen, after: Position::START, found, decode };
        let decoded = decoder.decode_with_retries(messages).await.unwrap();
        (decoded, decoder.after)
    }

    /// The others are rows, also those that came with it.
    #[tokio::test]
    async fn a_message_that_the_decoder_panics_on_is_a_dead_letter() {
        let (decoded, after) = decoded(spoiled).await;
        let letters: Vec<_> = decoded.iter().flat_map(|it| &it.dead_letters).collect();
        assert_eq!((letters.len(), letters[0].position.get(), after.get()), (1, 3, 5));
        assert_eq!(letters[0].rejection.code.as_str(), "unreadable_message");
        assert_eq!(letters[0].rejection.event_id.as_deref(), Some("e-3"));
        assert_eq!(decoded.iter().map(|it| it.events).sum::<usize>(), 4);
    }

    #[tokio::test]
    async fn what_can_be_decoded_is_decoded_at_once() {
        let (decoded, after) = decoded(decode).await;
        assert_eq!((decoded.len(), decoded[0].events, after.get()), (1, 5, 5));
    }
}
