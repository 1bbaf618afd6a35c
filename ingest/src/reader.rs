//! Messages of the log from a position on.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        Message,
        consumer::{
            AckPolicy, DeliverPolicy, PullConsumer,
            pull::{Batch, Config},
        },
    },
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
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
/// How long a request for messages stands. One that got lost is made again soon after.
const REQUEST_FOR: Duration = Duration::from_secs(5);
/// How long the server keeps our consumer while we ask it for nothing.
const KEEP_CONSUMER_FOR: Duration = Duration::from_secs(60);

/// A message as the log holds it.
#[derive(Clone, Debug)]
pub struct RawMessage {
    pub position: Position,
    /// When the log took it: microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub subject: String,
    pub payload: Bytes,
}

/// Reads the log in order, each position once, across restarts of the server.
pub struct LogReader {
    log: Log,
    last: Position,
    reading: Option<Reading>,
    backoff: Backoff,
}

impl LogReader {
    /// A reader of everything after `from`.
    #[must_use]
    pub fn after(log: Log, from: Position) -> Self {
        Self { log, last: from, reading: None, backoff: Backoff::default() }
    }

    /// The next messages, at least one, in order. Waits for them, and for the server if it is away.
    ///
    /// Dropping the future loses nothing.
    pub fn next_messages(&mut self) -> BoxFuture<'_, Vec<RawMessage>> {
        async move {
            loop {
                let messages = match &mut self.reading {
                    Some(reading) => reading.next().await,
                    None => self.open().await.map(|()| Vec::new()),
                };
                match messages {
                    Ok(messages) => {
                        if let Some(last) = messages.last() {
                            self.last = last.position;
                            self.backoff = Backoff::default();
                            return messages;
                        }
                    }
                    Err(error) => {
                        self.reading = None;
                        tracing::warn!(error = %error, position = self.last.get(), "the log went away; reading on from here");
                        tokio::time::sleep(self.backoff.next_pause()).await;
                    }
                }
            }
        }
        .boxed()
    }

    async fn open(&mut self) -> Result<(), async_nats::Error> {
        self.reading = Some(Reading::open(&self.log, self.last).await?);
        Ok(())
    }
}

/// A consumer of the log, over one connection.
///
/// We ask for one batch after the other. The client's own stream of batches counts messages that come before their
/// request is noted as sent as if they had never come, and then waits for them.
struct Reading {
    consumer: PullConsumer,
    connection: Connection,
    /// The batch asked for, and what had been delivered before it.
    batch: Option<(Batch, u64)>,
    /// Messages the consumer has delivered: a gap in its count is a message lost on its way.
    delivered: u64,
}

impl Reading {
    async fn open(log: &Log, last: Position) -> Result<Self, async_nats::Error> {
        let connection = log.connection();
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: last.next().get() },
            ack_policy: AckPolicy::None,
            inactive_threshold: KEEP_CONSUMER_FOR,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = log.context().get_stream(EVENTS).await?.create_consumer(config).await?;
        Ok(Self { consumer, connection, batch: None, delivered: 0 })
    }

    /// What comes next, together with what is there already; empty, if nothing came for a while.
    async fn next(&mut self) -> Result<Vec<RawMessage>, async_nats::Error> {
        let (batch, before) = match &mut self.batch {
            Some(batch) => batch,
            None => {
                let request = self.consumer.batch().max_messages(MAX_CHUNK).max_bytes(MAX_CHUNK_BYTES);
                let batch = request.expires(REQUEST_FOR).messages().await?;
                self.batch.insert((batch, self.delivered))
            }
        };
        let mut next = tokio::select! {
            biased;
            message = batch.next() => message,
            () = self.connection.replaced() => return Err("another connection has taken its place".into()),
        };
        let mut messages = Vec::new();
        loop {
            match next {
                Some(Ok(message)) => {
                    let (sequence, message) = raw(message)?;
                    if sequence != self.delivered + 1 {
                        return Err(format!("message {} was lost on its way", self.delivered + 1).into());
                    }
                    self.delivered = sequence;
                    messages.push(message);
                }
                Some(Err(error)) if self.delivered == *before => return Err(error),
                // It has no room for the next message; or the next request is told what is wrong.
                Some(Err(_)) | None => {
                    self.batch = None;
                    return Ok(messages);
                }
            }
            // Without tokio's budget, which would end every batch after some hundred messages.
            next = match unconstrained(batch.next()).now_or_never() {
                Some(next) => next,
                None => return Ok(messages),
            };
        }
    }
}

/// The message, and the how manieth of its consumer it is.
fn raw(message: Message) -> Result<(u64, RawMessage), async_nats::Error> {
    let info = message.info()?;
    let ingested_at = i64::try_from(info.published.unix_timestamp_nanos() / 1_000)?;
    let (sequence, position) = (info.consumer_sequence, Position::new(info.stream_sequence));
    let headers = message.message.headers.as_ref();
    let payload = headers.and_then(|headers| cloud_event(headers, &message.message.payload));
    let subject = message.message.subject.to_string();
    let payload = payload.unwrap_or(message.message.payload);
    Ok((sequence, RawMessage { position, ingested_at, subject, payload }))
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
