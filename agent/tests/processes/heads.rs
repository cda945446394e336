//! Several devices, and several homes of one: what one of them acknowledged is never lost without a word.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api::{self, ErrorCode};

use super::mesh::{Agent, Mesh};

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

fn write(agent: &Agent, name: &str) {
    fs::write(agent.mount.as_ref().unwrap().join(name), name).unwrap();
}

/// Returns when `hn status` has a line about it.
fn wait_for_warning(agent: &Agent, text: &str) {
    let began = Instant::now();
    loop {
        let warnings = agent.status().warnings;
        if warnings.iter().any(|warning| warning.contains(text)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{warnings:?}\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(100));
    }
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
fn what_another_device_acknowledged_is_named_and_can_be_reached() {
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
    b.sync().unwrap();
    // It is told to stop, so that nobody waits for it, and then it is gone for good.
    b.stop();
    fs::remove_dir_all(&b.home).unwrap();
    write(&a, "of a");
    a.sync().unwrap();

    // Devices that only read are on the list, and no news.
    for (name, before) in [("c", 2), ("d", 3)] {
        let (_, found) = mesh.recovered(name, &keystore);
        assert_eq!((found.head_device.as_str(), found.head_sequence, found.devices), ("a", 2, before), "{found:?}");
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        assert!(found.warnings[0].starts_with("device b has head 1 of 20"), "{:?}", found.warnings);
        let other = &found.others[0];
        assert_eq!((other.device.as_str(), other.sequence), ("b", 1));
    }
    let (e, found) = mesh.recovered_of("e", &keystore, Some("b"));
    assert_eq!((found.head_device.as_str(), found.head_sequence), ("b", 1));
    assert!(found.warnings[0].starts_with("device a has head 2 of 20"), "{:?}", found.warnings);
    assert_eq!(fs::read_to_string(e.mount.as_ref().unwrap().join("of b")).unwrap(), "of b");
    // And whoever runs is told, too.
    a.stop();
    mesh.run(&mut a);
    wait_for_warning(&a, "device b has head 1 of 20");
    wait_for_warning(&e, "device a has head 2 of 20");
}
