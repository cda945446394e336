use std::path::Path;
use std::sync::Arc;

use hypernet_core::id::{RecordKey, ShareSetId};
use hypernet_core::identity::era::Era;
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::identity::share::{Terms, split};
use hypernet_core::key::Secret;
use tempfile::TempDir;

use super::*;
use crate::identity::Identity;
use crate::volume::double::{Mesh, phrase, publish};

fn at(millis: u64) -> Hlc {
    Hlc { millis, counter: 0 }
}

fn address(byte: u8) -> Address {
    Address { signer: [byte; 32], secret: [byte; 16] }
}

fn contact(byte: u8) -> Contact {
    Contact::new(&format!("contact {byte}"), IdentityId([byte; 32]), address(byte), at(1))
}

/// A set of these.
fn set(millis: u64, guardians: &[u8]) -> Guardians {
    let guardians = guardians.iter().map(|byte| Guardian::sealed(&contact(*byte), vec![*byte, millis as u8])).collect();
    Guardians::new(at(millis), 2, false, guardians, None)
}

fn of(set: &Guardians) -> Guardianship {
    Guardianship { mine: Some(set.clone()), held: Vec::new() }
}

fn words(byte: u8) -> Phrase {
    Phrase::new(&Secret::new([byte; 32]))
}

/// Shares of somebody's words for these.
fn shares(byte: u8, millis: u64, guardians: &[IdentityId]) -> Vec<Share> {
    let terms = Terms { set: ShareSetId([byte; 16]), made: at(millis), threshold: 2 };
    let guardians: Vec<_> = guardians.iter().zip(1..).map(|(id, i)| (*id, format!("guardian {i}"))).collect();
    split(&words(byte), "", &terms, &guardians, getrandom::rand_core::UnwrapErr(getrandom::SysRng)).unwrap()
}

fn names(set: &Guardians) -> Vec<&str> {
    set.current().map(|one| one.name.as_str()).collect()
}

#[test]
fn the_newest_set_counts_in_whatever_order_sets_are_heard_of_and_nobody_of_before_keeps_a_record() {
    let me = IdentityId([0; 32]);
    let parts = [set(1, &[1, 2, 3]), set(2, &[3, 4]), set(3, &[5, 1])];
    let merged = |order: &[usize]| {
        let mut all = Guardianship::default();
        order.iter().for_each(|part| all.merge(&of(&parts[*part]), &me));
        all.mine.unwrap()
    };
    let expected = merged(&[0, 1, 2]);
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(merged(&order), expected, "{order:?}");
    }
    assert_eq!(merged(&[2, 2, 0, 1, 0]), expected);
    assert_eq!(names(&expected), ["contact 5", "contact 1"]);
    let records = expected.records(&address(9)).unwrap();
    let (there, former): (Vec<_>, Vec<_>) = records.iter().partition(|(one, _)| one.is_one());
    assert_eq!((there.len(), former.len()), (2, 3));
    assert!(records.iter().all(|(_, record)| record.sequence == 3 << 16), "each replaces what was there");

    let gone = expected.taken_back(at(4));
    assert_eq!((gone.current().count(), gone.records(&address(9)).unwrap().len()), (0, 5));
    let mut all = of(&gone);
    all.merge(&of(&expected), &me);
    assert_eq!(all, of(&gone));
    // Whoever is set again is one again.
    assert_eq!(Guardians::new(at(5), 2, false, set(5, &[2, 3]).guardians, Some(&gone)).guardians.len(), 5);
}

/// The clock of the device that sets them is behind that of another one, which has set them before.
#[test]
fn a_later_set_has_a_higher_number_whatever_the_clock_says() {
    let mut before = Hlc { millis: 1 << 41, counter: 0 };
    let number = |changed| Guardians::new(changed, 2, false, Vec::new(), None).number();
    for millis in [5, 7, 1 << 41, (1 << 41) + 1, 6] {
        let after = before.next(millis);
        assert!(number(after) > number(before), "{after:?}");
        before = after;
    }
    let most = number(Hlc { millis: u64::MAX, counter: u32::MAX });
    assert!(most < hypernet_core::record::LAST && most > number(before));
}

#[test]
fn what_opens_the_way_to_a_guardian_is_not_shown() {
    let shown = format!("{:?}", set(9, &[0x5a, 0x5b]));
    assert!(!shown.contains("90, 90") && shown.contains("contact 90"), "{shown}");
}

#[test]
fn what_no_device_that_means_well_has_written_is_not_taken_in() {
    let me = IdentityId([0; 32]);
    let mine = of(&set(1, &[1, 2]));
    let many: Vec<u8> = (1..=GUARDIANS_MAX as u8 + 1).collect();
    let (mut long, mut bent) = (set(9, &[1, 2]), set(9, &[1, 2]));
    long.guardians[0].sealed = vec![1; SEALED_MAX + 1];
    bent.guardians[0].name = "\u{1b}[2J".into();
    let none = Guardians { threshold: 0, ..set(9, &[1, 2]) };
    let too_high = Guardians { threshold: 3, ..set(9, &[1, 2]) };
    for other in [set(9, &many), long, bent, none, too_high] {
        let mut all = mine.clone();
        all.merge(&of(&other), &me);
        assert_eq!(all, mine);
    }
}

/// One device's clock is far ahead, or its thief wants to have the last word.
#[test]
fn a_set_of_no_time_gives_way_to_any_other_one_and_any_to_a_later_one() {
    let me = IdentityId([0; 32]);
    let last = Hlc { millis: u64::MAX, counter: u32::MAX };
    let of_thief = Guardians::new(last, GUARDIANS_MAX as u8, false, Vec::new(), None);
    let mut all = of(&set(1, &[1, 2]));
    all.merge(&of(&of_thief), &me);
    assert_eq!(names(all.mine.as_ref().unwrap()), ["contact 1", "contact 2"]);
    // Also where there was none before, and what is set then stays.
    let mut none = Guardianship::default();
    none.merge(&of(&of_thief), &me);
    let set_again = |all: &mut Guardianship| {
        let changed = Guardians::next(all.mine.as_ref());
        let before = all.mine.replace(Guardians { changed, ..set(1, &[3, 4]) });
        all.merge(&Guardianship { mine: before, held: Vec::new() }, &me);
        assert_eq!(names(all.mine.as_ref().unwrap()), ["contact 3", "contact 4"]);
        all.mine.clone().unwrap().changed
    };
    set_again(&mut none);
    // What is on the mesh of one whose clock was wrong has higher numbers: it is counted on from.
    for counter in [0, 0xffff, u32::MAX] {
        let ahead = Hlc { millis: u64::MAX >> 20, counter };
        let mut wrong = of(&Guardians { changed: ahead, ..set(1, &[1, 2]) });
        assert!(set_again(&mut wrong) > ahead);
    }
}

#[test]
fn a_share_is_kept_when_it_is_signed_and_for_this_identity_and_newer() {
    let me = IdentityId([0; 32]);
    let mut all = Guardianship::default();
    let (old, new) = (shares(7, 1, &[me, IdentityId([1; 32])]), shares(7, 2, &[me, IdentityId([1; 32])]));
    assert!(all.hold(&old[0], &me) && all.hold(&new[0], &me) && all.hold(&old[0], &me));
    assert_eq!(all.held, [new[0].clone()]);
    assert!(!all.hold(&old[1], &me), "it is somebody else's");
    let mut forged = new[0].clone();
    forged.made = at(99);
    assert!(!all.hold(&forged, &me));
    // A copy of another device brings what it has, and nothing that is forged.
    let other = Guardianship { mine: None, held: vec![forged, shares(8, 1, &[me, IdentityId([1; 32])])[0].clone()] };
    all.merge(&other, &me);
    assert_eq!((all.held.len(), all.of(&new[0].identity)), (2, Some(&new[0])));
    // What is damaged here the same share mends, which is not newer.
    for good in [&new[0], &old[0]] {
        all.held.iter_mut().filter(|share| share.identity == good.identity).for_each(|share| share.threshold = 99);
        let mut copy = Guardianship { mine: None, held: vec![good.clone()] };
        copy.merge(&all.clone(), &me);
        assert_eq!(copy.of(&good.identity), Some(good), "it spoils no other copy");
        all.merge(&copy, &me);
        assert_eq!(all.of(&good.identity), Some(good));
    }
    // Somebody who is no contact is named by their id, and by no more of it than tells who it is.
    let id = new[0].identity.to_string();
    assert_eq!(all.of_id(&id[..10]), all.of_id(&id));
    assert_eq!(all.of_id(&id), [all.of(&new[0].identity).unwrap()]);
    assert!(all.of_id(&id[..7]).is_empty() && all.of_id("").is_empty());
    for byte in 0..=HELD_MAX as u8 {
        assert!(all.hold(&shares(byte, u64::from(byte) + 10, &[me, IdentityId([1; 32])])[0], &me));
    }
    assert_eq!(all.held.len(), HELD_MAX);
    assert!(all.of(&words(HELD_MAX as u8).keys("").id()).is_some(), "the newest stay");
}

/// A guardian whose devices are on the mesh, and somebody who has the guardian as a contact.
struct Two {
    mesh: Mesh,
    _home: TempDir,
    guardian: Arc<crate::volume::Volume>,
    anna: Contact,
    owner: Contact,
    share: Share,
}

impl Two {
    fn new() -> Self {
        let (mesh, home) = (Mesh::new(5), tempfile::tempdir().unwrap());
        let guardian = mesh.volume(Path::new(home.path()), 1);
        publish(&guardian, 1).unwrap();
        let anna = Contact::new("anna", phrase().id(), Address::of(&phrase()), at(1));
        let keys = words(7).keys("");
        let owner = Contact::new("olga", keys.id(), Address::of(&keys), at(1));
        let share = shares(7, 5, &[anna.identity, IdentityId([1; 32])]).swap_remove(0);
        Self { mesh, _home: home, guardian, anna, owner, share }
    }

    fn identity(&self) -> &Identity {
        &self.guardian.identity
    }

    fn set(&self, millis: u64, share: &Share) -> Guardians {
        let one = Guardian::with(self.identity(), &self.anna, share).unwrap();
        assert!(one.sealed.len() <= SEALED_MAX, "{}", one.sealed.len());
        Guardians::new(at(millis), 2, false, vec![one], None)
    }

    fn keep(&self, set: &Guardians) {
        for (_, record) in set.records(&self.owner.address()).unwrap() {
            self.mesh.keep(record);
        }
    }

    /// What the guardian's device finds.
    fn finds(&self) -> Result<Option<Share>, PortError> {
        let keystore = self.identity().keystore().keystore();
        let of = std::slice::from_ref(&self.owner);
        look_for_shares(&self.mesh.peers(), &keystore, &self.identity().address(), of)?.pop().unwrap()
    }
}

#[test]
fn a_share_goes_over_the_mesh_from_whose_words_it_is_to_the_guardian() {
    let two = Two::new();
    assert_eq!(two.finds().unwrap(), None);
    let set = two.set(5, &two.share);
    two.keep(&set);
    assert_eq!(two.finds().unwrap().as_ref(), Some(&two.share));
    // The guardian's keys change, and what was sealed before opens still.
    let era = Era::new(9, Secret::new([9; 32]));
    two.identity().keystore().change(|keystore| keystore.add(era)).unwrap();
    assert_eq!(two.finds().unwrap().as_ref(), Some(&two.share));
    two.keep(&set.taken_back(at(6)));
    assert_eq!(two.finds().unwrap(), None);
    two.keep(&set);
    assert_eq!(two.finds().unwrap(), None, "what was taken back does not come again");
}

#[test]
fn what_lies_there_and_is_no_share_for_this_guardian_is_named() {
    let two = Two::new();
    let mut number = 10;
    let mut says = |share: &Share, what: &str| {
        number += 1;
        two.keep(&two.set(number, share));
        let error = two.finds().unwrap_err().to_string();
        assert!(error.contains("olga's share") && error.contains(what), "{error}");
    };
    let mut forged = two.share.clone();
    forged.index = 2;
    says(&forged, "not signed by the identity that it names");
    says(&shares(8, 5, &[two.anna.identity, IdentityId([1; 32])])[0], "somebody else's words");
    says(&shares(7, 5, &[IdentityId([1; 32]), two.anna.identity])[0], "for somebody else");
    let junk = Guardians::new(at(99), 2, false, vec![Guardian::sealed(&two.anna, vec![1; 50])], None);
    two.keep(&junk);
    assert!(two.finds().unwrap_err().to_string().contains("not sealed for this identity"));
}

/// The records of shares expire with whoever kept them, and a device of the one whose words they are puts them there again.
#[test]
fn a_device_keeps_the_shares_of_its_words_on_the_mesh() {
    let (mesh, home) = (Mesh::new(5), tempfile::tempdir().unwrap());
    let volume = mesh.volume(home.path(), 1);
    publish(&volume, 1).unwrap();
    let own = volume.identity.address();
    volume.identity.keystore().change(|keystore| keystore.guardians.mine = Some(set(5, &[1, 2, 3]))).unwrap();
    let keys: Vec<RecordKey> =
        set(5, &[1, 2, 3]).records(&own).unwrap().iter().map(|(_, record)| record.key()).collect();
    let there = || mesh.peers().lookup_all(&keys).unwrap().iter().flatten().count();
    assert_eq!(there(), 0);
    volume.identity.confirm().unwrap();
    assert_eq!(there(), 3);
    mesh.expire();
    mesh.expire();
    assert_eq!(there(), 0);
    volume.identity.confirm().unwrap();
    assert_eq!(there(), 3);
}
