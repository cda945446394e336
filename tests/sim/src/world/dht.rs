//! The delivery contract of the DHT and nothing of its insides: the peers closest to a key are found as far as
//! the network lets them; a lookup gives what those serve, stale and forged records of liars among it.

use hypernet_core::codec;
use hypernet_core::id::{PeerId, RecordKey};
use hypernet_core::node::{Effect, Input, Outcome, RequestId};
use hypernet_core::record::Record;

use super::{Event, Manner, World};

/// Peers that keep a record.
const CLOSEST: usize = 20;

/// What a lookup was answered with: its result may not be older than the newest of these.
pub(super) struct Floor {
    key: RecordKey,
    newest: Option<Record>,
}

/// How far a record is from a peer.
pub(super) fn distance(peer: &PeerId, key: &RecordKey) -> [u8; 32] {
    let mut distance = *blake3::hash(peer.as_bytes()).as_bytes();
    distance.iter_mut().zip(key.as_bytes()).for_each(|(d, k)| *d ^= k);
    distance
}

impl World {
    fn closest(&self, key: &RecordKey, except: usize) -> Vec<usize> {
        let mut all: Vec<([u8; 32], usize)> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(i, host)| *i != except && host.up())
            .map(|(i, host)| (distance(&host.id, key), i))
            .collect();
        all.sort_unstable();
        all.truncate(CLOSEST);
        all.into_iter().map(|(_, i)| i).collect()
    }

    pub(super) fn tell_closest(&mut self, node: usize, life: u32, id: RequestId, key: RecordKey) {
        if !self.lives(node, life) {
            return;
        }
        let mut found = self.closest(&key, node);
        // Whom the search did not reach is not found; whom it reached may be gone by now.
        found.retain(|to| self.reachable(node, *to));
        let peers = found.into_iter().map(|to| self.hosts[to].id).collect();
        self.step(node, Input::Closest { id, peers });
    }

    /// What a node was asked to keep, for those that hand out yesterday's.
    pub(super) fn remember_record(&mut self, to: usize, bytes: &[u8]) {
        if let Ok(record) = Record::verify(bytes) {
            self.hosts[to].yesterday.entry(record.key()).or_insert_with(|| bytes.to_vec());
        }
    }

    pub(super) fn find(&mut self, node: usize, life: u32, id: RequestId, key: RecordKey) {
        if !self.lives(node, life) {
            return;
        }
        let (mut records, mut answers) = (Vec::new(), 0);
        for from in self.closest(&key, node) {
            if !self.reachable(node, from) || self.random.chance(self.config.loss) {
                continue;
            }
            answers += 1;
            let host = &self.hosts[from];
            let served = host.kept.get(&key).map(|(bytes, _)| bytes.clone());
            match (host.manner, served) {
                (Manner::Honest, Some(_)) if host.stale => {
                    records.extend(host.yesterday.get(&key).filter(|_| from % 2 == 0).cloned());
                }
                (Manner::Honest, Some(bytes)) => records.push(bytes),
                (Manner::Honest, None) => {}
                (Manner::Forgetter, _) => records.extend(host.yesterday.get(&key).cloned()),
                (Manner::Bender, Some(mut bytes)) => {
                    // a newer sequence under the old signature, or noise
                    let at = self.random.index(bytes.len());
                    bytes[at] ^= 0x40;
                    records.push(bytes);
                }
                (Manner::Bender, None) => records.push(self.random.bytes(90)),
            }
        }
        self.book.finding.insert((node, id), key);
        self.step(node, Input::RecordFound { id, records, answers });
    }

    /// The newest valid record among the answers to a lookup.
    pub(super) fn lookup_floor(&mut self, at: usize, input: &Input) -> Option<Floor> {
        let Input::RecordFound { id, records, .. } = input else { return None };
        let key = self.book.finding.remove(&(at, *id))?;
        let valid = records.iter().filter_map(|bytes| Record::verify_under(&key, bytes).ok());
        let newest = valid.reduce(|a, b| if b.replaces(&a) { b } else { a });
        Some(Floor { key, newest })
    }

    pub(super) fn check_lookup(&mut self, at: usize, floor: Floor, effects: &[Effect]) {
        let found = effects.iter().find_map(|effect| match effect {
            Effect::Finished { outcome: Outcome::Found { record, .. }, .. } => Some(record.clone()),
            _ => None,
        });
        let Some(found) = found else {
            return self.violate(|| format!("node {at} was answered a lookup and did not end it"));
        };
        if found.as_ref().is_some_and(|record| Record::verify_under(&floor.key, &codec::encode(record)).is_err()) {
            self.violate(|| format!("node {at} believes a record that nobody signed for this key"));
        }
        let older = match (&floor.newest, &found) {
            (Some(newest), Some(found)) => newest.replaces(found),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if older {
            self.violate(|| format!("node {at} found an older record than it was answered with"));
        }
    }

    pub(super) fn keep_record(&mut self, at: usize, key: RecordKey, bytes: Vec<u8>) {
        let Ok(record) = Record::verify_under(&key, &bytes) else {
            return self.violate(|| format!("node {at} serves a record that nobody signed for its key"));
        };
        let held = self.hosts[at].kept.get(&key).and_then(|(held, _)| codec::decode::<Record>(held).ok());
        if held.is_some_and(|held| held.replaces(&record)) {
            self.violate(|| format!("node {at} serves an older record in place of a newer one"));
        }
        let refused = self.random.chance(self.config.disk_faults);
        self.note(5, [at as u64, record.sequence, u64::from(refused)]);
        let now = self.now;
        let host = &mut self.hosts[at];
        let since = *host.unserved.entry(key).or_insert(now);
        if refused {
            let (life, input) = (host.life, Input::NotServed { key });
            return self.push(0, Event::Input { to: at, life, input });
        }
        host.unserved.remove(&key);
        host.kept.insert(key, (bytes, since));
    }

    pub(super) fn drop_record(&mut self, at: usize, key: RecordKey) {
        self.hosts[at].disk.records.remove(&key);
        let unserved = self.hosts[at].unserved.remove(&key);
        let since = self.hosts[at].kept.remove(&key).map(|(_, since)| since).or(unserved);
        if since.is_none_or(|since| self.now - since < self.config.record_lifetime) {
            self.violate(|| format!("node {at} drops a record within its lifetime"));
        }
    }
}
