//! The house keeps its floors: a crate uses only those below it, and each engine has one crate that names it.

use std::{collections::HashMap, process::Command};

use serde_json::Value;

/// Every crate with its floor.
const FLOORS: [(&str, u8); 10] = [
    ("schemas", 1),
    ("ingest", 2),
    ("lake", 2),
    ("search-index", 2),
    ("datasets", 2),
    ("processors", 3),
    ("query-api", 4),
    ("forecourt", 5),
    ("bench", 6),
    ("power-cuts", 6),
];

/// Engines and the one crate that names each, beside those that only measure and test.
const NAMED_BY: [(&str, &str); 9] = [
    ("async-nats", "ingest"),
    ("lsm-tree", "ingest"),
    ("deltalake", "lake"),
    ("tantivy", "search-index"),
    ("datafusion-pg-catalog", "lake"),
    ("axum", "query-api"),
    ("pgwire", "query-api"),
    ("arrow-flight", "query-api"),
    ("clap", "forecourt"),
];

#[test]
fn crates_use_only_lower_floors_and_each_engine_has_one_owner() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let floors: HashMap<&str, u8> = FLOORS.into_iter().collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), FLOORS.len(), "a crate without a floor");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let floor = floors[name];
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            if let Some(below) = floors.get(used) {
                // Tests of a crate may use one beside it: it is in no build.
                let highest = if dependency["kind"] == "dev" { floor } else { floor - 1 };
                assert!(*below <= highest, "{name} (floor {floor}) uses {used} (floor {below})");
            }
            if let Some((engine, owner)) = NAMED_BY.iter().find(|(engine, _)| *engine == used) {
                assert!(name == *owner || floor > 5, "{name} names {engine}, which is {owner}'s");
            }
        }
    }
}

/// The body of an `async fn` is compiled where it is polled: without a box at a crate's border the planner would be compiled
/// in every crate above the lake.
#[test]
fn the_planner_is_compiled_in_the_lake_alone() {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let newest = |library: &str| {
        let files = std::fs::read_dir(&folder).unwrap().flatten().map(|file| file.path());
        let is_it = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&format!("lib{library}-")) && name.ends_with(".rlib")
        };
        files.filter(is_it).max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
    };
    let planner = b"SqlToRel";
    let has_planner = |library: &str| {
        let bytes = std::fs::read(newest(library)).unwrap();
        // Compiled code is what names it as a symbol; that it is called elsewhere is one too.
        bytes.windows(planner.len()).any(|window| window == planner)
    };
    assert!(has_planner("lake"), "the planner is looked for by another name");
    for library in ["processors", "query_api"] {
        assert!(!has_planner(library), "{library} has a part of the planner: box the future that crosses its border");
    }
}
