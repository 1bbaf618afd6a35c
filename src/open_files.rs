//! How many files and connections this process may have open, and how they are shared out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What files, the log's connections and other parts need beside the clients.
const RESERVED_FILES: u64 = 192;
/// More connections than this are not taken, however many files may be open.
const MAX_CONNECTIONS: u64 = 20_000;
/// As few as this are taken whatever the limit is.
const MIN_CONNECTIONS: u64 = 8;
/// The same of the Postgres wire, and of Flight SQL.
const MAX_WIRE_CONNECTIONS: u64 = 100;
const MIN_WIRE_CONNECTIONS: u64 = 3;

/// Ask for as many open files as the system lets us have.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is not allowed, it stays as it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// How many files may be open.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many HTTP connections are taken with so many open files: half of what is not reserved.
pub(crate) fn http_connections(limit: u64) -> usize {
    let most = (limit.saturating_sub(RESERVED_FILES) / 2).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// How many connections of the Postgres wire are taken with so many open files, and of Flight SQL. Twice as many may be open
/// before their clients say who they are.
pub(crate) fn wire_connections(limit: u64) -> usize {
    let most = (limit.saturating_sub(RESERVED_FILES) / 8).clamp(MIN_WIRE_CONNECTIONS, MAX_WIRE_CONNECTIONS);
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{http_connections, wire_connections};

    #[test]
    fn connections_leave_room_for_files() {
        assert_eq!([64, 1_024, 1 << 20].map(http_connections), [8, 416, 20_000]);
        assert_eq!([64, 256, 1_024, 1 << 20].map(wire_connections), [3, 8, 100, 100]);
    }
}
