//! What an agent remembers of its set-up, in `config.json`; and where everything lies under HN_HOME.

use std::fs;
use std::path::{Path, PathBuf};

use hypernet_core::id::NetworkId;
use hypernet_core::key::Secret;
use hypernet_core::quota::{NEWCOMERS_PERCENT, Quota};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Kind};
use crate::files;

/// The agent's directory.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn keystore(&self) -> PathBuf {
        self.0.join("keystore.age")
    }

    /// What is known of the identity that is no secret.
    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("identity")
    }

    pub(crate) fn device(&self) -> PathBuf {
        self.0.join("device.age")
    }

    pub(crate) fn peer_key(&self) -> PathBuf {
        self.0.join("peer.key")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    pub(crate) fn peers(&self) -> PathBuf {
        self.0.join("peers.json")
    }

    pub(crate) fn standings(&self) -> PathBuf {
        self.0.join("standings")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        hypernet_sdk::Home::new(&self.0).socket()
    }

    /// The same; a failure when no socket can be there.
    pub(crate) fn usable_socket(&self) -> Result<PathBuf, Failure> {
        hypernet_sdk::Home::new(&self.0)
            .usable_socket()
            .map_err(|error| Failure::new(Kind::Config, error.to_string()).hint("set HN_HOME to a shorter path"))
    }

    /// What is stored for others.
    pub(crate) fn donated(&self) -> PathBuf {
        self.0.join("donated")
    }

    /// The working tree and its backing files.
    pub(crate) fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// Where the working tree keeps its backing files.
    pub(crate) fn files(&self) -> PathBuf {
        self.tree().join("files")
    }

    /// The local copy of the volume's index and placement log.
    pub(crate) fn volume(&self) -> PathBuf {
        self.0.join("volume")
    }

    /// Tickets of what is looked after for others,
    pub(crate) fn custody_tickets(&self) -> PathBuf {
        self.0.join("custody-tickets")
    }

    /// and what is known of that.
    pub(crate) fn custody(&self) -> PathBuf {
        self.0.join("custody")
    }

    pub(crate) fn is_set_up(&self) -> bool {
        hypernet_sdk::Home::new(&self.0).is_set_up()
    }
}

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Format version of this file.
    pub(crate) version: u32,
    pub(crate) device_name: String,
    /// Base32.
    pub(crate) network: String,
    pub(crate) bootstrap: Vec<String>,
    /// Addresses to listen on; ports that the kernel gave are kept, so that the mesh finds this peer again.
    pub(crate) listen: Vec<String>,
    /// Bytes stored for others.
    pub(crate) donate: u64,
    /// Of these so many percent for all peers together that it does not know and that store nothing for it.
    #[serde(default = "newcomers")]
    pub(crate) newcomers: u8,
    /// It stops storing for others, and what they had here then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leaving: Option<Leaving>,
    /// No identity and no volume: it only stores.
    pub(crate) storage_only: bool,
    /// Look for peers on the local network.
    pub(crate) mdns: bool,
    /// Ask the router to let others in.
    #[serde(default = "yes")]
    pub(crate) upnp: bool,
    /// Bytes of shards a second that go out; no limit when there is none.
    #[serde(default)]
    pub(crate) upload: Option<u64>,
    /// Bytes of shards a second that come in; no limit when there is none.
    #[serde(default)]
    pub(crate) download: Option<u64>,
    /// How long a DHT record is kept that nobody hands on, in seconds.
    pub(crate) record_lifetime: u64,
    /// Setting it up has not ended: nothing in its directory has been used, or shown to anybody.
    #[serde(default)]
    pub(crate) begun: bool,
    /// This agent's identity or its head has not been found yet.
    #[serde(default)]
    pub(crate) recovering: bool,
    /// The databases of its volume were made: one that is missing was lost.
    #[serde(default)]
    pub(crate) used: bool,
    /// Bytes of local copies of what the mesh has, roughly; no limit when there is none.
    #[serde(default)]
    pub(crate) cache: Option<u64>,
    /// Where the volume was mounted last.
    #[serde(default, with = "hypernet_sdk::exact_path::option")]
    pub(crate) mount: Option<PathBuf>,
    /// The volume of the branch that it shows, in hex; none: the main tree.
    #[serde(default)]
    pub(crate) shown: Option<String>,
    /// Where branches and snapshots are mounted beside it.
    #[serde(default)]
    pub(crate) side_mounts: Vec<PathBuf>,
    /// How often it is looked what the policies of volumes ask for, in seconds, if not as ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policies_every: Option<u64>,
    /// How often leases are renewed and garbage is looked for, in seconds, if not as ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) collect_every: Option<u64>,
    /// Seconds after which what nothing needs is given up, if not as ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) release_after: Option<u64>,
    /// How long a round of audits takes, in seconds, if not as ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audits_every: Option<u64>,
    /// How often it is looked whose peers are, in seconds, if not as ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acquaint_every: Option<u64>,
}

/// What others had when an agent began to stop storing for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaving {
    /// Seconds since 1970.
    pub(crate) since: u64,
    pub(crate) bytes: u64,
    pub(crate) shards: u64,
}

const VERSION: u32 = 1;

fn newcomers() -> u8 {
    NEWCOMERS_PERCENT
}

fn yes() -> bool {
    true
}

impl Config {
    pub(crate) fn new(network: NetworkId, device_name: String, donate: u64, storage_only: bool) -> Self {
        Self {
            version: VERSION,
            device_name,
            network: network.to_base32(),
            bootstrap: Vec::new(),
            listen: Vec::new(),
            donate,
            newcomers: NEWCOMERS_PERCENT,
            leaving: None,
            storage_only,
            mdns: true,
            upnp: true,
            upload: None,
            download: None,
            record_lifetime: 48 * 3600,
            begun: false,
            recovering: false,
            used: false,
            cache: None,
            mount: None,
            shown: None,
            side_mounts: Vec::new(),
            policies_every: None,
            collect_every: None,
            release_after: None,
            audits_every: None,
            acquaint_every: None,
        }
    }

    pub(crate) fn load(home: &Home) -> Result<Self, Failure> {
        let path = home.config();
        let text = fs::read_to_string(&path).map_err(|error| match home.is_set_up() {
            true => Failure::new(Kind::Config, format!("cannot read {}: {error}", path.display())).hint(PUT_BACK),
            false => Failure::new(Kind::Config, format!("no agent is set up in {}", home.path().display()))
                .hint("begin with `hn init`, or `hn recover`"),
        })?;
        let config: Self = serde_json::from_str(&text).map_err(|error| {
            Failure::new(Kind::Config, format!("{} is damaged: {error}", path.display()))
                .hint("mend it by hand, it is text")
        })?;
        if config.version > VERSION {
            return Err(Failure::new(Kind::Config, format!("{} was written by a newer hnd", path.display()))
                .hint("update this program"));
        }
        if config.begun {
            return Err(Failure::new(Kind::Config, format!("setting up {} did not end", home.path().display()))
                .hint("begin again with `hn init`, or `hn recover`"));
        }
        Ok(config)
    }

    pub(crate) fn save(&self, home: &Home) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::new(Kind::System, format!("cannot write the configuration: {error}")))?;
        files::write_secret(&home.config(), text.as_bytes())
    }

    /// What it gives to others.
    pub(crate) fn quota(&self) -> Quota {
        Quota::new(self.donate, self.newcomers)
    }

    pub(crate) fn network(&self) -> Result<NetworkId, Failure> {
        NetworkId::from_base32(&self.network)
            .ok_or_else(|| Failure::new(Kind::Config, "the network name in config.json is damaged"))
    }

    /// Addresses in `list` that parse; a damaged one is left out, with a word in the log.
    pub(crate) fn addrs(list: &[String]) -> Vec<Multiaddr> {
        list.iter()
            .filter_map(|text| {
                text.parse().inspect_err(|error| tracing::warn!(address = text, %error, "ignoring an address")).ok()
            })
            .collect()
    }
}

/// What to do when a file is gone without which an agent that was set up cannot start. Its directory may have the only
/// copy of something, so it is never to be begun anew.
pub(crate) const PUT_BACK: &str = "put it back from a copy, and keep this directory: it has what was not synced; all else \
                                   comes back by `hn recover` in a new HN_HOME";

/// Reads the seed of the transport key.
pub(crate) fn peer_seed(home: &Home, config: &Config) -> Result<Secret, Failure> {
    let path = home.peer_key();
    let hint = match config.storage_only {
        true => "put it back from a copy; without one, `hn init --storage-only` makes a new peer in a new HN_HOME",
        false => PUT_BACK,
    };
    let bytes = fs::read(&path)
        .map_err(|error| Failure::new(Kind::Config, format!("cannot read {}: {error}", path.display())).hint(hint))?;
    let seed = bytes.try_into().map_err(|_| {
        Failure::new(Kind::Data, format!("{} is damaged: it must be 32 bytes", path.display())).hint(hint)
    })?;
    Ok(Secret::new(seed))
}

/// Addresses of peers met before, newest first.
pub(crate) fn known_peers(home: &Home) -> Vec<String> {
    fs::read_to_string(home.peers()).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Keeps them over a restart.
pub(crate) fn remember_peers(home: &Home, peers: &[String]) -> Result<(), Failure> {
    let text = serde_json::to_string(peers)
        .map_err(|error| Failure::new(Kind::System, format!("cannot write the list of peers: {error}")))?;
    files::write_secret(&home.peers(), text.as_bytes())
}
