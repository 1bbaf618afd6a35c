//! Positions as values of Prometheus gauges.

use schemas::Position;

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; positions are far below 2^53")]
pub(crate) fn position_gauge(position: Position) -> f64 {
    position.get() as f64
}
