//! Who may do what in a volume: signed changes, each of which names by their hashes those that its author had heard of.
//!
//! Everybody keeps all changes that they have heard of and [works out](counting) for themselves which of them count. A
//! change is signed by a device, and speaks for the identity that has it on its list. What is on that list changes, so
//! whoever asks says which devices are.
//!
//! Invariant: nothing that was heard of is forgotten, and equal sets of changes, with equal lists of devices, come to the
//! same members, whoever was heard first and whatever time anybody says it is. What is kept can always be read again: there is
//! room for as many changes, and for as many bytes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::head::Head;
use crate::id::{DeviceId, DeviceTag, EntryId, IdentityId, VolumeId};
use crate::identity::place::Address;
use crate::key::is_signed;
use crate::limits::{
    ACCEPTED_MAX, CHANGED_MAX, MEMBER_CHANGES_KEPT, MEMBER_CHANGES_MAX, MEMBER_LOG_KEPT, MEMBER_LOG_MAX, MEMBERS_MAX,
    TAKEN_MAX,
};
use crate::time::Hlc;
use crate::tree::Dot;

mod counting;
#[cfg(test)]
mod tests;

const SIGN_CONTEXT: &[u8] = b"hypernet member change v1\0";
const ID_CONTEXT: &str = "hypernet 2026 member change id v1";
const HEAD_CONTEXT: &str = "hypernet 2026 accepted head v1";

/// What an identity may do in a volume. Each may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Read.
    #[n(0)]
    Reader,
    /// Publish heads that others take.
    #[n(1)]
    Writer,
    /// Bring readers and writers, and take them off.
    #[n(2)]
    Admin,
    /// Bring admins and take them off: the identity that began it.
    #[n(3)]
    Owner,
}

/// An identity that has a part in a volume.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Member {
    /// Who.
    #[n(0)]
    pub identity: IdentityId,
    #[cbor(n(1), with = "minicbor::bytes")]
    signer: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    secret: [u8; 16],
    /// What it may do.
    #[n(3)]
    pub role: Role,
    /// It is nobody in particular: whoever has a link that somebody made.
    #[n(4)]
    pub is_link: bool,
}

/// Not what opens the way to its list of devices.
impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, role, is_link, .. } = self;
        let mut shown = f.debug_struct("Member");
        shown.field("identity", identity).field("role", role).field("is_link", is_link).finish_non_exhaustive()
    }
}

impl Member {
    /// Who is found at this address.
    pub fn new(identity: IdentityId, address: Address, role: Role) -> Self {
        Self { identity, signer: address.signer, secret: address.secret, role, is_link: false }
    }

    /// Whoever has a link.
    pub fn of_link(identity: IdentityId, address: Address, role: Role) -> Self {
        Self { is_link: true, ..Self::new(identity, address, role) }
    }

    /// Where its list of devices is found.
    pub fn address(&self) -> Address {
        Address { signer: self.signer, secret: self.secret }
    }
}

/// The last head of a device that is taken when its identity is taken off: times decide nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Accepted {
    /// Whose.
    #[n(0)]
    pub device: DeviceId,
    /// Its number.
    #[n(1)]
    pub sequence: u64,
    /// Its [hash](head_hash).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub head: [u8; 32],
}

impl Accepted {
    /// This one.
    pub fn of(head: &Head) -> Self {
        Self { device: head.device, sequence: head.sequence, head: head_hash(head) }
    }

    /// Whether a head of that device is this one. One with a lower number need not be from before it: whoever was taken off
    /// may sign any number, and what they published before is part of what those have who took this one.
    pub fn takes(&self, head: &Head) -> bool {
        head.device == self.device && head.sequence == self.sequence && head_hash(head) == self.head
    }
}

/// By which a head is named.
pub fn head_hash(head: &Head) -> [u8; 32] {
    blake3::derive_key(HEAD_CONTEXT, &codec::encode(head))
}

/// An epoch that begins with a change, as all may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NewEpoch {
    /// A little above those of all epochs that the change follows.
    #[n(0)]
    pub number: u32,
    /// [Hash](crate::share::epoch::Epoch::name) of its secret.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub name: [u8; 32],
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// The volume is shared: by whom.
    #[n(0)]
    Begin(#[n(0)] Member),
    /// These get a part in it, or another one.
    #[n(1)]
    Grant(#[n(0)] Vec<Member>),
    /// These have none any more. What their devices published is taken up to these heads; and what is part of the tree of which
    /// nobody knows whose device it is from is taken as far as it is: up to [so many](crate::limits::TAKEN_MAX) dots.
    #[n(2)]
    Remove(#[n(0)] Vec<IdentityId>, #[n(1)] Vec<Accepted>, #[n(2)] Vec<Dot>),
    /// Nothing but the epoch: a device of a member was taken off its list, or one epoch does not follow all removals.
    #[n(3)]
    Rotate,
}

/// Who signs a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Author {
    /// In whose name.
    #[n(0)]
    pub identity: IdentityId,
    /// By which of its devices.
    #[n(1)]
    pub device: DeviceId,
}

/// One signed change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// What its author had heard of, but for what that follows; nothing where it begins.
    #[n(0)]
    pub previous: Vec<EntryId>,
    /// Who signs it.
    #[n(1)]
    pub author: Author,
    /// When, for people: it decides nothing.
    #[n(2)]
    pub time: Hlc,
    /// What changes.
    #[n(3)]
    pub change: Change,
    /// The epoch that it begins: all do but grants.
    #[n(4)]
    pub epoch: Option<NewEpoch>,
    /// Ed25519 of the device over all the rest and the volume.
    #[cbor(n(5), with = "minicbor::bytes")]
    signature: [u8; 64],
}

fn encoded<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec is infallible.
    let _ = minicbor::encode(value, &mut bytes);
    bytes
}

impl Entry {
    fn signed_bytes(&self, volume: &VolumeId) -> Vec<u8> {
        let unsigned = Self { signature: [0; 64], ..self.clone() };
        let mut bytes = [SIGN_CONTEXT, volume.as_bytes()].concat();
        // Writing to a Vec is infallible.
        let _ = minicbor::encode(&unsigned, &mut bytes);
        bytes
    }

    /// By which others name it.
    pub fn id(&self) -> EntryId {
        EntryId(blake3::derive_key(ID_CONTEXT, &encoded(self)))
    }

    fn size(&self) -> usize {
        encoded(self).len()
    }

    /// Whether somebody takes off others in the name of this identity, or sees to it that they read nothing any more.
    fn shuts_out_for(&self, identity: Option<IdentityId>) -> bool {
        matches!(self.change, Change::Remove(..) | Change::Rotate) && Some(self.author.identity) == identity
    }

    fn verify(&self, volume: &VolumeId) -> Result<(), MembersError> {
        let is_right = is_signed(self.author.device.as_bytes(), &self.signed_bytes(volume), &self.signature);
        if is_right { Ok(()) } else { Err(MembersError::Signature) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Entries {
    #[n(0)]
    volume: VolumeId,
    #[n(1)]
    begin: EntryId,
    #[n(2)]
    entries: Vec<Entry>,
}
crate::format!(Entries, tag = 0x60, version = 1, max = MEMBER_LOG_MAX, name = "member log");

/// What a log has beside its changes, encoded: at most.
const HEADER: usize = 64;
/// What a change has beside what it changes, encoded: at most.
const SIGNED: usize = 1_024;

/// How long a removal of so many is, which names so many heads: at most.
const fn removal_size(gone: usize, heads: usize) -> usize {
    const ID: usize = 34;
    const NUMBER: usize = 9;
    const DOT: usize = 1 + 2 * NUMBER;
    gone * ID + heads * (1 + 2 * ID + NUMBER) + TAKEN_MAX * DOT + 16
}

/// What is left of the room for changes.
struct Room {
    changes: usize,
    bytes: usize,
    /// When nothing is taken yet.
    all: (usize, usize),
}

impl Room {
    /// Whether no more than half is taken.
    fn has_half(&self) -> bool {
        self.changes >= self.all.0 / 2 && self.bytes >= self.all.1 / 2
    }

    /// Takes room for one more change; false where there is none.
    fn take(&mut self, bytes: usize) -> bool {
        match (self.changes.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(changes), Some(bytes)) => {
                (self.changes, self.bytes) = (changes, bytes);
                true
            }
            _ => false,
        }
    }
}

/// What was taken in of what somebody has heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Something that was not known.
    pub is_new: bool,
    /// All that may count once the lists of devices of more people are known.
    pub is_all: bool,
}

/// Why changes were refused.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum MembersError {
    /// They do not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They are of something else.
    #[error("member log: it is of another volume, or begins otherwise")]
    Other,
    /// The author did not sign it.
    #[error("member log: the signature of a change is not its author's")]
    Signature,
    /// There are too many.
    #[error(
        "there is no room for another change of who may do what in this volume; its owner can still take off somebody"
    )]
    Full,
    /// It would not count.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Why a change is not signed.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum Refused {
    /// Only the owner and admins change who may do what.
    #[error("only its owner and admins say who may do what in this volume")]
    Stranger,
    /// Nobody counts what it signs.
    #[error("this device is not on the list of its identity any more")]
    Device,
    /// Only the owner says who is admin.
    #[error("only its owner brings admins to this volume, and takes them off")]
    Admins,
    /// There is one owner.
    #[error("the owner of a volume stays its owner")]
    Owner,
    /// Whoever may do less is taken off first.
    #[error("they may do more already: take them off first")]
    Less,
    /// They have no part in it.
    #[error("they have no part in this volume")]
    Unknown,
    /// There is no room.
    #[error("there is room for {MEMBERS_MAX} members")]
    Crowded,
    /// It says more than one change may.
    #[error("one change says something of at most {CHANGED_MAX} members, and names at most {ACCEPTED_MAX} heads")]
    Long,
    /// Removals begin an epoch, and grants do not.
    #[error("whoever takes somebody off begins an epoch, and nobody else")]
    Epoch,
    /// An epoch is numbered a little above those before it.
    #[error("the number of the new epoch does not go on from those before it")]
    Number,
}

/// What changes come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// By identity; the owner is among them.
    pub members: BTreeMap<IdentityId, Member>,
    /// All that ever had a part in it and have none now, as they were granted it last.
    pub gone: BTreeMap<IdentityId, Member>,
    /// All that could ever write and cannot now, whether they are gone or read: of what they published that is taken which is
    /// [accepted](Self::accepted).
    pub wrote: BTreeSet<IdentityId>,
    /// Who has brought them, of those that the owner or an admin has.
    pub brought: BTreeMap<IdentityId, IdentityId>,
    /// Of those who had been taken off before they got the part that they have: when that was said.
    again: BTreeMap<IdentityId, Hlc>,
    /// The last heads that are taken of those who are gone.
    pub accepted: BTreeMap<DeviceId, Accepted>,
    /// Up to which number it is taken what devices did of which nobody knew whose they are when somebody was taken off.
    pub taken: BTreeMap<DeviceTag, u64>,
    /// The epoch that counts.
    pub epoch: Option<NewEpoch>,
    /// All epochs that begin with changes that count.
    pub epochs: Vec<NewEpoch>,
    /// The number of the next one.
    pub next_epoch: u32,
    /// Whoever began it had heard of all removals. Otherwise somebody who was taken off may have it, and an admin's device
    /// that hears of it [rotates](Change::Rotate).
    pub is_sealed_off: bool,
    /// Whoever has signed changes of which neither follows the other: a copy of a device, or one that lies.
    pub forks: Vec<Author>,
    tips: Vec<EntryId>,
}

impl Members {
    /// What an identity may do.
    pub fn role(&self, identity: &IdentityId) -> Option<Role> {
        self.members.get(identity).map(|member| member.role)
    }

    /// When it was said that somebody has a part again who had been taken off; what they had given out before went with that.
    pub fn again(&self, identity: &IdentityId) -> Option<Hlc> {
        self.again.get(identity).copied()
    }

    /// Whether this is a link that lets whoever has it write.
    pub fn is_link(&self, identity: &IdentityId) -> bool {
        self.members.get(identity).is_some_and(|member| member.is_link)
    }

    /// All links that let whoever has them write.
    pub fn links(&self) -> impl Iterator<Item = IdentityId> + '_ {
        self.members.values().filter(|member| member.is_link).map(|member| member.identity)
    }

    /// Those whose heads are taken.
    pub fn writers(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role >= Role::Writer)
    }

    /// Those whose changes are.
    pub fn admins(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role >= Role::Admin)
    }
}

/// All changes of one volume that somebody has heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    volume: VolumeId,
    begin: EntryId,
    entries: BTreeMap<EntryId, Entry>,
}

impl Log {
    /// The owner shares a volume.
    pub fn begin(
        volume: VolumeId,
        author: Author,
        key: &SigningKey,
        owner: Address,
        now: Hlc,
        epoch: NewEpoch,
    ) -> Self {
        let change = Change::Begin(Member::new(author.identity, owner, Role::Owner));
        let entry = sign(Vec::new(), volume, author, key, now, change, Some(epoch));
        let begin = entry.id();
        Self { volume, begin, entries: BTreeMap::from([(begin, entry)]) }
    }

    /// Decodes what came from anywhere, and verifies the signatures in it. It must begin as it does in the eyes of whoever
    /// asks.
    pub fn decode(bytes: &[u8], volume: VolumeId, begin: EntryId) -> Result<Self, MembersError> {
        let found: Entries = codec::decode(bytes)?;
        if found.volume != volume || found.begin != begin {
            return Err(MembersError::Other);
        }
        if found.entries.len() > MEMBER_CHANGES_MAX {
            return Err(MembersError::Full);
        }
        let mut entries = BTreeMap::new();
        for entry in found.entries {
            entry.verify(&volume)?;
            entries.insert(entry.id(), entry);
        }
        let log = Self { volume, begin, entries };
        if log.owner().is_none() { Err(MembersError::Other) } else { Ok(log) }
    }

    /// Encodes it. What is equal has equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries.values().cloned().collect();
        codec::encode(&Entries { volume: self.volume, begin: self.begin, entries })
    }

    /// Of which volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// By which change it begins.
    pub fn beginning(&self) -> EntryId {
        self.begin
    }

    /// Who began it.
    pub fn owner(&self) -> Option<Member> {
        let entry = self.entries.get(&self.begin)?;
        match &entry.change {
            Change::Begin(owner) if owner.identity == entry.author.identity && owner.role == Role::Owner => {
                Some(*owner)
            }
            _ => None,
        }
    }

    /// All changes, in no order that means anything.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Takes in what another one has heard of, as far as there is room; what there is for the owner's removals and epochs is kept
    /// for these, and for what they follow. Where more than half of the room is taken, what would not count were all devices listed
    /// that may be, and nobody signed who brings or takes off anybody now, is left out: whoever was taken off can sign any
    /// number. `is_device` says whether an author is a device on the list of its identity; none where that is not known, or it
    /// was one.
    pub fn merge(&mut self, other: &Self, is_device: &dyn Fn(&Author) -> Option<bool>) -> Result<Merged, MembersError> {
        if (other.volume, other.begin) != (self.volume, self.begin) {
            return Err(MembersError::Other);
        }
        let is_new = |id: &&EntryId| !self.entries.contains_key(*id);
        let mut new: BTreeSet<EntryId> = other.entries.keys().filter(is_new).copied().collect();
        if new.is_empty() {
            return Ok(Merged { is_new: false, is_all: true });
        }
        let mut both = self.clone();
        both.entries.extend(new.iter().filter_map(|id| Some((*id, other.entries.get(id)?.clone()))));
        // Of whom it is not known that it is a device of theirs, it may turn out to be one.
        let mut is_all = true;
        let may_be_listed = |author: &Author| is_device(author) != Some(false);
        let mut leave = |id: &EntryId| {
            is_all &= other.entries.get(id).is_none_or(|entry| is_device(&entry.author) == Some(true));
        };
        if !both.room(Role::Admin).has_half() {
            for id in counting::idle(&both, &may_be_listed) {
                if new.remove(&id) {
                    leave(&id);
                }
            }
        }
        let owner = self.owner().map(|owner| owner.identity);
        let spared = new.iter().filter(|id| {
            let entry = other.entries.get(*id);
            entry.is_some_and(|entry| entry.shuts_out_for(owner) && is_device(&entry.author) == Some(true))
        });
        let (owners, others): (Vec<EntryId>, Vec<EntryId>) = {
            let followed = both.followed_by(spared.copied().collect());
            let order = counting::in_order(&both).into_iter().filter(|id| new.contains(id));
            order.partition(|id| followed.contains(id))
        };
        let before = self.entries.len();
        // What is here is never given up for what somebody else may have made up.
        for (part, by) in [(owners, Role::Owner), (others, Role::Admin)] {
            let mut room = self.room(by);
            for id in part {
                match other.entries.get(&id) {
                    Some(entry) if room.take(entry.size()) => drop(self.entries.insert(id, entry.clone())),
                    _ => leave(&id),
                }
            }
        }
        Ok(Merged { is_new: self.entries.len() > before, is_all })
    }

    /// The same as when it began: what others have heard of is to be [taken in](Self::merge).
    pub fn begun(&self) -> Self {
        let first = self.entries.get(&self.begin).map(|entry| (self.begin, entry.clone()));
        Self { volume: self.volume, begin: self.begin, entries: first.into_iter().collect() }
    }

    /// What is left of the room: for the owner's removals and epochs, or for what anybody else says.
    fn room(&self, by: Role) -> Room {
        let (changes, bytes) = match by {
            Role::Owner => (MEMBER_CHANGES_MAX, MEMBER_LOG_MAX),
            Role::Admin | Role::Writer | Role::Reader => {
                (MEMBER_CHANGES_MAX - MEMBER_CHANGES_KEPT, MEMBER_LOG_MAX - MEMBER_LOG_KEPT)
            }
        };
        let taken = self.entries.values().map(Entry::size).sum::<usize>() + HEADER;
        Room {
            changes: changes.saturating_sub(self.entries.len()),
            bytes: bytes.saturating_sub(taken),
            all: (changes, bytes),
        }
    }

    /// These, and all that they follow.
    fn followed_by(&self, mut waiting: Vec<EntryId>) -> BTreeSet<EntryId> {
        let mut passed: BTreeSet<EntryId> = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if let Some(entry) = self.entries.get(&id).filter(|_| passed.insert(id)) {
                waiting.extend(&entry.previous);
            }
        }
        passed
    }

    /// Whether an author has signed something after all that a device has signed.
    pub fn has_all_of(&self, device: &DeviceId, author: &Author) -> bool {
        let theirs = self.entries.iter().filter(|(_, entry)| entry.author == *author);
        let passed = self.followed_by(theirs.map(|(id, _)| *id).collect());
        self.entries.iter().all(|(id, entry)| entry.author.device != *device || passed.contains(id))
    }

    /// What the changes come to. `is_listed` says which devices are on the lists of their identities now.
    pub fn members(&self, is_listed: &dyn Fn(&Author) -> bool) -> Members {
        counting::resolve(self, is_listed)
    }

    /// What a change would follow; an error where it would not count.
    pub fn may_change(
        &self,
        author: &Author,
        change: &Change,
        epoch: Option<NewEpoch>,
        is_listed: &dyn Fn(&Author) -> bool,
    ) -> Result<Members, MembersError> {
        if !is_listed(author) {
            return Err(Refused::Device.into());
        }
        let members = self.members(is_listed);
        check(&members, author, change, epoch)?;
        // Where somebody who was taken off may have the epoch that counts, nothing is written before another one begins.
        let is_kept_for = match change {
            Change::Remove(..) => true,
            Change::Rotate => !members.is_sealed_off,
            Change::Begin(_) | Change::Grant(_) => false,
        };
        let is_owners = is_kept_for && members.role(&author.identity) == Some(Role::Owner);
        let by = if is_owners { Role::Owner } else { Role::Admin };
        if self.room(by).take(encoded(change).len() + SIGNED) { Ok(members) } else { Err(MembersError::Full) }
    }

    /// Whether a removal of so many, which names so many heads, takes nothing of the room that is kept for the owner.
    pub fn has_room_to_name(&self, gone: usize, heads: usize) -> bool {
        self.room(Role::Admin).take(removal_size(gone, heads) + SIGNED)
    }

    /// Signs a change that follows all that counts, and takes it in.
    pub fn change(
        &mut self,
        author: Author,
        key: &SigningKey,
        now: Hlc,
        change: Change,
        epoch: Option<NewEpoch>,
        is_listed: &dyn Fn(&Author) -> bool,
    ) -> Result<EntryId, MembersError> {
        let members = self.may_change(&author, &change, epoch, is_listed)?;
        let entry = sign(members.tips, self.volume, author, key, now, change, epoch);
        let id = entry.id();
        self.entries.insert(id, entry);
        Ok(id)
    }
}

fn sign(
    previous: Vec<EntryId>,
    volume: VolumeId,
    author: Author,
    key: &SigningKey,
    time: Hlc,
    change: Change,
    epoch: Option<NewEpoch>,
) -> Entry {
    let mut entry = Entry { previous, author, time, change, epoch, signature: [0; 64] };
    entry.signature = key.sign(&entry.signed_bytes(&volume)).to_bytes();
    entry
}

/// Whether a change would count.
fn check(members: &Members, author: &Author, change: &Change, epoch: Option<NewEpoch>) -> Result<(), Refused> {
    let role = members.role(&author.identity).filter(|role| *role >= Role::Admin).ok_or(Refused::Stranger)?;
    if epoch.is_some() == matches!(change, Change::Grant(_)) {
        return Err(Refused::Epoch);
    }
    if !counting::is_short(change) {
        return Err(Refused::Long);
    }
    if epoch.is_some_and(|epoch| !counting::goes_on(epoch.number, members.next_epoch)) {
        return Err(Refused::Number);
    }
    match change {
        Change::Begin(_) => Err(Refused::Owner),
        Change::Grant(new) => {
            let fresh = new.iter().filter(|one| !members.members.contains_key(&one.identity)).count();
            if members.members.len() + fresh > MEMBERS_MAX {
                return Err(Refused::Crowded);
            }
            new.iter().try_for_each(|one| match members.role(&one.identity) {
                Some(Role::Owner) => Err(Refused::Owner),
                _ if one.role == Role::Owner => Err(Refused::Owner),
                Some(Role::Admin) if role < Role::Owner => Err(Refused::Admins),
                _ if one.role == Role::Admin && role < Role::Owner => Err(Refused::Admins),
                Some(now) if now > one.role => Err(Refused::Less),
                _ => Ok(()),
            })
        }
        Change::Remove(gone, ..) => gone.iter().try_for_each(|identity| match members.role(identity) {
            Some(Role::Owner) => Err(Refused::Owner),
            Some(Role::Admin) if role < Role::Owner => Err(Refused::Admins),
            Some(_) => Ok(()),
            None => Err(Refused::Unknown),
        }),
        Change::Rotate => Ok(()),
    }
}
