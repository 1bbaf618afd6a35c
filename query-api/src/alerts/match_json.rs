//! Matches of saved searches as JSON: for the API, streams and webhooks.

use schemas::{Position, field_type::format_timestamp};
use search_index::ListingSnapshot;
use serde_json::{Value, json};

use super::state::Match;
use crate::{
    AppState,
    consistency::Freshness,
    payment::PaymentTerms,
    problem::Problem,
    search::{Priced, hit_of, market},
};

/// Matches as JSON, each with its listing as of now.
pub(super) async fn render_matches(api: &AppState, alert: &str, matches: &[Match]) -> Result<Vec<Value>, Problem> {
    let snapshot = Freshness::new(Position::START, None).wait(&api.pipeline.listings).await?;
    let priced = Priced { market: market(api, &snapshot).await?, terms: PaymentTerms::default() };
    let now = (api.now)();
    matches.iter().map(|found| render_match(&snapshot, &priced, alert, found, now)).collect()
}

fn render_match(
    snapshot: &ListingSnapshot,
    priced: &Priced,
    alert: &str,
    found: &Match,
    now: i64,
) -> Result<Value, Problem> {
    let listing = snapshot.listing(&found.listing_id).map_err(|error| Problem::internal(&error))?;
    Ok(json!({
        "match_id": found.id,
        "alert_id": alert,
        "listing_id": found.listing_id,
        "matched_at": format_timestamp(found.matched_at),
        "position": found.position.get(),
        "delivered": found.delivered,
        "listing": listing.map(|listing| hit_of(listing, now, priced)),
    }))
}
