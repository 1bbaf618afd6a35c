//! Messages of the log from a position on.
//!
//! A message is read as the client library delivers it. One that the library cannot parse ends its connection, at every
//! try: it is then asked for as data, and handed on with what is wrong in it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    stored_message::{self, Asked, StoredMessage, StoredMessageError, parse_headers},
    topology::{Connection, EVENTS},
};

/// Messages handed over at once: enough to amortise a batch, few enough to stay fresh.
const MAX_CHUNK: usize = 8_192;
/// Bytes handed over at once: messages may be large.
const MAX_CHUNK_BYTES: usize = 16 << 20;
/// What a message takes beside its headers and payload, as the server counts: its subject, and that of its acknowledgement.
const ADDRESSES: usize = 64 << 10;
/// How long a request for messages stands. One that got lost is made again soon after.
const REQUEST_FOR: Duration = Duration::from_secs(5);
/// How long the server keeps our consumer while we ask it for nothing.
const KEEP_CONSUMER_FOR: Duration = Duration::from_secs(60);
/// Tries of the client library at one position before the message is asked for as data.
const MAX_DELIVERIES: u32 = 2;
/// Tries to be told of a message whose data is none, before it is passed over.
const MAX_MALFORMED: u32 = 5;
/// Messages asked for as data after one that had to be: others like it are often near.
const FIRST_STRETCH: u32 = 16;
/// The longest such stretch. Each that ends at another such message is followed by one twice as long.
const LONGEST_STRETCH: u32 = 4_096;

/// A message as the log holds it.
#[derive(Clone, Debug)]
pub struct RawMessage {
    pub position: Position,
    /// When the log took it: microseconds since 1970, UTC.
    pub ingested_at: i64,
    pub subject: String,
    pub payload: Bytes,
    /// Why it is no event, whatever its payload says.
    pub fault: Option<MessageFault>,
}

/// What is wrong with a message as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFault {
    /// What is wrong, in words.
    pub reason: String,
    /// Its block of headers, as the log holds it.
    pub headers: Option<Bytes>,
}

/// Reads the log in order, each position once, across restarts of the server.
pub struct LogReader {
    log: Log,
    last: Position,
    reading: Option<Reading>,
    /// What went wrong since the last message.
    failures: Failures,
    backoff: Backoff,
    /// Whether what cannot be read is told of: by who reads it first.
    tells: bool,
    /// Messages still asked for as data, and how many the next time.
    as_data: u32,
    next_stretch: u32,
}

/// Tries at one position that gave no message.
#[derive(Default)]
struct Failures {
    /// Of the client library.
    deliveries: u32,
    /// Of the server, which was asked for data.
    malformed: u32,
}

impl LogReader {
    /// A reader of everything after `from`. It has a connection of its own: what it cannot read costs nobody else theirs.
    #[must_use]
    pub fn after(log: Log, from: Position) -> Self {
        Self {
            log,
            last: from,
            reading: None,
            failures: Failures::default(),
            backoff: Backoff::default(),
            tells: true,
            as_data: 0,
            next_stretch: FIRST_STRETCH,
        }
    }

    /// The same for who reads what was read before: what cannot be read is known by now.
    #[must_use]
    pub fn quietly(self) -> Self {
        Self { tells: false, ..self }
    }

    /// The next messages, at least one, in order. Waits for them, and for the server if it is away.
    ///
    /// Dropping the future loses nothing.
    pub fn next_messages(&mut self) -> BoxFuture<'_, Vec<RawMessage>> {
        async move {
            loop {
                let messages = if self.as_data > 0 || self.failures.deliveries >= MAX_DELIVERIES {
                    self.next_as_data().await
                } else {
                    self.next_delivered().await
                };
                match messages {
                    Ok(messages) => {
                        if let Some(last) = messages.last() {
                            self.last = last.position;
                            self.failures = Failures::default();
                            self.backoff = Backoff::default();
                            return messages;
                        }
                    }
                    Err(error) => {
                        self.reading = None;
                        let position = self.last.get();
                        if self.tells {
                            tracing::warn!(error = %error, position, "cannot read on in the log; trying again");
                        } else {
                            tracing::debug!(error = %error, position, "cannot read on in the log; trying again");
                        }
                        tokio::time::sleep(self.backoff.next_pause()).await;
                    }
                }
            }
        }
        .boxed()
    }

    /// What the client library delivers next; nothing, if there is nothing for a while.
    async fn next_delivered(&mut self) -> Result<Vec<RawMessage>, async_nats::Error> {
        let messages = async {
            let reading = match &mut self.reading {
                Some(reading) => reading,
                None => self.reading.insert(Reading::open(&self.log, self.last).await?),
            };
            let messages = reading.next().await?;
            let is_withheld = messages.is_empty()
                && reading.batch.is_none()
                && self.log.look().await?.last > self.last
                && self.log.last_message().await? > self.last;
            Ok((messages, is_withheld))
        };
        match messages.await {
            Ok((messages, is_withheld)) => {
                // A message that the library takes for the server's word on its request is handed to nobody. One that came
                // just now is there at the next look.
                self.failures.deliveries += u32::from(is_withheld);
                Ok(messages)
            }
            Err(error) => {
                self.failures.deliveries += 1;
                Err(error)
            }
        }
    }

    /// The next message, as data; nothing, if there is none.
    async fn next_as_data(&mut self) -> Result<Vec<RawMessage>, async_nats::Error> {
        // A consumer would deliver again what is read here.
        self.reading = None;
        match stored_message::get(self.log.context(), EVENTS, Asked::from(self.last.next())).await {
            Ok(Some(stored)) => {
                let message = RawMessage::from(stored);
                if let Some(fault) = message.fault.as_ref().filter(|_| self.tells) {
                    let (position, reason) = (message.position.get(), fault.reason.as_str());
                    tracing::error!(position, reason, "a message cannot be read; it becomes a dead letter");
                }
                if message.fault.is_some() {
                    self.as_data = self.next_stretch;
                    self.next_stretch = (self.next_stretch * 2).min(LONGEST_STRETCH);
                } else if self.failures.deliveries >= MAX_DELIVERIES {
                    self.as_data = FIRST_STRETCH;
                } else {
                    self.as_data -= 1;
                    if self.as_data == 0 {
                        self.next_stretch = FIRST_STRETCH;
                    }
                }
                Ok(vec![message])
            }
            Ok(None) => {
                (self.as_data, self.next_stretch) = (0, FIRST_STRETCH);
                self.failures = Failures::default();
                Ok(Vec::new())
            }
            Err(StoredMessageError::Malformed { position, what }) if self.failures.malformed + 1 >= MAX_MALFORMED => {
                tracing::error!(
                    position = position.get(),
                    what,
                    "a message cannot be read; it becomes a dead letter without its bytes"
                );
                let reason = format!("the NATS server's answer of it has {what}");
                let fault = Some(MessageFault { reason, headers: None });
                let (subject, payload) = (String::new(), Bytes::new());
                Ok(vec![RawMessage { position, ingested_at: now(), subject, payload, fault }])
            }
            Err(error) => {
                self.failures.malformed += u32::from(matches!(error, StoredMessageError::Malformed { .. }));
                Err(error.into())
            }
        }
    }
}

/// Microseconds since 1970, UTC.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl From<StoredMessage> for RawMessage {
    fn from(stored: StoredMessage) -> Self {
        let StoredMessage { position, ingested_at, subject, headers, payload } = stored;
        let (payload, fault) = match headers.as_deref().map(parse_headers).transpose() {
            Ok(headers) => (with_attributes(headers.as_ref(), payload), None),
            Err(reason) => (payload, Some(MessageFault { reason, headers })),
        };
        let is_text = !subject.contains(char::REPLACEMENT_CHARACTER);
        let no_text = || MessageFault { reason: "the subject is no UTF-8".to_owned(), headers: None };
        let fault = fault.or_else(|| (!is_text).then(no_text));
        Self { position, ingested_at, subject, payload, fault }
    }
}

/// A consumer of the log, over a connection of its own.
///
/// We ask for one batch after the other. The client's own stream of batches counts messages that come before their
/// request is noted as sent as if they had never come, and then waits for them.
struct Reading {
    /// Open for as long as the consumer is read.
    _log: Log,
    consumer: PullConsumer,
    connection: Connection,
    /// The largest request: any message fits into it.
    max_bytes: usize,
    /// The batch asked for, and what had been delivered before it.
    batch: Option<(Batch, u64)>,
    /// Messages the consumer has delivered: a gap in its count is a message lost on its way.
    delivered: u64,
}

impl Reading {
    async fn open(log: &Log, last: Position) -> Result<Self, async_nats::Error> {
        let log = log.connect_apart().await?;
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
        let max_bytes = MAX_CHUNK_BYTES.max(log.client().max_payload() + ADDRESSES);
        Ok(Self { _log: log, consumer, connection, max_bytes, batch: None, delivered: 0 })
    }

    /// What comes next, together with what is there already; empty, if nothing came for a while.
    async fn next(&mut self) -> Result<Vec<RawMessage>, async_nats::Error> {
        let (batch, before) = match &mut self.batch {
            Some(batch) => batch,
            None => {
                let request = self.consumer.batch().max_messages(MAX_CHUNK).max_bytes(self.max_bytes);
                let batch = request.expires(REQUEST_FOR).messages().await?;
                self.batch.insert((batch, self.delivered))
            }
        };
        let mut next = tokio::select! {
            biased;
            message = batch.next() => message,
            () = self.connection.replaced() => return Err("its connection was closed".into()),
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
    let message = message.message;
    if let Some(status) = message.status {
        // It is taken as any other whose headers begin so: as data.
        return Err(format!("a message has the status {status}").into());
    }
    let (subject, payload) = (message.subject.to_string(), with_attributes(message.headers.as_ref(), message.payload));
    Ok((sequence, RawMessage { position, ingested_at, subject, payload, fault: None }))
}

/// The payload; that of a CloudEvent with the attributes that are in its headers.
fn with_attributes(headers: Option<&HeaderMap>, payload: Bytes) -> Bytes {
    headers.and_then(|headers| cloud_event(headers, &payload)).unwrap_or(payload)
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
