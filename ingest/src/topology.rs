//! The streams and subjects of the log.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event, ServerAddr,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, StorageType},
    },
};
use futures::{FutureExt, future::BoxFuture};
use percent_encoding::percent_decode_str;
use schemas::{Position, names::subject_token};
use tokio::sync::watch;

use crate::stored_message::{self, Asked};

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

/// How long the client may take to tell that it is connected.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

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
        "the log ends at position {log} but the lake already holds position {lake}: the stream was rewound. Restore \
         stream EVENTS from a backup; or delete it (nats stream rm EVENTS) and start again: forecourt then makes one \
         that goes on after the lake"
    )]
    Behind { log: Position, lake: Position },
    #[error(
        "stream EVENTS is another one than the lake's: it was recreated, and its positions ({first} to {last}) mean \
         other events than the lake's (to {lake}). Restore the stream from a backup; or save what it holds, delete it \
         (nats stream rm EVENTS) and start again: forecourt then makes one that goes on after the lake"
    )]
    Recreated { first: Position, last: Position, lake: Position },
    #[error(
        "the log begins at position {first} but the lake ends at {lake}: events between them were purged before the \
         lake had them. Restore stream EVENTS from a backup; or accept the loss and go on from {first}, once, with \
         --accept-loss"
    )]
    Purged { first: Position, lake: Position },
}

/// What the log is, as the server tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// When the stream was created, in microseconds since 1970, UTC: a recreated stream is another log.
    pub identity: i64,
    /// Before the first position that is kept.
    pub before_first: Position,
    pub last: Position,
    pub bytes: u64,
}

impl LogState {
    /// Check that this log goes on where a lake ends that reflects `lake` of the log `identity`.
    ///
    /// A stream that was recreated to begin after the lake goes on as well: no position means two events.
    ///
    /// # Errors
    /// [`LogError::Behind`], [`LogError::Recreated`] or [`LogError::Purged`], which say how to repair it.
    pub fn check_continues(&self, lake: Position, identity: Option<i64>, accept_loss: bool) -> Result<(), LogError> {
        let Self { before_first, last, .. } = *self;
        let recreated = identity.is_some_and(|identity| identity != self.identity);
        if recreated && before_first < lake {
            return Err(LogError::Recreated { first: before_first.next(), last, lake });
        }
        if last < lake {
            return Err(LogError::Behind { log: last, lake });
        }
        if before_first > lake && !accept_loss {
            return Err(LogError::Purged { first: before_first.next(), lake });
        }
        Ok(())
    }
}

/// One connection, of those that follow each other while servers come and go.
#[derive(Debug)]
pub(crate) struct Connection(watch::Receiver<u64>);

impl Connection {
    /// Wait until another has taken its place. What was asked over this one will not be answered, nor will a consumer
    /// deliver that was opened over it: the client notices only when answers and heartbeats are long overdue.
    pub(crate) async fn replaced(&mut self) {
        if self.0.changed().await.is_err() {
            // The client is gone, and nothing will come.
            std::future::pending().await
        }
    }
}

/// A connection to the log, its streams in place.
#[derive(Clone)]
pub struct Log {
    url: String,
    access: LogAccess,
    client: Client,
    context: jetstream::Context,
    /// How often the connection was made.
    connections: watch::Receiver<u64>,
}

/// How a client signs in at the NATS server, and whom it trusts.
#[derive(Clone, Default)]
pub struct LogAccess {
    pub user: Option<String>,
    pub password: Option<String>,
    /// A file of PEM certificates that may have signed the server's, beside those of the machine.
    pub authorities: Option<PathBuf>,
}

impl LogAccess {
    /// With the login that the address names, where there is no other: the client leaves that out.
    fn options(&self, url: &str) -> ConnectOptions {
        let address = ServerAddr::from_str(url).ok();
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let named = address.as_ref().filter(|_| self.user.is_none() && self.password.is_none());
        let user = self.user.clone().or_else(|| named?.username().map(decoded));
        let password = self.password.clone().or_else(|| named?.password().map(decoded));
        let options = ConnectOptions::new();
        let options = match (user, password) {
            (None, None) => options,
            // A name alone in an address is a token.
            (Some(token), None) if named.is_some() => options.token(token),
            (user, password) => options.user_and_password(user.unwrap_or_default(), password.unwrap_or_default()),
        };
        match &self.authorities {
            Some(file) => options.add_root_certificates(file.clone()),
            None => options,
        }
    }
}

impl fmt::Debug for LogAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogAccess").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An address without the password or token that may stand in it.
#[must_use]
pub fn without_password(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let Some((login, host)) = rest.rsplit_once('@') else { return address.to_owned() };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    // A name alone is a token.
    let user = login.split_once(':').map(|(user, _)| format!("{user}:")).unwrap_or_default();
    format!("{scheme}{user}(hidden)@{host}")
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("url", &without_password(&self.url)).finish_non_exhaustive()
    }
}

impl Log {
    /// Connect. The streams are there once [`Self::prepare`] has been called.
    ///
    /// # Errors
    /// When the server is not there or too old.
    pub fn connect<'a>(url: &'a str, access: &'a LogAccess) -> BoxFuture<'a, Result<Self, LogError>> {
        async move {
            let (connected, connections) = watch::channel(0);
            let connected = Arc::new(connected);
            let client = access
                .options(url)
                .event_callback(move |event| {
                    if matches!(event, Event::Connected) {
                        connected.send_modify(|times| *times += 1);
                    }
                    std::future::ready(())
                })
                .name("forecourt")
                .max_reconnects(None)
                .request_timeout(Some(REQUEST_TIMEOUT))
                .connect(url)
                .await
                .map_err(|source| LogError::Connect { url: without_password(url), source })?;
            if !client.is_server_compatible(2, 12, 0) {
                return Err(LogError::TooOld { found: client.server_info().version });
            }
            // The client tells of its first connection a moment later: it is not one that took another's place.
            let mut first = connections.clone();
            let _ = tokio::time::timeout(TOLD_WITHIN, first.wait_for(|times| *times > 0)).await;
            let context = jetstream::new(client.clone());
            Ok(Self { url: url.to_owned(), access: access.clone(), client, context, connections })
        }
        .boxed()
    }

    /// The same log over a connection of its own.
    pub(crate) fn connect_apart(&self) -> BoxFuture<'_, Result<Self, LogError>> {
        Self::connect(&self.url, &self.access)
    }

    /// The connection as it is now.
    pub(crate) fn connection(&self) -> Connection {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        Connection(connections)
    }

    /// Create or update the stream of events. A new one begins after `lake`, so that no position means two events.
    ///
    /// # Errors
    /// When the server refuses the stream.
    pub fn prepare(&self, lake: Position) -> BoxFuture<'_, Result<(), LogError>> {
        async move { self.ensure(EVENTS, "events.>", Some(lake.next().get())).await }.boxed()
    }

    pub(crate) async fn prepare_dead_letters(&self) -> Result<(), LogError> {
        self.ensure(DEAD_LETTERS, "dead.>", None).await
    }

    async fn ensure(&self, name: &'static str, subjects: &str, first_sequence: Option<u64>) -> Result<(), LogError> {
        let config = Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_age: MAX_AGE,
            duplicate_window: DUPLICATE_WINDOW,
            allow_atomic_publish: true,
            first_sequence: first_sequence.filter(|first| *first > 1),
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

    /// The state of the log: the kept events are in `(before_first, last]`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn look(&self) -> BoxFuture<'_, Result<LogState, LogError>> {
        async move {
            let failed = |source: async_nats::Error| LogError::State { stream: EVENTS, source };
            let info = self.context.get_stream(EVENTS).await.map_err(|e| failed(e.into()))?;
            let info = info.cached_info();
            let created = i64::try_from(info.created.unix_timestamp_nanos() / 1_000).map_err(|e| failed(e.into()))?;
            Ok(LogState {
                identity: created,
                before_first: Position::new(info.state.first_sequence.saturating_sub(1)),
                last: Position::new(info.state.last_sequence),
                bytes: info.state.bytes,
            })
        }
        .boxed()
    }

    /// The last message there is, which lies before the end when the last ones were deleted.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn last_message(&self) -> BoxFuture<'_, Result<Position, LogError>> {
        async move {
            let last = stored_message::get(self.context(), EVENTS, Asked::last("events.>")).await;
            let last = last.map_err(|source| LogError::State { stream: EVENTS, source: source.into() })?;
            Ok(last.map_or(Position::START, |message| message.position))
        }
        .boxed()
    }

    /// When the log took the first message after a position: microseconds since 1970, UTC; `None` when there is none.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn taken_after(&self, position: Position) -> BoxFuture<'_, Result<Option<i64>, LogError>> {
        async move {
            let next = stored_message::get(self.context(), EVENTS, Asked::from(position.next())).await;
            let next = next.map_err(|source| LogError::State { stream: EVENTS, source: source.into() })?;
            Ok(next.map(|message| message.ingested_at))
        }
        .boxed()
    }

    /// Forget the events of one type up to a position, unless the log forgets them by itself before they have been `kept`
    /// for their time.
    ///
    /// # Errors
    /// When the server does not do it.
    pub fn forget<'a>(
        &'a self,
        context: &'a str,
        event_type: &'a str,
        to: Position,
        kept: Duration,
    ) -> BoxFuture<'a, Result<(), LogError>> {
        async move {
            let failed = |source: async_nats::Error| LogError::State { stream: EVENTS, source };
            let stream = self.context.get_stream(EVENTS).await.map_err(|e| failed(e.into()))?;
            let max_age = stream.cached_info().config.max_age;
            if max_age > Duration::ZERO && max_age <= kept {
                return Ok(());
            }
            let subjects = format!("events.{context}.{event_type}.>");
            let purged = stream.purge().filter(subjects).sequence(to.next().get()).await;
            purged.map(drop).map_err(|e| failed(e.into()))
        }
        .boxed()
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

/// The context an event's subject names; whether the rest of the subject is the event's too, the reader checks.
#[must_use]
pub fn subject_context(subject: &str) -> Option<&str> {
    subject.strip_prefix("events.")?.split('.').next()
}

#[cfg(test)]
mod tests {
    use schemas::Position;

    use super::{LogError, LogState, without_password};

    #[test]
    fn a_log_continues_a_lake_or_says_what_happened_to_it() {
        let state = |identity, before_first, last| LogState {
            identity,
            before_first: Position::new(before_first),
            last: Position::new(last),
            bytes: 0,
        };
        let told = |state: LogState, lake, identity| match state.check_continues(Position::new(lake), identity, false) {
            Ok(()) => "goes on",
            Err(LogError::Behind { .. }) => "behind",
            Err(LogError::Recreated { .. }) => "recreated",
            Err(LogError::Purged { .. }) => "purged",
            Err(_) => "other",
        };
        assert_eq!(told(state(1, 0, 9), 5, Some(1)), "goes on");
        assert_eq!(told(state(1, 0, 9), 9, None), "goes on");
        assert_eq!(told(state(1, 0, 4), 5, Some(1)), "behind");
        assert_eq!(told(state(1, 6, 9), 5, Some(1)), "purged");
        assert!(state(1, 6, 9).check_continues(Position::new(5), Some(1), true).is_ok());
        // Recreated, and grown past the lake already.
        assert_eq!(told(state(2, 0, 9), 5, Some(1)), "recreated");
        // Recreated to begin after the lake.
        assert_eq!(told(state(2, 5, 5), 5, Some(1)), "goes on");
    }

    #[test]
    fn a_password_in_an_address_is_hidden() {
        assert_eq!(without_password("nats://ann:s3cret@h:4222"), "nats://ann:(hidden)@h:4222");
        assert_eq!(without_password("nats://h:4222"), "nats://h:4222");
        assert_eq!(without_password("tls://token@h:4222"), "tls://(hidden)@h:4222");
        assert_eq!(without_password("ann:s3,c@ret@h:4222"), "ann:(hidden)@h:4222");
    }
}
