//! From a body to the log: cut it into events, check each, publish the good ones, answer for every one.
//!
//! A body of any size goes through in bounded memory: it is read as fast as the log takes it.

use std::{collections::VecDeque, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use schemas::{
    Catalogue, Rejection,
    splitter::{Item, Splitter},
    validation::{self, Warning, parse_event},
};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Semaphore,
};

pub use schemas::splitter::BodyForm;

use crate::{
    Publisher,
    bodies::{Bodies, Stopped},
    publisher::{MAX_BATCH, Outcome, Outgoing, PublishError, Submitted},
    topology::event_subject,
};

/// Requests taken at once. Each gathers up to [`BATCH_BYTES`] and an event before it asks for room.
const MAX_REQUESTS: usize = 256;
/// Bytes of events that all requests together may have on their way to the disk.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long a request waits for a share of those bytes before it is told to come back later.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(30);
/// How long events wait for others of their body when nothing more comes.
const GATHER_FOR: Duration = Duration::from_millis(100);
/// Bytes read at once.
const READ: usize = 64 << 10;
/// Bytes of events in one batch: with [`MAX_BATCH`] it keeps a batch within one atomic publish.
const BATCH_BYTES: usize = 1 << 20;
/// Batches of one request on their way: one being synced, one behind it, while the next is read.
const BATCHES_ON_THEIR_WAY: usize = 4;
/// Below this a batch is checked where it is; above, on a thread for such work.
const CHECKED_IN_PLACE: usize = 16 << 10;
/// Refused events told one by one. All are counted.
const MAX_TOLD: usize = 100_000;
/// Warnings told one by one.
const MAX_WARNINGS: usize = 1_000;
/// The unit in which room for bytes is shared out.
const ROOM_UNIT: usize = 1 << 10;

/// What became of a body's events.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct IntakeReport {
    pub accepted: u64,
    pub duplicates: u64,
    /// The refused ones, by index; the first 100,000 of them.
    pub rejected: Vec<Rejected>,
    pub rejected_total: u64,
    /// What is doubtful about events that were taken; the first 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Doubtful>,
    /// The highest position of an event of this request, accepted or duplicate.
    pub position: Option<u64>,
}

/// One event that was not taken.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the body, from 0: the line of NDJSON, the item of an array.
    pub index: u64,
    pub event_id: Option<String>,
    pub code: &'static str,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub message: String,
}

/// An event that was taken although something about it is doubtful.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Doubtful {
    pub index: u64,
    pub event_id: String,
    pub code: &'static str,
    pub field: String,
    pub message: String,
}

/// A body that was not taken to its end. Sending it again is safe: nothing takes effect twice.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("more is being sent than the log takes; come back later")]
    Busy,
    #[error("the body came too slowly")]
    Slow,
    #[error("the body cannot be read")]
    Body(#[source] io::Error),
}

impl From<Stopped> for IntakeError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Slow => Self::Slow,
            Stopped::Failed(error) => Self::Body(error),
        }
    }
}

/// A body that was not taken to its end, and what was taken before.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Interrupted {
    #[source]
    pub error: IntakeError,
    pub before: Box<IntakeReport>,
}

/// The door of the log.
#[derive(Clone, Debug)]
pub struct Intake {
    catalogue: Arc<Catalogue>,
    publisher: Publisher,
    bodies: Arc<Bodies>,
    room: Arc<Semaphore>,
    /// Microseconds since 1970, UTC.
    now: fn() -> i64,
}

impl Intake {
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, publisher: Publisher, now: fn() -> i64) -> Self {
        let bodies = Arc::new(Bodies::new(MAX_REQUESTS));
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES / ROOM_UNIT));
        Self { catalogue, publisher, bodies, room, now }
    }

    /// Take every good event of a body. When this returns, the accepted ones are on disk.
    ///
    /// # Errors
    /// When the body ends early, or the log does not take it.
    pub async fn take(
        &self,
        body: impl AsyncRead + Unpin,
        form: BodyForm,
        client: Option<IpAddr>,
    ) -> Result<IntakeReport, Interrupted> {
        let mut report = IntakeReport::default();
        let taken = self.take_into(&mut report, body, form, client).await;
        report.rejected.sort_by_key(|rejected| rejected.index);
        match taken {
            Ok(()) => Ok(report),
            Err(error) => Err(Interrupted { error, before: Box::new(report) }),
        }
    }

    async fn take_into(
        &self,
        report: &mut IntakeReport,
        mut body: impl AsyncRead + Unpin,
        form: BodyForm,
        client: Option<IpAddr>,
    ) -> Result<(), IntakeError> {
        let mut place = self.bodies.enter(client).ok_or(IntakeError::Busy)?;
        let mut splitter = Splitter::new(form);
        let mut buffer = BytesMut::with_capacity(READ);
        let mut batch = Batch::default();
        let mut on_their_way: VecDeque<OnItsWay> = VecDeque::new();
        let mut open = true;
        while open {
            buffer.clear();
            let read = match place.wait_at_most(GATHER_FOR, body.read_buf(&mut buffer)).await? {
                Some(read) => read,
                None => {
                    // A slow producer's events are not kept waiting for those to come.
                    self.send(std::mem::take(&mut batch), report, &mut on_their_way).await?;
                    place.wait(body.read_buf(&mut buffer)).await?
                }
            };
            open = read > 0;
            let items = if open { splitter.push(&buffer) } else { splitter.finish() };
            for item in items {
                batch.push(item);
                if batch.is_full() {
                    self.send(std::mem::take(&mut batch), report, &mut on_their_way).await?;
                }
            }
        }
        self.send(batch, report, &mut on_their_way).await?;
        for sent in on_their_way {
            sent.settle(report).await?;
        }
        Ok(())
    }

    /// Check a batch and hand it to the publisher, when there is room for it.
    async fn send(
        &self,
        batch: Batch,
        report: &mut IntakeReport,
        on_their_way: &mut VecDeque<OnItsWay>,
    ) -> Result<(), IntakeError> {
        if batch.items.is_empty() {
            return Ok(());
        }
        while on_their_way.len() >= BATCHES_ON_THEIR_WAY
            && let Some(oldest) = on_their_way.pop_front()
        {
            oldest.settle(report).await?;
        }
        let units = u32::try_from(batch.bytes.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(WAIT_FOR_ROOM, Arc::clone(&self.room).acquire_many_owned(units)).await;
        let room = room.map_err(|_| IntakeError::Busy)?.map_err(|_| PublishError::ShuttingDown)?;
        let checked = if batch.bytes <= CHECKED_IN_PLACE {
            self.check_batch(batch)
        } else {
            let intake = self.clone();
            let checked = tokio::task::spawn_blocking(move || intake.check_batch(batch)).await;
            checked.map_err(|_| PublishError::ShuttingDown)?
        };
        let mut checked = checked;
        checked.tell(report);
        if !checked.good.is_empty() {
            let submitted = self.publisher.submit(checked.good, Some(room)).await?;
            on_their_way.push_back(OnItsWay { submitted });
        }
        Ok(())
    }

    fn check_batch(&self, batch: Batch) -> Checked {
        let now = (self.now)();
        let mut checked = Checked::default();
        for Item { index, text } in batch.items {
            match text.and_then(|text| self.check(text, None, now)) {
                Ok((outgoing, warnings)) => {
                    checked.warnings.extend(warnings.into_iter().map(|warning| {
                        let Warning { code, field, message } = warning;
                        Doubtful { index, event_id: outgoing.event_id.clone(), code, field, message }
                    }));
                    checked.good.push(outgoing);
                }
                Err(rejection) => checked.rejected.push((index, rejection)),
            }
        }
        checked
    }

    /// Check one event's text. What comes back can be published. `context` is the one a message's subject names.
    ///
    /// # Errors
    /// The first thing found wrong with it.
    pub fn check(&self, text: Bytes, context: Option<&str>, now: i64) -> Result<(Outgoing, Vec<Warning>), Rejection> {
        let event = parse_event(&self.catalogue, &text, context)?;
        let warnings = validation::warnings(&self.catalogue, &event, now);
        let context = &self.catalogue.context_at(event.kind.context).name;
        let name = &self.catalogue.event_at(event.kind).name;
        let subject = event_subject(context, name, &event.aggregate_id);
        let outgoing = Outgoing { key: event.id.key(), event_id: event.id.as_str().to_owned(), subject, payload: text };
        Ok((outgoing, warnings))
    }

    /// The way behind the door.
    #[must_use]
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }
}

/// Consecutive items of a body.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, item: Item) {
        self.bytes += item.text.as_ref().map_or(0, Bytes::len);
        self.items.push(item);
    }

    const fn is_full(&self) -> bool {
        self.items.len() >= MAX_BATCH || self.bytes >= BATCH_BYTES
    }
}

/// A batch's items, checked.
#[derive(Default)]
struct Checked {
    good: Vec<Outgoing>,
    rejected: Vec<(u64, Rejection)>,
    warnings: Vec<Doubtful>,
}

impl Checked {
    /// Move what is told about the items to the report.
    fn tell(&mut self, report: &mut IntakeReport) {
        report.rejected_total += self.rejected.len() as u64;
        let room = MAX_TOLD.saturating_sub(report.rejected.len());
        report.rejected.extend(self.rejected.drain(..).take(room).map(|(index, rejection)| {
            let Rejection { code, field, event_id, message } = rejection;
            Rejected { index, event_id, code: code.as_str(), field, message }
        }));
        let room = MAX_WARNINGS.saturating_sub(report.warnings.len());
        report.warnings.extend(self.warnings.drain(..).take(room));
    }
}

/// A batch that the publisher has.
struct OnItsWay {
    submitted: Submitted,
}

impl OnItsWay {
    async fn settle(self, report: &mut IntakeReport) -> Result<(), IntakeError> {
        for outcome in self.submitted.outcomes().await? {
            let position = match outcome {
                Outcome::Accepted(position) => {
                    report.accepted += 1;
                    position
                }
                Outcome::Duplicate(position) => {
                    report.duplicates += 1;
                    position
                }
            };
            report.position = report.position.max(Some(position.get()));
        }
        Ok(())
    }
}
