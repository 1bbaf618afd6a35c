//! The lexicon, made anew now and then, beside the searches that use it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use schemas::Position;
use search_index::{ListingSnapshot, lexicon::Lexicon};
use tokio::sync::OwnedMutexGuard;

use crate::problem::Problem;

/// How old a lexicon may be before the next is made, when listings have changed.
const MADE_EVERY: Duration = Duration::from_secs(5);

/// Keeps the newest lexicon.
#[derive(Clone, Default)]
pub struct Lexicons {
    newest: Arc<Mutex<Option<Made>>>,
    /// Held while one is made.
    making: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Made {
    lexicon: Arc<Lexicon>,
    position: Position,
    at: Instant,
}

impl Lexicons {
    /// The newest there is, of a position at least. It is waited for when there is none such; otherwise the next is made
    /// while this one is used.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn get(&self, snapshot: &Arc<ListingSnapshot>, min_position: Position) -> Result<Arc<Lexicon>, Problem> {
        if let Some(made) = self.newest().filter(|made| made.position >= min_position) {
            if made.position < snapshot.position
                && made.at.elapsed() >= MADE_EVERY
                && let Ok(turn) = Arc::clone(&self.making).try_lock_owned()
            {
                // Whoever asks next has it.
                drop(self.make(snapshot, turn));
            }
            return Ok(made.lexicon);
        }
        let turn = Arc::clone(&self.making).lock_owned().await;
        match self.newest().filter(|made| made.position >= min_position) {
            Some(made) => Ok(made.lexicon),
            None => {
                let made = self.make(snapshot, turn).await.map_err(|error| Problem::internal(&error))?;
                made.map_err(|error| Problem::internal(&error))
            }
        }
    }

    fn newest(&self) -> Option<Made> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn make(
        &self,
        snapshot: &Arc<ListingSnapshot>,
        turn: OwnedMutexGuard<()>,
    ) -> tokio::task::JoinHandle<Result<Arc<Lexicon>, search_index::IndexError>> {
        let (newest, snapshot) = (Arc::clone(&self.newest), Arc::clone(snapshot));
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let lexicon = Arc::new(Lexicon::of(&snapshot)?);
            let made = Made { lexicon: Arc::clone(&lexicon), position: snapshot.position, at: Instant::now() };
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            if newest.as_ref().is_none_or(|newest| newest.position <= made.position) {
                *newest = Some(made);
            }
            Ok(lexicon)
        })
    }
}
