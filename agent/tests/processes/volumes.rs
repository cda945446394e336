//! A directory that becomes a volume of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api;

use super::mesh::{Agent, Mesh, PATIENCE};
use super::tree::{assert_same, look, noise, plant};

impl Agent {
    pub(crate) fn make_volume(&self, path: &str) -> Result<api::VolumeInfo, hypernet_sdk::client::Error> {
        let request = api::MakeVolumeRequest { path: path.into() };
        self.call(async |client| client.make_volume(&request).await)
    }

    fn volumes(&self) -> Vec<api::VolumeInfo> {
        self.call(async |client| client.volumes().await).unwrap()
    }
}

fn write(agent: &Agent, path: &str, content: &[u8]) {
    fs::write(agent.mount.as_ref().unwrap().join(path), content).unwrap();
}

#[test]
fn a_directory_becomes_a_volume_without_an_upload_and_is_recovered_with_the_rest() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    let mount = mine.mount.clone().unwrap();
    let dir = mount.join("shared");
    fs::create_dir(&dir).unwrap();
    plant(&dir);
    write(&mine, "shared/large", &noise("large", 8 << 20));
    write(&mine, "above", &noise("above", 1 << 20));
    mine.sync().unwrap();
    write(&mine, "shared/not yet synced", b"new");
    let before = look(&mount);
    let made = mine.make_volume("/shared").unwrap();
    assert_eq!((made.path.as_path(), made.here, made.head), (Path::new("/shared"), true, None));
    assert!(made.dirty_files >= 2, "{made:?}");
    let refused = mine.make_volume("/shared").unwrap_err().to_string();
    assert!(refused.contains("begins there already"), "{refused}");
    let refused = mine.make_volume("/above").unwrap_err().to_string();
    assert!(refused.contains("only a directory"), "{refused}");
    assert_eq!(fs::rename(mount.join("above"), dir.join("above")).unwrap_err().raw_os_error(), Some(libc::EXDEV));
    assert_eq!(fs::hard_link(mount.join("above"), dir.join("a")).unwrap_err().raw_os_error(), Some(libc::EXDEV));

    // What it held is on the mesh already: some nodes of the tree and two catalogs are all that goes there.
    let report = mine.sync().unwrap();
    assert!(report.bytes < 1 << 10 && report.bytes_stored < 4 << 20, "{report:?}");
    let all = mine.volumes();
    assert!(all.iter().all(|volume| volume.dirty_files == 0 && volume.head.is_some()), "{all:?}");
    let checked = mine.fsck();
    assert_eq!(checked.problems, Vec::<String>::new());
    assert_same(&before, &look(&mount));

    // Each is changed and synced by itself, and what is evicted comes back.
    write(&mine, "shared/later", &noise("later", 1 << 20));
    write(&mine, "above", b"changed");
    let before = look(&mount);
    mine.sync().unwrap();
    assert!(mine.drop_cache().files > 40);
    assert_same(&before, &look(&mount));
    mine.kill();
    fs::remove_dir_all(&mine.home).unwrap();
    drop(mine);

    let (again, _) = mesh.recovered("again", &keystore);
    let there: Vec<_> = again.volumes().into_iter().map(|volume| (volume.path, volume.here)).collect();
    assert_eq!(there, [(std::path::PathBuf::from("/"), true)], "nobody has looked at the root");
    assert_same(&before, &look(&again.mount.clone().unwrap()));
    assert!(again.volumes().iter().all(|volume| volume.here && volume.dirty_files == 0));
    write(&again, "shared/after the fire", b"written");
    again.sync().unwrap();
    let now = look(&again.mount.clone().unwrap());
    assert_eq!(again.fsck().problems, Vec::<String>::new());
    drop(again);
    let (third, _) = mesh.recovered("third", &keystore);
    assert_same(&now, &look(&third.mount.clone().unwrap()));
}

#[test]
fn a_volume_that_was_just_made_survives_kill_9_before_and_after_its_first_head() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    let mount = mine.mount.clone().unwrap();
    for dir in ["one", "one/two"] {
        fs::create_dir(mount.join(dir)).unwrap();
        write(&mine, &format!("{dir}/file"), &noise(dir, 100_000));
    }
    mine.sync().unwrap();
    write(&mine, "one/two/local", b"only here so far");
    mine.make_volume("/one/two").unwrap();
    mine.make_volume("/one").unwrap();
    let before = look(&mount);
    mine.kill();
    mesh.run(&mut mine);
    assert_same(&before, &look(&mount));
    let paths: Vec<_> = mine.volumes().into_iter().map(|volume| volume.path).collect();
    assert_eq!(paths, ["/", "/one", "/one/two"].map(std::path::PathBuf::from));

    // Whoever is recovered before anything was synced again has what was durable before.
    let (early, _) = mesh.recovered("early", &keystore);
    let there = early.mount.clone().unwrap();
    assert_eq!(fs::read(there.join("one/two/file")).unwrap(), noise("one/two", 100_000));
    drop(early);

    mine.sync().unwrap();
    mine.kill();
    // A device that has not looked into them knows that all of the main one is in its own head, and no more.
    let (idle, _) = mesh.recovered("idle", &keystore);
    write(&idle, "main", b"of idle");
    idle.sync().unwrap();
    let request = api::RevokeDeviceRequest { name: "mine".into(), force: false, phrase: None };
    let refused = idle.call(async |client| client.revoke_device(&request).await).unwrap_err().to_string();
    assert!(refused.contains("is not part of what another device"), "{refused}");
    drop(idle);
    fs::remove_dir_all(mesh.dir.path().join("idle")).unwrap();

    let (late, _) = mesh.recovered_of("late", &keystore, Some("mine"));
    assert_same(&before, &look(&late.mount.clone().unwrap()));
    mesh.run(&mut mine);
    assert_same(&before, &look(&mount));
    assert_eq!(mine.fsck().problems, Vec::<String>::new());
}

#[test]
fn uploads_go_by_themselves_where_they_are_not_held_back() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let mine = mesh.agent("mine");
    let mount = mine.mount.clone().unwrap();
    fs::create_dir_all(mount.join("one/two")).unwrap();
    write(&mine, "one/two/file", b"content");
    mine.call(async |client| client.hold(false).await).unwrap();
    let refused = mine.make_volume("/one/two/file").unwrap_err().to_string();
    assert!(refused.contains("only a directory"), "{refused}");
    mine.make_volume("/one").unwrap();
    mine.make_volume("/one/two").unwrap();
    let is_done = |volume: &api::VolumeInfo| volume.head.is_some() && volume.dirty_files == 0;
    let until = Instant::now() + PATIENCE;
    while !mine.volumes().iter().all(is_done) {
        assert!(Instant::now() < until, "{:?}\n{}", mine.volumes(), mine.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(mine.volumes().len(), 3);
}

#[test]
fn a_volume_that_nobody_has_entered_on_a_device_is_shared_by_it_with_all_that_is_in_it() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (mine, anna) = super::share::acquainted(&mesh);
    fs::create_dir(mine.below("own")).unwrap();
    write(&mine, "own/file", b"mine");
    mine.make_volume("/own").unwrap();
    mine.sync().unwrap();
    let (other, _) = mesh.recovered("other", &mine.phrase.clone());
    assert!(fs::read_dir(other.below("")).unwrap().any(|entry| entry.unwrap().file_name() == "own"));
    let there = other.volumes();
    assert!(there.iter().any(|volume| volume.path == Path::new("/own") && !volume.here), "{there:?}");
    other.share_with("/own", &["anna"], api::ShareRole::Writer).unwrap();
    other.sync().unwrap();
    let begun = Instant::now();
    while anna.attach("carl/own", "/theirs").is_err() {
        assert!(begun.elapsed() < PATIENCE, "{}", other.log());
    }
    assert_eq!(fs::read(anna.below("theirs/file")).unwrap(), b"mine");
}
