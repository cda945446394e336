//! The rules of the house. A failure names the file and the rule; the reasons are in `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used)]

use std::fs;

use hypernet_tidy::{Graph, Source, mentions, root, sources, workspace_dependencies};

/// Crates that meet only through the ports of core.
const SIBLINGS: [&str; 5] = ["hypernet-store", "hypernet-mesh", "hypernet-fs", "hypernet-sdk", "hypernet-compute"];

fn none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

fn code_outside_tests() -> Vec<Source> {
    let all = sources();
    assert!(all.len() > 60, "only {} sources were found", all.len());
    all.into_iter().filter(|source| !source.is_test()).collect()
}

#[test]
fn core_is_pure() {
    let graph = Graph::read().unwrap();
    let tree = graph.tree("hypernet-core");
    assert!(tree.contains("blake3"), "the graph is empty: {tree:?}");
    for heavy in ["tokio", "mio", "libp2p", "libp2p-core", "rusqlite", "libsqlite3-sys", "fuser", "wasmtime", "rand"] {
        assert!(!tree.contains(heavy), "core depends on {heavy}");
    }
    assert!(graph.direct("hypernet-core").iter().all(|name| !name.starts_with("hypernet-")));
    let core: Vec<Source> = sources().into_iter().filter(|source| source.path.starts_with("core/src/")).collect();
    assert!(core.len() > 20);
    let words = [
        "HashMap",
        "HashSet",
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::thread",
        "std::time",
        "std::env",
    ];
    none(mentions(&core, &words), "core depends on nothing but its arguments");
    let root = core.iter().find(|source| source.path == "core/src/lib.rs").unwrap();
    assert!(root.text.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn siblings_never_meet() {
    let graph = Graph::read().unwrap();
    let there: Vec<&str> = SIBLINGS.into_iter().filter(|name| graph.members.contains_key(*name)).collect();
    assert!(there.len() >= 4, "the workspace has only {:?}", graph.members);
    for one in &there {
        for other in graph.direct(one) {
            assert!(!SIBLINGS.contains(&other), "{one} depends on {other}; they meet in core::port");
            assert!(
                !["hypernet-agent", "hypernet-cli"].contains(&other),
                "{one} depends on {other}, which is above it"
            );
        }
    }
}

#[test]
fn the_command_line_is_light() {
    let graph = Graph::read().unwrap();
    let tree = graph.tree("hypernet-cli");
    assert!(tree.contains("clap"), "the graph is empty: {tree:?}");
    for heavy in
        ["rusqlite", "libsqlite3-sys", "fuser", "wasmtime", "hypernet-agent", "hypernet-mesh", "hypernet-store"]
    {
        assert!(!tree.contains(heavy), "hn is built from {heavy}");
    }
    assert!(tree.iter().all(|name| !name.starts_with("libp2p")), "hn is built from libp2p");
}

#[test]
fn only_the_agent_knows_all_the_others() {
    let graph = Graph::read().unwrap();
    for member in graph.members.keys().filter(|name| *name != "hypernet-agent") {
        let tests = graph.members[member].components().any(|part| part.as_os_str() == "tests");
        let below = graph.direct(member).into_iter().filter(|name| SIBLINGS.contains(name)).count();
        assert!(tests || below <= 1, "{member} knows {below} crates that only the agent may wire together");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!"];
    none(mentions(&sources(), &words), "finished or not begun");
    let mut found = vec![];
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            if ["FIXME", "TODO", "XXX:"].iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    none(found, "what is to be done is an issue, not a comment");
}

#[test]
fn every_channel_is_bounded() {
    let words = ["unbounded_channel", "channel::unbounded", "mpsc::unbounded", "unbounded()", "mpsc::channel()"];
    none(mentions(&code_outside_tests(), &words), "an unbounded queue turns a flood into a lack of memory");
}

#[test]
fn files_have_a_place_and_a_size() {
    let all = sources();
    let found = all.iter().filter(|source| source.path.ends_with("/mod.rs")).map(|source| source.path.clone());
    none(found.collect(), "foo.rs + foo/, not mod.rs");
    let vague =
        |part: &str| ["common", "utils", "util", "types", "helpers", "misc"].contains(&part.trim_end_matches(".rs"));
    let found = all.iter().filter(|source| source.path.split('/').any(vague)).map(|source| source.path.clone());
    none(found.collect(), "a name that says nothing collects everything");
    let long = all.iter().filter(|source| !source.is_test() && source.text.lines().count() > 800);
    none(long.map(|source| source.path.clone()).collect(), "more than 800 lines are several things");
}

#[test]
fn every_crate_is_under_the_lints() {
    for (name, folder) in Graph::read().unwrap().members {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} has lints of its own");
    }
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let names = workspace_dependencies(&manifest);
    assert!(names.len() > 30, "only {names:?} were found");
    let row = |name: &str| {
        page.lines().any(|line| line.starts_with(&format!("| `{name}` |")) && line.len() > name.len() + 20)
    };
    let missing = names.into_iter().filter(|name| !row(name)).collect();
    none(missing, "ARCHITECTURE.md says why each dependency is there");
}

#[test]
fn printing_is_left_to_programs() {
    let library = code_outside_tests();
    let library: Vec<Source> = library
        .into_iter()
        .filter(|source| {
            ["core/src/", "store/src/", "mesh/src/", "fs/src/", "sdk/src/"]
                .iter()
                .any(|folder| source.path.starts_with(folder))
        })
        .collect();
    none(mentions(&library, &["println!", "eprintln!", "dbg!"]), "a library does not print");
}

/// A promise that nobody tries to break is none.
#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let page = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let table = page.split("## The tests that try").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let names: Vec<&str> =
        rows.iter().flat_map(|row| row.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2)).collect();
    assert!(rows.len() > 15 && names.len() > rows.len(), "{rows:?}");
    let all = sources();
    let is_test = |name: &&str| {
        all.iter().any(|source| {
            let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
            let head = [format!("fn {name}("), format!("async fn {name}(")];
            let begins = |at: usize| head.iter().any(|head| lines[at].starts_with(head));
            (1..lines.len()).any(|at| begins(at) && lines[at - 1].starts_with("#[") && lines[at - 1].contains("test"))
        })
    };
    none(names.iter().filter(|name| !is_test(name)).map(ToString::to_string).collect(), "tests that nobody wrote");
}
