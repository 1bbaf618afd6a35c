//! SQL over one view of the lake: read-only, and within limits.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType},
    },
    common::{
        DataFusionError, ParamValues, Result, ScalarValue, TableReference, config::Dialect, metadata::ScalarAndMetadata,
    },
    execution::{
        SendableRecordBatchStream, SessionState, SessionStateBuilder,
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{LogicalPlan, ScalarUDF, lit},
    prelude::{SessionConfig, SessionContext, col},
    sql::{
        parser::DFParser,
        sqlparser::{
            self,
            dialect::PostgreSqlDialect,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use datafusion_pg_catalog::sql::{
    PostgresCompatibilityParser,
    rules::{RewriteArrayAnyAllOperation, SqlStatementRewriteRule},
};
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use schemas::{ContextIndex, Position, field_type::format_timestamp};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{OnceCell, mpsc},
    time::Instant,
};

use crate::{
    audit::{Audit, audit},
    catalogue_questions,
    description::describe,
    plain_texts::{plain, plain_schema, plain_type},
    row_reader::RowReader,
    row_stream::{AbortOnDrop, MAX_WAITING_BATCHES, QueryLimits, QueryRows, forward_rows},
    runaway::{Yielding, bound_functions},
    schema_names::{DATABASE, DEFAULT_SCHEMA},
    sql_catalog::{self, Beside, ExtraTable, scan},
    sql_error::{SqlError, classify},
    standard_schemas::StandardSchemas,
    statement_guard::{first_words, read_only, refuse_changes, refuse_large},
    table_description::TableDescription,
    view::{LakeView, TableView},
};

/// A statement that was read and not yet planned.
pub use datafusion::sql::parser::Statement;

/// Memory of all running queries together; beyond it they spill or are refused.
const QUERY_MEMORY: usize = 2 << 30;
/// What they may spill to the disk, together.
const QUERY_SPILL: u64 = 20 << 30;
/// What is remembered of files that were read before: where their columns are.
const FOOTERS: usize = 256 << 20;
/// Bytes of files from which on they are read by several cores.
const SPLIT_FROM: usize = 1 << 20;
/// How long a statement may be planned to be described.
const PLAN_WITHIN: Duration = Duration::from_secs(30);
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

/// A statement that can be run: what it answers and asks for.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub schema: SchemaRef,
    /// The types of `$1`, `$2` and so on, where they can be told.
    pub parameters: Vec<Option<DataType>>,
}

impl Prepared {
    /// It takes at least so many parameters, whether it uses them or not.
    pub fn takes(&mut self, parameters: usize) {
        self.parameters.resize(self.parameters.len().max(parameters), None);
    }
}

/// Parameters a statement may have.
const MOST_PARAMETERS: usize = 65_535;

/// `$3` is the parameter with index 2.
fn parameter_index(name: &str) -> Option<usize> {
    let number: usize = name.strip_prefix('$')?.parse().ok()?;
    number.checked_sub(1).filter(|index| *index < MOST_PARAMETERS)
}

/// How many parameters a text numbers.
#[must_use]
pub fn parameters_in(sql: &str) -> usize {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default();
    let indices = tokens.iter().filter_map(|token| match token {
        Token::Placeholder(name) => parameter_index(name),
        _ => None,
    });
    indices.max().map_or(0, |index| index + 1)
}

/// Runs queries, off the threads that serve requests.
#[derive(Clone)]
pub struct SqlSession {
    base: SessionContext,
    runtime: Handle,
    /// The tables beside the events.
    tables: Arc<Vec<ExtraTable>>,
    described: Arc<OnceCell<Described>>,
    postgres: Arc<PostgresCompatibilityParser>,
}

/// What there is, in words: it stays the same.
struct Described {
    tables: Vec<TableDescription>,
    standard: StandardSchemas,
}

/// Where queries put what does not fit in memory.
#[derive(Clone, Debug)]
pub struct Spill {
    pub folder: PathBuf,
    pub most_bytes: u64,
}

/// The settings every session shares.
pub(crate) fn base_context(spill: Option<&Spill>) -> Result<SessionContext> {
    let pool = TrackConsumersPool::new(FairSpillPool::new(QUERY_MEMORY), NonZeroUsize::MIN);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_max_temp_directory_size(spill.map_or(QUERY_SPILL, |spill| spill.most_bytes.min(QUERY_SPILL)))
        .with_metadata_cache_limit(FOOTERS);
    let runtime = match spill {
        Some(spill) => runtime.with_temp_file_path(&spill.folder).build_arc()?,
        None => runtime.build_arc()?,
    };
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(DATABASE, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(true);
    // A table's committed rows say themselves which type of text they have.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    // Our files have none.
    config.options_mut().execution.parquet.bloom_filter_on_read = false;
    // Most tables are small, and a machine has several cores.
    config.options_mut().optimizer.repartition_file_min_size = SPLIT_FROM;
    // So that an error can say where it is.
    config.options_mut().sql_parser.collect_spans = true;
    let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let mut context = SessionContext::new_with_state(state.with_physical_optimizer_rule(Arc::new(Yielding)).build());
    datafusion_functions_json::register_all(&mut context)?;
    bound_functions(&context);
    Ok(context)
}

impl SqlSession {
    /// Queries run on `runtime`, and spill to the system's folder of temporary files. `tables` are those beside the events.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub fn new(runtime: Handle, tables: Vec<ExtraTable>) -> Result<Self> {
        Self::spilling(runtime, tables, None)
    }

    /// The same, spilling to a folder of one's own.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub fn spilling(runtime: Handle, tables: Vec<ExtraTable>, spill: Option<&Spill>) -> Result<Self> {
        let base = base_context(spill)?;
        StandardSchemas::set_up(&base)?;
        let postgres = Arc::new(PostgresCompatibilityParser::new());
        Ok(Self { base, runtime, tables: Arc::new(tables), described: Arc::default(), postgres })
    }

    /// A context whose tables are the view's events. `functions` are added to the engine's own.
    #[must_use]
    pub fn context(&self, view: &Arc<LakeView>, functions: Vec<ScalarUDF>) -> SessionContext {
        sql_catalog::context(&self.base, view, Beside::default(), functions)
    }

    async fn described(&self, view: &Arc<LakeView>) -> Result<&Described> {
        let describe = || async {
            let tables = describe(&self.base, view, &self.tables).await?;
            let standard = StandardSchemas::new(&self.base, &tables).await?;
            Ok(Described { tables, standard })
        };
        self.described.get_or_try_init(describe).await
    }

    /// Every table there is.
    ///
    /// # Errors
    /// When one of them cannot be planned.
    pub fn tables<'a>(&'a self, view: &Arc<LakeView>) -> BoxFuture<'a, Result<&'a [TableDescription], SqlError>> {
        let view = Arc::clone(view);
        async move { self.described(&view).await.map(|described| described.tables.as_slice()).map_err(classify) }
            .boxed()
    }

    /// A person's statement.
    ///
    /// # Errors
    /// When it cannot be read, or there are several.
    pub fn parse(&self, sql: &str) -> Result<Statement, SqlError> {
        refuse_large(sql)?;
        self.base.state().sql_to_statement(sql, &Dialect::Generic).map_err(classify)
    }

    /// The statements of a text in Postgres's words; what its clients ask of its catalogue is put in ours.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parse_postgres(&self, sql: &str) -> Result<Vec<sqlparser::ast::Statement>, SqlError> {
        refuse_large(sql)?;
        let plain = DFParser::parse_sql_with_dialect(sql, &PostgreSqlDialect {});
        if !catalogue_questions::asks(sql) {
            let any = RewriteArrayAnyAllOperation;
            let plain = plain.map_err(classify)?.into_iter().map(|statement| match statement {
                Statement::Statement(statement) => Ok(any.rewrite(*statement)),
                other => Err(SqlError::ReadOnly { what: first_words(&other) }),
            });
            return plain.collect();
        }
        let parsed = catalogue_questions::parse(&self.postgres, sql);
        // The reader of plain SQL says where the fault is.
        parsed.map_err(|error| match plain {
            Err(placed) => classify(placed),
            Ok(_) => classify(DataFusionError::SQL(Box::new(error), None)),
        })
    }

    /// The tables a statement names, each with the schema it names.
    #[must_use]
    pub fn references(&self, statement: &Statement) -> Vec<(Option<String>, String)> {
        let names = self.base.state().resolve_table_references(statement).unwrap_or_default();
        names.iter().map(|name| (name.schema().map(str::to_owned), name.table().to_owned())).collect()
    }

    /// What a person's statement answers, and the parameters it takes, without running it.
    ///
    /// # Errors
    /// When the statement is wrong or changes something.
    pub fn prepare<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        statement: Statement,
    ) -> BoxFuture<'a, Result<Prepared, SqlError>> {
        async move {
            refuse_changes(&statement)?;
            // Their columns do, without rows.
            let brought = self.tables.iter().filter_map(ExtraTable::without_rows).collect();
            let (_, context) = self.for_a_person(view, brought).await?;
            let plan = async move { plan(&context, statement).await };
            let plan = self.run(plan, PLAN_WITHIN).await?;
            let parameters = plan.get_parameter_types().map_err(classify)?;
            let mut prepared = Prepared { schema: plain_schema(plan.schema().as_arrow()), parameters: Vec::new() };
            for (name, kind) in parameters {
                if let Some(index) = parameter_index(&name) {
                    prepared.takes(index + 1);
                    prepared.parameters[index] = kind.as_ref().map(plain_type);
                }
            }
            Ok(prepared)
        }
        .boxed()
    }

    /// A context with everything a person may ask for.
    async fn for_a_person(
        &self,
        view: &Arc<LakeView>,
        brought: Vec<ExtraTable>,
    ) -> Result<(&Described, SessionContext), SqlError> {
        let described = self.described(view).await.map_err(classify)?;
        let beside = Beside { tables: self.tables.to_vec(), standard: Some(described.standard.clone()) };
        Ok((described, sql_catalog::context(&self.base, view, beside.with(brought), Vec::new())))
    }

    /// Answer a person's statement at the view's cut. `brought` are the tables whose rows come with the question. The
    /// limits hold until the last row is read.
    ///
    /// # Errors
    /// When the statement is wrong, changes something, or exceeds its limits.
    pub fn query<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        brought: Vec<ExtraTable>,
        statement: Statement,
        parameters: ParamValues,
        limits: QueryLimits,
    ) -> BoxFuture<'a, Result<QueryRows, SqlError>> {
        async move {
            let deadline = Instant::now() + limits.time;
            refuse_changes(&statement)?;
            let (_, context) = self.for_a_person(view, brought).await?;
            let planned = async move {
                let plan = plan(&context, statement).await?.with_param_values(parameters)?;
                let frame = context.execute_logical_plan(plan).await?;
                let schema = plain_schema(frame.schema().as_arrow());
                // EXPLAIN has no rows to bound, and no plan to put a limit on.
                let explains = matches!(frame.logical_plan(), LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
                let bound = limits.rows.checked_add(1).filter(|_| !explains);
                let frame = if bound.is_some() { frame.limit(0, bound)? } else { frame };
                Ok((schema, plain(frame.execute_stream().await?)))
            };
            let (schema, rows) = self.run(planned, limits.time).await?;
            let (sender, receiver) = mpsc::channel(MAX_WAITING_BATCHES);
            // The view keeps the files that the query reads.
            let held = Arc::clone(view);
            let task = self.spawn(async move {
                forward_rows(rows, sender, deadline, limits.time).await;
                drop(held);
            });
            let reader = RowReader::new(task.0.abort_handle());
            Ok(QueryRows {
                schema,
                position: view.position,
                event_time: view.event_time,
                deadline,
                limit: limits.time,
                rows: receiver,
                ended: false,
                left: limits.rows,
                truncated: false,
                reader,
                _task: task,
            })
        }
        .boxed()
    }

    /// The view as of an earlier position.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn cut<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        position: Position,
        within: Duration,
    ) -> BoxFuture<'a, Result<Arc<LakeView>, SqlError>> {
        async move {
            let sql = format!("SELECT max(event_time) FROM lake.events WHERE position <= {}", position.as_i64());
            let found = self.ask(view, sql, within).await?;
            let times = found.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
            Ok(Arc::new(view.cut(position, times.flat_map(|times| times.iter().flatten()).max())))
        }
        .boxed()
    }

    /// The last position that the log took at this time or before: microseconds since 1970, UTC.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn position_at<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        time: i64,
        within: Duration,
    ) -> BoxFuture<'a, Result<Position, SqlError>> {
        async move {
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
        .boxed()
    }

    async fn ask(&self, view: &Arc<LakeView>, sql: String, within: Duration) -> Result<Vec<RecordBatch>, SqlError> {
        let context = self.context(view, Vec::new());
        self.run(async move { context.sql(&sql).await?.collect().await }, within).await
    }

    /// The rows of a query of our own over a view, as they come.
    ///
    /// # Errors
    /// When it cannot be planned or started.
    pub fn stream<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        sql: &'a str,
    ) -> BoxFuture<'a, Result<SendableRecordBatchStream>> {
        async move {
            let context = self.context(view, Vec::new());
            context.sql(sql).await?.execute_stream().await.map(plain)
        }
        .boxed()
    }

    /// A context's rows in `(after, to]`, in no particular order.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn rows_between<'a>(
        &'a self,
        view: &'a Arc<LakeView>,
        context: ContextIndex,
        after: Position,
        to: Position,
    ) -> BoxFuture<'a, Result<SendableRecordBatchStream, SqlError>> {
        async move {
            let session = self.context(view, Vec::new());
            let between = col("position").gt(lit(after.as_i64())).and(col("position").lt_eq(lit(to.as_i64())));
            let plan = || scan(view, context)?.filter(between)?.build();
            let rows = async move { session.execute_logical_plan(plan()?).await?.execute_stream().await };
            rows.await.map(plain).map_err(classify)
        }
        .boxed()
    }

    /// Read every column of every committed row of a table, and compare with what the table says of them.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub fn audit<'a>(&'a self, table: &'a TableView) -> BoxFuture<'a, Result<Audit, SqlError>> {
        async move { self.run(audit(self.base.clone(), table.clone()), Duration::MAX).await }.boxed()
    }

    /// Run one of our own queries to its end: `$name` parameters, no limits.
    ///
    /// # Errors
    /// When the query is wrong or fails.
    pub fn collect<'a>(
        &'a self,
        context: SessionContext,
        sql: &'a str,
        parameters: ParamValues,
    ) -> BoxFuture<'a, Result<Vec<RecordBatch>, SqlError>> {
        async move {
            let sql = sql.to_owned();
            let rows = async move {
                let frame = context.sql_with_options(&sql, read_only()).await?;
                plain(frame.with_param_values(parameters)?.execute_stream().await?).try_collect().await
            };
            self.run(rows, Duration::MAX).await
        }
        .boxed()
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
        // The time is kept here: what is run may be busy.
        let task = AbortOnDrop(self.runtime.spawn(work));
        match tokio::time::timeout(within, task).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(classify(error)),
            Err(_) => Err(SqlError::TooSlow(within)),
            Ok(Err(error)) => Err(SqlError::Internal(Box::new(DataFusionError::External(Box::new(error))))),
        }
    }
}

async fn plan(context: &SessionContext, statement: Statement) -> Result<LogicalPlan> {
    let state = context.state();
    let plan = match described_table(&state, &statement)? {
        Some(sql) => state.create_logical_plan(&sql).await?,
        None => state.statement_to_plan(statement).await?,
    };
    read_only().verify_plan(&plan)?;
    Ok(plan)
}

/// `DESCRIBE` is a question to `information_schema`, which has the meanings too.
fn described_table(state: &SessionState, statement: &Statement) -> Result<Option<String>> {
    let Statement::Statement(explained) = statement else { return Ok(None) };
    let sqlparser::ast::Statement::ExplainTable { table_name, .. } = &**explained else { return Ok(None) };
    let names = state.resolve_table_references(statement)?;
    let name = names.first().cloned().unwrap_or_else(|| TableReference::from(table_name.to_string()));
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    Ok(Some(format!(
        "SELECT column_name, data_type, is_nullable, column_comment FROM information_schema.columns \
         WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        quoted(name.schema().unwrap_or(DEFAULT_SCHEMA)),
        quoted(name.table()),
    )))
}
