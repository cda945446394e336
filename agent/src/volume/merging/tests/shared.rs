//! What somebody else puts into a volume that they have a part in.

use hypernet_core::share::members::Role;
use hypernet_core::tree::{self, Entry, FileKind, Inode, Target};

use super::*;
use crate::people::Contacts;
use crate::people::contact::Contact;
use crate::share::granting::Guest;
use crate::volume::double;
use crate::volume::sync::{Publication, publish};

const SHARED: VolumeId = VolumeId([0xc; 16]);
const ALICE: u8 = 31;
const BEN: u8 = 32;
const MALLORY: u8 = 33;

fn knows(one: &Volume, other: &Volume) -> Contact {
    let (name, identity) = (format!("{:.8}", other.identity.id().to_string()), &other.identity);
    Contacts::of(one.identity.keystore()).add(&name, identity.id(), identity.address()).unwrap()
}

/// Makes what a name leads to.
type Bend<'a> = dyn Fn(&mut Writer, Dot, &Root) -> Target + 'a;

/// Somebody who has a part in a volume that is shared, and a program that publishes anything.
struct Guestly {
    _dir: TempDir,
    _main: Arc<Volume>,
    volume: Arc<Volume>,
}

impl Guestly {
    /// They may write in what this one shares.
    fn of(mesh: &Mesh, owner: &Volume, shared: &Volume, who: u8) -> Self {
        Self::with(mesh, owner, shared, (who, Role::Writer))
    }

    fn with(mesh: &Mesh, owner: &Volume, shared: &Volume, (who, role): (u8, Role)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let main = mesh.person(dir.path(), who);
        shared.grant(vec![Guest::find(shared, knows(owner, &main)).unwrap()], role).unwrap();
        owner.put_offers().unwrap();
        owner.identity.confirm().unwrap();
        let volume = Arc::new(Volume::below(&main, SHARED).unwrap());
        let offered = main.offered_by(&knows(&main, owner)).unwrap();
        volume.accept(offered[0].offer.clone()).unwrap();
        volume.recover(None, &mut |_| ()).unwrap();
        Self { _dir: dir, _main: main, volume }
    }

    fn entries(&self) -> Vec<Entry> {
        let Content::Directory(tree) = state::latest(&self.volume.db).unwrap().unwrap().root.inode.content else {
            panic!("no directory")
        };
        self.volume.entries(&tree, Deadline::of_read()).unwrap()
    }

    /// Publishes a tree with one more entry in its root.
    fn publish(&self, name: &str, bend: impl Fn(&mut Writer, Dot, &Root) -> Target) {
        self.publish_as(None, &[(name, &bend)]);
    }

    /// Publishes a tree without one of the entries in its root.
    fn publish_without(&self, name: &str) {
        let latest = state::latest(&self.volume.db).unwrap().unwrap();
        let sequence = self.volume.take_number().unwrap();
        let mut writer = Writer::new(self.volume.clone(), Meter::new()).unwrap();
        let mut entries = self.entries();
        entries.retain(|entry| entry.name != name.as_bytes());
        let mut root = latest.root.clone();
        root.inode.content = Content::Directory(tree::build(entries, &mut writer).unwrap());
        root.vector = join([&root.vector[..], &[self.volume.dot(sequence)]]);
        publish(&self.volume, writer, Publication::after(Some(&latest), root, sequence), &Meter::new()).unwrap();
    }

    /// The same of several entries; as done by another device, if one is given.
    fn publish_as(&self, other: Option<Dot>, new: &[(&str, &Bend<'_>)]) {
        let latest = state::latest(&self.volume.db).unwrap().unwrap();
        let sequence = self.volume.take_number().unwrap();
        let dot = other.unwrap_or(self.volume.dot(sequence));
        let mut writer = Writer::new(self.volume.clone(), Meter::new()).unwrap();
        let mut entries = self.entries();
        for (name, bend) in new {
            let target = bend(&mut writer, dot, &latest.root);
            entries.push(Entry { name: name.as_bytes().to_vec(), dot, target });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut root = latest.root.clone();
        root.inode.content = Content::Directory(tree::build(entries, &mut writer).unwrap());
        root.vector = join([&root.vector[..], &[dot]]);
        root.parts.clear();
        publish(&self.volume, writer, Publication::after(Some(&latest), root, sequence), &Meter::new()).unwrap();
    }
}

/// A directory with one file in it, by any id.
fn directory(writer: &mut Writer, dot: Dot, like: &Inode, id: FileId) -> Target {
    let file = Inode {
        id: FileId([0xee; 16]),
        kind: FileKind::Regular,
        mode: 0o644,
        content: Content::Inline(b"bad".to_vec()),
        meta_dot: dot,
        content_dot: None,
        older: None,
        ..like.clone()
    };
    let entries = vec![Entry { name: b"bad".to_vec(), dot, target: Target::Inode(file.into()) }];
    let content = Content::Directory(tree::build(entries, writer).unwrap());
    Target::Inode(Inode { id, content, meta_dot: dot, content_dot: None, ..like.clone() }.into())
}

/// Somebody who has a directory of their own that is a volume, and one that they share.
fn alice(mesh: &Mesh) -> (Home, Arc<Volume>, Arc<Volume>) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::of(mesh.person(dir.path(), ALICE), dir);
    home.mkdir("mine");
    home.write("mine/kept", b"kept");
    home.mkdir("ours");
    home.write("ours/kept", b"kept");
    home.sync();
    let (mine, ours) = (home.split("mine", BELOW), home.split("ours", SHARED));
    [&mine, &ours, &home.volume].into_iter().for_each(|volume| home.sync_of(volume));
    let rooted = home.vfs.volumes().into_iter().find(|rooted| rooted.volume == SHARED).unwrap();
    ours.begin_share(rooted.id, "ours").unwrap();
    home.vfs.mark_changed(SHARED).unwrap();
    home.sync_of(&ours);
    (home, mine, ours)
}

#[test]
fn nobody_writes_into_a_volume_by_way_of_another_one_that_they_have_a_part_in() {
    let mesh = Mesh::new(6);
    let (home, mine, ours) = alice(&mesh);
    let [ben, mallory] = [BEN, MALLORY].map(|who| Guestly::of(&mesh, &home.volume, &ours, who));
    let root = state::latest(&mine.db).unwrap().unwrap().root;
    // What one of them names is what the other one has.
    mallory.publish("a directory", |writer, dot, like| directory(writer, dot, &like.inode, root.inode.id));
    ben.publish("a volume", |_, _, _| Target::Volume { volume: BELOW, id: root.inode.id });
    ours.hear(Ask::All).unwrap();
    let followed: Vec<Followed> = (0..3).map(|_| home.follow_of(&ours)).collect();
    assert!(!mine.take_news() && mine.splits.lock().is_empty());
    assert!(followed.contains(&Followed::Merged), "{followed:?}");
    assert_eq!(home.follow_of(&mine), Followed::Nothing);
    assert_eq!(state::latest(&mine.db).unwrap().unwrap().root, root);
    let tree = home.tree();
    assert!(tree.contains_key("mine/kept") && !tree.contains_key("mine/bad"), "{:?}", names(&tree));
    // It is a directory like any other.
    let beside = tree.keys().find(|path| path.starts_with("ours/") && path.ends_with("/bad"));
    assert!(beside.is_some(), "{:?}", names(&tree));
}

#[test]
fn nobody_writes_into_a_volume_by_what_another_device_of_its_owner_is_said_to_have_done() {
    let mesh = Mesh::new(6);
    let (home, mine, ours) = alice(&mesh);
    let [ben, mallory] = [BEN, MALLORY].map(|who| Guestly::of(&mesh, &home.volume, &ours, who));
    let dir = tempfile::tempdir().unwrap();
    let second = mesh.device_of(dir.path(), ALICE, 1);
    second.look_around().unwrap();
    home.look();
    let root = state::latest(&mine.db).unwrap().unwrap().root;
    let said = Dot { device: second.device.id().tag_in(SHARED), sequence: 1 };
    let (id, like) = (root.inode.id, root.inode.clone());
    mallory.publish_as(
        Some(said),
        &[
            ("a directory", &|writer, dot, _| directory(writer, dot, &like, id)),
            ("a volume", &|_, _, _| Target::Volume { volume: BELOW, id }),
        ],
    );
    ours.hear(Ask::All).unwrap();
    assert_eq!(home.follow_of(&ours), Followed::MovedOn);
    // It is part of what the owner's own devices say then.
    home.write("ours/more", b"more");
    home.sync_of(&ours);
    // Somebody has branched it, and merges that branch.
    let branched = state::latest(&ours.db).unwrap().unwrap().root;
    let begun = Dot { device: hypernet_core::id::DeviceTag(0x1234), sequence: 1 };
    let part = Part { vector: join([&branched.vector[..], &[begun]]), ..Part::from(&branched) };
    ours.splits.lock().push(part);
    assert_eq!(home.follow_of(&ours), Followed::Merged);
    assert!(!mine.take_news() && mine.splits.lock().is_empty());
    ours.splits.lock().clear();
    ben.publish("from ben", |writer, dot, like| directory(writer, dot, &like.inode, FileId([0xbe; 16])));
    ours.hear(Ask::All).unwrap();
    let followed: Vec<Followed> = (0..3).map(|_| home.follow_of(&ours)).collect();
    assert!(!mine.take_news() && mine.splits.lock().is_empty());
    assert!(followed.contains(&Followed::Merged), "{followed:?}");
    assert_eq!(home.follow_of(&mine), Followed::Nothing);
    assert_eq!(state::latest(&mine.db).unwrap().unwrap().root, root);
    let tree = home.tree();
    assert!(tree.contains_key("mine/kept") && !tree.contains_key("mine/bad"), "{:?}", names(&tree));
}

#[test]
fn so_many_volumes_that_nobody_has_heard_of_are_not_waited_for() {
    let mesh = Mesh::new(6);
    let (home, _, ours) = alice(&mesh);
    let dir = tempfile::tempdir().unwrap();
    mesh.device_of(dir.path(), ALICE, 1).look_around().unwrap();
    home.look();
    let other = |number: u32| {
        let mut id = [0xd; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        ours.can_enter(&home.volumes, VolumeId(id), FileId([1; 16])).unwrap()
    };
    // As often as it is looked.
    for _ in 0..2 {
        let waited = (0..1_100).filter(|number| other(*number).is_none()).count();
        assert_eq!(waited, 1_024);
        assert_eq!(other(1_099), Some(false));
    }
}

#[test]
fn a_head_that_leads_to_what_is_not_sealed_for_all_is_not_taken() {
    let mesh = Mesh::new(6);
    let (home, _, ours) = alice(&mesh);
    let mallory = Guestly::of(&mesh, &home.volume, &ours, MALLORY);
    let latest = state::latest(&mallory.volume.db).unwrap().unwrap();
    let sequence = mallory.volume.take_number().unwrap();
    let head = |extent: ExtentRef| Head {
        device: mallory.volume.device.id(),
        sequence,
        vector: join([&latest.root.vector[..], &[mallory.volume.dot(sequence)]]),
        snapshot_extent: extent,
        ..latest.head.clone()
    };
    let good = latest.head.snapshot_extent.clone();
    for (epoch, is_taken) in [(5, false), (good.epoch, true)] {
        mallory.volume.tell().unwrap();
        mallory.volume.identity.confirm().unwrap();
        mesh.forget_records_of(&mallory.volume.device.head_signer(&mallory.volume.keys()));
        mesh.keep(double::record(&mallory.volume, head(ExtentRef { epoch, ..good.clone() })));
        ours.hear(Ask::All).unwrap();
        let survey = ours.find_heads(&ours.heard_devices()).unwrap();
        assert_eq!((survey.found.len(), survey.refused.len()), (usize::from(is_taken), usize::from(!is_taken)));
    }
}

/// Which devices' heads somebody finds.
fn found_by(volume: &Volume) -> Vec<hypernet_core::id::DeviceId> {
    volume.hear(Ask::All).unwrap();
    let found = volume.find_heads(&volume.heard_devices()).unwrap().found;
    found.into_iter().map(|found| found.device.id).collect()
}

#[test]
fn what_was_there_before_a_volume_was_shared_reaches_nobody_who_gets_a_part_in_it() {
    for writes in [false, true] {
        let mesh = Mesh::new(6);
        let dir = tempfile::tempdir().unwrap();
        let one = Home::of(mesh.person(dir.path(), ALICE), dir);
        one.mkdir("ours");
        one.write("ours/kept", b"kept");
        one.sync();
        let ours = one.split("ours", SHARED);
        [&ours, &one.volume].into_iter().for_each(|volume| one.sync_of(volume));
        let dir = tempfile::tempdir().unwrap();
        let second = mesh.device_of(dir.path(), ALICE, 1);
        second.look_around().unwrap();
        let two = Home::of(second, dir);
        one.volume.identity.confirm().unwrap();
        two.look();
        one.look();
        let found = two.volume.recover(None, &mut |_| ()).unwrap();
        two.vfs.set_root(two.volume.id, found.root.inode).unwrap();
        assert!(two.tree().contains_key("ours/kept"));
        let theirs = two.volumes.of(SHARED).unwrap();
        two.write("ours/secret", b"secret");
        two.sync_of(&theirs);
        assert_eq!(one.follow_of(&ours), Followed::MovedOn);
        one.unlink("ours/secret");
        one.sync_of(&ours);
        let rooted = one.vfs.volumes().into_iter().find(|rooted| rooted.volume == SHARED).unwrap();
        ours.begin_share(rooted.id, "ours").unwrap();
        one.vfs.mark_changed(SHARED).unwrap();
        one.sync_of(&ours);
        let ben = Guestly::of(&mesh, &one.volume, &ours, BEN);
        assert_eq!(found_by(&ben.volume), [one.volume.device.id()]);
        // Those keys are old soon.
        (0..16).for_each(|_| ours.rotate().unwrap());
        one.volume.identity.confirm().unwrap();
        // The other device hears of it only now, when its tree still has what is gone, and something waits there or not.
        two.look();
        theirs.hear(Ask::Places).unwrap();
        if writes {
            two.write("ours/late", b"late");
            two.sync_of(&theirs);
            assert_eq!(found_by(&ben.volume), [one.volume.device.id()]);
            ours.hear(Ask::All).unwrap();
            assert!((0..2).any(|_| one.follow_of(&ours) == Followed::Merged));
        }
        assert!((0..2).any(|_| two.follow_of(&theirs) == Followed::MovedOn));
        assert_eq!(found_by(&ben.volume), [one.volume.device.id()]);
        // From then on it publishes for all.
        two.write("ours/after", b"after");
        two.sync_of(&theirs);
        let mut both = [one.volume.device.id(), two.volume.device.id()];
        both.sort();
        let mut found = found_by(&ben.volume);
        found.sort();
        assert_eq!(found, both);
        assert!((0..2).any(|_| one.follow_of(&ours) == Followed::MovedOn));
        let tree = one.tree();
        assert_eq!((tree.contains_key("ours/late"), tree.contains_key("ours/after")), (writes, true));
        assert!(!tree.contains_key("ours/secret"), "{:?}", names(&tree));
    }
}

#[test]
fn taking_somebody_off_that_was_broken_off_is_ended_by_a_head_of_this_device() {
    let mesh = Mesh::new(6);
    let (home, _, ours) = alice(&mesh);
    let ben = Guestly::of(&mesh, &home.volume, &ours, BEN);
    ben.publish("by ben", |writer, dot, like| directory(writer, dot, &like.inode, FileId([0xdd; 16])));
    ours.hear(Ask::All).unwrap();
    assert_eq!(home.follow_of(&ours), Followed::MovedOn);
    let head = || state::latest(&ours.db).unwrap().unwrap().head;
    assert_eq!(head().device, ben.volume.device.id());
    let epoch = ours.keys().epoch;
    ours.remove(&[ben.volume.identity.id()]).unwrap();
    // The agent is killed here, before it says that there is something to publish.
    assert_eq!(home.vfs.pending(SHARED).files, 0);
    home.follow_of(&ours);
    assert!(home.vfs.pending(SHARED).files > 0);
    home.sync_of(&ours);
    assert_eq!(head().device, home.volume.device.id());
    assert!(head().snapshot_extent.epoch > epoch, "{:?}", head().snapshot_extent);
    assert!(home.tree().contains_key("ours/by ben/bad"));
    // And once is enough.
    home.follow_of(&ours);
    assert_eq!(home.vfs.pending(SHARED).files, 0);
}

#[test]
fn a_volume_of_somebody_else_goes_from_a_shared_one_when_whoever_may_write_there_takes_it_out() {
    let mesh = Mesh::new(6);
    let (home, mine, ours) = alice(&mesh);
    let ben = Guestly::of(&mesh, &home.volume, &ours, BEN);
    let theirs = VolumeId([0xf; 16]);
    ben.publish("theirs", |_, _, _| Target::Volume { volume: theirs, id: FileId([0xdd; 16]) });
    ours.hear(Ask::All).unwrap();
    assert_eq!(home.follow_of(&ours), Followed::MovedOn);
    let has = |volume: VolumeId| home.vfs.volumes().iter().any(|rooted| rooted.volume == volume);
    assert!(has(theirs));
    ben.publish_without("theirs");
    assert_eq!(home.follow_of(&ours), Followed::MovedOn);
    assert!(!has(theirs) && has(mine.id));
    // The owner takes one out as well, and all move on.
    ben.publish("again", |_, _, _| Target::Volume { volume: theirs, id: FileId([0xdd; 16]) });
    assert_eq!(home.follow_of(&ours), Followed::MovedOn);
    home.vfs.detach(theirs, false).unwrap();
    home.sync_of(&ours);
    assert!(!has(theirs));
}

/// Who only reads publishes no head that says what it does not need any more.
#[test]
fn who_only_reads_keeps_nothing_that_those_who_write_have_let_go_of() {
    let mesh = Mesh::new(6);
    let (home, mine, ours) = alice(&mesh);
    let reader = Guestly::with(&mesh, &home.volume, &ours, (BEN, Role::Reader)).volume;
    assert!(reader.may_write().is_err() && reader.role() == Some(Role::Reader));
    let of = |volume: &Volume| -> Vec<Placement> {
        let rows = volume.db.segments_iter(0, 999).unwrap();
        rows.iter().map(|row| codec::decode(&row.descriptor).unwrap()).collect()
    };
    // What is in the catalog that it stands on, and what is not.
    let (needed, other) = (of(&reader), of(&mine));
    let other: Vec<Placement> = other.into_iter().filter(|one| !needed.contains(one)).take(1).collect();
    reader.tended().confirmed(needed).unwrap();
    let rows = reader.db.leases_iter(0, 999).unwrap().len();
    reader.tended().confirmed(other.clone()).unwrap();
    let released = reader.release(&home.vfs, 0).unwrap();
    assert!(released.bytes > 0 && released.waits.is_empty(), "{released:?}");
    assert_eq!(reader.db.leases_iter(0, 999).unwrap().len(), rows);
    assert!(reader.db.leases_of(&other[0].segment.id()).unwrap().is_empty());

    // Nor does it renew anything when it has no part in it any more.
    for row in reader.db.leases_iter(0, 999).unwrap() {
        reader.db.change_leases(&[hypernet_store::volume::LeaseChange::Renewed(row.number, 1)]).unwrap();
    }
    let ends = || reader.db.leases_iter(0, 999).unwrap().iter().filter(|row| row.until == 1).count();
    assert_eq!(ends(), rows);
    ours.remove(&[reader.identity.id()]).unwrap();
    reader.hear(Ask::All).unwrap();
    assert_eq!(reader.role(), None);
    reader.renew_leases().unwrap();
    assert_eq!(ends(), rows);
}
