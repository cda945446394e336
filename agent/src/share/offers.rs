//! What this identity offers to others, at a place of each of its devices that its beacon names; and what its contacts offer
//! to it.
//!
//! Only contacts are asked: whoever is not known here can offer nothing.

use std::collections::BTreeMap;

use hypernet_core::codec;
use hypernet_core::id::{IdentityId, VolumeId};
use hypernet_core::identity::log::Recipient;
use hypernet_core::identity::place::roster_sealing_key;
use hypernet_core::port::PortError;
use hypernet_core::record::record_key;
use hypernet_core::share::members::Role;
use hypernet_core::share::offer::{self, Boxes, Offer, Offers};
use hypernet_core::share::posting;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::ShareError;
use super::circle::Circle;
use super::hearing::Ask;
use super::kept::{Made, SHARES_MAX, Share};
use crate::identity::places::{At, is_whole, put, read};
use crate::people::contact::Contact;
use crate::people::{Contacts, look_up_contact};
use crate::sealing;
use crate::volume::{Volume, damaged};

/// Offers of one contact that are shown.
const SHOWN_MAX: usize = 256;
const OFFERED: &str = "offered";
const SAID_CONTEXT: &str = "hypernet 2026 said of offers v1";
/// What the record is called when it cannot be published.
const OFFERS: &str = "what is offered to others";

/// What was put at the place of this device's offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Put {
    #[n(0)]
    number: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    said: [u8; 32],
}
hypernet_core::format!(Put, tag = 0x57, version = 1, max = 64, name = "what was offered");

/// A volume that somebody offers.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) by: Contact,
    pub(crate) offer: Offer,
}

/// What somebody else calls their directory goes into the keystore, and is shown.
pub(super) fn has_name(offer: &Offer) -> Result<(), ShareError> {
    if offer.is_sound() { Ok(()) } else { Err(ShareError::Name(offer.shown_name())) }
}

impl Offered {
    /// As a person names it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.by.name, self.offer.name)
    }
}

impl Volume {
    /// To whom is offered what, by this device.
    fn boxes(&self) -> Result<BTreeMap<IdentityId, (Recipient, Vec<Offer>)>, PortError> {
        let own = self.identity.roster();
        let mut boxes: BTreeMap<IdentityId, (Recipient, Vec<Offer>)> = BTreeMap::new();
        let shares = self.identity.keystore().keystore().shares;
        for volume in self.identity.offered() {
            let Some(share) = shares.iter().find(|share| share.volume == volume) else { continue };
            let circle = match Circle::load(&self.db.of(volume)?, volume) {
                Ok(Some(circle)) => circle,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, volume = %volume.short(), "a volume of which nothing can be read is offered to nobody");
                    continue;
                }
            };
            let members = circle.members(&own).members;
            // Whoever has a link is told by that.
            let bearers: Vec<IdentityId> = share.links.iter().filter_map(Made::bearer).map(|one| one.id()).collect();
            let others = circle.people.into_iter().filter(|(identity, _)| !bearers.contains(identity));
            for (identity, person) in others {
                if let Some(member) = members.get(&identity) {
                    let offer = self.offer(share, member.role);
                    boxes.entry(identity).or_insert_with(|| (person.recipient, Vec::new())).1.push(offer);
                }
            }
        }
        Ok(boxes)
    }

    fn offer(&self, share: &Share, role: Role) -> Offer {
        Offer {
            volume: share.volume,
            begin: share.begin,
            root: share.root,
            name: share.name.clone(),
            role,
            secret: share.secret.clone(),
            poster: posting::place(&self.device, &share.volume).signer(),
        }
    }

    /// Puts up what this device offers, unless that is there already.
    pub(crate) fn put_offers(&self) -> Result<(), PortError> {
        let before = match self.db.get_state(OFFERED)? {
            Some(bytes) => codec::decode::<Put>(&bytes).map_err(damaged)?,
            None if self.identity.offered().is_empty() => return Ok(()),
            None => Put::default(),
        };
        let boxes = self.boxes()?;
        let mut all = Vec::with_capacity(boxes.len());
        let mut hasher = blake3::Hasher::new_derive_key(SAID_CONTEXT);
        for (Recipient::X25519(key), offers) in boxes.into_values() {
            let plain = Zeroizing::new(codec::encode(&Offers { offers }));
            hasher.update(&key).update(&plain);
            all.push((Recipient::X25519(key), plain));
        }
        let said = *hasher.finalize().as_bytes();
        let (place, key) = (offer::place(&self.device), roster_sealing_key(&self.identity.id()));
        let there = self.peers.lookup(place.record_key())?;
        if let Some(record) = there.as_ref().filter(|record| before.said == said && record.sequence == before.number)
            && is_whole(&self.peers, record, &key)?
        {
            return self.peers.publish(record.clone(), self.peers.keepers(), OFFERS);
        }
        let sealed = all.iter().map(|(to, plain)| sealing::seal(&[*to], plain).map(Into::into));
        let boxes = sealed.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        let after = before.number.max(there.map_or(0, |record| record.sequence));
        let record = put(&self.peers, &place, &key, codec::encode(&Boxes { boxes }), after)?;
        let number = record.sequence;
        self.peers.publish(record, self.peers.keepers(), OFFERS)?;
        Ok(self.db.put_state(OFFERED, &codec::encode(&Put { number, said }))?)
    }

    /// What a contact offers to this identity.
    pub(crate) fn offered_by(&self, contact: &Contact) -> Result<Vec<Offered>, PortError> {
        let found = look_up_contact(&self.identity, contact)?;
        let roster = found.posting.log().roster();
        let key = roster_sealing_key(&contact.identity);
        // Of a device that was taken off nothing is taken.
        let listed = found.beacons.iter().filter(|(id, _)| roster.device(id).is_some());
        let places: Vec<_> =
            listed.filter_map(|(_, beacon)| beacon.offers).map(|signer| record_key(&signer.0)).collect();
        let mut all: BTreeMap<VolumeId, Offered> = BTreeMap::new();
        for record in self.peers.lookup_all(&places)?.into_iter().flatten() {
            let bytes = match read(&self.peers, &record, &key) {
                Ok(At::Here(bytes)) => bytes,
                Ok(At::Nothing | At::Ended(_)) => continue,
                Err(error) => {
                    tracing::warn!(%error, contact = contact.name, "what somebody offers cannot be read");
                    continue;
                }
            };
            let boxes = codec::decode::<Boxes>(&bytes).map_err(damaged)?.boxes;
            for plain in boxes.iter().filter_map(|sealed| self.identity.open_sealed(sealed)) {
                for offer in codec::decode::<Offers>(&plain).map_err(damaged)?.offers {
                    if all.len() < SHOWN_MAX {
                        all.entry(offer.volume).or_insert_with(|| Offered { by: contact.clone(), offer });
                    }
                }
            }
        }
        Ok(all.into_values().collect())
    }

    /// What all contacts offer; those who are not found now are told by name.
    pub(crate) fn offers(&self) -> (Vec<Offered>, Vec<(String, PortError)>) {
        let mut all = Vec::new();
        let mut missed = Vec::new();
        for contact in Contacts::of(self.identity.keystore()).list() {
            match self.offered_by(&contact) {
                Ok(offered) => all.extend(offered),
                Err(error) => missed.push((contact.name, error)),
            }
        }
        (all, missed)
    }

    /// Takes what is offered, if this identity has a part in it: it is in the keystore when this returns, and can be read.
    pub(crate) fn accept(&self, offer: Offer) -> Result<Share, ShareError> {
        has_name(&offer)?;
        self.take(Share::offered(offer, None))
    }

    /// Takes what was offered or linked into the keystore, once it is found.
    pub(super) fn take(&self, share: Share) -> Result<Share, ShareError> {
        let id = share.volume;
        let known = self.share();
        let is_new = known.is_none();
        if let Some(known) = known.filter(|known| known.begin != share.begin) {
            return Err(PortError::Damaged(format!("volume {id} is known here as another one: {}", known.name)).into());
        }
        if !self.identity.keystore().change(|mine| mine.shares.len() < SHARES_MAX && mine.add_share(share))? {
            return Err(ShareError::Full);
        }
        let _turn = self.circle_turn.lock();
        let heard = self.hear_in_turn(Ask::All).map_err(ShareError::from).and_then(|known| {
            let known = known.ok_or(ShareError::NotShared)?;
            match known.role(&self.identity.id()) {
                Some(_) => self.bear(&known).map(|()| known.share).map_err(ShareError::from),
                None => Err(PortError::NotFound("this identity has no part in it any more".into()).into()),
            }
        });
        if heard.is_err() && is_new {
            self.identity.keystore().change(|mine| mine.shares.retain(|share| share.volume != id))?;
        }
        heard
    }
}
