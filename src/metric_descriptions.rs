//! What each metric means, for those who read `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram};

const COUNTERS: [(&str, &str); 11] = [
    ("alert_delivery_failures_total", "Webhook deliveries of saved searches that failed."),
    ("alert_matches_total", "Listings that matched a saved search."),
    ("intake_events_accepted_total", "Events that were acknowledged over HTTP."),
    ("intake_events_duplicate_total", "Events over HTTP whose id had taken effect before."),
    ("intake_events_rejected_total", "Events over HTTP that were refused."),
    ("kpi_computations_total", "Computations of KPI buckets."),
    ("lake_events_retired_total", "Events that retention took out of the lake."),
    ("pipeline_dead_letters_total", "Messages of the log that are no valid events."),
    ("pipeline_duplicates_total", "Messages of the log whose event id had taken effect before."),
    ("pipeline_events_total", "Events of the log that took effect."),
    ("pipeline_gap_positions_total", "Positions that the log no longer had when it was read."),
];
const GAUGES: [(&str, &str); 15] = [
    ("alert_deliveries_waiting", "Matches of saved searches that wait for their webhook."),
    ("alert_delivery_lag_seconds", "How long ago the first of them matched."),
    ("alerts_lag_positions", "How many positions of the lake the saved searches do not reflect."),
    ("data_folder_free_bytes", "Room on the disk of the data folder."),
    ("dead_letter_copy_lag_positions", "How far the copy of dead letters is behind the last one that was found."),
    ("index_committed_position", "Log position that the index on disk reflects."),
    ("index_position", "Log position that searches reflect."),
    ("kpi_value", "A KPI's value of its latest day."),
    ("lake_position", "Log position that SQL reflects."),
    ("log_bytes", "Size of the log in bytes."),
    ("log_position", "Last position of the log."),
    ("period_events_lag_seconds", "How long the events of closed periods could not be published."),
    ("pipeline_lag_positions", "How many positions of the log the lake does not reflect."),
    ("pipeline_lag_seconds", "How long the first of them has waited."),
    ("sql_queries_running", "SQL queries that run now."),
];
const HISTOGRAMS: [(&str, &str); 2] = [
    ("index_refresh_seconds", "Time to make changed listings visible to searches."),
    ("lake_commit_seconds", "Time to commit a table, its file included."),
];

/// Describe every metric to the recorder that is installed.
pub(crate) fn describe() {
    for (name, meaning) in COUNTERS {
        describe_counter!(name, meaning);
    }
    for (name, meaning) in GAUGES {
        describe_gauge!(name, meaning);
    }
    for (name, meaning) in HISTOGRAMS {
        describe_histogram!(name, meaning);
    }
}
