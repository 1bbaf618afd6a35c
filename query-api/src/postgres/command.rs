//! What a statement over the Postgres wire wants: rows, a cursor, or something of its connection.

use lake::sqlparser::ast::{
    CloseCursor, Expr, FetchDirection, Query, Reset, Set, SetSessionParamKind, Statement, TransactionIsolationLevel,
    TransactionMode, ValueWithSpan,
};

use super::error::Refusal;

/// What a statement wants.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Rows: a query, `EXPLAIN`, `SHOW TABLES`. Whether it changes something is told when it is planned.
    Ask(Box<Statement>),
    Show(String),
    Set {
        name: String,
        value: String,
    },
    Reset(Option<String>),
    Begin {
        /// Whether every statement is answered at the position of the first.
        one_position: bool,
    },
    /// The transaction from here on.
    Isolate {
        one_position: bool,
    },
    Commit,
    Rollback,
    /// Back to a savepoint: nothing was changed since, and the transaction goes on.
    RollbackTo,
    Declare {
        cursor: String,
        query: Box<Query>,
    },
    Fetch {
        cursor: String,
        /// All that is left, when none.
        rows: Option<usize>,
    },
    Close(Option<String>),
    /// What clients say when they tidy up. There is nothing to do.
    Nothing(&'static str),
}

impl Command {
    pub(crate) fn of(statement: Statement) -> Result<Self, Refusal> {
        Ok(match statement {
            Statement::ShowVariable { variable } => {
                Self::Show(variable.iter().map(|part| part.value.to_lowercase()).collect::<Vec<_>>().join("."))
            }
            Statement::Set(set) => of_set(set)?,
            Statement::Reset(reset) => Self::Reset(match reset.reset {
                Reset::ALL => None,
                Reset::ConfigurationParameter(name) => Some(name.to_string().to_lowercase()),
            }),
            Statement::StartTransaction { modes, .. } => Self::Begin { one_position: is_repeatable(&modes) },
            Statement::Commit { .. } => Self::Commit,
            Statement::Rollback { savepoint: None, .. } => Self::Rollback,
            Statement::Rollback { savepoint: Some(_), .. } => Self::RollbackTo,
            Statement::Savepoint { .. } => Self::Nothing("SAVEPOINT"),
            Statement::ReleaseSavepoint { .. } => Self::Nothing("RELEASE"),
            Statement::Deallocate { .. } => Self::Nothing("DEALLOCATE"),
            Statement::Discard { .. } => Self::Nothing("DISCARD ALL"),
            Statement::UNLISTEN { .. } => Self::Nothing("UNLISTEN"),
            Statement::Declare { mut stmts } if stmts.len() == 1 => {
                let declared = stmts.remove(0);
                match (declared.names.first(), declared.for_query) {
                    (Some(name), Some(query)) => Self::Declare { cursor: name.value.clone(), query },
                    _ => return Err(Refusal::syntax("a cursor is declared as DECLARE name CURSOR FOR SELECT …")),
                }
            }
            Statement::Fetch { name, direction, .. } => Self::Fetch { cursor: name.value, rows: forward(&direction)? },
            Statement::Close { cursor: CloseCursor::All } => Self::Close(None),
            Statement::Close { cursor: CloseCursor::Specific { name } } => Self::Close(Some(name.value)),
            other => Self::Ask(Box::new(other)),
        })
    }
}

fn of_set(set: Set) -> Result<Command, Refusal> {
    match set {
        Set::SingleAssignment { variable, values, .. } => {
            let value = values.iter().map(text).collect::<Vec<_>>().join(", ");
            Ok(Command::Set { name: variable.to_string().replace('"', "").to_lowercase(), value })
        }
        Set::SetTimeZone { value, .. } => Ok(Command::Set { name: "timezone".to_owned(), value: text(&value) }),
        Set::SetNames { charset_name, .. } => {
            Ok(Command::Set { name: "client_encoding".to_owned(), value: charset_name.value })
        }
        Set::SetTransaction { modes, session: false, .. } => {
            Ok(Command::Isolate { one_position: is_repeatable(&modes) })
        }
        // Of every transaction to come: that it only reads is so anyway.
        Set::SetTransaction { modes, session: true, .. } if !is_repeatable(&modes) => Ok(Command::Nothing("SET")),
        Set::SetSessionParam(SetSessionParamKind::Generic(parameter)) => {
            Ok(Command::Set { name: parameter.names.join(".").to_lowercase(), value: parameter.value })
        }
        other => Err(Refusal::unknown_setting(&other.to_string())),
    }
}

/// A setting's value without its quotes.
fn text(value: &Expr) -> String {
    let written = value.to_string();
    let unquoted = ['\'', '"'].iter().find_map(|quote| written.strip_prefix(*quote)?.strip_suffix(*quote));
    unquoted.map_or_else(|| written.clone(), str::to_owned)
}

fn is_repeatable(modes: &[TransactionMode]) -> bool {
    use TransactionIsolationLevel::{RepeatableRead, Serializable, Snapshot};
    modes.iter().any(|mode| matches!(mode, TransactionMode::IsolationLevel(RepeatableRead | Serializable | Snapshot)))
}

/// How many rows a cursor is to give; all, when none.
fn forward(direction: &FetchDirection) -> Result<Option<usize>, Refusal> {
    let count = |limit: &ValueWithSpan| {
        let count = limit.to_string().parse();
        count.map(Some).map_err(|_| Refusal::syntax("a cursor gives a number of rows, forward"))
    };
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(Some(1)),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => count(limit),
        FetchDirection::All | FetchDirection::ForwardAll => Ok(None),
        _ => Err(Refusal::new("55000", "a cursor gives its rows forward only")),
    }
}
