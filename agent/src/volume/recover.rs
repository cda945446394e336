//! From an identity to a mounted tree: the roster names the devices, each device's head is asked for, the newest one
//! leads to its catalog and its root. Heads that it does not contain are named, also those of devices that were taken
//! off the list: one of them is chosen only by its name.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hypernet_core::catalog::Manifest;
use hypernet_core::codec;
use hypernet_core::head::{Head, Snapshot};
use hypernet_core::identity::log::{Device, NameError};
use hypernet_core::limits::{HISTORY_MAX, MERGED_MAX, VECTOR_MAX};
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::seal::Kind;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{Content, FileKind, Root};
use os_display::Quotable;
use thiserror::Error;

use super::devices::gone_or;
use super::heads::{Found, Survey};
use super::read::{Deadline, expect_kind};
use super::state::{self, Latest};
use super::write::unix_now;
use super::{Volume, damaged};
use crate::share::circle::Publishers;
use crate::share::hearing::Ask;

/// Devices without a head that are named.
const SILENT: usize = 5;

/// What was found.
pub(crate) struct Recovered {
    pub(crate) devices: usize,
    pub(crate) head_device: String,
    pub(crate) head_sequence: u64,
    pub(crate) head_age_seconds: u64,
    /// Heads of other devices that are not part of this one.
    pub(crate) others: Vec<Found>,
    /// Those in words, and heads that are missing, older than some device has seen, or not believed.
    pub(crate) warnings: Vec<String>,
    pub(crate) root: Root,
}

/// Why a recovery came to nothing.
#[derive(Debug, Error)]
pub(crate) enum RecoverError {
    /// It may be there later.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Another device must be named.
    #[error(transparent)]
    Device(#[from] NameError),
    /// None is found, of any device or of that which is named.
    #[error("{0}")]
    NoHead(String),
}

/// Where nobody is there who could name another device.
impl From<RecoverError> for PortError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Port(error) => error,
            RecoverError::Device(error) => damaged(error),
            RecoverError::NoHead(..) => Self::NotFound(error.to_string()),
        }
    }
}

fn refused(survey: &Survey) -> Vec<String> {
    survey.refused.iter().map(|(device, error)| format!("a head of {} is not believed: {error}", device.name)).collect()
}

/// What is known to be, or may be, on the mesh and was not found.
fn missing(survey: &Survey) -> Vec<String> {
    let mut warnings = refused(survey);
    for Found { device, head } in &survey.found {
        let seen = survey.seen_of(&device.id);
        if head.sequence < seen {
            warnings.push(format!("head {seen} of {} was seen, and only {} is found", device.name, head.sequence));
        }
    }
    let (seen, silent): (Vec<&Device>, Vec<&Device>) =
        survey.silent().partition(|device| survey.seen_of(&device.id) > 0);
    for device in seen {
        warnings.push(format!("head {} of {} was seen, and none is found", survey.seen_of(&device.id), device.name));
    }
    // A device enrols just before it publishes its first head: one without may have been stopped in between.
    let untold = survey.untold.iter().map(|device| device.name.as_str());
    let silent: Vec<&str> = silent.iter().map(|device| device.name.as_str()).chain(untold).collect();
    if !silent.is_empty() {
        let (named, more) = silent.split_at(silent.len().min(SILENT));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        warnings.push(format!(
            "no head is found of {}{more}: what they synced, if they did, is not found now",
            named.join(", ")
        ));
    }
    warnings
}

/// The clock of this machine, in milliseconds since 1970.
pub(crate) fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn clock(after: Hlc) -> Hlc {
    // To the millisecond: of two devices the newer head is taken, and they may sync within one second.
    after.next(wall())
}

impl Volume {
    /// The heads of all other devices, and of those that were taken off the list, asked for twice as in
    /// [`Self::look_well`].
    fn heads_well(&self) -> Result<(Survey, Survey), PortError> {
        let (others, gone) = (self.other_publishers(), self.publishers().gone);
        self.peers.settle();
        self.find_heads(&others)?;
        Ok((self.find_heads(&others)?, self.find_heads(&gone)?))
    }

    /// Everything that leads from the identity to the newest root, or to that of the device that is named. `say` is told
    /// what happens.
    pub(crate) fn recover(&self, device: Option<&str>, say: &mut dyn FnMut(String)) -> Result<Recovered, RecoverError> {
        say("asking the mesh for the list of devices".into());
        let roster = self.identity.look_well()?;
        self.hear(Ask::All)?;
        self.learn_moves();
        let publishers = self.publishers();
        let wanted = device.map(|name| roster.named(name).or_else(|error| gone_or(&roster, name, error)));
        let wanted = wanted.transpose()?.map(|device| device.id);
        say(format!("{} device(s); asking for their heads", publishers.listed.len()));
        let (survey, gone) = self.heads_well()?;
        let may_be = |found: &&Found| match wanted {
            Some(id) => found.device.id == id,
            None => publishers.device(&found.device.id).is_some(),
        };
        let chosen = survey.found.iter().chain(&gone.found).filter(may_be);
        let newest = chosen.max_by_key(|found| (found.head.time, found.head.device)).ok_or_else(|| {
            let of = device.map_or_else(|| "no device".to_owned(), |name| format!("device {name} is not known to"));
            let have = if device.is_some() { "have" } else { "has" };
            let none = format!("{of} {have} published a head of this volume, or none can be reached yet");
            RecoverError::NoHead(std::iter::once(none).chain(refused(&survey)).collect::<Vec<_>>().join("; "))
        })?;
        let head = newest.head.clone();
        say(format!("head {} found; reading its catalog", head.sequence));
        let manifest = self.manifest_of(&head)?;
        self.load_catalog(&manifest, &mut |done, all| say(format!("{done} of {all} rows of the catalog")))?;
        let moved = self.take_moves()?;
        if moved > 0 {
            say(format!("{moved} rows were made anew by custodians"));
        }
        say("reading the snapshot".into());
        let root = self.read_root(&head, &publishers, wanted.is_some())?;
        let latest =
            Latest { snapshot: head.snapshot, root: root.clone(), manifest, time: head.time, head: head.clone() };
        state::put_latest(&self.db, &latest)?;
        (*self.links.lock()).clone_from(&root.links);
        self.read_history_ahead(&root);
        Ok(self.recovered(&survey, &gone, &head, root))
    }

    fn recovered(&self, survey: &Survey, gone: &Survey, head: &Head, root: Root) -> Recovered {
        let lacks = |found: &&Found| !found.is_part_of(&root.vector);
        let is_main = self.id == self.identity.keystore().keystore().main;
        let mut others: Vec<Found> = survey.found.iter().filter(lacks).cloned().collect();
        let mut warnings: Vec<String> = others.iter().map(Found::words).collect();
        warnings.extend(missing(survey));
        let gone: Vec<Found> = gone.found.iter().filter(lacks).cloned().collect();
        warnings.extend(gone.iter().map(|found| {
            // Of the whole of it only the main volume's heads are looked at.
            let hint = match is_main {
                true => {
                    format!("; `hn recover --device {}` in another HN_HOME shows it", found.device.name.maybe_quote())
                }
                false => String::new(),
            };
            format!("of a device that was taken off the list: {}{hint}", found.words())
        }));
        others.extend(gone);
        let publishers = self.publishers();
        let device = publishers.listed.iter().chain(&publishers.gone).find(|device| device.id == head.device);
        Recovered {
            devices: self.other_publishers().len(),
            head_device: device.map_or_else(|| head.device.short(), |device| device.name.clone()),
            head_sequence: head.sequence,
            head_age_seconds: unix_now().saturating_sub(head.time.millis / 1000),
            others,
            warnings,
            root,
        }
    }

    /// What [`Self::recover`] found before, if it ended well: the head that the index is of. No other is taken.
    pub(crate) fn recovered_before(&self) -> Result<Option<Recovered>, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(None) };
        let looked = self.identity.look_well().and_then(|_| self.heads_well());
        let (survey, gone) = looked.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look up the devices of this identity");
            Default::default()
        });
        let mut recovered = self.recovered(&survey, &gone, &latest.head, latest.root);
        recovered.warnings.push("an earlier attempt had set up the tree; no newer head was taken".to_owned());
        Ok(Some(recovered))
    }

    /// The manifest that a head leads to.
    pub(super) fn manifest_of(&self, head: &Head) -> Result<Manifest, PortError> {
        expect_kind(&head.manifest, Kind::Manifest)?;
        let placement = Arc::new(self.as_moved(&head.manifest_placement)?);
        let plain = self.peers.fetch_at(placement, vec![(head.manifest.clone(), 0)])?;
        let bytes = plain.first().ok_or_else(|| damaged("the manifest came back empty"))?;
        let manifest: Manifest = codec::decode(bytes).map_err(damaged)?;
        if manifest.is_sound() { Ok(manifest) } else { Err(damaged("the manifest refers to what it does not list")) }
    }

    fn read_one(&self, reference: &ExtentRef) -> Result<bytes::Bytes, PortError> {
        let mut plain = self.fetch(std::slice::from_ref(reference), Deadline::of_read())?;
        plain.pop().ok_or_else(|| damaged("it came back empty"))
    }

    /// The snapshot that a head names, whoever made it.
    pub(super) fn read_snapshot(&self, head: &Head) -> Result<Snapshot, PortError> {
        expect_kind(&head.snapshot_extent, Kind::Snapshot)?;
        let snapshot = Snapshot::verify(&self.read_one(&head.snapshot_extent)?).map_err(damaged)?;
        if snapshot.id() != head.snapshot {
            return Err(damaged("the snapshot is not the one that the head names"));
        }
        Ok(snapshot)
    }

    /// `gone`: also of a device that was taken off the list.
    pub(super) fn read_root(&self, head: &Head, publishers: &Publishers, gone: bool) -> Result<Root, PortError> {
        let snapshot = self.read_snapshot(head)?;
        let was = publishers.gone.iter().filter(|_| gone);
        if !publishers.listed.iter().chain(was).any(|device| device.id == snapshot.author) {
            return Err(damaged("the snapshot's author is not a device that may publish here"));
        }
        self.read_root_at(&snapshot.root)
    }

    pub(super) fn read_root_at(&self, reference: &ExtentRef) -> Result<Root, PortError> {
        expect_kind(reference, Kind::Root)?;
        let root: Root = codec::decode(&self.read_one(reference)?).map_err(damaged)?;
        if root.volume != self.id {
            return Err(damaged("the root is of another volume"));
        }
        if root.inode.kind != FileKind::Directory
            || !matches!(root.inode.content, Content::Directory(_) | Content::Empty)
        {
            return Err(damaged("the root is no directory"));
        }
        if root.vector.len() > VECTOR_MAX || root.parts.len() > MERGED_MAX {
            return Err(damaged("the root has more devices, or is made of more trees, than there can be"));
        }
        // Nobody who moved on to it could take a snapshot any more.
        if [&root.history, &root.tags].into_iter().flatten().any(|tree| tree.weight > HISTORY_MAX as u64) {
            return Err(damaged("the root has more snapshots, or more names for them, than there can be"));
        }
        Ok(root)
    }
}
