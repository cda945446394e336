//! What a new device is given: the keystore and what is known of its identity, each sealed for it alone, at places of the
//! code's own. What was handed over is named by a hash, which the one who sent it vouches for.

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::log::Recipient;
use hypernet_core::key::DeviceKeys;
use hypernet_core::port::PortError;
use zeroize::Zeroizing;

use super::code::Code;
use crate::identity::arrival::Arrived;
use crate::identity::known::Known;
use crate::identity::places::{At, put, read};
use crate::peers::Peers;
use crate::sealing;
use crate::volume::damaged;

const CONTEXT: &str = "hypernet 2026 pairing parcel v1";
/// Peers that keep it, for the minute in which it is taken.
const KEEPERS: usize = 2;

fn hash(parts: &[Vec<u8>; 2]) -> [u8; 32] {
    let each = parts.each_ref().map(|part| blake3::derive_key(CONTEXT, part));
    blake3::derive_key(CONTEXT, &each.concat())
}

/// Puts it there. Returns what it is named by.
pub(crate) fn send(peers: &Peers, code: &Code, to: &Recipient, arrived: &Arrived) -> Result<[u8; 32], PortError> {
    let plain = [codec::encode(&arrived.keystore), arrived.known.to_bytes()].map(Zeroizing::new);
    let seal = |part: &Zeroizing<Vec<u8>>| sealing::seal(&[*to], part).map_err(damaged);
    let parts = [seal(&plain[0])?, seal(&plain[1])?];
    let named = hash(&parts);
    for (place, part) in code.parcels().iter().zip(parts) {
        let record = put(peers, place, &place.sealing_key(), part, 0)?;
        peers.publish(record, KEEPERS.min(peers.keepers()), "what the new device is given")?;
    }
    Ok(named)
}

/// Takes it.
pub(crate) fn receive(
    peers: &Peers,
    code: &Code,
    device: &DeviceKeys,
    identity: IdentityId,
    named: &[u8],
) -> Result<Arrived, PortError> {
    let mut parts = [Vec::new(), Vec::new()];
    for (place, part) in code.parcels().iter().zip(&mut parts) {
        let nothing = || PortError::NotFound("what was handed over is not on the mesh".into());
        let record = peers.look_well(place.record_key())?.ok_or_else(nothing)?;
        let At::Here(bytes) = read(peers, &record, &place.sealing_key())? else { return Err(nothing()) };
        *part = bytes;
    }
    if hash(&parts) != named {
        return Err(damaged("what was handed over is not what the other device vouches for"));
    }
    let open = |part: &[u8]| sealing::open(&device.opening_key(), part).map_err(damaged);
    let keystore = codec::decode(&open(&parts[0])?).map_err(damaged)?;
    let known = Known::from_bytes(&open(&parts[1])?, &identity).map_err(damaged)?;
    Ok(Arrived { keystore, known, warning: None })
}
