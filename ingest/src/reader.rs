//! Messages of the log from a position on.

use async_nats::{
    HeaderMap,
    jetstream::{
        Message,
        consumer::{DeliverPolicy, pull::OrderedConfig},
    },
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use schemas::{Position, envelope};
use tokio::task::unconstrained;

use crate::{
    Backoff, Log,
    topology::{Connection, EVENTS},
};

/// Messages handed over at once: enough to amortise a batch, few enough to stay fresh.
const MAX_CHUNK: usize = 8_192;
/// Bytes handed over at once: messages may be large.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// A message as the log holds it.
#[derive(Clone, Debug)]
pub struct RawMessage {
    pub position: Position,
    /// When the log took it: microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub subject: String,
    pub payload: Bytes,
}

type Messages = async_nats::jetstream::consumer::pull::Ordered;

/// Reads the log in order, each position once, across restarts of the server.
pub struct LogReader {
    log: Log,
    last: Position,
    messages: Option<(Messages, Connection)>,
    backoff: Backoff,
}

impl LogReader {
    /// A reader of everything after `from`.
    #[must_use]
    pub fn after(log: Log, from: Position) -> Self {
        Self { log, last: from, messages: None, backoff: Backoff::default() }
    }

    /// The next messages, at least one, in order. Waits for them, and for the server if it is away.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Vec<RawMessage> {
        loop {
            let Some((messages, connection)) = &mut self.messages else {
                self.open().await;
                continue;
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
            // Wait for the first; then take what is there already.
            let mut next = tokio::select! {
                biased;
                message = messages.next() => Some(message),
                () = connection.replaced() => None,
            };
            loop {
                match next.flatten().map(|message| message.map_err(async_nats::Error::from).and_then(raw)) {
                    // An ordered consumer that starts over may repeat what we have.
                    Some(Ok(message)) if message.position <= self.last => {}
                    Some(Ok(message)) => {
                        self.last = message.position;
                        bytes += message.payload.len();
                        batch.push(message);
                    }
                    Some(Err(error)) => {
                        tracing::warn!(error = %error, position = self.last.get(), "the log went away; reading on from here");
                        self.messages = None;
                        break;
                    }
                    None => {
                        self.messages = None;
                        break;
                    }
                }
                if batch.len() == MAX_CHUNK || bytes >= MAX_CHUNK_BYTES {
                    break;
                }
                // Without tokio's budget, which would end every batch after some hundred messages.
                next = match unconstrained(messages.next()).now_or_never() {
                    Some(next) => Some(next),
                    None => break,
                };
            }
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    async fn open(&mut self) {
        let connection = self.log.connection();
        match open_after(&self.log, self.last).await {
            Ok(messages) => {
                self.messages = Some((messages, connection));
                self.backoff = Backoff::default();
            }
            Err(error) => {
                tracing::warn!(error = %error, "the log is not there; trying again");
                tokio::time::sleep(self.backoff.next_pause()).await;
            }
        }
    }
}

async fn open_after(log: &Log, last: Position) -> Result<Messages, async_nats::Error> {
    let stream = log.context().get_stream(EVENTS).await?;
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: last.next().get() };
    let consumer = stream.create_consumer(OrderedConfig { deliver_policy, ..OrderedConfig::default() }).await?;
    Ok(consumer.messages().await?)
}

fn raw(message: Message) -> Result<RawMessage, async_nats::Error> {
    let info = message.info()?;
    let ingested_at = i64::try_from(info.published.unix_timestamp_nanos() / 1_000)?;
    let position = Position::new(info.stream_sequence);
    let headers = message.message.headers.as_ref();
    let payload = headers.and_then(|headers| cloud_event(headers, &message.message.payload));
    let subject = message.message.subject.to_string();
    Ok(RawMessage { position, ingested_at, subject, payload: payload.unwrap_or(message.message.payload) })
}

/// A CloudEvent whose attributes are in the headers, as one in JSON. One whose payload is no JSON is left as it is.
fn cloud_event(headers: &HeaderMap, payload: &[u8]) -> Option<Bytes> {
    let named = headers.iter().filter_map(|(name, values)| {
        let name = name.to_string().to_ascii_lowercase();
        Some((name, values.first()?.as_str()))
    });
    let named: Vec<(String, &str)> = named.collect();
    let joined = envelope::structured(named.iter().map(|(name, value)| (name.as_str(), *value)), payload)?;
    joined.ok().map(Bytes::from)
}
