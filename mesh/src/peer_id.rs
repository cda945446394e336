//! Between our peer ids and libp2p's. Ours is the raw Ed25519 public key of the transport; libp2p wraps the same
//! key in a protobuf and an identity multihash, so that both name the same peer and neither has to be looked up.

use hypernet_core::id::{PeerId, RecordKey};
use libp2p::kad::KBucketKey;
use libp2p::multihash::Multihash;

/// Protobuf of a libp2p public key: field 1 (key type) = Ed25519, field 2 (bytes) of length 32.
const ED25519_KEY_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
const IDENTITY_MULTIHASH: u64 = 0;
const ENCODED_LEN: usize = ED25519_KEY_PREFIX.len() + PeerId::LEN;

/// Our id of a libp2p peer; `None` when its key is not Ed25519.
pub(crate) fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    let multihash: &Multihash<64> = peer.as_ref();
    if multihash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    PeerId::from_slice(multihash.digest().strip_prefix(&ED25519_KEY_PREFIX)?)
}

/// libp2p's id of a peer.
pub(crate) fn to_libp2p(peer: &PeerId) -> Option<libp2p::PeerId> {
    let mut encoded = [0; ENCODED_LEN];
    encoded[..ED25519_KEY_PREFIX.len()].copy_from_slice(&ED25519_KEY_PREFIX);
    encoded[ED25519_KEY_PREFIX.len()..].copy_from_slice(peer.as_bytes());
    libp2p::PeerId::from_multihash(Multihash::wrap(IDENTITY_MULTIHASH, &encoded).ok()?).ok()
}

/// How far a record is from a peer where Kademlia looks for it: smaller bytes are nearer. What is no peer of libp2p's
/// is as far away as can be.
pub fn distance(peer: &PeerId, key: &RecordKey) -> [u8; 32] {
    let Some(peer) = to_libp2p(peer).map(KBucketKey::from) else { return [0xff; 32] };
    let key = KBucketKey::new(key.as_bytes().to_vec());
    std::array::from_fn(|i| peer.hashed_bytes()[i] ^ key.hashed_bytes()[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn both_ids_name_the_same_key() {
        let pair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let theirs = pair.public().to_peer_id();
        let ours = from_libp2p(&theirs).unwrap();
        assert_eq!(ours.0, pair.public().try_into_ed25519().unwrap().to_bytes());
        assert_eq!(to_libp2p(&ours), Some(theirs));
    }

    #[test]
    fn what_is_nearer_here_is_nearer_to_kademlia() {
        let key = RecordKey([9; 32]);
        let peers: Vec<libp2p::PeerId> =
            (0..64).map(|i| Keypair::ed25519_from_bytes([i; 32]).unwrap().public().to_peer_id()).collect();
        let (mut ours, mut theirs) = (peers.clone(), peers);
        ours.sort_by_key(|peer| distance(&from_libp2p(peer).unwrap(), &key));
        let target = KBucketKey::new(key.as_bytes().to_vec());
        theirs.sort_by_key(|peer| KBucketKey::from(*peer).distance(&target));
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_peer_whose_key_is_hashed_has_no_id_here() {
        // What RSA keys look like: the SHA-256 of the key instead of the key.
        let hashed = libp2p::PeerId::from_multihash(Multihash::wrap(0x12, &[1; 32]).unwrap()).unwrap();
        assert_eq!(from_libp2p(&hashed), None);
    }
}
