//! Freeing what is large, on a thread of its own: whoever replaces it, or was the last that used it, goes on.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Things that wait for the thread. More are freed by whoever brings them.
const QUEUE: usize = 64;
/// How often things that somebody still uses are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Holds things until nobody else does, and frees them.
pub(crate) struct Freeing<T> {
    queue: Option<SyncSender<Arc<T>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + Sync + 'static> Freeing<T> {
    pub(crate) fn start(name: &str) -> Self {
        let (queue, things) = sync_channel(QUEUE);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || free(&things));
        if let Err(error) = &thread {
            tracing::debug!(error = %error, "no thread to free things on");
        }
        Self { queue: Some(queue), thread: thread.ok() }
    }

    /// It may be brought more than once.
    pub(crate) fn free(&self, thing: Arc<T>) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(thing) {
            Ok(()) => {}
            Err(TrySendError::Full(thing) | TrySendError::Disconnected(thing)) => drop(thing),
        }
    }
}

impl<T> Drop for Freeing<T> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // What it holds is freed first.
            let _ = thread.join();
        }
    }
}

fn free<T>(things: &Receiver<Arc<T>>) {
    let mut held: Vec<Arc<T>> = Vec::new();
    loop {
        let next = if held.is_empty() {
            things.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            things.recv_timeout(LOOK_EVERY)
        };
        match next {
            // Held twice, it would seem to be used for ever.
            Ok(thing) if held.iter().any(|known| Arc::ptr_eq(known, &thing)) => {}
            Ok(thing) => held.push(thing),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        held.retain(|thing| Arc::strong_count(thing) > 1);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread::{self, ThreadId},
        time::Duration,
    };

    use super::Freeing;

    /// Tells which thread frees it.
    struct Thing(mpsc::Sender<ThreadId>);

    impl Drop for Thing {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn a_thing_is_freed_when_nobody_uses_it_however_often_it_was_brought() {
        let (freed, frees) = mpsc::channel();
        let freeing = Freeing::start("test-freeing");
        let thing = Arc::new(Thing(freed));
        let used = Arc::clone(&thing);
        freeing.free(Arc::clone(&thing));
        freeing.free(Arc::clone(&thing));
        freeing.free(thing);
        drop(used);
        let by = frees.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_ne!(by, thread::current().id());
    }
}
