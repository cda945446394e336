//! Which peers are whose, as devices tell those who are to know: in their beacons, sealed for the other devices of their
//! identity, and for each contact. So two people know each other's peers when each has the other as a contact.
//!
//! A device vouches for the peers that it names; that these are its own nobody proves. Whoever names somebody else's peer
//! gives them what is given to contacts, as if they had taken it themselves and handed it on, and has them counted as one of
//! theirs where shards are spread.

use std::collections::BTreeMap;

use hypernet_core::id::{DeviceId, IdentityId, PeerId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::key::Secret;
use hypernet_core::limits::PEERS_TOLD_TO_MAX;
use hypernet_core::node::Whose;
use hypernet_core::port::PortError;

use super::contact::Contact;
use super::{Contacts, look_up_contact};
use crate::identity::Identity;

/// Whose a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) whose: Whose,
    pub(crate) identity: IdentityId,
    /// What they are called here; none of oneself.
    pub(crate) name: Option<String>,
}

/// Those to whom the device of an identity tells which peer it is.
pub(crate) fn told_to(me: &Identity) -> Vec<Secret> {
    let address = me.address();
    let mut all = vec![me.devices_secret()];
    all.extend(Contacts::of(me.keystore()).list().iter().map(|contact| address.secret_with(&contact.address())));
    all.truncate(PEERS_TOLD_TO_MAX);
    all
}

fn told_in<'a>(beacons: impl Iterator<Item = (DeviceId, &'a Beacon)>, secret: &Secret) -> Vec<PeerId> {
    beacons.flat_map(|(device, beacon)| beacon.peers(&device, secret)).collect()
}

/// The peers of the devices of one's own identity, as far as they were heard of.
pub(crate) fn own(me: &Identity) -> BTreeMap<PeerId, Person> {
    let secret = me.devices_secret();
    let devices = me.roster().devices;
    let beacons: Vec<(DeviceId, Beacon)> =
        devices.iter().filter_map(|device| Some((device.id, me.own_beacon(&device.id)?))).collect();
    let told = told_in(beacons.iter().map(|(device, beacon)| (*device, beacon)), &secret);
    let person = Person { whose: Whose::Own, identity: me.id(), name: None };
    told.into_iter().map(|peer| (peer, person.clone())).collect()
}

/// The peers of the devices of a contact, as the mesh has them now. It blocks.
pub(crate) fn of_contact(me: &Identity, contact: &Contact) -> Result<BTreeMap<PeerId, Person>, PortError> {
    let found = look_up_contact(me, contact)?;
    let roster = found.posting.log().roster();
    let listed = found.beacons.iter().filter(|(device, _)| roster.device(device).is_some());
    let secret = me.address().secret_with(&contact.address());
    let told = told_in(listed.map(|(device, beacon)| (*device, beacon)), &secret);
    let person = Person { whose: Whose::Contact, identity: contact.identity, name: Some(contact.name.clone()) };
    Ok(told.into_iter().map(|peer| (peer, person.clone())).collect())
}
