//! Garbage of real working trees, over a mesh that is a map.

use super::super::double::Mesh;
use super::super::follow::Followed;
use super::super::merging::tests::{Home, homes, meet};
use super::*;

mod relying;

fn big(byte: u8, len: usize) -> Vec<u8> {
    let mut noise = blake3::Hasher::new().update(&[byte]).finalize_xof();
    let mut bytes = vec![0; len];
    noise.fill(&mut bytes);
    bytes
}

/// Bytes of all shards that somebody has a lease of.
fn stored(mesh: &Mesh) -> u64 {
    mesh.leased_bytes()
}

/// What somebody finds who has nothing but the words, by path.
fn found_by_a_newcomer(mesh: &Mesh, device: u8) -> super::super::merging::tests::Tree {
    let home = Home::new(mesh, device);
    let found = home.volume.recover(None, &mut |_| ()).unwrap();
    home.vfs.set_root(home.volume.id, found.root.inode).unwrap();
    home.tree()
}

#[test]
fn what_was_deleted_and_overwritten_is_given_back_and_nothing_else() {
    let mesh = Mesh::new(6);
    let home = homes(&mesh, 1, |home| {
        home.mkdir("dir");
        home.write("dir/kept", &big(1, 300_000));
        home.write("gone", &big(2, 900_000));
    })
    .remove(0);
    home.write("changed", &big(3, 900_000));
    home.sync();
    let before = stored(&mesh);
    home.unlink("gone");
    home.write("changed", b"short");
    home.sync();
    let tree = home.tree();

    let dry = home.volume.collect(&home.vfs, &Meter::new(), true).unwrap();
    assert!(dry.dead + dry.sparse > 0 && dry.waits.is_none(), "{dry:?}");
    assert!(stored(&mesh) >= before, "it was to say only what there is");
    let (collected, released) = home.collect().unwrap();
    assert_eq!((collected.dead, collected.sparse), (dry.dead, dry.sparse));
    assert!(released.bytes > 0 && released.waiting == 0, "{released:?}");
    let after = stored(&mesh);
    assert!(after * 2 < before, "{after} of {before} bytes are left");
    assert_eq!(found_by_a_newcomer(&mesh, 2), tree);
    // There is nothing more to be had, and what was moved is found by whoever goes on from here, too.
    let (collected, _) = home.collect().unwrap();
    assert_eq!((collected.dead, collected.sparse), (0, 0), "{collected:?}");
    home.write("new", &big(4, 5_000));
    home.sync();
    home.collect().unwrap();
    assert_eq!(found_by_a_newcomer(&mesh, 3), home.tree());
}

/// The row of a segment goes, then the pages that tell of it: what a full page said before is not read again.
#[test]
fn the_catalog_forgets_what_is_gone() {
    let mesh = Mesh::new(6);
    let home = homes(&mesh, 1, |home| home.write("first", &big(1, 200_000))).remove(0);
    for byte in 2..12 {
        home.write("changing", &big(byte, 200_000));
        home.sync();
    }
    let segments = |home: &Home| home.volume.db.counts().unwrap().segments;
    let before = segments(&home);
    home.collect().unwrap();
    home.collect().unwrap();
    assert!(segments(&home) < before / 2, "{} of {before}", segments(&home));
    assert!(home.volume.db.stale().unwrap().is_empty());
    let newcomer = Home::new(&mesh, 2);
    newcomer.volume.recover(None, &mut |_| ()).unwrap();
    assert_eq!(segments(&newcomer), segments(&home));
}

#[test]
fn what_a_snapshot_keeps_stays_until_it_is_pruned() {
    let mesh = Mesh::new(6);
    let home = homes(&mesh, 1, |home| home.write("a", &big(1, 600_000))).remove(0);
    let kept = home.volume.snap(&home.vfs, "kept".into(), false).unwrap().unwrap().kept;
    // While it waits to be published nothing is looked for.
    let waits = home.volume.collect(&home.vfs, &Meter::new(), false).unwrap().waits;
    assert!(waits.is_some_and(|why| why.contains("waits to be published")));
    home.unlink("a");
    home.sync();
    home.collect().unwrap();
    home.volume.drop_nodes(None).unwrap();
    let content = |home: &Home| {
        let root = home.volume.root_in(&kept).unwrap();
        let inode = home.volume.find_in(&root, &[b"a"]).unwrap().unwrap();
        home.volume.read(&inode.content, 0..600_000)
    };
    assert_eq!(content(&home).unwrap().iter().map(|(_, part)| part.len()).sum::<usize>(), 600_000);
    let before = stored(&mesh);
    home.volume.edit_history(&hypernet_core::history::Edit::Forget(kept.moment())).unwrap();
    home.sync();
    home.collect().unwrap();
    assert!(stored(&mesh) * 4 < before, "{} of {before}", stored(&mesh));
}

#[test]
fn whoever_has_it_open_reads_what_was_deleted() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", &big(1, 600_000)));
    let [_, two] = &homes[..] else { panic!() };
    // Nothing of it is here yet.
    let ino = two.at("a");
    let flags = hypernet_fs::vfs::OpenFlags(libc::O_RDONLY);
    let me = hypernet_fs::vfs::Caller { uid: 0, gid: 0, umask: 0 };
    two.vfs.open_file(me, ino, flags, false).unwrap();
    two.unlink("a");
    rounds(&homes, 3);
    let mut bytes = vec![0; 600_000];
    assert_eq!(two.vfs.read(ino, 0, &mut bytes).unwrap(), 600_000);
    assert_eq!(bytes, big(1, 600_000));
    two.vfs.release(ino, flags).unwrap();
}

/// Each collects what it can when it has heard of what the others have done.
fn rounds(homes: &[Home], n: usize) {
    for _ in 0..n {
        for home in homes {
            meet(homes);
            home.collect().unwrap();
        }
    }
    meet(homes);
}

#[test]
fn nothing_is_given_up_before_all_devices_have_said_that_they_do_not_rely_on_it() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| {
        home.write("kept", &big(1, 100_000));
        home.write("gone", &big(2, 3_000_000));
    });
    let [one, two, three] = &homes[..] else { panic!() };
    meet(&homes);
    one.unlink("gone");
    one.sync();
    let (collected, released) = one.collect().unwrap();
    assert!(collected.dead + collected.sparse > 0, "{collected:?}");
    assert!(released.bytes == 0 && released.waiting > 0 && !released.waits.is_empty(), "{released:?}");
    // Another one goes on from before that, and has the same content again: it finds it in its index, and it is there.
    two.write("again", &big(2, 3_000_000));
    two.sync();
    assert_eq!(one.volume.release(&one.vfs, 0).unwrap().bytes, 0);
    let tree = meet(&homes);
    // As much of it as is looked at.
    assert_eq!(tree["again"].1.as_deref(), Some(&big(2, 1 << 20)[..]));
    rounds(&homes, 4);
    assert_eq!(meet(&homes), tree);
    // When all have, it goes.
    let before = stored(&mesh);
    two.unlink("again");
    rounds(&homes, 4);
    assert!(stored(&mesh) * 2 < before, "{} of {before}", stored(&mesh));
    assert_eq!(three.follow(), Followed::Nothing);
    // A device that comes onto the list publishes before anything more is given up.
    assert_eq!(found_by_a_newcomer(&mesh, 4), meet(&homes));
    one.write("kept", b"kept");
    meet(&homes);
    let (_, released) = one.collect().unwrap();
    assert!(released.bytes == 0 && !released.waits.is_empty(), "{released:?}");
}

#[test]
fn who_placed_the_same_again_has_other_leases() {
    let mesh = Mesh::new(6);
    let home = homes(&mesh, 1, |home| home.write("kept", b"kept")).remove(0);
    home.write("a", &big(2, 900_000));
    home.sync();
    home.unlink("a");
    home.sync();
    // It is in no index any more, and given up later.
    home.volume.collect(&home.vfs, &Meter::new(), false).unwrap();
    home.sync();
    home.volume.release(&home.vfs, u64::MAX / 4).unwrap();
    home.write("a", &big(2, 900_000));
    home.sync();
    assert!(home.volume.release(&home.vfs, 0).unwrap().bytes > 0);
    assert_eq!(found_by_a_newcomer(&mesh, 2), home.tree());
}

#[test]
fn leases_are_renewed_by_whoever_has_them_and_taken_by_others_when_nobody_does() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", &big(1, 100_000)));
    let [one, two] = &homes[..] else { panic!() };
    meet(&homes);
    // All run long.
    assert_eq!(one.volume.renew_leases().unwrap().messages, 0);
    let rows = |home: &Home| home.volume.db.leases_iter(0, 999).unwrap();
    let short = |home: &Home| {
        for row in rows(home) {
            let mut placement: Placement = codec::decode(&row.descriptor).unwrap();
            placement.holders.iter_mut().for_each(|holder| holder.until.0 = 1);
            let changes =
                [LeaseChange::Renewed(row.number, 1), LeaseChange::Held(row.number, codec::encode(&placement))];
            home.volume.db.change_leases(&changes).unwrap();
        }
    };
    short(one);
    let renewed = one.volume.renew_leases().unwrap();
    assert!(renewed.shards > 0 && renewed.missing == 0, "{renewed:?}");
    // One message to each of the peers, however many shards they have.
    assert_eq!(renewed.messages, 6);
    assert!(rows(one).iter().filter(|row| row.gone.is_none()).all(|row| row.until > unix_now()));
    assert_eq!(one.volume.renew_leases().unwrap().messages, 0);

    // The other one knows of it by its index only.
    let mine = rows(two).len();
    two.volume.renew_leases().unwrap();
    assert_eq!(rows(two).len(), mine);
    let mut ended = Vec::new();
    for row in two.volume.db.segments_iter(0, 999).unwrap() {
        let mut placement: Placement = codec::decode(&row.descriptor).unwrap();
        placement.holders.iter_mut().for_each(|holder| holder.until.0 = 1);
        ended.push((row.id, codec::encode(&placement)));
    }
    two.volume.db.replace_descriptors(&ended).unwrap();
    two.volume.renew_leases().unwrap();
    assert!(ended.iter().all(|(id, _)| !two.volume.db.leases_of(id).unwrap().is_empty()));
}
