//! A check of `forecourt verify`, and what it found.

use serde::Deserialize;

/// A check with its result.
#[derive(Debug, Deserialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) claim: String,
    pub(super) checked: u64,
    pub(super) different: u64,
    pub(super) differences: Vec<String>,
}
