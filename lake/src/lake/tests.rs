use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::Int64Type,
    },
    common::ParamValues,
};
use futures::TryStreamExt;
use schemas::{
    Catalogue, ContextBatchBuilder, EventKey, Position, Rejection, RejectionCode, RetentionPolicy, Stamp,
    validation::parse_event,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use url::Url;

use super::{Lake, LakeConfig, LakeError, maintenance::Rewritten};
use crate::{
    Eagerness, KEEP_FOR, LakeView, QueryLimits, SqlSession,
    commits::commit,
    ledger::{Closing, DeadLetterRow, Decision, dead_letters_batch},
    result_json,
    table::OpenError,
};

const LIMITS: QueryLimits = QueryLimits { rows: 1_000, time: Duration::from_secs(60) };

fn url(folder: &Path) -> Url {
    Url::from_directory_path(folder).unwrap()
}

async fn open(folder: &Path) -> Result<Lake, LakeError> {
    Lake::open(&url(folder), Catalogue::embedded().unwrap(), LakeConfig::default()).await
}

/// One event at a position, as rows of its table: even positions are prices, odd ones tickets.
fn rows(positions: std::ops::RangeInclusive<u64>) -> Vec<(usize, RecordBatch)> {
    let catalogue = Catalogue::embedded().unwrap();
    let mut tables = Vec::new();
    for (name, event_type, parity) in [("inventory", "PriceSet", 0), ("support", "SupportTicketCreated", 1)] {
        let (index, _) = catalogue.context(name).unwrap();
        let mut builder = ContextBatchBuilder::new(&catalogue, index, positions.clone().count());
        for position in positions.clone().filter(|position| position % 2 == parity) {
            let data = match parity {
                0 => json!({"listingId": "l", "price": position}),
                _ => json!({"ticketId": "t", "customerId": "c"}),
            };
            let event = json!({
                "eventId": format!("e-{position}"), "eventType": event_type, "aggregateId": "a", "data": data,
                "timestamp": format!("2026-{:02}-01T00:00:00Z", position % 12 + 1)
            });
            let event = parse_event(&catalogue, event.to_string().as_bytes(), None).unwrap();
            let stamp = Stamp { position: Position::new(position), ingested_at: event.time };
            builder.push(&catalogue, event, stamp);
        }
        if !builder.is_empty() {
            tables.push((index.get(), builder.finish().unwrap()));
        }
    }
    tables
}

/// Rows and the last position of both tables and of all events, in one query.
async fn seen(view: &Arc<LakeView>) -> Value {
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let query = "SELECT (SELECT count(*) FROM inventory.price_set) AS prices, \
                 (SELECT count(*) FROM support.support_ticket_created) AS tickets, \
                 (SELECT count(*) FROM lake.events) AS events, (SELECT max(position) FROM lake.events) AS last";
    answered(&sql, view, query).await.remove(0)
}

async fn answered(sql: &SqlSession, view: &Arc<LakeView>, query: &str) -> Vec<Value> {
    let none = ParamValues::List(Vec::new());
    let batches =
        sql.query(view, Vec::new(), sql.parse(query).unwrap(), none, LIMITS).await.unwrap().collect().await.unwrap();
    result_json::rows(&batches).collect()
}

async fn flush(lake: &mut Lake) {
    let flush = lake.begin_flush().unwrap();
    lake.finish_flush(flush.run().await.unwrap());
}

#[tokio::test]
async fn a_view_is_one_cut_whatever_is_appended_or_flushed_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = open(folder.path()).await.unwrap();
    lake.append(rows(1..=10), Position::new(10), None).unwrap();
    let in_memory = Arc::new(lake.view());
    flush(&mut lake).await;
    let in_files = Arc::new(lake.view());
    lake.append(rows(11..=13), Position::new(13), None).unwrap();
    let in_both = Arc::new(lake.view());
    let running = lake.begin_flush().unwrap();
    lake.append(rows(14..=15), Position::new(15), None).unwrap();
    let while_flushing = Arc::new(lake.view());
    lake.finish_flush(running.run().await.unwrap());
    let after = Arc::new(lake.view());
    for (view, expected) in [
        (&in_memory, json!([5, 5, 10, 10])),
        (&in_files, json!([5, 5, 10, 10])),
        (&in_both, json!([6, 7, 13, 13])),
        (&while_flushing, json!([7, 8, 15, 15])),
        (&after, json!([7, 8, 15, 15])),
    ] {
        assert_eq!(seen(view).await, expected);
        assert_eq!(json!(view.position.get()), expected[3]);
    }
}

#[tokio::test]
async fn a_reopened_lake_continues_where_it_was_flushed_and_takes_no_row_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = open(folder.path()).await.unwrap();
    lake.append(rows(1..=10), Position::new(10), Some(5)).unwrap();
    flush(&mut lake).await;
    lake.append(rows(11..=20), Position::new(20), Some(9)).unwrap();
    // A crash after one table's commit and before the closing one's.
    let mut cut_off = lake.begin_flush().unwrap();
    let first = cut_off.tables.remove(0);
    commit(first, Position::new(20), None).await.unwrap();
    drop((lake, cut_off));

    let mut lake = open(folder.path()).await.unwrap();
    assert_eq!((lake.position(), lake.is_settled()), (Position::new(10), false));
    lake.append(rows(11..=15), Position::new(15), None).unwrap();
    assert!(!lake.is_settled());
    lake.append(rows(16..=22), Position::new(22), None).unwrap();
    assert!(lake.is_settled());
    assert_eq!(seen(&Arc::new(lake.view())).await, json!([11, 11, 22, 22]));
    flush(&mut lake).await;
    drop(lake);
    let lake = open(folder.path()).await.unwrap();
    let events = lake.events_after(Position::START).try_concat().await.unwrap();
    let mut events: Vec<_> = events.into_iter().map(|(key, position)| (position, key)).collect();
    events.sort();
    let later = lake.events_after(Position::new(20)).try_concat().await.unwrap().len();
    assert_eq!(later, 2);
    let expected = (1..=22_u64).map(|position| (Position::new(position), EventKey::of(&format!("e-{position}"))));
    assert_eq!(events, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path()).await.unwrap();
    let mut second = open(folder.path()).await.unwrap();
    first.append(rows(1..=4), Position::new(4), None).unwrap();
    flush(&mut first).await;
    second.append(rows(1..=2), Position::new(2), None).unwrap();
    let refused = second.begin_flush().unwrap().run().await;
    assert!(matches!(refused.err(), Some(LakeError::SecondWriter { .. })));
}

/// A context of a user's own, with or without one field more.
fn telemetry(more: &str, carried: &str) -> Arc<Catalogue> {
    let text = format!(
        "context = 'telemetry'\ntitle = 'Telemetry'\nmeaning = 'What cars report.'\nretention = 'short'\n\
         delivery = 'batch'\n[fields]\ncarId = {{ type = 'id', meaning = 'The car.' }}\n{more}\n\
         [events.SpeedMeasured]\nmeaning = 'A car told its speed.'\naggregate = 'Car'\nkey = 'carId'\n\
         required = ['carId'{carried}]\n"
    );
    Arc::new(Catalogue::parse([("telemetry.toml", text.as_str())]).unwrap())
}

fn speed(catalogue: &Arc<Catalogue>, position: u64, data: Value) -> Vec<(usize, RecordBatch)> {
    let (index, _) = catalogue.context("telemetry").unwrap();
    let event = json!({
        "eventId": format!("e-{position}"), "eventType": "SpeedMeasured", "timestamp": "2026-11-02T00:00:00Z",
        "data": data
    });
    let event = parse_event(catalogue, event.to_string().as_bytes(), None).unwrap();
    let mut builder = ContextBatchBuilder::new(catalogue, index, 1);
    builder.push(catalogue, event, Stamp { position: Position::new(position), ingested_at: 0 });
    vec![(index.get(), builder.finish().unwrap())]
}

#[tokio::test]
async fn a_field_the_catalogue_gains_is_null_in_older_rows_and_one_it_loses_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let with_note = telemetry("note = { type = 'string', meaning = 'A note.' }", ",'note'");
    let with_speed = telemetry("speed = { type = 'integer', meaning = 'Speed.' }", ",'speed'");
    let first = json!({"carId": "c", "note": "slow"});
    let second = json!({"carId": "c", "speed": 80});
    for (catalogue, position, data) in [(&with_note, 1, first), (&with_speed, 2, second)] {
        let opened = Lake::open(&url(folder.path()), Arc::clone(catalogue), LakeConfig::default()).await;
        let mut lake = opened.unwrap();
        lake.append(speed(catalogue, position, data), Position::new(position), None).unwrap();
        flush(&mut lake).await;
    }
    let lake = Lake::open(&url(folder.path()), Arc::clone(&with_speed), LakeConfig::default()).await.unwrap();
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let view = Arc::new(lake.view());
    let query = "SELECT position, car_id, speed FROM telemetry.speed_measured ORDER BY position";
    let rows = answered(&sql, &view, query).await;
    assert_eq!(rows, [json!([1, "c", null]), json!([2, "c", 80])]);
    drop((lake, view));
    let lake = Lake::open(&url(folder.path()), with_note, LakeConfig::default()).await.unwrap();
    let query = "SELECT note FROM telemetry.speed_measured ORDER BY position";
    let rows = answered(&sql, &Arc::new(lake.view()), query).await;
    assert_eq!(rows, [json!(["slow"]), json!([null])]);
    drop(lake);

    let retyped = telemetry("speed = { type = 'string', meaning = 'Speed.' }", ",'speed'");
    let refused = Lake::open(&url(folder.path()), retyped, LakeConfig::default()).await;
    assert!(matches!(refused.err(), Some(LakeError::Open { source: OpenError::Retyped { .. }, .. })));
    let without = Lake::open(&url(folder.path()), Catalogue::embedded().unwrap(), LakeConfig::default()).await;
    assert!(matches!(without.err(), Some(LakeError::Unknown { table }) if table == "telemetry"));
}

#[tokio::test]
async fn a_dead_letter_is_closed_once_and_stays_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = open(folder.path()).await.unwrap();
    let rejection = Rejection::new(RejectionCode::InvalidJson, "not JSON");
    let letters: Vec<DeadLetterRow<'_>> = (1..=3)
        .map(|position| DeadLetterRow {
            position: Position::new(position),
            ingested_at: 0,
            stage: "decode",
            rejection: &rejection,
            subject: "events.x",
            payload: b"?",
            headers: None,
        })
        .collect();
    let table = lake.view().tables.len() - 3;
    lake.append([(table, dead_letters_batch(&letters).unwrap())], Position::new(3), None).unwrap();
    let closing = |position, decision| Closing {
        position: Position::new(position),
        decision,
        closed_at: 7,
        closed_by: "ada".to_owned(),
    };
    let decided = [closing(1, Decision::Retried(Position::new(9))), closing(2, Decision::Dropped)];
    assert_eq!(lake.close(&decided).await.unwrap(), 2);
    assert_eq!(lake.close(&[closing(2, Decision::Retried(Position::new(9)))]).await.unwrap(), 0);
    flush(&mut lake).await;
    drop(lake);
    let mut lake = open(folder.path()).await.unwrap();
    assert_eq!(lake.close(&[closing(1, Decision::Dropped)]).await.unwrap(), 0);
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let query = "SELECT position, reason, status, closed_by, retried_as FROM system.dead_letters ORDER BY position";
    let rows = answered(&sql, &Arc::new(lake.view()), query).await;
    let expected = [
        json!([1, "invalid_json", "retried", "ada", 9]),
        json!([2, "invalid_json", "dropped", "ada", null]),
        json!([3, "invalid_json", "open", null, null]),
    ];
    assert_eq!(rows, expected);
}

/// Files are merged while rows come, are flushed and the lake is opened again: every view has every row once, what a view
/// read stays readable, statistics are true, and files stay few.
#[tokio::test(flavor = "multi_thread")]
async fn merging_files_changes_nothing_that_anybody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = open(folder.path()).await.unwrap();
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let (mut end, mut merged, mut waiting, mut applied) = (0_u64, None, 0, 0);
    let mut earlier: Option<(u64, Arc<LakeView>)> = None;
    for step in 0_u64..60 {
        // One month each, so that a partition soon has many files.
        let next = end + 1 + step % 3;
        lake.append(rows(end + 1..=next), Position::new(next), None).unwrap();
        end = next;
        match step % 5 {
            0..3 => flush(&mut lake).await,
            3 => {
                if let Some(compaction) = lake.next_compaction(Eagerness::Thorough, &HashSet::new()) {
                    assert!(compaction.files.len() > 1);
                    merged = Some(Rewritten::Compacted(compaction.run().await.unwrap().unwrap()));
                }
            }
            _ => {}
        }
        if step % 5 == 1
            && let Some(compacted) = merged.take()
        {
            // Not while a flush has its table; and a crash before it is committed leaves a file that nobody reads.
            if step % 4 == 0 {
                lake = open(folder.path()).await.unwrap();
                let position = lake.position();
                lake.append(rows(position.get() + 1..=end), Position::new(end), None).unwrap();
            } else {
                lake.append(rows(end + 1..=end + 1), Position::new(end + 1), None).unwrap();
                end += 1;
                let flush = lake.begin_flush().unwrap();
                let Err(compacted) = lake.begin_apply(compacted) else { panic!("a table is away") };
                waiting += 1;
                lake.finish_flush(flush.run().await.unwrap());
                let Ok(apply) = lake.begin_apply(compacted) else { panic!("no table is away") };
                assert!(lake.begin_flush().is_none());
                lake.finish_apply(apply.run().await.unwrap());
                applied += 1;
            }
        }
        for (end, view) in
            earlier.iter().map(|(end, view)| (*end, Arc::clone(view))).chain([(end, Arc::new(lake.view()))])
        {
            let expected = json!([end / 2, end.div_ceil(2), end, end]);
            assert_eq!(seen(&view).await, expected, "step {step}");
        }
        if step % 7 == 0 {
            earlier = Some((end, Arc::new(lake.view())));
        }
    }
    assert!(waiting > 3 && applied > 3, "{waiting} {applied}");
    flush(&mut lake).await;
    while let Some(compaction) = lake.next_compaction(Eagerness::Thorough, &HashSet::new()) {
        let compacted = Rewritten::Compacted(compaction.run().await.unwrap().unwrap());
        let Ok(apply) = lake.begin_apply(compacted) else { panic!("no table is away") };
        lake.finish_apply(apply.run().await.unwrap());
    }
    let lake = open(folder.path()).await.unwrap();
    let view = Arc::new(lake.view());
    assert_eq!(seen(&view).await, json!([end / 2, end.div_ceil(2), end, end]));
    for table in &view.tables {
        let audit = sql.audit(table).await.unwrap();
        assert_eq!(audit.differences, Vec::<String>::new());
        // Each of the two has the months of its parity.
        let months = if ["inventory", "support"].contains(&table.spec.name.as_str()) { 6 } else { 0 };
        assert_eq!(audit.files, months, "{}", table.spec.name);
    }

    // What was merged, and what was written in vain, is deleted when nobody can have it open any more.
    let vacuum = async |keep: Duration, before: &HashSet<String>| {
        let vacuumed = lake.vacuum(keep).run(before).await.unwrap();
        (vacuumed.deleted.values().map(|(files, _)| files).sum::<u64>(), vacuumed.strays)
    };
    assert_eq!(vacuum(KEEP_FOR, &HashSet::new()).await, (0, HashSet::new()));
    let day_ago = std::time::SystemTime::now() - Duration::from_secs(90_000);
    let parts = ["inventory", "support"].map(|table| folder.path().join(table));
    let files = || {
        let partitions = parts.iter().flat_map(|table| std::fs::read_dir(table).unwrap());
        let folders = partitions.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("_delta_log"));
        folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path())
    };
    for file in files() {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(day_ago).unwrap();
    }
    let before = files().count();
    // What no version ever had is only found the first time.
    let (deleted, found) = vacuum(KEEP_FOR, &HashSet::new()).await;
    let orphans = found.len();
    assert!(deleted == 0 && orphans > 0 && files().count() == before, "{orphans} of {before}");
    assert_eq!(vacuum(KEEP_FOR, &found).await, (orphans as u64, HashSet::new()));
    assert_eq!(files().count(), before - orphans);
    // What was merged goes when nobody reads older versions.
    let (merged, _) = vacuum(Duration::ZERO, &HashSet::new()).await;
    assert_eq!((merged > 0, files().count()), (true, before - orphans - usize::try_from(merged).unwrap()));
    assert_eq!(files().count() as u64, lake.files().iter().map(|table| table.files).sum::<u64>());
    assert_eq!(seen(&view).await, json!([end / 2, end.div_ceil(2), end, end]));
}

/// Whoever wants old files deleted now does not take them from under a query.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_somebody_reads_stay_until_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = open(folder.path()).await.unwrap();
    for position in 1..=24 {
        lake.append(rows(position..=position), Position::new(position), None).unwrap();
        flush(&mut lake).await;
    }
    let view = Arc::new(lake.view());
    let before = seen(&view).await;
    while let Some(compaction) = lake.next_compaction(Eagerness::Thorough, &HashSet::new()) {
        let compacted = Rewritten::Compacted(compaction.run().await.unwrap().unwrap());
        let Ok(apply) = lake.begin_apply(compacted) else { panic!("no table is away") };
        lake.finish_apply(apply.run().await.unwrap());
    }
    let deleted = async |lake: &Lake| {
        let vacuumed = lake.vacuum(Duration::ZERO).run(&HashSet::new()).await.unwrap();
        vacuumed.deleted.values().map(|(files, _)| files).sum::<u64>()
    };
    assert_eq!(deleted(&lake).await, 0);
    assert_eq!(seen(&view).await, before);
    // Whoever holds the rows alone reads them as well.
    let rows: Vec<_> = view.tables.iter().map(|table| Arc::clone(&table.committed.rows)).collect();
    drop(view);
    assert_eq!(deleted(&lake).await, 0);
    drop(rows);
    let vacuum = lake.vacuum(Duration::ZERO).run_after_readers(&HashSet::new()).await.unwrap();
    assert_eq!(vacuum.deleted.values().map(|(files, _)| files).sum::<u64>(), 24);
}

/// A policy that ends half of what [`rows`] makes of one event type, and what it ends.
fn half_of_the_tickets() -> (RetentionPolicy, impl Fn(u64) -> bool) {
    let support = Catalogue::embedded().unwrap();
    let class = support.context("support").unwrap().1.event("SupportTicketCreated").unwrap().retention;
    let at = |time: &str| schemas::field_type::parse_timestamp(time).unwrap();
    // A day after the last event came, time stands still.
    let now = chrono::Utc::now().timestamp_micros().min(at("2026-12-02T00:00:00Z"));
    let seconds = (now - at("2026-07-15T00:00:00Z")) / 1_000_000;
    let policy = format!("short=off,medium=off,long=off,{}={seconds}s", class.as_str()).parse().unwrap();
    (policy, |position: u64| position % 2 == 1 && position % 12 < 7)
}

/// Whatever is appended, merged and lost in a crash between two commits meanwhile: what is past its time goes, nothing else
/// does, and every position is an event or noted as gone, once.
#[tokio::test(flavor = "multi_thread")]
async fn events_past_their_time_are_gone_and_stay_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut lake = open(folder.path()).await.unwrap();
    let sql = SqlSession::new(Handle::current(), Vec::new()).unwrap();
    let (policy, is_past) = half_of_the_tickets();
    let (support, _) = lake.catalogue().context("support").unwrap();
    let (mut end, mut broken_off, mut retired, mut seen_retirements) = (0_u64, 0, 0, 0);
    let positions = async |lake: &Lake, query: &str| -> Vec<u64> {
        let none = ParamValues::List(Vec::new());
        let context = sql.context(&Arc::new(lake.view()), Vec::new());
        let rows = sql.collect(context, query, none).await.unwrap();
        let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        rows.iter().flat_map(column).map(|position| u64::try_from(position).unwrap()).collect()
    };
    for step in 0_u64..48 {
        let next = end + 1 + step % 4;
        lake.append(rows(end + 1..=next), Position::new(next), None).unwrap();
        end = next;
        if step % 3 != 0 {
            flush(&mut lake).await;
        }
        if step % 7 == 3
            && let Some(compaction) = lake.next_compaction(Eagerness::Thorough, &HashSet::new())
        {
            let compacted = Rewritten::Compacted(compaction.run().await.unwrap().unwrap());
            let Ok(apply) = lake.begin_apply(compacted) else { panic!("no table is away") };
            lake.finish_apply(apply.run().await.unwrap());
        }
        if step % 4 == 2
            && let Some(taken) = lake.retirement(support, &policy).unwrap().run().await.unwrap()
        {
            let Ok(mut apply) = lake.begin_apply(Rewritten::Retired(taken)) else { panic!("no table is away") };
            if step % 8 == 2 {
                // A crash after they are noted, before they are gone.
                let note = apply.noted.take().unwrap();
                let count = note.rows.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
                let noted = Position::new(note.stored.position.get() + count);
                commit(note, noted, None).await.unwrap();
                lake = open(folder.path()).await.unwrap();
                let flushed = lake.position().get();
                lake.append(rows(flushed + 1..=end), Position::new(end), None).unwrap();
                broken_off += 1;
            } else {
                let before = lake.view().retirements;
                lake.finish_apply(apply.run().await.unwrap());
                assert!(lake.view().retirements > before, "what is gone must be known to be");
                retired += 1;
            }
        }
        let held = positions(&lake, "SELECT position FROM lake.events ORDER BY 1").await;
        let gone = positions(&lake, "SELECT position FROM system.retired ORDER BY 1").await;
        assert!(gone.iter().all(|position| is_past(*position)), "{gone:?}");
        assert!(gone.is_sorted_by(|a, b| a < b), "noted twice: {gone:?}");
        assert!(lake.view().retirements >= gone.len() as u64 && lake.view().retirements >= seen_retirements);
        seen_retirements = lake.view().retirements;
        let all: std::collections::BTreeSet<u64> = held.iter().chain(&gone).copied().collect();
        assert_eq!(all, (1..=end).collect(), "step {step}");
    }
    assert!(broken_off > 2 && retired > 2, "{broken_off} {retired}");
    lake.append(rows(end + 1..=end + 24), Position::new(end + 24), None).unwrap();
    end += 24;
    flush(&mut lake).await;
    let foreseen = lake.forecast(&policy, KEEP_FOR).run().await.unwrap();
    let foreseen = foreseen.iter().find(|table| table.table == "support").unwrap().events_past_their_time;
    let mut taken_out = 0;
    while let Some(taken) = lake.retirement(support, &policy).unwrap().run().await.unwrap() {
        taken_out += taken.rows.num_rows() as u64;
        let Ok(apply) = lake.begin_apply(Rewritten::Retired(taken)) else { panic!("no table is away") };
        lake.finish_apply(apply.run().await.unwrap());
    }
    assert!(taken_out >= 6);
    assert_eq!(foreseen, taken_out);
    lake = open(folder.path()).await.unwrap();
    let expected: Vec<u64> = (1..=end).filter(|position| !is_past(*position)).collect();
    assert_eq!(positions(&lake, "SELECT position FROM lake.events ORDER BY 1").await, expected);
    // An id stays taken.
    let ids = lake.events_after(Position::START).try_concat().await.unwrap();
    let ids: HashSet<u64> = ids.into_iter().map(|(_, position)| position.get()).collect();
    assert_eq!(ids, (1..=end).collect());
    for table in &lake.view().tables {
        assert_eq!(sql.audit(table).await.unwrap().differences, Vec::<String>::new());
    }
    assert!(lake.retirement(support, &RetentionPolicy::OFF).is_none());
}
