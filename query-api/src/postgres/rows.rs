//! Columns and rows as Postgres clients read them.

use std::sync::Arc;

use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use futures::{Stream, StreamExt, stream};
use lake::{
    Statement,
    arrow::{
        array::RecordBatch,
        datatypes::{Field, Schema},
    },
    sqlparser::ast,
};
use pgwire::{
    api::{
        Type,
        portal::Format,
        results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse},
    },
    error::{PgWireError, PgWireResult},
    messages::data::DataRow,
};

use super::error::Refusal;
use crate::{
    asking::{Answering, refused},
    problem::Problem,
};

/// The names that Postgres gives to the unnamed columns of a query, where the query lists them.
pub(super) fn column_names(statement: &Statement) -> Option<Vec<Option<String>>> {
    let Statement::Statement(statement) = statement else { return None };
    let ast::Statement::Query(query) = &**statement else { return None };
    let ast::SetExpr::Select(select) = &*query.body else { return None };
    let name = |item: &ast::SelectItem| match item {
        ast::SelectItem::UnnamedExpr(expression) => {
            Some(Some(column_name(expression).unwrap_or_else(|| "?column?".to_owned())))
        }
        ast::SelectItem::ExprWithAlias { .. } => Some(None),
        _ => None,
    };
    select.projection.iter().map(name).collect()
}

fn column_name(expression: &ast::Expr) -> Option<String> {
    match expression {
        ast::Expr::Identifier(name) => Some(name.value.clone()),
        ast::Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()),
        ast::Expr::Function(function) => Some(function.name.0.last()?.as_ident()?.value.to_lowercase()),
        ast::Expr::Cast { expr, data_type, .. } => {
            Some(column_name(expr).unwrap_or_else(|| data_type.to_string().to_lowercase()))
        }
        ast::Expr::Nested(inner) => column_name(inner),
        ast::Expr::Case { .. } => Some("case".to_owned()),
        ast::Expr::Extract { .. } => Some("extract".to_owned()),
        _ => None,
    }
}

/// A result's columns under these names, where there are any.
pub(super) fn named(schema: &Schema, names: Option<&[Option<String>]>) -> Schema {
    let Some(names) = names.filter(|names| names.len() == schema.fields().len()) else { return schema.clone() };
    let field = |(field, name): (&Arc<Field>, &Option<String>)| match name {
        Some(name) => field.as_ref().clone().with_name(name),
        None => field.as_ref().clone(),
    };
    Schema::new(schema.fields().iter().zip(names).map(field).collect::<Vec<_>>())
}

/// The columns of a result as field descriptions.
pub(super) fn fields(schema: &Schema, format: &Format) -> Result<Vec<FieldInfo>, Refusal> {
    arrow_schema_to_pg_fields(schema, format, None)
        .map_err(|error| Refusal::new("0A000", format!("a column cannot be sent: {error}; cast it")))
}

/// The rows of a query until it ends or is cancelled.
pub(super) fn rows(
    answering: Answering,
    fields: Arc<Vec<FieldInfo>>,
    cancelled: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
    let Answering { rows, permit } = answering;
    let reader = rows.reader();
    let batches = stream::unfold(Some((rows, permit, Box::pin(cancelled))), move |going| {
        let fields = Arc::clone(&fields);
        async move {
            let (mut rows, permit, mut cancelled) = going?;
            let batch = tokio::select! {
                () = &mut cancelled => return Some((vec![Err(Refusal::cancelled().into())], None)),
                batch = rows.next_batch() => batch?,
            };
            Some(match batch {
                Ok(batch) => match encoded(fields, batch) {
                    (rows_of_batch, true) => (rows_of_batch, Some((rows, permit, cancelled))),
                    (rows_of_batch, false) => (rows_of_batch, None),
                },
                Err(error) => (vec![Err(Refusal::of(&refused(error), "").into())], None),
            })
        }
    });
    batches.map(stream::iter).flatten().inspect(move |_| reader.touch())
}

/// A batch's rows, up to the first that cannot be sent; whether that is all of them.
fn encoded(fields: Arc<Vec<FieldInfo>>, batch: RecordBatch) -> (Vec<PgWireResult<DataRow>>, bool) {
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in encode_recordbatch(fields, batch) {
        match row {
            Ok(row) => rows.push(Ok(row)),
            // The encoder would tell of the same row for ever.
            Err(error) => {
                rows.push(
                    Err(Refusal::new("22000", format!("a row cannot be sent: {error}; cast its columns")).into()),
                );
                return (rows, false);
            }
        }
    }
    (rows, true)
}

/// A row of one text.
pub(super) fn one_value(name: &str, value: &str) -> Result<QueryResponse, Refusal> {
    let fields = Arc::new(vec![text_field(name)]);
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    encoder.encode_field(&Some(value)).map_err(|error| refused_by(&error))?;
    let row = encoder.take_row();
    Ok(QueryResponse::new(fields, stream::iter([Ok(row)])))
}

/// Our own fault: what it is goes to the log.
pub(super) fn refused_by(error: &PgWireError) -> Refusal {
    Refusal::of(&Problem::internal(error), "")
}

pub(super) fn text_field(name: &str) -> FieldInfo {
    FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text)
}
