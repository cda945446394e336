//! The main job with real processes: agents over loopback sockets, real disks, a real mount, kill -9.
//!
//! Needs the right to mount.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

mod audits;
mod heads;
mod leases;
mod lost;
mod mesh;
mod revoked;
mod secrets;
mod share;
mod tree;
mod volumes;

use hypernet_kit::machine::{Need, has, has_passthrough};
use hypernet_kit::{Disk, PowerCut};
use hypernet_sdk::api::{self, ErrorCode};
use mesh::{Agent, Mesh, hnd, hnd_told, new_phrase};
use tree::{MARKERS, assert_same, find_marker, look, noise, plant, write_synced};

#[test]
fn data_survives_the_loss_of_peers_and_of_the_machine() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mut mesh = Mesh::start(8);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    let mount = mine.mount.clone().unwrap();
    plant(&mount);
    let before = look(&mount);
    let report = mine.sync().unwrap();
    assert_eq!((report.n, report.peers), (8, 8), "a shard on each of the peers");
    let lost = report.n - report.k;
    assert!(lost >= 2, "{report:?}");
    let checked = mine.fsck();
    assert_eq!(checked.problems, Vec::<String>::new());
    assert_eq!(checked.shards, checked.segments * 8, "every segment has its full n");
    assert_eq!(checked.segments, report.segments, "the catalog and the manifest were looked at, too");
    assert_eq!(mine.status().volume.unwrap().segments, report.segments);
    assert_eq!(mine.sync().unwrap().files, 0, "nothing to do the second time");

    // one seized peer yields nothing
    for marker in MARKERS {
        for peer in &mesh.peers {
            assert_eq!(find_marker(&peer.home, marker), Vec::<std::path::PathBuf>::new());
        }
        assert!(!find_marker(&mount, marker).is_empty(), "the search finds markers where there are some");
    }

    // any m peers are gone
    mesh.kill(0..lost as usize);
    assert!(mine.drop_cache().files > 40);
    assert_same(&before, &look(&mount));

    // and so is the machine
    mine.kill();
    fs::remove_dir_all(&mine.home).unwrap();
    drop(mine);
    let (again, found) = mesh.recovered("again", &keystore);
    assert_eq!((found.devices, found.head_device.as_str()), (1, "mine"));
    assert_same(&before, &look(&again.mount.clone().unwrap()));

    // the new device goes on where the old one ended
    fs::write(again.mount.clone().unwrap().join("new"), b"written after the fire").unwrap();
    fs::remove_file(again.mount.clone().unwrap().join("words")).unwrap();
    let report = again.sync().unwrap();
    assert!(report.head >= 1);
    let now = look(&again.mount.clone().unwrap());
    drop(again);
    let (third, found) = mesh.recovered("third", &keystore);
    assert_eq!((found.devices, found.head_device.as_str()), (2, "again"));
    assert_same(&now, &look(&third.mount.clone().unwrap()));
}

/// Writes, syncs, and at once loses every process and all of this device but its keystore; again and again.
fn everything_is_lost_right_after_a_sync(mut mesh: Mesh, lose: impl Fn(&mut Mesh, &mut Agent)) {
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    for round in 0..3 {
        let mount = mine.mount.clone().unwrap();
        let dir = mount.join(format!("round {round}"));
        fs::create_dir(&dir).unwrap();
        plant(&dir);
        fs::write(dir.join("of this round"), noise(&format!("round {round}"), 3 << 20)).unwrap();
        let before = look(&mount);
        mine.sync().unwrap();
        lose(&mut mesh, &mut mine);
        fs::remove_dir_all(&mine.home).unwrap();
        mesh.revive();
        (mine, _) = mesh.recovered(&format!("after {round}"), &keystore);
        assert_same(&before, &look(&mine.mount.clone().unwrap()));
    }
}

#[test]
fn what_sync_acknowledged_survives_kill_9_of_all() {
    if !has(&[Need::Fuse]) {
        return;
    }
    everything_is_lost_right_after_a_sync(Mesh::start(5), Mesh::kill_all);
}

/// The same, and of the peers' disks only what was brought to them is left: they answer when it is on stable storage.
#[test]
fn what_sync_acknowledged_survives_a_power_cut_of_all_peers() {
    if !has(&[Need::Fuse, Need::Root]) {
        return;
    }
    let disk = Disk::new(2 << 30).unwrap();
    everything_is_lost_right_after_a_sync(Mesh::start_on(&disk.path(), 5), |mesh, mine| {
        disk.cut().unwrap();
        mesh.kill_all(mine);
        disk.restore().unwrap();
    });
}

#[test]
fn a_founders_words_lead_back_by_a_link_and_its_directory_without_one() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let (mesh, mut mine) = Mesh::founded_by("mine", 3);
    mine.wait_for_donors(3);
    plant(&mine.mount.clone().unwrap());
    let before = look(&mine.mount.clone().unwrap());
    mine.sync().unwrap();
    mine.stop();
    // The words alone name no mesh: and it is said what would help.
    let place = ["--listen", "127.0.0.1", "--no-mdns", "--donate", "0"];
    let recover =
        |name: &str, more: &[&str]| hnd(&mesh.dir.path().join(name), &[&["recover"], more, &place[..]].concat());
    let refused = recover("lost", &[]).unwrap_err();
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--join LINK"), "{refused}");

    // The founder's directory knows the way, and stays as it is.
    let from = mine.home.clone();
    let kept = |name: &str| fs::read(from.join(name)).unwrap();
    let were = ["keystore.age", "identity", "device.age"].map(kept);
    recover("beside", &["--from", from.to_str().unwrap()]).unwrap();
    let mut beside = Agent::at(mesh.dir.path().join("beside"));
    beside.start(&["--hold"]);
    beside.wait_for_donors(3);
    let request = api::RecoverRequest { from: Some(from.clone()), ..Default::default() };
    beside.recover_by(&request).unwrap_or_else(|error| panic!("{error:?}\n{}", beside.log()));
    beside.call(async |client| client.mount(Some(&beside.home.with_extension("mnt")), true).await).unwrap();
    assert_same(&before, &look(&beside.home.with_extension("mnt")));
    beside.mount = Some(beside.home.with_extension("mnt"));
    assert_eq!(["keystore.age", "identity", "device.age"].map(kept), were);

    fs::remove_dir_all(&mine.home).unwrap();
    let (again, _) = mesh.recovered("again", &mine.phrase);
    assert_same(&before, &look(&again.mount.clone().unwrap()));
    let devices = again.call(async |client| client.devices().await).unwrap();
    assert_eq!(devices.len(), 3);
}

#[test]
fn wrong_words_bring_nothing_back_and_the_right_ones_can_be_given_then() {
    let mesh = Mesh::start(3);
    let mut mine = Agent::at(mesh.dir.path().join("mine"));
    let place = ["--listen", "127.0.0.1", "--no-mdns", "--donate", "0", "--join", &mesh.link];
    let phrase = new_phrase();
    let words: Vec<&str> = phrase.split(' ').collect();
    let init = [&["init"], &place[..]].concat();
    hnd_told(&mine.home, &init, &format!("{phrase}\nsecond factor\n")).unwrap();
    mine.start(&["--hold"]);
    mine.wait_for_donors(3);
    let begun = |name| {
        let mut agent = Agent::at(mesh.dir.path().join(name));
        hnd(&agent.home, &[&["recover"], &place[..]].concat()).unwrap();
        agent.start(&["--hold"]);
        agent.wait_for_donors(3);
        agent
    };
    let other = begun("other");
    let recover_at = |agent: &Agent, words: String, passphrase: &str| {
        let phrase = Some(api::PhraseInput::new(words.as_str().into(), passphrase.into()));
        agent.recover_by(&api::RecoverRequest { phrase, ..Default::default() })
    };
    let recover = |words, passphrase| recover_at(&other, words, passphrase);
    let misspelt = [&words[..4], &["abbandon"], &words[5..]].concat().join(" ");
    let misspelt = recover(misspelt, "second factor").unwrap_err();
    assert_eq!(misspelt.code, api::ErrorCode::Usage);
    assert!(misspelt.message.contains("word 5, `abbandon`") && misspelt.message.contains("abandon"), "{misspelt:?}");
    let nothing = recover(phrase.clone(), "another factor").unwrap_err();
    assert_eq!(nothing.code, api::ErrorCode::TryAgain);
    assert!(nothing.message.contains("knows nothing of an identity with these words"), "{nothing:?}");
    let all = other.log() + &mine.log();
    assert!(!all.contains(&phrase), "the words are in a log");
    // Nothing was written: the identity is told all the same, soon after its agent has met its peers. That it has no head
    // yet is another matter.
    let told = (0..100).map(|_| recover(phrase.clone(), "second factor").unwrap_err());
    let found = told.map(|error| error.message).find(|message| message.contains("has published a head"));
    assert!(found.is_some(), "{}", other.log());
    assert_eq!(other.status().identity, mine.status().identity);
    // It begins with nothing where that is said, and what is synced elsewhere later comes into it.
    let found = other.recover_by(&api::RecoverRequest { empty: true, ..Default::default() }).unwrap();
    assert_eq!(found.head_sequence, 0);
    assert!(other.sync().unwrap().head > 0, "it is there to be found");
    // Also with nothing in it: who has only the words finds a tree.
    assert!(mine.sync().unwrap().head > 0);
    let found = recover_at(&begun("third"), phrase, "second factor").unwrap();
    assert!(found.head_sequence > 0 && found.devices == 2, "{found:?}");
}

#[test]
fn what_is_gone_fails_in_time_and_comes_back_with_the_peers() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mut mesh = Mesh::start(5);
    let mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    fs::write(mount.join("far"), noise("far", 3 << 20)).unwrap();
    let report = mine.sync().unwrap();
    fs::write(mount.join("near"), noise("near", 1 << 20)).unwrap();
    mine.drop_cache();
    mesh.kill(0..=(report.n - report.k) as usize);

    let began = Instant::now();
    let error = fs::read(mount.join("far")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "EIO, not {error}");
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    assert!(mine.log().contains("of the"), "the log names what is lacking:\n{}", mine.log());
    assert_eq!(fs::read(mount.join("near")).unwrap(), noise("near", 1 << 20), "what is here still reads");
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 2);
    assert!(!mine.status().warnings.is_empty());

    mesh.revive();
    mine.wait_for_donors(5);
    assert_eq!(fs::read(mount.join("far")).unwrap(), noise("far", 3 << 20));

    // What is here is not dropped while the mesh could not give it back, unless someone insists.
    let report = mine.sync().unwrap();
    mesh.kill(0..=(report.n - report.k) as usize);
    mine.wait_for_donors(u64::from(report.k) - 1);
    let dropped = mine.drop_cache();
    assert_eq!((dropped.files, dropped.kept_files, dropped.kept_bytes), (0, 2, 4 << 20));
    assert!(dropped.kept_because.is_some());
    assert_eq!(fs::read(mount.join("far")).unwrap(), noise("far", 3 << 20));
    let problems = mine.fsck().problems;
    assert!(problems.iter().any(|line| line.starts_with("catalog segment")), "{problems:?}");
    let forced = api::CacheDropRequest { force: true, ..api::CacheDropRequest::default() };
    assert!(mine.drop_cache_as(&forced).files > 0);
    assert_eq!(fs::read(mount.join("far")).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn damage_on_a_peer_is_noticed_and_routed_around() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    let bytes = noise("precious", 4 << 20);
    fs::write(mount.join("precious"), &bytes).unwrap();
    mine.sync().unwrap();
    for (i, peer) in mesh.peers.iter().take(2).enumerate() {
        let packs = fs::read_dir(peer.home.join("donated/packs")).unwrap();
        let pack = packs.filter_map(Result::ok).map(|entry| entry.path()).next().unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(pack).unwrap();
        if i == 0 {
            for at in (0..file.metadata().unwrap().len()).step_by(1000) {
                let mut byte = [0];
                file.read_at(&mut byte, at).unwrap();
                file.write_at(&[byte[0] ^ 0x20], at).unwrap();
            }
        } else {
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    }
    mine.drop_cache();
    assert_eq!(fs::read(mount.join("precious")).unwrap(), bytes);
}

#[test]
fn what_was_fsynced_survives_kill_9_and_is_uploaded_later() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    for round in 0..4 {
        let mount = mine.mount.clone().unwrap();
        for i in 0..10 {
            write_synced(&mount.join(format!("r{round}-{i}")), &noise(&format!("{round} {i}"), 5000 * i));
        }
        fs::write(mount.join("staging"), noise(&format!("renamed {round}"), 100_000)).unwrap();
        fs::File::open(mount.join("staging")).unwrap().sync_all().unwrap();
        fs::rename(mount.join("staging"), mount.join("current")).unwrap();
        fs::File::open(&mount).unwrap().sync_all().unwrap();
        if round == 2 {
            mine.sync().unwrap();
        }
        mine.kill();
        mesh.run(&mut mine);
        let mount = mine.mount.clone().unwrap();
        for (r, i) in (0..=round).flat_map(|r| (0..10).map(move |i| (r, i))) {
            assert_eq!(fs::read(mount.join(format!("r{r}-{i}"))).unwrap(), noise(&format!("{r} {i}"), 5000 * i));
        }
        assert_eq!(fs::read(mount.join("current")).unwrap(), noise(&format!("renamed {round}"), 100_000));
        assert_eq!(mine.fsck().problems, Vec::<String>::new());
    }
    mine.sync().unwrap();
    let before = look(&mine.mount.clone().unwrap());
    drop(mine);
    let (again, _) = mesh.recovered("again", &keystore);
    assert_same(&before, &look(&again.mount.clone().unwrap()));
}

#[test]
fn records_outlive_their_lifetime_while_the_owner_is_away() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let lifetime = 4;
    let mesh = Mesh::start_with(4, &["--record-lifetime", "4"]);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    let mount = mine.mount.clone().unwrap();
    plant(&mount);
    let before = look(&mount);
    mine.sync().unwrap();
    mine.kill();
    drop(mine);
    // Time itself is what is tested here: three lifetimes of a record pass.
    std::thread::sleep(Duration::from_secs(3 * lifetime + 1));
    let (again, found) = mesh.recovered("again", &keystore);
    assert!(found.head_age_seconds >= 3 * lifetime);
    assert_same(&before, &look(&again.mount.clone().unwrap()));
}

#[test]
fn a_graceful_stop_loses_nothing_and_a_stale_mount_is_cleared() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(3);
    let mut mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    plant(&mount);
    let before = look(&mount);
    mine.stop();
    mesh.run(&mut mine);
    assert_same(&before, &look(&mount));
    // the agent dies and leaves a dead mount behind; the next one mounts in its place
    let dead = mine.mount.take();
    mine.kill();
    assert!(fs::File::create(dead.unwrap().join("new")).is_err(), "the mount is dead");
    mesh.run(&mut mine);
    assert_same(&before, &look(&mount));
}

/// A lazy unmount under a program: what is written where the mount was would lie below it, so nobody is told that it is
/// there, and it comes back when the program has closed its file.
#[test]
fn a_mount_that_went_out_of_sight_is_not_told_of_as_one() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(2);
    let mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    let open = fs::File::create(mount.join("open")).unwrap();
    let lazily = std::process::Command::new("umount").arg("-l").arg(&mount).status().unwrap();
    assert!(lazily.success());
    let status = mine.status();
    assert_eq!(status.mount, None);
    assert!(status.warnings.iter().any(|warning| warning.contains("nothing is mounted")), "{:?}", status.warnings);
    let again = || mine.call(async |client| client.mount(Some(&mount), true).await);
    let refused = again().unwrap_err().to_string();
    assert!(refused.contains("was unmounted while programs used it"), "{refused}");
    open.write_all_at(b"still here", 0).unwrap();
    drop(open);
    // The kernel tells the agent of the end when it likes.
    let mounted = (0..1_000).find_map(|_| again().ok());
    assert_eq!(mounted.map(|mounted| mounted.dir).as_ref(), Some(&mount), "{}", mine.log());
    assert_eq!(fs::read(mount.join("open")).unwrap(), b"still here");
}

/// In passthrough the kernel goes on to read and write for a program that was not killed with the agent.
#[test]
fn what_a_program_writes_past_a_dead_agent_is_a_change_to_the_next() {
    if !has(&[Need::Fuse]) || !has_passthrough() {
        return;
    }
    let mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    let path = mount.join("log");
    let log = fs::OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
    log.write_all_at(b"begun", 0).unwrap();
    log.sync_all().unwrap();
    mine.kill();
    log.write_all_at(b"without an agent", 0).unwrap();
    assert!(log.sync_all().is_err(), "nobody is there who could promise anything");
    mesh.run(&mut mine);
    assert_eq!(fs::read(&path).unwrap(), b"without an agent");
    for text in ["beside the next one", "and once more, after a sync"] {
        log.write_all_at(text.as_bytes(), 0).unwrap();
        mine.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        assert_eq!(fs::metadata(&path).unwrap().len(), text.len() as u64);
    }
    drop(log);
    mine.sync().unwrap();
    mine.drop_cache();
    assert_eq!(fs::read(&path).unwrap(), b"and once more, after a sync");
}

/// Killed, it says no goodbye: its peers must not take the connections that it lost for as many that it has.
#[test]
fn an_agent_that_is_killed_again_and_again_reads_from_its_peers_at_once() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    fs::write(mount.join("far"), noise("far", 1 << 20)).unwrap();
    mine.sync().unwrap();
    for round in 0..8 {
        mine.drop_cache();
        mine.kill();
        mine.start(&["--hold", "--mount", mount.to_str().unwrap()]);
        let read = fs::read(mount.join("far"));
        assert!(read.is_ok_and(|read| read == noise("far", 1 << 20)), "round {round}\n{}", mine.log());
    }
}

#[test]
fn mistakes_are_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("a");
    let error = |value: serde_json::Value| -> hypernet_sdk::api::ApiError {
        serde_json::from_value(value["error"].clone()).unwrap()
    };
    let mut nothing = Agent::at(home.clone());
    let failure = nothing.try_start(&[]).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Config);
    assert!(failure.hint.unwrap().contains("hn init"));

    let words = format!("{}\n\n", new_phrase());
    hnd_told(&home, &["init", "--listen", "127.0.0.1", "--no-mdns", "--donate", "1M"], &words).unwrap();
    assert_eq!(error(hnd_told(&home, &["init"], &words).unwrap_err()).code, ErrorCode::CantCreate);
    assert_eq!(error(hnd(&home, &["join", "hypernet:join/abc"]).unwrap_err()).code, ErrorCode::Usage);

    let mut first = Agent::at(home.clone());
    first.start(&[]);
    let failure = Agent::at(home.clone()).try_start(&[]).unwrap_err();
    assert!(failure.message.contains("another"), "{failure:?}");
    first.stop();

    fs::write(home.join("config.json"), "{").unwrap();
    assert_eq!(Agent::at(home.clone()).try_start(&[]).unwrap_err().code, ErrorCode::Config);

    let other = dir.path().join("b");
    hnd_told(&other, &["init", "--listen", "127.0.0.1", "--no-mdns"], &words).unwrap();
    let mut started = Agent::at(other.clone());
    started.start(&[]).stop();
    fs::write(other.join("volume/volume.db"), noise("not a database", 8192)).unwrap();
    for log in ["volume.db-wal", "volume.db-shm"] {
        let _ = fs::remove_file(other.join("volume").join(log));
    }
    let failure = Agent::at(other).try_start(&[]).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Data, "{failure:?}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("hn recover")));
}
