//! The keystore: the one file whose loss loses everything, sealed by age.
//!
//! It holds what a person must keep (identity, volume secrets, how to find the mesh) and nothing of a device. With a
//! passphrase it is sealed by age's scrypt; without one by an X25519 key in a file beside it that only its owner can
//! read. The device's own secrets lie in a second file, sealed to a key inside the keystore, so one unlocking opens
//! both and a copy of the keystore alone cannot pose as the device.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use hypernet_core::codec;
use hypernet_core::id::{NetworkId, VolumeId};
use hypernet_core::key::{DeviceKeys, IdentityKeys, Secret, VolumeKeys};
use minicbor::{Decode, Encode};

use hypernet_sdk::api::SealedBy;

use crate::config::PUT_BACK;
use crate::failure::{Failure, Kind};
use crate::files;

/// Largest keystore that is read.
const KEYSTORE_MAX: usize = 1 << 20;

/// A volume's secrets.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct VolumeEntry {
    #[n(0)]
    pub(crate) id: VolumeId,
    /// (epoch, secret), oldest first.
    #[n(1)]
    epochs: Vec<(u32, Secret)>,
}

impl VolumeEntry {
    /// Keys of the newest epoch.
    pub(crate) fn keys(&self) -> Option<VolumeKeys> {
        self.epochs.last().map(|(epoch, secret)| VolumeKeys::new(self.id, *epoch, secret.clone()))
    }
}

/// What the keystore keeps.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Keystore {
    #[n(0)]
    identity: Secret,
    #[n(1)]
    pub(crate) volumes: Vec<VolumeEntry>,
    /// The mesh on which to look.
    #[n(2)]
    pub(crate) network: NetworkId,
    /// Where to find some of its peers.
    #[n(3)]
    pub(crate) bootstrap: Vec<String>,
    /// age identity to which device secrets are sealed.
    #[n(4)]
    device_seal: String,
}
hypernet_core::format!(Keystore, tag = 0x50, version = 1, max = KEYSTORE_MAX, name = "keystore");

/// What opens a keystore.
pub(crate) enum Unlock {
    Passphrase(SecretString),
    KeyFile,
}

pub(crate) fn random_secret() -> Result<Secret, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Kind::System, format!("the system gives no random bytes: {error}")))?;
    Ok(Secret::new(bytes))
}

impl Keystore {
    /// A new identity with one volume.
    pub(crate) fn create(network: NetworkId, bootstrap: Vec<String>) -> Result<Self, Failure> {
        let mut volume = [0; 16];
        volume.copy_from_slice(&random_secret()?.expose()[..16]);
        Ok(Self {
            identity: random_secret()?,
            volumes: vec![VolumeEntry { id: VolumeId(volume), epochs: vec![(0, random_secret()?)] }],
            network,
            bootstrap,
            device_seal: age::x25519::Identity::generate().to_string().expose_secret().to_owned(),
        })
    }

    pub(crate) fn identity(&self) -> IdentityKeys {
        IdentityKeys::new(self.identity.clone())
    }

    /// Where the key of a keystore without passphrase lies: beside it.
    pub(crate) fn key_file(keystore: &Path) -> PathBuf {
        keystore.with_extension("key")
    }

    /// How the file is sealed, by its age header.
    pub(crate) fn sealed_by(path: &Path) -> Result<SealedBy, Failure> {
        let bytes = read(path)?;
        let decryptor = age::Decryptor::new(&bytes[..]).map_err(|error| damaged(path, &error.to_string()))?;
        Ok(if decryptor.is_scrypt() { SealedBy::Passphrase } else { SealedBy::KeyFile })
    }

    /// Seals and writes it, atomically and for its owner only.
    pub(crate) fn save(&self, path: &Path, unlock: &Unlock) -> Result<(), Failure> {
        let plain = codec::encode(self);
        let sealed = match unlock {
            Unlock::Passphrase(passphrase) => age::encrypt(&age::scrypt::Recipient::new(passphrase.clone()), &plain),
            Unlock::KeyFile => {
                let key_path = Self::key_file(path);
                let key = match load_key(&key_path) {
                    Ok(key) => key,
                    Err(_) if !key_path.exists() => {
                        let key = age::x25519::Identity::generate();
                        files::write_secret(&key_path, key.to_string().expose_secret().as_bytes())?;
                        key
                    }
                    Err(failure) => return Err(failure),
                };
                age::encrypt(&key.to_public(), &plain)
            }
        };
        let sealed =
            sealed.map_err(|error| Failure::new(Kind::System, format!("cannot seal the keystore: {error}")))?;
        files::write_secret(path, &sealed)
    }

    /// Reads and opens it.
    pub(crate) fn load(path: &Path, unlock: &Unlock) -> Result<Self, Failure> {
        let bytes = read(path)?;
        let plain = match unlock {
            Unlock::Passphrase(passphrase) => age::decrypt(&age::scrypt::Identity::new(passphrase.clone()), &bytes),
            Unlock::KeyFile => age::decrypt(&load_key(&Self::key_file(path))?, &bytes),
        };
        let plain = plain.map_err(|error| match (error, unlock) {
            (age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys, Unlock::Passphrase(_)) => {
                Failure::new(Kind::Permission, format!("wrong passphrase for {}", path.display()))
                    .hint("type it again; without it nothing here can be opened")
            }
            (age::DecryptError::NoMatchingKeys, Unlock::KeyFile) => Failure::new(
                Kind::Permission,
                format!("{} does not open {}", Self::key_file(path).display(), path.display()),
            )
            .hint("put back the key file that was made together with this keystore"),
            (error, _) => damaged(path, &error.to_string()),
        })?;
        codec::decode(&plain).map_err(|error| damaged(path, &error.to_string()))
    }

    /// Seals the secrets of a device, so that they open with the keystore only.
    pub(crate) fn save_device(&self, path: &Path, device: &DeviceKeys) -> Result<(), Failure> {
        let key = self.device_key()?;
        let sealed = age::encrypt(&key.to_public(), device.seed().expose())
            .map_err(|error| Failure::new(Kind::System, format!("cannot seal the device's keys: {error}")))?;
        files::write_secret(path, &sealed)
    }

    /// Opens [`Self::save_device`].
    pub(crate) fn load_device(&self, path: &Path) -> Result<DeviceKeys, Failure> {
        let plain =
            age::decrypt(&self.device_key()?, &read(path)?).map_err(|error| damaged(path, &error.to_string()))?;
        let seed: [u8; 32] = plain.try_into().map_err(|_| damaged(path, "wrong length"))?;
        Ok(DeviceKeys::new(Secret::new(seed)))
    }

    fn device_key(&self) -> Result<age::x25519::Identity, Failure> {
        age::x25519::Identity::from_str(&self.device_seal)
            .map_err(|error| Failure::new(Kind::Data, format!("the keystore's device key is damaged: {error}")))
    }
}

fn load_key(path: &Path) -> Result<age::x25519::Identity, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(Kind::Permission, format!("cannot read the key file {}: {error}", path.display()))
            .hint("a keystore without passphrase opens only with the key file that was made with it")
    })?;
    age::x25519::Identity::from_str(text.trim()).map_err(|error| damaged(path, error))
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
        .hint("use a copy of it that is whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keystore() -> Keystore {
        Keystore::create(NetworkId([1; 16]), vec!["/ip4/127.0.0.1/udp/1/quic-v1".into()]).unwrap()
    }

    #[test]
    fn opens_with_what_sealed_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        let made = keystore();
        made.save(&path, &Unlock::KeyFile).unwrap();
        assert_eq!(Keystore::sealed_by(&path).unwrap(), SealedBy::KeyFile);
        let back = Keystore::load(&path, &Unlock::KeyFile).unwrap();
        assert_eq!(back.identity().id(), made.identity().id());
        fs::remove_file(Keystore::key_file(&path)).unwrap();
        assert_eq!(Keystore::load(&path, &Unlock::KeyFile).unwrap_err().kind, Kind::Permission);
        let right = Unlock::Passphrase("right".to_owned().into());
        made.save(&path, &right).unwrap();
        assert_eq!(Keystore::sealed_by(&path).unwrap(), SealedBy::Passphrase);
        assert!(Keystore::load(&path, &right).is_ok());
        let wrong = Unlock::Passphrase("wrong".to_owned().into());
        let failure = Keystore::load(&path, &wrong).unwrap_err();
        assert!(failure.message.contains("wrong passphrase"), "{failure}");
    }

    #[test]
    fn a_damaged_keystore_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore.age");
        keystore().save(&path, &Unlock::KeyFile).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let failure = Keystore::load(&path, &Unlock::KeyFile).unwrap_err();
        assert!(failure.hint.is_some());
    }

    #[test]
    fn device_keys_open_with_the_keystore_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.age");
        let (mine, other) = (keystore(), keystore());
        let device = DeviceKeys::new(random_secret().unwrap());
        mine.save_device(&path, &device).unwrap();
        assert_eq!(mine.load_device(&path).unwrap().id(), device.id());
        assert!(other.load_device(&path).is_err());
    }

    /// What `agent/golden/keystore.hex` stands for. Its bytes are in files that people keep for years.
    fn golden() -> Keystore {
        let epochs = vec![(0, Secret::new([3; 32])), (1, Secret::new([5; 32]))];
        Keystore {
            identity: Secret::new([1; 32]),
            volumes: vec![VolumeEntry { id: VolumeId([2; 16]), epochs }],
            network: NetworkId([4; 16]),
            bootstrap: vec!["/ip4/127.0.0.1/udp/1/quic-v1".into()],
            device_seal: "AGE-SECRET-KEY-1TEST".into(),
        }
    }

    #[test]
    fn it_is_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../golden/keystore.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        let back: Keystore = codec::decode(&bytes).unwrap();
        assert_eq!(codec::encode(&back), bytes);
        assert_eq!(back.identity().id(), golden().identity().id());
        assert_eq!(back.volumes[0].epochs.last(), Some(&(1, Secret::new([5; 32]))));
        assert_eq!(back.bootstrap, golden().bootstrap);
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_a_panic() {
        crate::golden::mutations(&codec::encode(&golden()), |bytes| {
            let _ = codec::decode::<Keystore>(bytes);
        });
    }
}
