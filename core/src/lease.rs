//! Leases: the right to have a shard kept until some day, and to give that right up.
//!
//! A lease goes by its [`LeaseKey`], the hash of a token that only the device knows which placed the shard. Whoever says the
//! key may have the shard kept for longer, which harms nobody; only who shows the token ends the lease. So a device frees what
//! it has placed itself, and nobody else does: neither another member of the volume, who knows the address of every shard of
//! it, nor a custodian. Both may take leases of their own, and a shard stays for as long as anybody has one.
//!
//! Tokens follow from the device's secret, a number that is drawn for each placement, the holder and the shard. So a segment
//! that is placed again, and comes to the same bytes on the same peers, is leased anew, and giving up the first placement does
//! the second no harm. No two leases tell that they have an owner in common.
//!
//! Asking for a lease needs no signature: connections are sealed and authenticated, so nobody but the holder learns a key.

use std::fmt;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::id::{PeerId, ShardId};
use crate::key::Secret;
use crate::limits::LEASES_AT_ONCE;
use crate::time::UnixSeconds;

const KEY_CONTEXT: &str = "hypernet 2026 lease key v1";
const TOKEN_CONTEXT: &str = "hypernet 2026 lease token v1";

/// What a lease goes by: the hash of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct LeaseKey(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// What ends a lease.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LeaseToken(pub [u8; 32]);

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseToken(..)")
    }
}

impl LeaseToken {
    /// The key of the lease that it ends.
    pub fn key(&self) -> LeaseKey {
        LeaseKey(blake3::derive_key(KEY_CONTEXT, &self.0))
    }
}

/// A lease as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Lease {
    /// What it goes by.
    #[n(0)]
    pub key: LeaseKey,
    /// Until when.
    #[n(1)]
    pub expires: UnixSeconds,
}

/// Drawn at random for each placement.
pub type LeaseNumber = [u8; 16];

/// The secret of all leases of one placement by one device.
#[derive(Clone, Debug)]
pub struct LeaseSecret(Secret);

impl LeaseSecret {
    /// From the secret that [`crate::key::DeviceKeys::lease_secret`] gives.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Ends the lease of this shard at this holder.
    pub fn token(&self, holder: &PeerId, shard: &ShardId) -> LeaseToken {
        LeaseToken(*self.0.derive(TOKEN_CONTEXT, &[holder.as_bytes(), shard.as_bytes()]).expose())
    }

    /// A lease of it.
    pub fn lease(&self, holder: &PeerId, shard: &ShardId, expires: UnixSeconds) -> Lease {
        Lease { key: self.token(holder, shard).key(), expires }
    }
}

const ID: usize = ShardId::LEN;
/// Bytes of a lease in the body of a message: shard, key, expiry.
const LEASE_LEN: usize = ID + 32 + 8;
/// Bytes of a token there: shard, token.
const TOKEN_LEN: usize = ID + 32;

/// Many leases as the body of one message.
pub(crate) fn to_body(leases: &[(ShardId, Lease)]) -> Bytes {
    let mut body = Vec::with_capacity(leases.len() * LEASE_LEN);
    for (shard, lease) in leases {
        body.extend_from_slice(shard.as_bytes());
        body.extend_from_slice(&lease.key.0);
        body.extend_from_slice(&lease.expires.0.to_be_bytes());
    }
    body.into()
}

/// Reads [`to_body`]; none where it is cut short, or there are too many.
pub(crate) fn from_body(body: &[u8]) -> Option<Vec<(ShardId, Lease)>> {
    let (rows, rest) = body.as_chunks::<LEASE_LEN>();
    if rows.is_empty() || rows.len() > LEASES_AT_ONCE || !rest.is_empty() {
        return None;
    }
    rows.iter()
        .map(|row| {
            let key = LeaseKey(row[ID..ID + 32].try_into().ok()?);
            let expires = UnixSeconds(u64::from_be_bytes(row[ID + 32..].try_into().ok()?));
            Some((ShardId::from_slice(&row[..ID])?, Lease { key, expires }))
        })
        .collect()
}

/// Many tokens as the body of one message.
pub(crate) fn tokens_to_body(tokens: &[(ShardId, LeaseToken)]) -> Bytes {
    let mut body = Vec::with_capacity(tokens.len() * TOKEN_LEN);
    for (shard, token) in tokens {
        body.extend_from_slice(shard.as_bytes());
        body.extend_from_slice(&token.0);
    }
    body.into()
}

/// Reads [`tokens_to_body`]; none where it is cut short, or there are too many.
pub(crate) fn tokens_from_body(body: &[u8]) -> Option<Vec<(ShardId, LeaseToken)>> {
    let (rows, rest) = body.as_chunks::<TOKEN_LEN>();
    if rows.is_empty() || rows.len() > LEASES_AT_ONCE || !rest.is_empty() {
        return None;
    }
    rows.iter().map(|row| Some((ShardId::from_slice(&row[..ID])?, LeaseToken(row[ID..].try_into().ok()?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceKeys;

    #[test]
    fn no_two_leases_have_a_key_in_common() {
        let secrets = [(1, 1), (1, 2), (2, 1)]
            .map(|(device, number)| DeviceKeys::new(Secret::new([device; 32])).lease_secret(&[number; 16]));
        let keys: std::collections::BTreeSet<LeaseKey> = secrets
            .iter()
            .flat_map(|secret| {
                [(1, 1), (1, 2), (2, 1)].map(|(holder, shard)| {
                    secret.lease(&PeerId([holder; 32]), &ShardId([shard; 32]), UnixSeconds(9)).key
                })
            })
            .collect();
        assert_eq!(keys.len(), 9);
        assert_eq!(format!("{:?}", secrets[0].token(&PeerId([1; 32]), &ShardId([1; 32]))), "LeaseToken(..)");
    }

    #[test]
    fn bodies_are_read_as_they_were_written_and_nothing_else_is() {
        let secret = LeaseSecret::new(Secret::new([3; 32]));
        let shards: Vec<ShardId> = (0..3).map(|byte| ShardId([byte; 32])).collect();
        let holder = PeerId([9; 32]);
        let leases: Vec<_> = shards.iter().map(|id| (*id, secret.lease(&holder, id, UnixSeconds(1 << 40)))).collect();
        assert_eq!(from_body(&to_body(&leases)), Some(leases.clone()));
        let tokens: Vec<_> = shards.iter().map(|id| (*id, secret.token(&holder, id))).collect();
        assert_eq!(tokens_from_body(&tokens_to_body(&tokens)), Some(tokens.clone()));
        assert!(leases.iter().zip(&tokens).all(|((_, lease), (_, token))| lease.key == token.key()));

        let most = vec![leases[0].clone(); LEASES_AT_ONCE];
        assert!(from_body(&to_body(&most)).is_some());
        let body = to_body(&leases);
        for bad in [&body[..0], &body[..body.len() - 1], &to_body(&[&most[..], &leases].concat())[..]] {
            assert_eq!(from_body(bad), None);
            assert!(bad.len() % TOKEN_LEN == 0 || tokens_from_body(bad).is_none());
        }
        assert_eq!(tokens_from_body(&vec![0; TOKEN_LEN * (LEASES_AT_ONCE + 1)]), None);
        assert_eq!(tokens_from_body(&[]), None);
    }
}
