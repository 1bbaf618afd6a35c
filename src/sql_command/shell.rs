//! The shell of `forecourt sql`: statements that end with a semicolon, and a few commands that begin with a backslash.

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lake::sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Token, Tokenizer},
};
use rustyline::{
    Config, Context, Editor, Helper, Highlighter, Hinter,
    completion::{Completer, Pair},
    error::ReadlineError,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use tokio::runtime::Runtime;

use super::source::{Answer, Source, TableInfo, shown, table};
use crate::{
    arguments::{Format, Sql},
    tables,
};

const HELP: &str = "\
  SELECT ...;       a statement ends with a semicolon and may go over many lines; Ctrl-C stops it
  \\d [TABLE]        the tables, or one table's columns; \\d inventory.* for a schema's
  \\x                rows one under the other, a line per column, or side by side again
  \\timing           how long a statement took, or not
  \\as_of [P]        answer as of an earlier position or a time of the log; without one, as of now
  \\q                leave (Ctrl-D)
Tab completes tables, columns and words of SQL; the arrows bring back what was asked before.";

/// Words of SQL that people type often.
const WORDS: [&str; 42] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "HAVING",
    "JOIN",
    "LEFT JOIN",
    "USING",
    "DISTINCT",
    "BETWEEN",
    "UNION ALL",
    "WITH",
    "VALUES",
    "EXPLAIN",
    "DESCRIBE",
    "SHOW TABLES",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "LIKE",
    "ILIKE",
    "ASC",
    "DESC",
    "OVER",
    "PARTITION BY",
    "FILTER",
    "count(",
    "sum(",
    "avg(",
    "min(",
    "max(",
    "median(",
    "date_trunc(",
    "coalesce(",
];

/// The first statement of a text, and what follows its semicolon; none, while there is no semicolon outside of quotes and
/// comments.
pub(super) fn split_statement(text: &str) -> Option<(&str, &str)> {
    let mut tokens = Vec::new();
    // A quote that is open ends the tokens: what came before it is whole.
    let _ = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location_into_buf(&mut tokens);
    let end = tokens.iter().find(|token| token.token == Token::SemiColon)?.span.start;
    let before: usize = text.split_inclusive('\n').take(usize::try_from(end.line).ok()? - 1).map(str::len).sum();
    let line = &text[before..];
    let column = usize::try_from(end.column).ok()? - 1;
    let at = before + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    Some((&text[..at], &text[at + 1..]))
}

/// Whether there is nothing in a text but blanks and comments.
pub(super) fn is_blank(text: &str) -> bool {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize();
    tokens.is_ok_and(|tokens| tokens.iter().all(|token| matches!(token, Token::Whitespace(_))))
}

/// Whether every statement of a text has its semicolon.
fn is_whole(mut text: &str) -> bool {
    while let Some((_, after)) = split_statement(text) {
        text = after;
    }
    is_blank(text)
}

/// Completes what is typed, and knows when it is whole.
#[derive(Helper, Hinter, Highlighter)]
struct Typing {
    words: Vec<String>,
}

impl Completer for Typing {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let start = line[..position].rfind(|c| !is_part(c)).map_or(0, |at| at + 1);
        let typed = line[start..position].to_lowercase();
        if typed.is_empty() {
            return Ok((start, Vec::new()));
        }
        // A schema is completed first, then the tables in it.
        let found = self.words.iter().filter(|word| word.to_lowercase().starts_with(&typed));
        Ok((start, found.map(|word| Pair { display: word.clone(), replacement: word.clone() }).collect()))
    }
}

impl Validator for Typing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        Ok(if text.starts_with('\\') || is_whole(text) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

/// What the shell remembers between two statements.
struct Shell<'a> {
    arguments: Sql,
    source: Source,
    runtime: &'a Runtime,
    tables: Vec<TableInfo>,
    is_expanded: bool,
    is_timed: bool,
}

/// Ask and answer until somebody leaves.
pub(super) fn run(arguments: &Sql, runtime: &Runtime) -> anyhow::Result<()> {
    let (source, tables) = runtime.block_on(async {
        let source = Source::open(arguments).await?;
        let tables = source.tables().await?;
        anyhow::Ok((source, tables))
    })?;
    let arguments = Sql { format: Format::Table, ..arguments.clone() };
    println!("{} tables. \\d lists them, \\? says what else there is, Ctrl-D leaves.", tables.len());
    let mut shell = Shell { arguments, source, runtime, tables, is_expanded: false, is_timed: true };
    let config = Config::builder().history_ignore_space(true).max_history_size(2_000)?.build();
    let mut lines: Editor<Typing, FileHistory> = Editor::with_config(config)?;
    lines.set_helper(Some(Typing { words: words(&shell.tables) }));
    let history = history_file();
    if let Some(history) = &history {
        // There is none the first time.
        let _ = lines.load_history(history);
    }
    let ended = loop {
        match lines.readline("forecourt> ") {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => {
                lines.add_history_entry(text.trim())?;
                let size = lines.dimensions();
                if shell.take(text.trim(), size) == Next::Leave {
                    break Ok(());
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    if let Some(history) = &history
        && let Err(error) = lines.save_history(history)
    {
        eprintln!("cannot keep what was asked in {}: {error}", history.display());
    }
    ended
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Ask,
    Leave,
}

impl Shell<'_> {
    /// Do what was typed.
    fn take(&mut self, text: &str, size: Option<(u16, u16)>) -> Next {
        if let Some(command) = text.strip_prefix('\\') {
            let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
            match (name.trim_end_matches(';'), argument.trim().trim_end_matches(';')) {
                ("q", _) => return Next::Leave,
                ("?" | "h", _) => println!("{HELP}"),
                ("d" | "dt" | "d+", pattern) => page(&self.described(pattern), size),
                ("x", _) => {
                    self.is_expanded = !self.is_expanded;
                    println!(
                        "rows are shown {}",
                        if self.is_expanded { "one under the other" } else { "side by side" }
                    );
                }
                ("timing", _) => {
                    self.is_timed = !self.is_timed;
                    println!("timing is {}", if self.is_timed { "on" } else { "off" });
                }
                ("as_of", position) => {
                    self.arguments.as_of = (!position.is_empty()).then(|| position.to_owned());
                    println!("answers are as of {}", if position.is_empty() { "now" } else { position });
                }
                (name, _) => println!("there is no \\{name}; \\? says what there is"),
            }
            return Next::Ask;
        }
        let mut rest = text;
        while let Some((statement, after)) = split_statement(rest) {
            if !statement.trim().is_empty() && !self.answer(statement, size) {
                break;
            }
            rest = after;
        }
        Next::Ask
    }

    /// Ask and show; whether that went well.
    fn answer(&self, statement: &str, size: Option<(u16, u16)>) -> bool {
        let started = Instant::now();
        let asked = self.runtime.block_on(async {
            tokio::select! {
                answer = self.source.ask(&self.arguments, statement) => Some(answer),
                _ = tokio::signal::ctrl_c() => None,
            }
        });
        match asked {
            Some(Ok(Some(answer))) => {
                page(&self.rendered(&answer, started.elapsed()), size);
                true
            }
            Some(Ok(None)) => true,
            Some(Err(error)) => {
                println!("{error:#}");
                false
            }
            None => {
                println!("stopped");
                false
            }
        }
    }

    fn rendered(&self, answer: &Answer, took: Duration) -> String {
        let mut text = if self.is_expanded { expanded(answer) } else { table(answer).to_string() };
        let count = answer.rows.len();
        let rows = if count == 1 { "row" } else { "rows" };
        let more = if answer.truncated { ", and there are more (--limit)" } else { "" };
        let took = if self.is_timed { format!(", {} ms", took.as_millis()) } else { String::new() };
        text.push_str(&format!("\n({count} {rows}{more}{took}, as of position {})\n", answer.as_of.position));
        text
    }

    /// The tables whose name the pattern is, or one table's columns.
    fn described(&self, pattern: &str) -> String {
        let full = |table: &TableInfo| format!("{}.{}", table.schema, table.name);
        let one = self.tables.iter().find(|table| full(table) == pattern || table.name == pattern);
        if let Some(one) = one {
            let mut columns = tables::fitted(["column", "type", "meaning"]);
            for column in &one.columns {
                columns.add_row([&column.name, &column.kind, &column.meaning]);
            }
            return format!("{}: {}\n{columns}\n", full(one), one.meaning);
        }
        let prefix = pattern.trim_end_matches('*');
        let mut listed = tables::fitted(["table", "columns", "meaning"]);
        tables::align_right(&mut listed, 1);
        let mut found = 0;
        for known in self.tables.iter().filter(|table| full(table).starts_with(prefix)) {
            found += 1;
            listed.add_row([full(known), known.columns.len().to_string(), known.meaning.clone()]);
        }
        match found {
            0 => format!("no table is named {pattern}\n"),
            _ => format!("{listed}\n"),
        }
    }
}

/// A line per column.
fn expanded(answer: &Answer) -> String {
    let width = answer.columns.iter().map(|column| column.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (number, row) in answer.rows.iter().enumerate() {
        text.push_str(&format!("-- row {}\n", number + 1));
        for (column, value) in answer.columns.iter().zip(row) {
            text.push_str(&format!("{:width$}  {}\n", column.name, shown(value)));
        }
    }
    text.trim_end().to_owned()
}

/// What Tab completes to.
fn words(tables: &[TableInfo]) -> Vec<String> {
    let names = tables.iter().map(|table| format!("{}.{}", table.schema, table.name));
    let columns = tables.iter().flat_map(|table| &table.columns).map(|column| column.name.clone());
    let mut words: Vec<String> = names.chain(columns).collect();
    words.sort();
    words.dedup();
    words.extend(WORDS.map(str::to_owned));
    words
}

/// Print; what is larger than the terminal through the user's pager.
fn page(text: &str, size: Option<(u16, u16)>) {
    let fits = size.is_none_or(|(columns, rows)| {
        text.lines().count() < usize::from(rows)
            && text.lines().all(|line| line.chars().count() <= usize::from(columns))
    });
    if fits || paged(text).is_err() {
        print!("{text}");
        // A terminal that is gone ends the shell at its next prompt.
        let _ = io::stdout().flush();
    }
}

fn paged(text: &str) -> io::Result<()> {
    let pager = env::var("PAGER").ok().filter(|pager| !pager.is_empty());
    let mut words = pager.as_deref().unwrap_or("less -FRSX").split_whitespace();
    let mut child = Command::new(words.next().unwrap_or("less")).args(words).stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // Who leaves the pager early has seen enough.
        let _ = input.write_all(text.as_bytes());
    }
    child.wait().map(drop)
}

/// Where what was asked is kept: the user's state folder.
fn history_file() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".local/state")))?;
    let folder = state.join("forecourt");
    fs::create_dir_all(&folder).context("no history").ok()?;
    Some(folder.join("history"))
}

#[cfg(test)]
mod tests {
    use super::{is_blank, is_whole, split_statement};

    #[test]
    fn a_statement_ends_at_a_semicolon_that_is_none_of_its_text() {
        let cases = [
            ("SELECT 1", None),
            ("SELECT 1; SELECT 2", Some(("SELECT 1", " SELECT 2"))),
            ("SELECT ';'", None),
            ("SELECT 'a;\nb' ;\n", Some(("SELECT 'a;\nb' ", "\n"))),
            ("SELECT 'a;", None),
            ("SELECT 1 -- no; end\n", None),
            ("SELECT /* ; */ \"a;\", 'é';x", Some(("SELECT /* ; */ \"a;\", 'é'", "x"))),
            ("\nSELECT\n1\n;", Some(("\nSELECT\n1\n", ""))),
        ];
        for (text, expected) in cases {
            assert_eq!(split_statement(text), expected, "{text}");
        }
        assert!(is_whole("SELECT 1; SELECT 2; -- done") && !is_whole("SELECT 1; SELECT 2"));
        assert!(is_blank(" \n-- nothing\n/* ; */") && !is_blank("x"));
    }
}
