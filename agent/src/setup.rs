//! Making, recovering and joining: what is done to an agent's directory before the agent runs.

use std::path::Path;

use hypernet_core::id::NetworkId;
use hypernet_core::key::{DeviceKeys, RecoveryKeys};
use hypernet_core::time::Hlc;
use hypernet_sdk::api::{KeystoreSealed, KeystoreStatus, SetUp};

use crate::config::{Config, Home};
use crate::databases;
use crate::failure::{Failure, Kind};
use crate::files;
use crate::identity::homes;
use crate::identity::known::Known;
use crate::invite::Invite;
use crate::keystore::{Keystore, KeystoreFile, Unlock, random_secret};
use crate::volume::recover::clock;
use crate::{keyring, sealing};

/// What an agent offers to others when nothing is said.
pub(crate) const DONATE_DEFAULT: u64 = 10 << 30;

/// Choices for a new agent.
pub(crate) struct Choices {
    pub(crate) device_name: Option<String>,
    pub(crate) join: Option<String>,
    pub(crate) storage_only: bool,
    pub(crate) donate: Option<u64>,
    pub(crate) newcomers: Option<u8>,
    pub(crate) listen: Vec<String>,
    pub(crate) record_lifetime: Option<u64>,
    pub(crate) mdns: bool,
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "device".into() } else { name }
}

/// Listen addresses for the IPs that were named; all of them by default. Ports come from the kernel.
fn listen_on(ips: &[String]) -> Result<Vec<String>, Failure> {
    let ips: Vec<String> = if ips.is_empty() { vec!["0.0.0.0".into(), "::".into()] } else { ips.to_vec() };
    let mut out = Vec::new();
    for ip in ips {
        let parsed: std::net::IpAddr = ip.parse().map_err(|_| {
            Failure::new(Kind::Usage, format!("`{ip}` is no IP address")).hint("for example --listen 127.0.0.1")
        })?;
        let family = if parsed.is_ipv4() { "ip4" } else { "ip6" };
        out.push(format!("/{family}/{ip}/udp/0/quic-v1"));
        out.push(format!("/{family}/{ip}/tcp/0"));
    }
    Ok(out)
}

/// Makes the directory and what every agent has. Until its configuration is saved once more, without the mark that it
/// was only begun, a crash leaves a directory in which the same can be done again.
fn start(home: &Home, choices: &Choices, network: NetworkId, bootstrap: Vec<String>) -> Result<Config, Failure> {
    files::private_dir(home.path())?;
    let name = choices.device_name.clone().unwrap_or_else(host_name);
    let donate = choices.donate.unwrap_or(DONATE_DEFAULT);
    let mut config = Config::new(network, name, donate, choices.storage_only);
    config.newcomers = choices.newcomers.unwrap_or(config.newcomers);
    config.bootstrap = bootstrap;
    config.listen = listen_on(&choices.listen)?;
    config.mdns = choices.mdns;
    if let Some(seconds) = choices.record_lifetime {
        config.record_lifetime = seconds.max(1);
    }
    Config { begun: true, ..config.clone() }.save(home)?;
    // Of one that was only begun; a keystore would say that the identity was found.
    for left in [home.keystore(), home.identity(), home.device()] {
        if left.exists() {
            std::fs::remove_file(&left).map_err(|error| {
                Failure::new(Kind::CantCreate, format!("cannot remove {}: {error}", left.display()))
            })?;
        }
    }
    files::write_secret(&home.peer_key(), random_secret()?.expose())?;
    Ok(config)
}

/// Nothing is begun where an agent is or was, nor where none could be reached.
fn refuse_unfit(home: &Home) -> Result<(), Failure> {
    home.usable_socket()?;
    let used = [home.tree(), home.volume()];
    if home.is_set_up() || used.iter().any(|path| path.exists()) {
        return Err(Failure::new(Kind::CantCreate, format!("{} is in use by an agent already", home.path().display()))
            .hint("set HN_HOME to another directory for a second agent"));
    }
    Ok(())
}

fn network_of(choices: &Choices) -> Result<(NetworkId, Vec<String>), Failure> {
    match &choices.join {
        Some(link) => {
            let invite = Invite::parse(link)?;
            Ok((invite.network, invite.via.iter().map(ToString::to_string).collect()))
        }
        None => {
            let mut id = [0; 16];
            id.copy_from_slice(&random_secret()?.expose()[..16]);
            Ok((NetworkId(id), Vec::new()))
        }
    }
}

/// An error where no agent can be made so, before anybody is shown words.
pub(crate) fn check(home: &Home, choices: &Choices, keyring: bool) -> Result<(), Failure> {
    refuse_unfit(home)?;
    network_of(choices)?;
    listen_on(&choices.listen)?;
    files::private_dir(home.path())?;
    if keyring { keyring::check() } else { Ok(()) }
}

/// A new agent: with an identity that this phrase brings back, a device and a volume; without one it only stores. What is
/// made counts when `tell` has told of it: there is no identity whose words nobody was shown.
pub(crate) fn init(
    home: &Home,
    choices: &Choices,
    phrase: Option<&RecoveryKeys>,
    unlock: &Unlock,
    tell: impl FnOnce(&SetUp) -> Result<(), Failure>,
) -> Result<SetUp, Failure> {
    refuse_unfit(home)?;
    let (network, bootstrap) = network_of(choices)?;
    let config = start(home, choices, network, bootstrap)?;
    if let Some(phrase) = phrase {
        let recipient = sealing::recipient(&phrase.opening_key())
            .map_err(|error| Failure::new(Kind::System, format!("cannot make an identity: {error}")))?;
        let keystore = Keystore::create(phrase.id(), recipient, phrase.main_volume())?;
        let device = DeviceKeys::new(random_secret()?);
        let known = Known::create(phrase, &keystore, &device, &config.device_name, clock(Hlc::default()))?;
        let file = KeystoreFile::new(home.keystore(), unlock.clone(), keystore);
        write_device(home, &file, &device, &known)?;
    }
    let made = describe(home, &config, Some(unlock))?;
    tell(&made)?;
    config.save(home)?;
    Ok(made)
}

/// Writes what makes a device, the keystore last: where that is there, all is.
pub(crate) fn write_device(
    home: &Home,
    file: &KeystoreFile,
    device: &DeviceKeys,
    known: &Known,
) -> Result<(), Failure> {
    file.save_device(&home.device(), device)?;
    known.save(&home.identity())?;
    homes::begin(home.path())?;
    file.save()
}

/// An empty directory for an agent that will look for its identity: on the mesh of a link, or on that of another device
/// whose directory is here.
pub(crate) fn recover(home: &Home, from: Option<&Path>, choices: &Choices) -> Result<SetUp, Failure> {
    refuse_unfit(home)?;
    let (network, bootstrap) = match (&choices.join, from) {
        (None, Some(from)) => {
            let other = Home::new(from.to_owned());
            if !other.is_set_up() {
                return Err(Failure::new(Kind::NoInput, format!("there is no agent in {}", from.display()))
                    .hint("name the HN_HOME of a device of yours, or a copy of it"));
            }
            let config = Config::load(&other)?;
            let mut bootstrap = crate::config::known_peers(&other);
            bootstrap.extend(config.bootstrap.clone());
            if bootstrap.is_empty() && !choices.mdns {
                return Err(Failure::new(Kind::Usage, format!("{} names no peer of its mesh", from.display()))
                    .hint("add --join LINK, a link that `hn invite` prints on any machine of that mesh"));
            }
            (config.network()?, bootstrap)
        }
        (None, None) => {
            return Err(Failure::new(Kind::Usage, "the words alone do not say on which mesh to look")
                .hint("add --join LINK, a link that `hn invite` prints on any machine of that mesh"));
        }
        (Some(_), _) => network_of(choices)?,
    };
    let mut config = start(home, choices, network, bootstrap)?;
    config.recovering = true;
    config.save(home)?;
    describe(home, &config, None)
}

/// Joins a mesh by a link. An agent that has data on one mesh does not silently move to another.
pub(crate) fn join(home: &Home, link: &str) -> Result<SetUp, Failure> {
    let invite = Invite::parse(link)?;
    let mut config = Config::load(home)?;
    let moves = config.network()? != invite.network;
    // The head, the list of devices and the segments that new data is compared with are on that mesh only: an agent that
    // moved away from it would count as durable what its new mesh has never seen.
    if moves && databases::is_published(home, &config)? {
        return Err(Failure::new(
            Kind::Config,
            format!("the volume of {} is on another mesh, {}, and stays there", home.path().display(), config.network),
        )
        .hint("`HN_HOME=NEW hn init --join LINK` makes a second agent on that mesh; then copy the files over"));
    }
    config.network = invite.network.to_base32();
    for addr in invite.via.iter().map(ToString::to_string) {
        if !config.bootstrap.contains(&addr) {
            config.bootstrap.push(addr);
        }
    }
    config.save(home)?;
    describe(home, &config, None)
}

/// Has something else open a keystore.
pub(crate) fn reseal(file: &KeystoreFile, home: &Home, unlock: &Unlock) -> Result<KeystoreSealed, Failure> {
    let left = file.reseal(unlock)?;
    Ok(KeystoreSealed {
        keystore: KeystoreStatus { sealed_by: unlock.sealed_by(), path: home.keystore() },
        warning: left.map(|failure| {
            format!("what opened it before is still there, and opens old copies of it: {}", failure.message)
        }),
    })
}

/// What was set up; of an identity only what opens.
fn describe(home: &Home, config: &Config, unlock: Option<&Unlock>) -> Result<SetUp, Failure> {
    let seed = crate::config::peer_seed(home, config)?;
    let key = libp2p::identity::Keypair::ed25519_from_bytes(*seed.expose())
        .map_err(|error| Failure::new(Kind::Data, format!("the peer key is damaged: {error}")))?;
    let mut set_up = SetUp {
        home: home.path().to_owned(),
        peer: key.public().to_peer_id().to_string(),
        network: config.network.clone(),
        identity: None,
        device: None,
        volume: None,
        keystore: None,
        sealed_by: None,
    };
    if let Some(unlock) = unlock.filter(|_| home.keystore().exists()) {
        let file = KeystoreFile::load(&home.keystore(), unlock)?;
        let keystore = file.keystore();
        set_up.identity = Some(keystore.identity.to_string());
        set_up.device = Some(file.load_device(&home.device())?.id().to_string());
        set_up.volume = Some(keystore.main.to_string());
        set_up.keystore = Some(home.keystore());
        set_up.sealed_by = Some(unlock.sealed_by());
    }
    Ok(set_up)
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::VolumeId;
    use hypernet_store::volume::VolumeDb;

    use super::*;

    fn choices() -> Choices {
        Choices {
            device_name: Some("laptop".into()),
            join: None,
            storage_only: false,
            donate: None,
            newcomers: None,
            listen: vec!["127.0.0.1".into()],
            record_lifetime: None,
            mdns: false,
        }
    }

    fn phrase() -> RecoveryKeys {
        RecoveryKeys::new(&[1; 64])
    }

    #[test]
    fn an_agent_is_made_once_and_a_recovery_begins_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("a"));
        let made = init(&home, &choices(), Some(&phrase()), &Unlock::KeyFile, |_| Ok(())).unwrap();
        assert_eq!(made.identity, Some(phrase().id().to_string()));
        assert!(init(&home, &choices(), Some(&phrase()), &Unlock::KeyFile, |_| Ok(())).is_err());
        let other = Home::new(dir.path().join("b"));
        // Nothing says where to look, so that there must be another way to find a peer.
        for from in [None, Some(home.path())] {
            let alone = recover(&other, from, &choices()).unwrap_err();
            assert_eq!(alone.kind, Kind::Usage);
            assert!(alone.hint.unwrap().contains("--join LINK"));
            assert!(!other.path().exists(), "it was begun all the same");
        }
        let there = Choices { mdns: true, ..choices() };
        let begun = recover(&other, Some(home.path()), &there).unwrap();
        assert_eq!((begun.identity, begun.network), (None, made.network));
        assert_ne!(begun.peer, made.peer);
        assert!(Config::load(&other).unwrap().recovering);
    }

    /// Where `hn` is killed before it has shown the words, for example.
    #[test]
    fn what_nobody_was_told_of_is_not_made_and_can_be_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("a"));
        let nobody = |made: &SetUp| {
            assert_eq!(made.identity, Some(phrase().id().to_string()));
            Err(Failure::new(Kind::NoInput, "nobody is there"))
        };
        init(&home, &choices(), Some(&phrase()), &Unlock::KeyFile, nobody).unwrap_err();
        assert!(!home.is_set_up() && Config::load(&home).is_err());
        let others = RecoveryKeys::new(&[2; 64]);
        let made = init(&home, &choices(), Some(&others), &Unlock::KeyFile, |_| Ok(())).unwrap();
        assert_eq!(made.identity, Some(others.id().to_string()));
        assert!(home.is_set_up() && Config::load(&home).is_ok());
    }

    #[test]
    fn joining_adopts_the_mesh() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("a"));
        init(&home, &choices(), Some(&phrase()), &Unlock::KeyFile, |_| Ok(())).unwrap();
        let via = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
        let link = Invite { network: NetworkId([5; 16]), via: vec![via] }.to_link();
        for _ in 0..2 {
            join(&home, &link).unwrap();
            let config = Config::load(&home).unwrap();
            assert_eq!(config.network().unwrap(), NetworkId([5; 16]));
            assert_eq!(config.bootstrap, ["/ip4/127.0.0.1/udp/1/quic-v1"]);
        }
        assert!(join(&home, "hypernet:join/x").is_err());
    }

    #[test]
    fn an_agent_whose_volume_is_on_a_mesh_does_not_move_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("a"));
        init(&home, &choices(), Some(&phrase()), &Unlock::KeyFile, |_| Ok(())).unwrap();
        let link = |network| {
            let via = vec!["/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()];
            Invite { network: NetworkId([network; 16]), via }.to_link()
        };
        // One that has run and has synced nothing is free to go.
        drop(VolumeDb::open(&home.volume(), VolumeId([1; 16]), 0).unwrap());
        join(&home, &link(5)).unwrap();
        let db = VolumeDb::open(&home.volume(), VolumeId([1; 16]), 0).unwrap();
        db.add_segment(hypernet_core::id::SegmentId([1; 32]), b"", &[]).unwrap();
        drop(db);
        let before = Config::load(&home).unwrap();
        let failure = join(&home, &link(6)).unwrap_err();
        assert_eq!(failure.kind, Kind::Config);
        assert!(failure.message.contains(&before.network), "{failure}");
        assert_eq!(Config::load(&home).unwrap(), before);
        // Another way into the mesh it is on is welcome.
        join(&home, &link(5)).unwrap();
    }
}
