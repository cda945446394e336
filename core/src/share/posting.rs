//! What a device of an admin puts on the mesh of a volume that several identities have: the epochs, sealed for all members,
//! and the changes of who may do what, sealed under the epoch that counts, with whom that device seals for: an admin's device
//! that has met few of the members yet is not to leave out the others.
//!
//! It lies at a place of that device's own, so nobody else can spoil it, and the place stays when the epoch changes: who
//! has not heard of the change finds it there, if it is still a member.

use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::id::{DeviceId, EntryId, IdentityId, VolumeId};
use crate::identity::log::Recipient;
use crate::identity::place::Place;
use crate::key::{DeviceKeys, Secret};
use crate::limits::SHARE_POSTING_MAX;
use crate::seal::{SealError, open_bytes, seal_bytes};
use crate::share::epoch::Epoch;
use crate::share::members::{Log, MembersError, NewEpoch};

const MEMBERS_CONTEXT: &[u8] = b"hypernet members v1\0";

/// What lies there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SharePosting {
    /// [`Epochs`](crate::share::epoch::Epochs), sealed for each member's identity.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub way: Vec<u8>,
    /// [`Said`], sealed under the newest of them.
    #[cbor(n(1), with = "minicbor::bytes")]
    members: Vec<u8>,
}
crate::format!(SharePosting, tag = 0x62, version = 1, max = SHARE_POSTING_MAX, name = "share posting");

/// What a device says of who has a part in a volume: sealed in a [`SharePosting`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Said {
    /// A member log.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub log: Vec<u8>,
    /// For whom it seals, its own identity among them: what was sealed for one that has lost a device since, that has.
    #[n(1)]
    pub people: Vec<Met>,
}
crate::format!(Said, tag = 0x66, version = 1, max = SHARE_POSTING_MAX, name = "circle of a volume");

/// Who opens what is sealed for an identity, as far as somebody has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Met {
    /// Whose it is.
    #[n(0)]
    pub identity: IdentityId,
    /// Who opens it.
    #[n(1)]
    pub recipient: Recipient,
}

/// For whom a device has sealed the epoch that counted when it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFor {
    /// Which one.
    pub epoch: NewEpoch,
    /// Those who have it, and some who had a part before.
    pub people: Vec<Met>,
}

/// Why the changes of who may do what cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum SharePostingError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// None of the epochs that are known opens it.
    #[error("who may do what in this volume is sealed in an epoch that is not known here")]
    Sealed,
    /// It is not believed.
    #[error(transparent)]
    Members(#[from] MembersError),
}

impl SharePosting {
    /// Puts both together.
    pub fn new(way: Vec<u8>, log: &Log, people: Vec<Met>, epoch: &Epoch) -> Result<Self, SealError> {
        let said = codec::encode(&Said { log: log.encode(), people });
        Ok(Self { way, members: seal_bytes(&epoch.members_key(), MEMBERS_CONTEXT, &said)? })
    }

    /// Decodes what came from anywhere.
    pub fn decode(bytes: &[u8]) -> Result<Self, SharePostingError> {
        Ok(codec::decode(bytes)?)
    }

    /// The changes of who may do what, and for whom which epoch is sealed, if it is one of these.
    pub fn members(
        &self,
        epochs: &[Epoch],
        volume: VolumeId,
        begin: EntryId,
    ) -> Result<(Log, SealedFor), SharePostingError> {
        let open = |epoch: &Epoch| {
            let plain = open_bytes(&epoch.members_key(), MEMBERS_CONTEXT, &self.members).ok()?;
            Some((epoch.name(), plain))
        };
        let (epoch, plain) = epochs.iter().rev().find_map(open).ok_or(SharePostingError::Sealed)?;
        let Said { log, people } = codec::decode(&plain)?;
        Ok((Log::decode(&log, volume, begin)?, SealedFor { epoch, people }))
    }
}

/// The place of a device for one volume.
pub fn place(device: &DeviceKeys, volume: &VolumeId) -> Place {
    Place::new(device.share_secret(volume))
}

/// Seals what lies at all such places of one volume, for who was told of it.
pub fn sealing_key(secret: &Secret) -> Secret {
    secret.derive("hypernet 2026 share posting sealing key v1", &[])
}

/// By what, and under which key, a device tells who was ever told of a volume where its place for that is.
pub fn announcement(secret: &Secret, volume: &VolumeId, device: &DeviceId) -> ([u8; 16], Secret) {
    let of: [&[u8]; 2] = [volume.as_bytes(), device.as_bytes()];
    let mut tag = [0; 16];
    tag.copy_from_slice(&secret.derive("hypernet 2026 share posting announcement tag v1", &of).expose()[..16]);
    (tag, secret.derive("hypernet 2026 share posting announcement key v1", &of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::place::Address;
    use crate::share::members::Author;
    use crate::time::Hlc;

    #[test]
    fn who_may_do_what_is_read_by_who_has_the_epoch() {
        let device = DeviceKeys::new(Secret::new([1; 32]));
        let epoch = |byte| Epoch::new(1, Secret::new([byte; 32]));
        let author = Author { identity: IdentityId([5; 32]), device: DeviceId(device.id().0) };
        let address = Address { signer: [6; 32], secret: [7; 16] };
        let volume = VolumeId([3; 16]);
        let log = Log::begin(volume, author, &device.signing_key(), address, Hlc::default(), epoch(1).name());
        let people = vec![Met { identity: IdentityId([5; 32]), recipient: Recipient::X25519([8; 32]) }];
        let posting = SharePosting::new(b"sealed".to_vec(), &log, people.clone(), &epoch(1)).unwrap();
        let posting = SharePosting::decode(&codec::encode(&posting)).unwrap();
        let begin = log.beginning();
        let sealed = SealedFor { epoch: epoch(1).name(), people };
        assert_eq!(posting.members(&[epoch(1), epoch(2)], volume, begin).unwrap(), (log, sealed));
        assert_eq!(posting.members(&[epoch(2)], volume, begin), Err(SharePostingError::Sealed));
        let other = posting.members(&[epoch(1)], volume, EntryId([0; 32]));
        assert_eq!(other, Err(MembersError::Other.into()));
    }
}
