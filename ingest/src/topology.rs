//! The streams and subjects of the log.

use std::time::Duration;

use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, StorageType},
    },
};
use schemas::{Position, names::subject_token};

/// Every event of the marketplace.
pub const EVENTS: &str = "EVENTS";
/// What arrived in `EVENTS` and is no event.
pub const DEAD_LETTERS: &str = "DEAD_LETTERS";

/// How long the log keeps an event. The lake has it long before.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the server itself recognises a repeated message id. Beyond it, the seen events do.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long one request to the server may take: an fsync on a busy disk is slow, a dead server is slower.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What keeps us from the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot connect to NATS at {url}; is nats-server running there, with JetStream?")]
    Connect {
        url: String,
        #[source]
        source: async_nats::ConnectError,
    },
    #[error("cannot create or update stream {stream}; the server needs JetStream and version 2.12 or newer")]
    Stream {
        stream: &'static str,
        #[source]
        source: async_nats::Error,
    },
    #[error("cannot read the state of stream {stream}")]
    State {
        stream: &'static str,
        #[source]
        source: async_nats::Error,
    },
    #[error("nats-server {found} is too old; atomic batches need 2.12 or newer")]
    TooOld { found: String },
    #[error(
        "the log ends at position {log} but the lake already holds position {lake}: the stream was recreated or \
         rewound. Point --data at a new folder, or restore the stream"
    )]
    Behind { log: Position, lake: Position },
    #[error(
        "the log begins at position {first} but the lake ends at {lake}: events between them were purged before the \
         lake had them. Restore the stream from a backup, or accept the loss with a new --data folder"
    )]
    Purged { first: Position, lake: Position },
}

/// A connection to the log, its streams in place.
#[derive(Clone, Debug)]
pub struct Log {
    client: Client,
    context: jetstream::Context,
}

impl Log {
    /// Connect, and create or update the streams.
    ///
    /// # Errors
    /// When the server is not there, too old, or refuses the streams.
    pub async fn connect(url: &str) -> Result<Self, LogError> {
        let client = ConnectOptions::new()
            .name("forecourt")
            .max_reconnects(None)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connect(url)
            .await
            .map_err(|source| LogError::Connect { url: url.to_owned(), source })?;
        if !client.is_server_compatible(2, 12, 0) {
            return Err(LogError::TooOld { found: client.server_info().version });
        }
        let context = jetstream::new(client.clone());
        let log = Self { client, context };
        log.ensure(EVENTS, "events.>").await?;
        log.ensure(DEAD_LETTERS, "dead.>").await?;
        Ok(log)
    }

    async fn ensure(&self, name: &'static str, subjects: &str) -> Result<(), LogError> {
        let config = Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_age: MAX_AGE,
            duplicate_window: DUPLICATE_WINDOW,
            allow_atomic_publish: true,
            ..Config::default()
        };
        let made = match self.context.get_stream(name).await {
            // An operator may have chosen another age or size: leave those, and ask only for what we need.
            Ok(stream) if stream.cached_info().config.allow_atomic_publish => return Ok(()),
            Ok(stream) => {
                let current = stream.cached_info().config.clone();
                self.context
                    .update_stream(Config { allow_atomic_publish: true, ..current })
                    .await
                    .map(drop)
                    .map_err(Into::into)
            }
            Err(_) => self.context.create_stream(config).await.map(drop).map_err(Into::into),
        };
        made.map_err(|source| LogError::Stream { stream: name, source })
    }

    /// Before the first kept position, and the last position, of the log: the kept events are in `(first, last]`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn extent(&self) -> Result<(Position, Position), LogError> {
        let state = self.state(EVENTS).await?;
        let before_first = state.first_sequence.saturating_sub(1);
        Ok((Position::new(before_first), Position::new(state.last_sequence)))
    }

    /// Check that the log can continue a lake that reflects `lake`.
    ///
    /// # Errors
    /// [`LogError::Behind`] or [`LogError::Purged`], which say how to repair it.
    pub async fn check_continues(&self, lake: Position) -> Result<(), LogError> {
        let (first, last) = self.extent().await?;
        if last < lake {
            return Err(LogError::Behind { log: last, lake });
        }
        if first > lake {
            return Err(LogError::Purged { first: first.next(), lake });
        }
        Ok(())
    }

    pub(crate) async fn state(&self, stream: &'static str) -> Result<jetstream::stream::State, LogError> {
        let failed = |source: async_nats::Error| LogError::State { stream, source };
        let mut handle = self.context.get_stream(stream).await.map_err(|e| failed(e.into()))?;
        Ok(handle.info().await.map_err(|e| failed(e.into()))?.state.clone())
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn context(&self) -> &jetstream::Context {
        &self.context
    }
}

/// `events.<context>.<EventType>.<aggregate>`, each token made safe.
#[must_use]
pub fn event_subject(context: &str, event_type: &str, aggregate_id: &str) -> String {
    format!("events.{context}.{event_type}.{}", subject_token(aggregate_id))
}

/// The context an event's subject names.
#[must_use]
pub fn subject_context(subject: &str) -> Option<&str> {
    subject.strip_prefix("events.")?.split('.').next()
}
