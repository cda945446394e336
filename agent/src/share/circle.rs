//! Who has a part in one volume, as far as this device has heard: the signed changes, and the lists of devices of those
//! whose word counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::codec::{self, Format};
use hypernet_core::head::Head;
use hypernet_core::id::{DeviceId, DeviceTag, EntryId, IdentityId, VolumeId};
use hypernet_core::identity::log::{Device, Recipient, Roster};
use hypernet_core::identity::posting::Posting;
use hypernet_core::limits::{MEMBERS_MAX, POSTING_MAX};
use hypernet_core::port::PortError;
use hypernet_core::share::members::{Accepted, Author, Log, Members, MembersError, Merged, NewEpoch, Role};
use hypernet_core::share::posting::{Met, SealedFor};
use hypernet_core::tree::Dot;
use hypernet_store::volume::VolumeDb;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::posters::Poster;
use crate::volume::damaged;

/// The key of what is filed.
const CIRCLE: &str = "circle";
/// That of a beginning that another one has taken the place of.
const CIRCLE_BEFORE: &str = "circle before";

/// Of so many it is remembered that an epoch was sealed for them: one who has no part in it any more is enough for another one to
/// begin.
const TOLD_MAX: usize = 2 * MEMBERS_MAX;
/// Lists of devices that are kept, encoded: with all else they fit into what is [filed](Filed).
pub(super) const LISTS_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(LISTS_BYTES_MAX + 4 * POSTING_MAX < Filed::MAX);

/// Somebody as they were found last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// Who opens what is sealed for them.
    pub(crate) recipient: Recipient,
    /// Their devices, where it is asked what these have signed.
    pub(crate) posting: Option<Posting>,
    /// The admin who has said so, where nobody has looked on this device.
    pub(crate) told_by: Option<IdentityId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct FiledPerson {
    #[n(0)]
    identity: IdentityId,
    #[n(1)]
    recipient: Recipient,
    #[n(2)]
    posting: Option<ByteVec>,
    #[n(3)]
    told_by: Option<IdentityId>,
}

/// For whom an epoch was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Told {
    #[n(0)]
    pub(crate) epoch: NewEpoch,
    #[n(1)]
    pub(crate) to: Vec<Met>,
}

/// As it lies in the state of its volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Filed {
    #[cbor(n(0), with = "minicbor::bytes")]
    log: Vec<u8>,
    #[n(1)]
    begin: EntryId,
    #[n(2)]
    people: Vec<FiledPerson>,
    /// Of what this device has put at its place: the number, and a hash of what it says.
    #[n(3)]
    posted: u64,
    #[cbor(n(4), with = "minicbor::bytes")]
    said: [u8; 32],
    #[n(6)]
    posters: Vec<Poster>,
    /// The fifth has named no identities.
    #[n(7)]
    told: Option<Told>,
}
hypernet_core::format!(Filed, tag = 0x56, version = 1, max = 16 << 20, name = "circle");

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    pub(crate) log: Log,
    pub(crate) people: BTreeMap<IdentityId, Person>,
    pub(crate) posted: u64,
    pub(crate) said: [u8; 32],
    /// Of the epoch that counts: whoever of these is somebody else's by now has lost a device, which has it, too.
    pub(crate) told: Option<Told>,
    /// Places of admins' devices: those that were told of last are the last.
    pub(crate) posters: Vec<Poster>,
}

/// Whose heads of a volume are taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publishers {
    /// Devices that may publish.
    pub(crate) listed: Vec<Device>,
    /// Those that could, and whose heads are found all the same.
    pub(crate) gone: Vec<Device>,
    /// Of those whose identity was taken off, or has been given less since: the last ones that are taken.
    accepted: Option<BTreeMap<DeviceId, Accepted>>,
    /// Those of which nothing is taken that is not accepted: none of the identities that list them may publish any more.
    removed: Vec<DeviceId>,
    /// Up to which number it is taken what devices did of which nobody knew whose they are.
    taken: BTreeMap<DeviceTag, u64>,
}

impl Publishers {
    /// Of a volume that nobody else has a part in.
    pub(crate) fn of(roster: Roster) -> Self {
        Self { listed: roster.devices, gone: roster.gone, ..Self::default() }
    }

    /// A device that may publish.
    pub(crate) fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.listed.iter().find(|device| device.id == *id)
    }

    /// The number of the last head of a device that is taken, of those that are not without limit.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (DeviceId, u64)> {
        let accepted = self.accepted.iter().flatten();
        accepted.filter(|(id, _)| self.removed.contains(id)).map(|(id, accepted)| (*id, accepted.sequence))
    }

    /// Up to which head each device has a part in what the volume is: also of those that may publish no more, and of which
    /// somebody has taken something in while they could.
    pub(crate) fn counted(&self, volume: VolumeId) -> BTreeMap<DeviceTag, u64> {
        let without_limit = self.listed.iter().chain(&self.gone).filter(|device| !self.removed.contains(&device.id));
        let mut counted = self.taken.clone();
        for (device, last) in without_limit.map(|device| (device.id, u64::MAX)).chain(self.accepted()) {
            let most = counted.entry(device.tag_in(volume)).or_default();
            *most = last.max(*most);
        }
        counted
    }

    /// What there is in a tree of devices of which nobody knows whose they are, and is not taken yet.
    pub(crate) fn untaken(&self, volume: VolumeId, vector: &[Dot]) -> Vec<Dot> {
        let known = self.listed.iter().chain(&self.gone);
        let known: BTreeSet<DeviceTag> = known.map(|device| device.id.tag_in(volume)).collect();
        let is_taken = |dot: &Dot| self.taken.get(&dot.device).is_some_and(|last| *last >= dot.sequence);
        vector.iter().filter(|dot| !known.contains(&dot.device.of_device()) && !is_taken(dot)).copied().collect()
    }

    /// Whether a head of one of these is one that it was allowed to publish.
    pub(crate) fn takes(&self, head: &Head) -> bool {
        !self.removed.contains(&head.device) || self.is_named(head)
    }

    /// Whether none of the identities that list a device may publish any more.
    pub(crate) fn is_removed(&self, device: &DeviceId) -> bool {
        self.removed.contains(device)
    }

    /// Whether a head is the last one of a device that was taken off.
    pub(crate) fn is_named(&self, head: &Head) -> bool {
        let accepted = self.accepted.as_ref().and_then(|accepted| accepted.get(&head.device));
        self.removed.contains(&head.device) && accepted.is_some_and(|accepted| accepted.takes(head))
    }
}

/// Leaves the first of those that are one device.
fn one_of_each(devices: &mut Vec<Device>) {
    let mut seen = BTreeSet::new();
    devices.retain(|device| seen.insert(device.id));
}

impl Circle {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, people: BTreeMap::new(), posted: 0, said: [0; 32], told: None, posters: Vec::new() }
    }

    /// Takes in changes of who may do what. Whoever is known to be no device of those in whose name it signs takes no room.
    pub(super) fn hear_log(&mut self, own: &Roster, log: &Log) -> Result<Merged, MembersError> {
        let people = &self.people;
        let is_device = |author: &Author| {
            let theirs = || people.get(&author.identity)?.posting.as_ref().map(|posting| posting.log().roster());
            let roster = if author.identity == own.identity { Some(own) } else { theirs() }?;
            let was_one = || roster.gone.iter().any(|device| device.id == author.device);
            match roster.device(&author.device) {
                Some(_) => Some(true),
                None => (!was_one()).then_some(false),
            }
        };
        self.log.merge(log, &is_device)
    }

    /// Takes in who opens what is sealed for others, as it is said at places of those who are admins now: what was found here
    /// counts before that. What somebody has said who is no admin any more is forgotten. And so it is noted for whom others have
    /// sealed the epoch that counts: that one of these has lost a device since nobody else may be there to see. Returns whether
    /// anybody is new.
    pub(crate) fn hear_of(&mut self, own: &Roster, met: &BTreeMap<[u8; 32], SealedFor>) -> bool {
        let members = self.members(own);
        let is_admin = |identity: &IdentityId| members.role(identity) >= Some(Role::Admin);
        self.people.retain(|_, person| person.told_by.as_ref().is_none_or(is_admin));
        let before = self.people.len();
        let is_asked = |identity: &IdentityId| {
            let has_part = members.members.contains_key(identity) || members.gone.contains_key(identity);
            has_part && *identity != own.identity
        };
        let mut told: Vec<Met> = Vec::new();
        for poster in self.posters.iter().filter(|poster| is_admin(&poster.identity)) {
            let Some(SealedFor { epoch, people }) = met.get(&poster.signer) else { continue };
            for Met { identity, recipient } in people {
                if self.people.len() < MEMBERS_MAX && is_asked(identity) {
                    let told_by = Some(poster.identity);
                    let told = Person { recipient: *recipient, posting: None, told_by };
                    self.people.entry(*identity).or_insert(told);
                }
            }
            // Of those who have no part any more it was not sealed for them.
            let sealed = people.iter().filter(|met| members.members.contains_key(&met.identity));
            told.extend(sealed.filter(|_| Some(*epoch) == members.epoch));
        }
        if let Some(epoch) = members.epoch.filter(|_| !told.is_empty()) {
            self.note_told(epoch, &told);
        }
        self.people.len() > before
    }

    /// An epoch is sealed for these, beside whom it was sealed for before.
    pub(super) fn note_told(&mut self, epoch: NewEpoch, to: &[Met]) {
        let before = self.told.take().filter(|told| told.epoch == epoch);
        let mut all = before.map_or_else(Vec::new, |told| told.to);
        for met in to {
            if !all.contains(met) && all.len() < TOLD_MAX {
                all.push(*met);
            }
        }
        self.told = Some(Told { epoch, to: all });
    }

    /// Takes in how somebody was found. What is known of their devices is never given up, since what these have signed counts by
    /// it; of whom nothing is asked but to read it need not be known. Returns whether anything is new.
    pub(crate) fn meet(
        &mut self,
        identity: IdentityId,
        recipient: Recipient,
        found: Posting,
        is_asked: bool,
    ) -> Result<bool, PortError> {
        let before = self.people.get(&identity).cloned();
        let posting = match before.as_ref().and_then(|person| person.posting.clone()) {
            Some(mut known) => {
                known.merge(&found).map_err(damaged)?;
                Some(known)
            }
            None => Some(found).filter(|_| is_asked),
        };
        let era = posting.as_ref().and_then(|posting| posting.log().roster().era);
        let person = Person { recipient: era.map_or(recipient, |era| era.recipient), posting, told_by: None };
        let is_new = before.as_ref() != Some(&person);
        self.people.insert(identity, person);
        Ok(is_new)
    }

    /// Gives up lists of devices that take more room than there is. Whoever brings many people with long ones is not to keep this
    /// from being written down, and so be one whom nobody can take off. First go those of who has no part any more, then of
    /// those who may do the least, the longest before others; that of the owner stays. Of whom there is none nothing is taken.
    pub(super) fn fit_lists(&mut self, own: &Roster, max: usize) {
        let size = |person: &Person| person.posting.as_ref().map(|posting| posting.encode().len());
        let mut lists: Vec<(IdentityId, usize)> =
            self.people.iter().filter_map(|(identity, person)| Some((*identity, size(person)?))).collect();
        let mut all: usize = lists.iter().map(|(_, size)| size).sum();
        if all <= max {
            return;
        }
        let members = self.members(own);
        lists.retain(|(identity, _)| members.role(identity) < Some(Role::Owner));
        lists.sort_by_key(|(identity, size)| (members.role(identity), Reverse(*size)));
        for (identity, size) in lists {
            if all <= max {
                return;
            }
            if let Some(person) = self.people.get_mut(&identity) {
                tracing::warn!(identity = %identity.short(), size, "a list of devices has no room beside the others");
                person.posting = None;
                all -= size;
            }
        }
    }

    /// As this device left it.
    pub(crate) fn load(db: &VolumeDb, volume: VolumeId) -> Result<Option<Self>, PortError> {
        Self::filed(db, volume, CIRCLE)
    }

    /// One that was [set aside](Self::set_aside).
    pub(crate) fn before(db: &VolumeDb, volume: VolumeId) -> Result<Option<Self>, PortError> {
        Self::filed(db, volume, CIRCLE_BEFORE)
    }

    /// It is nothing that counts any more, until it is forgotten.
    pub(crate) fn set_aside(db: &VolumeDb) -> Result<(), PortError> {
        let bytes = db.get_state(CIRCLE)?;
        Ok(db.put_states(&[(CIRCLE_BEFORE, bytes.as_deref()), (CIRCLE, None)])?)
    }

    pub(crate) fn forget_before(db: &VolumeDb) -> Result<(), PortError> {
        Ok(db.put_states(&[(CIRCLE_BEFORE, None)])?)
    }

    fn filed(db: &VolumeDb, volume: VolumeId, name: &str) -> Result<Option<Self>, PortError> {
        let Some(bytes) = db.get_state(name)? else { return Ok(None) };
        let Filed { log, begin, people, posted, said, told, posters } = codec::decode(&bytes).map_err(damaged)?;
        let log = Log::decode(&log, volume, begin).map_err(damaged)?;
        let mut circle = Self { log, people: BTreeMap::new(), posted, said, told, posters };
        for FiledPerson { identity, recipient, posting, told_by } in people {
            let posting = posting.map(|bytes| Posting::decode(&bytes, &identity)).transpose().map_err(damaged)?;
            circle.people.insert(identity, Person { recipient, posting, told_by });
        }
        Ok(Some(circle))
    }

    pub(crate) fn save(&self, db: &VolumeDb) -> Result<(), PortError> {
        let people = self.people.iter().map(|(identity, person)| FiledPerson {
            identity: *identity,
            recipient: person.recipient,
            posting: person.posting.as_ref().map(|posting| posting.encode().into()),
            told_by: person.told_by,
        });
        let (log, begin, people) = (self.log.encode(), self.log.beginning(), people.collect());
        let told = self.told.clone();
        let posters = self.posters.clone();
        let filed = Filed { log, begin, people, posted: self.posted, said: self.said, told, posters };
        let bytes = codec::encode(&filed);
        // What is not read again would keep this volume closed for good.
        if bytes.len() > Filed::MAX {
            let (len, max) = (bytes.len(), Filed::MAX);
            return Err(damaged(format!(
                "who has a part in this volume, with their lists of devices, takes {len} bytes, and there is room for {max}: what \
                 was heard last is not kept; its owner can take somebody off"
            )));
        }
        Ok(db.put_state(CIRCLE, &bytes)?)
    }

    pub(super) fn roster(&self, identity: &IdentityId) -> Option<&Roster> {
        self.people.get(identity)?.posting.as_ref().map(|posting| posting.log().roster())
    }

    /// Who has a part in it, in the eyes of the identity with this list of devices.
    pub(crate) fn members(&self, own: &Roster) -> Members {
        self.log.members(&|author: &Author| self.is_listed(own, author))
    }

    /// Whether a device is on the list of the identity in whose name it signs.
    pub(crate) fn is_listed(&self, own: &Roster, author: &Author) -> bool {
        let roster = if author.identity == own.identity { Some(own) } else { self.roster(&author.identity) };
        roster.is_some_and(|roster| roster.device(&author.device).is_some())
    }

    /// Whose heads are taken. A device may be on the lists of several identities: of its own, and of a link by which it came.
    /// What any of them may do it may.
    pub(crate) fn publishers(&self, own: &Roster) -> Publishers {
        let members = self.members(own);
        let (accepted, taken) = (Some(members.accepted.clone()), members.taken.clone());
        let mut publishers = Publishers { accepted, taken, ..Publishers::default() };
        let roster = |identity: &IdentityId| match *identity == own.identity {
            true => Some(own),
            false => self.roster(identity),
        };
        for roster in members.writers().filter_map(|member| roster(&member.identity)) {
            publishers.listed.extend(roster.devices.iter().cloned());
            publishers.gone.extend(roster.gone.iter().cloned());
        }
        // Whoever reads by now, too, has published something that others rely on.
        for roster in members.wrote.iter().filter_map(roster) {
            let devices = roster.devices.iter().chain(&roster.gone);
            publishers.removed.extend(devices.clone().map(|device| device.id));
            publishers.gone.extend(devices.cloned());
        }
        let Publishers { listed, gone, removed, .. } = &mut publishers;
        one_of_each(listed);
        gone.retain(|device| listed.iter().all(|other| other.id != device.id));
        one_of_each(gone);
        removed.retain(|id| listed.iter().all(|other| other.id != *id));
        publishers
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::identity;
    use hypernet_core::identity::log::NewEra;
    use hypernet_core::identity::place::Address;
    use hypernet_core::key::{DeviceKeys, RecoveryKeys, Secret};
    use hypernet_core::share::members::{Change, Member};
    use hypernet_core::time::Hlc;

    use super::*;

    /// What `agent/golden/circle.hex` stands for.
    fn golden() -> Filed {
        let posting = hypernet_format::all()["posting"].bytes.clone();
        let met = Met { identity: IdentityId([2; 32]), recipient: Recipient::X25519([3; 32]) };
        Filed {
            log: hypernet_format::all()["member-log"].bytes.clone(),
            begin: EntryId([1; 32]),
            people: vec![FiledPerson {
                identity: IdentityId([2; 32]),
                recipient: Recipient::X25519([3; 32]),
                posting: Some(posting.into()),
                told_by: Some(IdentityId([9; 32])),
            }],
            posted: 4,
            said: [5; 32],
            told: Some(Told { epoch: NewEpoch { number: 6, name: [7; 32] }, to: vec![met] }),
            posters: vec![Poster { signer: [8; 32], identity: IdentityId([2; 32]), device: None, heard: None }],
        }
    }

    #[test]
    fn it_is_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/circle.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Filed>(&bytes).unwrap(), golden());
    }

    #[test]
    fn lists_of_devices_for_which_there_is_no_room_are_given_up_those_first_that_matter_least() {
        let (volume, id) = (VolumeId([9; 16]), |byte| IdentityId([byte; 32]));
        let address = || Address { signer: [1; 32], secret: [2; 16] };
        let keys = DeviceKeys::new(Secret::new([2; 32]));
        let author = Author { identity: id(1), device: keys.id() };
        let epoch = NewEpoch { number: 1, name: [3; 32] };
        let mut log = Log::begin(volume, author, &keys.signing_key(), address(), Hlc::default(), epoch);
        let roles = [(2, Role::Admin), (3, Role::Writer), (4, Role::Writer)];
        let members = roles.map(|(byte, role)| Member::new(id(byte), address(), role)).to_vec();
        let change = Change::Grant(members);
        log.change(author, &keys.signing_key(), Hlc::default(), change, None, &|_: &Author| true).unwrap();
        let mut circle = Circle::new(log);
        // That of the last of them is longer than the others.
        for (byte, devices) in [(2, 2), (3, 1), (4, 2), (5, 1)] {
            let phrase = RecoveryKeys::new(&[byte; 64]);
            let mut posting = Posting::new(identity::log::Log::new(phrase.id()));
            for which in 0..devices {
                let key = DeviceKeys::new(Secret::new([byte + 16 * which; 32])).signing_key();
                let (recipient, era) =
                    (Recipient::X25519([byte; 32]), NewEra { recipient: Recipient::X25519([byte; 32]), way: [0; 32] });
                let device = Device::sign(&phrase.id(), &key, recipient, "x".into(), [which; 32]);
                let change = identity::log::Change::Enrol(device);
                posting
                    .change(|log| {
                        let by = identity::log::Author::Phrase;
                        log.change(by, &phrase.signing_key(), Hlc::default(), change, (which == 0).then_some(era))
                    })
                    .unwrap();
            }
            let person = Person { recipient: Recipient::X25519([byte; 32]), posting: Some(posting), told_by: None };
            circle.people.insert(id(byte), person);
        }
        let own = Roster { identity: id(1), ..circle.people[&id(2)].posting.as_ref().unwrap().log().roster().clone() };
        let size = |circle: &Circle| {
            let lists = circle.people.values().filter_map(|person| person.posting.as_ref());
            lists.map(|posting| posting.encode().len()).sum::<usize>()
        };
        for gone in [5, 4, 3, 2] {
            let room = size(&circle);
            let before = circle.clone();
            circle.fit_lists(&own, room);
            assert_eq!(circle, before, "there is room");
            circle.fit_lists(&own, room - 1);
            let differ = circle.people.iter().filter(|(id, person)| person.posting != before.people[*id].posting);
            assert_eq!(differ.map(|(id, _)| id.0[0]).collect::<Vec<_>>(), [gone]);
        }
    }

    #[test]
    fn of_who_was_taken_off_only_the_head_is_taken_that_the_removal_names() {
        let head: Head = codec::decode(&hypernet_format::all()["head"].bytes).unwrap();
        let takes = |accepted: Accepted, head: &Head| {
            let publishers = Publishers {
                accepted: Some(BTreeMap::from([(accepted.device, accepted)])),
                removed: vec![head.device],
                ..Publishers::default()
            };
            publishers.takes(head)
        };
        let accepted = Accepted::of(&head);
        assert!(takes(accepted, &head));
        // What was signed since may have any number.
        for sequence in [0, head.sequence - 1, head.sequence + 1] {
            assert!(!takes(accepted, &Head { sequence, ..head.clone() }), "{sequence}");
        }
        assert!(!takes(accepted, &Head { vector: Vec::new(), ..head.clone() }));
        assert!(!takes(Accepted { head: [0; 32], sequence: head.sequence + 1, ..accepted }, &head));
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_a_panic() {
        crate::golden::mutations(&codec::encode(&golden()), |bytes| {
            let _ = codec::decode::<Filed>(bytes);
        });
    }
}
