//! The task that looks at the log now and then: an operator may recreate, purge or rewind it under us, it may not answer, and
//! it may go on without us.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ingest::{Log, LogError, disk::DiskRoom};
use lake::LakeView;
use schemas::Position;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::pipeline::{PipelineError, position_gauge};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// With more in the log and nothing of it read for so long, reading stands still.
const STALLED_AFTER: Duration = Duration::from_secs(20);

/// What the log and the disk are, and how far the lake is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// The log's last message.
    pub last: Position,
    /// Why the log cannot be looked at.
    pub away: Option<String>,
    /// Since when nothing was read although the log has more: seconds.
    pub stalled_for: Option<Duration>,
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
    /// On the disk that is looked at.
    pub(crate) folder: PathBuf,
    pub(crate) now: fn() -> i64,
    pub(crate) status: watch::Sender<LogStatus>,
}

impl LogWatch {
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), PipelineError> {
        let (mut reached_before, mut since) = (None, Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // What has been decoded before the log is looked at cannot be missing from it for any other reason.
            let reached = self.lake.borrow().as_ref().map(|view| view.position);
            if reached != reached_before {
                (reached_before, since) = (reached, Instant::now());
            }
            let room = DiskRoom::of(&self.folder);
            if let Some(room) = room {
                metrics::gauge!("data_folder_free_bytes").set(position_gauge(Position::new(room.free_bytes)));
            }
            let is_disk_full = room.is_some_and(DiskRoom::is_full);
            let status = match self.look(reached).await {
                Ok((last, behind)) => {
                    let is_behind = reached.is_none_or(|reached| reached < last);
                    if !is_behind {
                        since = Instant::now();
                    }
                    let stalled_for = Some(since.elapsed()).filter(|still| is_behind && *still >= STALLED_AFTER);
                    LogStatus { last, away: None, stalled_for, behind, is_disk_full }
                }
                Err(Looked::Other(error)) => return Err(error.into()),
                // It may be away for a while; the reader and the publisher say so.
                Err(Looked::Away(error)) => {
                    tracing::debug!(error = %error, "cannot look at the log");
                    let before = self.status.borrow().clone();
                    LogStatus { away: Some(error.to_string()), stalled_for: None, is_disk_full, ..before }
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
            None => Ok((reached, Duration::ZERO)),
        }
    }
}

enum Looked {
    /// It is another log than the lake's.
    Other(LogError),
    Away(LogError),
}
