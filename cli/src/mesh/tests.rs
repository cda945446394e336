//! The bookkeeping, with processes that are no agents.

use std::process::{Child, Command, Stdio};

use super::*;

/// A process that lives until the test ends, however it ends.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn identity(&self) -> Identity {
        Identity::of(self.0.id()).unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn set_up(mesh: &Mesh, number: u32) -> Peer {
    let peer = mesh.peer(number);
    fs::create_dir_all(peer.home.path()).unwrap();
    fs::write(peer.home.config(), "{}").unwrap();
    peer
}

#[test]
fn one_command_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::begin(dir.path()).unwrap();
    let failure = Mesh::begin(dir.path()).unwrap_err();
    assert_eq!(failure.exit_code(), 75);
    drop(mesh);
    Mesh::begin(dir.path()).unwrap();
}

#[test]
fn a_mesh_cannot_be_begun_where_nothing_can() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let failure = Mesh::begin(&dir.path().join("file/mesh")).unwrap_err();
    assert_eq!(failure.exit_code(), 73);
}

#[test]
fn peers_are_listed_in_order_and_only_when_set_up() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::begin(dir.path()).unwrap();
    for number in [10, 2, 1] {
        set_up(&mesh, number);
    }
    fs::create_dir(dir.path().join("peer-07")).unwrap();
    fs::create_dir(dir.path().join("peer-x")).unwrap();
    let numbers: Vec<u32> = mesh.peers().unwrap().iter().map(|peer| peer.number).collect();
    assert_eq!(numbers, [1, 2, 10]);
}

#[tokio::test]
async fn kills_whom_it_started_and_no_stranger() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::begin(dir.path()).unwrap();
    let (mine, stranger) = (Sleeper::new(), Sleeper::new());
    let (one, two) = (set_up(&mesh, 1), set_up(&mesh, 2));
    write_whole(&one.record, &mine.identity()).unwrap();
    // The number of a process that now is somebody else's.
    let mut text = serde_json::to_value(stranger.identity()).unwrap();
    text["start"] = 1.into();
    write_whole(&two.record, &text).unwrap();
    assert!(one.process().is_some());
    assert!(two.process().is_none());
    two.kill().await.unwrap();
    one.kill().await.unwrap();
    assert!(one.process().is_none());
    assert!(stranger.identity().find().is_some());
    let states = mesh.state().await.unwrap();
    assert_eq!(states.iter().map(|state| (state.number, state.running)).collect::<Vec<_>>(), [(1, false), (2, false)]);
}

#[tokio::test]
async fn stopping_one_that_does_not_listen_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::begin(dir.path()).unwrap();
    let deaf = Sleeper::new();
    let peer = set_up(&mesh, 1);
    write_whole(&peer.record, &deaf.identity()).unwrap();
    let mut stopped = Vec::new();
    stop_all(mesh.peers().unwrap(), &mut |number| stopped.push(number)).await.unwrap();
    assert_eq!(stopped, [1]);
    assert!(peer.process().is_none());
}

#[test]
fn a_damaged_record_means_nobody_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::begin(dir.path()).unwrap();
    let peer = set_up(&mesh, 1);
    fs::write(&peer.record, "{\"pid\":1").unwrap();
    assert!(peer.process().is_none());
}

#[test]
fn a_merged_link_names_every_peer_once() {
    let one = "hypernet:join/net?via=/ip4/127.0.0.1/tcp/1/p2p/A&via=/ip4/127.0.0.1/udp/2/quic-v1/p2p/A";
    let two = "hypernet:join/net?via=/ip4/127.0.0.1/tcp/3/p2p/B";
    let both = "hypernet:join/net?via=/ip4/127.0.0.1/udp/2/quic-v1/p2p/A&via=/ip4/127.0.0.1/tcp/3/p2p/B";
    assert_eq!(merged([one, two, one].into_iter()).as_deref(), Some(both));
    assert_eq!(merged(std::iter::empty()), None);
    let many: Vec<String> = (0..40).map(|n| format!("hypernet:join/net?via=/ip4/127.0.0.1/tcp/{n}/p2p/P")).collect();
    assert_eq!(merged(many.iter().map(String::as_str)).unwrap().matches("via=").count(), LINK_ADDRESSES);
}
