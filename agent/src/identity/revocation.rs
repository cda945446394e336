//! Taking a device off the list: it must neither read nor write what comes after, so another era begins, and the last
//! notice at the end of the old one says where, for all who come by.
//!
//! Where two devices begin an era each at the same time, both leave their mark: keepers let nothing replace the notice of
//! the first, the second one's beacon tells its own, and the list says which counts. If neither had heard of all
//! revocations, whoever finds that begins another one.

use hypernet_core::id::DeviceId;
use hypernet_core::identity::era::Era;
use hypernet_core::identity::log::{Author, Change, Device};
use hypernet_core::identity::place::{Notice, roster_sealing_key};
use hypernet_core::identity::posting::Posting;
use hypernet_core::key::RecoveryKeys;
use hypernet_core::port::PortError;
use hypernet_core::time::Hlc;

use super::gathering::open_ways;
use super::known::{listed, seal_era, signpost};
use super::meeting::keystore_beside;
use super::places::put;
use super::{Identity, on_disk};
use crate::keystore::random_secret;
use crate::sealing;
use crate::volume::damaged;
use crate::volume::recover::clock;

impl Identity {
    /// Takes a device off the list.
    pub(crate) fn revoke(&self, device: &DeviceId) -> Result<(), PortError> {
        let _turn = self.turn.lock();
        let roster = self.confirm_in_turn()?;
        if roster.device(device).is_some() {
            self.begin_era(Change::Revoke(*device), None)?;
        }
        // Others may have begun one as well.
        self.confirm_in_turn().map(drop)
    }

    /// The same by the phrase, whatever others have signed or put in the way.
    pub(crate) fn revoke_by_phrase(&self, phrase: &RecoveryKeys, device: &DeviceId) -> Result<(), PortError> {
        self.put_right(phrase, Change::Revoke(*device)).map(drop)
    }

    /// Puts right what somebody has spoiled whose device is not known here, and takes nobody off. Returns whether this device
    /// had to come back onto the list.
    pub(crate) fn renew_by_phrase(&self, phrase: &RecoveryKeys) -> Result<bool, PortError> {
        self.put_right(phrase, Change::Rotate)
    }

    /// Begins an era by the phrase, with this device on the list, and puts up a signpost that leads there.
    fn put_right(&self, phrase: &RecoveryKeys, change: Change) -> Result<bool, PortError> {
        let _turn = self.turn.lock();
        let gathered = self.gather_all()?;
        if let Err(error) = self.take_in(&gathered) {
            tracing::warn!(%error, "what stood in the way of the words");
        }
        let eras = self.keystore.keystore().eras;
        let new = open_ways(&self.known.lock().posting, &phrase.opening_key(), &eras);
        let recipient = sealing::recipient(&phrase.opening_key()).map_err(damaged)?;
        // What only devices have that were in these is not to be lost with them.
        let beside: Vec<_> = new.iter().filter_map(|era| keystore_beside(&self.peers, self.id, era)).collect();
        self.keystore
            .change(|mine| {
                beside.iter().for_each(|other| mine.merge(other));
                new.into_iter().for_each(|era| mine.add(era));
                // Whoever had the keystore could have put another one there.
                mine.phrase = recipient;
            })
            .map_err(on_disk)?;
        let roster = self.roster();
        self.follow(&roster)?;
        let me = self.device.id();
        let is_gone = roster.device(&me).is_none();
        if is_gone {
            let name = roster.gone.iter().find(|device| device.id == me).map_or("device", |device| &device.name);
            let back = Change::Enrol(listed(&self.id, &self.device, name).map_err(damaged)?);
            let (key, now) = (phrase.signing_key(), clock(Hlc::default()));
            self.change_known(|known| {
                known.change(|posting| {
                    posting.change(|log| log.change(Author::Phrase, &key, now, back, None)).map(drop).map_err(damaged)
                })
            })?;
        }
        self.begin_era(change, Some(phrase))?;
        self.confirm_in_turn().map(|_| is_gone)
    }

    /// Begins an era by a change, in the name of this device or in that of the phrase; then there is also another signpost.
    pub(super) fn begin_era(&self, change: Change, phrase: Option<&RecoveryKeys>) -> Result<(), PortError> {
        let old = Era::clone(&self.era.lock());
        let mut keystore = self.keystore.keystore();
        let era = Era::new(old.number.saturating_add(1), random_secret().map_err(on_disk)?);
        keystore.add(era.clone());
        let mut posting = self.known.lock().posting.clone();
        let leaves = |one: &Device| matches!(change, Change::Revoke(device) if device == one.id);
        let stay = posting.log().roster().devices.iter().filter(|one| !leaves(one)).map(|one| one.recipient);
        let stay: Vec<_> = stay.chain([keystore.phrase]).collect();
        let (new, way) = seal_era(&era, &stay).map_err(damaged)?;
        let (author, key) = match phrase {
            Some(phrase) => (Author::Phrase, phrase.signing_key()),
            None => (Author::Device(self.device.id()), self.device.signing_key()),
        };
        let now = clock(Hlc::default());
        posting.change(|log| log.change(author, &key, now, change, Some(new))).map_err(damaged)?;
        posting.add_way(way);
        // First what the end leads to.
        let list_key = roster_sealing_key(&self.id);
        let list = put(&self.peers, &era.roster(), &list_key, posting.encode(), 0)?;
        self.publish(list, "the new list of devices")?;
        let record = self.seal_keystore(&keystore, &era, 0)?;
        self.publish(record, "the new keystore")?;
        if let Some(phrase) = phrase {
            let there = self.known.lock().signpost.sequence;
            let post = signpost(phrase, &era, there.saturating_add(1))?;
            self.publish(post.clone(), "the new signpost")?;
            self.change_known(|known| {
                known.signpost = post;
                Ok(())
            })?;
        }
        // Whoever is where this device was may follow another one's end, or have heard nothing of this device.
        if let Err(error) = self.post_at(&old, &posting) {
            tracing::warn!(%error, "the list of devices is not where the era before was");
        }
        let end = Notice::Ended(era.door()).publish(&old.end(), &list_key, 0).map_err(damaged)?;
        // One that too few took may have met another one there, which leads to where this one's beacon is found.
        if let Err(error) = self.publish(end, "the notice that the keys have changed")
            && self.peers.lookup(old.end().record_key())?.is_none()
        {
            return Err(error);
        }
        self.keystore.change(|mine| mine.merge(&keystore)).map_err(on_disk)?;
        self.change_known(|known| known.merge(&posting))?;
        self.follow(&self.roster()).map(drop)
    }

    fn post_at(&self, era: &Era, posting: &Posting) -> Result<(), PortError> {
        let key = roster_sealing_key(&self.id);
        let there = self.peers.lookup(era.roster().record_key())?.map_or(0, |record| record.sequence);
        self.publish(put(&self.peers, &era.roster(), &key, posting.encode(), there)?, "the list of devices")
    }
}
