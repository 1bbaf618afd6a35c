//! `forecourt`: parse the command line, wire the parts, run, shut down.

mod arguments;
mod catalogue_command;
mod catalogue_files;
mod clock;
mod config_command;
mod dead_letters_command;
mod demo;
mod event_file;
mod import_command;
mod ingest_command;
mod kpi_command;
mod log_lines;
mod maintain_command;
mod metric_descriptions;
mod nats_context_command;
mod open_files;
mod progress;
mod rejected_file;
mod settings;
mod settings_file;
mod simulate_command;
mod sql_command;
mod storage_healing;
mod sync_check;
mod tables;
mod up;
mod verify_command;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::{
    arguments::{Arguments, Command, ConfigAction},
    settings_file::SettingsFile,
};

/// Many short-lived allocations on many threads: what glibc's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Several libraries speak TLS and two providers are linked: without this one they would not know which to take, and panic.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("forecourt: a provider of cryptography is installed already");
    }
    end_quietly_on_a_closed_pipe();
    match parse().and_then(run) {
        Ok(code) => code,
        Err(error) if error.is::<OutputClosed>() => ExitCode::from(OUTPUT_CLOSED),
        Err(error) => {
            eprintln!("forecourt: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The status of a process that SIGPIPE ended: what shells expect of a command whose reader went away.
const OUTPUT_CLOSED: u8 = 141;

/// Standard output was closed by its reader.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for OutputClosed {}

/// The error of a write to standard output.
pub(crate) fn output_error(error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe { OutputClosed.into() } else { error.into() }
}

/// `println!` panics when a reader such as `head` has closed the pipe: end as SIGPIPE would, without a message.
fn end_quietly_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>();
        if message.is_some_and(|it| it.starts_with("failed printing to stdout") && it.contains("Broken pipe")) {
            std::process::exit(i32::from(OUTPUT_CLOSED));
        }
        if tracing::enabled!(tracing::Level::ERROR) {
            // One line, as everything in the log.
            let said = message.map(String::as_str).or_else(|| panic.payload().downcast_ref::<&str>().copied());
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, reason = said.map(|said| said.replace('\n', " ")), "a task panicked");
        } else {
            usual(panic);
        }
    }));
}

/// The command line, with what the settings file says where a flag and the environment say nothing.
struct Parsed {
    arguments: Arguments,
    matches: ArgMatches,
    file: Option<SettingsFile>,
}

fn parse() -> anyhow::Result<Parsed> {
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches)?;
    if let Command::Config(command) = &arguments.command
        && let ConfigAction::Check { .. } = command.action
    {
        return Ok(Parsed { arguments, matches, file: None });
    }
    let Some(file) = SettingsFile::find(arguments.config.as_deref(), &server_command())? else {
        return Ok(Parsed { arguments, matches, file: None });
    };
    let matches = file.defaults(Arguments::command()).get_matches();
    Ok(Parsed { arguments: Arguments::from_arg_matches(&matches)?, matches, file: Some(file) })
}

/// The command that takes all settings.
fn server_command() -> clap::Command {
    Arguments::command().find_subcommand("up").cloned().unwrap_or_default()
}

fn run(parsed: Parsed) -> anyhow::Result<ExitCode> {
    let Parsed { arguments, matches, file } = parsed;
    match arguments.command {
        Command::Up(up) => up::run(*up),
        Command::Ingest(ingest) => ingest_command::run(&ingest),
        Command::Import(import) => import_command::run(&import),
        Command::Simulate(simulate) => simulate_command::run(&simulate),
        Command::Sql(sql) => sql_command::run(&sql),
        Command::Maintain(maintain) => maintain_command::run(&maintain),
        Command::Verify(verify) => verify_command::run(&verify),
        Command::Catalogue(catalogue) => catalogue_command::run(&catalogue),
        Command::Kpi(kpi) => kpi_command::run(&kpi),
        Command::DeadLetters(letters) => dead_letters_command::run(&letters),
        Command::NatsContext(context) => nats_context_command::run(&context),
        Command::Config(config) => match config.action {
            ConfigAction::Check { file } => config_command::check(&file, &server_command()),
            ConfigAction::Show { json, .. } => {
                let shown = matches.subcommand().and_then(|(_, config)| config.subcommand()).map(|(_, show)| show);
                config_command::show(&server_command(), shown.unwrap_or(&matches), file.as_ref(), json)
            }
        },
    }
}
