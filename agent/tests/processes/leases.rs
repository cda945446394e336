//! What the database of a seized storage peer tells of whose shards it holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hypernet_core::time::UnixSeconds;
use hypernet_kit::machine::{Need, has};

use crate::mesh::Mesh;
use crate::tree::noise;

/// Key and end of each lease in the database of a peer that does not run.
fn leases(home: &Path) -> Vec<([u8; 32], u64)> {
    let db = rusqlite::Connection::open(home.join("donated/shards.db")).unwrap();
    let mut statement = db.prepare("SELECT key, expires FROM leases").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn no_two_leases_at_a_peer_tell_that_they_have_an_owner_or_a_sync_in_common() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mut mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    for name in ["one", "two", "three"] {
        fs::write(mine.mount.clone().unwrap().join(name), noise(name, 12 << 20)).unwrap();
    }
    let report = mine.sync().unwrap();
    assert_eq!(report.n, 4, "a shard of each segment on each peer");
    assert!(report.segments > 3, "{report:?}");
    mesh.kill_all(&mut mine);
    let mut keys = BTreeSet::new();
    let mut count = 0;
    for peer in &mesh.peers {
        let leases = leases(&peer.home);
        assert!(leases.len() as u64 >= report.segments, "{} leases, {report:?}", leases.len());
        count += leases.len();
        for (key, expires) in leases {
            keys.insert(key);
            assert!(
                expires > 0 && expires.is_multiple_of(UnixSeconds::DAY),
                "{expires} tells the second of the upload"
            );
        }
    }
    assert_eq!(keys.len(), count, "a key occurs twice");
}
