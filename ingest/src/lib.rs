//! How events get into the log, and how they are read back.
//!
//! In the order an event meets them:
//!
//! - [`intake`]: a request body becomes checked events, each accepted, recognised as a duplicate, or refused;
//! - [`seen`]: the event ids that have already taken effect;
//! - [`publisher`]: groups events of concurrent callers into atomic, fsynced batches;
//! - [`topology`]: the streams and subjects of the log;
//! - [`reader`]: messages from a position on, across reconnects;
//! - [`dead_letters`]: where messages go that are no events;
//! - [`server`]: a `nats-server` of our own, when none is given;
//! - [`backfill`]: files cut into requests.

pub mod backfill;
pub mod dead_letters;
pub mod intake;
pub mod publisher;
pub mod reader;
pub mod seen;
pub mod server;
pub mod topology;

pub use dead_letters::{DeadLetter, DeadLetters};
pub use intake::{Intake, IntakeReport, Rejected};
pub use publisher::Publisher;
pub use reader::{LogReader, RawMessage};
pub use seen::SeenEvents;
pub use topology::{Log, LogError};
