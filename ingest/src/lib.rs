//! How events get into the log, and how they are read back.
//!
//! In the order an event meets them:
//!
//! - [`encoding`]: compressed bodies and files;
//! - [`intake`]: a body of any size becomes checked events, each accepted, recognised as a duplicate, or refused;
//! - [`seen`]: the event ids that have already taken effect;
//! - [`publisher`]: groups events of concurrent callers into atomic, fsynced batches;
//! - [`topology`]: the streams and subjects of the log;
//! - [`reader`]: messages from a position on, across reconnects;
//! - [`dead_letters`]: where messages go that are no events;
//! - [`backoff`]: pauses between tries of what may be away for a while;
//! - [`server`]: a `nats-server` of our own, when none is given;
//! - [`backfill`]: files cut into requests that can be sent again from where they were interrupted.

pub mod backfill;
pub mod backoff;
pub mod dead_letters;
pub mod encoding;
pub mod intake;
pub mod publisher;
pub mod reader;
pub mod seen;
pub mod server;
pub mod topology;

pub use backoff::Backoff;
pub use dead_letters::{DeadLetter, DeadLetters};
pub use intake::{Intake, IntakeError, IntakeReport, Interrupted, Rejected};
pub use publisher::Publisher;
pub use reader::{LogReader, RawMessage};
pub use seen::{SeenError, SeenEvents};
pub use topology::{Log, LogAccess, LogError, LogState, without_password};

/// The format of the log: its streams, subjects and headers; a change of it reads older messages too.
pub const LOG_FORMAT: u32 = 1;
/// The format of the store of seen event ids, which is built again from the lake when it changes.
pub const SEEN_FORMAT: u32 = 1;
