//! How events get into the log, and how they are read back.
//!
//! In the order an event meets them:
//!
//! - [`encoding`]: compressed bodies and files;
//! - [`bodies`]: those under way, and how long each may take;
//! - [`intake`]: a body of any size becomes checked events, each accepted, recognised as a duplicate, or refused;
//! - [`seen`]: the event ids that have already taken effect;
//! - [`publisher`]: groups events of concurrent callers into atomic, fsynced batches;
//! - [`topology`]: the streams and subjects of the log;
//! - [`reader`]: messages from a position on, across reconnects; `stored_message`: one of them, whatever bytes it has;
//! - [`dead_letters`]: where messages go that are no events;
//! - [`backoff`]: pauses between tries of what may be away for a while;
//! - [`server`]: a `nats-server` of our own, when none is given; [`disk`]: the room it has;
//! - [`backfill`]: files cut into requests that can be sent again from where they were interrupted.

pub mod backfill;
pub mod backoff;
pub mod bodies;
pub mod dead_letters;
pub mod disk;
pub mod encoding;
pub mod intake;
pub mod publisher;
pub mod reader;
pub mod seen;
pub mod server;
mod stored_message;
pub mod topology;

pub use backoff::Backoff;
pub use dead_letters::{DeadLetter, DeadLetterStream, LetterCopy};
pub use intake::{Intake, IntakeError, IntakeReport, Interrupted, Rejected};
pub use publisher::{Publisher, Refusal};
pub use reader::{LogReader, MessageFault, RawMessage};
pub use seen::{SeenError, SeenEvents};
pub use server::NatsContext;
pub use topology::{Log, LogAccess, LogError, LogState, without_password};

/// The format of the log: its streams, subjects and headers; a change of it reads older messages too.
pub const LOG_FORMAT: u32 = 1;
/// The format of the store of seen event ids, which is built again from the lake when it changes.
pub const SEEN_FORMAT: u32 = 1;
