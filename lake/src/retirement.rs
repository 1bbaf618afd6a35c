//! Events past their time, taken out of their table, a few files at once.
//!
//! An event is past its time when its class has been kept long enough since it happened, and since it came. Its row goes;
//! its id and position stay, in a table of their own: an id takes effect once even then, and every position stays
//! accounted for.

use std::{collections::HashSet, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray},
        compute::{cast, concat_batches, filter_record_batch},
        datatypes::{DataType, Int64Type, SchemaRef},
        error::ArrowError,
    },
    common::ScalarValue,
    error::DataFusionError,
    functions_aggregate::expr_fn::count,
    logical_expr::{Expr, lit, not},
    prelude::{SessionContext, col},
};
use deltalake::kernel::{Action, Add};
use futures::{FutureExt, future::BoxFuture};
use schemas::{Context, Position, Retention, RetentionPolicy, field_type::UTC};

use crate::{
    committed_rows::FILE_COLUMN,
    compaction::LARGEST,
    ledger::RETIRED,
    rewrite::{Rewrite, RewriteError},
    table::Committed,
    table_spec::TableSpec,
};

/// So many events are taken out at once: they are held in memory, for those who have to forget them too.
const MOST: i64 = 200_000;

/// What keeps events from being taken out. They stay, and are taken another time.
#[derive(Debug, thiserror::Error)]
pub enum RetirementError {
    #[error("the events past their time cannot be read")]
    Read(#[from] DataFusionError),
    #[error("the events past their time cannot be noted")]
    Note(#[from] ArrowError),
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
}

/// A table with events that may be past their time, to be run beside the lake.
pub struct Retirement {
    pub(crate) index: usize,
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) committed: Committed,
    pub(crate) columns: SchemaRef,
    pub(crate) expired: Expr,
    /// What was taken before.
    pub(crate) ledger: Committed,
    /// Microseconds since 1970, UTC.
    pub(crate) now: i64,
    pub(crate) session: SessionContext,
}

/// Events that are taken out of their table, which does not know it yet.
pub struct Retired {
    pub(crate) index: usize,
    /// Files without them, and those that had them.
    pub(crate) actions: Vec<Action>,
    /// Their ids and positions.
    pub(crate) ledger: RecordBatch,
    /// The events, as rows of their table.
    pub rows: RecordBatch,
}

/// The events of a context that are past their time.
pub(crate) fn expired(context: &Context, policy: &RetentionPolicy, now: i64) -> Option<Expr> {
    let of_class = Retention::ALL.into_iter().filter_map(|class| {
        let kept = policy.of(class)?;
        let types: Vec<Expr> = context
            .events
            .iter()
            .filter(|event| event.retention == class)
            .map(|event| lit(event.name.clone()))
            .collect();
        if types.is_empty() {
            return None;
        }
        let cutoff = lit(ScalarValue::TimestampMicrosecond(Some(before(now, kept)), Some(UTC.into())));
        let is_past = col("event_time").lt(cutoff.clone()).and(col("ingested_at").lt(cutoff));
        Some(col("event_type").in_list(types, false).and(is_past))
    });
    of_class.reduce(Expr::or)
}

fn before(now: i64, kept: Duration) -> i64 {
    now.saturating_sub(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX))
}

/// How many rows of a table are past their time.
pub(crate) async fn count_expired(
    session: &SessionContext,
    committed: &Committed,
    expired: Expr,
) -> Result<u64, DataFusionError> {
    let rows = session.read_table(Arc::clone(&committed.rows))?;
    Ok(rows.filter(expired)?.count().await? as u64)
}

impl Retirement {
    /// Write the files anew without the events past their time; none, if there are none.
    ///
    /// # Errors
    /// When the store does not give or take them.
    pub fn run(self) -> BoxFuture<'static, Result<Option<Retired>, RetirementError>> {
        async move {
            let files = self.files().await?;
            if files.is_empty() {
                return Ok(None);
            }
            let rows = self.rows(&files).await?;
            let ledger = self.noted(&rows).await?;
            let rewrite = Rewrite {
                spec: &self.spec,
                committed: &self.committed,
                columns: &self.columns,
                session: &self.session,
            };
            let added: Vec<Add> = rewrite.run(&files, Some(not(self.expired.clone()))).await?;
            let mut actions = self.committed.removals(|path| files.contains(path), true);
            actions.extend(added.into_iter().map(|add| Action::Add(Add { data_change: true, ..add })));
            Ok(Some(Retired { index: self.index, actions, ledger, rows }))
        }
        .boxed()
    }

    /// The time it is by, in microseconds since 1970, UTC.
    #[must_use]
    pub const fn now(&self) -> i64 {
        self.now
    }

    /// Files that hold some of them: as many as may be written anew at once, one at least.
    async fn files(&self) -> Result<HashSet<String>, RetirementError> {
        let rows = self.session.read_table(self.committed.rows_with_files(None)?)?;
        let counts = rows.filter(self.expired.clone())?.aggregate(vec![col(FILE_COLUMN)], vec![count(lit(1))])?;
        let mut found: Vec<(String, i64)> = Vec::new();
        for batch in counts.collect().await? {
            let names = cast(batch.column(0), &DataType::Utf8)?;
            let counts = batch.column(1).as_primitive::<Int64Type>();
            let pairs = names.as_string::<i32>().iter().zip(counts.values());
            found.extend(pairs.filter_map(|(name, count)| Some((name?.to_owned(), *count))));
        }
        let (mut chosen, mut bytes, mut events) = (HashSet::new(), 0, 0);
        for file in self.committed.files().into_values().flatten() {
            let Some((_, count)) = found.iter().find(|(name, _)| *name == file.path) else { continue };
            bytes += file.bytes;
            events += count;
            if !chosen.is_empty() && (bytes > LARGEST || events > MOST) {
                break;
            }
            chosen.insert(file.path);
        }
        Ok(chosen)
    }

    async fn rows(&self, files: &HashSet<String>) -> Result<RecordBatch, RetirementError> {
        let rows = self.committed.rows_with_files(Some(files))?;
        let names: Vec<&str> = self.spec.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let rows = self.session.read_table(rows)?.filter(self.expired.clone())?.select_columns(&names)?;
        let batches = rows.collect().await?;
        let batches: Result<Vec<_>, _> =
            batches.into_iter().map(|batch| batch.with_schema(self.spec.schema.clone())).collect();
        Ok(concat_batches(&self.spec.schema, &batches?)?)
    }

    /// The ids and positions of these rows. Those that were noted before, by a retirement that broke off, are not noted
    /// twice.
    async fn noted(&self, rows: &RecordBatch) -> Result<RecordBatch, RetirementError> {
        let column = |name: &str| -> Result<ArrayRef, ArrowError> {
            rows.column_by_name(name).cloned().ok_or_else(|| ArrowError::SchemaError(name.to_owned()))
        };
        let count = rows.num_rows();
        let batch = RecordBatch::try_new(
            RETIRED.clone(),
            vec![
                column("position")?,
                column("event_id")?,
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.spec.name, count))),
                column("event_type")?,
                Arc::new(TimestampMicrosecondArray::from_value(self.now, count).with_timezone(UTC)),
            ],
        )?;
        let positions = rows.column(0).as_primitive::<Int64Type>();
        let (Some(least), Some(most)) = (positions.values().iter().min(), positions.values().iter().max()) else {
            return Ok(batch);
        };
        let known = self.session.read_table(Arc::clone(&self.ledger.rows))?;
        let known = known.filter(col("position").between(lit(*least), lit(*most)))?.select_columns(&["position"])?;
        let known = known.collect().await?;
        let known: HashSet<i64> =
            known.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values()).copied().collect();
        let is_new: BooleanArray = positions.values().iter().map(|it| Some(!known.contains(it))).collect();
        Ok(filter_record_batch(&batch, &is_new)?)
    }
}

impl Retired {
    /// The last position among the events, of each type.
    #[must_use]
    pub fn last_of_each_type(&self) -> Vec<(String, Position)> {
        let mut last = std::collections::BTreeMap::new();
        let positions = self.rows.column(0).as_primitive::<Int64Type>();
        let types = self.rows.column_by_name("event_type").and_then(|types| types.as_string_opt::<i32>());
        for (name, position) in types.into_iter().flatten().zip(positions.values()) {
            let known = last.entry(name.unwrap_or_default().to_owned()).or_insert(*position);
            *known = (*known).max(*position);
        }
        last.into_iter().map(|(name, position)| (name, Position::from_i64(position))).collect()
    }
}
