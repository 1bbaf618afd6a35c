//! Statements of Postgres clients: parsed once, run as often as they are bound.

use std::{ops::ControlFlow, sync::Arc};

use arrow_pg::datatypes::{df::deserialize_parameters, into_pg_type};
use async_trait::async_trait;
use lake::{
    ParamValues, Prepared, Statement,
    arrow::datatypes::{DataType, Field},
    session,
    sqlparser::ast,
};
use pgwire::{
    api::{
        ClientInfo, Type,
        portal::{Format, Portal},
        results::FieldInfo,
        stmt::QueryParser,
    },
    error::PgWireResult,
};
use schemas::Position;

use super::{
    command::Command,
    connection::Connection,
    error::Refusal,
    rows::{column_names, fields, named, text_field},
};
use crate::{AppState, asking::refused, consistency::Freshness};

/// A parsed statement.
#[derive(Clone)]
pub(crate) struct ParsedStatement {
    pub(super) text: String,
    pub(super) command: Command,
    /// Of one that asks for rows of tables.
    pub(super) prepared: Option<Prepared>,
    /// Of one that takes rows from a cursor.
    pub(super) fields: Option<Arc<Vec<FieldInfo>>>,
}

/// Reads statements.
pub(crate) struct Statements {
    pub(super) api: AppState,
}

impl Statements {
    pub(super) fn parse(&self, text: &str) -> Result<Vec<ast::Statement>, Refusal> {
        let parsed = self.api.pipeline.sql.parse_postgres(text);
        parsed.map_err(|error| Refusal::of(&refused(error), text))
    }

    /// The same refusal with its place: the words that Postgres's clients may use are rewritten for the engine, which
    /// loses where they stood, so the statement is looked at again as it was written.
    pub(super) async fn placed(&self, refusal: Refusal, text: &str) -> Refusal {
        if refusal.is_placed() {
            return refusal;
        }
        let Ok(statement) = self.api.pipeline.sql.parse(text) else { return refusal };
        let again = self.api.prepare(statement, Freshness::new(Position::START, None)).await;
        match again {
            Ok(_) => refusal,
            Err(problem) => refusal.placed_as(&Refusal::of(&problem, text)),
        }
    }
}

impl ParsedStatement {
    pub(super) fn columns(&self, format: &Format) -> Result<Vec<FieldInfo>, Refusal> {
        match (&self.prepared, &self.fields, &self.command) {
            (Some(prepared), _, Command::Ask(statement)) => {
                let names = column_names(&Statement::Statement(statement.clone()));
                fields(&named(&prepared.schema, names.as_deref()), format)
            }
            (_, Some(fields), _) => Ok(fields.to_vec()),
            (_, None, Command::Show(name)) => Ok(vec![text_field(name)]),
            (_, None, _) => Ok(Vec::new()),
        }
    }

    /// The values a portal is bound to.
    pub(super) fn values(&self, portal: &Portal<Self>) -> PgWireResult<ParamValues> {
        let (wanted, given) = (self.parameters(), &portal.statement.parameter_types);
        // A value is what the client says it is, and the engine compares it as that; else what it is compared with.
        let says = |index: usize| given.get(index).and_then(Option::as_ref).is_some_and(|kind| *kind != Type::UNKNOWN);
        let kinds = wanted.iter().enumerate().map(|(index, kind)| (!says(index)).then_some(kind));
        let types: Vec<Option<&DataType>> = kinds.collect();
        let values = deserialize_parameters(portal, &types)?;
        match &values {
            // A null of a type that has no values here is left out.
            ParamValues::List(list) if list.len() != portal.parameter_len() => {
                Err(Refusal::new("0A000", "a parameter has a type that is unknown here; cast it").into())
            }
            _ => Ok(values),
        }
    }

    /// The types of its parameters: text, where they may be anything.
    pub(super) fn parameters(&self) -> Vec<DataType> {
        let wanted = self.prepared.as_ref().map(|prepared| prepared.parameters.as_slice()).unwrap_or_default();
        wanted.iter().map(|kind| kind.clone().unwrap_or(DataType::Utf8)).collect()
    }
}

#[async_trait]
impl QueryParser for Statements {
    type Statement = ParsedStatement;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<ParsedStatement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let connection = Connection::of(client)?;
        let mut statements = self.parse(sql)?;
        if statements.len() > 1 {
            return Err(Refusal::syntax("cannot insert multiple commands into a prepared statement").into());
        }
        let Some(statement) = statements.pop() else { return Ok(None) };
        let command = Command::of(statement)?;
        let prepared = match &command {
            Command::Ask(statement) => {
                let freshness = connection.asking()?.freshness;
                match self.api.prepare(Statement::Statement(statement.clone()), freshness).await {
                    Ok(prepared) => Some(with_lists(prepared, sql, statement)),
                    Err(problem) => return Err(self.placed(Refusal::of(&problem, sql), sql).await.into()),
                }
            }
            _ => None,
        };
        let fields = match &command {
            Command::Fetch { cursor, .. } => connection.cursor_fields(cursor).await,
            _ => None,
        };
        Ok(Some(ParsedStatement { text: sql.to_owned(), command, prepared, fields }))
    }

    fn get_parameter_types(&self, parsed: &ParsedStatement) -> PgWireResult<Vec<Type>> {
        parsed.parameters().iter().map(into_pg_type).collect()
    }

    fn get_result_schema(&self, parsed: &ParsedStatement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(parsed.columns(format.unwrap_or(&Format::UnifiedText))?)
    }
}

/// The parameters that something is looked for in, as `= ANY($1)` does, are lists: of text, unless more is known.
pub(super) fn with_lists(mut prepared: Prepared, text: &str, statement: &ast::Statement) -> Prepared {
    // Some of what clients ask of the catalogue is left out, and its parameters with it.
    prepared.takes(session::parameters_in(text));
    let _ = ast::visit_expressions(statement, |expression| {
        if let ast::Expr::Function(function) = expression
            && matches!(function.name.to_string().as_str(), "array_contains" | "array_has")
            && let ast::FunctionArguments::List(arguments) = &function.args
            && let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(list)))) =
                arguments.args.first()
            && let ast::Value::Placeholder(name) = &list.value
            && let Some(number) =
                name.trim_start_matches('$').parse::<usize>().ok().and_then(|number| number.checked_sub(1))
            && let Some(kind @ None) = prepared.parameters.get_mut(number)
        {
            *kind = Some(DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))));
        }
        ControlFlow::<()>::Continue(())
    });
    prepared
}
