use std::sync::mpsc;
use std::thread;

use hypernet_core::id::{IdentityId, ShareSetId};
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::identity::share::{Share, ShareError, Shares, Taken, Terms, split};
use hypernet_core::key::Secret;
use hypernet_core::time::Hlc;

use super::message::Topic;
use super::*;
use crate::volume::double::Mesh;

/// Long enough for a slow machine, and never waited for.
const LONG: Duration = Duration::from_secs(60);

/// Somebody who says the same whatever they see, and tells what that was.
struct Says(Answer, mpsc::Sender<Picture>);

impl Person for Says {
    fn met(&mut self, _: &str) {}

    fn compare(&mut self, picture: Picture) {
        self.1.send(picture).unwrap();
    }

    fn answer(&mut self) -> Answer {
        self.0
    }
}

fn says(answer: Answer) -> (Says, mpsc::Receiver<Picture>) {
    let (tell, told) = mpsc::channel();
    (Says(answer, tell), told)
}

fn shows() -> Pairing {
    Pairing::shows(Topic::Device, "old", [3; 16])
}

fn enters() -> Pairing {
    Pairing::enters(Topic::Device, "new")
}

/// Runs one side to its end: what the other one vouched for.
fn meet(peers: &Peers, code: &Code, pairing: Pairing, person: &mut Says) -> Result<Vec<u8>, PairingError> {
    let mut meeting = Meeting::begin(peers, code, pairing, LONG);
    meeting.compare(person)?;
    let is_first = meeting.pairing.role() == Role::Shows;
    if is_first {
        meeting.attempt(Reason::Failed, |meeting| {
            meeting.pairing.is_same()?;
            meeting.pairing.vouch(b"of who shows".to_vec())
        })?;
    }
    let vouched = meeting.vouched(person)?;
    match is_first {
        true => {
            meeting.pairing.done(vec![])?;
            meeting.done(person)?;
        }
        false => {
            meeting.pairing.vouch(b"of who enters".to_vec())?;
            meeting.done(person)?;
            meeting.pairing.done(vec![])?;
            meeting.leave_last();
        }
    }
    Ok(vouched)
}

#[test]
fn two_meet_at_a_code_and_each_has_what_the_other_vouches_for() {
    let mesh = Mesh::new(3);
    let (code, peers) = (Code::random().unwrap(), mesh.peers());
    let (here, there) = (code.clone(), mesh.peers());
    let other = thread::spawn(move || {
        let (mut person, seen) = says(Answer::Same);
        (meet(&there, &here, enters(), &mut person).unwrap(), seen.recv().unwrap())
    });
    let (mut person, seen) = says(Answer::Same);
    assert_eq!(meet(&peers, &code, shows(), &mut person).unwrap(), b"of who enters");
    assert_eq!(other.join().unwrap(), (b"of who shows".to_vec(), seen.recv().unwrap()));

    // What is there is of no use to who comes later with the same code.
    let (mut person, _) = says(Answer::Same);
    let late = meet(&peers, &code, enters(), &mut person).unwrap_err();
    assert!(matches!(late, PairingError::Used | PairingError::Refused(_)), "{late}");
}

#[test]
fn a_wrong_code_finds_nobody_and_one_that_nobody_enters_expires() {
    let (mesh, short) = (Mesh::new(3), Duration::from_millis(1));
    let peers = mesh.peers();
    let (mut person, _seen) = says(Answer::NotYet);
    let found = Meeting::begin(&peers, &Code::random().unwrap(), enters(), short).compare(&mut person).unwrap_err();
    assert!(matches!(found, PairingError::Nobody), "{found}");
    let code = Code::random().unwrap();
    let expired = Meeting::begin(&peers, &code, shows(), short).compare(&mut person).unwrap_err();
    assert!(matches!(expired, PairingError::Expired), "{expired}");
    // Whoever enters it now is told so at once, and does not wait.
    let told = Meeting::begin(&peers, &code, enters(), LONG).compare(&mut person).unwrap_err();
    assert!(matches!(told, PairingError::Refused(Refused::Cancelled(Reason::TooLong))), "{told}");
}

/// One person says that it is different, or goes away: the other side says so without waiting for its deadline.
#[test]
fn whoever_ends_it_is_heard_at_once() {
    for (answer, reason) in [(Answer::Different, Reason::Different), (Answer::Gone, Reason::Person)] {
        let mesh = Mesh::new(3);
        let (code, peers, there) = (Code::random().unwrap(), mesh.peers(), mesh.peers());
        let here = code.clone();
        let other = thread::spawn(move || {
            let (mut person, _seen) = says(Answer::NotYet);
            Meeting::begin(&there, &here, enters(), LONG).compare(&mut person).unwrap_err()
        });
        let (tell, seen) = mpsc::channel();
        let mut person = Ends(answer, false, tell);
        let mine = Meeting::begin(&peers, &code, shows(), LONG).compare(&mut person).unwrap_err();
        assert!(matches!(mine, PairingError::Different | PairingError::Broken), "{mine}");
        seen.recv().unwrap();
        let told = other.join().unwrap();
        assert!(matches!(told, PairingError::Refused(Refused::Cancelled(found)) if found == reason), "{told}");
    }
}

/// Killed: it says nothing any more, not even that.
#[test]
fn one_that_is_gone_without_a_word_is_given_up_at_the_deadline() {
    let mesh = Mesh::new(3);
    let (code, peers) = (Code::random().unwrap(), mesh.peers());
    let mut first = Meeting::begin(&peers, &code, shows(), LONG);
    first.look().unwrap();
    std::mem::forget(first);
    let (mut person, _seen) = says(Answer::NotYet);
    let mut second = Meeting::begin(&peers, &code, enters(), Duration::from_millis(50));
    let gone = second.compare(&mut person).unwrap_err();
    assert!(matches!(gone, PairingError::Silent), "{gone}");
}

/// Somebody who looks first.
struct Ends(Answer, bool, mpsc::Sender<Picture>);

impl Person for Ends {
    fn met(&mut self, _: &str) {}

    fn compare(&mut self, picture: Picture) {
        self.1 = true;
        self.2.send(picture).unwrap();
    }

    fn answer(&mut self) -> Answer {
        if self.1 { self.0 } else { Answer::NotYet }
    }
}

/// Somebody has the code, too, and was faster: neither takes the other for the person they wait for.
#[test]
fn of_two_who_enter_one_code_nobody_is_believed_twice() {
    let mesh = Mesh::new(3);
    let (code, peers) = (Code::random().unwrap(), mesh.peers());
    let mut first = Meeting::begin(&peers, &code, shows(), LONG);
    first.look().unwrap();
    let mut thief = Meeting::begin(&peers, &code, enters(), LONG);
    thief.look().unwrap();
    first.look().unwrap();
    let (mut person, _seen) = says(Answer::NotYet);
    let late = Meeting::begin(&peers, &code, enters(), LONG).compare(&mut person).unwrap_err();
    assert!(matches!(late, PairingError::Used), "{late}");
}

fn share_of(byte: u8, threshold: u8, count: u8) -> Vec<Share> {
    let terms = Terms { set: ShareSetId([byte; 16]), made: Hlc::default(), threshold };
    let guardians: Vec<_> = (1..=count).map(|i| (IdentityId([i; 32]), format!("guardian {i}"))).collect();
    let words = Phrase::new(&Secret::new([byte; 32]));
    split(&words, "", &terms, &guardians, getrandom::rand_core::UnwrapErr(getrandom::SysRng)).unwrap()
}

/// One guardian and the one who recovers meet. What each of them says of it.
fn hand_over(mesh: &Mesh, share: Share, shares: &mut Shares) -> (Result<Taken, ShareError>, Result<(), PairingError>) {
    let (code, peers, there) = (Code::random().unwrap(), mesh.peers(), mesh.peers());
    let here = code.clone();
    let guardian = thread::spawn(move || {
        let (mut person, _seen) = says(Answer::Same);
        let mut meeting = Meeting::begin(&there, &here, Pairing::enters(Topic::Share, "anna"), LONG);
        meeting.compare(&mut person)?;
        handover::give(&mut meeting, &mut person, &share)
    });
    let ((mut person, _seen), key) = (says(Answer::Same), Secret::new([5; 32]));
    let mut meeting = Meeting::begin(&peers, &code, Pairing::shows(Topic::Share, "", [3; 16]), LONG);
    meeting.compare(&mut person).unwrap();
    let plain = handover::receive(&mut meeting, &mut person, &key).unwrap();
    let taken = meeting.attempt(Reason::Share, |_| shares.take(codec::decode(&plain).unwrap()));
    if taken.is_ok() {
        handover::taken(&mut meeting).unwrap();
    }
    (taken, guardian.join().unwrap())
}

#[test]
fn guardians_hand_over_their_shares_and_one_that_was_forged_is_refused_on_both_sides() {
    let (mesh, mut shares) = (Mesh::new(3), Shares::default());
    let made = share_of(7, 2, 3);
    let mut forged = made[0].clone();
    forged.name = "guardian 2".into();
    let (taken, told) = hand_over(&mesh, forged, &mut shares);
    assert_eq!(taken, Err(ShareError::Forged));
    assert!(matches!(told, Err(PairingError::Refused(Refused::Cancelled(Reason::Share)))), "{told:?}");
    for share in &made[1..] {
        assert!(shares.words("").is_err());
        let (taken, told) = hand_over(&mesh, share.clone(), &mut shares);
        assert_eq!(taken, Ok(Taken::Fits));
        told.unwrap();
    }
    assert_eq!(shares.words("").unwrap(), Phrase::new(&Secret::new([7; 32])));
}

/// What keepers of a meeting's records have, and who has the code, is sealed: no share is in it.
#[test]
fn a_share_on_its_way_is_sealed_and_always_short_enough() {
    let mut share = share_of(7, 2, 16).swap_remove(0);
    share.name = "x".repeat(64);
    let plain = codec::encode(&share);
    let to = crate::sealing::recipient(&Secret::new([5; 32])).unwrap();
    for _ in 0..200 {
        // What age puts into a header at random has no fixed length.
        let sealed = crate::sealing::seal(&[to], &plain).unwrap();
        assert!(sealed.len() <= message::VOUCHED_MAX, "{}", sealed.len());
        assert!(!sealed.windows(16).any(|part| plain.windows(16).any(|other| part == other)));
    }
}

/// What lies there is junk, or of another key: it is an error or nothing, and no panic.
#[test]
fn junk_at_a_place_is_not_believed() {
    let mesh = Mesh::new(3);
    let (code, peers) = (Code::random().unwrap(), mesh.peers());
    let place = code.place(Role::Shows);
    // Whoever keeps the record has not got its key.
    mesh.keep(Notice::Here(vec![1; 40]).publish(&place, &Secret::new([1; 32]), 1).unwrap());
    let mut meeting = Meeting::begin(&peers, &code, enters(), LONG);
    assert_eq!(meeting.look().unwrap(), []);
    mesh.keep(Notice::Here(vec![1; 40]).publish(&place, &place.sealing_key(), 2).unwrap());
    let refused = meeting.look().unwrap_err();
    assert!(matches!(refused, PairingError::Port(PortError::Damaged(_))), "{refused}");
}
