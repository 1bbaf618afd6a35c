//! `forecourt nats-context`: how a producer on this machine reaches the log of a running server.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use ingest::NatsContext;
use serde_json::json;

use crate::arguments::NatsContextCommand;

pub(crate) fn run(arguments: &NatsContextCommand) -> anyhow::Result<ExitCode> {
    let folder = arguments.data.join("nats");
    let context = NatsContext::read(&folder).with_context(|| {
        let data = arguments.data.display();
        format!("{data} has no nats-server of its own that you can read of; is it the folder of a `forecourt up`, and yours?")
    })?;
    let file = NatsContext::file(&folder);
    let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
    ensure!(file.is_file(), "{} is no file", file.display());
    if arguments.json {
        println!("{}", json!({"url": context.url, "credential_file": file}));
    } else {
        println!("url         {}\ncredential  {}", context.url, file.display());
    }
    Ok(ExitCode::SUCCESS)
}
