//! What a long command shows while it works.

use std::{
    io::{IsTerminal, stderr},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;

/// How often a line is written where nobody sees a spinner move.
const LINE_EVERY: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(200);

/// Says what a command is at until it is dropped: a spinner with the time on a terminal, a line now and then elsewhere.
pub(crate) struct ProgressIndicator {
    bar: Option<ProgressBar>,
    /// Dropped first, which ends the lines.
    lines: Option<(Sender<()>, JoinHandle<()>)>,
}

impl ProgressIndicator {
    pub(crate) fn on(what: &str) -> Self {
        if stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            let style = indicatif::ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
            let bar = style.map_or(bar.clone(), |style| bar.with_style(style));
            bar.enable_steady_tick(TICK);
            return Self { bar: Some(bar), lines: None };
        }
        let (ended, end) = mpsc::channel::<()>();
        let (what, started) = (what.to_owned(), Instant::now());
        let lines = thread::spawn(move || {
            while end.recv_timeout(LINE_EVERY) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}, {} s", started.elapsed().as_secs());
            }
        });
        Self { bar: None, lines: Some((ended, lines)) }
    }
}

impl Drop for ProgressIndicator {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some((ended, lines)) = self.lines.take() {
            drop(ended);
            let _ = lines.join();
        }
    }
}
