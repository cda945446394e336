//! Coming onto the list of devices: by the phrase on a bare machine, or by a device that is on it, whose directory is here
//! or which is [met](crate::pairing).

use hypernet_core::id::IdentityId;
use hypernet_core::identity::era::Era;
use hypernet_core::identity::log::{Author, Change, Device, Log};
use hypernet_core::identity::place::{Address, Signpost};
use hypernet_core::identity::posting::Posting;
use hypernet_core::key::{DeviceKeys, RecoveryKeys};
use hypernet_core::port::PortError;
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};

use super::gathering::{gather, open_ways};
use super::known::{Known, enrol_by_phrase, enrol_in_new_era, listed, seal_era, signpost};
use super::meeting::{keystore_beside, read_keystore};
use super::{Identity, era_of};
use crate::keystore::{Keystore, random_secret};
use crate::pairing::message::VOUCHED_MAX;
use crate::peers::Peers;
use crate::sealing;
use crate::volume::damaged;
use crate::volume::recover::clock;

/// What a new device begins with.
pub(crate) struct Arrived {
    pub(crate) keystore: Keystore,
    pub(crate) known: Known,
    /// What the person should know of it.
    pub(crate) warning: Option<String>,
}

/// How a new device wants to be listed: it has signed this itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Newcomer {
    #[n(0)]
    pub(crate) device: Device,
}
hypernet_core::format!(Newcomer, tag = 0x5b, version = 1, max = VOUCHED_MAX, name = "new device");

/// Whether what a device was handed over is of this identity, lists that device, and is sealed for the words of this identity:
/// a thief could enrol a device, and hand it an address and words of their own.
pub(crate) fn is_sound(arrived: &Arrived, identity: IdentityId, device: &DeviceKeys) -> Result<(), PortError> {
    let Arrived { keystore, known, .. } = arrived;
    let is_of = |found: &IdentityId| *found == identity;
    let signpost = known.signposted().map_err(damaged)?;
    if !is_of(&keystore.identity) || !is_of(&signpost.identity) || !is_of(&known.posting.log().identity()) {
        return Err(damaged("what was handed over is of another identity"));
    }
    if keystore.phrase != signpost.phrase {
        return Err(damaged("what was handed over would be sealed for other words than those of this identity"));
    }
    let roster = known.posting.log().roster();
    if roster.device(&device.id()).is_none() || era_of(&keystore.eras, roster).is_none() {
        return Err(damaged("what was handed over does not list this device"));
    }
    Ok(())
}

/// A device that has the keys of the place has put something there, and was there until all others had gone.
const SPOILT: &str = "a device has put something else in the place of the keystore: the files come back without what was \
                      there; contacts, directories that others share, and who the guardians are do not. Take off the device \
                      that you do not trust: `hn device revoke NAME --phrase`";

fn not_found(what: &str) -> PortError {
    PortError::NotFound(format!("{what}, or no peer that has it is there"))
}

/// Why nothing goes on by itself where that is so: peers that know of a newer era may only be late.
const NOT_OURS: &str = "what lies in the place of the keystore is not of this identity. Peers that know of a newer place may not have \
                        answered yet; or a device that had the keys has put it there, and then `hn recover --without-keystore` goes on: \
                        contacts, directories that others share, and who the guardians are do not come back";

/// Finds everything by the phrase, and enrols a new device. Nothing is on the mesh of it yet: whoever has written down
/// what this returns [confirms](Identity::confirm) it.
pub(crate) fn by_phrase(
    peers: &Peers,
    phrase: &RecoveryKeys,
    device: &DeviceKeys,
    name: &str,
    without_keystore: bool,
    say: &mut dyn FnMut(String),
) -> Result<Arrived, PortError> {
    let (identity, address) = (phrase.id(), Address::of(phrase));
    say("asking the mesh for the way to the keystore".into());
    let post = peers.look_well(address.record_key())?.ok_or_else(|| {
        not_found("the mesh knows nothing of an identity with these words (and this passphrase, if there is one)")
    })?;
    let found = Signpost::open(&post, &address).map_err(damaged)?;
    if found.identity != identity {
        return Err(damaged("the signpost is of another identity"));
    }
    say("asking for the list of devices".into());
    let nothing = Posting::new(Log::new(identity));
    // Twice, as in [`Peers::look_well`].
    let once = gather(peers, nothing, vec![found.door], None)?.posting;
    let gathered = gather(peers, once, vec![found.door], None)?;
    let mut posting = gathered.posting;
    if posting.log().roster().era.is_none() {
        let mut unread = gathered.rosters.into_values().filter_map(|there| there.unread);
        let newer = unread.find(|error| matches!(error, PortError::Newer(_)));
        return Err(newer.unwrap_or_else(|| not_found("the list of devices is not on the mesh")));
    }
    say("asking for the keystore".into());
    let eras = open_ways(&posting, &phrase.opening_key(), &[]);
    let newest = || eras.iter().max_by_key(|era| era.rank()).cloned();
    // One that is listed may have begun an era and let nobody in: what was before is there, and another one begins.
    let era = era_of(&eras, posting.log().roster()).or_else(newest);
    let era = era.ok_or_else(|| not_found("the way to the keystore is not beside the list of devices"))?;
    let kept = read_keystore(peers, &era, &phrase.opening_key(), None)?;
    if kept.record.is_none() {
        return Err(not_found("the keystore is not on the mesh"));
    }
    let (recipient, main) = (sealing::recipient(&phrase.opening_key()).map_err(damaged)?, phrase.main_volume());
    let there = kept.keystore.filter(|there| there.identity == identity);
    if there.is_none() && !without_keystore {
        return Err(PortError::NotFound(NOT_OURS.into()));
    }
    let warning = there.is_none().then(|| SPOILT.to_owned());
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    let mut keystore = there.unwrap_or_else(|| Keystore::begin(identity, recipient, main, era.clone()));
    // Whoever had the keystore could have put another one there.
    keystore.phrase = recipient;
    keystore.set_main(main);
    for other in eras.iter().filter(|other| **other != era) {
        if let Some(beside) = keystore_beside(peers, identity, other) {
            keystore.merge_beside(&beside);
        }
    }
    eras.into_iter().for_each(|era| keystore.add(era));
    let listed = listed(&identity, device, name).map_err(damaged)?;
    let next = Era::new(era.number.saturating_add(1), random_secret().map_err(damaged)?);
    let (new, way) = seal_era(&next, &[keystore.phrase, listed.recipient]).map_err(damaged)?;
    let now = clock(Hlc::default());
    // Where the keystore was spoilt no other one can be put.
    let enrol = if warning.is_some() { enrol_in_new_era } else { enrol_by_phrase };
    posting.change(|log| enrol(log, phrase, &listed, now, new)).map_err(damaged)?;
    posting.add_way(way);
    let begun = posting.log().roster().era == Some(new);
    if begun {
        // So it does where the list was full, and begins anew.
        keystore.add(next.clone());
    }
    let signpost = signpost(phrase, if begun { &next } else { &era }, post.sequence.saturating_add(1));
    Ok(Arrived { keystore, known: Known::new(signpost?, address, posting), warning })
}

impl Identity {
    /// As [`by_phrase`], by a device that is on the list: this one.
    pub(crate) fn enrol(
        &self,
        device: &DeviceKeys,
        name: &str,
        say: &mut dyn FnMut(String),
    ) -> Result<Arrived, PortError> {
        say("asking the mesh for the keystore and the list of devices".into());
        self.enrol_listed(listed(&self.id, device, name).map_err(damaged)?)
    }

    /// The same, of a device that has said itself how it is to be listed.
    pub(crate) fn enrol_listed(&self, listed: Device) -> Result<Arrived, PortError> {
        listed.verify(&self.id).map_err(damaged)?;
        self.look_well()?;
        self.still_listed()?;
        let (me, key) = (Author::Device(self.device.id()), self.device.signing_key());
        let known = self.known.lock();
        let mut posting = known.posting.clone();
        posting
            .change(|log| log.change(me, &key, clock(Hlc::default()), Change::Enrol(listed), None))
            .map_err(damaged)?;
        let known = Known::new(known.signpost.clone(), known.address(), posting);
        Ok(Arrived { keystore: self.keystore.keystore(), known, warning: None })
    }
}
