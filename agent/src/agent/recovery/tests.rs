use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use hypernet_core::id::NetworkId;
use hypernet_core::quota::Quota;
use hypernet_mesh::MeshConfig;
use hypernet_sdk::SecretText;
use hypernet_store::shards::ShardStore;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::*;
use crate::agent::{acquaint, people};
use crate::volume::Volume;
use crate::volume::double::Mesh;

/// An agent that is to find its identity, on a mesh that is a map, and a device of that identity, whose directory is here.
struct Bed {
    first: Arc<Volume>,
    from: TempDir,
    _home: TempDir,
    agent: Agent,
    /// None once the bed is gone.
    runtime: Option<Runtime>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Bed {
    fn new() -> Self {
        let (double, from, dir) = (Mesh::new(5), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = double.volume(from.path(), 1);
        let other = Home::new(from.path().to_owned());
        first.identity.keystore().save_device(&other.device(), &first.device).unwrap();
        first.tell().unwrap();
        first.identity.confirm().unwrap();

        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = MeshConfig {
            secret: random_secret().unwrap(),
            network: NetworkId([0; 16]),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()],
            bootstrap: Vec::new(),
            mdns: false,
            upnp: false,
            relay: hypernet_mesh::RelayLimits::default(),
            upload: None,
            download: None,
        };
        let (mesh, _) = runtime.block_on(hypernet_mesh::Mesh::start(config)).unwrap();
        let home = Home::new(dir.path().to_owned());
        let config = Config { recovering: true, ..Config::new(NetworkId([0; 16]), "bare".into(), 0, false) };
        config.save(&home).unwrap();
        let me = hypernet_core::id::PeerId([9; 32]);
        let agent = Agent {
            serving: Arc::new(crate::custody::serving::Serving::open(&home, me, double.handle(), 1).unwrap()),
            store: Arc::new(ShardStore::open(&home.donated(), Quota::default()).unwrap()),
            home,
            config: Mutex::new(config),
            began: Instant::now(),
            mesh,
            node: double.handle(),
            own: OnceLock::new(),
            arriving: Mutex::default(),
            unlock: Mutex::new(Unlock::KeyFile),
            hold: true,
            runtime: runtime.handle().clone(),
            memory: Arc::default(),
            pairings: people::Table::default(),
            acquainted: acquaint::People::default(),
            shares: Mutex::default(),
            arrival_warning: Mutex::default(),
            notes: Vec::new(),
            stop: Notify::new(),
        };
        Self { first, from, _home: dir, agent, runtime: Some(runtime) }
    }

    fn request(&self) -> api::RecoverRequest {
        api::RecoverRequest { from: Some(self.from.path().to_owned()), ..api::RecoverRequest::default() }
    }

    fn attempt(&self) -> Failure {
        // Nobody has published a head.
        self.agent.recover(&self.request(), &mut |_| {}).unwrap_err()
    }

    fn sealed_by(&self, by: api::SealedBy, new: Option<&str>) {
        let request = api::SealRequest { old: None, by, new: new.map(SecretText::from) };
        assert_eq!(self.agent.seal_keystore(&request).unwrap().keystore.sealed_by, by);
    }

    /// What is written down is of one device, that which runs, and opens by this.
    fn is_one_device(&self, unlock: &Unlock) {
        let (home, device) = (&self.agent.home, self.agent.with_volume().unwrap().volume.device.id());
        let keystore = KeystoreFile::load(&home.keystore(), unlock).unwrap();
        assert_eq!(keystore.load_device(&home.device()).unwrap().id(), device);
        let known = Known::load(&home.identity(), &keystore.keystore().identity).unwrap();
        assert!(known.posting.log().roster().device(&device).is_some());
    }
}

/// The first command was broken off, which its agent does not hear of.
#[test]
fn of_two_who_recover_at_once_one_waits_and_there_is_one_device() {
    let bed = Bed::new();
    let shared = &bed;
    let first = std::thread::scope(|scope| {
        let mut second = None;
        let mut say = |_: String| {
            if second.is_some() {
                return;
            }
            let (tell, told) = mpsc::channel();
            let recover = move || shared.agent.recover(&shared.request(), &mut |text| drop(tell.send(text)));
            second = Some(scope.spawn(recover));
            // Until it waits, or has come to its end.
            while told.recv_timeout(Duration::from_secs(20)).is_ok_and(|text| !text.starts_with("waiting")) {}
        };
        let first = shared.agent.recover(&shared.request(), &mut say).unwrap_err();
        assert_eq!(second.unwrap().join().unwrap().unwrap_err().kind, Kind::TryAgain);
        first
    });
    assert_eq!(first.kind, Kind::TryAgain, "{first}");
    bed.is_one_device(&Unlock::KeyFile);
    assert_eq!(bed.first.identity.look().unwrap().devices.len(), 2);
}

/// The disk was full, for example.
#[test]
fn what_was_written_down_and_not_opened_is_opened_by_the_next_attempt() {
    let bed = Bed::new();
    let (home, device) = (&bed.agent.home, DeviceKeys::new(random_secret().unwrap()));
    let Arrived { keystore, known, .. } = bed.first.identity.enrol(&device, "bare", &mut |_| {}).unwrap();
    write_device(home, &KeystoreFile::new(home.keystore(), Unlock::KeyFile, keystore), &device, &known).unwrap();
    // `hn` gives neither words nor a directory where it sees a keystore.
    let failure = bed.agent.recover(&api::RecoverRequest::default(), &mut |_| {}).unwrap_err();
    assert_eq!(failure.kind, Kind::TryAgain, "{failure}");
    assert_eq!(bed.agent.with_volume().unwrap().volume.device.id(), device.id());
    bed.is_one_device(&Unlock::KeyFile);
    let keystore = bed.first.identity.keystore().keystore();
    let again = bed.agent.settle_down(Arrived { keystore, known, warning: None }, &device);
    assert_eq!(again.unwrap_err().kind, Kind::Config);
    bed.is_one_device(&Unlock::KeyFile);
}

/// The first time the passphrase of the other device was mistyped.
#[test]
fn what_a_later_command_says_opens_the_keystore_does() {
    let bed = Bed::new();
    let by = |passphrase: &str| crate::unlock_with(&passphrase.into()).unwrap();
    bed.first.identity.keystore().reseal(&by("right")).unwrap();
    bed.sealed_by(api::SealedBy::Passphrase, Some("wrong"));
    let mistyped = bed.attempt();
    assert!(mistyped.kind == Kind::Permission && !bed.agent.home.keystore().exists(), "{mistyped}");
    bed.sealed_by(api::SealedBy::KeyFile, None);
    bed.sealed_by(api::SealedBy::Passphrase, Some("right"));
    let failure = bed.attempt();
    assert_eq!(failure.kind, Kind::TryAgain, "{failure}");
    bed.is_one_device(&by("right"));
}
