//! Databases of a home that go missing: the agent says so, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api::ErrorCode;

use crate::mesh::{Agent, Mesh};
use crate::tree::{assert_same, look, noise};

const RECOVER: &str = "hn recover --from";

/// Every file below a directory, with its length. What connections leave that the process ended with holds nothing.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let walk = walkdir::WalkDir::new(dir).sort_by_file_name();
    let files = walk.into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let files = files.map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().len()));
    files
        .filter(|(path, len)| !path.ends_with("volume.db-shm") && (*len > 0 || !path.ends_with("volume.db-wal")))
        .collect()
}

/// It does not start, names the file and the way out, and leaves what belongs to the file as it is.
fn is_missed(agent: &mut Agent, file: &Path, way_out: &str) {
    let kept = [agent.home.join("tree/files"), file.parent().unwrap().to_owned()];
    let now = || kept.iter().map(|dir| files(dir)).collect::<Vec<_>>();
    let before = now();
    let error = agent.try_start(&["--hold"]).map(|_| ()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Data, "{error:?}");
    assert!(error.message.contains(file.to_str().unwrap()), "{error:?}");
    assert!(error.hint.as_ref().unwrap().contains(way_out), "{error:?}");
    assert_eq!(now(), before);
}

#[test]
fn a_database_that_is_gone_is_missed_and_the_head_stays() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(3);
    let mut mine = mesh.agent("mine");
    let keystore = mine.phrase.clone();
    let mount = mine.mount.clone().unwrap();
    fs::write(mount.join("synced"), noise("synced", 1 << 20)).unwrap();
    mine.sync().unwrap();
    let published = look(&mount);
    fs::write(mount.join("local"), noise("local", 100_000)).unwrap();
    fs::File::open(mount.join("local")).unwrap().sync_all().unwrap();
    let before = look(&mount);
    mine.stop();
    let aside = mine.home.join("aside");
    for name in ["volume/volume.db", "tree/worktree.db"] {
        let file = mine.home.join(name);
        for in_order in [true, false] {
            mesh.run(&mut mine);
            if in_order {
                mine.stop()
            } else {
                mine.kill()
            }
            fs::rename(&file, &aside).unwrap();
            is_missed(&mut mine, &file, RECOVER);
            fs::write(&file, "").unwrap();
            is_missed(&mut mine, &file, RECOVER);
            fs::rename(&aside, &file).unwrap();
        }
        // After the kill the newest changes are in the log alone.
        let log = mine.home.join(format!("{name}-wal"));
        fs::rename(&log, &aside).unwrap();
        is_missed(&mut mine, &log, "put the log back");
        fs::rename(&aside, &log).unwrap();
    }
    // What is on the mesh is as it was.
    let (other, _) = mesh.recovered("other", &keystore);
    assert_same(&published, &look(&other.mount.clone().unwrap()));
    drop(other);
    mesh.run(&mut mine);
    assert_same(&before, &look(&mount));
    mine.stop();
    // A catalog from before the last sync knows nothing of the tree's root.
    let early = mine.home.join("volume/volume.db");
    let old = fs::read(&early).unwrap();
    mesh.run(&mut mine);
    mine.sync().unwrap();
    mine.stop();
    let new = fs::read(&early).unwrap();
    fs::write(&early, old).unwrap();
    is_missed(&mut mine, &early, RECOVER);
    fs::write(&early, new).unwrap();
    mesh.run(&mut mine);
    assert_same(&before, &look(&mount));
}
