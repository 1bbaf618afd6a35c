//! Events about saved searches, published to the log.

use std::io;

use ingest::{Intake, Interrupted, intake::BodyForm};
use schemas::{Position, field_type::format_timestamp};
use serde_json::{Value, json};

/// An event of an alert.
pub(super) fn event(event_type: &str, event_id: &str, alert: &str, at: i64, data: Value) -> Value {
    json!({
        "eventId": event_id, "eventType": format!("alerts.{event_type}"), "eventVersion": "1.0", "timestamp": format_timestamp(at),
        "aggregateType": "SearchAlert", "aggregateId": alert, "source": "forecourt", "data": data,
    })
}

/// Publish events; the highest position, unless all are refused.
pub(crate) async fn publish(intake: &Intake, events: &[Value]) -> Result<Option<Position>, Interrupted> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let report = intake.take(io::Cursor::new(lines.into_bytes()), BodyForm::Ndjson, None).await?;
    for refused in &report.rejected {
        let (id, code, message) = (refused.event_id.as_deref(), refused.code, refused.message.as_str());
        tracing::error!(id, code, message, "an event of our own was refused");
    }
    Ok(report.position.map(Position::new))
}
