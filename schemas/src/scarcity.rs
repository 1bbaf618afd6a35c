//! Whether an error tells of a machine that lacks something, rather than of damaged data.
//!
//! What lacks a file descriptor, memory, a thread or room on the disk works again when there is some: nothing is deleted
//! for it.

use std::error::Error;

/// What systems say of it. Libraries wrap such errors in their own, often as text alone.
const TEXTS: [&str; 11] = [
    "Too many open files",
    "Cannot allocate memory",
    "No buffer space available",
    "OutOfMemory",
    "No space left on device",
    "StorageFull",
    "Disk quota exceeded",
    "QuotaExceeded",
    "File too large",
    "Resource temporarily unavailable",
    "WouldBlock",
];

/// Whether an error, or one that caused it, is for want of something.
#[must_use]
pub fn is_scarcity(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        let told = format!("{error:?} {error}");
        TEXTS.iter().any(|text| told.contains(text))
    })
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::is_scarcity;

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(Arc<io::Error>);

    #[test]
    fn want_is_told_from_damage() {
        // Of Linux: too many files in the process and on the machine, memory, room, quota, threads.
        for code in [24, 23, 12, 28, 122, 11] {
            let error = io::Error::from_raw_os_error(code);
            assert!(is_scarcity(&error), "{error}");
            assert!(is_scarcity(&Wrapped(Arc::new(error))), "{code}");
        }
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData, io::ErrorKind::NotFound] {
            assert!(!is_scarcity(&io::Error::from(kind)), "{kind}");
        }
    }
}
