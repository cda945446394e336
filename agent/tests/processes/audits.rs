//! Audits: what a peer has lost that it took is found though nobody reads it, and told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api;

use crate::mesh::{Agent, Mesh, PATIENCE};
use crate::tree::noise;

/// Has rounds take so many seconds from the next start on; none: as ever.
fn audits_every(agent: &Agent, seconds: Option<u64>) {
    let path = agent.home.join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["audits_every"] = seconds.into();
    fs::write(&path, config.to_string()).unwrap();
}

fn audits(agent: &Agent) -> api::AuditStatus {
    agent.status().volume.unwrap().audits.unwrap()
}

/// The last round, once there is one that is so.
fn round(agent: &Agent, what: &str, is: impl Fn(&api::Audited) -> bool) -> api::Audited {
    let begun = Instant::now();
    loop {
        let audits = audits(agent);
        match audits.last.map(|last| last.shards).filter(&is) {
            Some(shards) => return shards,
            None => assert!(begun.elapsed() < PATIENCE, "{what}: {audits:?}\n{}", agent.log()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn packs(peer: &Path) -> Vec<PathBuf> {
    fs::read_dir(peer.join("donated/packs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn whole(agent: &Agent) -> bool {
    let volume = agent.status().volume.unwrap();
    volume.health.iter().all(|bucket| bucket.missing == 0) && !volume.health.is_empty()
}

#[test]
fn an_audit_finds_who_has_lost_its_disk_and_says_so_also_after_a_restart() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    fs::write(mine.below("file"), noise("file", 3 << 20)).unwrap();
    let report = mine.sync().unwrap();
    assert_eq!(report.n, 4);
    assert_eq!(audits(&mine), api::AuditStatus::default(), "none is due");
    mine.stop();
    audits_every(&mine, Some(1));
    mesh.run(&mut mine);
    let good = round(&mine, "all is proven", |shards| shards.unasked == 0 && shards.passed > 0);
    assert_eq!((good.failed(), good.passed % 4), (0, 0), "data, catalog and manifest have a shard with each peer");
    let segments = mine.status().volume.unwrap().segments;
    assert_eq!(good.passed, 4 * segments);
    assert!(whole(&mine));

    // The files are there still, and empty: whoever is asked whether it has the shards says yes.
    for pack in packs(&mesh.peers[1].home) {
        fs::File::options().write(true).open(pack).unwrap().set_len(0).unwrap();
    }
    let bad = round(&mine, "one is found", |shards| shards.failed() > 0 && shards.passed == 3 * segments);
    assert_eq!((bad.damaged, bad.lied), (segments, 0));
    let name = mesh.peers[1].status().peer;
    let told = |agent: &Agent| {
        let status = agent.status();
        let warned =
            status.warnings.iter().any(|warning| warning.contains("audits have found") && warning.contains(&name));
        let peers = agent.call(async |client| client.peers().await).unwrap();
        let noted: Vec<String> = peers
            .into_iter()
            .filter(|peer| peer.note.as_ref().is_some_and(|note| note.contains("spoiled")))
            .map(|peer| peer.peer)
            .collect();
        (warned, noted)
    };
    assert_eq!(told(&mine), (true, vec![name.clone()]));
    assert!(!whole(&mine));

    // No round will end for days now; what is known stays.
    mine.stop();
    audits_every(&mine, None);
    mesh.run(&mut mine);
    assert_eq!(told(&mine), (true, vec![name.clone()]));
    assert!(!whole(&mine));
}
