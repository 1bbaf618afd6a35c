//! SQL over one view of the lake: read-only, and within limits.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType},
    },
    common::{
        DataFusionError, ParamValues, Result, ScalarValue, TableReference, config::Dialect, metadata::ScalarAndMetadata,
    },
    execution::{
        SendableRecordBatchStream, SessionStateBuilder,
        context::SQLOptions,
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{LogicalPlan, ScalarUDF, lit},
    prelude::{SessionConfig, SessionContext, col},
    sql::{parser::Statement, sqlparser},
};
use futures::StreamExt;
use schemas::{ContextIndex, Position, field_type::format_timestamp};
use serde_json::Value;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    audit::{Audit, audit},
    sql_catalog::{self, DATABASE, DEFAULT_SCHEMA, ExtraTable, scan},
    sql_error::{SqlError, classify},
    view::{LakeView, TableView},
};

/// Memory of all running queries together; beyond it they spill or are refused.
const QUERY_MEMORY: usize = 2 << 30;
/// What they may spill to the disk, together.
const QUERY_SPILL: u64 = 20 << 30;
/// Batches of a result that wait for whoever reads it.
const RESULT_QUEUE: usize = 2;

/// What one query may use.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// Without a limit, [`usize::MAX`].
    pub rows: usize,
    pub time: Duration,
}

/// A query's rows as they come: memory is bounded however many there are. Dropped, the query ends.
pub struct QueryRows {
    pub schema: SchemaRef,
    /// The time is up for whoever reads as for the query.
    pub(crate) deadline: Instant,
    limit: Duration,
    /// `None` is the end, and nothing else is: a query that breaks off says no more.
    rows: mpsc::Receiver<Result<Option<RecordBatch>, SqlError>>,
    ended: bool,
    /// Rows that may still come.
    left: usize,
    truncated: bool,
    _task: AbortOnDrop<()>,
}

impl QueryRows {
    /// The next rows, until there are no more or the limit is reached.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, SqlError>> {
        if self.ended {
            return None;
        }
        let batch = match self.rows.recv().await {
            Some(Ok(Some(batch))) => batch,
            Some(Ok(None)) => {
                self.ended = true;
                return None;
            }
            Some(Err(error)) => {
                self.ended = true;
                return Some(Err(error));
            }
            None => {
                self.ended = true;
                return Some(Err(SqlError::TooSlow(self.limit)));
            }
        };
        self.truncated |= batch.num_rows() > self.left;
        let rows = batch.num_rows().min(self.left);
        self.left -= rows;
        Some(Ok(batch.slice(0, rows)))
    }

    /// How long the query and whoever reads it may take.
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Every row.
    ///
    /// # Errors
    /// When the query fails on its way.
    pub async fn collect(&mut self) -> Result<Vec<RecordBatch>, SqlError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    /// Whether there were more rows than the limit, once all have come.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.truncated
    }
}

/// The values of `$1`, `$2` and so on, from JSON.
///
/// # Errors
/// The index of one that is a list or an object.
pub fn parameters(values: &[Value]) -> Result<ParamValues, usize> {
    let scalar = |(index, value): (usize, &Value)| {
        let scalar = match value {
            Value::Null => ScalarValue::Null,
            Value::Bool(value) => ScalarValue::from(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => ScalarValue::from(whole),
                None => ScalarValue::Float64(number.as_f64()),
            },
            Value::String(text) => ScalarValue::from(text.as_str()),
            Value::Array(_) | Value::Object(_) => return Err(index),
        };
        Ok(ScalarAndMetadata::new(scalar, None))
    };
    Ok(ParamValues::List(values.iter().enumerate().map(scalar).collect::<Result<_, _>>()?))
}

/// Runs queries, off the threads that serve requests.
#[derive(Clone)]
pub struct SqlSession {
    base: SessionContext,
    runtime: Handle,
}

/// The settings every session shares.
pub(crate) fn base_context() -> Result<SessionContext> {
    let pool = TrackConsumersPool::new(FairSpillPool::new(QUERY_MEMORY), NonZeroUsize::MIN);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_max_temp_directory_size(QUERY_SPILL)
        .build_arc()?;
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(DATABASE, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    // One string type for committed rows and the tail's.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    // So that an error can say where it is.
    config.options_mut().sql_parser.collect_spans = true;
    let state =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
    let mut context = SessionContext::new_with_state(state);
    datafusion_functions_json::register_all(&mut context)?;
    Ok(context)
}

impl SqlSession {
    /// Queries run on `runtime`.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub fn new(runtime: Handle) -> Result<Self> {
        Ok(Self { base: base_context()?, runtime })
    }

    /// A context whose tables are the view's. `functions` are added to the engine's own.
    #[must_use]
    pub fn context(&self, view: &Arc<LakeView>, extra: Vec<ExtraTable>, functions: Vec<ScalarUDF>) -> SessionContext {
        sql_catalog::context(&self.base, view, extra, functions)
    }

    /// The tables a query names, each with the schema it names; none, when it cannot be read.
    #[must_use]
    pub fn references(&self, sql: &str) -> Vec<(Option<String>, String)> {
        let state = self.base.state();
        let statement = state.sql_to_statement(sql, &Dialect::Generic);
        let names = statement.and_then(|statement| state.resolve_table_references(&statement)).unwrap_or_default();
        names.iter().map(|name| (name.schema().map(str::to_owned), name.table().to_owned())).collect()
    }

    /// The columns of tables beside the events, in their order; none of one that cannot be planned.
    pub async fn columns_of(&self, view: &Arc<LakeView>, extra: &[ExtraTable]) -> Vec<Option<SchemaRef>> {
        let context = self.context(view, extra.to_vec(), Vec::new());
        let mut columns = Vec::new();
        for table in extra {
            let found = context.table_provider(TableReference::partial(table.schema, table.name.as_str())).await;
            columns.push(found.ok().map(|table| table.schema()));
        }
        columns
    }

    /// Answer a person's query at the view's cut. The limits hold until the last row is read.
    ///
    /// # Errors
    /// When the query is wrong, changes something, or exceeds its limits.
    pub async fn query(
        &self,
        view: &Arc<LakeView>,
        extra: Vec<ExtraTable>,
        sql: &str,
        parameters: ParamValues,
        limits: QueryLimits,
    ) -> Result<QueryRows, SqlError> {
        let deadline = Instant::now() + limits.time;
        let context = self.context(view, extra, Vec::new());
        let state = context.state();
        let statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(classify)?;
        if !only_reads(&statement) {
            let what = sql.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            return Err(SqlError::ReadOnly { what });
        }
        let planned = async move {
            let plan = state.statement_to_plan(statement).await?;
            read_only().verify_plan(&plan)?;
            let plan = plan.with_param_values(parameters)?;
            let frame = context.execute_logical_plan(plan).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            // EXPLAIN has no rows to bound, and no plan to put a limit on.
            let explains = matches!(frame.logical_plan(), LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
            let bound = limits.rows.checked_add(1).filter(|_| !explains);
            let frame = if bound.is_some() { frame.limit(0, bound)? } else { frame };
            Ok((schema, frame.execute_stream().await?))
        };
        let (schema, rows) = self.run(planned, limits.time).await?;
        let (sender, receiver) = mpsc::channel(RESULT_QUEUE);
        let task = self.spawn(hand_on(rows, sender, deadline, limits.time));
        Ok(QueryRows {
            schema,
            deadline,
            limit: limits.time,
            rows: receiver,
            ended: false,
            left: limits.rows,
            truncated: false,
            _task: task,
        })
    }

    /// The view as of an earlier position.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn cut(
        &self,
        view: &Arc<LakeView>,
        position: Position,
        within: Duration,
    ) -> Result<Arc<LakeView>, SqlError> {
        let sql = format!("SELECT max(event_time) FROM lake.events WHERE position <= {}", position.as_i64());
        let found = self.ask(view, sql, within).await?;
        let times = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
        Ok(Arc::new(view.cut(position, times.flat_map(|times| times.iter().flatten()).max())))
    }

    /// The last position that the log took at this time or before: microseconds since 1970, UTC.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn position_at(&self, view: &Arc<LakeView>, time: i64, within: Duration) -> Result<Position, SqlError> {
        let tables = ["lake.events", "system.duplicates", "system.dead_letters"];
        let each = tables.map(|table| format!("SELECT position, ingested_at FROM {table}"));
        let sql = format!(
            "SELECT max(position) FROM ({}) WHERE ingested_at <= TIMESTAMP '{}'",
            each.join(" UNION ALL "),
            format_timestamp(time)
        );
        let found = self.ask(view, sql, within).await?;
        let positions = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
        let last = positions.flat_map(|positions| positions.iter().flatten()).max();
        Ok(last.map_or(Position::START, Position::from_i64))
    }

    async fn ask(&self, view: &Arc<LakeView>, sql: String, within: Duration) -> Result<Vec<RecordBatch>, SqlError> {
        let context = self.context(view, Vec::new(), Vec::new());
        self.run(async move { context.sql(&sql).await?.collect().await }, within).await
    }

    /// A context's rows in `(after, to]`, in no particular order.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn rows_between(
        &self,
        view: &Arc<LakeView>,
        context: ContextIndex,
        after: Position,
        to: Position,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let session = self.context(view, Vec::new(), Vec::new());
        let between = col("position").gt(lit(after.as_i64())).and(col("position").lt_eq(lit(to.as_i64())));
        let plan = || scan(view, context)?.filter(between)?.build();
        let rows = async move { session.execute_logical_plan(plan()?).await?.execute_stream().await };
        rows.await.map_err(classify)
    }

    /// Read every column of every committed row of a table, and compare with what the table says of them.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub async fn audit(&self, table: &TableView) -> Result<Audit, SqlError> {
        self.run(audit(self.base.clone(), table.clone()), Duration::MAX).await
    }

    /// Run one of our own queries to its end: `$name` parameters, no limits.
    ///
    /// # Errors
    /// When the query is wrong or fails.
    pub async fn collect(
        &self,
        context: SessionContext,
        sql: &str,
        parameters: ParamValues,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        let sql = sql.to_owned();
        let rows = async move {
            let frame = context.sql_with_options(&sql, read_only()).await?;
            frame.with_param_values(parameters)?.collect().await
        };
        self.run(rows, Duration::MAX).await
    }

    /// Run something where queries run.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop<()> {
        AbortOnDrop(self.runtime.spawn(work))
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        within: Duration,
    ) -> Result<T, SqlError> {
        // Aborted when the caller goes away: nobody waits for the answer any more.
        let task = AbortOnDrop(self.runtime.spawn(tokio::time::timeout(within, work)));
        match task.await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(classify(error)),
            Ok(Err(_)) => Err(SqlError::TooSlow(within)),
            Err(error) => Err(SqlError::Internal(Box::new(DataFusionError::External(Box::new(error))))),
        }
    }
}

/// Hand rows on until they end, somebody no longer wants them, or the time is up.
async fn hand_on(
    mut rows: SendableRecordBatchStream,
    sender: mpsc::Sender<Result<Option<RecordBatch>, SqlError>>,
    deadline: Instant,
    limit: Duration,
) {
    loop {
        let next = tokio::time::timeout_at(deadline, rows.next()).await;
        let (message, ends) = match next {
            Ok(None) => (Ok(None), true),
            Ok(Some(Ok(batch))) => (Ok(Some(batch)), false),
            Ok(Some(Err(error))) => (Err(classify(error)), true),
            Err(_) => (Err(SqlError::TooSlow(limit)), true),
        };
        // A reader who takes nothing holds memory: the time is up for both.
        let sent = tokio::time::timeout_at(deadline, sender.send(message)).await;
        if ends || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// A task that nobody waits for any more ends.
pub(crate) struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

/// Whether a statement asks, by its kind. What it asks for is checked once it is planned.
fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Explain(_) => true,
        Statement::Statement(statement) => matches!(
            **statement,
            sqlparser::ast::Statement::Query(_)
                | sqlparser::ast::Statement::ExplainTable { .. }
                | sqlparser::ast::Statement::ShowTables { .. }
                | sqlparser::ast::Statement::ShowColumns { .. }
                | sqlparser::ast::Statement::ShowFunctions { .. }
        ),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}
