//! The state of the log and the lake that a refresh or commit reflects.

use schemas::Position;

/// The position, event time and retirements that a refresh or commit reflects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    pub position: Position,
    /// The latest event time, in microseconds since 1970, UTC.
    pub event_time: Option<i64>,
    /// The lake's number of retirements by then: the facts of what retention took are not in it.
    pub retirements: u64,
}
