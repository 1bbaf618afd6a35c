//! Whether a NATS server of somebody else syncs every write, as an acknowledgement promises.

use anyhow::{Context, bail};
use ingest::without_password;
use serde_json::Value;

/// Ask the server's monitoring address.
pub(crate) async fn check(monitor: &str) -> anyhow::Result<()> {
    let url = format!("{}/jsz?config=true", monitor.trim_end_matches('/'));
    let failed = || {
        format!("cannot ask {}; is the server started with http_port, and is this its address?", without_password(&url))
    };
    let answer = reqwest::get(&url).await.and_then(reqwest::Response::error_for_status);
    // The address may hold a password.
    let answer = answer.map_err(reqwest::Error::without_url).with_context(failed)?;
    let answer: Value = answer.json().await.map_err(reqwest::Error::without_url).with_context(failed)?;
    if !syncs_always(&answer) {
        bail!(
            "the NATS server does not sync every write, so an acknowledged event could be lost with the power: set \
             `sync_interval: always` in its jetstream block and restart it"
        );
    }
    Ok(())
}

fn syncs_always(answer: &Value) -> bool {
    answer["config"]["sync_always"] == true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::syncs_always;

    #[test]
    fn only_a_server_that_says_so_syncs_always() {
        assert!(syncs_always(&json!({"config": {"sync_interval": 120, "sync_always": true}})));
        assert!(!syncs_always(&json!({"config": {"sync_interval": 120_000_000_000_i64}})));
        assert!(!syncs_always(&json!({})));
    }
}
