//! Errors as Postgres's clients know them: a code of five characters, words, and the place in the statement.

use pgwire::error::{ErrorInfo, PgWireError};

use crate::problem::Problem;

/// A statement that was not answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: &'static str,
    message: String,
    /// The character at fault, from 1.
    position: Option<usize>,
    fatal: bool,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), position: None, fatal: false }
    }

    /// One that ends the connection.
    pub(crate) fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::new(code, message) }
    }

    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new("42601", message)
    }

    pub(crate) fn unknown_setting(name: &str) -> Self {
        Self::new("42704", format!("there is no setting {name}; statements only read here"))
    }

    pub(crate) fn cancelled() -> Self {
        Self::new("57014", "canceling statement due to user request")
    }

    /// What is wrong with a statement of this text.
    pub(crate) fn of(problem: &Problem, text: &str) -> Self {
        let code = match problem.code() {
            "invalid_sql" if problem.detail().contains("not found") => "42P01",
            "invalid_sql" => "42601",
            "read_only" => "25006",
            "too_slow" => "57014",
            "too_large" => "53200",
            "busy" => "53300",
            "not_read" => "53000",
            "not_yet" | "log_away" => "55000",
            "invalid_parameter" => "22023",
            _ => "XX000",
        };
        let position = problem.line_and_column().and_then(|(line, column)| character(text, line, column));
        Self { position, ..Self::new(code, problem.detail()) }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) const fn is_placed(&self) -> bool {
        self.position.is_some()
    }

    /// With the place of another that says the same.
    pub(crate) fn placed_as(self, other: &Self) -> Self {
        if self.message == other.message { Self { position: other.position, ..self } } else { self }
    }
}

impl From<Refusal> for PgWireError {
    fn from(refusal: Refusal) -> Self {
        let severity = if refusal.fatal { "FATAL" } else { "ERROR" };
        let mut info = ErrorInfo::new(severity.to_owned(), refusal.code.to_owned(), refusal.message);
        info.position = refusal.position.map(|position| position.to_string());
        Self::UserError(Box::new(info))
    }
}

/// The character of a text at a line and column, all from 1.
fn character(text: &str, line: u64, column: u64) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(|line| line.chars().count()).sum();
    (column > 0).then_some(before + column)
}
