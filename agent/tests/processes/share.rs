//! Directories that several people have.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api;
use hypernet_sdk::client::Error;

use super::mesh::{Agent, Mesh, PATIENCE};
use super::secrets::{assert_not_logged, of_shares, written};
use super::tree::{assert_same, look, noise, plant};

mod links;

impl Agent {
    fn id(&self) -> api::IdInfo {
        self.call(async |client| client.id().await).unwrap()
    }

    fn knows(&self, other: &Self, name: &str) {
        let request = api::AddContactRequest { address: other.id().address, name: name.into() };
        // Who has just begun may not be on the mesh yet.
        let begun = Instant::now();
        while let Err(error) = self.call(async |client| client.add_contact(&request).await) {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
    }

    pub(super) fn share_with(&self, path: &str, with: &[&str], role: api::ShareRole) -> Result<api::ShareInfo, Error> {
        let with = with.iter().map(ToString::to_string).collect();
        let request = api::ShareRequest { path: path.into(), with, role, ..api::ShareRequest::default() };
        self.call(async |client| client.share(&request).await)
    }

    fn link_to(&self, path: &str) -> String {
        let request = api::ShareRequest { path: path.into(), link: true, ..api::ShareRequest::default() };
        self.call(async |client| client.share(&request).await).unwrap().made.unwrap()
    }

    fn writing_link_to(&self, path: &str) -> api::ShareInfo {
        let link_role = api::ShareRole::Writer;
        let request = api::ShareRequest { path: path.into(), link: true, link_role, ..api::ShareRequest::default() };
        self.call(async |client| client.share(&request).await).unwrap()
    }

    fn take_back(&self, path: &str, link: &str) -> Result<api::ShareInfo, Error> {
        let links = vec![link.to_owned()];
        let request = api::UnshareRequest { path: path.into(), links, ..api::UnshareRequest::default() };
        self.call(async |client| client.unshare(&request).await)
    }

    fn detach(&self, path: &str) -> Result<api::ShareInfo, Error> {
        let request = api::DetachRequest { path: path.into(), discard: false };
        self.call(async |client| client.detach(&request).await)
    }

    /// The same with what is only here.
    fn give_up(&self, path: &str) -> Result<api::ShareInfo, Error> {
        let request = api::DetachRequest { path: path.into(), discard: true };
        self.call(async |client| client.detach(&request).await)
    }

    fn unshare(&self, path: &str, with: &[&str], all_links: bool) -> Result<api::ShareInfo, Error> {
        let with = with.iter().map(ToString::to_string).collect();
        let request = api::UnshareRequest { path: path.into(), with, all_links, ..api::UnshareRequest::default() };
        self.call(async |client| client.unshare(&request).await)
    }

    /// Writes where it has no part any more: who has heard of that is refused at once, who has not when it syncs.
    fn writes_in_vain(&self, path: &str) {
        match fs::write(self.below(path), "too late") {
            Ok(()) => {
                let refused = self.sync().unwrap_err();
                assert!(refused.message.contains("no part in"), "{refused:?}");
            }
            Err(error) => assert_eq!(code(error), libc::EROFS),
        }
    }

    fn shares(&self) -> api::SharesInfo {
        self.call(async |client| client.shares().await).unwrap()
    }

    pub(super) fn attach(&self, share: &str, path: &str) -> Result<api::ShareInfo, Error> {
        let request = api::AttachRequest { share: share.into(), path: path.into() };
        self.call(async |client| client.attach(&request).await)
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

fn code(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap()
}

/// Two who have each other among their contacts.
pub(super) fn acquainted(mesh: &Mesh) -> (Agent, Agent) {
    let (carl, anna) = (mesh.agent("carl"), mesh.agent("anna"));
    carl.knows(&anna, "anna");
    anna.knows(&carl, "carl");
    (carl, anna)
}

#[test]
fn two_people_have_one_directory_until_one_of_them_is_taken_off() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, mut anna) = (mesh.agent("carl"), mesh.agent("anna"));
    fs::create_dir(carl.below("shared")).unwrap();
    plant(&carl.below("shared"));
    fs::write(carl.below("shared/large"), noise("large", 8 << 20)).unwrap();
    carl.sync().unwrap();
    carl.knows(&anna, "anna");
    anna.knows(&carl, "carl");
    assert!(anna.shares().offers.is_empty());

    let shared = carl.share_with("/shared", &["anna"], api::ShareRole::Writer).unwrap();
    let roles: Vec<_> = shared.members.iter().map(|one| (one.name.as_deref(), one.role, one.you)).collect();
    assert!(roles.contains(&(Some("anna"), api::ShareRole::Writer, false)), "{roles:?}");
    assert!(roles.contains(&(None, api::ShareRole::Owner, true)), "{roles:?}");
    let report = carl.sync().unwrap();
    assert!(report.bytes < 1 << 10 && report.bytes_stored < 4 << 20, "nothing was uploaded again: {report:?}");
    let offers = anna.shares().offers;
    let names: Vec<_> = offers.iter().map(|offer| (offer.share.as_str(), offer.role, offer.attached)).collect();
    assert_eq!(names, [("carl/shared", api::ShareRole::Writer, false)]);

    let missing = anna.attach("carl/nothing", "/there").unwrap_err().to_string();
    assert!(missing.contains("nothing that is offered is called carl/nothing"), "{missing}");
    fs::write(anna.below("taken"), b"mine").unwrap();
    let taken = anna.attach("carl/shared", "/taken").unwrap_err().to_string();
    assert!(taken.contains("something called taken already"), "{taken}");
    anna.attach("carl/shared", "/from carl").unwrap();
    let twice = anna.attach("carl/shared", "/again").unwrap_err().to_string();
    assert!(twice.contains("attached already, at /from carl"), "{twice}");
    assert_same(&look(&carl.below("shared")), &look(&anna.below("from carl")));
    let across = fs::rename(anna.below("taken"), anna.below("from carl/taken")).unwrap_err();
    assert_eq!(code(across), libc::EXDEV);

    // What one writes the other one has.
    fs::write(anna.below("from carl/by anna"), noise("anna", 1 << 20)).unwrap();
    fs::remove_file(anna.below("from carl/large")).unwrap();
    anna.sync().unwrap();
    carl.sync_until("what anna wrote", |carl| carl.below("shared/by anna").exists());
    assert_same(&look(&anna.below("from carl")), &look(&carl.below("shared")));
    fs::write(carl.below("shared/by carl"), b"for anna").unwrap();
    carl.sync().unwrap();
    anna.sync_until("what carl wrote", |anna| anna.below("from carl/by carl").exists());
    assert_same(&look(&anna.below("from carl")), &look(&carl.below("shared")));

    // Her agent is killed, and knows all of it afterwards.
    anna.kill();
    mesh.run(&mut anna);
    assert_same(&look(&anna.below("from carl")), &look(&carl.below("shared")));

    let left = carl.unshare("/shared", &["anna"], false).unwrap();
    assert_eq!((left.members.len(), left.epoch), (1, 2));
    fs::write(carl.below("shared/secret"), b"not for anna").unwrap();
    carl.sync().unwrap();
    // She has what she had, and nothing of what comes after; what she writes now nobody takes, and she is told.
    let _ = anna.sync();
    assert!(!anna.below("from carl/secret").exists());
    assert_eq!(read(&anna.below("from carl/by carl")).unwrap(), b"for anna");
    anna.writes_in_vain("from carl/late");
    carl.sync().unwrap();
    assert!(!carl.below("shared/late").exists());
    assert_eq!(read(&carl.below("shared/secret")).unwrap(), b"not for anna");
    // What was written before is sealed anew, while it is read and written, and over a crash.
    let before = look(&carl.below("shared"));
    let rekey = api::UnshareRequest { path: "/shared".into(), rekey: true, ..api::UnshareRequest::default() };
    let begun = carl.call(async |client| client.unshare(&rekey).await).unwrap();
    assert!(begun.rekeying && begun.epoch == 3, "{begun:?}");
    carl.sync().unwrap();
    let query = api::ShareQuery { path: "/shared".into() };
    let begun = Instant::now();
    while carl.call(async |client| client.share_show(&query).await).unwrap().rekeying {
        assert!(begun.elapsed() < PATIENCE, "{}", carl.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_same(&before, &look(&carl.below("shared")));
    assert!(carl.drop_cache().files > 10);
    assert_same(&before, &look(&carl.below("shared")));
    assert_eq!(carl.fsck().problems, Vec::<String>::new());
    // Her own tree goes on.
    fs::write(anna.below("taken"), b"changed").unwrap();
    let offers = anna.shares().offers;
    assert!(offers.is_empty(), "{offers:?}");
}

#[test]
fn what_was_attached_is_detached_and_is_all_there_when_it_is_attached_again() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, mut anna) = (mesh.agent("carl"), mesh.agent("anna"));
    fs::create_dir(carl.below("shared")).unwrap();
    plant(&carl.below("shared"));
    carl.knows(&anna, "anna");
    anna.knows(&carl, "carl");
    carl.share_with("/shared", &["anna"], api::ShareRole::Writer).unwrap();
    anna.attach("carl/shared", "/theirs").unwrap();
    assert_same(&look(&carl.below("shared")), &look(&anna.below("theirs")));
    fs::create_dir(anna.below("own")).unwrap();

    let says = |agent: &Agent, path: &str, what: &str| match agent.detach(path) {
        Err(Error::Api(refused)) => {
            assert!(refused.message.contains(what) && refused.hint.is_some(), "{path}: {refused:?}");
        }
        other => panic!("{path}: {other:?}"),
    };
    says(&anna, "/", "the whole tree");
    says(&anna, "/own", "nothing was attached there");
    says(&carl, "/shared", "is yours");
    assert_eq!(code(fs::remove_dir(anna.below("theirs")).unwrap_err()), libc::EBUSY);
    fs::write(anna.below("theirs/new"), b"only here").unwrap();
    says(&anna, "/theirs", "not synced");
    anna.sync().unwrap();
    let open = fs::File::open(anna.below("theirs/new")).unwrap();
    says(&anna, "/theirs", "in use by a program");
    drop(open);

    let detached = anna.detach("/theirs").unwrap();
    assert_eq!(detached.path, None);
    assert!(!anna.below("theirs").exists());
    let shares = anna.shares();
    assert_eq!((shares.shares.len(), shares.shares[0].path.as_ref(), shares.offers[0].attached), (1, None, false));
    anna.sync().unwrap();
    anna.kill();
    mesh.run(&mut anna);
    assert!(!anna.below("theirs").exists() && anna.below("own").exists());
    carl.sync_until("what anna wrote", |carl| carl.below("shared/new").exists());

    anna.attach("carl/shared", "/theirs").unwrap();
    assert_same(&look(&carl.below("shared")), &look(&anna.below("theirs")));
    fs::write(anna.below("theirs/more"), b"goes on").unwrap();
    anna.sync().unwrap();
    carl.sync_until("what anna wrote", |carl| carl.below("shared/more").exists());

    // Who has no part in it any more, and has written something that nobody takes, is rid of it all the same.
    fs::write(anna.below("theirs/late"), b"too late").unwrap();
    fs::remove_file(anna.below("theirs/more")).unwrap();
    let snap = api::SnapRequest { path: "/theirs".into(), message: String::new(), command: false };
    anna.call(async |client| client.snap(&snap).await).unwrap();
    carl.unshare("/shared", &["anna"], false).unwrap();
    assert!(anna.sync().is_err());
    says(&anna, "/theirs", "not on the mesh yet");
    anna.give_up("/theirs").unwrap();
    assert!(!anna.below("theirs").exists());
    anna.sync().unwrap();
    assert_eq!(anna.status().volume.unwrap().dirty_files, 0);
    assert_eq!(anna.fsck().problems, Vec::<String>::new());
    carl.sync().unwrap();
    assert!(carl.below("shared/more").exists() && !carl.below("shared/late").exists());
    // Whoever may read it again sees what there is, and what comes.
    carl.share_with("/shared", &["anna"], api::ShareRole::Reader).unwrap();
    anna.attach("carl/shared", "/theirs").unwrap();
    fs::write(carl.below("shared/after"), b"after").unwrap();
    carl.sync().unwrap();
    anna.sync_until("what carl wrote", |anna| anna.below("theirs/after").exists());
}

#[test]
fn who_has_no_part_in_it_and_stands_still_keeps_nobody_from_sharing() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let (carl, anna, ben) = (mesh.agent("carl"), mesh.agent("anna"), mesh.agent("ben"));
    fs::create_dir(carl.below("shared")).unwrap();
    fs::write(carl.below("shared/one"), noise("one", 1 << 20)).unwrap();
    carl.knows(&anna, "anna");
    carl.knows(&ben, "ben");
    anna.knows(&carl, "carl");
    ben.knows(&carl, "carl");
    carl.sync().unwrap();

    ben.signal("-STOP");
    let shared = carl.share_with("/shared", &["anna"], api::ShareRole::Reader).unwrap();
    assert_eq!(shared.members.len(), 2, "{shared:?}");
    carl.sync().unwrap();
    let names: Vec<_> = anna.shares().offers.into_iter().map(|offer| offer.share).collect();
    assert_eq!(names, ["carl/shared"]);
    anna.attach("carl/shared", "/from carl").unwrap();
    assert_same(&look(&carl.below("shared")), &look(&anna.below("from carl")));
    let left = carl.unshare("/shared", &["anna"], false).unwrap();
    assert_eq!((left.members.len(), left.epoch), (1, 2));
    carl.sync().unwrap();
    assert!(anna.shares().offers.is_empty());

    // He goes on, and what was said meanwhile he hears.
    carl.share_with("/shared", &["ben"], api::ShareRole::Reader).unwrap();
    ben.signal("-CONT");
    let begun = Instant::now();
    while ben.shares().offers.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{}", ben.log());
    }
    ben.attach("carl/shared", "/from carl").unwrap();
    assert_same(&look(&carl.below("shared")), &look(&ben.below("from carl")));
}

#[test]
fn what_another_device_changed_in_a_directory_before_it_heard_that_it_is_shared_is_in_the_share() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna) = (mesh.agent("carl"), mesh.agent("anna"));
    fs::create_dir(carl.below("shared")).unwrap();
    plant(&carl.below("shared"));
    fs::write(carl.below("shared/both"), b"before").unwrap();
    fs::create_dir(carl.below("shared/sub")).unwrap();
    carl.sync().unwrap();
    let (other, _) = mesh.recovered("other", &carl.phrase.clone());
    // It has not heard of anything, and nothing of it is uploaded.
    fs::write(other.below("shared/both"), b"changed").unwrap();
    fs::write(other.below("shared/sub/of the other"), b"new").unwrap();
    fs::rename(other.below("shared/sub"), other.below("shared/renamed")).unwrap();
    fs::write(other.below("elsewhere"), b"elsewhere").unwrap();

    carl.knows(&anna, "anna");
    anna.knows(&carl, "carl");
    carl.share_with("/shared", &["anna"], api::ShareRole::Writer).unwrap();
    fs::write(carl.below("shared/of carl"), b"carl").unwrap();
    carl.sync().unwrap();
    anna.attach("carl/shared", "/theirs").unwrap();
    fs::write(anna.below("theirs/of anna"), b"anna").unwrap();
    anna.sync().unwrap();

    other.sync_until("what carl and anna wrote", |other| {
        ["of carl", "of anna", "renamed/of the other"].iter().all(|name| other.below("shared").join(name).exists())
    });
    assert_eq!(read(&other.below("shared/both")).unwrap(), b"changed");
    carl.sync_until("what the other device wrote", |carl| {
        carl.below("shared/renamed/of the other").exists() && carl.below("elsewhere").exists()
    });
    anna.sync_until("what the other device wrote", |anna| anna.below("theirs/renamed/of the other").exists());
    other.sync().unwrap();
    assert_same(&look(&carl.below("shared")), &look(&other.below("shared")));
    assert_same(&look(&carl.below("shared")), &look(&anna.below("theirs")));
    let conflicts = fs::read_dir(carl.below("shared"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("conflict"));
    assert_eq!(conflicts.count(), 0);
    for agent in [&carl, &anna, &other] {
        assert_eq!(agent.fsck().problems, Vec::<String>::new());
    }
}

#[test]
fn no_log_has_what_opens_a_share_at_any_level() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(3);
    let mut agents = [mesh.agent("carl"), mesh.agent("anna")];
    for agent in &mut agents {
        agent.stop();
        mesh.run_with(agent, &[("HN_LOG", "trace")]);
    }
    let [carl, anna] = &agents;
    for dir in ["shared", "read", "write"] {
        fs::create_dir(carl.below(dir)).unwrap();
        fs::write(carl.below(dir).join("file"), dir).unwrap();
    }
    carl.knows(anna, "anna");
    anna.knows(carl, "carl");
    carl.share_with("/shared", &["anna"], api::ShareRole::Writer).unwrap();
    let links = [carl.link_to("/read"), carl.writing_link_to("/write").links.pop().unwrap().link];
    carl.sync().unwrap();
    anna.attach("carl/shared", "/theirs").unwrap();
    anna.attach(&links[0], "/read").unwrap();
    anna.attach(&links[1], "/write").unwrap();
    fs::write(anna.below("write/of anna"), "anna").unwrap();
    anna.sync().unwrap();
    carl.unshare("/shared", &["anna"], false).unwrap();
    carl.take_back("/write", &links[1]).unwrap();
    carl.sync().unwrap();
    let _ = anna.sync();
    for agent in &mut agents {
        agent.stop();
    }
    let mut secrets: Vec<String> = links.iter().map(|link| link.to_lowercase()).collect();
    let opens: Vec<Vec<u8>> = agents.iter().flat_map(of_shares).collect();
    // Of each of them a secret and an epoch at least, one more epoch where somebody was taken off, and the links.
    assert!(opens.len() >= 3 * 2 + 2 + 2 + 3 * 2 + 2, "{}", opens.len());
    secrets.extend(opens.iter().flat_map(|bytes| written(bytes)));
    agents.iter().for_each(|agent| assert_not_logged(agent, &secrets));
}

#[test]
fn what_a_member_has_synced_before_it_is_taken_off_is_part_of_the_share() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna) = acquainted(&mesh);
    for (dir, is_followed) in [("followed", true), ("not followed", false)] {
        fs::create_dir(carl.below(dir)).unwrap();
        fs::write(carl.below(dir).join("file"), "carl").unwrap();
        carl.share_with(&format!("/{dir}"), &["anna"], api::ShareRole::Writer).unwrap();
        anna.attach(&format!("carl/{dir}"), &format!("/{dir}")).unwrap();
        fs::write(anna.below(dir).join("first"), "anna").unwrap();
        anna.sync().unwrap();
        if is_followed {
            carl.sync_until("what anna wrote", |carl| carl.below(dir).join("first").exists());
        }
        fs::write(anna.below(dir).join("acknowledged"), "anna").unwrap();
        anna.sync().unwrap();
        carl.unshare(&format!("/{dir}"), &["anna"], false).unwrap();
        carl.sync_until("what anna wrote before", |carl| carl.below(dir).join("acknowledged").exists());
        anna.writes_in_vain(&format!("{dir}/late"));
        anna.give_up(&format!("/{dir}")).unwrap();
        carl.sync().unwrap();
        assert!(!carl.below(dir).join("late").exists());
    }
}

#[test]
fn a_volume_of_which_snapshots_are_kept_is_shared_when_they_are_let_go_of() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna) = acquainted(&mesh);
    fs::create_dir(carl.below("dir")).unwrap();
    fs::write(carl.below("dir/secret"), "secret").unwrap();
    carl.make_volume("/dir").unwrap();
    carl.sync().unwrap();
    let snap = api::SnapRequest { path: "/dir".into(), message: "before".into(), command: false };
    let taken = carl.call(async |client| client.snap(&snap).await).unwrap();
    fs::remove_file(carl.below("dir/secret")).unwrap();
    carl.sync().unwrap();
    let refused = carl.share_with("/dir", &["anna"], api::ShareRole::Reader).unwrap_err();
    assert!(refused.to_string().contains("1 snapshots are kept"), "{refused}");
    assert!(carl.shares().shares.is_empty());
    let prune = api::PruneRequest {
        path: "/dir".into(),
        revisions: vec![taken.snapshot.id],
        policy: None,
        all: false,
        dry_run: false,
    };
    carl.call(async |client| client.prune(&prune).await).unwrap();
    carl.share_with("/dir", &["anna"], api::ShareRole::Reader).unwrap();
    anna.attach("carl/dir", "/theirs").unwrap();
    let log = api::LogRequest { path: "/theirs".into(), limit: None };
    assert!(anna.call(async |client| client.snapshots(&log).await).unwrap().is_empty());
}

#[test]
fn a_directory_and_one_in_it_that_two_devices_share_apart_from_one_another_lose_nothing() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna, ben) = (mesh.agent("carl"), mesh.agent("anna"), mesh.agent("ben"));
    fs::create_dir_all(carl.below("both")).unwrap();
    fs::create_dir_all(carl.below("outer/inner")).unwrap();
    fs::write(carl.below("outer/inner/file"), "before").unwrap();
    carl.knows(&anna, "anna");
    carl.knows(&ben, "ben");
    carl.sync().unwrap();
    let (other, _) = mesh.recovered("other", &carl.phrase.clone());
    fs::write(other.below("outer/inner/of the other"), "1").unwrap();
    fs::write(other.below("both/of the other"), "1").unwrap();
    other.share_with("/outer/inner", &["anna", "ben"], api::ShareRole::Writer).unwrap();
    other.share_with("/both", &["anna"], api::ShareRole::Writer).unwrap();
    fs::write(carl.below("outer/inner/of carl"), "2").unwrap();
    fs::write(carl.below("outer/inner/file"), "after").unwrap();
    fs::write(carl.below("both/of carl"), "2").unwrap();
    carl.share_with("/outer", &["anna", "ben"], api::ShareRole::Writer).unwrap();
    carl.share_with("/both", &["anna"], api::ShareRole::Writer).unwrap();
    fs::write(carl.below("outer/inner/later of carl"), "3").unwrap();
    carl.sync().unwrap();
    other.sync().unwrap();
    // Of two volumes of one directory one has another name.
    let both = |agent: &Agent| {
        let entries = fs::read_dir(agent.below("")).unwrap().map(|entry| entry.unwrap().path());
        let both = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("both"));
        let mut names: Vec<_> =
            both.flat_map(|path| fs::read_dir(path).unwrap()).map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // What was done in a directory of one volume that is another one for the other device is kept beside that: others have a part
    // in the first one, and not all that stands there is for the second one to take.
    let beside = |agent: &Agent| {
        let entries = fs::read_dir(agent.below("outer")).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("inner (conflict of "))
    };
    for agent in [&carl, &other, &carl] {
        agent.sync_until("what the other one wrote", |agent| {
            let is_beside = |path: PathBuf| {
                ["of carl", "later of carl"].iter().all(|name| path.join(name).exists())
                    && read(&path.join("file")).is_some_and(|content| content == b"after")
            };
            agent.below("outer/inner/of the other").exists()
                && beside(agent).is_some_and(is_beside)
                && both(agent) == ["of carl", "of the other"]
        });
    }
    assert_same(&look(&carl.below("")), &look(&other.below("")));

    // Anna has both: the inner one has one place in her tree, and what she writes in the outer one takes it from nobody.
    anna.knows(&carl, "carl");
    anna.attach("carl/inner", "/inner").unwrap();
    anna.attach("carl/outer", "/outer").unwrap();
    fs::write(anna.below("outer/of anna"), "4").unwrap();
    fs::write(anna.below("inner/of anna"), "4").unwrap();
    anna.sync().unwrap();
    for agent in [&carl, &other] {
        agent.sync_until("what anna wrote", |agent| {
            agent.below("outer/of anna").exists() && agent.below("outer/inner/of anna").exists()
        });
        fs::write(agent.below(&format!("outer/by {}", agent.home.file_name().unwrap().display())), "5").unwrap();
        agent.sync().unwrap();
    }
    for agent in [&carl, &other] {
        agent.sync_until("what both wrote", |agent| {
            ["by carl", "by other"].iter().all(|name| agent.below("outer").join(name).exists())
        });
    }
    // The other way round it is found in the outer one, when it is taken.
    ben.knows(&carl, "carl");
    ben.attach("carl/outer", "/outer").unwrap();
    assert!(ben.below("outer/of anna").exists());
    let inner = ben.attach("carl/inner", "/inner").unwrap();
    assert_eq!(inner.path.unwrap(), Path::new("/outer/inner"));
    assert_eq!(read(&ben.below("outer/inner/of anna")).unwrap(), b"4");
    for agent in [&carl, &other, &anna, &ben] {
        assert_eq!(agent.fsck().problems, Vec::<String>::new());
        // And nobody has anything against anybody.
        let peers = agent.call(async |client| client.peers().await).unwrap();
        assert!(peers.iter().all(|peer| peer.note.is_none()), "{peers:?}");
    }
}

#[test]
fn what_somebody_changed_in_what_became_a_volume_of_others_is_kept_beside_it_and_nobody_is_kept_from_anything() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna, ben) = (mesh.agent("carl"), mesh.agent("anna"), mesh.agent("ben"));
    fs::create_dir_all(carl.below("outer/inner")).unwrap();
    fs::write(carl.below("outer/inner/file"), "before").unwrap();
    fs::write(carl.below("outer/inner/kept"), "before").unwrap();
    carl.sync().unwrap();
    let (other, _) = mesh.recovered("other", &carl.phrase.clone());
    other.make_volume("/outer/inner").unwrap();
    for (guest, name) in [(&anna, "anna"), (&ben, "ben")] {
        carl.knows(guest, name);
        guest.knows(&carl, "carl");
    }
    carl.share_with("/outer", &["anna", "ben"], api::ShareRole::Writer).unwrap();
    carl.sync().unwrap();
    for guest in [&anna, &ben] {
        guest.attach("carl/outer", "/outer").unwrap();
        assert!(guest.below("outer/inner/kept").exists());
    }
    fs::write(anna.below("outer/inner/by anna"), "new").unwrap();
    fs::write(anna.below("outer/inner/file"), "after").unwrap();
    fs::write(ben.below("outer/of ben"), "1").unwrap();
    let has_inner = |agent: &Agent| {
        // Whoever looks into it has all of it.
        fs::read_dir(agent.below("outer")).unwrap().for_each(|entry| drop(entry.unwrap()));
        let volumes = agent.call(async |client| client.volumes().await).unwrap();
        volumes.iter().any(|one| one.path == Path::new("/outer/inner"))
    };
    for agent in [&other, &carl, &other] {
        agent.sync().unwrap();
        agent.sync_until("the volume in the one that is shared", |agent| {
            has_inner(agent) && agent.shares().shares.iter().any(|one| one.path.is_some())
        });
    }

    let beside = |agent: &Agent| {
        let entries = fs::read_dir(agent.below("outer")).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("inner (conflict of "))
    };
    anna.sync_until("what anna wrote", |anna| beside(anna).is_some_and(|path| path.join("by anna").exists()));
    for agent in [&ben, &anna, &carl, &other] {
        agent.sync_until("what anna and ben wrote", |agent| {
            let kept = beside(agent).is_some_and(|path| path.join("by anna").exists());
            kept && agent.below("outer/of ben").exists()
        });
        let kept = beside(agent).unwrap();
        assert_eq!(read(&kept.join("file")).unwrap(), b"after");
        assert!(!kept.join("kept").exists());
    }
    for agent in [&carl, &other] {
        assert_eq!(read(&agent.below("outer/inner/file")).unwrap(), b"before");
        assert_eq!(read(&agent.below("outer/inner/kept")).unwrap(), b"before");
    }
    // Who has no part in it has its name, and goes on.
    let entries = fs::read_dir(anna.below("outer/inner"));
    assert!(entries.and_then(Iterator::collect::<Result<Vec<_>, _>>).is_err());
    fs::write(anna.below("outer/more"), "2").unwrap();
    anna.sync().unwrap();
    ben.sync_until("what anna wrote", |ben| ben.below("outer/more").exists());
    assert_eq!(anna.fsck().problems, Vec::<String>::new());
    let (second, _) = mesh.recovered("anna's second", &anna.phrase.clone());
    assert!(has_inner(&second));
    anna.detach("/outer").unwrap();
    assert!(!anna.below("outer").exists());
    anna.sync().unwrap();
    second.sync_until("that it is detached", |second| !second.below("outer").exists());
    carl.sync_until("what anna wrote", |carl| carl.below("outer/more").exists());
    assert_eq!(read(&carl.below("outer/inner/kept")).unwrap(), b"before");
    // What is shared stays in one place, also where another device of this identity has not heard of it.
    fs::create_dir(carl.below("late")).unwrap();
    carl.sync().unwrap();
    other.sync_until("a directory", |other| other.below("late").exists());
    fs::write(other.below("late/of the other"), "3").unwrap();
    carl.share_with("/late", &["anna"], api::ShareRole::Writer).unwrap();
    carl.sync().unwrap();
    // Where something is in use it hears of it, and stays where it is.
    let open = fs::OpenOptions::new().append(true).open(other.below("late/of the other")).unwrap();
    let is_shared = |other: &Agent| other.shares().shares.into_iter().find(|one| one.name == "late");
    other.sync_until("that it is shared", |other| is_shared(other).is_some_and(|one| one.path.is_none()));
    match other.attach("late", "/elsewhere") {
        Err(Error::Api(refused)) => assert!(refused.message.contains("in your tree already"), "{refused:?}"),
        attached => panic!("{attached:?}"),
    }
    drop(open);
    other.sync_until("it where it is", |other| is_shared(other).is_some_and(|one| one.path.is_some()));
    assert!(other.below("late/of the other").exists());
}

#[test]
fn what_was_shared_and_had_no_name_on_the_mesh_yet_is_attached_again_by_whoever_shared_it() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let (mut carl, anna) = (mesh.agent("carl"), mesh.agent("anna"));
    fs::write(carl.below("old"), "synced").unwrap();
    carl.sync().unwrap();
    fs::create_dir(carl.below("new")).unwrap();
    fs::write(carl.below("new/file"), "shared").unwrap();
    carl.knows(&anna, "anna");
    anna.knows(&carl, "carl");
    carl.share_with("/new", &["anna"], api::ShareRole::Writer).unwrap();
    anna.attach("carl/new", "/theirs").unwrap();
    // It burns down before its own tree is uploaded.
    carl.kill();
    let (again, _) = mesh.recovered("again", &carl.phrase.clone());
    assert!(!again.below("new").exists());
    again.attach("new", "/new").unwrap();
    assert_eq!(read(&again.below("new/file")).unwrap(), b"shared");
    let left = again.unshare("/new", &["anna"], false).unwrap();
    assert_eq!(left.members.len(), 1);
    fs::write(again.below("new/later"), "not for her").unwrap();
    again.sync().unwrap();
    assert!(anna.sync().is_ok() && !anna.below("theirs/later").exists());
}

#[test]
fn of_two_that_are_called_the_same_one_is_named_by_its_number() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(4);
    let (carl, anna, ben) = (mesh.agent("carl"), mesh.agent("anna"), mesh.agent("ben"));
    for (one, name) in [(&carl, "carl"), (&ben, "ben")] {
        fs::create_dir(one.below("photos")).unwrap();
        fs::write(one.below("photos/of"), name).unwrap();
        one.knows(&anna, "anna");
        anna.knows(one, name);
        one.share_with("/photos", &["anna"], api::ShareRole::Reader).unwrap();
    }
    let ambiguous = |path| {
        let refused = anna.attach("photos", path).unwrap_err().to_string();
        assert!(refused.contains("several directories are called photos"), "{refused}");
    };
    ambiguous("/photos");
    anna.attach("carl/photos", "/photos").unwrap();
    // The other one is meant where one is there already.
    let of_ben = anna.attach("photos", "/more").unwrap();
    assert_eq!(fs::read(anna.below("more/of")).unwrap(), b"ben");
    anna.give_up("/photos").unwrap();
    anna.give_up("/more").unwrap();
    ambiguous("/photos");
    anna.attach(&of_ben.volume, "/photos").unwrap();
    assert_eq!(fs::read(anna.below("photos/of")).unwrap(), b"ben");
}

#[test]
fn what_a_device_has_shared_stays_when_it_is_taken_off_by_its_number() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (mut carl, anna) = acquainted(&mesh);
    fs::create_dir(carl.below("dir")).unwrap();
    fs::write(carl.below("dir/file"), "carl").unwrap();
    carl.share_with("/dir", &["anna"], api::ShareRole::Writer).unwrap();
    carl.sync().unwrap();
    let (other, _) = mesh.recovered("other", &carl.phrase.clone());
    assert_eq!(fs::read(other.below("dir/file")).unwrap(), b"carl");
    carl.kill();
    let devices = other.call(async |client| client.devices().await).unwrap();
    let id = devices.iter().find(|device| !device.this).unwrap().id.clone();
    let request = api::RevokeDeviceRequest { name: id[..12].to_owned(), force: true, phrase: None };
    other.call(async |client| client.revoke_device(&request).await).unwrap();
    let roles: Vec<_> = other.shares().shares[0].members.iter().map(|member| member.role).collect();
    assert_eq!(roles.len(), 2, "{roles:?}");
    // What was on a device that is gone counts when one that is not has published it.
    fs::write(other.below("dir/other"), "other").unwrap();
    other.sync().unwrap();
    anna.attach("carl/dir", "/theirs").unwrap();
    fs::write(anna.below("theirs/hers"), "anna").unwrap();
    anna.sync().unwrap();
    other.sync_until("what anna wrote", |other| other.below("dir/hers").exists());
}
