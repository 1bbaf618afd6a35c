//! The structure of the code: modules of a crate form no circles, and files stay short.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The crates whose modules are checked, each by its folder.
const CRATES: [&str; 10] =
    [".", "bench", "datasets", "ingest", "lake", "power-cuts", "processors", "query-api", "schemas", "search-index"];
const MAX_FILE_LINES: usize = 600;

/// A module's path in its crate; empty for the root.
type ModulePath = Vec<String>;

/// The modules of a crate with their source, without unit tests.
fn modules(source: &Path) -> BTreeMap<ModulePath, String> {
    let mut modules = BTreeMap::new();
    for file in rust_files(source) {
        let relative = file.strip_prefix(source).unwrap().with_extension("");
        let mut path: ModulePath = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if path.last().is_some_and(|name| name == "tests") {
            continue;
        }
        if ["lib", "main"].contains(&path.last().unwrap().as_str()) {
            path.pop();
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        modules.insert(path, lines.collect::<Vec<_>>().join("\n"));
    }
    modules
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The paths of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<ModulePath> {
    let Some(brace) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|name| name.trim().to_owned()).filter(|name| name != "self").collect()];
    };
    let prefix: ModulePath =
        tree[..brace].split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let inner = &tree[brace + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start, mut branches) = (0, 0, Vec::new());
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&inner[start..]);
    let branches = branches.into_iter().map(str::trim).filter(|branch| !branch.is_empty());
    branches.flat_map(expand).map(|path| [prefix.clone(), path].concat()).collect()
}

/// Every path that a module names: of its `use` declarations, and those in its code that begin with `crate` or `super`.
fn named_paths(text: &str) -> Vec<ModulePath> {
    let (mut paths, mut rest, mut declaration) = (Vec::new(), String::new(), None::<String>);
    for line in text.lines() {
        let code = line.trim_start();
        let starts = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "].into_iter();
        if let Some(tree) = starts.filter_map(|start| code.strip_prefix(start)).next() {
            declaration = Some(tree.to_owned());
        } else if let Some(declaration) = &mut declaration {
            declaration.push_str(code);
        } else {
            rest.push_str(line);
            rest.push('\n');
        }
        if let Some((tree, _)) = declaration.as_deref().and_then(|tree| tree.split_once(';')) {
            paths.extend(expand(tree));
            declaration = None;
        }
    }
    let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    for word in rest.split(|letter| !is_of_path(letter)) {
        let path: ModulePath = word.split("::").map(str::to_owned).collect();
        if path.len() > 1 {
            paths.push(path);
        }
    }
    paths
}

/// The modules that a module imports from.
fn imports(module: &ModulePath, text: &str, modules: &BTreeMap<ModulePath, String>) -> BTreeSet<ModulePath> {
    let absolute = |path: &ModulePath| -> Option<ModulePath> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()),
            child => modules
                .contains_key(&[module.as_slice(), &[child.to_owned()]].concat())
                .then(|| [module.as_slice(), path].concat()),
        }
    };
    let module_of = |path: ModulePath| {
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|path| modules.contains_key(path))
    };
    // What the root exports again is looked for where it is from.
    let found = named_paths(text).iter().filter_map(absolute).filter_map(module_of).collect::<BTreeSet<_>>();
    found.into_iter().filter(|found| found != module && !found.is_empty()).collect()
}

/// A circle of modules, if there is one: each imports the next, and the last the first.
fn circle(edges: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> Option<Vec<ModulePath>> {
    let mut left = edges.clone();
    // Whoever imports from nobody that is left is in no circle.
    loop {
        let leaves: Vec<ModulePath> = left
            .iter()
            .filter(|(_, imported)| !imported.iter().any(|module| left.contains_key(module)))
            .map(|(module, _)| module.clone())
            .collect();
        if leaves.is_empty() {
            break;
        }
        leaves.iter().for_each(|leaf| drop(left.remove(leaf)));
    }
    let mut path = vec![left.keys().next()?.clone()];
    loop {
        let next = left[path.last()?].iter().find(|module| left.contains_key(*module))?.clone();
        if let Some(first) = path.iter().position(|module| *module == next) {
            return Some(path.split_off(first));
        }
        path.push(next);
    }
}

fn edges(modules: &BTreeMap<ModulePath, String>) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let of_each = modules.iter().map(|(module, text)| (module.clone(), imports(module, text, modules)));
    of_each.filter(|(module, _)| !module.is_empty()).collect()
}

#[test]
fn modules_of_a_crate_form_no_circles() {
    let mut found = Vec::new();
    for name in CRATES {
        let modules = modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("src"));
        if let Some(circle) = circle(&edges(&modules)) {
            let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
            found.push(format!("{name}: {}", names.join(" -> ")));
        }
    }
    assert!(found.is_empty(), "modules that import each other: {found:#?}");
}

#[test]
fn a_circle_is_found() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<ModulePath>();
    let sources = [
        ("a", "use crate::{b::{self, One}, c};"),
        ("b", "fn two() -> crate::c::Two { super::d::three() }"),
        ("c", "use super::d;"),
        ("d", "use std::io;"),
    ];
    let mut modules: BTreeMap<_, _> = sources.into_iter().map(|(path, text)| (module(path), text.to_owned())).collect();
    assert_eq!(imports(&module("b"), &modules[&module("b")], &modules), BTreeSet::from([module("c"), module("d")]));
    assert_eq!(circle(&edges(&modules)), None);
    modules.insert(module("d"), "use crate::b::Four;".to_owned());
    assert_eq!(circle(&edges(&modules)).map(|circle| circle.len()), Some(3));
    // A child that imports from its parent, and the parent from it.
    let family =
        BTreeMap::from([(module("p"), "use q::One;".to_owned()), (module("p::q"), "use super::Two;".to_owned())]);
    assert_eq!(circle(&edges(&family)).map(|circle| circle.len()), Some(2));
}

#[test]
fn files_stay_short() {
    let mut found = Vec::new();
    for name in CRATES {
        for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            let lines = text.lines().count();
            if lines > MAX_FILE_LINES {
                found.push(format!("{}: {lines} lines", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "too long: {found:#?}");
}
