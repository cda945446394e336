//! Encode equals, decode equals, nothing is forgotten, and every format has a page.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use hypernet_core::seal::ExtentRef;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn root() -> PathBuf {
    here().join("../..")
}

fn golden_file(name: &str) -> PathBuf {
    here().join("golden").join(name).with_extension("hex")
}

fn read(path: &Path) -> Vec<u8> {
    let text: String = fs::read_to_string(path).unwrap().split_whitespace().collect();
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// Writes the file of a golden that is new. One that stands is never written again: it is what others have stored.
fn write_new(path: &Path, bytes: &[u8]) {
    let hex = HEXLOWER.encode(bytes);
    let lines: Vec<&str> = (0..hex.len()).step_by(96).map(|i| &hex[i..hex.len().min(i + 96)]).collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn every_golden_is_written_and_read_as_ever() {
    let mut wrong = vec![];
    for (name, golden) in hypernet_format::all() {
        let path = golden_file(name);
        assert!(!golden.bytes.is_empty(), "{name} could not be made");
        if !path.exists() && std::env::var_os("GOLDEN_NEW").is_some() {
            write_new(&path, &golden.bytes);
        }
        if !path.exists() {
            wrong.push(format!("{name}: has no golden file; GOLDEN_NEW=1 writes the missing ones"));
            continue;
        }
        let bytes = read(&path);
        if bytes != golden.bytes {
            wrong.push(format!("{name}: encodes as\n{}", HEXLOWER.encode(&golden.bytes)));
        }
        if let Err(error) = (golden.check)(&bytes) {
            wrong.push(format!("{name}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_check_notices_a_changed_byte() {
    for (name, golden) in hypernet_format::all() {
        for at in 0..golden.bytes.len() {
            let mut bent = golden.bytes.clone();
            bent[at] ^= 1;
            assert!((golden.check)(&bent).is_err(), "{name}: byte {at} makes no difference");
        }
    }
}

#[test]
fn no_golden_file_is_without_its_value() {
    let known: BTreeSet<PathBuf> = hypernet_format::all().keys().map(|name| golden_file(name)).collect();
    for entry in fs::read_dir(here().join("golden")).unwrap() {
        let path = entry.unwrap().path();
        assert!(known.contains(&path) || path.ends_with("sealed-zstd.hex"), "{} checks nothing", path.display());
    }
}

/// What was compressed by another release of zstd: it need not come out equal, but must open for ever.
#[test]
fn what_was_compressed_opens_for_ever() {
    let path = golden_file("sealed-zstd");
    let plain = [b"hypernet ".repeat(40), vec![0; 500]].concat();
    if !path.exists() && std::env::var_os("GOLDEN_NEW").is_some() {
        let keys = hypernet_format::values::volume_keys();
        let sealed = hypernet_core::seal::Sealer::new(&keys).seal(hypernet_core::seal::Kind::Content, &plain).unwrap();
        write_new(&path, &[minicbor::to_vec(&sealed.reference).unwrap(), sealed.bytes.to_vec()].concat());
    }
    let bytes = read(&path);
    let mut decoder = minicbor::Decoder::new(&bytes);
    let reference: ExtentRef = decoder.decode().unwrap();
    assert_eq!(reference.compression, hypernet_core::seal::Compression::Zstd);
    assert_eq!(reference.open(&bytes[decoder.position()..]).unwrap(), plain);
}

/// Tags that stand in the sources of a crate outside its tests: (tag, file).
fn tags(folder: &str) -> Vec<(u8, String)> {
    let mut found = vec![];
    for entry in walkdir::WalkDir::new(root().join(folder).join("src")).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.path().extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for start in ["tag = 0x", "const TAG: u8 = 0x"] {
            for (at, _) in code.match_indices(start) {
                let hex = &code[at + start.len()..at + start.len() + 2];
                found.push((u8::from_str_radix(hex, 16).unwrap(), entry.path().display().to_string()));
            }
        }
    }
    found
}

#[test]
fn every_format_of_core_has_a_golden_and_no_two_share_a_tag() {
    let core = tags("core");
    assert!(core.len() >= 12, "the search finds only {core:?}");
    let goldens: BTreeSet<u8> = hypernet_format::all().values().filter_map(|golden| golden.tag).collect();
    for (tag, file) in &core {
        assert!(goldens.contains(tag), "tag {tag:#04x} in {file} has no golden");
    }
    let mut by_tag: BTreeMap<u8, String> = BTreeMap::new();
    let others = ["store", "mesh", "fs", "sdk", "agent", "cli"].into_iter().flat_map(tags);
    for (tag, file) in core.into_iter().chain(others) {
        if let Some(other) = by_tag.insert(tag, file.clone()) {
            panic!("{file} and {other} share tag {tag:#04x}");
        }
    }
}

#[test]
fn every_format_has_a_page() {
    let page = fs::read_to_string(root().join("docs/formats.md")).unwrap();
    let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
    for golden in hypernet_format::all().values() {
        let found = headings.iter().any(|heading| {
            let tag = golden.tag.is_none_or(|tag| heading.contains(&format!("(0x{tag:02x})")));
            tag && heading[3..].to_lowercase().starts_with(golden.format)
        });
        assert!(found, "docs/formats.md has no heading for {} {:?}", golden.format, golden.tag);
    }
    for (tag, file) in ["core", "store", "mesh", "fs", "sdk", "agent", "cli"].into_iter().flat_map(tags) {
        let tag = format!("(0x{tag:02x})");
        assert!(
            headings.iter().any(|heading| heading.contains(&tag)),
            "docs/formats.md has no page for {tag} of {file}"
        );
    }
}
