//! Maintenance on demand: what it did to each table, or would do.

use std::{path::Path, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use lake::{Lake, LakeConfig, SqlSession};
use schemas::{Catalogue, RetentionPolicy};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    derived_tables::derived_tables,
    error::{PipelineError, folder_url},
    kpi_definition::KpiDefinition,
    kpis::KpiSnapshotter,
    maintenance_scheduler::{MaintenanceScheduler, OnDemandRun},
    table_report::TableReport,
};

/// Maintenance that somebody wants now.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// How long files are kept that no table has any more: readers of an older version need them.
    pub keep_old_files: Duration,
}

/// An order on its way to the owner of the lake.
pub(crate) struct MaintenanceRequest {
    pub(crate) order: MaintenanceOptions,
    pub(crate) reply: oneshot::Sender<Option<Vec<TableReport>>>,
}

/// Who takes orders for maintenance.
#[derive(Clone)]
pub struct Maintenance(pub(crate) mpsc::Sender<MaintenanceRequest>);

impl Maintenance {
    /// Have it done; none, when not all of it could be, as the log says, or the system goes down before it is.
    pub fn order(&self, order: MaintenanceOptions) -> BoxFuture<'_, Option<Vec<TableReport>>> {
        async move {
            let (reply, done) = oneshot::channel();
            self.0.send(MaintenanceRequest { order, reply }).await.ok()?;
            done.await.ok().flatten()
        }
        .boxed()
    }
}

/// Say what would be done, beside the lake.
pub(crate) fn dry_run(
    lake: &Lake,
    policy: &RetentionPolicy,
    keep: Duration,
    runtime: &Handle,
    reply: oneshot::Sender<Option<Vec<TableReport>>>,
) {
    let forecast = lake.forecast(policy, keep);
    runtime.spawn(async move {
        match forecast.run().await {
            Ok(tables) => drop(reply.send(Some(tables.into_iter().map(TableReport::from).collect()))),
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
    order: MaintenanceOptions,
) -> BoxFuture<'_, Result<Vec<TableReport>, PipelineError>> {
    async move {
        let mut lake = Lake::open(&folder_url(folder)?, catalogue, LakeConfig::default()).await?;
        if order.dry_run {
            let forecast = lake.forecast(&policy, order.keep_old_files).run().await?;
            return Ok(forecast.into_iter().map(TableReport::from).collect());
        }
        if !lake.is_settled() {
            return Err(PipelineError::Unsettled);
        }
        let (reply, mut report) = oneshot::channel();
        let session = SqlSession::new(Handle::current(), derived_tables(&kpis))?;
        let snapshotter = KpiSnapshotter { session, definitions: Arc::new(kpis) };
        let mut scheduler = MaintenanceScheduler::new(Handle::current(), policy, snapshotter, None);
        scheduler.demand(OnDemandRun::new(order.keep_old_files, reply), &lake);
        loop {
            scheduler.step(&mut lake);
            match scheduler.running.join_next().await {
                Some(done) => drop(scheduler.take(done, &mut lake)?),
                None => tokio::time::sleep_until(scheduler.due().unwrap_or_else(Instant::now)).await,
            }
            if let Ok(report) = report.try_recv() {
                return report.ok_or(PipelineError::Maintenance);
            }
        }
    }
    .boxed()
}
