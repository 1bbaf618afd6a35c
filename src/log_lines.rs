//! The process's log on standard error. A repeated warning is written once a minute.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, Filter, SubscriberExt},
    util::SubscriberInitExt,
};

/// A warning or error about the same thing is suppressed for this long: retries repeat it.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Hashes of written lines kept in memory.
const MAX_REMEMBERED_LINES: usize = 1_000;

/// Write log lines that pass the filter to standard error.
pub(crate) fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("{filter:?} is no log filter, such as info"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines.with_filter(RepeatFilter::default())).init();
    Ok(())
}

/// Suppresses repeated warnings and errors: a hash of each written line, and when it was written.
#[derive(Default)]
struct RepeatFilter(Mutex<HashMap<u64, Instant>>);

impl RepeatFilter {
    /// Whether the line was not written within the interval.
    fn is_new(&self, line: u64, now: Instant) -> bool {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= MAX_REMEMBERED_LINES {
            written.retain(|_, at| now.duration_since(*at) < REPEAT_INTERVAL);
        }
        let is_known = written.get(&line).is_some_and(|at| now.duration_since(*at) < REPEAT_INTERVAL);
        if !is_known && written.len() < MAX_REMEMBERED_LINES {
            written.insert(line, now);
        }
        !is_known
    }
}

impl<S: Subscriber> Filter<S> for RepeatFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let mut fields = Fields(DefaultHasher::new());
        metadata.callsite().hash(&mut fields.0);
        event.record(&mut fields);
        self.is_new(fields.0.finish(), Instant::now())
    }
}

/// Fields that differ between two tries of the same thing. Errors count, without the numbers in them.
const VARYING_FIELDS: [&str; 5] = ["address", "attempts", "seconds", "free_bytes", "pid"];

/// Hashes the fields of an event that say what it is about.
struct Fields(DefaultHasher);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !VARYING_FIELDS.contains(&field.name()) {
            let mut text = format!("{value:?}");
            if field.name() == "error" {
                text.retain(|letter| !letter.is_ascii_digit());
            }
            (field.name(), text).hash(&mut self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::{MAX_REMEMBERED_LINES, REPEAT_INTERVAL, RepeatFilter};

    #[test]
    fn a_line_is_written_once_and_again_after_a_while() {
        let (written, now) = (RepeatFilter::default(), Instant::now());
        let soon = now + REPEAT_INTERVAL - Duration::from_millis(1);
        assert_eq!([now, now, soon, now + REPEAT_INTERVAL].map(|at| written.is_new(1, at)), [true, false, false, true]);
        assert!(written.is_new(2, now));
    }

    /// Lines beyond the memory are all written.
    #[test]
    fn what_is_remembered_is_bounded() {
        let (written, now) = (RepeatFilter::default(), Instant::now());
        for line in 0..3 * MAX_REMEMBERED_LINES as u64 {
            assert!(written.is_new(line, now));
        }
        assert!(written.0.lock().unwrap().len() <= MAX_REMEMBERED_LINES);
        assert!(!written.is_new(5, now));
        assert!(written.is_new(2 * MAX_REMEMBERED_LINES as u64, now + REPEAT_INTERVAL));
        assert!(written.0.lock().unwrap().len() < MAX_REMEMBERED_LINES);
    }

    /// A buffer that log lines are written to.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_retry_is_not_written_again_and_another_fault_or_table_is() {
        let buffer = Buffer::default();
        let written = buffer.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || written.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(RepeatFilter::default()));
        tracing::subscriber::with_default(subscriber, || {
            for attempts in 0..5 {
                tracing::info!("every one");
                for (table, error) in
                    [("a", "cannot open .17.new"), ("b", "cannot open .4.new"), ("a", "no space left")]
                {
                    let error = error.replace("17", &attempts.to_string());
                    tracing::warn!(table, error, attempts, "a commit failed");
                }
            }
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let count = |words: &str| text.matches(words).count();
        assert_eq!((count("every one"), count("a commit failed"), count("no space left")), (5, 3, 1), "{text}");
    }
}
