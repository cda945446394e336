//! How many peers a lookup in the DHT asks: Kademlia (Maymounkov and Mazières, 2002) as libp2p runs it, with buckets of 20, three
//! requests at a time, and peers in the buckets that are not there just now. It decides nothing and carries nothing: what comes
//! back is a count.

use std::collections::{BTreeMap, BTreeSet};

use super::mesh::Mesh;

/// Peers in a bucket, and those that a lookup is to find.
const BUCKET: usize = 20;
/// Requests of a lookup that are under way at once.
const AT_ONCE: usize = 3;

/// A peer's place: the first bits of its name.
type Place = u128;

fn place(bytes: &[u8]) -> Place {
    bytes.iter().take(16).fold(0, |place, byte| place << 8 | Place::from(*byte))
}

/// All places in their order; a part of them that begins with the same bits is a stretch.
struct Map {
    places: Vec<(Place, bool)>,
}

impl Map {
    /// Peers of a bucket: some of those that have `bits` bits in common with `of`; which of them depends on whose bucket it is.
    fn bucket(&self, whose: Place, of: Place, bits: u32) -> impl Iterator<Item = (Place, bool)> {
        let low = if bits == 0 { 0 } else { of & (Place::MAX << (128 - bits)) };
        let high = low | Place::MAX.checked_shr(bits).unwrap_or(0);
        let from = self.places.partition_point(|(place, _)| *place < low);
        let to = self.places.partition_point(|(place, _)| *place <= high);
        let many = to - from;
        // Evenly over the stretch, from anywhere.
        let first = (whose ^ of).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) % (many.max(1) as Place);
        (0..many.min(BUCKET)).map(move |at| self.places[from + (first as usize + at * many / many.min(BUCKET)) % many])
    }

    /// Whom a peer names that is asked for the closest to a place: as many as fill a bucket, the nearest it knows.
    fn closest_known(&self, whose: Place, target: Place) -> Vec<(Place, bool)> {
        let common = (whose ^ target).leading_zeros();
        let mut all: BTreeMap<Place, (Place, bool)> = BTreeMap::new();
        // The bucket in which the target would lie, then those around its own place, which are the nearer the more bits they share.
        for bits in (0..=common.min(127) + 1).rev() {
            let of = if bits == common.min(127) + 1 { target } else { whose };
            all.extend(self.bucket(whose, of, bits).filter(|(place, _)| *place != whose).map(|at| (at.0 ^ target, at)));
            if all.len() >= BUCKET {
                break;
            }
        }
        all.into_values().take(BUCKET).collect()
    }

    /// Rounds, peers asked, and those of them that were not there.
    fn lookup(&self, from: Place, target: Place) -> [u64; 3] {
        let mut known: BTreeMap<Place, (Place, bool)> = BTreeMap::new();
        known.extend(self.closest_known(from, target).into_iter().map(|at| (at.0 ^ target, at)));
        let (mut asked, mut absent): (BTreeSet<Place>, BTreeSet<Place>) = Default::default();
        let mut rounds = 0;
        loop {
            let alive = known.values().filter(|at| !absent.contains(&at.0)).take(BUCKET);
            let next: Vec<(Place, bool)> = alive.filter(|at| !asked.contains(&at.0)).take(AT_ONCE).copied().collect();
            if next.is_empty() {
                return [rounds, asked.len() as u64, absent.len() as u64];
            }
            rounds += 1;
            for (place, up) in next {
                asked.insert(place);
                match up {
                    true => known.extend(self.closest_known(place, target).into_iter().map(|at| (at.0 ^ target, at))),
                    false => {
                        absent.insert(place);
                    }
                }
            }
        }
    }
}

/// So many lookups of random keys, by peers that are there: how many, their rounds, peers asked, and those of them not there.
pub(super) fn lookups(mesh: &mut Mesh, many: usize) -> [u64; 4] {
    let mut places: Vec<(Place, bool)> = mesh.donors.iter().map(|donor| (place(&donor.id.0), donor.up)).collect();
    places.sort_unstable();
    let map = Map { places };
    let mut found = [0; 4];
    for _ in 0..many {
        let from = map.places[mesh.random.index(map.places.len())].0;
        let target = place(&mesh.random.bytes(16));
        let [rounds, asked, absent] = map.lookup(from, target);
        found.iter_mut().zip([1, rounds, asked, absent]).for_each(|(all, one)| *all += one);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_lookup_finds_the_closest_and_asks_few() {
        let mut random = Random::new(1);
        let mut places: Vec<(Place, bool)> = (0..4_000).map(|_| (place(&random.bytes(16)), true)).collect();
        places.sort_unstable();
        let map = Map { places };
        for _ in 0..50 {
            let (from, target) = (map.places[random.index(4_000)].0, place(&random.bytes(16)));
            let [rounds, asked, absent] = map.lookup(from, target);
            assert!((5..20).contains(&rounds) && (20..60).contains(&asked) && absent == 0, "{rounds} {asked}");
            // The neighbours of a place know one another: who is nearest to it knows all that are near.
            let mut all: Vec<Place> = map.places.iter().map(|at| at.0 ^ target).collect();
            all.sort_unstable();
            let near: Vec<Place> = map.closest_known(all[0] ^ target, target).iter().map(|at| at.0 ^ target).collect();
            assert!(near.contains(&all[1]));
        }
    }
}
