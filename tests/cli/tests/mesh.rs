//! `hn dev mesh`: real processes, started, killed and started again.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use hypernet_kit::{Mesh, hn};
use serde_json::{Value, json};

fn running(status: &Value) -> Vec<u64> {
    let peers = status["peers"].as_array().unwrap();
    peers.iter().filter(|peer| peer["running"] == true).map(|peer| peer["number"].as_u64().unwrap()).collect()
}

fn pids(status: &Value) -> Vec<u64> {
    status["peers"].as_array().unwrap().iter().filter_map(|peer| peer["pid"].as_u64()).collect()
}

#[test]
fn kill_revive_and_up_do_what_they_say() -> Result<()> {
    let mesh = Mesh::start(3)?;
    let first = mesh.status()?;
    assert_eq!((running(&first), first["invite"].as_str()), (vec![1, 2, 3], Some(mesh.link())));

    // Again: nothing that stands is touched.
    mesh.mesh(["up", "--peers", "3"])?.ok()?;
    assert_eq!(pids(&mesh.status()?), pids(&first));

    assert_eq!(mesh.mesh(["kill", "2"])?.ok()?.json()?, json!({ "killed": [1, 2] }));
    let status = mesh.status()?;
    assert_eq!(running(&status), [3]);
    assert!(status["invite"].as_str().unwrap().contains("hypernet:join/"), "{status}");
    assert_eq!(mesh.mesh(["kill", "2"])?.code, Some(64));
    assert_eq!(mesh.mesh(["kill", "--peer", "1"])?.code, Some(64));

    assert_eq!(mesh.mesh(["revive", "1"])?.ok()?.json()?, json!({ "revived": [1] }));
    assert_eq!(running(&mesh.status()?), [1, 3]);
    // What is missing is started, what is new is made.
    mesh.mesh(["up", "--peers", "4"])?.ok()?;
    let status = mesh.status()?;
    assert_eq!(running(&status), [1, 2, 3, 4]);
    assert_eq!(status["peers"][2]["pid"], first["peers"][2]["pid"]);
    // The same peers as before: keys and ports outlive a kill.
    assert_eq!(status["peers"][0]["status"]["peer"], first["peers"][0]["status"]["peer"]);

    assert_eq!(mesh.mesh(["down"])?.ok()?.json()?, json!({ "stopped": 4 }));
    assert_eq!(running(&mesh.status()?), Vec::<u64>::new());
    assert_eq!(mesh.mesh(["down"])?.ok()?.json()?, json!({ "stopped": 0 }));
    Ok(())
}

#[test]
fn a_mesh_that_was_never_begun_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for at in [dir.path().to_owned(), dir.path().join("never")] {
        let mesh = |args: &[&str]| hn::run(hn::command(["dev", "mesh"])?.args(args).env("HN_DEV_MESH", &at));
        for verb in ["status", "down"] {
            let said = mesh(&[verb])?.ok()?.stdout;
            assert!(said.starts_with("no mesh in ") && said.contains("hn dev mesh up"), "{said}");
        }
        assert_eq!(mesh(&["down", "--json"])?.ok()?.json()?, json!({ "stopped": 0 }));
        assert_eq!(mesh(&["status", "--json"])?.ok()?.json()?["peers"], json!([]));
        mesh(&["kill", "1"])?.fails(64, "no mesh in ", "hn dev mesh up");
        mesh(&["revive"])?.fails(64, "no mesh in ", "hn dev mesh up");
    }
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "asking left something behind");
    Ok(())
}

#[test]
fn what_kill_needs_is_named_and_nothing_else() -> Result<()> {
    let ran = hn::run(hn::command(["dev", "mesh", "kill"])?.env("HN_DEV_MESH", "/does/not/matter"))?;
    assert!(ran.stderr.contains("Usage: hn dev mesh kill [OPTIONS] <COUNT|--peer <NUMBER>>"), "{ran:?}");
    assert!(!ran.stderr.contains("--dir"), "{ran:?}");
    Ok(())
}
