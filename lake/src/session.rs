//! SQL over one view of the lake: read-only, and within limits.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError},
    catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider},
    common::{Column, DataFusionError, JoinType, ParamValues, Result, TableReference, config::Dialect},
    datasource::{ViewTable, provider_as_source},
    execution::{
        SendableRecordBatchStream, SessionStateBuilder,
        context::SQLOptions,
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::RuntimeEnvBuilder,
    },
    functions::expr_fn::coalesce,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, lit},
    prelude::{SessionConfig, SessionContext, col, ident},
    sql::{parser::Statement, sqlparser},
};
use schemas::{
    ContextIndex, EventDefinition, Position,
    columns::{ENVELOPE, EXTRA},
};
use tokio::runtime::Handle;

use crate::{
    audit::{Audit, audit},
    event_json::event_json,
    view::{LakeView, TableView},
};

/// The catalogue's name in SQL, and the database's for those who connect to it.
const DATABASE: &str = "forecourt";
/// The schema of names that name none.
const DEFAULT_SCHEMA: &str = "lake";
const SYSTEM: &str = "system";
/// Memory of all running queries together; beyond it they spill or are refused.
const QUERY_MEMORY: usize = 2 << 30;

/// What one query may use.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    pub rows: usize,
    pub time: Duration,
}

/// A query's rows, and the cut they were read at.
#[derive(Clone, Debug)]
pub struct QueryResult {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Whether there were more rows than the limit.
    pub truncated: bool,
}

/// A query that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The query is not right: syntax, a name, a type.
    #[error("{message}")]
    Invalid {
        message: String,
        /// Line and column, from 1, where they are known.
        at: Option<(u64, u64)>,
        #[source]
        source: Box<DataFusionError>,
    },
    #[error("only SELECT and EXPLAIN are allowed: {what} would change something")]
    ReadOnly { what: String },
    #[error("the query did not finish within {0:?}; narrow it, for example by event_time")]
    TooSlow(Duration),
    #[error("the query needs more memory than queries may use; select fewer columns or rows")]
    TooLarge(#[source] Box<DataFusionError>),
    #[error("the query failed")]
    Internal(#[source] Box<DataFusionError>),
}

/// A table that is not the lake's, shown in a query's cut: a board, the positions.
#[derive(Clone, Debug)]
pub struct ExtraTable {
    pub schema: &'static str,
    pub name: String,
    pub provider: Arc<dyn TableProvider>,
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
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
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
        let catalog = Arc::new(ViewCatalog { view: Arc::clone(view), extra });
        let state = SessionStateBuilder::new_from_existing(self.base.state())
            .with_catalog_list(Arc::new(OneCatalog(catalog)))
            .build();
        let context = SessionContext::new_with_state(state);
        for function in functions {
            context.register_udf(function);
        }
        context
    }

    /// Answer a person's query at the view's cut.
    ///
    /// # Errors
    /// When the query is wrong, changes something, or exceeds its limits.
    pub async fn query(
        &self,
        view: &Arc<LakeView>,
        extra: Vec<ExtraTable>,
        sql: &str,
        limits: QueryLimits,
    ) -> Result<QueryResult, SqlError> {
        let context = self.context(view, extra, Vec::new());
        let state = context.state();
        let statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(classify)?;
        if !only_reads(&statement) {
            let what = sql.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            return Err(SqlError::ReadOnly { what });
        }
        let rows = async move {
            let plan = state.statement_to_plan(statement).await?;
            read_only().verify_plan(&plan)?;
            let frame = context.execute_logical_plan(plan).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            // EXPLAIN has no rows to bound, and no plan to put a limit on.
            let explains = matches!(frame.logical_plan(), LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
            let frame = if explains { frame } else { frame.limit(0, Some(limits.rows.saturating_add(1)))? };
            Ok((schema, frame.collect().await?))
        };
        let (schema, batches) = self.run(rows, limits.time).await?;
        Ok(bounded(schema, batches, limits.rows))
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

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

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

fn bounded(schema: SchemaRef, batches: Vec<RecordBatch>, limit: usize) -> QueryResult {
    let mut left = limit;
    let mut truncated = false;
    let mut kept = Vec::with_capacity(batches.len());
    for batch in batches {
        truncated |= batch.num_rows() > left;
        let rows = batch.num_rows().min(left);
        left -= rows;
        kept.push(batch.slice(0, rows));
    }
    QueryResult { schema, batches: kept, truncated }
}

/// Which of our errors an engine error is. The engine's words about a query go to its author; all others do not.
fn classify(error: DataFusionError) -> SqlError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => SqlError::TooLarge(Box::new(error)),
        DataFusionError::Plan(message) if is_refusal(message) => SqlError::ReadOnly { what: refused(message) },
        DataFusionError::SQL(_, _)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(_, _)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Execution(_)
        | DataFusionError::ArrowError(_, _) => invalid(error),
        _ => SqlError::Internal(Box::new(error)),
    }
}

fn is_refusal(message: &str) -> bool {
    ["DDL not supported", "DML not supported", "Statement not supported"].iter().any(|m| message.starts_with(m))
}

/// `DDL not supported: CreateView` → `CreateView`.
fn refused(message: &str) -> String {
    message.rsplit(": ").next().unwrap_or(message).to_owned()
}

fn invalid(error: DataFusionError) -> SqlError {
    let message = match error.find_root() {
        DataFusionError::SQL(error, _) => error.to_string().replace("sql parser error: ", ""),
        DataFusionError::ArrowError(error, _) => describe_arrow(error),
        root => root.strip_backtrace(),
    };
    let prefixes = ["Error during planning: ", "Execution error: ", "Schema error: "];
    let message = prefixes.iter().fold(message.as_str(), |message, prefix| message.trim_start_matches(prefix));
    let at = diagnosed(&error).or_else(|| written(message));
    SqlError::Invalid { message: message.to_owned(), at, source: Box::new(error) }
}

fn describe_arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::ExternalError(source) => source.to_string(),
        other => other.to_string(),
    }
}

/// Where the planner says the fault is.
fn diagnosed(error: &DataFusionError) -> Option<(u64, u64)> {
    let start = error.diagnostic()?.span?.start;
    Some((start.line, start.column))
}

/// `... at Line: 1, Column: 15` → (1, 15): where the parser says the fault is.
fn written(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once("Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(line)?, digits(column)?))
}

/// The one catalog there is. Nothing can be added to it.
#[derive(Debug)]
struct OneCatalog(Arc<ViewCatalog>);

impl CatalogProviderList for OneCatalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![DATABASE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == DATABASE).then(|| Arc::clone(&self.0) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct ViewCatalog {
    view: Arc<LakeView>,
    extra: Vec<ExtraTable>,
}

/// What a schema's tables are made from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Context(ContextIndex),
    Lake,
    System,
    Extra,
}

impl ViewCatalog {
    fn source(&self, schema: &str) -> Option<Source> {
        match schema {
            DEFAULT_SCHEMA => Some(Source::Lake),
            SYSTEM => Some(Source::System),
            _ => match self.view.catalogue.context(schema) {
                Some((index, _)) => Some(Source::Context(index)),
                None => self.extra.iter().any(|table| table.schema == schema).then_some(Source::Extra),
            },
        }
    }
}

impl CatalogProvider for ViewCatalog {
    fn schema_names(&self) -> Vec<String> {
        let contexts = self.view.catalogue.contexts().iter().map(|context| context.name.clone());
        let extra = self.extra.iter().map(|table| table.schema.to_owned()).filter(|schema| schema != SYSTEM);
        let mut names: Vec<_> = contexts.chain([DEFAULT_SCHEMA.to_owned(), SYSTEM.to_owned()]).chain(extra).collect();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let source = self.source(name)?;
        let extra = self.extra.iter().filter(|table| table.schema == name).cloned().collect();
        Some(Arc::new(ViewSchema { view: Arc::clone(&self.view), source, extra }))
    }
}

/// A schema whose tables are planned when a query names them.
#[derive(Debug)]
struct ViewSchema {
    view: Arc<LakeView>,
    source: Source,
    extra: Vec<ExtraTable>,
}

#[async_trait]
impl SchemaProvider for ViewSchema {
    fn table_names(&self) -> Vec<String> {
        let own: Vec<String> = match self.source {
            Source::Context(index) => {
                self.view.catalogue.context_at(index).events.iter().map(|event| event.view.clone()).collect()
            }
            Source::Lake => vec!["events".to_owned()],
            Source::System => vec!["dead_letters".to_owned(), "duplicates".to_owned()],
            Source::Extra => Vec::new(),
        };
        own.into_iter().chain(self.extra.iter().map(|table| table.name.clone())).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(extra) = self.extra.iter().find(|table| table.name == name) {
            return Ok(Some(Arc::clone(&extra.provider)));
        }
        match self.source {
            Source::Context(index) => {
                let context = self.view.catalogue.context_at(index);
                match context.events.iter().find(|event| event.view == name) {
                    Some(event) => event_view(&self.view, index, event).map(Some),
                    None => Ok(None),
                }
            }
            Source::Lake if name == "events" => every_event(&self.view).map(Some),
            Source::System if name == "dead_letters" => dead_letters(&self.view).map(Some),
            Source::System if name == "duplicates" => Ok(self.view.table(name).map(TableView::provider)),
            Source::Lake | Source::System | Source::Extra => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|table| table == name)
    }
}

fn scan(view: &LakeView, index: ContextIndex) -> Result<LogicalPlanBuilder> {
    let table = &view.tables[index.get()];
    let name = TableReference::bare(table.spec.name.clone());
    LogicalPlanBuilder::scan(name, provider_as_source(table.provider()), None)
}

/// The view of one event type: the envelope and the columns its events may carry.
fn event_view(view: &LakeView, index: ContextIndex, event: &EventDefinition) -> Result<Arc<dyn TableProvider>> {
    let context = view.catalogue.context_at(index);
    let carried = event.fields.iter().map(|field| context.columns[field.column].name.as_str());
    let columns = ENVELOPE.into_iter().chain(carried).chain([EXTRA]).map(ident);
    let plan = scan(view, index)?.filter(col("event_type").eq(lit(event.name.clone())))?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// `system.dead_letters`: every dead letter, and what became of it.
fn dead_letters(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    let letters = view.table("dead_letters").map(TableView::provider);
    let letters = letters.ok_or_else(|| DataFusionError::Plan("the lake has no dead letters".to_owned()))?;
    let letter = |name: &str| Column::new(Some("letter"), name);
    let schema = letters.schema();
    let own = schema.fields().iter().map(|field| Expr::Column(letter(field.name())).alias(field.name()));
    let closings =
        LogicalPlanBuilder::scan("closing", provider_as_source(Arc::clone(&view.closings)), None)?.build()?;
    let closing = |name: &str| Expr::Column(Column::new(Some("closing"), name));
    let status = coalesce(vec![closing("status"), lit("open")]).alias("status");
    let ends = ["closed_at", "closed_by", "retried_as"].map(|name| closing(name).alias(name));
    let plan = LogicalPlanBuilder::scan("letter", provider_as_source(letters), None)?
        .join(
            closings,
            JoinType::Left,
            (vec![letter("position")], vec![Column::new(Some("closing"), "position")]),
            None,
        )?
        .project(own.chain([status]).chain(ends))?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// `lake.events`: every event of every context, its payload as JSON text.
fn every_event(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    let mut plan: Option<LogicalPlanBuilder> = None;
    for (index, context) in view.catalogue.indexed() {
        let envelope = ENVELOPE.into_iter().map(ident);
        let data = event_json(&view.catalogue, index).alias("data");
        let rows = scan(view, index)?.project(envelope.chain([lit(context.name.clone()).alias("context"), data]))?;
        plan = Some(match plan {
            Some(plan) => plan.union(rows.build()?)?,
            None => rows,
        });
    }
    let plan = plan.ok_or_else(|| DataFusionError::Plan("the catalogue has no contexts".to_owned()))?;
    Ok(Arc::new(ViewTable::new(plan.build()?, None)))
}
