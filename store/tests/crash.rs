//! A process that puts shards is killed at any moment: everything it said was kept is there and reads back.
//!
//! The child is this very test binary, run again with [`ROUND`] set.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use crossbeam_channel::bounded;
use hypernet_core::id::{FileId, RecordKey, ShardId};
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp, MetaStore, StoreFault, StoreOp, StoreReply};
use hypernet_core::quota::{Depositor, Quota};
use hypernet_core::time::{Timespec, UnixSeconds};
use hypernet_core::tree::FileKind;
use hypernet_store::shards::ShardStore;
use hypernet_store::worktree::WorkTree;

const DIR: &str = "HN_TEST_STORE_DIR";
const ROUND: &str = "HN_TEST_STORE_ROUND";
const ROUNDS: u64 = 8;
const QUOTA: u64 = 1 << 30;
/// Puts under way at once, so that a kill hits batches of several.
const UNDER_WAY: usize = 12;
/// More than any round gets to.
const SHARDS: u64 = 100_000;

/// The same in parent and child: a hash is all the randomness that is needed.
fn random(words: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for word in words {
        hasher.update(&word.to_be_bytes());
    }
    u64::from_be_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap())
}

fn body(round: u64, i: u64) -> Bytes {
    let mut bytes = vec![0; 1 + (random(&[round, i]) % 120_000) as usize];
    blake3::Hasher::new().update(&round.to_be_bytes()).update(&i.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn id(body: &[u8]) -> ShardId {
    ShardId(*blake3::hash(body).as_bytes())
}

fn lease() -> Lease {
    Lease { key: LeaseKey([1; 32]), expires: UnixSeconds(1) }
}

/// Runs `test` of this binary as a child; it is killed and reaped whatever becomes of the parent's checks.
struct Killed(Child);

impl Killed {
    fn start(test: &str, dir: &Path, round: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The lines after which it is killed, and those it got out before it died.
    fn kill_after(mut self, lines: u64) -> Vec<String> {
        let mut out = BufReader::new(self.0.stdout.take().unwrap());
        let mut seen = Vec::new();
        let mut line = String::new();
        let mut left = lines;
        while out.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n')
                && let Some(word) = line.trim().strip_prefix("ack ")
            {
                seen.push(word.to_string());
                left = left.saturating_sub(1);
                if left == 0 {
                    self.0.kill().unwrap();
                }
            }
            line.clear();
        }
        assert_eq!(self.0.wait().unwrap().signal(), Some(9), "the child ended before it was killed");
        assert!(seen.len() as u64 >= lines);
        seen
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn acknowledge(word: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {word}").unwrap();
    out.flush().unwrap();
}

fn inherited() -> Option<(std::path::PathBuf, u64)> {
    let dir = std::env::var_os(DIR)?;
    Some((dir.into(), std::env::var(ROUND).ok()?.parse().unwrap()))
}

#[test]
#[ignore = "the child of killed_while_putting"]
fn child_puts() {
    let Some((dir, round)) = inherited() else { return };
    let store = ShardStore::open(&dir, Quota::for_all(QUOTA)).unwrap();
    let (slots, taken) = bounded(UNDER_WAY);
    for i in 0..SHARDS {
        slots.send(()).unwrap();
        let (body, taken) = (body(round, i), taken.clone());
        let (op, word) = match i % 7 {
            // What the previous put of this round left is given up, so that holes and puts meet.
            6 => {
                let shard = id(&self::body(round, i - 6));
                (StoreOp::Release { leases: vec![(shard, LeaseKey([1; 32]))] }, format!("released {}", i - 6))
            }
            5 => (StoreOp::PutRecord { key: RecordKey(id(&body).0), bytes: body[..1].to_vec() }, format!("record {i}")),
            _ => (
                StoreOp::Put { shard: id(&body), lease: lease(), body, depositor: Depositor::Newcomer },
                format!("put {i}"),
            ),
        };
        store.submit(
            op,
            Box::new(move |reply| {
                assert!(matches!(reply, StoreReply::Done { .. } | StoreReply::Released { .. }), "{word}: {reply:?}");
                acknowledge(word);
                taken.recv().unwrap();
            }),
        );
    }
}

fn ask(store: &ShardStore, op: StoreOp) -> StoreReply {
    let (tx, rx) = bounded(1);
    store.submit(op, Box::new(move |reply| tx.send(reply).unwrap()));
    rx.recv().unwrap()
}

#[test]
fn killed_while_putting() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let lines = 1 + random(&[round, u64::MAX]) % 150;
        for word in Killed::start("child_puts", dir.path(), round).kill_after(lines) {
            let (what, i) = word.split_once(' ').unwrap();
            acknowledged.push((round, what.to_string(), i.parse::<u64>().unwrap()));
        }
        let last: BTreeMap<u64, u64> = acknowledged.iter().map(|(round, _, i)| (*round, *i)).collect();
        // Also what was acknowledged in the rounds before is there, after each kill.
        let store = ShardStore::open(dir.path(), Quota::for_all(QUOTA)).unwrap();
        let records = store.records().unwrap();
        for (round, what, i) in &acknowledged {
            let body = body(*round, *i);
            let read = ask(&store, StoreOp::Read { shard: id(&body), offset: 0, len: body.len() as u32 });
            let whole = StoreReply::Bytes(body.clone());
            match what.as_str() {
                // It may since have been released, without the answer to that having come out in time.
                "put" if i % 7 == 0 && i + 6 <= last[round] + UNDER_WAY as u64 => {
                    assert!(read == whole || read == StoreReply::Failed(StoreFault::NotFound), "{round} {i}");
                }
                "put" => assert_eq!(read, whole, "{round} {i}"),
                "released" => {
                    let have = ask(&store, StoreOp::Have { shards: vec![id(&body)] });
                    assert_eq!(have, StoreReply::Have(vec![false]), "{round} {i}");
                }
                "record" => assert!(records.contains(&(RecordKey(id(&body).0), body[..1].to_vec())), "{round} {i}"),
                other => panic!("{other}"),
            }
        }
        // No bytes are left behind the last row of a pack.
        let packs: u64 = std::fs::read_dir(dir.path().join("packs"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len().next_multiple_of(4096))
            .sum();
        let released = acknowledged.iter().filter(|(_, what, _)| what == "released").count() as u64 + UNDER_WAY as u64;
        assert!(
            packs <= store.used().total() + released * (120_000 + 4096),
            "{packs} bytes for {}",
            store.used().total()
        );
    }
}

fn file(ino: u64) -> InodeRow {
    let now = Timespec { seconds: 1, nanos: 2 };
    InodeRow {
        ino,
        id: FileId(u128::from(ino).to_be_bytes()),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        nlink: 1,
        size: ino,
        atime: now,
        mtime: now,
        ctime: now,
        xattrs: vec![],
        symlink: vec![],
        parent: 1,
        linked: false,
        volume: None,
        dirty: true,
        remote: None,
        local: Local::Complete,
    }
}

/// Each commit of the child makes this many files; all of them are there, or none.
const FILES: u64 = 5;

#[test]
#[ignore = "the child of killed_while_committing"]
fn child_commits() {
    let Some((dir, _)) = inherited() else { return };
    let tree = WorkTree::open(&dir).unwrap();
    let first = tree.children(1).unwrap().len() as u64 / FILES;
    for batch in first..SHARDS {
        let ops: Vec<MetaOp> = (batch * FILES..(batch + 1) * FILES)
            .flat_map(|i| {
                let name = i.to_be_bytes().to_vec();
                [MetaOp::PutInode(file(i + 2)), MetaOp::Link { parent: 1, name, ino: i + 2 }]
            })
            .collect();
        let durability = if batch % 10 == 0 { Durability::Power } else { Durability::Process };
        tree.commit(&ops, durability).unwrap();
        acknowledge(batch);
    }
}

#[test]
fn killed_while_committing() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let lines = 1 + random(&[round, 7]) % 400;
        let seen = Killed::start("child_commits", dir.path(), round).kill_after(lines);
        let last: u64 = seen.last().unwrap().parse().unwrap();
        let tree = WorkTree::open(dir.path()).unwrap();
        let children = tree.children(1).unwrap();
        assert_eq!(children.len() as u64 % FILES, 0, "half a commit");
        assert!(children.len() as u64 >= (last + 1) * FILES, "an acknowledged commit is gone");
        for (i, (name, row)) in children.iter().enumerate() {
            assert_eq!((name.as_slice(), row), (&(i as u64).to_be_bytes()[..], &file(i as u64 + 2)));
        }
    }
}
