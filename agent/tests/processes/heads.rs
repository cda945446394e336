//! Several devices, and several homes of one: what one of them acknowledged is never lost without a word.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api::{self, ErrorCode};

use super::mesh::{Agent, Mesh};
use super::tree::{assert_same, look};

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

fn write(agent: &Agent, name: &str) {
    fs::write(agent.mount.as_ref().unwrap().join(name), name).unwrap();
}

#[test]
fn a_home_that_is_put_back_from_a_copy_takes_nothing_back_from_the_mesh() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    write(&mine, "one");
    mine.sync().unwrap();
    mine.stop();
    let old = mesh.dir.path().join("old");
    copy(&mine.home, &old);
    mesh.run(&mut mine);
    for name in ["two", "three"] {
        write(&mine, name);
        mine.sync().unwrap();
    }
    mine.stop();
    fs::remove_dir_all(&mine.home).unwrap();
    copy(&old, &mine.home);

    mesh.run(&mut mine);
    write(&mine, "four");
    for _ in 0..4 {
        let error = mine.sync().unwrap_err();
        assert_eq!(error.code, ErrorCode::Data, "{error:?}");
        assert!(
            error.message.contains("this home is older than head 3, which this device published at 20"),
            "{error:?}"
        );
        assert!(error.hint.unwrap().contains("hn recover"));
    }
    let status = mine.status();
    assert!(status.warnings.iter().any(|warning| warning.contains("older than head 3")), "{:?}", status.warnings);
    assert!(matches!(status.volume.unwrap().upload, api::Upload::Stopped { .. }));
    write(&mine, "five");
    assert_eq!(fs::read_to_string(mine.mount.as_ref().unwrap().join("four")).unwrap(), "four");

    let (again, found) = mesh.recovered("again", &keystore);
    assert_eq!((found.head_sequence, found.warnings), (3, vec![]));
    for name in ["one", "two", "three"] {
        assert!(again.mount.as_ref().unwrap().join(name).exists(), "{name}");
    }
    // A head of one device does not stop another.
    write(&again, "six");
    again.sync().unwrap();
}

#[test]
fn what_several_devices_acknowledged_is_in_one_tree_though_some_of_them_are_gone() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut a = mesh.agent("a");
    let keystore = a.phrase.clone();
    write(&a, "base");
    a.sync().unwrap();
    let (mut b, _) = mesh.recovered("b", &keystore);
    write(&b, "of b");
    fs::write(b.below("base"), "by b").unwrap();
    b.sync().unwrap();
    // It is told to stop, so that nobody waits for it, and then it is gone for good.
    b.stop();
    fs::remove_dir_all(&b.home).unwrap();
    write(&a, "of a");
    fs::write(a.below("base"), "by a").unwrap();
    a.sync_until("what b wrote", |a| a.below("of b").exists());
    let names = |agent: &Agent| {
        let entries = fs::read_dir(agent.below("")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let all = names(&a);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all[1].starts_with("base (conflict of "), "{all:?}");
    let mut both = [&all[0], &all[1]].map(|name| fs::read_to_string(a.below(name)).unwrap());
    both.sort();
    assert_eq!(both, ["by a", "by b"]);

    // Whoever comes finds one head that has it all, also after those that it was made of.
    for name in ["c", "d"] {
        let (agent, found) = mesh.recovered(name, &keystore);
        assert_eq!((found.head_device.as_str(), found.warnings.len()), ("a", 0), "{found:?}");
        assert_eq!(names(&agent), all);
        assert_eq!(agent.fsck().problems, Vec::<String>::new());
    }
    let (mut e, found) = mesh.recovered_of("e", &keystore, Some("b"));
    assert_eq!((found.head_device.as_str(), found.head_sequence), ("b", 1));
    assert!(found.warnings[0].starts_with("device a has head "), "{:?}", found.warnings);
    e.sync_until("what a wrote", |e| names(e) == all);
    // A device that was away goes on from what it knows, and is killed on its way.
    write(&a, "later of a");
    a.sync().unwrap();
    a.kill();
    write(&e, "later of e");
    e.sync().unwrap();
    e.kill();
    mesh.run(&mut a);
    mesh.run(&mut e);
    for agent in [&a, &e] {
        agent.sync_until("what the other one wrote", |agent| names(agent).len() == 6);
        assert_eq!(agent.fsck().problems, Vec::<String>::new());
    }
    assert_eq!(names(&a), names(&e));
}

#[test]
fn devices_that_are_killed_while_they_write_come_to_one_tree() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut a = mesh.agent("a");
    write(&a, "base");
    a.sync().unwrap();
    let (mut b, _) = mesh.recovered("b", &a.phrase.clone());
    let mut synced: Vec<(String, String)> = Vec::new();
    for round in 0..6 {
        for (agent, name) in [(&a, "a"), (&b, "b")] {
            let (file, moved) = (format!("{name}{round}"), format!("moved {name}{round}"));
            fs::write(agent.below(&file), &file).unwrap();
            fs::File::open(agent.below(&file)).unwrap().sync_all().unwrap();
            fs::create_dir(agent.below(&format!("dir {name}{round}"))).unwrap();
            fs::rename(agent.below(&file), agent.below(&format!("dir {name}{round}/{moved}"))).unwrap();
            agent.sync().unwrap();
            synced.push((format!("dir {name}{round}/{moved}"), file));
        }
        // Whatever each of them is doing now about what the other one has published.
        let victim = if round % 2 == 0 { &mut a } else { &mut b };
        let _ = victim.call(async |client| client.sync(None).await.map(drop));
        std::thread::sleep(Duration::from_millis(40 * round));
        victim.kill();
        mesh.run(victim);
    }
    for agent in [&a, &b] {
        agent.sync_until("what the other one wrote", |agent| synced.iter().all(|(path, _)| agent.below(path).exists()));
        for (path, content) in &synced {
            assert_eq!(&fs::read_to_string(agent.below(path)).unwrap(), content);
        }
        assert_eq!(agent.fsck().problems, Vec::<String>::new());
    }
    assert_same(&look(&a.below("")), &look(&b.below("")));
}
