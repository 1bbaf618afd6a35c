//! Has the log forget what the lake holds, as retention does: from then on the lake alone has those events.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// A server without power answers nobody.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Purge the log up to a position, with the credential of the data folder.
pub(crate) fn purge_log(data: &Path, position: u64) -> anyhow::Result<()> {
    let context: Value = serde_json::from_slice(&fs::read(data.join("nats/context.json"))?)?;
    let text = |name: &str| context[name].as_str().with_context(|| format!("the credential has no {name}"));
    let address = text("url")?.trim_start_matches("nats://").to_owned();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let connect = json!({"verbose": false, "user": text("user")?, "pass": text("password")?});
    let order = json!({"seq": position + 1}).to_string();
    let length = order.len();
    write!(
        stream,
        "CONNECT {connect}\r\nSUB _ANSWER 1\r\nPUB $JS.API.STREAM.PURGE.EVENTS _ANSWER {length}\r\n{order}\r\n"
    )?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        ensure!(!line.starts_with("-ERR"), "nats-server refused: {line}");
        if let Some(answer) = line.strip_prefix('{') {
            let answer: Value = serde_json::from_str(&format!("{{{answer}"))?;
            ensure!(answer["success"] == true, "the log was not purged: {answer}");
            return Ok(());
        }
    }
    bail!("nats-server closed the connection")
}
