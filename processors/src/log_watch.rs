//! The task that looks at the log now and then: an operator may recreate, purge or rewind it under us, it may not answer, and
//! it may go on without us.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ingest::{Log, LogError, disk::DiskRoom};
use lake::LakeView;
use schemas::Position;
use search_index::ListingSnapshot;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{error::PipelineError, gauges::position_gauge, kpis::KpiCache};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// With more in the log and nothing of it read for so long, reading stands still.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// The same of what is derived from the lake: a refresh of much takes its time.
const DERIVED_STALLED_AFTER: Duration = Duration::from_secs(120);

/// What the log and the disk are, and how far the lake is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// The log's last message.
    pub last: Position,
    /// Why the log cannot be looked at.
    pub away: Option<String>,
    /// How long nothing was read although the log has more.
    pub stalled_for: Option<Duration>,
    /// How long the index has not advanced although the lake has, and the KPI cache.
    pub index_stalled_for: Option<Duration>,
    pub kpis_stalled_for: Option<Duration>,
    /// How long the first message that is not read has waited.
    pub behind: Duration,
    /// Whether the data folder's disk is full.
    pub is_disk_full: bool,
}

pub(crate) struct LogWatch {
    pub(crate) log: Log,
    /// The stream's identity when the pipeline started.
    pub(crate) identity: i64,
    pub(crate) lake: watch::Receiver<Option<Arc<LakeView>>>,
    pub(crate) listings: watch::Receiver<Option<Arc<ListingSnapshot>>>,
    pub(crate) kpis: watch::Receiver<Option<Arc<KpiCache>>>,
    /// On the disk that is looked at.
    pub(crate) folder: PathBuf,
    pub(crate) now: fn() -> i64,
    pub(crate) status: watch::Sender<LogStatus>,
}

impl LogWatch {
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), PipelineError> {
        let (mut reading, mut index, mut kpis) = (Progress::new(), Progress::new(), Progress::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // What has been decoded before the log is looked at cannot be missing from it for any other reason.
            let reached = self.lake.borrow().as_ref().map(|view| view.position);
            let index_reached = self.listings.borrow().as_ref().map(|listings| listings.position);
            let kpis_reached = self.kpis.borrow().as_ref().map(|cache| cache.position);
            let now = Instant::now();
            let still_for =
                |progress: &mut Progress, derived| progress.still_for(derived, reached.unwrap_or_default(), now);
            let index_stalled_for = still_for(&mut index, index_reached).filter(|it| *it >= DERIVED_STALLED_AFTER);
            let kpis_stalled_for = still_for(&mut kpis, kpis_reached).filter(|it| *it >= DERIVED_STALLED_AFTER);
            let room = DiskRoom::of(&self.folder);
            if let Some(room) = room {
                metrics::gauge!("data_folder_free_bytes").set(position_gauge(Position::new(room.free_bytes)));
            }
            let is_disk_full = room.is_some_and(DiskRoom::is_full);
            let status = match self.look(reached).await {
                Ok((last, behind)) => {
                    let stalled_for = reading.still_for(reached, last, now).filter(|it| *it >= STALLED_AFTER);
                    LogStatus {
                        last,
                        away: None,
                        stalled_for,
                        index_stalled_for,
                        kpis_stalled_for,
                        behind,
                        is_disk_full,
                    }
                }
                Err(Looked::Other(error)) => return Err(error.into()),
                // It may be away for a while; the reader and the publisher say so.
                Err(Looked::Away(error)) => {
                    tracing::debug!(error = %error, "cannot look at the log");
                    reading.since = now;
                    let before = self.status.borrow().clone();
                    let away = Some(error.to_string());
                    LogStatus { away, stalled_for: None, index_stalled_for, kpis_stalled_for, is_disk_full, ..before }
                }
            };
            let lag = status.last.get().saturating_sub(reached.unwrap_or_default().get());
            metrics::gauge!("pipeline_lag_positions").set(position_gauge(Position::new(lag)));
            metrics::gauge!("pipeline_lag_seconds").set(status.behind.as_secs_f64());
            self.status.send_replace(status);
        }
    }

    /// The log's last message, and how long the first after a position has waited.
    async fn look(&self, reached: Option<Position>) -> Result<(Position, Duration), Looked> {
        let state = self.log.look().await.map_err(Looked::Away)?;
        metrics::gauge!("log_position").set(position_gauge(state.last));
        metrics::gauge!("log_bytes").set(position_gauge(Position::new(state.bytes)));
        if let Some(reached) = reached {
            state.check_continues(reached, Some(self.identity), false).map_err(Looked::Other)?;
            if state.identity != self.identity {
                let (first, last) = (state.before_first.next(), state.last);
                return Err(Looked::Other(LogError::Recreated { first, last, lake: reached }));
            }
        }
        let reached = reached.unwrap_or_default();
        if state.last <= reached {
            return Ok((reached, Duration::ZERO));
        }
        // What is behind the last message was deleted: nobody waits for it.
        match self.log.taken_after(reached).await.map_err(Looked::Away)? {
            Some(taken_at) => {
                let waited = (self.now)().saturating_sub(taken_at).max(0).unsigned_abs();
                Ok((state.last, Duration::from_micros(waited)))
            }
            // It has more, and does not hand it over.
            None if self.log.last_message().await.map_err(Looked::Away)? > reached => Ok((state.last, Duration::ZERO)),
            None => Ok((reached, Duration::ZERO)),
        }
    }
}

/// A position that should advance, and the time of its last change.
struct Progress {
    reached: Option<Position>,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { reached: None, since: Instant::now() }
    }

    /// The time since the last change, or none when the end is reached.
    fn still_for(&mut self, reached: Option<Position>, end: Position, now: Instant) -> Option<Duration> {
        let is_behind = reached.is_none_or(|reached| reached < end);
        if reached != self.reached || !is_behind {
            (self.reached, self.since) = (reached, now);
        }
        is_behind.then(|| now.duration_since(self.since))
    }
}

enum Looked {
    /// It is another log than the lake's.
    Other(LogError),
    Away(LogError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schemas::Position;
    use tokio::time::Instant;

    use super::Progress;

    #[test]
    fn what_is_behind_and_does_not_move_stands_still() {
        let (at, end) = (|position| Some(Position::new(position)), Position::new);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::new();
        assert_eq!(progress.still_for(at(5), end(5), start), None);
        assert_eq!(progress.still_for(at(5), end(5), after(100)), None);
        // From when there was more, and not from when it moved last.
        assert_eq!(progress.still_for(at(5), end(9), after(102)), Some(Duration::from_secs(2)));
        assert_eq!(progress.still_for(at(5), end(9), after(130)), Some(Duration::from_secs(30)));
        assert_eq!(progress.still_for(at(6), end(9), after(130)), Some(Duration::ZERO));
        assert_eq!(progress.still_for(at(6), end(12), after(131)), Some(Duration::from_secs(1)));
        assert_eq!(progress.still_for(at(12), end(12), after(140)), None);
    }
}
