//! `forecourt sql`: ask a running server, or a folder.

mod shell;
mod source;

use std::{
    io::{self, IsTerminal, Read},
    process::ExitCode,
};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use crate::arguments::{Format, Sql};
use source::{Source, table};

pub(crate) fn run(arguments: &Sql) -> anyhow::Result<ExitCode> {
    if matches!(arguments.format, Format::Arrow | Format::Parquet) && io::stdout().is_terminal() {
        bail!("this format is no text; send it to a file: > result.parquet");
    }
    let runtime = Runtime::new()?;
    let done = match &arguments.query {
        None if io::stdin().is_terminal() => shell::run(arguments, &runtime),
        query => ask_all(arguments, query.as_deref(), &runtime),
    };
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

/// Ask what the command line says, or every statement of standard input.
fn ask_all(arguments: &Sql, query: Option<&str>, runtime: &Runtime) -> anyhow::Result<()> {
    let mut text = query.unwrap_or("-").to_owned();
    if text == "-" {
        text.clear();
        io::stdin().read_to_string(&mut text).context("cannot read the query")?;
    }
    runtime.block_on(async {
        let source = Source::open(arguments).await?;
        let mut rest = text.as_str();
        loop {
            let (statement, after) = shell::split_statement(rest).unwrap_or((rest, ""));
            if let Some(answer) = source.ask(arguments, statement).await? {
                println!("{}", table(&answer));
                if answer.truncated {
                    eprintln!("there are more rows than {}; raise --limit", answer.rows.len());
                }
            }
            if shell::is_blank(after) {
                return Ok(());
            }
            rest = after;
        }
    })
}
