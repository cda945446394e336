//! A device shows that it speaks for its identity, to somebody whom it meets: a signature over what was said there, which
//! is good for that meeting and for no other.

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::id::{DeviceId, IdentityId};
use crate::key::DeviceKeys;

const CONTEXT: &[u8] = b"hypernet proof of identity v1\0";

/// Hash of all that was said in a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transcript(pub [u8; 32]);

/// Who somebody is. Whoever checks it also sees whether that device is on the identity's list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Proof {
    /// Whose device it is.
    #[n(0)]
    pub identity: IdentityId,
    /// The device.
    #[n(1)]
    pub device: DeviceId,
    /// Ed25519 of the device over the identity and the meeting.
    #[cbor(n(2), with = "minicbor::bytes")]
    signature: [u8; 64],
}
crate::format!(Proof, tag = 0x39, version = 1, max = 256, name = "proof of identity");

fn signed_bytes(identity: &IdentityId, meeting: &Transcript) -> Vec<u8> {
    [CONTEXT, identity.as_bytes(), &meeting.0].concat()
}

impl Proof {
    /// For one meeting.
    pub fn sign(identity: IdentityId, device: &DeviceKeys, meeting: &Transcript) -> Self {
        let signature = device.signing_key().sign(&signed_bytes(&identity, meeting)).to_bytes();
        Self { identity, device: device.id(), signature }
    }

    /// Whether the device that it names has signed it in this meeting.
    pub fn is_of(&self, meeting: &Transcript) -> bool {
        let bytes = signed_bytes(&self.identity, meeting);
        VerifyingKey::from_bytes(self.device.as_bytes())
            .and_then(|key| key.verify_strict(&bytes, &Signature::from_bytes(&self.signature)))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Secret;

    #[test]
    fn a_proof_is_of_one_identity_one_device_and_one_meeting() {
        let device = |byte| DeviceKeys::new(Secret::new([byte; 32]));
        let (one, other) = (Transcript([7; 32]), Transcript([8; 32]));
        let proof = Proof::sign(IdentityId([1; 32]), &device(2), &one);
        assert!(proof.is_of(&one) && !proof.is_of(&other));
        assert!(!Proof { identity: IdentityId([3; 32]), ..proof.clone() }.is_of(&one));
        assert!(!Proof { device: device(3).id(), ..proof.clone() }.is_of(&one));
        let mut forged = proof;
        forged.signature[0] ^= 1;
        assert!(!forged.is_of(&one));
    }
}
