//! Other people: who is known here, and who they are on the mesh now.
//!
//! - `address`: what a person hands on, so that others find them;
//! - `contact`: what is kept of them, in the keystore, so that all devices and the 24 words have it;
//! - `lists`: what this device has seen of their devices;
//! - `told`: which peers these are;
//! - `guardians`: those of them who have shares of the words, and the shares of their words that are here.
//!
//! Invariant: a contact's identity is pinned when it is added. What is found at their address later counts if it is of that
//! identity, and is an error that says so loudly if it is not.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::id::{DeviceId, IdentityId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::log::{Log, Recipient};
use hypernet_core::identity::place::{Address, Signpost};
use hypernet_core::identity::posting::Posting;
use hypernet_core::identity::proof::{Proof, Transcript};
use hypernet_core::name::is_name;
use hypernet_core::port::PortError;
use hypernet_core::time::Hlc;
use thiserror::Error;

use crate::failure::Failure;
use crate::identity::Identity;
use crate::identity::gathering::gather_of_others;
use crate::keystore::KeystoreFile;
use crate::peers::Peers;
use crate::volume::damaged;
use crate::volume::recover::clock;

pub(crate) mod address;
pub(crate) mod contact;
pub(crate) mod guardians;
mod lists;
pub(crate) mod told;

use contact::{CONTACT_NAME_MAX, CONTACTS_MAX, Contact};
pub(crate) use lists::Lists;

/// How many people are looked up at once.
const AT_ONCE: usize = 16;

/// Why a contact is not there, or not changed.
#[derive(Debug, Error)]
pub(crate) enum ContactError {
    /// Nobody is called so.
    #[error("no contact is called {0}")]
    Unknown(String),
    /// Two devices have given one name to two people.
    #[error("{0} contacts are called {1}, added on different devices: name one by its address")]
    Ambiguous(usize, String),
    /// It would not be a name.
    #[error(
        "a contact's name has between 1 and {CONTACT_NAME_MAX} bytes, no blanks around it, no characters that control what is \
             shown, and is no address"
    )]
    Name,
    /// The name is in use.
    #[error("{0} is somebody else already: THE ADDRESS THAT IS KNOWN OF {0} IS ANOTHER ONE")]
    Taken(String),
    /// They are known by another name.
    #[error("this is the address of {0}, whom you know already")]
    Known(String),
    /// It is oneself.
    #[error("this is your own address")]
    Own,
    /// There is no room.
    #[error("there is room for {CONTACTS_MAX} contacts; remove one")]
    Full,
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Failure),
}

/// The contacts of an identity.
pub(crate) struct Contacts(Arc<KeystoreFile>);

impl Contacts {
    /// Those in this keystore.
    pub(crate) fn of(keystore: &Arc<KeystoreFile>) -> Self {
        Self(keystore.clone())
    }

    /// All, by their names.
    pub(crate) fn list(&self) -> Vec<Contact> {
        let mut all = self.0.keystore().contacts;
        all.retain(|contact| !contact.is_removed);
        all.sort_by(|one, other| (&one.name, one.identity).cmp(&(&other.name, other.identity)));
        all
    }

    /// The one that a person means: by name, or by address where that is not enough.
    pub(crate) fn get(&self, name: &str) -> Result<Contact, ContactError> {
        let mut all = self.list();
        if let Ok(address) = address::parse(name) {
            all.retain(|contact| contact.address() == address);
        } else {
            all.retain(|contact| contact.name == name);
        }
        match all.len() {
            0 => Err(ContactError::Unknown(name.to_owned())),
            1 => Ok(all.swap_remove(0)),
            several => Err(ContactError::Ambiguous(several, name.to_owned())),
        }
    }

    /// Adds somebody who was looked up. Who is there already, with all of that, stays as they are.
    pub(crate) fn add(&self, name: &str, identity: IdentityId, address: Address) -> Result<Contact, ContactError> {
        if !is_name(name, CONTACT_NAME_MAX) || address::parse(name).is_ok() {
            return Err(ContactError::Name);
        }
        self.0.change(|keystore| {
            if keystore.identity == identity {
                return Err(ContactError::Own);
            }
            let there = || keystore.contacts.iter().filter(|one| !one.is_removed);
            if there().any(|one| one.name == name && (one.identity, one.address()) != (identity, address)) {
                return Err(ContactError::Taken(name.to_owned()));
            }
            if let Some(known) = there().find(|one| one.identity == identity) {
                return match known.name == name {
                    true => Ok(known.clone()),
                    false => Err(ContactError::Known(known.name.clone())),
                };
            }
            if there().count() >= CONTACTS_MAX {
                return Err(ContactError::Full);
            }
            let now = clock(Hlc::default());
            let before = keystore.contacts.iter().find(|one| one.identity == identity).cloned();
            let before = before.map(|one| one.by_clock(now).changed).unwrap_or_default();
            let added = Contact::new(name, identity, address, clock(before));
            contact::merge(&mut keystore.contacts, std::slice::from_ref(&added), now);
            Ok(added)
        })?
    }

    /// Removes one.
    pub(crate) fn remove(&self, name: &str) -> Result<Contact, ContactError> {
        let found = self.get(name)?;
        self.change(&found, |contact| {
            contact.is_removed = true;
            contact.is_verified = false;
        })
    }

    /// People have made sure of this one.
    pub(crate) fn verified(&self, found: &Contact) -> Result<Contact, ContactError> {
        self.change(found, |contact| contact.is_verified = true)
    }

    fn change(&self, found: &Contact, change: impl FnOnce(&mut Contact)) -> Result<Contact, ContactError> {
        self.0.change(|keystore| {
            let now: Option<&Contact> = keystore.contacts.iter().find(|one| one.identity == found.identity);
            let now = now.filter(|one| !one.is_removed && one.address() == found.address());
            let Some(found) = now.cloned() else { return Err(ContactError::Unknown(found.name.clone())) };
            let now = clock(Hlc::default());
            let mut changed = found.by_clock(now);
            changed.changed = clock(changed.changed);
            change(&mut changed);
            contact::merge(&mut keystore.contacts, std::slice::from_ref(&changed), now);
            Ok(changed)
        })?
    }
}

fn changed(name: &str, what: &str) -> PortError {
    PortError::Damaged(format!(
        "the key of {name} has CHANGED: {what}. Nothing is sealed for it and nothing of it is believed. Ask {name}, not by \
         the mesh"
    ))
}

fn nothing(name: &str) -> PortError {
    PortError::NotFound(format!("the mesh has nothing of {name}, or no peer that has it is there"))
}

/// The identity at an address, to be pinned.
pub(crate) fn identity_at(peers: &Peers, address: &Address) -> Result<IdentityId, PortError> {
    let post = peers.look_well(address.record_key())?;
    let post = post.ok_or_else(|| {
        PortError::NotFound("the mesh has nothing at this address, or no peer that has it is there".into())
    })?;
    Ok(Signpost::open(&post, address).map_err(damaged)?.identity)
}

/// What the mesh has of somebody.
pub(crate) struct Found {
    /// Their devices, together with what was known of them.
    pub(crate) posting: Posting,
    /// What these say of themselves.
    pub(crate) beacons: Vec<(DeviceId, Beacon)>,
}

impl Found {
    /// What is sealed for them all of their devices open.
    pub(crate) fn recipient(&self) -> Result<Recipient, PortError> {
        let era = self.posting.log().roster().era;
        era.map(|era| era.recipient).ok_or_else(|| damaged("a list of devices without keys to seal for"))
    }
}

/// Does this for each of these people, several at once, until the time has passed: the mesh is slow to say that somebody is not
/// there. Returns what came of it for as many as there was time for, in their order.
pub(crate) fn for_each<T: Sync, R: Send>(all: &[T], within: Duration, look: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (begun, look) = (Instant::now(), &look);
    let mut done = Vec::with_capacity(all.len());
    for some in all.chunks(AT_ONCE) {
        if !done.is_empty() && begun.elapsed() >= within {
            break;
        }
        done.extend(std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|one| scope.spawn(move || look(one))).collect();
            let ended =
                |asked: std::thread::ScopedJoinHandle<'_, R>| asked.join().unwrap_or_else(|why| resume_unwind(why));
            asked.into_iter().map(ended).collect::<Vec<R>>()
        }));
    }
    done
}

/// Looks somebody up whose identity is pinned. What was `known` of their devices stays known, whatever is found.
pub(crate) fn look_up(
    peers: &Peers,
    name: &str,
    identity: IdentityId,
    address: &Address,
    known: Option<&Posting>,
) -> Result<Found, PortError> {
    let post = peers.look_well(address.record_key())?.ok_or_else(|| nothing(name))?;
    let found = Signpost::open(&post, address).map_err(damaged)?;
    if found.identity != identity {
        return Err(changed(name, "at their address there is another identity"));
    }
    let blank = known.cloned().unwrap_or_else(|| Posting::new(Log::new(identity)));
    let gathered = gather_of_others(peers, blank, vec![found.door])?;
    let roster = gathered.posting.log().roster();
    if roster.era.is_none() || roster.devices.is_empty() {
        let behind = gathered.rosters.get(&found.door);
        return Err(match behind.is_some_and(|there| there.bytes.is_some()) {
            true => changed(name, "the list of devices there is not signed by them"),
            false => nothing(name),
        });
    }
    let beacons = gathered.beacons.into_iter().map(|(id, (beacon, _))| (id, beacon)).collect();
    Ok(Found { posting: gathered.posting, beacons })
}

/// A contact as the mesh has them now: what this device has seen of their devices before stays known, so that nobody who keeps
/// the records brings one back that was taken off.
pub(crate) fn look_up_contact(me: &Identity, contact: &Contact) -> Result<Found, PortError> {
    let lists = me.lists();
    let before = lists.known(&contact.identity);
    let found = look_up(me.peers(), &contact.name, contact.identity, &contact.address(), before.as_ref())?;
    if let Err(error) = lists.keep(&found.posting, before.as_ref()) {
        tracing::warn!(%error, "the devices of a contact are not remembered");
    }
    Ok(found)
}

/// Whether this is the contact, in this meeting: one of their devices of now says so.
pub(crate) fn is_them(
    me: &Identity,
    contact: &Contact,
    proof: &Proof,
    meeting: &Transcript,
) -> Result<bool, PortError> {
    if proof.identity != contact.identity || !proof.is_of(meeting) {
        return Ok(false);
    }
    let found = look_up_contact(me, contact)?;
    Ok(found.posting.log().roster().device(&proof.device).is_some())
}

#[cfg(test)]
mod tests;
