//! `forecourt`: parse the command line, wire the parts, run, shut down.

mod arguments;
mod catalogue_command;
mod catalogue_files;
mod dead_letters_command;
mod event_file;
mod import_command;
mod ingest_command;
mod kpi_command;
mod maintain_command;
mod rejected_file;
mod simulate_command;
mod sql_command;
mod sync_check;
mod tables;
mod up;
mod verify_command;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};

/// Many short-lived allocations on many threads: what glibc's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("forecourt: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Up(up) => up::run(up),
        Command::Ingest(ingest) => ingest_command::run(&ingest),
        Command::Import(import) => import_command::run(&import),
        Command::Simulate(simulate) => simulate_command::run(&simulate),
        Command::Sql(sql) => sql_command::run(&sql),
        Command::Maintain(maintain) => maintain_command::run(&maintain),
        Command::Verify(verify) => verify_command::run(&verify),
        Command::Catalogue(catalogue) => catalogue_command::run(&catalogue),
        Command::Kpi(kpi) => kpi_command::run(&kpi),
        Command::DeadLetters(letters) => dead_letters_command::run(&letters),
    }
}
