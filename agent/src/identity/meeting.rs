//! Bringing together what this device and the mesh have of an identity: all places are read, what is there is taken in, and
//! what is here and not there is put there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hypernet_core::codec::{self, CodecError};
use hypernet_core::id::{DeviceId, IdentityId, RecordKey, VolumeId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::era::{Door, Era};
use hypernet_core::identity::log::{Change, Log, Recipient, Roster};
use hypernet_core::identity::place::{Notice, Place, Signpost, roster_sealing_key};
use hypernet_core::identity::posting::Posting;
use hypernet_core::key::{Secret, VolumeKeys};
use hypernet_core::port::PortError;
use hypernet_core::record::{Record, record_key};
use zeroize::Zeroizing;

use super::gathering::{Gathered, gather, gather_without, open_ways};
use super::known::Put;
use super::places::{At, in_the_way, is_whole, put, read};
use super::{Identity, era_of, named_by, on_disk};
use crate::keystore::Keystore;
use crate::locked::Locked;
use crate::peers::Peers;
use crate::people::told::told_to;
use crate::sealing;
use crate::volume::damaged;

/// What the records are called when they cannot be published.
const LIST: &str = "the list of devices";
const KEYS: &str = "the keystore";
const BEACON: &str = "where this device publishes";
const WAY: &str = "the way to both";
pub(crate) const SHARE: &str = "the share of a guardian";
/// How often it is tried to come to rest while others change the list.
pub(super) const TRIES: u32 = 4;
/// Eras whose places are looked at, and whose ends are kept up, from the newest.
const ERAS_KEPT_UP: usize = 16;

/// What is at the place of a keystore.
pub(super) struct Kept {
    pub(super) record: Option<Record>,
    /// None when there is nothing that is sealed for who asks.
    pub(super) keystore: Option<Keystore>,
}

/// Reads the keystore of an era, which `by` opens, unless it is in the record that is known.
pub(super) fn read_keystore(peers: &Peers, era: &Era, by: &Secret, known: Option<&Record>) -> Result<Kept, PortError> {
    let place = era.keystore();
    let record = peers.lookup(place.record_key())?;
    let mut kept = Kept { record, keystore: None };
    let Some(record) = kept.record.as_ref().filter(|record| Some(*record) != known) else { return Ok(kept) };
    if let At::Here(bytes) = read(peers, record, &place.sealing_key())? {
        let nothing = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "what lies at the place of the keystore is none of this identity");
        };
        match sealing::open(by, &bytes).map(|plain| codec::decode(&plain)) {
            Ok(Ok(keystore)) => kept.keystore = Some(keystore),
            Ok(Err(error @ CodecError::Version { .. })) => return Err(error.into()),
            Ok(Err(error)) => nothing(&error),
            Err(error) => nothing(&error),
        }
    }
    Ok(kept)
}

/// The keystore of an era that does not count, or is not looked at first: another device was in it, and what only that one
/// has is not to be lost with it. None where nothing of this identity is found.
pub(super) fn keystore_beside(peers: &Peers, identity: IdentityId, era: &Era) -> Option<Keystore> {
    let kept = read_keystore(peers, era, &era.opening_key(), None);
    let kept = kept.inspect_err(|error| tracing::warn!(%error, "the keystore of an era cannot be read")).ok()?;
    kept.keystore.filter(|other| other.identity == identity)
}

impl Identity {
    /// Publishes so that it outlives as many losses as a segment does.
    pub(super) fn publish(&self, record: Record, what: &str) -> Result<(), PortError> {
        self.peers.publish(record, self.peers.keepers(), what)
    }

    /// The eras whose places are looked at: that which counts, those that the list names, and of the others the newest. Who
    /// is on the list can begin any number, with any numbers.
    fn eras_kept_up(&self) -> Vec<Era> {
        let named: Vec<Recipient> = {
            let known = self.known.lock();
            known.posting.ways().into_iter().map(|(era, _)| era.recipient).collect()
        };
        let now = Era::clone(&self.era.lock());
        let mut eras = self.keystore.keystore().eras;
        let is_named = |era: &Era| named_by(era).is_some_and(|found| named.contains(&found));
        eras.sort_by_cached_key(|era| (*era != now, !is_named(era), std::cmp::Reverse(era.rank())));
        eras.truncate(ERAS_KEPT_UP);
        eras
    }

    /// The door that the signpost leads to.
    fn signposted(&self) -> Option<Door> {
        self.known.lock().signposted().ok().map(|signpost| signpost.door)
    }

    /// Seals for the words of this identity from now on: for whom that is the signpost says, which these have signed, and no
    /// keystore that a device has written.
    fn keep_the_words(&self) -> Result<(), PortError> {
        let signpost = self.known.lock().signposted().map_err(damaged)?;
        if signpost.identity != self.id {
            return Err(damaged("the signpost is of another identity"));
        }
        self.keystore.change(|mine| mine.phrase = signpost.phrase).map_err(on_disk)
    }

    /// Takes in a signpost that was put up since.
    fn meet_signpost(&self) -> Result<(), PortError> {
        let place = self.known.lock().signpost.key();
        let Some(found) = self.peers.lookup(place)? else { return Ok(()) };
        self.change_known(|known| {
            let is_ours = |found: Signpost| found.identity == self.id;
            if found.replaces(&known.signpost) && Signpost::open(&found, &known.address()).is_ok_and(is_ours) {
                known.signpost = found;
            }
            Ok(())
        })
    }

    /// All that the mesh has, as far as the eras of this device and the signpost lead there.
    pub(super) fn gather_all(&self) -> Result<Gathered, PortError> {
        self.meet_signpost()?;
        self.keep_the_words()?;
        let mut doors: Vec<Door> = self.eras_kept_up().iter().map(Era::door).collect();
        doors.extend(self.signposted());
        let (posting, posted) = {
            let known = self.known.lock();
            (known.posting.clone(), known.posted.record.clone())
        };
        gather(&self.peers, posting, doors, posted.as_ref())
    }

    /// Takes in what is signed, and the eras that this device was told of. Returns whether that which counts is among them;
    /// an error when this device is not on the list any more.
    pub(super) fn take_in(&self, gathered: &Gathered) -> Result<bool, PortError> {
        let known = self.keystore.keystore().eras;
        let new = open_ways(&gathered.posting, &self.device.opening_key(), &known);
        // First the eras, so that the list on the disk names none that is not there.
        self.keystore.change(|mine| new.iter().cloned().for_each(|era| mine.add(era))).map_err(on_disk)?;
        self.change_known(|known| known.merge(&gathered.posting))?;
        *self.looked.lock() = Some(Instant::now());
        *self.beacons.lock() = gathered.beacons.iter().map(|(id, (beacon, _))| (*id, beacon.clone())).collect();
        let is_in = self.follow(&self.still_listed()?)?;
        let now = Era::clone(&self.era.lock());
        *self.end.lock() =
            gathered.ends.get(&now.door()).and_then(|ends| ends.first()).map(|(_, record)| record.clone());
        for era in new.iter().filter(|era| **era != now) {
            if let Some(other) = keystore_beside(&self.peers, self.id, era) {
                self.keystore.change(|mine| mine.merge_beside(&other)).map_err(on_disk)?;
            }
        }
        Ok(is_in)
    }

    /// Goes over to the era that counts, if this device has it. Returns whether it has.
    pub(super) fn follow(&self, roster: &Roster) -> Result<bool, PortError> {
        let Some(era) = era_of(&self.keystore.keystore().eras, roster) else { return Ok(false) };
        let changed = {
            let mut now = self.era.lock();
            *std::mem::replace(&mut *now, Locked::new(era.clone())) != era
        };
        if changed {
            tracing::info!(era = era.number, "the keys of this identity have changed");
            // What was put where it was is of no use where it is.
            self.change_known(|known| {
                (known.posted, known.kept) = (Put::default(), Put::default());
                Ok(())
            })?;
        }
        Ok(true)
    }

    /// Takes in the keystore as the mesh has it. Returns what lies at its place.
    fn meet_keystore(&self, era: &Era) -> Result<Kept, PortError> {
        let kept = self.known.lock().kept.record.clone();
        let found = read_keystore(&self.peers, era, &era.opening_key(), kept.as_ref())?;
        if let Some(other) = &found.keystore {
            if other.identity != self.id {
                return Err(damaged("the keystore on the mesh is of another identity"));
            }
            self.keystore.change(|mine| mine.merge(other)).map_err(on_disk)?;
        }
        Ok(found)
    }

    /// The same as [`Self::look`], unless what is known is no older than this.
    pub(crate) fn look_within(&self, age: Duration) -> Result<(), PortError> {
        if self.looked.lock().is_some_and(|looked| looked.elapsed() <= age) {
            return Ok(());
        }
        self.look().map(drop)
    }

    /// Takes in what the mesh has of this identity, and puts nothing there. Returns its devices.
    pub(crate) fn look(&self) -> Result<Roster, PortError> {
        let _turn = self.turn.lock();
        let gathered = self.gather_all()?;
        if !self.take_in(&gathered)? {
            return Err(PortError::Unreachable(
                "the keys have changed, and nothing on the mesh tells them to this device: it begins others when it syncs"
                    .into(),
            ));
        }
        let era = Era::clone(&self.era.lock());
        self.meet_keystore(&era)?;
        Ok(self.roster())
    }

    /// The same, asked for twice and once peers have stopped coming in, as in [`Peers::look_well`].
    pub(crate) fn look_well(&self) -> Result<Roster, PortError> {
        self.peers.settle();
        self.look()?;
        self.look()
    }

    /// Makes sure that this device is on the list, that whoever has the keys of a volume finds its heads of it, that no device
    /// that was revoked is in the era that counts, that enough peers keep all that an identity has on the mesh, and that the
    /// phrase leads there: what this node found may be its own copy, and the mesh may have grown.
    pub(crate) fn confirm(&self) -> Result<Roster, PortError> {
        let _turn = self.turn.lock();
        self.confirm_in_turn()
    }

    pub(super) fn confirm_in_turn(&self) -> Result<Roster, PortError> {
        for _ in 0..TRIES {
            let gathered = self.gather_all()?;
            // Whoever began the era had not heard of this device, or of all that were revoked.
            let is_in = self.take_in(&gathered)?;
            if is_in && self.roster().is_sealed_off {
                return self.put_up(&gathered);
            }
            tracing::info!(is_in, "another era begins, with all who are on the list and with nobody else");
            self.begin_era(Change::Rotate, None)?;
        }
        Err(PortError::Unreachable("other devices change the list of devices all the time; try again".into()))
    }

    /// Whether the mesh still has all as this device put it there, and nobody has begun another era: one round of
    /// questions, to be asked after something was published and before it counts. As many are to answer as are to keep what
    /// was published: silence says nothing.
    pub(crate) fn is_current(&self, wanted: usize) -> Result<bool, PortError> {
        let era = Era::clone(&self.era.lock());
        let keys = [era.roster().record_key(), era.end().record_key()];
        let found = self.peers.lookup_heard(&keys, wanted, "whether the keys of this identity have changed")?;
        let posted = self.known.lock().posted.record.clone();
        Ok(posted.is_some() && found == [posted, self.end.lock().clone()])
    }

    fn put_up(&self, gathered: &Gathered) -> Result<Roster, PortError> {
        let era = Era::clone(&self.era.lock());
        let (door, key) = (era.door(), roster_sealing_key(&self.id));
        self.put_up_list(gathered, &era, &key)?;
        let kept = self.meet_keystore(&era)?;
        self.put_up_keystore(&kept, &era)?;
        self.put_up_beacon(gathered, door, &key)?;
        let alone = self.keep_up_ends(gathered, &era, &key)?;
        let signpost = self.known.lock().signpost.clone();
        self.publish(signpost, WAY)?;
        self.put_up_shares();
        self.check_the_way(gathered, door, alone)?;
        self.still_listed()
    }

    fn put_up_list(&self, gathered: &Gathered, era: &Era, key: &Secret) -> Result<(), PortError> {
        let there = gathered.rosters.get(&era.door()).ok_or_else(|| damaged("the list was not looked for"))?;
        if let Some(error) = &there.unread {
            return Err(error.clone());
        }
        let (posting, posted) = {
            let known = self.known.lock();
            (known.posting.encode(), known.posted.clone())
        };
        let is_there = there.record == posted.record || there.bytes.as_ref() == Some(&posting);
        let record = match &there.record {
            Some(record) if is_there && is_whole(&self.peers, record, key)? => record.clone(),
            found => {
                let after = posted.number.max(found.as_ref().map_or(0, |record| record.sequence));
                put(&self.peers, &era.roster(), key, posting.clone(), after)?
            }
        };
        self.publish(record.clone(), LIST)?;
        self.change_known(|known| {
            known.posted = Put::of(record, known.posting.encode() == posting);
            Ok(())
        })
    }

    fn put_up_keystore(&self, there: &Kept, era: &Era) -> Result<(), PortError> {
        let (mine, kept) = (self.keystore.keystore(), self.known.lock().kept.clone());
        let is_there = match &there.keystore {
            Some(found) => *found == mine,
            None => there.record.is_some() && there.record == kept.record && kept.is_of(&mine),
        };
        let key = era.keystore().sealing_key();
        let record = match &there.record {
            Some(record) if is_there && is_whole(&self.peers, record, &key)? => record.clone(),
            found => {
                let after = kept.number.max(found.as_ref().map_or(0, |record| record.sequence));
                self.seal_keystore(&mine, era, after)?
            }
        };
        self.publish(record.clone(), KEYS)?;
        self.change_known(|known| {
            known.kept = Put::of_keystore(record, &mine);
            Ok(())
        })
    }

    /// Whether what the keystore says is what this device has put on the mesh last.
    pub(crate) fn has_put_up_keystore(&self) -> bool {
        self.known.lock().kept.is_of(&self.keystore.keystore())
    }

    /// The record of a keystore of this era, sealed for the phrase and for all who have the era.
    pub(super) fn seal_keystore(&self, keystore: &Keystore, era: &Era, after: u64) -> Result<Record, PortError> {
        let recipient = sealing::recipient(&era.opening_key()).map_err(damaged)?;
        let plain = Zeroizing::new(codec::encode(keystore));
        let sealed = sealing::seal(&[keystore.phrase, recipient], &plain).map_err(damaged)?;
        let place = era.keystore();
        put(&self.peers, &place, &place.sealing_key(), sealed, after)
    }

    /// The keys under which this device's heads are found: of each volume those of now, and those of the last ones.
    fn told(&self) -> Vec<VolumeKeys> {
        let volumes: Vec<VolumeId> = self.told.lock().keys().copied().collect();
        volumes.into_iter().flat_map(|volume| self.told_of(volume)).collect()
    }

    /// The same of one volume; nothing while it is not told.
    pub(crate) fn told_of(&self, volume: VolumeId) -> Vec<VolumeKeys> {
        let Some(last) = self.told.lock().get(&volume).cloned() else { return Vec::new() };
        let mut all = self.all_keys(volume).into_iter();
        let mut told: Vec<VolumeKeys> = all.next().into_iter().collect();
        told.extend(all.filter(|keys| last.contains(&self.device.head_signer(keys))));
        told
    }

    /// The volumes of which this device says who may do what, with the secrets of their shares.
    fn posters(&self) -> Vec<(VolumeId, Secret)> {
        let keystore = self.keystore.keystore();
        let all = self.offered();
        all.into_iter().filter_map(|volume| Some((volume, keystore.share(volume)?.secret.clone()))).collect()
    }

    /// The shares of the words that guardians are to find. What is durable does not depend on them.
    fn put_up_shares(&self) {
        let Some(guardians) = self.keystore.keystore().guardians.mine else { return };
        match guardians.records(&self.address()) {
            Ok(records) => {
                let (names, records): (Vec<_>, Vec<_>) =
                    records.into_iter().map(|(one, record)| (&one.name, record)).unzip();
                for (name, kept) in names.into_iter().zip(self.peers.publish_all(records, self.peers.keepers(), SHARE))
                {
                    if let Err(error) = kept {
                        tracing::warn!(%error, name, "the share of a guardian is not on the mesh");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "shares of the words cannot be put on the mesh"),
        }
    }

    fn put_up_beacon(&self, gathered: &Gathered, door: Door, key: &Secret) -> Result<(), PortError> {
        let (told, posters) = (self.told(), self.posters());
        let beacon = Beacon::new(&self.device, door, &told, &posters, !posters.is_empty());
        let (peer, to) = (self.peers.me()?, told_to(self));
        let beacon = beacon.and_then(|beacon| beacon.tell_peers(&self.device, &[peer], &to)).map_err(damaged)?;
        let place: Place = Beacon::place(&self.device);
        let me: DeviceId = self.device.id();
        let record = match gathered.beacons.get(&me) {
            Some((found, record)) if *found == beacon && is_whole(&self.peers, record, key)? => record.clone(),
            found => {
                let after = found.map_or(0, |(_, record)| record.sequence).max(self.known.lock().beacon);
                put(&self.peers, &place, key, codec::encode(&beacon), after)?
            }
        };
        let number = record.sequence;
        self.publish(record, BEACON)?;
        self.beacons.lock().insert(me, beacon);
        self.change_known(|known| {
            known.beacon = number;
            Ok(())
        })
    }

    /// Whoever has only an older way comes to where all is now: from each of the newest eras, and from the door that the
    /// signpost leads to, however many have ended since. Returns what too few keep on that way because others have something
    /// else there.
    fn keep_up_ends(&self, gathered: &Gathered, now: &Era, key: &Secret) -> Result<Vec<Record>, PortError> {
        let path = self.signposted().map(|begin| gathered.path(begin)).unwrap_or_default();
        let mut eras = self.eras_kept_up();
        // Where the path breaks off it goes on from here.
        let breaks_off = |era: &&Era| path.contains(&era.door()) && !gathered.ends.contains_key(&era.door());
        let known = self.keystore.keystore().eras;
        let more: Vec<Era> = known.iter().filter(breaks_off).filter(|era| !eras.contains(era)).cloned().collect();
        eras.extend(more);
        eras.retain(|era| era != now);
        let doors: BTreeSet<Door> = eras.iter().map(Era::door).collect();
        let on_path = path.iter().filter(|door| !doors.contains(*door));
        let mut records: Vec<Record> = on_path.filter_map(|door| gathered.end(*door, now.door())).cloned().collect();
        for era in &eras {
            records.push(match gathered.end(era.door(), now.door()) {
                Some(record) => record.clone(),
                None => Notice::Ended(now.door()).publish(&era.end(), key, 0).map_err(damaged)?,
            });
        }
        // What leads elsewhere is not needed, whoever has put it there.
        let leading = path.iter().filter(|door| gathered.leads(**door, now.door()));
        let needed: BTreeSet<RecordKey> = leading.map(|door| record_key(&door.end)).collect();
        let kept = self.peers.publish_all(records.clone(), self.peers.keepers(), WAY);
        let mut alone = Vec::new();
        for (record, kept) in records.into_iter().zip(kept) {
            let Err(error) = kept else { continue };
            let place = record.key();
            let found = self.peers.lookup_lasts(&[place])?.pop().unwrap_or_default();
            let is_needed = needed.contains(&place);
            match found.as_slice() {
                [] => return Err(error),
                // It is the copy of this node: who has only the words would find no way on from there.
                [one] if *one == record && is_needed => return Err(error),
                // What somebody else put there stays, and where that leads to is looked at next.
                [_] => {}
                _ => alone.extend(Some(record).filter(|_| is_needed)),
            }
        }
        Ok(alone)
    }

    /// Whether who has only the phrase finds the era that counts, and does so without these records.
    fn check_the_way(&self, gathered: &Gathered, door: Door, without: Vec<Record>) -> Result<(), PortError> {
        let Some(begin) = self.signposted() else { return Err(damaged("the signpost cannot be read")) };
        if without.is_empty() && gathered.leads(begin, door) {
            return Ok(());
        }
        let nothing = Posting::new(Log::new(self.id));
        let found = gather_without(&self.peers, nothing, vec![begin], without)?;
        if found.posting.log().roster().era == self.roster().era {
            return Ok(());
        }
        Err(in_the_way("the words of this identity would not lead to its keys (or too few peers are there)"))
    }
}
