//! Directories that whoever has a link reads, or writes in.

use std::fs;
use std::path::Path;

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api;

use super::super::mesh::Mesh;
use super::super::tree::{assert_same, look, noise};
use super::code;

#[test]
fn who_reads_sees_what_is_written_and_changes_nothing_with_a_link_or_without() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna, ben) = (mesh.agent("carl"), mesh.agent("anna"), mesh.agent("ben"));
    fs::create_dir(carl.below("public")).unwrap();
    fs::write(carl.below("public/one"), noise("one", 2 << 20)).unwrap();
    carl.knows(&anna, "anna");
    anna.knows(&carl, "carl");
    carl.share_with("/public", &["anna"], api::ShareRole::Reader).unwrap();
    let link = carl.link_to("/public");
    assert!(link.starts_with("hn:hns1"), "{link}");
    carl.sync().unwrap();

    let cut = ben.attach(&link[..link.len() - 3], "/theirs").unwrap_err().to_string();
    assert!(cut.contains("cut short"), "{cut}");
    let attached = ben.attach(&link, "/theirs").unwrap();
    assert_eq!((attached.role, attached.by_link), (Some(api::ShareRole::Reader), true));
    anna.attach("shared-by-nobody", "/x").unwrap_err();
    anna.attach("public", "/theirs").unwrap();
    for reader in [&anna, &ben] {
        assert_same(&look(&carl.below("public")), &look(&reader.below("theirs")));
        let refused = [
            fs::write(reader.below("theirs/new"), b"x").unwrap_err(),
            fs::write(reader.below("theirs/one"), b"x").unwrap_err(),
            fs::remove_file(reader.below("theirs/one")).unwrap_err(),
            fs::create_dir(reader.below("theirs/dir")).unwrap_err(),
        ];
        assert_eq!(refused.map(code), [libc::EROFS; 4]);
    }
    fs::write(carl.below("public/one"), b"changed").unwrap();
    fs::write(carl.below("public/two"), b"new").unwrap();
    carl.sync().unwrap();
    for reader in [&anna, &ben] {
        reader.sync_until("what carl wrote", |reader| reader.below("theirs/two").exists());
        assert_same(&look(&carl.below("public")), &look(&reader.below("theirs")));
    }
    // The link is taken back, and Anna goes on reading.
    carl.unshare("/public", &[], true).unwrap();
    fs::write(carl.below("public/three"), b"for anna").unwrap();
    carl.sync().unwrap();
    anna.sync_until("what carl wrote", |anna| anna.below("theirs/three").exists());
    let _ = ben.sync();
    assert!(!ben.below("theirs/three").exists() && ben.below("theirs/two").exists());
    let ended = ben.attach(&link, "/again").unwrap_err().to_string();
    assert!(ended.contains("has ended"), "{ended}");
}

#[test]
fn whoever_has_a_writing_link_writes_until_it_is_taken_back() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna, ben) = (mesh.agent("carl"), mesh.agent("anna"), mesh.agent("ben"));
    fs::create_dir(carl.below("board")).unwrap();
    fs::write(carl.below("board/one"), noise("one", 2 << 20)).unwrap();
    let shared = carl.writing_link_to("/board");
    let link = shared.links[0].link.clone();
    let bearer = shared.members.iter().find(|member| !member.you).unwrap();
    assert_eq!(
        (bearer.link.as_ref(), bearer.role, shared.links[0].role),
        (Some(&link), api::ShareRole::Writer, api::ShareRole::Writer)
    );
    carl.sync().unwrap();

    for one in [&anna, &ben] {
        let attached = one.attach(&link, "/theirs").unwrap();
        assert_eq!((attached.role, attached.by_link), (Some(api::ShareRole::Writer), true));
        assert_same(&look(&carl.below("board")), &look(&one.below("theirs")));
    }
    // Neither knows the other one, nor does Carl know them.
    fs::write(anna.below("theirs/by anna"), noise("anna", 1 << 20)).unwrap();
    anna.sync().unwrap();
    carl.sync_until("what anna wrote", |carl| carl.below("board/by anna").exists());
    ben.sync_until("what anna wrote", |ben| ben.below("theirs/by anna").exists());
    fs::write(ben.below("theirs/by ben"), b"ben").unwrap();
    fs::remove_file(ben.below("theirs/one")).unwrap();
    ben.sync().unwrap();
    carl.sync_until("what ben wrote", |carl| carl.below("board/by ben").exists());
    anna.sync_until("what ben wrote", |anna| anna.below("theirs/by ben").exists());
    for one in [&anna, &ben] {
        assert_same(&look(&carl.below("board")), &look(&one.below("theirs")));
    }

    carl.take_back("/board", &link).unwrap();
    fs::write(carl.below("board/secret"), b"not for them").unwrap();
    carl.sync().unwrap();
    let before = look(&carl.below("board"));
    assert!(["by anna", "by ben"].iter().all(|name| before.contains_key(Path::new(name))), "what they wrote stays");
    let _ = anna.sync();
    // She is told when she writes, or when that is to be published.
    match fs::write(anna.below("theirs/late"), b"too late") {
        Ok(()) => {
            let refused = anna.sync().unwrap_err();
            assert!(refused.message.contains("nothing is published from here"), "{refused:?}");
            assert!(refused.hint.as_deref().is_some_and(|hint| hint.contains("hn detach")), "{refused:?}");
        }
        Err(error) => assert_eq!(code(error), libc::EROFS),
    }
    assert!(!anna.below("theirs/secret").exists());
    carl.sync().unwrap();
    assert_same(&before, &look(&carl.below("board")));
    let ended = anna.attach(&link, "/again").unwrap_err().to_string();
    assert!(ended.contains("has ended"), "{ended}");
    assert!(carl.take_back("/board", &link).is_err());
    assert_eq!(carl.shares().shares[0].members.len(), 1);
}
