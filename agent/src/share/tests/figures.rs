//! How long it takes to share with a thousand people, by `scripts/bench keys`: sealing, signing and disks are real, and the mesh
//! is a map, so what the network takes comes on top.

use std::io::Write;
use std::time::Instant;

use hypernet_core::share::members::Role;

use super::super::granting::Guest;
use super::super::hearing::Ask;
use super::{OWNER, One, share, tell};
use crate::people::Contacts;
use crate::volume::double::{Mesh, publish};

const PEOPLE: u16 = 1_000;

fn say(what: &str, begun: Instant) {
    let mut out = std::io::stdout();
    writeln!(out, "{what:<60} {:>8.3} s", begun.elapsed().as_secs_f64()).unwrap();
}

#[test]
#[ignore = "takes minutes; scripts/bench keys"]
fn a_thousand_people() {
    let mesh = Mesh::new(6);
    let owner = One::new(&mesh, OWNER);
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let homes: Vec<_> = (0..PEOPLE).map(|_| tempfile::tempdir().unwrap()).collect();
    let people: Vec<_> = (0..PEOPLE).zip(&homes).map(|(number, home)| mesh.numbered(home.path(), number)).collect();
    let contacts = Contacts::of(owner.main.identity.keystore());
    let mut guests = Vec::new();
    for (number, one) in people.iter().enumerate() {
        let contact = contacts.add(&format!("p{number}"), one.identity.id(), one.identity.address()).unwrap();
        guests.push(Guest::find(&volume, contact).unwrap());
    }
    let begun = Instant::now();
    volume.grant(guests, Role::Reader).unwrap();
    say("a volume granted to 1,000 people who were looked up", begun);
    let begun = Instant::now();
    tell(&owner);
    say("offered to all of them", begun);

    let last = &people[usize::from(PEOPLE) - 1];
    let carl =
        Contacts::of(last.identity.keystore()).add("carl", owner.main.identity.id(), owner.main.identity.address());
    let begun = Instant::now();
    let offer = last.offered_by(&carl.unwrap()).unwrap()[0].offer.clone();
    say("one of them finds the offer among 1,000", begun);
    let theirs = crate::volume::Volume::below(last, super::SHARED).unwrap();
    let begun = Instant::now();
    theirs.accept(offer).unwrap();
    say("and takes it: the epochs are opened, the changes verified", begun);

    let begun = Instant::now();
    volume.remove(&[people[0].identity.id()]).unwrap();
    say("one of 1,000 is taken off: another epoch for 999", begun);
    let begun = Instant::now();
    theirs.hear(Ask::All).unwrap();
    say("one of the 999 hears of it", begun);
}
