//! What devices of other identities said of themselves when they were last asked.
//!
//! Whoever has a part in a volume, or a link to it, chooses how many devices it brings, and how much each of them says: of one
//! identity's devices only so much is remembered, and what was not heard for longest goes first.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::codec;
use hypernet_core::id::{DeviceId, IdentityId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::limits::MIB;
use hypernet_core::record::Record;

/// Bytes of the devices of one identity, encoded.
const SAID_MAX: usize = if cfg!(test) { 4096 } else { MIB };

struct Said {
    beacon: Beacon,
    /// Where that was read.
    record: Option<Record>,
    bytes: usize,
    /// In the order in which all was heard.
    at: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct OfOthers {
    said: BTreeMap<IdentityId, BTreeMap<DeviceId, Said>>,
    /// In whose name a device says anything: one that came by a link says something else in its name.
    names: BTreeMap<DeviceId, BTreeSet<IdentityId>>,
    heard: u64,
}

impl OfOthers {
    /// A device said this in the name of that identity.
    pub(super) fn hear(&mut self, of: IdentityId, device: DeviceId, beacon: Beacon, record: Option<Record>) {
        self.heard += 1;
        let bytes = codec::encode(&beacon).len();
        let said = self.said.entry(of).or_default();
        // Whoever was looked up says the same where it was read before.
        let same = said.get(&device).filter(|before| before.beacon == beacon).and_then(|before| before.record.clone());
        let record = record.or(same);
        said.insert(device, Said { beacon, record, bytes, at: self.heard });
        self.names.entry(device).or_default().insert(of);
        while said.values().map(|said| said.bytes).sum::<usize>() > SAID_MAX {
            let others = said.iter().filter(|(other, _)| **other != device);
            let Some(oldest) = others.min_by_key(|(_, said)| said.at).map(|(other, _)| *other) else { break };
            said.remove(&oldest);
            if let Some(names) = self.names.get_mut(&oldest) {
                names.remove(&of);
                if names.is_empty() {
                    self.names.remove(&oldest);
                }
            }
        }
    }

    /// What a device said there, if that was read already.
    pub(super) fn in_record(&self, of: IdentityId, device: DeviceId, record: &Record) -> Option<&Beacon> {
        let said = self.said.get(&of)?.get(&device)?;
        (said.record.as_ref() == Some(record)).then_some(&said.beacon)
    }

    /// What a device said, in whosever name.
    pub(super) fn of(&self, device: &DeviceId) -> impl Iterator<Item = &Beacon> {
        let names = self.names.get(device).into_iter().flatten();
        let device = *device;
        names.filter_map(move |of| self.said.get(of)?.get(&device)).map(|said| &said.beacon)
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::identity::era::Door;
    use hypernet_core::key::{DeviceKeys, Secret, VolumeKeys};

    use super::*;

    #[test]
    fn of_one_who_brings_ever_more_devices_only_the_last_ones_are_remembered() {
        let mut all = OfOthers::default();
        let (anna, mallory) = (IdentityId([1; 32]), IdentityId([2; 32]));
        let door = Door { roster: [7; 32], end: [8; 32] };
        let beacon = |byte| {
            let device = DeviceKeys::new(Secret::new([byte; 32]));
            let keys = |number| VolumeKeys::new(hypernet_core::id::VolumeId([number; 16]), 0, Secret::new([3; 32]));
            (device.id(), Beacon::new(&device, door, &[keys(1), keys(2), keys(3)], &[], false).unwrap())
        };
        let (of_anna, said) = beacon(1);
        all.hear(anna, of_anna, said.clone(), None);
        for byte in 2..=200 {
            let (device, said) = beacon(byte);
            all.hear(mallory, device, said, None);
        }
        assert_eq!(all.of(&of_anna).collect::<Vec<_>>(), [&said]);
        assert!(all.said[&mallory].len() < 40 && all.names.len() < 40, "{}", all.names.len());
        let (last, said) = beacon(200);
        assert_eq!(all.of(&last).collect::<Vec<_>>(), [&said]);
        assert_eq!(all.of(&beacon(2).0).count(), 0);
    }
}
