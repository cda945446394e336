use super::*;

/// Both sides of a meeting, and what has happened on each.
struct Two {
    shows: Pairing,
    enters: Pairing,
}

fn two(topic: Topic) -> Two {
    Two { shows: Pairing::shows(topic, "old", [7; 16]), enters: Pairing::enters(topic, "new") }
}

impl Two {
    /// Each hears the other once.
    fn round(&mut self) -> Result<(Vec<Event>, Vec<Event>), Refused> {
        let entered = self.enters.hear(&self.shows.said())?;
        let shown = self.shows.hear(&self.enters.said())?;
        Ok((shown, entered))
    }

    /// Until both see pictures.
    fn pictures(&mut self) -> (Picture, Picture) {
        let (mut shown, mut entered) = (None, None);
        for _ in 0..4 {
            let (of_shows, of_enters) = self.round().unwrap();
            shown = shown.or(of_shows.iter().find_map(picture));
            entered = entered.or(of_enters.iter().find_map(picture));
        }
        (shown.unwrap(), entered.unwrap())
    }
}

fn picture(event: &Event) -> Option<Picture> {
    match event {
        Event::Compare(picture) => Some(*picture),
        _ => None,
    }
}

#[test]
fn two_see_the_same_and_hand_over_what_they_vouch_for() {
    let mut two = two(Topic::Device);
    assert_eq!(two.round().unwrap(), (vec![Event::Met("new".into())], vec![]));
    let (shown, entered) = {
        let mut pictures = (None, None);
        for _ in 0..3 {
            let (of_shows, of_enters) = two.round().unwrap();
            pictures.0 = pictures.0.or(of_shows.iter().find_map(picture));
            pictures.1 = pictures.1.or(of_enters.iter().find_map(picture));
        }
        pictures
    };
    assert!(shown.is_some() && shown == entered);
    // Nobody vouches before they have compared.
    assert_eq!(two.shows.vouch(b"identity".to_vec()), Err(Refused::Order));
    two.shows.is_same().unwrap();
    two.shows.vouch(b"identity".to_vec()).unwrap();
    assert_eq!(two.round().unwrap(), (vec![], vec![]), "the other person has not compared yet");
    assert_eq!(two.enters.is_same().unwrap(), [Event::Vouched(b"identity".to_vec())]);
    two.enters.vouch(b"device".to_vec()).unwrap();
    assert_eq!(two.round().unwrap(), (vec![Event::Vouched(b"device".to_vec())], vec![]));
    two.shows.done(b"parcel".to_vec()).unwrap();
    assert_eq!(two.round().unwrap(), (vec![], vec![Event::Done(b"parcel".to_vec())]));
    two.enters.done(vec![]).unwrap();
    assert_eq!(two.round().unwrap(), (vec![Event::Done(vec![])], vec![]));
    assert_eq!(two.shows.transcript(), two.enters.transcript());
    // All that was said fits where it is left.
    for side in [&two.shows, &two.enters] {
        assert!(side.said().0.len() <= MESSAGES_MAX);
    }
}

#[test]
fn every_meeting_shows_something_else() {
    let (one, other) = (two(Topic::Device).pictures(), two(Topic::Device).pictures());
    assert_eq!((one.0, other.0), (one.1, other.1));
    assert_ne!(one.0, other.0);
}

/// They have the code, and talk to each side with keys of their own.
#[test]
fn whoever_is_in_between_makes_both_sides_see_something_else() {
    let (mut left, mut right) = (two(Topic::Device), two(Topic::Device));
    let (seen_by_victim, seen_by_thief) = left.pictures();
    let (seen_by_other_thief, seen_by_other_victim) = right.pictures();
    assert_eq!((seen_by_victim, seen_by_other_thief), (seen_by_thief, seen_by_other_victim));
    assert_ne!(seen_by_victim, seen_by_other_victim, "what the two people compare");
    // What one side vouches for is no good on the other one.
    left.shows.is_same().unwrap();
    left.shows.vouch(b"identity".to_vec()).unwrap();
    right.enters.is_same().unwrap();
    let Some(vouch) = left.shows.said().0.pop() else { panic!("nothing was said") };
    let mut relayed = right.shows.said();
    relayed.0.push(vouch);
    assert_eq!(right.enters.hear(&relayed), Err(Refused::Mac));
}

/// They relay everything but put in their own key where the shower's is to come: the commitment does not fit.
#[test]
fn a_key_that_was_not_promised_is_refused() {
    let mut two = two(Topic::Device);
    two.round().unwrap();
    two.round().unwrap();
    let mut said = two.shows.said();
    let last = said.0.len() - 1;
    assert!(matches!(said.0[last], Message::Key(_)));
    said.0[last] = Message::Key(Sas::new().public_key().to_bytes());
    assert_eq!(two.enters.hear(&said), Err(Refused::Commitment));
}

#[test]
fn what_one_has_said_is_not_taken_for_what_the_other_says() {
    let mut two = two(Topic::Device);
    two.round().unwrap();
    // The same messages back.
    let mut shows = Pairing::shows(Topic::Device, "old", [7; 16]);
    assert_eq!(shows.hear(&two.shows.said()), Err(Refused::Order));
    assert_eq!(two.enters.hear(&two.enters.said()), Err(Refused::Changed));
    // Its own key back.
    two.enters.hear(&two.shows.said()).unwrap();
    let mine = two.shows.my_key().unwrap();
    let mut said = two.enters.said();
    said.0[1] = Message::Key(mine);
    assert_eq!(two.shows.hear(&said), Err(Refused::Key));
    // No key at all.
    let mut two = super::tests::two(Topic::Device);
    two.round().unwrap();
    two.enters.hear(&two.shows.said()).unwrap();
    let mut said = two.enters.said();
    said.0[1] = Message::Key([0; 32]);
    assert_eq!(two.shows.hear(&said), Err(Refused::Key));
}

#[test]
fn what_comes_of_another_meeting_or_another_topic_is_refused() {
    let mut old = two(Topic::Device);
    old.pictures();
    // All that the other one had said in a meeting before.
    let mut shows = Pairing::shows(Topic::Device, "old", [8; 16]);
    assert_eq!(shows.hear(&old.enters.said()), Err(Refused::Meeting));
    let mut shows = Pairing::shows(Topic::Contact, "old", [7; 16]);
    let refused = shows.hear(&old.enters.said()).unwrap_err();
    assert!(refused.to_string().contains("hn device join"), "{refused}");
    let mut enters = Pairing::enters(Topic::Contact, "new");
    assert!(matches!(enters.hear(&old.shows.said()), Err(Refused::Topic(_))));
    // With a random number that fits, its key is another one and nothing it vouches for holds.
    let mut two = two(Topic::Device);
    two.pictures();
    two.shows.is_same().unwrap();
    two.shows.vouch(vec![]).unwrap();
    assert_eq!(two.shows.hear(&old.enters.said()), Err(Refused::Changed));
}

#[test]
fn only_what_is_to_come_next_is_taken() {
    let mut first = two(Topic::Device);
    first.pictures();
    first.shows.is_same().unwrap();
    first.enters.is_same().unwrap();
    // The one who has entered the code vouches second.
    first.enters.vouch(b"device".to_vec()).unwrap();
    assert_eq!(first.shows.hear(&first.enters.said()), Err(Refused::Order));
    for message in [
        Message::Accept { commitment: [0; 32] },
        Message::Key([1; 32]),
        Message::Vouch { what: vec![], mac: [0; 32] },
        Message::Done { what: vec![], mac: [0; 32] },
    ] {
        for topic in [Topic::Device, Topic::Contact] {
            let mut side = Pairing::shows(topic, "x", [1; 16]);
            assert_eq!(side.hear(&Said(vec![message.clone()])), Err(Refused::Order), "{message:?}");
            let mut side = Pairing::enters(topic, "x");
            assert_eq!(side.hear(&Said(vec![message.clone()])), Err(Refused::Order), "{message:?}");
        }
    }
    let many = Said(vec![Message::Cancel(Reason::Person); MESSAGES_MAX + 1]);
    assert_eq!(Pairing::enters(Topic::Device, "x").hear(&many), Err(Refused::TooLong));
    let name = "x".repeat(NAME_MAX + 1);
    let long = Said(vec![Message::Start { topic: Topic::Device, transaction: [1; 16], name }]);
    assert_eq!(Pairing::shows(Topic::Device, "x", [1; 16]).hear(&long), Err(Refused::TooLong));
}

#[test]
fn what_is_vouched_for_cannot_be_changed_on_the_way() {
    let mut two = two(Topic::Device);
    two.pictures();
    two.shows.is_same().unwrap();
    two.enters.is_same().unwrap();
    two.shows.vouch(b"identity".to_vec()).unwrap();
    let honest = two.shows.said();
    let mut forged = honest.clone();
    let Some(Message::Vouch { what, .. }) = forged.0.last_mut() else { panic!("nothing was vouched for") };
    what[0] ^= 1;
    assert_eq!(two.enters.hear(&forged), Err(Refused::Mac));
    // One MAC is not good for another kind of message.
    let mut two = super::tests::two(Topic::Device);
    two.pictures();
    two.shows.is_same().unwrap();
    two.enters.is_same().unwrap();
    two.shows.vouch(b"one".to_vec()).unwrap();
    two.enters.hear(&two.shows.said()).unwrap();
    two.enters.vouch(b"two".to_vec()).unwrap();
    let mut said = two.shows.said();
    let Some(Message::Vouch { what, mac }) = said.0.last().cloned() else { panic!("nothing was vouched for") };
    said.0.push(Message::Done { what, mac });
    assert_eq!(two.enters.hear(&said), Err(Refused::Mac));
    assert_eq!(two.shows.vouch(vec![0; VOUCHED_MAX + 1]), Err(Refused::TooLong));
}

#[test]
fn an_older_record_is_nothing_new_and_a_changed_one_is_refused() {
    let mut two = two(Topic::Device);
    let early = two.shows.said();
    two.pictures();
    assert_eq!(two.enters.hear(&early), Ok(vec![]));
    let mut changed = two.shows.said();
    changed.0[0] = Message::Request { topic: Topic::Device, transaction: [9; 16] };
    assert_eq!(two.enters.hear(&changed), Err(Refused::Changed));
}

#[test]
fn one_that_ends_it_is_heard_at_any_time() {
    for rounds in 0..5 {
        let mut two = two(Topic::Device);
        for _ in 0..rounds {
            two.round().unwrap();
        }
        two.shows.cancel(Reason::Different);
        let heard = two.enters.hear(&two.shows.said());
        assert_eq!(heard, Err(Refused::Cancelled(Reason::Different)), "after {rounds}");
        assert_eq!(two.shows.vouch(vec![]), Err(Refused::Order), "it is over");
    }
}
