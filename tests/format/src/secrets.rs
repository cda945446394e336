//! Goldens of what has no frame: sealed extents, coded segments, and every key derivation. A change in any of these
//! makes stored data unreadable without any decoder noticing.

use data_encoding::HEXLOWER;
use hypernet_core::custody::Appointment;
use hypernet_core::id::{ExtentId, PeerId, ShardId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::era::Era;
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::identity::place::{Address, Place, roster_sealing_key};
use hypernet_core::identity::posting::way_hash;
use hypernet_core::identity::share;
use hypernet_core::key::Secret;
use hypernet_core::record::record_key;
use hypernet_core::seal::{ExtentRef, Kind, Sealer, open_record, seal_record};
use hypernet_core::segment::Packer;
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::offer::Link;
use hypernet_core::share::posting::{announcement, sealing_key};

use crate::Golden;
use crate::share::epoch;
use crate::values::{device, noise, recovery, volume, volume_keys};

/// Bytes without a frame that must come out equal.
fn equal(name: &'static str, format: &'static str, bytes: Vec<u8>) -> Golden {
    let expected = bytes.clone();
    Golden {
        name,
        tag: None,
        format,
        bytes,
        check: Box::new(move |golden| match golden == expected {
            true => Ok(()),
            false => Err(format!("this code derives {}", HEXLOWER.encode(&expected))),
        }),
    }
}

/// Reference and ciphertext; the golden must open to what was sealed.
fn sealed(name: &'static str, kind: Kind, plain: Vec<u8>) -> Golden {
    let sealed = Sealer::new(&volume_keys()).seal(kind, &plain);
    let bytes = sealed.map(|sealed| {
        let mut bytes = minicbor::to_vec(&sealed.reference).unwrap_or_default();
        bytes.extend_from_slice(&sealed.bytes);
        bytes
    });
    Golden {
        name,
        tag: None,
        format: "sealed extent",
        bytes: bytes.unwrap_or_default(),
        check: Box::new(move |golden| {
            let mut decoder = minicbor::Decoder::new(golden);
            let reference: ExtentRef = decoder.decode().map_err(|error| error.to_string())?;
            let ciphertext = &golden[decoder.position()..];
            if reference.sealed_len as usize != ciphertext.len() {
                return Err("its sealed length is not its length".into());
            }
            match reference.open(ciphertext) {
                Ok(opened) if opened == plain => Ok(()),
                Ok(_) => Err("it opens to something else".into()),
                Err(error) => Err(error.to_string()),
            }
        }),
    }
}

fn sealed_payload() -> Golden {
    let key = volume_keys().head_key();
    let sealed = seal_record(&key, b"golden", 7, b"a record's payload").unwrap_or_default();
    Golden {
        name: "sealed-payload",
        tag: None,
        format: "sealed payload",
        bytes: sealed,
        check: Box::new(move |golden| match open_record(&key, b"golden", 7, golden) {
            Ok(opened) if opened == b"a record's payload" => Ok(()),
            Ok(_) => Err("it opens to something else".into()),
            Err(error) => Err(error.to_string()),
        }),
    }
}

/// The id and the rows of a segment of two extents: layout, padding, code and hashes in one.
fn segment() -> Vec<u8> {
    let keys = volume_keys();
    let sealer = Sealer::new(&keys);
    let mut packer = Packer::new(3);
    for len in [100, 9_000] {
        let sealed = sealer.seal(Kind::Content, &noise(len));
        if sealed.map(|sealed| packer.add(sealed)).is_err() {
            return Vec::new();
        }
    }
    let coded = packer.finish().and_then(|packed| packed.code(3, 5, 6, &keys.padding()).ok());
    let Some(coded) = coded else { return Vec::new() };
    let rows = coded.segment.rows.iter().flat_map(|ShardId(row)| *row);
    coded.segment.id().0.into_iter().chain(coded.segment.shard_len.to_be_bytes()).chain(rows).collect()
}

pub(crate) fn all() -> Vec<Golden> {
    let (keys, peer) = (volume_keys(), PeerId([0x91; 32]));
    let with_passphrase = Phrase::new(&Secret::new([0x55; 32])).keys("a passphrase");
    let place = Place::new(Secret::new([0x66; 32]));
    let link = Secret::new([0x77; 32]);
    let appointment = Appointment::new(Secret::new([0x96; 32]));
    let ward = appointment.ward(&volume(), &device().id());
    let bearer = Bearer::of(&Link::of(&link));
    let era = Era::new(3, Secret::new([0x69; 32]));
    let reference = Sealer::new(&keys).prepare(Kind::Node, b"a node").map(|prepared| prepared.reference);
    let ExtentId(id) = reference.map(|reference| reference.id()).unwrap_or(ExtentId([0; 32]));
    let address = |byte| Address { signer: [byte; 32], secret: [byte; 16] };
    let derived = |name, bytes: &[u8]| equal(name, "key derivations", bytes.to_vec());
    vec![
        sealed("sealed-extent", Kind::Content, noise(200)),
        sealed("sealed-node", Kind::Node, noise(64)),
        sealed_payload(),
        equal("segment", "segment", segment()),
        derived("derive-extent-id", &id),
        derived("derive-convergence", keys.convergence().expose()),
        derived("derive-head-key", keys.head_key().expose()),
        derived("derive-padding", keys.padding().expose()),
        derived("derive-cut-seed", &keys.cut_seed().to_be_bytes()),
        derived("derive-custody-tag", &appointment.tag().0),
        derived("derive-custody-wards-place", appointment.wards().secret().expose()),
        derived("derive-custody-log-place", appointment.log(&ward).secret().expose()),
        derived("derive-custody-moves-place", appointment.moves(&ward.volume).secret().expose()),
        derived("derive-lease-token", &device().lease_secret(&[0x93; 16]).token(&peer, &ShardId([0x92; 32])).0),
        derived("derive-device-signing-key", &device().signing_key().to_bytes()),
        derived("derive-head-record-key", &device().head_record_key(&volume_keys()).to_bytes()),
        derived("derive-beacon-signer", &Beacon::place(&device()).signer()),
        derived("derive-era-roster-place", era.roster().secret().expose()),
        derived("derive-era-keystore-place", era.keystore().secret().expose()),
        derived("derive-era-end-place", era.end().secret().expose()),
        derived("derive-era-opening-key", era.opening_key().expose()),
        derived("derive-era-devices-secret", era.devices_secret().expose()),
        derived("derive-contacts-secret", address(1).secret_with(&address(2)).expose()),
        derived("derive-era-volume-secret", era.volume(volume()).secret().expose()),
        derived("derive-way-hash", &way_hash(b"a sealed way")),
        derived("derive-device-opening-key", device().opening_key().expose()),
        derived("derive-identity-id", &recovery().id().0),
        derived("derive-identity-id-of-words-with-a-passphrase", &with_passphrase.id().0),
        derived("derive-device-id", &device().id().0),
        derived("derive-recovery-signing-key", &recovery().signing_key().to_bytes()),
        derived("derive-recovery-signpost-key", &recovery().signpost_key().to_bytes()),
        derived("derive-recovery-signpost-secret", &recovery().signpost_secret()),
        derived("derive-recovery-opening-key", recovery().opening_key().expose()),
        derived("derive-recovery-main-volume", recovery().main_volume().as_bytes()),
        derived("derive-roster-sealing-key", roster_sealing_key(&recovery().id()).expose()),
        derived("derive-announcement-tag", &keys.announcement(&device().id()).0),
        derived("derive-announcement-key", keys.announcement(&device().id()).1.expose()),
        derived("derive-share-place", share::place(&address(1), &address(2)).secret().expose()),
        derived("derive-place-signer", &place.signer()),
        derived("derive-place-sealing-key", place.sealing_key().expose()),
        derived("derive-place-volume-id", place.keys().volume.as_bytes()),
        derived("derive-place-volume-secret", place.keys().secret().expose()),
        derived("derive-epoch-name", &epoch(3).name().name),
        derived("derive-epoch-volume-secret", epoch(3).volume(volume()).secret().expose()),
        derived("derive-epoch-members-key", epoch(3).members_key().expose()),
        derived("derive-device-share-place", device().share_secret(&volume()).expose()),
        derived("derive-device-offers-place", device().offers_secret().expose()),
        derived("derive-share-posting-sealing-key", sealing_key(&link).expose()),
        derived("derive-share-posting-announcement-tag", &announcement(&link, &volume(), &device().id()).0),
        derived("derive-share-posting-announcement-key", announcement(&link, &volume(), &device().id()).1.expose()),
        derived("derive-link-place", Link::place(&link).secret().expose()),
        derived("derive-link-secret", &Link::of(&link).secret),
        derived("derive-link-sealing-key", Link::of(&link).sealing_key().expose()),
        derived("derive-link-bearer-id", &bearer.id().0),
        derived("derive-link-bearer-signpost-key", &bearer.keys().signpost_key().to_bytes()),
        derived("derive-link-bearer-opening-key", bearer.keys().opening_key().expose()),
        derived("derive-link-bearer-era-roster-place", bearer.era().roster().secret().expose()),
        derived("derive-link-bearer-era-opening-key", bearer.era().opening_key().expose()),
        derived("derive-link-bearer-beacon", &device().bearer_beacon_secret(&bearer.id()).expose()[..]),
        derived("derive-record-key", record_key(&device().signing_key().verifying_key().to_bytes()).as_bytes()),
    ]
}
