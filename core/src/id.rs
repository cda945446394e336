//! Newtypes for every identifier, so that no id can be passed where another is meant.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};

/// Defines a fixed-size binary id with CBOR bytes on the wire and lower-case hex for people.
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The size of this id in bytes.
            pub const LEN: usize = $len;

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads the id from exactly [`Self::LEN`] bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Reads the id from lower-case hex.
            pub fn from_hex(text: &str) -> Option<Self> {
                Self::from_slice(&HEXLOWER.decode(text.as_bytes()).ok()?)
            }

            /// The first bytes in hex: enough to tell ids apart on a screen, never to look one up.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..5.min($len)])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(d.bytes()?)
                    .ok_or_else(|| minicbor::decode::Error::message(concat!("wrong length for ", stringify!($name))))
            }
        }
    };
}

id_type!(
    /// A peer as the network sees it: the Ed25519 public key of its transport.
    PeerId, 32
);
id_type!(
    /// One agent of an identity: the Ed25519 public key with which it signs its heads.
    DeviceId, 32
);
id_type!(
    /// A person's keys, named by the Ed25519 public key that signs the roster of devices.
    IdentityId, 32
);
id_type!(
    /// A tree with its own keys and members; random.
    VolumeId, 16
);
id_type!(
    /// A sealed extent, derived from its key: equal content in one volume and epoch has an equal id.
    ExtentId, 32
);
id_type!(
    /// A segment: the hash of its coding parameters and of all committed rows.
    SegmentId, 32
);
id_type!(
    /// A shard: the BLAKE3 hash of its bytes.
    ShardId, 32
);
id_type!(
    /// A snapshot: the BLAKE3 hash of its signed bytes.
    SnapshotId, 32
);
id_type!(
    /// A change of the list of an identity's devices: the BLAKE3 hash of its signed bytes.
    EntryId, 32
);
id_type!(
    /// Where a record lives in the DHT: a hash of its signer's public key.
    RecordKey, 32
);
id_type!(
    /// Which mesh a peer belongs to; protocol names carry it, so that two meshes never mix.
    NetworkId, 16
);
id_type!(
    /// The shares of an identity's words that belong together; random.
    ShareSetId, 16
);
id_type!(
    /// A file or directory for its whole life: the creating device's tag and that device's counter.
    FileId, 16
);

impl NetworkId {
    /// Base32, as it stands in protocol names and invite links.
    pub fn to_base32(self) -> String {
        BASE32_NOPAD.encode(&self.0).to_lowercase()
    }

    /// Reads [`Self::to_base32`].
    pub fn from_base32(text: &str) -> Option<Self> {
        Self::from_slice(&BASE32_NOPAD.decode(text.to_uppercase().as_bytes()).ok()?)
    }
}

/// In the last byte of the id of a volume.
const BRANCH: u8 = 0x80;
const BRANCH_CONTEXT: &str = "hypernet 2026 tag of a device in a branch v1";

/// The first six bytes of a [`DeviceId`], and two that say from which [home](HomeNumber) of the device: what dots carry, because
/// three of them stand in every entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct DeviceTag(#[n(0)] pub u64);

/// Bits of a tag that say from which of a device's homes a change comes.
const HOME: u64 = 0xffff;

/// Which home of its device something comes from. A device has one home, 0, unless that was copied: what the copy does is
/// told from what the first one goes on doing by a number that the copy has drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct HomeNumber(#[n(0)] pub u16);

impl DeviceTag {
    /// Of the same device, what dots carry that come from this home of it.
    pub fn of_home(self, home: HomeNumber) -> Self {
        Self(self.0 & !HOME | u64::from(home.0))
    }

    /// That of the device, whichever of its homes this one is of.
    pub fn of_device(self) -> Self {
        Self(self.0 & !HOME)
    }
}

impl DeviceId {
    /// This device's tag, in its first home. Two devices of one roster must not share it; enrolment checks that.
    pub fn tag(&self) -> DeviceTag {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        DeviceTag(u64::from_be_bytes(first)).of_device()
    }
}

impl DeviceId {
    /// What dots of this device carry in a volume. In a branch it is another one than in what the branch comes from: what a device
    /// does in one of them says nothing about what it has seen of the other, and their trees are merged in the end.
    pub fn tag_in(&self, volume: VolumeId) -> DeviceTag {
        if !volume.is_branch() {
            return self.tag();
        }
        let bytes = [&self.0[..], &volume.0].concat();
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::derive_key(BRANCH_CONTEXT, &bytes)[..8]);
        DeviceTag(u64::from_be_bytes(first)).of_device()
    }
}

impl VolumeId {
    /// A volume by these random bytes; `is_branch`: one that begins with the tree of another one.
    pub fn new(mut random: [u8; 16], is_branch: bool) -> Self {
        random[15] = (random[15] & !BRANCH) | if is_branch { BRANCH } else { 0 };
        Self(random)
    }

    /// Whether it begins with the tree of another one, into which it may be merged.
    pub fn is_branch(&self) -> bool {
        self.0[15] & BRANCH != 0
    }
}

impl FileId {
    /// The id of the root directory of every volume.
    pub const ROOT: Self = Self([0; 16]);

    /// The `counter`-th thing that `device` created.
    pub fn new(device: DeviceTag, counter: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&device.0.to_be_bytes());
        bytes[8..].copy_from_slice(&counter.to_be_bytes());
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base32_round_trip() {
        let id = VolumeId([7; 16]);
        assert_eq!(VolumeId::from_hex(&id.to_string()), Some(id));
        assert_eq!(VolumeId::from_hex("07"), None);
        let net = NetworkId([9; 16]);
        assert_eq!(NetworkId::from_base32(&net.to_base32()), Some(net));
    }

    #[test]
    fn homes_of_a_device_are_told_apart_and_devices_as_ever() {
        let (one, other, branch) = (DeviceId([7; 32]), DeviceId([8; 32]), VolumeId::new([1; 16], true));
        for volume in [VolumeId([1; 16]), branch] {
            let tag = one.tag_in(volume);
            let copied = tag.of_home(HomeNumber(0xfffe));
            assert_eq!(tag, tag.of_home(HomeNumber::default()));
            assert_ne!(copied, tag);
            assert_eq!((copied.of_device(), copied.of_home(HomeNumber(0))), (tag, tag));
            assert_ne!(other.tag_in(volume).of_device(), copied.of_device());
        }
    }

    #[test]
    fn a_wrong_length_is_an_error_not_a_panic() {
        let bytes = minicbor::to_vec(VolumeId([1; 16])).unwrap();
        assert!(minicbor::decode::<ShardId>(&bytes).is_err());
    }
}
