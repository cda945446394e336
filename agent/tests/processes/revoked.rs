//! Taking a device off the list where something is shared.

use std::fs;

use hypernet_kit::machine::{Need, has};
use hypernet_sdk::api;

use super::mesh::{Agent, Mesh};
use super::share::acquainted;

impl Agent {
    fn revoke(&self, name: &str) -> Result<api::DeviceRevoked, hypernet_sdk::client::Error> {
        let request = api::RevokeDeviceRequest { name: name.into(), force: false, phrase: None };
        self.call(async |client| client.revoke_device(&request).await)
    }
}

fn has_read(agent: &Agent, path: &str, content: &[u8]) -> bool {
    fs::read(agent.below(path)).is_ok_and(|read| read == content)
}

#[test]
fn a_device_leaves_without_force_where_somebody_else_wrote_last_in_what_is_shared() {
    if !has(&[Need::Fuse]) {
        return;
    }
    let mesh = Mesh::start(5);
    let (carl, anna) = acquainted(&mesh);
    for dir in ["dir", "unseen"] {
        fs::create_dir(carl.below(dir)).unwrap();
        fs::write(carl.below(dir).join("file"), "carl").unwrap();
        carl.share_with(&format!("/{dir}"), &["anna"], api::ShareRole::Writer).unwrap();
    }
    carl.sync().unwrap();
    let (laptop, _) = mesh.recovered("laptop", &carl.phrase.clone());
    assert!(has_read(&laptop, "dir/file", b"carl") && has_read(&laptop, "unseen/file", b"carl"));
    fs::write(laptop.below("dir/laptop"), "from the laptop").unwrap();
    fs::write(laptop.below("mine"), "from the laptop").unwrap();
    laptop.sync().unwrap();
    carl.sync_until("what the laptop wrote", |carl| carl.below("dir/laptop").exists() && carl.below("mine").exists());
    anna.attach("carl/dir", "/theirs").unwrap();
    assert!(has_read(&anna, "theirs/laptop", b"from the laptop"));
    fs::write(anna.below("theirs/anna"), "anna").unwrap();
    anna.sync().unwrap();
    carl.sync_until("what anna wrote", |carl| carl.below("dir/anna").exists());

    // Who holds uploads back has nothing published.
    carl.call(async |client| client.hold(false).await).unwrap();
    carl.revoke("laptop").unwrap_or_else(|error| panic!("{error:?}\n{}", carl.log()));
    // What it wrote is there, for those who come later, too.
    let (again, _) = mesh.recovered("again", &carl.phrase.clone());
    assert!(has_read(&again, "dir/laptop", b"from the laptop") && has_read(&again, "dir/anna", b"anna"));
    assert!(has_read(&again, "mine", b"from the laptop") && has_read(&again, "unseen/file", b"carl"));
    // The laptop reads nothing of what comes after.
    fs::write(carl.below("dir/after"), "after").unwrap();
    carl.sync().unwrap();
    anna.sync_until("what carl wrote", |anna| anna.below("theirs/after").exists());
    let _ = laptop.sync();
    assert!(!laptop.below("dir/after").exists());
}
