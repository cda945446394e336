//! Branches: volumes that begin with a tree of another one, as the keystore has them.
//!
//! Two devices may make one, or let go of one, at once: of each branch the later change counts, so what two of them have comes to
//! the same in any order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hypernet_core::id::{FileId, SnapshotId, VolumeId};
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};

/// Branches in one keystore, with those that are gone: of these the ones that went last.
pub(crate) const BRANCHES_MAX: usize = 512;
/// Those that are there, when several devices have made so many that together they have more.
const THERE_MAX: usize = 2 * BRANCHES_MAX;
/// Digits of a number by which two of one name are told apart.
const DIGITS: usize = 8;

/// What the keystore keeps of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Branch {
    #[n(0)]
    pub(crate) volume: VolumeId,
    /// When any of this was changed last.
    #[n(1)]
    pub(crate) changed: Hlc,
    /// Somebody has let go of it.
    #[n(2)]
    pub(crate) is_gone: bool,
    #[n(3)]
    pub(crate) name: String,
    /// The volume that it was made of.
    #[n(4)]
    pub(crate) of: VolumeId,
    /// The root directory that both have.
    #[n(5)]
    pub(crate) root: FileId,
    /// What it begins with.
    #[n(6)]
    pub(crate) from: SnapshotId,
}

/// Takes in what another keystore has.
pub(crate) fn merge(mine: &mut Vec<Branch>, others: &[Branch]) {
    let mut all: BTreeMap<VolumeId, Branch> = BTreeMap::new();
    for branch in mine.drain(..).chain(others.iter().cloned()) {
        // Nobody makes another volume one of a tree by saying so.
        if !branch.volume.is_branch() {
            continue;
        }
        let known = all.entry(branch.volume).or_insert_with(|| branch.clone());
        *known = branch.max(known.clone());
    }
    mine.extend(all.into_values());
    mine.sort_by_key(|branch| (branch.is_gone, Reverse(branch.changed), branch.volume));
    // Devices that had room each may have more than that together, and in one that is there something may be only there.
    let there = mine.iter().filter(|branch| !branch.is_gone).count();
    mine.truncate(there.clamp(BRANCHES_MAX, THERE_MAX));
    mine.sort_by_key(|branch| branch.volume);
}

/// Those that are there, by name. Of two that were given one name at once the second has its number in it.
pub(crate) fn named(branches: &[Branch]) -> BTreeMap<String, Branch> {
    let mut there: Vec<&Branch> = branches.iter().filter(|branch| !branch.is_gone).collect();
    there.sort_by_key(|branch| (branch.changed, branch.volume));
    let mut named: BTreeMap<String, Branch> = BTreeMap::new();
    for branch in there {
        let mut name = branch.name.clone();
        if named.contains_key(&name) {
            name = format!("{name}-{}", &branch.volume.to_string()[..DIGITS]);
        }
        named.entry(name).or_insert_with(|| branch.clone());
    }
    named
}

/// Always the same one.
#[cfg(test)]
pub(crate) fn fixed() -> Branch {
    Branch {
        volume: VolumeId::new([1; 16], true),
        changed: Hlc { millis: 3, counter: 1 },
        is_gone: true,
        name: "dev".into(),
        of: VolumeId([1; 16]),
        root: FileId::ROOT,
        from: SnapshotId([2; 32]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(byte: u8, name: &str, millis: u64) -> Branch {
        let volume = VolumeId::new([byte; 16], true);
        Branch { volume, changed: Hlc { millis, counter: 0 }, is_gone: false, name: name.into(), ..fixed() }
    }

    #[test]
    fn what_two_keystores_have_comes_to_the_same_and_what_went_stays_so() {
        let (one, other) = (branch(1, "dev", 1), branch(2, "dev", 2));
        let gone = Branch { is_gone: true, changed: Hlc { millis: 3, counter: 0 }, ..one.clone() };
        let (mut a, mut b) = (vec![one.clone()], vec![other.clone()]);
        merge(&mut a, &b);
        merge(&mut b, &[one.clone(), gone.clone()]);
        merge(&mut a, &b);
        merge(&mut b, std::slice::from_ref(&one));
        assert_eq!((&a, a.len()), (&b, 2));
        assert_eq!(named(&a).into_iter().collect::<Vec<_>>(), [("dev".to_owned(), other.clone())]);
        let mut all = vec![one.clone(), other.clone()];
        merge(&mut all, &[Branch { volume: VolumeId::new([3; 16], false), ..branch(3, "x", 1) }]);
        let names: Vec<String> = named(&all).into_keys().collect();
        assert_eq!(names, ["dev", &format!("dev-{}", &other.volume.to_string()[..8])]);
    }

    #[test]
    fn there_is_an_end_and_those_that_are_there_come_before_those_that_went() {
        let many = |gone: bool| {
            (0..BRANCHES_MAX as u64).map(move |n| {
                let volume = VolumeId::new((u128::from(n) << 9 | u128::from(gone) << 8).to_be_bytes(), true);
                Branch { volume, is_gone: gone, ..branch(0, "x", n) }
            })
        };
        let mut all: Vec<Branch> = many(true).collect();
        merge(&mut all, &many(false).collect::<Vec<_>>());
        assert_eq!(all.len(), BRANCHES_MAX);
        assert!(all.iter().all(|branch| !branch.is_gone));
        assert!(named(&all).len() <= BRANCHES_MAX);
        // None that is there goes because others are.
        for byte in 1..=200 {
            let others = many(false).take(8).map(|one| {
                let mut id = *one.volume.as_bytes();
                id[0] = byte;
                Branch { volume: VolumeId::new(id, true), ..one }
            });
            merge(&mut all, &others.collect::<Vec<_>>());
            assert_eq!(all.len(), (BRANCHES_MAX + 8 * usize::from(byte)).min(THERE_MAX));
        }
    }
}
