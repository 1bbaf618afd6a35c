//! Maintenance on demand: what it did to each table, or would do.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use lake::{Forecast, Lake, LakeConfig, SqlSession, TableFiles};
use schemas::{Catalogue, RetentionPolicy};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    derived_tables::derived_tables,
    kpi_definition::KpiDefinition,
    kpis::Freezer,
    pipeline::{PipelineError, folder_url},
    upkeep::{Demand, Upkeep},
};

/// A table before and after maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintained {
    pub table: String,
    /// Files and bytes that make up the table.
    pub files_before: u64,
    pub files_after: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Events that were past their time and are gone.
    pub events_retired: u64,
    /// Files that no version of the table has any more, which were deleted.
    pub files_deleted: u64,
    pub bytes_deleted: u64,
}

impl Maintained {
    pub(crate) fn compare(
        before: &[TableFiles],
        after: &[TableFiles],
        retired: &BTreeMap<String, u64>,
        deleted: &BTreeMap<String, (u64, u64)>,
    ) -> Vec<Self> {
        let of_table = |(before, after): (&TableFiles, &TableFiles)| {
            let (files_deleted, bytes_deleted) = deleted.get(&after.table).copied().unwrap_or_default();
            Self {
                table: after.table.clone(),
                files_before: before.files,
                files_after: after.files,
                bytes_before: before.bytes,
                bytes_after: after.bytes,
                events_retired: retired.get(&after.table).copied().unwrap_or_default(),
                files_deleted,
                bytes_deleted,
            }
        };
        before.iter().zip(after).map(of_table).collect()
    }
}

impl From<Forecast> for Maintained {
    fn from(forecast: Forecast) -> Self {
        let Forecast { table, files, bytes, files_after, events_past_their_time, deletable } = forecast;
        Self {
            table,
            files_before: files,
            files_after,
            bytes_before: bytes,
            // Merging makes them smaller, by how much is known then.
            bytes_after: bytes,
            events_retired: events_past_their_time,
            files_deleted: deletable.0,
            bytes_deleted: deletable.1,
        }
    }
}

/// Maintenance that somebody wants now.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceOrder {
    /// Only say what would be done.
    pub dry_run: bool,
    /// How long files are kept that no table has any more: readers of an older version need them.
    pub keep_old_files: Duration,
}

/// An order on its way to the owner of the lake.
pub(crate) struct OrderGiven {
    pub(crate) order: MaintenanceOrder,
    pub(crate) reply: oneshot::Sender<Option<Vec<Maintained>>>,
}

/// Who takes orders for maintenance.
#[derive(Clone)]
pub struct Maintenance(pub(crate) mpsc::Sender<OrderGiven>);

impl Maintenance {
    /// Have it done; none, when not all of it could be, as the log says, or the system goes down before it is.
    pub fn order(&self, order: MaintenanceOrder) -> BoxFuture<'_, Option<Vec<Maintained>>> {
        async move {
            let (reply, done) = oneshot::channel();
            self.0.send(OrderGiven { order, reply }).await.ok()?;
            done.await.ok().flatten()
        }
        .boxed()
    }
}

/// Say what would be done, beside the lake.
pub(crate) fn foresee(
    lake: &Lake,
    policy: &RetentionPolicy,
    keep: Duration,
    runtime: &Handle,
    reply: oneshot::Sender<Option<Vec<Maintained>>>,
) {
    let forecast = lake.forecast(policy, keep);
    runtime.spawn(async move {
        match forecast.run().await {
            Ok(tables) => drop(reply.send(Some(tables.into_iter().map(Maintained::from).collect()))),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot foresee maintenance"),
        }
    });
}

/// Maintain a lake in a folder that no server uses.
///
/// # Errors
/// When it cannot be opened, or another process writes to it.
pub fn of_folder(
    folder: &Path,
    catalogue: Arc<Catalogue>,
    policy: RetentionPolicy,
    kpis: Vec<KpiDefinition>,
    order: MaintenanceOrder,
) -> BoxFuture<'_, Result<Vec<Maintained>, PipelineError>> {
    async move {
        let mut lake = Lake::open(&folder_url(folder)?, catalogue, LakeConfig::default()).await?;
        if order.dry_run {
            let forecast = lake.forecast(&policy, order.keep_old_files).run().await?;
            return Ok(forecast.into_iter().map(Maintained::from).collect());
        }
        if !lake.is_settled() {
            return Err(PipelineError::Unsettled);
        }
        let (reply, mut report) = oneshot::channel();
        let session = SqlSession::new(Handle::current(), derived_tables(&kpis))?;
        let freezer = Freezer { session, definitions: Arc::new(kpis) };
        let mut upkeep = Upkeep::new(Handle::current(), policy, freezer, None);
        upkeep.demand(Demand::new(order.keep_old_files, reply), &lake);
        loop {
            upkeep.step(&mut lake);
            match upkeep.running.join_next().await {
                Some(done) => drop(upkeep.take(done, &mut lake)?),
                None => tokio::time::sleep_until(upkeep.due().unwrap_or_else(Instant::now)).await,
            }
            if let Ok(report) = report.try_recv() {
                return report.ok_or(PipelineError::Maintenance);
            }
        }
    }
    .boxed()
}
