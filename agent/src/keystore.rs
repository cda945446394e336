//! The keystore: what a person must keep, and no secret of a device.
//!
//! All devices of an identity have it, and the mesh keeps a copy that is sealed for the phrase and for their era. On
//! a device it lies in a file sealed by age: with a passphrase by scrypt, without one by an X25519 key in a file beside
//! it that only its owner can read. The device's own secrets lie in a second file, sealed to a key in that file, so one
//! unlocking opens both.
//!
//! Two devices may change it at the same time. So it only grows, or says when a part of it was changed last, and what two of them have is [merged](Keystore::merge).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use hypernet_core::codec::{self, CodecError};
use hypernet_core::id::{IdentityId, VolumeId};
use hypernet_core::identity::era::Era;
use hypernet_core::identity::log::Recipient;
use hypernet_core::key::{DeviceKeys, Secret};
use hypernet_core::limits::KIB;
use hypernet_core::seal::Origin;
use hypernet_core::time::Hlc;
use hypernet_sdk::api::SealedBy;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::branch::{self, Branch};
use crate::config::PUT_BACK;
use crate::custody::{self, Custodian};
use crate::failure::{Failure, Kind};
use crate::locked::LockedBytes;
use crate::people::contact::{self, Contact};
use crate::people::guardians::Guardianship;
use crate::share::kept::{self, Share};
use crate::volume::recover::clock;
use crate::{files, sealing};

mod seal;

use seal::Seal;
pub(crate) use seal::{Passphrase, Unlock};

/// Largest keystore that is read, and largest file of one.
const KEYSTORE_MAX: usize = 1 << 20;
/// Largest that is written: sealed it is still read, from the file and from the mesh, where it is sealed twice.
const WRITTEN_MAX: usize = KEYSTORE_MAX - 16 * KIB;
/// Eras in one keystore, and volumes.
const ERAS_MAX: usize = 1024;
const VOLUMES_MAX: usize = 8192;

/// What the keystore keeps.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Keystore {
    #[n(0)]
    pub(crate) identity: IdentityId,
    /// Whoever has the phrase.
    #[n(1)]
    pub(crate) phrase: Recipient,
    /// The newest last. The roster says which of them counts.
    #[n(2)]
    pub(crate) eras: Vec<Era>,
    /// Sorted.
    #[n(3)]
    pub(crate) volumes: Vec<VolumeId>,
    /// The one of them that is mounted where nothing else is said.
    #[n(4)]
    pub(crate) main: VolumeId,
    /// Other people, and marks of those that were removed: one of each identity.
    #[n(5)]
    pub(crate) contacts: Vec<Contact>,
    /// Volumes that other identities have a part in, sorted: one of each.
    #[n(6)]
    pub(crate) shares: Vec<Share>,
    /// Who has shares of the words, and shares of others' words.
    #[n(7)]
    pub(crate) guardians: Guardianship,
    /// Volumes that begin with a tree of another one, sorted, and marks of those that are gone.
    #[n(8)]
    pub(crate) branches: Vec<Branch>,
    /// Who keeps the segments of all of these whole, and marks of those that were removed.
    #[n(9)]
    pub(crate) custodians: Vec<Custodian>,
}
hypernet_core::format!(Keystore, tag = 0x50, version = 6, max = KEYSTORE_MAX, name = "keystore");

impl Keystore {
    /// Of a new identity, with one volume.
    pub(crate) fn create(identity: IdentityId, phrase: Recipient, main: VolumeId) -> Result<Self, Failure> {
        Ok(Self::begin(identity, phrase, main, Era::new(0, random_secret()?)))
    }

    /// Always the same one.
    #[cfg(test)]
    pub(crate) fn fixed(identity: IdentityId, phrase: Recipient) -> Self {
        Self::begin(identity, phrase, VolumeId([1; 16]), Era::new(0, Secret::new([4; 32])))
    }

    /// With nothing in it but one volume.
    pub(crate) fn begin(identity: IdentityId, phrase: Recipient, main: VolumeId, era: Era) -> Self {
        Self {
            identity,
            phrase,
            eras: vec![era],
            volumes: vec![main],
            main,
            contacts: Vec::new(),
            shares: Vec::new(),
            guardians: Guardianship::default(),
            branches: Vec::new(),
            custodians: Vec::new(),
        }
    }

    /// Takes in an era.
    pub(crate) fn add(&mut self, era: Era) {
        if !self.eras.contains(&era) {
            self.eras.push(era);
            self.sort();
        }
    }

    /// Takes in what another copy has.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.merge_beside(other);
        contact::merge(&mut self.contacts, &other.contacts, clock(Hlc::default()));
        kept::merge(&mut self.shares, &other.shares);
        self.share_main_with_nobody();
        branch::merge(&mut self.branches, &other.branches);
        custody::merge(&mut self.custodians, &other.custodians);
        self.guardians.merge(&other.guardians, &self.identity);
    }

    /// A volume of which what is sealed is taken for that of this one.
    pub(crate) fn taken_for(&self, volume: VolumeId) -> Option<VolumeId> {
        let shares = self.shares.iter().map(|share| share.volume);
        let mut all = self.volumes.iter().copied().chain(shares);
        all.find(|other| *other != volume && Origin::from(*other) == Origin::from(volume))
    }

    /// A volume that other identities have a part in.
    pub(crate) fn share(&self, volume: VolumeId) -> Option<&Share> {
        self.shares.iter().find(|share| share.volume == volume)
    }

    /// Keeps one more, if there is room; one that is kept takes in what is new.
    pub(crate) fn add_share(&mut self, share: Share) -> bool {
        let volume = share.volume;
        kept::merge(&mut self.shares, &[share]);
        self.share(volume).is_some()
    }

    /// Changes what is kept of one.
    pub(crate) fn change_share(&mut self, volume: VolumeId, change: impl FnOnce(&mut Share)) {
        if let Some(share) = self.shares.iter_mut().find(|share| share.volume == volume) {
            change(share);
        }
    }

    /// The same of a copy of an era that does not count, where devices that were revoked can still write: what it brings may
    /// be more than there is, and changes nothing of what is here.
    pub(crate) fn merge_beside(&mut self, other: &Self) {
        let room = ERAS_MAX.saturating_sub(self.eras.len());
        let new: Vec<Era> = other.eras.iter().filter(|era| !self.eras.contains(era)).take(room).cloned().collect();
        self.eras.extend(new);
        let room = VOLUMES_MAX.saturating_sub(self.volumes.len());
        let new = other.volumes.iter().filter(|id| !self.volumes.contains(id)).take(room);
        let new: Vec<VolumeId> = new.copied().collect();
        self.volumes.extend(new);
        self.sort();
    }

    /// Takes in a volume, if there is room for one.
    pub(crate) fn add_volume(&mut self, volume: VolumeId) -> bool {
        if self.volumes.contains(&volume) {
            return true;
        }
        let has_room = self.volumes.len() < VOLUMES_MAX;
        if has_room {
            self.volumes.push(volume);
            self.sort();
        }
        has_room
    }

    /// Only a thief's device says that the main volume is shared.
    fn share_main_with_nobody(&mut self) {
        self.shares.retain(|share| share.volume != self.main);
    }

    /// Which volume is the main one, by the words: whoever had the keystore could have named another one.
    pub(crate) fn set_main(&mut self, main: VolumeId) {
        self.main = main;
        self.share_main_with_nobody();
        if !self.volumes.contains(&main) {
            self.volumes.truncate(VOLUMES_MAX - 1);
            self.add_volume(main);
        }
    }

    fn sort(&mut self) {
        sort(&mut self.eras, Era::rank);
        sort(&mut self.volumes, |id| *id);
    }
}

/// Sorts, and leaves one of each.
fn sort<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    list.sort_by_key(&key);
    list.dedup_by_key(|item| key(item));
}

pub(crate) fn random_secret() -> Result<Secret, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Kind::System, format!("the system gives no random bytes: {error}")))?;
    Ok(Secret::new(bytes))
}

/// A number for a new volume.
pub(crate) fn random_volume(is_branch: bool) -> Result<VolumeId, Failure> {
    let mut id = [0; 16];
    id.copy_from_slice(&random_secret()?.expose()[..16]);
    Ok(VolumeId::new(id, is_branch))
}

/// What the file holds.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(array)]
struct Filed {
    #[zeroize(skip)]
    #[n(0)]
    keystore: Keystore,
    /// age identity to which the device's secrets are sealed.
    #[n(1)]
    device_seal: String,
}
hypernet_core::format!(Filed, tag = 0x53, version = 1, max = KEYSTORE_MAX, name = "keystore file");

/// The device's seal, too, is a secret.
impl fmt::Debug for Filed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filed").field("keystore", &self.keystore).finish_non_exhaustive()
    }
}

/// What a file holds, and how it is sealed.
struct Open {
    /// A [`Filed`], encoded: it is decoded for as long as something of it is looked at.
    plain: LockedBytes,
    unlock: Unlock,
    /// None until it is written for the first time.
    seal: Option<Seal>,
}

impl Open {
    fn filed(&self) -> Filed {
        match codec::decode(self.plain.expose()) {
            Ok(filed) => filed,
            Err(_) => unreachable!("it was encoded here, or decoded when it was read"),
        }
    }
}

/// A keystore on this device, and the device's own secrets beside it.
pub(crate) struct KeystoreFile {
    /// None where changes stay in memory.
    path: Option<PathBuf>,
    open: Mutex<Open>,
}

impl KeystoreFile {
    /// One that is not written yet.
    pub(crate) fn new(path: PathBuf, unlock: Unlock, keystore: Keystore) -> Self {
        let device_seal = age::x25519::Identity::generate().to_string().expose_secret().to_owned();
        let plain = Zeroizing::new(codec::encode(&Filed { keystore, device_seal }));
        Self { path: Some(path), open: Mutex::new(Open { plain: LockedBytes::new(&plain), unlock, seal: None }) }
    }

    /// How the file is sealed, by its age header.
    pub(crate) fn sealed_by(path: &Path) -> Result<SealedBy, Failure> {
        seal::sealed_by(path, &read(path)?)
    }

    /// Reads and opens one.
    pub(crate) fn load(path: &Path, unlock: &Unlock) -> Result<Self, Failure> {
        let (plain, seal) = seal::open(path, &read(path)?, unlock)?;
        codec::decode::<Filed>(&plain).map_err(|error| match error {
            // It is whole, and recovering would not make this program read it.
            CodecError::Version { .. } => {
                Failure::new(Kind::Data, format!("{} cannot be read: {error}", path.display()))
                    .hint("a newer program wrote it: update this one")
            }
            error => damaged(path, &error.to_string()),
        })?;
        let open = Open { plain: LockedBytes::new(&plain), unlock: unlock.clone(), seal: Some(seal) };
        Ok(Self { path: Some(path.to_owned()), open: Mutex::new(open) })
    }

    /// The same, whose file is left as it is.
    pub(crate) fn untouched(self) -> Self {
        Self { path: None, ..self }
    }

    /// The keystore as it is now.
    pub(crate) fn keystore(&self) -> Keystore {
        self.open.lock().filed().keystore.clone()
    }

    /// What opens it.
    pub(crate) fn unlocked_by(&self) -> SealedBy {
        self.open.lock().unlock.sealed_by()
    }

    /// Changes it; the change is on the disk when this returns. Blocks: sealing by a passphrase takes a second.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Keystore) -> T) -> Result<T, Failure> {
        let mut open = self.open.lock();
        let filed = open.filed();
        let mut changed = filed.clone();
        let said = change(&mut changed.keystore);
        if changed.keystore != filed.keystore {
            let plain = Zeroizing::new(codec::encode(&changed));
            if plain.len() > WRITTEN_MAX.max(open.plain.expose().len()) {
                return Err(Failure::new(Kind::Data, "the keystore would be longer than a keystore may be").hint(
                    "make room: `hn contact remove`, `hn unshare DIR --all-links`, and fewer directories that are shared",
                ));
            }
            self.write(&mut open, &plain)?;
            open.plain = LockedBytes::new(&plain);
        }
        Ok(said)
    }

    /// Seals and writes it, atomically and for its owner only.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let mut open = self.open.lock();
        let plain = open.plain.clone();
        self.write(&mut open, plain.expose())
    }

    fn write(&self, open: &mut Open, plain: &[u8]) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        if open.seal.is_none() {
            open.seal = Some(Seal::begin(path, &open.unlock)?);
        }
        match &open.seal {
            Some(seal) => files::write_secret(path, &seal.seal(plain)?),
            None => unreachable!("it was begun"),
        }
    }

    /// From now on something else opens it, or another key of the same kind. The old or the new opens it whenever this is
    /// broken off. Returns what could not be cleared away of the old, which opens nothing but old copies of the file.
    pub(crate) fn reseal(&self, unlock: &Unlock) -> Result<Option<Failure>, Failure> {
        let mut open = self.open.lock();
        let Some(path) = &self.path else { return Ok(None) };
        let plain = open.plain.clone();
        if let Some(before) = open.seal.clone()
            && !before.is_clear(path)?
        {
            // Something is left of a change that did not end: it ends now, so that there are never more than two keys.
            self.write(&mut open, plain.expose())?;
            before.clear(path, &before)?;
        }
        let after = Seal::anew(path, unlock)?;
        files::write_secret(path, &after.seal(plain.expose())?)?;
        open.unlock = unlock.clone();
        let before = open.seal.replace(after.clone());
        Ok(before.and_then(|before| after.clear(path, &before).err()))
    }

    /// Seals the secrets of a device, so that they open with this file only.
    pub(crate) fn save_device(&self, path: &Path, device: &DeviceKeys) -> Result<(), Failure> {
        let key = self.device_key()?.to_public();
        let sealed = sealing::seal_to(&[&key as &dyn age::Recipient], device.seed().expose())
            .map_err(|error| Failure::new(Kind::System, format!("cannot seal the device's keys: {error}")))?;
        files::write_secret(path, &sealed)
    }

    /// Opens [`Self::save_device`].
    pub(crate) fn load_device(&self, path: &Path) -> Result<DeviceKeys, Failure> {
        let plain = sealing::open_by(&self.device_key()?, &read(path)?);
        let plain = plain.map_err(|error| damaged(path, &error.to_string()))?;
        let seed: [u8; 32] = plain.as_slice().try_into().map_err(|_| damaged(path, "wrong length"))?;
        Ok(DeviceKeys::new(Secret::new(seed)))
    }

    fn device_key(&self) -> Result<age::x25519::Identity, Failure> {
        age::x25519::Identity::from_str(&self.open.lock().filed().device_seal)
            .map_err(|error| Failure::new(Kind::Data, format!("the keystore's device key is damaged: {error}")))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Kind::NoInput, format!("cannot read {}: {error}", path.display())).hint(PUT_BACK)
    };
    let len = fs::metadata(path).map_err(failed)?.len();
    if len > KEYSTORE_MAX as u64 {
        return Err(damaged(path, "too long"));
    }
    fs::read(path).map_err(failed)
}

fn damaged(path: &Path, why: &str) -> Failure {
    Failure::new(Kind::Data, format!("{} cannot be opened: {why}", path.display()))
        .hint("use a copy of it that is whole, or recover by the phrase in a new HN_HOME")
}

#[cfg(test)]
mod tests {
    use hypernet_core::identity::place::Address;

    use super::*;

    fn keystore() -> Keystore {
        Keystore::create(IdentityId([1; 32]), Recipient::X25519([2; 32]), VolumeId([3; 16])).unwrap()
    }

    fn passphrase(text: &str) -> Unlock {
        Unlock::Passphrase(Passphrase::new(&text.into()))
    }

    fn file(path: &Path, unlock: &Unlock) -> KeystoreFile {
        let file = KeystoreFile::new(path.to_owned(), unlock.clone(), keystore());
        file.save().unwrap();
        file
    }

    #[test]
    fn what_is_taken_for_another_volume_is_found_wherever_that_is_kept() {
        let shared = Share { volume: VolumeId([5; 16]), ..kept::fixed() };
        let keystore = Keystore { shares: vec![shared], ..keystore() };
        let like = |byte, last| {
            let mut id = [byte; 16];
            id[15] = last;
            VolumeId(id)
        };
        for byte in [3, 5] {
            assert_eq!(keystore.taken_for(like(byte, 9)), Some(VolumeId([byte; 16])));
            assert_eq!(keystore.taken_for(like(byte, byte)), None, "it is that one");
        }
        assert_eq!(keystore.taken_for(like(4, 4)), None);
    }

    #[test]
    fn opens_with_what_sealed_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let made = file(&path, &Unlock::KeyFile);
        assert_eq!(KeystoreFile::sealed_by(&path).unwrap(), SealedBy::KeyFile);
        assert_eq!(KeystoreFile::load(&path, &Unlock::KeyFile).unwrap().keystore(), made.keystore());
        fs::remove_file(seal::key_file(&path)).unwrap();
        let refused = |unlock: &Unlock| KeystoreFile::load(&path, unlock).map(drop).unwrap_err();
        assert_eq!(refused(&Unlock::KeyFile).kind, Kind::Permission);
        assert_eq!(refused(&passphrase("any")).kind, Kind::Permission);
        let right = passphrase("right");
        file(&path, &right);
        assert_eq!(KeystoreFile::sealed_by(&path).unwrap(), SealedBy::Passphrase);
        assert!(KeystoreFile::load(&path, &right).is_ok());
        let wrong = refused(&passphrase("wrong"));
        assert!(wrong.message.contains("wrong passphrase"), "{wrong}");
    }

    #[test]
    fn a_damaged_keystore_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        file(&path, &Unlock::KeyFile);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let failure = KeystoreFile::load(&path, &Unlock::KeyFile).map(drop).unwrap_err();
        assert!(failure.hint.is_some());
    }

    #[test]
    fn something_else_opens_it_from_then_on_and_its_content_and_device_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let made = file(&path, &Unlock::KeyFile);
        let device = DeviceKeys::new(random_secret().unwrap());
        made.save_device(&dir.path().join("device.age"), &device).unwrap();
        let key = || fs::read(seal::key_file(&path)).unwrap();
        let first = key();
        let (one, two) = (passphrase("one"), passphrase("two"));
        let opens = |unlock: &Unlock| KeystoreFile::load(&path, unlock).is_ok();

        assert!(made.reseal(&Unlock::KeyFile).unwrap().is_none());
        assert!(key() != first && opens(&Unlock::KeyFile), "it is another key");
        assert_eq!(key().iter().filter(|byte| **byte == b'\n').count(), 1, "the old one is gone");
        assert!(made.reseal(&one).unwrap().is_none());
        assert!(opens(&one) && !opens(&two) && !opens(&Unlock::KeyFile) && !seal::key_file(&path).exists());
        assert!(made.reseal(&two).unwrap().is_none());
        assert!(!opens(&one) && opens(&two));
        // What is changed afterwards is sealed in the new way, too.
        made.change(|keystore| keystore.add(era(3))).unwrap();
        let there = KeystoreFile::load(&path, &two).unwrap();
        assert_eq!((there.keystore(), there.unlocked_by()), (made.keystore(), SealedBy::Passphrase));
        assert_eq!(there.load_device(&dir.path().join("device.age")).unwrap().id(), device.id());
        assert!(there.reseal(&Unlock::KeyFile).unwrap().is_none() && opens(&Unlock::KeyFile) && !opens(&two));
    }

    /// Each state in which a change can be broken off: the files as they are between two writes.
    #[test]
    fn a_change_that_was_broken_off_leaves_what_the_old_or_the_new_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let key_path = seal::key_file(&path);
        let made = file(&path, &Unlock::KeyFile);
        let old = fs::read(&path).unwrap();
        // A new key is beside the old one, and nothing is sealed for it yet; that happens again and again.
        let anew = || Seal::anew(&path, &Unlock::KeyFile).unwrap();
        let [_, _, fresh] = [anew(), anew(), anew()];
        assert!(KeystoreFile::load(&path, &Unlock::KeyFile).is_ok());
        // It is sealed for the new one, and the old one is there still.
        files::write_secret(&path, &fresh.seal(made.open.lock().plain.expose()).unwrap()).unwrap();
        let there = KeystoreFile::load(&path, &Unlock::KeyFile).unwrap();
        assert_eq!(there.keystore(), made.keystore());
        // The next change clears all of that away; so does one that begins where the old one opened.
        for sealed in [fs::read(&path).unwrap(), old] {
            let keys = fs::read(&key_path).unwrap();
            fs::write(&path, &sealed).unwrap();
            let there = KeystoreFile::load(&path, &Unlock::KeyFile).unwrap();
            assert!(there.reseal(&Unlock::KeyFile).unwrap().is_none());
            assert!(KeystoreFile::load(&path, &Unlock::KeyFile).is_ok());
            assert_eq!(fs::read_to_string(&key_path).unwrap().lines().count(), 1);
            fs::write(&key_path, keys).unwrap();
        }
        // The key file outlived the change to a passphrase: it opens nothing, and the next change takes it away.
        fs::write(&path, there.seal_for(&passphrase("one"))).unwrap();
        assert!(KeystoreFile::load(&path, &Unlock::KeyFile).is_err());
        let there = KeystoreFile::load(&path, &passphrase("one")).unwrap();
        assert!(there.reseal(&passphrase("two")).unwrap().is_none());
        assert!(!key_path.exists() && KeystoreFile::load(&path, &passphrase("two")).is_ok());
    }

    impl KeystoreFile {
        /// Its content as another file has it.
        fn seal_for(&self, unlock: &Unlock) -> Vec<u8> {
            let seal = Seal::anew(Path::new("/nowhere"), unlock).unwrap();
            seal.seal(self.open.lock().plain.expose()).unwrap()
        }
    }

    #[test]
    fn device_keys_open_with_the_keystore_only() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, other) =
            (file(&dir.path().join("a.age"), &Unlock::KeyFile), file(&dir.path().join("b.age"), &Unlock::KeyFile));
        let path = dir.path().join("device.age");
        let device = DeviceKeys::new(random_secret().unwrap());
        mine.save_device(&path, &device).unwrap();
        assert_eq!(mine.load_device(&path).unwrap().id(), device.id());
        assert!(other.load_device(&path).is_err());
    }

    fn era(byte: u8) -> Era {
        Era::new(byte.into(), Secret::new([byte; 32]))
    }

    #[test]
    fn what_is_changed_is_on_the_disk_and_a_copy_to_be_left_alone_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let made = file(&path, &Unlock::KeyFile);
        made.change(|keystore| keystore.add(era(7))).unwrap();
        let there = KeystoreFile::load(&path, &Unlock::KeyFile).unwrap();
        assert_eq!((there.keystore(), there.keystore().eras.len()), (made.keystore(), 2));
        let before = fs::read(&path).unwrap();
        there.untouched().change(|keystore| keystore.add(era(8))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_two_devices_have_comes_to_the_same_in_any_order() {
        let base = Keystore::fixed(IdentityId([1; 32]), Recipient::X25519([2; 32]));
        let (mut one, mut other) = (base.clone(), base.clone());
        one.add(era(1));
        other.add(era(2));
        other.volumes.push(VolumeId([0; 16]));
        let copy = one.clone();
        one.merge(&other);
        other.merge(&copy);
        assert_eq!(one, other);
        assert_eq!((one.eras.len(), one.volumes.len()), (3, 2));
        let before = one.clone();
        one.merge(&base);
        assert_eq!(one, before);
        // Of a copy where a revoked device can write nothing of what is here is changed.
        let address = Address { signer: [7; 32], secret: [7; 16] };
        let anna = Contact::new("anna", IdentityId([7; 32]), address, Hlc::default());
        one.contacts = vec![anna.clone()];
        one.guardians = crate::people::guardians::golden();
        let mut gone = anna.clone();
        (gone.is_removed, gone.changed) = (true, Hlc { millis: u64::MAX, counter: 0 });
        let forged = Keystore { contacts: vec![gone], eras: vec![era(9)], ..base };
        one.merge_beside(&forged);
        assert_eq!((one.contacts.clone(), one.eras.len()), (vec![anna], before.eras.len() + 1));
        assert_eq!(one.guardians, crate::people::guardians::golden());
        one.merge(&forged);
        assert!(one.contacts[0].is_removed);
    }

    #[test]
    fn the_words_say_which_volume_is_the_main_one() {
        let mut keystore = Keystore::fixed(IdentityId([1; 32]), Recipient::X25519([2; 32]));
        keystore.set_main(VolumeId([0; 16]));
        assert_eq!(
            (keystore.main, keystore.volumes.as_slice()),
            (VolumeId([0; 16]), &[0, 1].map(|n| VolumeId([n; 16]))[..])
        );
        // A thief has left no room for it.
        let number = |n: usize| VolumeId((n as u128 + 1).to_be_bytes());
        keystore.volumes = (0..VOLUMES_MAX).map(number).collect();
        keystore.set_main(VolumeId([9; 16]));
        assert!(keystore.volumes.contains(&VolumeId([9; 16])) && keystore.volumes.len() == VOLUMES_MAX);
        let before = keystore.clone();
        keystore.set_main(VolumeId([9; 16]));
        assert_eq!(keystore, before);
    }

    /// What `agent/golden/keystore.hex` stands for. Its bytes are in files, and on meshes, for years.
    fn golden() -> Keystore {
        let mut keystore = Keystore::fixed(IdentityId([1; 32]), Recipient::X25519([9; 32]));
        keystore.add(era(5));
        let address = Address { signer: [6; 32], secret: [7; 16] };
        keystore.shares.push(kept::fixed());
        keystore.contacts.push(Contact::new("anna", IdentityId([8; 32]), address, Hlc { millis: 9, counter: 1 }));
        keystore.guardians = crate::people::guardians::golden();
        keystore.branches = vec![branch::fixed()];
        keystore.custodians = vec![custody::fixed()];
        keystore
    }

    #[test]
    fn it_is_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../golden/keystore.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Keystore>(&bytes).unwrap(), golden());
        let filed = Filed { keystore: golden(), device_seal: "AGE-SECRET-KEY-1TEST".into() };
        let bytes = crate::golden::bytes(include_str!("../golden/keystore-file.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&filed)), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Filed>(&bytes).unwrap().keystore, golden());
    }

    #[test]
    fn what_is_written_is_read_again_from_the_file_and_from_the_mesh() {
        use hypernet_core::limits::SEALED_MAX;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let made = file(&path, &Unlock::KeyFile);
        // Whoever offers something chooses what it is called.
        let fill = |keystore: &mut Keystore, target: usize| {
            let left = target - codec::encode(&*keystore).len();
            let share = Share { name: "x".repeat(left), ..kept::fixed() };
            let length = codec::encode(&Keystore { shares: vec![share.clone()], ..keystore.clone() }).len();
            keystore.shares = vec![Share { name: "x".repeat(left - (length - target)), ..share }];
        };
        let refused = made.change(|keystore| fill(keystore, KEYSTORE_MAX - 128)).unwrap_err();
        assert!(refused.message.contains("longer than a keystore may be"), "{refused}");
        made.change(|keystore| fill(keystore, WRITTEN_MAX - 128)).unwrap();
        let there = KeystoreFile::load(&path, &Unlock::KeyFile).unwrap().keystore();
        assert!(there == made.keystore());
        let all = vec![crate::sealing::recipient(&Secret::new([7; 32])).unwrap(); 3];
        let sealed = crate::sealing::seal(&all, &Zeroizing::new(codec::encode(&there))).unwrap();
        assert!(sealed.len() < SEALED_MAX - KIB, "{}", sealed.len());
        // There is always a way back.
        made.change(|keystore| keystore.shares.clear()).unwrap();
    }

    #[test]
    fn one_that_a_newer_program_wrote_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let made = file(&path, &Unlock::KeyFile);
        let mut plain = made.open.lock().plain.expose().to_vec();
        plain[1] += 1;
        let seal = made.open.lock().seal.clone().unwrap();
        files::write_secret(&path, &seal.seal(&plain).unwrap()).unwrap();
        let failure = KeystoreFile::load(&path, &Unlock::KeyFile).map(drop).unwrap_err();
        assert!(
            failure.hint.as_ref().is_some_and(|hint| hint.contains("update this one") && !hint.contains("recover"))
        );
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_a_panic() {
        crate::golden::mutations(&codec::encode(&golden()), |bytes| {
            let _ = codec::decode::<Keystore>(bytes);
        });
    }
}
