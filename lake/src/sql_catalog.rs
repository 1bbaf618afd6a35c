//! The schemas and tables that SQL sees: a view of the lake, planned when a query names them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::{Field, Schema, SchemaRef},
    catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider},
    common::{Column, DataFusionError, JoinType, ParamValues, Result, TableReference, plan_err},
    datasource::{ViewTable, empty::EmptyTable, provider_as_source},
    execution::SessionStateBuilder,
    functions::expr_fn::coalesce,
    logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, lit},
    prelude::{SessionContext, col, ident},
};
use schemas::{
    ContextIndex, EventDefinition,
    columns::{ENVELOPE, EXTRA},
};

use crate::{
    event_json::event_json,
    ledger::{KPI_HISTORY, RETIRED},
    schema_names::{DATABASE, DEFAULT_SCHEMA, INFORMATION_SCHEMA, PG_CATALOG, SYSTEM},
    standard_schemas::StandardSchemas,
    view::{LakeView, TableView},
};

/// A table beside the events: what stands now, a KPI, the positions.
#[derive(Clone, Debug)]
pub struct ExtraTable {
    pub schema: &'static str,
    pub name: String,
    /// What it holds, in words.
    pub meaning: String,
    /// What its columns mean.
    pub columns: Vec<ColumnMeaning>,
    rows: ExtraRows,
}

/// What a column of a table means.
#[derive(Clone, Debug)]
pub struct ColumnMeaning {
    pub name: String,
    pub meaning: String,
    pub unit: Option<String>,
}

#[derive(Clone, Debug)]
enum ExtraRows {
    Provided(Arc<dyn TableProvider>),
    /// A query over the events, planned when it is named.
    Queried {
        sql: String,
        functions: Vec<ScalarUDF>,
        parameters: ParamValues,
    },
    /// Whoever asks has to bring them; else this is why there are none.
    Brought {
        columns: SchemaRef,
        missing: &'static str,
    },
}

impl ExtraTable {
    /// A query over the events, at the cut of whoever asks.
    #[must_use]
    pub fn query(
        schema: &'static str,
        name: &str,
        meaning: &str,
        columns: Vec<ColumnMeaning>,
        sql: &str,
        functions: Vec<ScalarUDF>,
        parameters: ParamValues,
    ) -> Self {
        let rows = ExtraRows::Queried { sql: sql.to_owned(), functions, parameters };
        Self { schema, name: name.to_owned(), meaning: meaning.to_owned(), columns, rows }
    }

    /// A table of these columns whose rows come [`with`](Self::with) the question; without them, `missing` says why.
    #[must_use]
    pub fn brought(
        schema: &'static str,
        name: &str,
        meaning: &str,
        columns: Vec<(Field, String)>,
        missing: &'static str,
    ) -> Self {
        let meanings = columns.iter().map(|(field, meaning)| ColumnMeaning {
            name: field.name().clone(),
            meaning: meaning.clone(),
            unit: None,
        });
        let meanings = meanings.collect();
        let columns = Arc::new(Schema::new(columns.into_iter().map(|(field, _)| field).collect::<Vec<_>>()));
        let rows = ExtraRows::Brought { columns, missing };
        Self { schema, name: name.to_owned(), meaning: meaning.to_owned(), columns: meanings, rows }
    }

    /// The same with its rows.
    #[must_use]
    pub fn with(self, rows: Arc<dyn TableProvider>) -> Self {
        Self { rows: ExtraRows::Provided(rows), ..self }
    }

    /// The same as a table that is empty, where whoever asks has to bring the rows.
    pub(crate) fn without_rows(&self) -> Option<Self> {
        match &self.rows {
            ExtraRows::Brought { columns, .. } => {
                Some(self.clone().with(Arc::new(EmptyTable::new(Arc::clone(columns)))))
            }
            ExtraRows::Provided(_) | ExtraRows::Queried { .. } => None,
        }
    }

    fn is(&self, other: &Self) -> bool {
        (self.schema, &self.name) == (other.schema, &other.name)
    }

    pub(crate) async fn schema(&self, base: &SessionContext, view: &Arc<LakeView>) -> Result<SchemaRef> {
        match &self.rows {
            ExtraRows::Brought { columns, .. } => Ok(Arc::clone(columns)),
            ExtraRows::Provided(_) | ExtraRows::Queried { .. } => Ok(self.table(base, view).await?.schema()),
        }
    }

    async fn table(&self, base: &SessionContext, view: &Arc<LakeView>) -> Result<Arc<dyn TableProvider>> {
        match &self.rows {
            ExtraRows::Provided(rows) => Ok(Arc::clone(rows)),
            ExtraRows::Queried { sql, functions, parameters } => {
                let context = context(base, view, Beside::default(), functions.clone());
                let plan = context.state().create_logical_plan(sql).await?.with_param_values(parameters.clone())?;
                Ok(Arc::new(ViewTable::new(plan, None)))
            }
            ExtraRows::Brought { missing, .. } => plan_err!("{}.{}: {missing}", self.schema, self.name),
        }
    }
}

/// What there is beside the events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    pub(crate) tables: Vec<ExtraTable>,
    pub(crate) standard: Option<StandardSchemas>,
}

impl Beside {
    /// With rows for the tables that have none of their own.
    pub(crate) fn with(mut self, brought: Vec<ExtraTable>) -> Self {
        self.tables.retain(|table| !brought.iter().any(|brought| brought.is(table)));
        self.tables.extend(brought);
        self
    }
}

/// A context whose tables are the view's, and those beside them.
pub(crate) fn context(
    base: &SessionContext,
    view: &Arc<LakeView>,
    beside: Beside,
    functions: Vec<ScalarUDF>,
) -> SessionContext {
    let catalog = Arc::new(ViewCatalog { view: Arc::clone(view), beside, base: base.clone() });
    let state =
        SessionStateBuilder::new_from_existing(base.state()).with_catalog_list(Arc::new(OneCatalog(catalog))).build();
    let context = SessionContext::new_with_state(state);
    for function in functions {
        context.register_udf(function);
    }
    context
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

struct ViewCatalog {
    view: Arc<LakeView>,
    beside: Beside,
    base: SessionContext,
}

impl fmt::Debug for ViewCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewCatalog").field("position", &self.view.position).finish_non_exhaustive()
    }
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
                None => self.beside.tables.iter().any(|table| table.schema == schema).then_some(Source::Extra),
            },
        }
    }
}

impl CatalogProvider for ViewCatalog {
    fn schema_names(&self) -> Vec<String> {
        let contexts = self.view.catalogue.contexts().iter().map(|context| context.name.clone());
        let extra = self.beside.tables.iter().map(|table| table.schema.to_owned());
        let own = [DEFAULT_SCHEMA, SYSTEM].map(str::to_owned);
        let standard = self.beside.standard.iter().flat_map(|_| [INFORMATION_SCHEMA, PG_CATALOG].map(str::to_owned));
        let mut names: Vec<_> = contexts.chain(own).chain(extra).chain(standard).collect();
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(standard) = self.beside.standard.as_ref().and_then(|standard| standard.schema(name)) {
            return Some(standard);
        }
        let source = self.source(name)?;
        let extra = self.beside.tables.iter().filter(|table| table.schema == name).cloned().collect();
        Some(Arc::new(ViewSchema { view: Arc::clone(&self.view), source, extra, base: self.base.clone() }))
    }
}

/// A schema whose tables are planned when a query names them.
struct ViewSchema {
    view: Arc<LakeView>,
    source: Source,
    extra: Vec<ExtraTable>,
    base: SessionContext,
}

impl fmt::Debug for ViewSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewSchema").field("source", &self.source).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for ViewSchema {
    fn table_names(&self) -> Vec<String> {
        let own: Vec<String> = match self.source {
            Source::Context(index) => {
                self.view.catalogue.context_at(index).events.iter().map(|event| event.view.clone()).collect()
            }
            Source::Lake => vec!["events".to_owned()],
            Source::System => {
                ["dead_letters", "duplicates", "gaps", "kpi_history", "retired"].map(str::to_owned).to_vec()
            }
            Source::Extra => Vec::new(),
        };
        own.into_iter().chain(self.extra.iter().map(|table| table.name.clone())).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(extra) = self.extra.iter().find(|table| table.name == name) {
            return extra.table(&self.base, &self.view).await.map(Some);
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
            Source::System if name == "duplicates" => duplicates(&self.view).map(Some),
            Source::System if name == "gaps" => gaps(&self.view).map(Some),
            Source::System if name == "retired" => retired(&self.view).map(Some),
            Source::System if name == "kpi_history" => kpi_history(&self.view).map(Some),
            Source::Lake | Source::System | Source::Extra => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|table| table == name)
    }
}

/// A context's rows at the view's cut.
pub(crate) fn scan(view: &LakeView, index: ContextIndex) -> Result<LogicalPlanBuilder> {
    let table = &view.tables[index.get()];
    cut(view, &table.spec.name, table)
}

/// A table's rows at the view's cut, under a name.
fn cut(view: &LakeView, name: &str, table: &TableView) -> Result<LogicalPlanBuilder> {
    let rows = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(table.provider()), None)?;
    match view.until {
        Some(until) if !table.ends_by(until) => rows.filter(col("position").lt_eq(lit(until.as_i64()))),
        _ => Ok(rows),
    }
}

/// The view of one event type: the envelope and the columns its events may carry.
fn event_view(view: &LakeView, index: ContextIndex, event: &EventDefinition) -> Result<Arc<dyn TableProvider>> {
    let context = view.catalogue.context_at(index);
    let carried = event.fields.iter().map(|field| context.columns[field.column].name.as_str());
    let envelope = ENVELOPE.iter().map(|column| column.name);
    let columns = envelope.chain(carried).chain([EXTRA]).map(ident);
    let plan = scan(view, index)?.filter(col("event_type").eq(lit(event.name.clone())))?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// `system.duplicates`: every position whose event id had taken effect before.
fn duplicates(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(ViewTable::new(cut(view, "duplicates", ledger(view, "duplicates")?)?.build()?, None)))
}

/// `system.gaps`: the positions that the log no longer had when it was read.
fn gaps(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(ViewTable::new(cut(view, "gaps", ledger(view, "gaps")?)?.build()?, None)))
}

/// `system.retired`: every event that retention has taken.
fn retired(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    until_cut(view, "retired", &view.retired, &RETIRED)
}

/// `system.kpi_history`: the KPIs' buckets that lost what they were computed from, kept at the cut or before it.
fn kpi_history(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    until_cut(view, "kpi_history", &view.kpi_history, &KPI_HISTORY)
}

/// A table that is as of now, without its rows of later positions.
fn until_cut(
    view: &LakeView,
    name: &str,
    rows: &Arc<dyn TableProvider>,
    schema: &Schema,
) -> Result<Arc<dyn TableProvider>> {
    let plan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::clone(rows)), None)?;
    let plan = match view.until {
        None => plan,
        Some(until) => plan.filter(col("position").lt_eq(lit(until.as_i64())))?,
    };
    let columns = schema.fields().iter().map(|field| ident(field.name()));
    Ok(Arc::new(ViewTable::new(plan.project(columns)?.build()?, None)))
}

fn ledger<'a>(view: &'a LakeView, name: &str) -> Result<&'a TableView> {
    view.table(name).ok_or_else(|| DataFusionError::Plan(format!("the lake has no {name}")))
}

/// `system.dead_letters`: every dead letter, and what became of it.
fn dead_letters(view: &LakeView) -> Result<Arc<dyn TableProvider>> {
    let letters = ledger(view, "dead_letters")?;
    let letter = |name: &str| Column::new(Some("letter"), name);
    let own = letters.spec.schema.fields().iter().map(|field| Expr::Column(letter(field.name())).alias(field.name()));
    let closings =
        LogicalPlanBuilder::scan("closing", provider_as_source(Arc::clone(&view.closings)), None)?.build()?;
    let closing = |name: &str| Expr::Column(Column::new(Some("closing"), name));
    let status = coalesce(vec![closing("status"), lit("open")]).alias("status");
    let ends = ["closed_at", "closed_by", "retried_as"].map(|name| closing(name).alias(name));
    let plan = cut(view, "letter", letters)?
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
        let envelope = ENVELOPE.iter().map(|column| ident(column.name));
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
