//! What the house rules are checked against: the graph of crates as cargo sees it, and the sources as they lie.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde_json::Value;

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A dependency as a graph has it: what on, and whether only tests need it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The crate that is depended on.
    pub on: String,
    /// Only its tests do.
    pub dev: bool,
}

/// The platform that rustc builds for.
fn host() -> io::Result<String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_string).ok_or_else(|| io::Error::other(format!("rustc names no host: {said}")))
}

/// Which crate depends on which.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// By package id.
    edges: BTreeMap<String, BTreeSet<Edge>>,
    names: BTreeMap<String, String>,
    /// Names of the crates of this workspace, with their folders.
    pub members: BTreeMap<String, PathBuf>,
}

impl Graph {
    /// Asks cargo.
    pub fn read() -> io::Result<Self> {
        // Of other platforms cargo has downloaded nothing, and there is no need to: the build is for this one.
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &host()?])
            .arg("--manifest-path")
            .arg(root().join("Cargo.toml"))
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let json: Value = serde_json::from_slice(&output.stdout)?;
        Self::parse(&json).ok_or_else(|| io::Error::other("cargo metadata has another shape"))
    }

    /// From what `cargo metadata` printed.
    fn parse(json: &Value) -> Option<Self> {
        let mut graph = Self::default();
        let members: BTreeSet<&str> = json["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
        for package in json["packages"].as_array()? {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            graph.names.insert(id.into(), name.into());
            if members.contains(id) {
                let folder = Path::new(package["manifest_path"].as_str()?).parent()?;
                graph.members.insert(name.into(), folder.into());
            }
        }
        for node in json["resolve"]["nodes"].as_array()? {
            let edges = graph.edges.entry(node["id"].as_str()?.into()).or_default();
            for dependency in node["deps"].as_array()? {
                let dev = dependency["dep_kinds"].as_array()?.iter().all(|kind| kind["kind"] == "dev");
                edges.insert(Edge { on: dependency["pkg"].as_str()?.into(), dev });
            }
        }
        Some(graph)
    }

    fn ids(&self, name: &str) -> impl Iterator<Item = &String> {
        self.names.iter().filter(move |(_, other)| *other == name).map(|(id, _)| id)
    }

    /// Names of what `name` depends on directly, tests included.
    pub fn direct(&self, name: &str) -> BTreeSet<&str> {
        let edges = self.ids(name).filter_map(|id| self.edges.get(id)).flatten();
        edges.filter_map(|edge| self.names.get(&edge.on)).map(String::as_str).collect()
    }

    /// Names of everything that `name` is built from, tests left out.
    pub fn tree(&self, name: &str) -> BTreeSet<&str> {
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        let mut open: Vec<&String> = self.ids(name).collect();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.edges.get(id).into_iter().flatten().filter(|edge| !edge.dev).map(|edge| &edge.on));
            }
        }
        seen.into_iter().filter_map(|id| self.names.get(id)).map(String::as_str).collect()
    }
}

/// A source file: its path in the checkout, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// With `/` between folders.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// Its lines without comments, numbered from 1. Quotes are not understood: a rule must not depend on them.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Whether it is a test and nothing else.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

/// All Rust sources of the checkout but those of this crate, which names what it forbids.
pub fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    let walk = walkdir::WalkDir::new(root()).sort_by_file_name().into_iter();
    let walk = walk.filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        !(entry.file_type().is_dir() && (name == "target" || name == "tidy" || name == ".git"))
    });
    for entry in walk.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Ok(text) = fs::read_to_string(path)
        {
            let short = path.strip_prefix(root()).unwrap_or(path);
            let path = short.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
            all.push(Source { path, text });
        }
    }
    all
}

/// Lines of code in which one of `words` stands, as `path:line: word`.
pub fn mentions(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (at, line) in source.code() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{at}: {word}", source.path));
            }
        }
    }
    found
}

/// The names under `[workspace.dependencies]` that come from elsewhere.
pub fn workspace_dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    let names = lines.filter(|line| !line.contains("path = ")).filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_not_code() {
        let source = Source { path: "core/src/a.rs".into(), text: "// HashMap\nlet a = 1; // HashMap\nHashMap".into() };
        assert_eq!(mentions(&[source], &["HashMap"]), ["core/src/a.rs:3: HashMap"]);
    }

    #[test]
    fn dependencies_are_read() {
        let manifest =
            "[workspace.dependencies]\nours = { path = \"x\" }\n\na = \"1\"\nb-c = { version = \"2\" }\n[x]\nd = 1";
        assert_eq!(workspace_dependencies(manifest), ["a", "b-c"]);
    }

    #[test]
    fn a_tree_leaves_tests_out_and_direct_does_not() {
        let json = serde_json::json!({
            "workspace_members": ["a 1"],
            "packages": [
                {"id": "a 1", "name": "a", "manifest_path": "/x/a/Cargo.toml"},
                {"id": "b 1", "name": "b", "manifest_path": "/y/b/Cargo.toml"},
                {"id": "c 1", "name": "c", "manifest_path": "/y/c/Cargo.toml"},
                {"id": "d 1", "name": "d", "manifest_path": "/y/d/Cargo.toml"},
            ],
            "resolve": {"nodes": [
                {"id": "a 1", "deps": [
                    {"pkg": "b 1", "dep_kinds": [{"kind": null}]},
                    {"pkg": "c 1", "dep_kinds": [{"kind": "dev"}]},
                ]},
                {"id": "b 1", "deps": [{"pkg": "d 1", "dep_kinds": [{"kind": "build"}, {"kind": "dev"}]}]},
            ]},
        });
        let graph = Graph::parse(&json).unwrap();
        assert_eq!(graph.direct("a"), BTreeSet::from(["b", "c"]));
        assert_eq!(graph.tree("a"), BTreeSet::from(["a", "b", "d"]));
        assert_eq!(graph.members.len(), 1);
    }
}
