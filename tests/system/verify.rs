//! `forecourt verify` on a system that is right, and on one in which something was spoiled.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch, StringArray},
    datatypes::Int64Type,
};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use search_index::{Entry, ListingIndex, ListingSnapshot, Reflected};
use serde_json::{Value, json};

use crate::support::{Forecourt, Nats, counted, forecourt};

/// What verify prints of a folder, and whether it holds.
fn verify(data: &Path) -> (bool, String) {
    let output = forecourt(&["verify", "--data", data.to_str().unwrap()]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The actions of a table's last commit that added a file, and the number of the next commit.
fn last_commit(table: &Path) -> (Vec<Value>, usize) {
    let log = table.join("_delta_log");
    let mut commits: Vec<_> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    commits.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    commits.sort();
    let actions = |path: &Path| -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let adds = |actions: &Vec<Value>| actions.iter().any(|action| action.get("add").is_some());
    (commits.iter().rev().map(|path| actions(path)).find(adds).unwrap(), commits.len())
}

fn commit(table: &Path, number: usize, actions: &[Value]) {
    let lines: String = actions.iter().map(|action| format!("{action}\n")).collect();
    fs::write(table.join(format!("_delta_log/{number:020}.json")), lines).unwrap();
}

#[tokio::test]
async fn verify_proves_a_system_right_and_finds_what_was_spoiled() {
    let folder = tempfile::tempdir().unwrap();
    let (file, truth, data) =
        (folder.path().join("market.ndjson"), folder.path().join("truth.json"), folder.path().join("data"));
    let (file, truth) = (file.to_str().unwrap(), truth.to_str().unwrap());
    let arguments = ["--seed", "9", "--days", "40", "--vehicles", "40", "--disorder", "--truth", truth, "-o", file];
    assert!(forecourt(&[&["simulate"], &arguments[..]].concat()).status.success());
    let nats = Nats::start().await;
    let mut server = Forecourt::start(&nats, &data).await;
    let sent = String::from_utf8(forecourt(&["ingest", file, "--to", &server.url]).stdout).unwrap();
    let told: Value = serde_json::from_slice(&fs::read(truth).unwrap()).unwrap();
    assert_eq!(
        (counted(&sent, "accepted"), counted(&sent, "duplicates")),
        (told["events"].as_u64().unwrap(), told["duplicates"].as_u64().unwrap())
    );
    let mut malformed: BTreeMap<&str, u64> = BTreeMap::new();
    for line in told["malformed"].as_array().unwrap() {
        *malformed.entry(line["code"].as_str().unwrap()).or_default() += 1;
    }
    assert!(malformed.len() > 1, "{malformed:?}");
    for (code, count) in malformed {
        assert_eq!(counted(&sent, &format!("rejected: {code}")), count, "{sent}");
    }

    let proof = forecourt(&["verify", "--to", &server.url, "--truth", truth]);
    let said = String::from_utf8(proof.stdout).unwrap();
    assert!(proof.status.success(), "{said}");
    let derived = ["tables", "positions", "event ids", "log", "seen events", "listings", "kpis"];
    for check in derived.into_iter().chain(["truth: events", "truth: listings", "truth: kpis"]) {
        assert!(counted(&said, check) > 0, "{check}: {said}");
    }
    // A sale that did not happen.
    let listings = told["listings"].as_object().unwrap();
    let (unsold, _) = listings.iter().find(|(_, listing)| listing["status"] == "public").unwrap();
    let event = json!({
        "eventId": "more", "eventType": "inventory.VehicleSold", "timestamp": "2026-02-09T12:00:00Z",
        "data": {"listingId": unsold, "soldAt": "2026-02-09T12:00:00Z", "finalPrice": 9}
    });
    let position = server.publish(event.to_string()).await.1["position"].to_string();
    let disproof = forecourt(&["verify", "--to", &server.url, "--truth", truth, "--min-position", &position]);
    let said = String::from_utf8(disproof.stdout).unwrap();
    assert_eq!(disproof.status.code(), Some(1));
    let sold = format!("whether {unsold} was sold is true and happened as false");
    for difference in ["the number of VehicleSold is ", &sold, " on 2026-02-09 is "] {
        assert!(said.contains(difference), "{difference}: {said}");
    }
    server.reflects(position.parse().unwrap()).await;
    server.stop();

    let (holds, said) = verify(&data);
    assert!(holds, "{said}");
    let spoiled = |name: &str, spoil: &dyn Fn(&Path)| {
        let copy = folder.path().join(name);
        copied(&data, &copy);
        spoil(&copy);
        let (holds, said) = verify(&copy);
        assert!(!holds, "{name}: {said}");
        said
    };
    let said = spoiled("a file gone", &|data| {
        let table = data.join("lake/inventory");
        let (actions, _) = last_commit(&table);
        let path = actions.iter().find_map(|action| action["add"]["path"].as_str()).unwrap();
        fs::remove_file(table.join(path)).unwrap();
    });
    assert!(said.contains("inventory/partition_date") && said.contains("not found"), "{said}");

    let said = spoiled("rows twice", &|data| {
        let table = data.join("lake/support");
        let (mut actions, next) = last_commit(&table);
        actions.retain(|action| action.get("add").is_some());
        for action in &mut actions {
            let path = action["add"]["path"].as_str().unwrap().to_owned();
            let again = path.replace(".parquet", "-again.parquet");
            fs::copy(table.join(&path), table.join(&again)).unwrap();
            action["add"]["path"] = again.into();
        }
        commit(&table, next, &actions);
    });
    assert!(said.contains("is accounted for twice") && said.contains("is at positions"), "{said}");

    let said = spoiled("rows gone", &|data| {
        let table = data.join("lake/shop");
        let (actions, next) = last_commit(&table);
        let removes: Vec<Value> = actions.iter().filter_map(|action| action.get("add")).map(removal).collect();
        commit(&table, next, &removes);
    });
    assert!(said.contains(" is nowhere") || said.contains(" are nowhere"), "{said}");

    let said = spoiled("another price", &|data| {
        let mut index = ListingIndex::open(&data.join("index")).unwrap();
        let kept = index.snapshot();
        let keys = kept.keys().unwrap();
        let key = keys.iter().find(|key| key.starts_with("listing/")).unwrap();
        let mut listing = kept.listing(key.strip_prefix("listing/").unwrap()).unwrap().unwrap();
        listing.price_cents = Some(1);
        let state = kept.state(key).unwrap().unwrap();
        index.put(&Entry { key, state: &state, listing: Some(&listing) }, schemas::Position::START).unwrap();
        index.commit(reflected(&kept)).unwrap();
    });
    assert!(said.contains("listing/lst-") && said.contains("folds to"), "{said}");

    let said = spoiled("an entity too many", &|data| {
        let mut index = ListingIndex::open(&data.join("index")).unwrap();
        let kept = index.snapshot();
        index.put(&Entry { key: "vehicle/nobodys", state: b"{}", listing: None }, schemas::Position::START).unwrap();
        index.commit(reflected(&kept)).unwrap();
    });
    assert!(said.contains("vehicle/nobodys is in the index and no event is about it"), "{said}");

    let said = spoiled("statistics that lie", &|data| {
        let table = data.join("lake/support");
        let (mut actions, next) = last_commit(&table);
        actions.retain(|action| action.get("add").is_some());
        let mut says: Value = serde_json::from_str(actions[0]["add"]["stats"].as_str().unwrap()).unwrap();
        says["maxValues"]["position"] = 1.into();
        says["nullCount"]["event_type"] = 5.into();
        actions[0]["add"]["stats"] = says.to_string().into();
        commit(&table, next, &actions);
    });
    assert!(said.contains("position is between") && said.contains("event_type is null 0 times"), "{said}");

    let said = spoiled("no store of ids", &|data| {
        let seen = data.join("seen");
        let files = fs::read_dir(&seen).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|path| path.is_file()) {
            fs::write(file, "spoiled").unwrap();
        }
    });
    assert!(said.contains("cannot open the store of seen events"), "{said}");

    // An event in the lake that is not the one in the log.
    let table = data.join("lake/support");
    let (mut actions, next) = last_commit(&table);
    actions.retain(|action| action.get("add").is_some());
    let path = actions[0]["add"]["path"].as_str().unwrap().to_owned();
    let position = spoil_first_event(&table.join(&path), &table.join(format!("{path}-spoiled.parquet")));
    actions.truncate(1);
    actions.push(removal(&actions[0]["add"]));
    actions[0]["add"]["path"] = format!("{path}-spoiled.parquet").into();
    actions[0]["add"]["size"] = fs::metadata(table.join(format!("{path}-spoiled.parquet"))).unwrap().len().into();
    commit(&table, next, &actions);
    let mut server = Forecourt::start(&nats, &data).await;
    let disproof = forecourt(&["verify", "--to", &server.url]);
    let said = String::from_utf8(disproof.stdout).unwrap();
    assert!(said.contains(&format!("position {position} is another event in the lake")), "{said}");
    assert!(said.contains("and known to be at nowhere"), "{said}");
    server.stop();
}

fn removal(add: &Value) -> Value {
    json!({"remove": {
        "path": add["path"], "deletionTimestamp": 1, "dataChange": true, "extendedFileMetadata": true,
        "partitionValues": add["partitionValues"], "size": add["size"]
    }})
}

/// Copy a data file with another id for its first event, whose position it is.
fn spoil_first_event(from: &Path, to: &Path) -> i64 {
    let rows = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(from).unwrap()).unwrap();
    let rows = rows.with_batch_size(1 << 20).build().unwrap().next().unwrap().unwrap();
    let ids = rows.column_by_name("event_id").unwrap().as_string::<i32>();
    let spoiled: StringArray =
        ids.iter().enumerate().map(|(row, id)| if row == 0 { Some("spoiled") } else { id }).collect();
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of("event_id").unwrap()] = Arc::new(spoiled);
    let spoiled = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(to).unwrap(), spoiled.schema(), None).unwrap();
    writer.write(&spoiled).unwrap();
    writer.close().unwrap();
    rows.column_by_name("position").unwrap().as_primitive::<Int64Type>().value(0)
}

/// What an index reflects, to be said of another commit.
fn reflected(kept: &ListingSnapshot) -> Reflected {
    let ListingSnapshot { position, event_time, retirements, .. } = *kept;
    Reflected { position, event_time, retirements }
}
