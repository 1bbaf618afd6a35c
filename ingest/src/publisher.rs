//! Groups the events of concurrent callers into atomic batches.
//!
//! The server fsyncs once per batch ([ADR-50]), so what waits while one batch is on its way goes into the next.
//! An event is acknowledged after the server has acknowledged its batch, never before.
//!
//! [ADR-50]: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_MESSAGE_ID},
    jetstream::{
        ErrorCode,
        context::{PublishAckFuture, PublishError as PublishFailure},
        publish::PublishAck,
        response::Response,
    },
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use schemas::{EventKey, Position};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Backoff, Log, RawMessage, SeenEvents,
    stored_message::{self, Asked},
    topology::EVENTS,
};

/// Messages in one atomic batch: the server's limit.
pub const MAX_BATCH: usize = 1_000;
/// Bytes in one atomic batch, so that a batch of large events does not hold a connection for long.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Batches on their way at once. While the server syncs one, the next arrives; more only queue there.
const MAX_IN_FLIGHT: usize = 4;
/// How long a group waits for those whom the last batch answered: they send their next events about together, and a
/// batch of a few costs the server as much as one of all.
const LINGER: Duration = Duration::from_millis(4);
/// Submissions that may wait. Each is one caller, who waits for the answer anyway.
const QUEUE: usize = 1_024;
/// How long one try may take, its acknowledgement included.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(12);
/// Tries of one batch before its callers are told that the log is not there.
const MAX_TRIES: u32 = 5;

/// One event on its way to the log.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub key: EventKey,
    /// The event's id, which is also the message's.
    pub event_id: String,
    pub subject: String,
    pub payload: Bytes,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted(Position),
    /// An event with this id took effect at this position.
    Duplicate(Position),
}

/// The log did not take the events. Nothing is known to be lost: send them again, under the same ids.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    #[error("the log did not acknowledge the events; send them again")]
    Unacknowledged,
    #[error("the log refuses the events: {description}")]
    Refused { description: String },
    #[error("forecourt is shutting down; send the events again later")]
    ShuttingDown,
}

struct Submission {
    events: Vec<Outgoing>,
    /// Room that is free again when the events are on disk, or nobody wants them there.
    room: Option<OwnedSemaphorePermit>,
    reply: oneshot::Sender<Result<Vec<Outcome>, PublishError>>,
}

/// That the log takes no events, since the last that it took.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When events were not taken first, and last.
    pub since: Instant,
    pub last: Instant,
    /// What the log said.
    pub reason: String,
}

/// Whether the log takes events.
#[derive(Debug, Default)]
struct Taking(Mutex<Option<Refusal>>);

impl Taking {
    fn lock(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self) {
        *self.lock() = None;
    }

    fn refused(&self, reason: String) {
        let (mut refusal, now) = (self.lock(), Instant::now());
        let since = refusal.as_ref().map_or(now, |refusal| refusal.since);
        *refusal = Some(Refusal { since, last: now, reason });
    }
}

/// A handle to the publishing task.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Submission>,
    taking: Arc<Taking>,
}

impl Publisher {
    /// Start publishing on `tasks`, until `stop`; what is queued by then is still published.
    #[must_use]
    pub fn start(log: Log, seen: Arc<SeenEvents>, tasks: &mut JoinSet<()>, stop: CancellationToken) -> Self {
        let (queue, submissions) = mpsc::channel(QUEUE);
        let taking = Arc::new(Taking::default());
        tasks.spawn(run(Arc::new(Destination { log, seen, taking: Arc::clone(&taking) }), submissions, stop));
        Self { queue, taking }
    }

    /// That the log takes no events, if it took none of the last.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.taking.lock().clone()
    }

    /// What kept the log from taking events is mended: the next ones are tried.
    pub fn forget_refusal(&self) {
        self.taking.took();
    }

    /// Publish at most [`MAX_BATCH`] events and wait until they are on disk. Outcomes are in the events' order.
    ///
    /// # Errors
    /// When the log did not acknowledge them.
    pub fn publish(&self, events: Vec<Outgoing>) -> BoxFuture<'_, Result<Vec<Outcome>, PublishError>> {
        async move { self.submit(events, None).await?.outcomes().await }.boxed()
    }

    /// Hand over at most [`MAX_BATCH`] events, waiting for room in the queue alone. `room` is given back when they are
    /// on disk.
    ///
    /// # Errors
    /// When nothing is published any more.
    pub fn submit(
        &self,
        events: Vec<Outgoing>,
        room: Option<OwnedSemaphorePermit>,
    ) -> BoxFuture<'_, Result<Submitted, PublishError>> {
        async move {
            let (reply, outcomes) = oneshot::channel();
            let submission = Submission { events, room, reply };
            self.queue.send(submission).await.map_err(|_| PublishError::ShuttingDown)?;
            Ok(Submitted { outcomes })
        }
        .boxed()
    }
}

/// Events on their way. They stay on it when this is dropped.
#[must_use]
pub struct Submitted {
    outcomes: oneshot::Receiver<Result<Vec<Outcome>, PublishError>>,
}

impl Submitted {
    /// Wait until they are on disk. Outcomes are in the events' order.
    ///
    /// # Errors
    /// When the log did not acknowledge them.
    pub fn outcomes(self) -> BoxFuture<'static, Result<Vec<Outcome>, PublishError>> {
        async move { self.outcomes.await.map_err(|_| PublishError::ShuttingDown)? }.boxed()
    }
}

/// What goes into the next batch.
#[derive(Default)]
struct Group {
    submissions: Vec<Submission>,
    events: usize,
    bytes: usize,
    /// What came when the group had no room for it: the first of the next.
    next: Option<Submission>,
}

impl Group {
    fn add(&mut self, submission: Submission) {
        let (events, bytes) = (submission.events.len(), weight(&submission));
        let fits = self.events + events <= MAX_BATCH && self.bytes + bytes <= MAX_BATCH_BYTES;
        if fits || self.submissions.is_empty() {
            self.events += events;
            self.bytes += bytes;
            self.submissions.push(submission);
        } else {
            self.next = Some(submission);
        }
    }

    const fn is_full(&self) -> bool {
        self.next.is_some() || self.events >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES
    }

    /// The submissions, and in their place what had no room beside them.
    fn take(&mut self) -> Vec<Submission> {
        let Self { submissions, next, .. } = std::mem::take(self);
        if let Some(next) = next {
            self.add(next);
        }
        submissions
    }
}

/// Where events go, and what is known of it.
struct Destination {
    log: Log,
    seen: Arc<SeenEvents>,
    taking: Arc<Taking>,
}

async fn run(destination: Arc<Destination>, mut submissions: mpsc::Receiver<Submission>, stop: CancellationToken) {
    let mut in_flight: JoinSet<HashSet<EventKey>> = JoinSet::new();
    let mut busy: HashSet<EventKey> = HashSet::new();
    let mut group = Group::default();
    let mut closed = false;
    let mut answered = 0;
    loop {
        // A batch costs the server about the same however few events it has: while one is on its way, a group that is
        // not full gathers more.
        let mut lingering = answered > 1;
        let linger = tokio::time::sleep(LINGER);
        tokio::pin!(linger);
        while !closed && !group.is_full() {
            let comes_more = lingering && group.submissions.len() < answered;
            if !group.submissions.is_empty() && in_flight.is_empty() && !comes_more {
                break;
            }
            tokio::select! {
                biased;
                Some(done) = in_flight.join_next() => {
                    release(&mut busy, done);
                    linger.as_mut().reset(Instant::now() + LINGER);
                }
                submission = submissions.recv() => match submission {
                    Some(submission) => group.add(submission),
                    None => closed = true,
                },
                () = &mut linger, if lingering && in_flight.is_empty() => lingering = false,
                () = stop.cancelled(), if !submissions.is_closed() => submissions.close(),
            }
        }
        while !group.is_full()
            && let Ok(submission) = submissions.try_recv()
        {
            group.add(submission);
        }
        let taken = group.take();
        if taken.is_empty() {
            break;
        }
        answered = taken.len();
        // An id that is on its way must land or fail before anybody is told that it is a duplicate.
        let keys: HashSet<EventKey> = taken.iter().flat_map(|s| &s.events).map(|event| event.key).collect();
        while in_flight.len() >= MAX_IN_FLIGHT || !busy.is_disjoint(&keys) {
            match in_flight.join_next().await {
                Some(done) => release(&mut busy, done),
                None => busy.clear(),
            }
        }
        busy.extend(&keys);
        let destination = Arc::clone(&destination);
        in_flight.spawn(async move {
            publish_group(&destination, taken).await;
            keys
        });
    }
    while in_flight.join_next().await.is_some() {}
}

fn release(busy: &mut HashSet<EventKey>, done: Result<HashSet<EventKey>, tokio::task::JoinError>) {
    match done {
        Ok(keys) => busy.retain(|key| !keys.contains(key)),
        Err(error) => tracing::error!(error = %error, "a publish task failed"),
    }
}

fn weight(submission: &Submission) -> usize {
    submission.events.iter().map(|event| event.payload.len()).sum()
}

/// Publish what is new in the group and answer every caller.
async fn publish_group(destination: &Destination, group: Vec<Submission>) {
    let Destination { log, seen, taking } = destination;
    let keys: Vec<EventKey> = group.iter().flat_map(|s| &s.events).map(|event| event.key).collect();
    let Some(known) = look_up(seen, keys).await else {
        return refuse(group, &PublishError::Unacknowledged);
    };
    let mut batch_of = HashSet::new();
    let fresh: Vec<&Outgoing> = group
        .iter()
        .flat_map(|submission| &submission.events)
        .zip(&known)
        .filter(|(event, known)| known.is_none() && batch_of.insert(event.key))
        .map(|(event, _)| event)
        .collect();
    let published = publish_fresh(log, seen, &fresh).await;
    let published = match published {
        Ok(outcomes) => {
            if !fresh.is_empty() {
                taking.took();
            }
            Ok(outcomes)
        }
        Err((error, reason)) => {
            // What is wrong with an event says nothing of the others.
            if matches!(error, PublishError::Unacknowledged) {
                taking.refused(reason);
            }
            Err(error)
        }
    };
    let outcome = published.map(|outcomes| {
        let accepted = fresh.iter().zip(&outcomes).filter_map(|(event, outcome)| match outcome {
            Outcome::Accepted(position) => Some((event.key, *position)),
            Outcome::Duplicate(_) => None,
        });
        // Not knowing them costs a duplicate in the log, which the reader recognises.
        if let Err(error) = seen.acknowledge(&accepted.collect::<Vec<_>>()) {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot record published events");
        }
        fresh.iter().map(|event| event.key).zip(outcomes).collect::<std::collections::HashMap<_, _>>()
    });
    let mut known = known.into_iter();
    for submission in group {
        let mut answered = HashSet::new();
        let known: Vec<_> = known.by_ref().take(submission.events.len()).collect();
        let reply = outcome.as_ref().map_err(Clone::clone).map(|fresh| {
            let outcomes = submission.events.iter().zip(known).filter_map(|(event, known)| match known {
                Some(position) => Some(Outcome::Duplicate(position)),
                None => match fresh.get(&event.key).copied() {
                    // The second mention of an id in one request repeats the first.
                    Some(Outcome::Accepted(position)) if !answered.insert(event.key) => {
                        Some(Outcome::Duplicate(position))
                    }
                    outcome => outcome,
                },
            });
            outcomes.collect()
        });
        drop(submission.room);
        // A caller who went away no longer wants the answer.
        let _ = submission.reply.send(reply);
    }
}

/// Where ids took effect; on a thread for it, as the store may read its files. `None` when they cannot be read.
async fn look_up(seen: &Arc<SeenEvents>, keys: Vec<EventKey>) -> Option<Vec<Option<Position>>> {
    let seen = Arc::clone(seen);
    match tokio::task::spawn_blocking(move || seen.positions(&keys)).await.ok()? {
        Ok(known) => Some(known),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot look up seen events");
            None
        }
    }
}

fn refuse(group: Vec<Submission>, error: &PublishError) {
    for submission in group {
        // A caller who went away no longer wants the answer.
        let _ = submission.reply.send(Err(error.clone()));
    }
}

/// Outcomes in the events' order: one atomic batch, or one by one where the server sees a duplicate in it. An error comes with
/// what the log said.
async fn publish_fresh(
    log: &Log,
    seen: &Arc<SeenEvents>,
    events: &[&Outgoing],
) -> Result<Vec<Outcome>, (PublishError, String)> {
    let mut outcomes = Vec::with_capacity(events.len());
    for chunk in events.chunks(MAX_BATCH) {
        let (mut tries, mut backoff) = (0, Backoff::default());
        loop {
            tries += 1;
            // Away, the server takes nothing for as long as the connection is tried again.
            let mut connection = log.connection();
            let published = tokio::select! {
                published = tokio::time::timeout(PUBLISH_TIMEOUT, publish_batch(log, seen, chunk)) => published,
                () = connection.replaced() => Ok(Err(BatchError::transient("the connection was lost"))),
            };
            match published.unwrap_or_else(|_| Err(BatchError::transient("there was no answer in time"))) {
                Ok(batch) => {
                    outcomes.extend(batch);
                    break;
                }
                Err(BatchError::Final(error)) => {
                    let reason = error.to_string();
                    return Err((error, reason));
                }
                Err(BatchError::Transient(reason)) if tries == MAX_TRIES => {
                    return Err((PublishError::Unacknowledged, reason));
                }
                Err(BatchError::Transient(_)) => tokio::time::sleep(backoff.next_pause()).await,
            }
        }
    }
    Ok(outcomes)
}

enum BatchError {
    /// The connection or the server failed, as it said; whether the batch landed is unknown.
    Transient(String),
    Final(PublishError),
}

impl BatchError {
    fn transient(reason: impl ToString) -> Self {
        Self::Transient(reason.to_string())
    }
}

async fn publish_batch(log: &Log, seen: &Arc<SeenEvents>, events: &[&Outgoing]) -> Result<Vec<Outcome>, BatchError> {
    let [.., last] = events else {
        return Ok(Vec::new());
    };
    if let [only] = events {
        return Ok(vec![publish_one(log, seen, only).await?]);
    }
    let client = log.client();
    let batch_id = uuid::Uuid::new_v4().simple().to_string();
    let headers = |sequence: usize, event: &Outgoing| {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, event.event_id.as_str());
        headers.insert(NATS_BATCH_ID, batch_id.as_str());
        headers.insert(NATS_BATCH_SEQUENCE, sequence.to_string());
        headers
    };
    for (index, event) in events[..events.len() - 1].iter().enumerate() {
        let sent = client.publish_with_headers(event.subject.clone(), headers(index + 1, event), event.payload.clone());
        sent.await.map_err(BatchError::transient)?;
    }
    let mut commit = headers(events.len(), last);
    commit.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
    let reply = client.request_with_headers(last.subject.clone(), commit, last.payload.clone()).await;
    let reply = reply.map_err(BatchError::transient)?;
    match serde_json::from_slice::<Response<PublishAck>>(&reply.payload) {
        Ok(Response::Ok(ack)) => {
            let first = ack.sequence + 1 - events.len() as u64;
            Ok((first..=ack.sequence).map(|sequence| Outcome::Accepted(Position::new(sequence))).collect())
        }
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE => {
            // The server knows an id that we have not read back yet: let it judge each message alone.
            let mut outcomes = Vec::with_capacity(events.len());
            for event in events {
                outcomes.push(publish_one(log, seen, event).await?);
            }
            Ok(outcomes)
        }
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH => {
            Err(BatchError::transient(error))
        }
        Ok(Response::Err { error }) if error.code() >= 500 => {
            tracing::warn!(error = %error, "the log refused a batch; trying again");
            Err(BatchError::transient(error))
        }
        Ok(Response::Err { error }) => Err(BatchError::Final(PublishError::Refused { description: error.to_string() })),
        Err(error) => {
            tracing::error!(error = %error, "the log answered a publish with something unreadable");
            Err(BatchError::transient(error))
        }
    }
}

/// One message with its own fsync.
///
/// What the server calls a duplicate is our own earlier try; or a message that came straight to the stream under this
/// id. If that one took effect, the event is a duplicate. If it is no event, or nobody has read it yet and it says
/// something else, the event is published without the id, and the reader decides which of them takes effect.
async fn publish_one(log: &Log, seen: &Arc<SeenEvents>, event: &Outgoing) -> Result<Outcome, BatchError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, event.event_id.as_str());
    let sent = log.context().publish_with_headers(event.subject.clone(), headers, event.payload.clone()).await;
    let ack = acknowledged(sent).await?;
    let position = Position::new(ack.sequence);
    if !ack.duplicate {
        return Ok(Outcome::Accepted(position));
    }
    let read = seen.reached();
    let known =
        look_up(seen, vec![event.key]).await.ok_or_else(|| BatchError::transient("the seen events cannot be read"))?;
    match known.first().copied().flatten() {
        Some(first) if first == position && is_same(log, event, position).await? => {
            return Ok(Outcome::Accepted(position));
        }
        Some(first) => return Ok(Outcome::Duplicate(first)),
        None if position > read && is_same(log, event, position).await? => return Ok(Outcome::Accepted(position)),
        None => {}
    }
    let sent = log.context().publish(event.subject.clone(), event.payload.clone()).await;
    Ok(Outcome::Accepted(Position::new(acknowledged(sent).await?.sequence)))
}

async fn acknowledged(sent: Result<PublishAckFuture, PublishFailure>) -> Result<PublishAck, BatchError> {
    let ack = match sent {
        Ok(ack) => ack.await,
        Err(error) => Err(error),
    };
    ack.map_err(|error| {
        tracing::warn!(error = %error, "a publish was not acknowledged; trying again");
        BatchError::transient(error)
    })
}

/// Whether the message at a position says what this event says.
async fn is_same(log: &Log, event: &Outgoing, position: Position) -> Result<bool, BatchError> {
    let stored =
        stored_message::get(log.context(), EVENTS, Asked::from(position)).await.map_err(BatchError::transient)?;
    let stored = stored.filter(|stored| stored.position == position).map(RawMessage::from);
    Ok(stored.is_some_and(|message| {
        message.fault.is_none() && message.payload == event.payload && message.subject == event.subject
    }))
}
