//! Sealing: XChaCha20-Poly1305 under a key that seals one message only.
//!
//! Extents and tree nodes are sealed convergently inside a volume and epoch: the key is a keyed hash over the exact
//! bytes that are sealed and all associated data, so equal content gives equal ciphertext (that is the dedup) and no
//! key ever meets two messages, which is why the nonce can be constant. Records are sealed under a long-lived key
//! with a nonce derived from their sequence and content.

use std::cell::RefCell;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, AeadInOut, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use minicbor::{Decode, Encode};
use rayon::prelude::*;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};
use zstd::bulk::{Compressor, Decompressor};

use crate::id::{ExtentId, VolumeId};
use crate::key::{Secret, VolumeKeys};
use crate::limits::{RECORD_SIZES, SEAL_OVERHEAD, SEALED_MAX};

const ID_CONTEXT: &str = "hypernet 2026 extent id v1";
const HASH_CONTEXT: &str = "hypernet 2026 hash of what an extent seals v1";
const NONCE_CONTEXT: &str = "hypernet 2026 record nonce v1";
const ZSTD_LEVEL: i32 = 1;
/// Compression must save at least one byte in this many to be worth undoing.
const MIN_SAVING: usize = 16;
/// Units of this size and more are compressed only when that pays for a sample of them: what does not compress is
/// what most large files hold, and trying takes as long as sealing it.
const SAMPLED_FROM: usize = 16 * 1024;
/// A sample is this much of the start, of the middle and of the end.
const SAMPLE: usize = 1024;

thread_local! {
    /// Made once a thread: a context of its own for each small unit would cost more than compressing it.
    static COMPRESSOR: RefCell<Option<(Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// `plain` compressed, when that pays. What comes out depends on nothing but `plain`.
fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some((Compressor::new(ZSTD_LEVEL).ok()?, Vec::new()));
        }
        let (compressor, out) = slot.as_mut()?;
        let mut pays = |bytes: &[u8], out: &mut Vec<u8>| {
            out.clear();
            out.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
            let small = compressor.compress_to_buffer(bytes, out).ok()?;
            (small + bytes.len() / MIN_SAVING < bytes.len()).then_some(())
        };
        if plain.len() >= SAMPLED_FROM {
            let (middle, end) = (plain.len() / 2, plain.len() - SAMPLE);
            let sample = [&plain[..SAMPLE], &plain[middle..middle + SAMPLE], &plain[end..]].concat();
            pays(&sample, out)?;
        }
        pays(plain, out)?;
        Some(with_room_for_tag(out))
    })
}

fn decompress(message: &[u8], len: usize) -> Result<Vec<u8>, SealError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Decompressor::new().ok();
        }
        slot.as_mut().and_then(|decompressor| decompressor.decompress(message, len).ok()).ok_or(SealError::Length)
    })
}

fn with_room_for_tag(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + SEAL_OVERHEAD);
    out.extend_from_slice(bytes);
    out
}

/// What a sealed unit is: bound into its key and its tag, so that one can never be passed off as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A piece of a file's content.
    #[n(0)]
    Content,
    /// A node of a directory, file or link tree.
    #[n(1)]
    Node,
    /// The root of a snapshot.
    #[n(2)]
    Root,
    /// A signed snapshot.
    #[n(3)]
    Snapshot,
    /// A page of the index or of the placement log.
    #[n(4)]
    Page,
    /// The manifest that lists the pages.
    #[n(5)]
    Manifest,
    /// What is posted at a place.
    #[n(6)]
    Posted,
}

/// Whether the sealed bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Compression {
    /// As they were.
    #[n(0)]
    None,
    /// Zstandard.
    #[n(1)]
    Zstd,
}

/// Bytes of [`ExtentRef::check`].
pub const CHECK_LEN: usize = 16;

/// The key of one sealed unit; it stands in the unit's parent.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(transparent)]
pub struct ExtentKey(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

impl std::fmt::Debug for ExtentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExtentKey(..)")
    }
}

/// Everything needed to find, open and check one sealed unit, but not where it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ExtentRef {
    /// Its key; its id follows from it.
    #[n(0)]
    pub key: ExtentKey,
    /// The volume under whose secret it was sealed.
    #[n(1)]
    pub origin: Origin,
    /// The epoch under whose secret it was sealed.
    #[n(2)]
    pub epoch: u32,
    /// What it is.
    #[n(3)]
    pub kind: Kind,
    /// Whether it is compressed.
    #[n(4)]
    pub compression: Compression,
    /// Plaintext bytes.
    #[n(5)]
    pub len: u32,
    /// Sealed bytes, tag included.
    #[n(6)]
    pub sealed_len: u32,
    /// The beginning of a hash of what is sealed: who has the key could seal something else with it, too.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub check: [u8; CHECK_LEN],
}

/// The domain in which a unit was sealed: the first eight bytes of its volume's id. References carry it, so that
/// another volume can adopt a subtree without sealing it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Origin(#[n(0)] pub u64);

impl From<VolumeId> for Origin {
    fn from(volume: VolumeId) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&volume.0[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// Why something could not be opened.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum SealError {
    /// Longer than any sealed unit may be.
    #[error("{0} bytes are more than one sealed unit can hold")]
    TooLong(usize),
    /// The tag is wrong: the bytes are damaged, or not what the reference names.
    #[error("the sealed bytes are damaged or are not what was asked for")]
    Tag,
    /// The plaintext is not what the reference says.
    #[error("the opened bytes do not have the length their reference names")]
    Length,
    /// The cipher refused.
    #[error("the cipher refused to seal")]
    Cipher,
}

/// Associated data of a sealed unit.
fn aad(origin: Origin, epoch: u32, kind: Kind, compression: Compression, len: u32) -> [u8; 19] {
    let mut out = [0; 19];
    out[0] = 1; // version of this layout
    out[1..9].copy_from_slice(&origin.0.to_be_bytes());
    out[9..13].copy_from_slice(&epoch.to_be_bytes());
    out[13] = kind as u8;
    out[14] = compression as u8;
    out[15..19].copy_from_slice(&len.to_be_bytes());
    out
}

/// The hash of all that is sealed.
fn hash(aad: &[u8], message: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
    hasher.update(aad);
    hasher.update(message);
    *hasher.finalize().as_bytes()
}

fn check(hash: &[u8; 32]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hash[..CHECK_LEN]);
    check
}

/// A unit that is ready to be packed into a segment.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// How to find and open it.
    pub reference: ExtentRef,
    /// The ciphertext.
    pub bytes: Bytes,
}

/// A unit compressed and named, but not yet sealed: enough to ask whether it is stored already.
pub struct Prepared {
    /// How to find and open it.
    pub reference: ExtentRef,
    message: Vec<u8>,
}

/// Seals units of one volume and epoch.
pub struct Sealer {
    origin: Origin,
    epoch: u32,
    convergence: Secret,
}

impl Sealer {
    /// A sealer under `keys`.
    pub fn new(keys: &VolumeKeys) -> Self {
        Self { origin: keys.volume.into(), epoch: keys.epoch, convergence: keys.convergence() }
    }

    /// Compresses `plain` when that pays, and derives its key and id.
    pub fn prepare(&self, kind: Kind, plain: &[u8]) -> Result<Prepared, SealError> {
        if plain.len() > SEALED_MAX {
            return Err(SealError::TooLong(plain.len()));
        }
        let (compression, message) = match compress(plain) {
            Some(small) => (Compression::Zstd, small),
            None => (Compression::None, with_room_for_tag(plain)),
        };
        let len = plain.len() as u32;
        let hash = hash(&aad(self.origin, self.epoch, kind, compression, len), &message);
        let key = ExtentKey(*blake3::keyed_hash(self.convergence.expose(), &hash).as_bytes());
        let sealed_len = (message.len() + SEAL_OVERHEAD) as u32;
        let (origin, epoch, check) = (self.origin, self.epoch, check(&hash));
        let reference = ExtentRef { key, origin, epoch, kind, compression, len, sealed_len, check };
        Ok(Prepared { reference, message })
    }

    /// [`Self::prepare`] for many, on all cores; in the order of `plains`.
    pub fn prepare_all(&self, kind: Kind, plains: &[&[u8]]) -> Result<Vec<Prepared>, SealError> {
        match plains {
            [plain] => Ok(vec![self.prepare(kind, plain)?]),
            _ => plains.par_iter().map(|plain| self.prepare(kind, plain)).collect(),
        }
    }

    /// [`Self::prepare`] and [`Prepared::seal`] in one.
    pub fn seal(&self, kind: Kind, plain: &[u8]) -> Result<Sealed, SealError> {
        self.prepare(kind, plain)?.seal()
    }
}

impl Prepared {
    /// Encrypts.
    pub fn seal(mut self) -> Result<Sealed, SealError> {
        let r = &self.reference;
        let aad = aad(r.origin, r.epoch, r.kind, r.compression, r.len);
        let cipher = XChaCha20Poly1305::new(&r.key.0.into());
        cipher.encrypt_in_place(&XNonce::default(), &aad, &mut self.message).map_err(|_| SealError::Cipher)?;
        Ok(Sealed { reference: self.reference, bytes: self.message.into() })
    }

    /// [`Self::seal`] for many, on all cores; in the order of `prepared`.
    pub fn seal_all(prepared: Vec<Self>) -> Result<Vec<Sealed>, SealError> {
        if prepared.len() < 2 {
            return prepared.into_iter().map(Self::seal).collect();
        }
        prepared.into_par_iter().map(Self::seal).collect()
    }
}

impl ExtentRef {
    /// The id by which the index finds it: a hash of its key and of what it seals, so that who knows the id cannot open it, and who
    /// has the key cannot give it to something else.
    pub fn id(&self) -> ExtentId {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(&self.key.0);
        hasher.update(&self.check);
        ExtentId(*hasher.finalize().as_bytes())
    }

    /// Whether it may name a sealed unit at all: checked before room is made for what one from elsewhere names.
    pub fn is_sound(&self) -> bool {
        self.len as usize <= SEALED_MAX
            && (SEAL_OVERHEAD..=SEALED_MAX + SEAL_OVERHEAD).contains(&(self.sealed_len as usize))
    }

    /// Opens the ciphertext that this reference names.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        self.open_vec(sealed.to_vec())
    }

    /// As [`Self::open`], in place.
    pub fn open_vec(&self, mut sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        if self.len as usize > SEALED_MAX {
            return Err(SealError::TooLong(self.len as usize));
        }
        let aad = aad(self.origin, self.epoch, self.kind, self.compression, self.len);
        let cipher = XChaCha20Poly1305::new(&self.key.0.into());
        cipher.decrypt_in_place(&XNonce::default(), &aad, &mut sealed).map_err(|_| SealError::Tag)?;
        if check(&hash(&aad, &sealed)) != self.check {
            return Err(SealError::Tag);
        }
        let plain = match self.compression {
            Compression::None => sealed,
            // The length is authenticated by the tag, so this allocates what the writer meant.
            Compression::Zstd => decompress(&sealed, self.len as usize)?,
        };
        if plain.len() != self.len as usize {
            return Err(SealError::Length);
        }
        Ok(plain)
    }
}

fn record_nonce(key: &Secret, context: &[u8], sequence: u64, plain: &[u8]) -> XNonce {
    let mut hasher = blake3::Hasher::new_derive_key(NONCE_CONTEXT);
    hasher.update(key.expose());
    hasher.update(&(context.len() as u64).to_be_bytes());
    hasher.update(context);
    hasher.update(&sequence.to_be_bytes());
    hasher.update(plain);
    let mut nonce = XNonce::default();
    hasher.finalize_xof().fill(&mut nonce);
    nonce
}

/// Bytes that say how long what a record's payload holds is.
const RECORD_LEN: usize = 2;
/// Bytes of a nonce.
const NONCE: usize = 24;

/// Seals the payload of a record under a long-lived key. The nonce is a keyed hash of all that is sealed (as
/// in SIV modes): it repeats only when the whole message does. All payloads have one of [`RECORD_SIZES`], or their length
/// would tell a keeper what they are and how much is in them.
pub fn seal_record(key: &Secret, context: &[u8], sequence: u64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let least = NONCE + RECORD_LEN + plain.len() + SEAL_OVERHEAD;
    let size = RECORD_SIZES.into_iter().find(|size| *size >= least).ok_or(SealError::TooLong(least))?;
    // No size has room for more than this can say.
    let mut padded = (plain.len() as u16).to_be_bytes().to_vec();
    padded.extend_from_slice(plain);
    padded.resize(size - NONCE - SEAL_OVERHEAD, 0);
    let nonce = record_nonce(key, context, sequence, &padded);
    let aad = [context, &sequence.to_be_bytes()].concat();
    let sealed = XChaCha20Poly1305::new(&(*key.expose()).into())
        .encrypt(&nonce, Payload { msg: &padded, aad: &aad })
        .map_err(|_| SealError::Cipher)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens [`seal_record`].
pub fn open_record(key: &Secret, context: &[u8], sequence: u64, payload: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, sealed) = payload.split_first_chunk::<NONCE>().ok_or(SealError::Tag)?;
    let aad = [context, &sequence.to_be_bytes()].concat();
    let padded = XChaCha20Poly1305::new(&(*key.expose()).into())
        .decrypt(&(*nonce).into(), Payload { msg: sealed, aad: &aad })
        .map_err(|_| SealError::Tag)?;
    let (len, rest) = padded.split_first_chunk::<RECORD_LEN>().ok_or(SealError::Length)?;
    let plain = rest.get(..usize::from(u16::from_be_bytes(*len))).ok_or(SealError::Length)?;
    Ok(plain.to_vec())
}

/// Seals a few bytes under a key that seals others, too; the nonce is made as that of a record.
pub fn seal_bytes(key: &Secret, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = record_nonce(key, context, 0, plain);
    let sealed = XChaCha20Poly1305::new(&(*key.expose()).into())
        .encrypt(&nonce, Payload { msg: plain, aad: context })
        .map_err(|_| SealError::Cipher)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens [`seal_bytes`].
pub fn open_bytes(key: &Secret, context: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(SealError::Tag)?;
    XChaCha20Poly1305::new(&(*key.expose()).into())
        .decrypt(&(*nonce).into(), Payload { msg: sealed, aad: context })
        .map_err(|_| SealError::Tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(epoch: u32) -> VolumeKeys {
        VolumeKeys::new(VolumeId([1; 16]), epoch, Secret::new([2; 32]))
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            plain in proptest::collection::vec(any::<u8>(), 0..5000),
            flip in any::<usize>(),
        ) {
            let sealed = Sealer::new(&keys(0)).seal(Kind::Content, &plain).unwrap();
            prop_assert_eq!(sealed.reference.sealed_len as usize, sealed.bytes.len());
            prop_assert_eq!(&sealed.reference.open(&sealed.bytes).unwrap(), &plain);
            let mut damaged = sealed.bytes.to_vec();
            let at = flip % damaged.len();
            damaged[at] ^= 1;
            prop_assert_eq!(sealed.reference.open(&damaged), Err(SealError::Tag));
        }
    }

    #[test]
    fn dedup_stays_inside_a_volume_epoch_and_kind() {
        let plain = [9; 1000];
        let seal = |keys: &VolumeKeys, kind| Sealer::new(keys).seal(kind, &plain).unwrap().reference.id();
        let id = seal(&keys(0), Kind::Content);
        assert_eq!(id, seal(&keys(0), Kind::Content));
        assert_ne!(id, seal(&keys(1), Kind::Content));
        assert_ne!(id, seal(&keys(0), Kind::Node));
        let other = VolumeKeys::new(VolumeId([8; 16]), 0, Secret::new([2; 32]));
        assert_ne!(id, seal(&other, Kind::Content));
    }

    #[test]
    fn who_has_the_key_cannot_seal_something_else_with_it() {
        let sealed = Sealer::new(&keys(0)).seal(Kind::Content, &[7; 600]).unwrap();
        let reference = sealed.reference;
        let mut other = b"what nobody has written, of as many bytes".to_vec();
        other.resize(reference.sealed_len as usize - SEAL_OVERHEAD, 0);
        let aad = aad(reference.origin, reference.epoch, reference.kind, reference.compression, reference.len);
        let cipher = XChaCha20Poly1305::new(&reference.key.0.into());
        cipher.encrypt_in_place(&XNonce::default(), &aad, &mut other).unwrap();
        assert_eq!(other.len(), reference.sealed_len as usize);
        assert_eq!(reference.open(&other), Err(SealError::Tag));
        // Nor name it so that it goes by the same id.
        let check = check(&hash(&aad, b"what nobody has written"));
        assert_ne!(ExtentRef { check, ..reference.clone() }.id(), reference.id());
    }

    #[test]
    fn a_reference_cannot_be_bent() {
        let sealed = Sealer::new(&keys(0)).seal(Kind::Content, b"hello hello hello").unwrap();
        for bend in [
            |r: &mut ExtentRef| r.kind = Kind::Node,
            |r: &mut ExtentRef| r.epoch = 9,
            |r: &mut ExtentRef| r.len += 1,
            |r: &mut ExtentRef| r.origin = Origin(0),
        ] {
            let mut bent = sealed.reference.clone();
            bend(&mut bent);
            assert!(bent.open(&sealed.bytes).is_err());
        }
    }

    #[test]
    fn a_reference_says_whether_it_can_be_before_room_is_made_for_it() {
        let good = Sealer::new(&keys(0)).seal(Kind::Content, &[7; SEALED_MAX]).unwrap().reference;
        assert!(good.is_sound());
        assert!(!ExtentRef { len: SEALED_MAX as u32 + 1, ..good.clone() }.is_sound());
        assert!(!ExtentRef { sealed_len: u32::MAX, ..good.clone() }.is_sound());
        assert!(!ExtentRef { sealed_len: 15, ..good }.is_sound());
    }

    #[test]
    fn compressible_bytes_shrink_and_random_bytes_do_not_grow() {
        let sealed = Sealer::new(&keys(0)).seal(Kind::Content, &[0; 60_000]).unwrap();
        assert!(sealed.bytes.len() < 1000);
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().take_vec(60_000);
        let sealed = Sealer::new(&keys(0)).seal(Kind::Content, &noise).unwrap();
        assert_eq!(sealed.bytes.len(), 60_000 + SEAL_OVERHEAD);
    }

    trait TakeVec {
        fn take_vec(self, len: usize) -> Vec<u8>;
    }
    impl TakeVec for blake3::OutputReader {
        fn take_vec(mut self, len: usize) -> Vec<u8> {
            let mut out = vec![0; len];
            self.fill(&mut out);
            out
        }
    }

    #[test]
    fn sealed_bytes_open_under_their_key_and_context_only() {
        let key = Secret::new([5; 32]);
        let sealed = seal_bytes(&key, b"one", b"a secret").unwrap();
        assert_eq!(open_bytes(&key, b"one", &sealed).unwrap(), b"a secret");
        assert!(open_bytes(&key, b"two", &sealed).is_err());
        assert!(open_bytes(&Secret::new([6; 32]), b"one", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(open_bytes(&key, b"one", &bent).is_err() && open_bytes(&key, b"one", &sealed[..at]).is_err());
        }
        assert_ne!(sealed[..NONCE], seal_bytes(&key, b"one", b"another").unwrap()[..NONCE]);
    }

    #[test]
    fn record_sealing_binds_sequence_and_context() {
        let key = Secret::new([5; 32]);
        let sealed = seal_record(&key, b"head", 3, b"payload").unwrap();
        assert_eq!(open_record(&key, b"head", 3, &sealed).unwrap(), b"payload");
        assert!(open_record(&key, b"head", 4, &sealed).is_err());
        assert!(open_record(&key, b"roster", 3, &sealed).is_err());
        for end in [0, 3, 10, NONCE, NONCE + SEAL_OVERHEAD, sealed.len() - 1] {
            assert!(open_record(&key, b"head", 3, &sealed[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn the_length_of_a_sealed_record_tells_only_its_size_class() {
        let key = Secret::new([5; 32]);
        let around = NONCE + RECORD_LEN + SEAL_OVERHEAD;
        let mut from = 0;
        for size in RECORD_SIZES {
            for len in [from, from + 1, size - around - 1, size - around] {
                // Zeros at the end are no padding.
                let plain = vec![0; len];
                let sealed = seal_record(&key, b"any", 1, &plain).unwrap();
                assert_eq!(sealed.len(), size, "{len}");
                assert_eq!(open_record(&key, b"any", 1, &sealed).unwrap(), plain);
            }
            from = size - around + 1;
        }
        let largest = RECORD_SIZES[RECORD_SIZES.len() - 1];
        assert_eq!(seal_record(&key, b"any", 1, &vec![0; from]), Err(SealError::TooLong(largest + 1)));
    }
}
