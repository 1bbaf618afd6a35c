//! Starts our own `nats-server` again when its disk has room again: it keeps the error of a full disk until then.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ingest::{Publisher, disk::DiskRoom};
use processors::LogStatus;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two starts of the server: it reads its store first.
const START_EVERY: Duration = Duration::from_secs(20);
/// With room on its disk, a server that does not work for so long is started again as well.
const TROUBLED_FOR: Duration = Duration::from_secs(60);
/// What the server says when it has no room.
const WANTS_ROOM: [&str; 4] = ["no space", "insufficient", "storage", "resource"];

/// What tells that the server is to be started again, and starts it.
pub(crate) struct StorageHealing {
    /// Starts the server again.
    pub(crate) restart: Arc<Notify>,
    /// On the disk of the server's store.
    pub(crate) folder: PathBuf,
    pub(crate) publisher: Publisher,
    pub(crate) log: watch::Receiver<LogStatus>,
}

impl StorageHealing {
    pub(crate) async fn run(self) {
        let (mut was_full, mut started, mut troubled_since) = (false, None::<Instant>, None::<Instant>);
        loop {
            sleep(LOOK_EVERY).await;
            let Some(room) = DiskRoom::of(&self.folder) else { continue };
            if room.is_full() {
                tracing::error!(free_bytes = room.free_bytes, "the disk of the data folder is full; make room on it");
                was_full = true;
                continue;
            }
            let refusal = self.publisher.refusal();
            let wants_room = refusal.as_ref().is_some_and(|refusal| {
                let reason = refusal.reason.to_lowercase();
                WANTS_ROOM.iter().any(|word| reason.contains(word))
            });
            if refusal.is_none() && self.log.borrow().away.is_none() {
                troubled_since = None;
                continue;
            }
            let since = *troubled_since.get_or_insert_with(Instant::now);
            let may_start = started.is_none_or(|started| started.elapsed() >= START_EVERY);
            if (was_full || wants_room || since.elapsed() >= TROUBLED_FOR) && may_start {
                let troubled_seconds = since.elapsed().as_secs();
                tracing::info!(
                    free_bytes = room.free_bytes,
                    troubled_seconds,
                    was_full,
                    "the log takes nothing although its disk has room; restarting nats-server"
                );
                self.restart.notify_one();
                self.publisher.forget_refusal();
                started = Some(Instant::now());
                (was_full, troubled_since) = (false, None);
            }
        }
    }
}
