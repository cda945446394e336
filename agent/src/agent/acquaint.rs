//! Looks again and again whose peers are, and who holds how much: by that the node knows for whom it stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::id::{IdentityId, PeerId};
use hypernet_core::node::{Acquaintance, Acquainted, Command, Outcome};
use hypernet_core::port::PortError;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Agent, Own, blocking};
use crate::people::contact::Contact;
use crate::people::told::{self, Person};
use crate::people::{Contacts, for_each};
use crate::volume::health;

/// How often, in seconds. Each contact is a few questions to the mesh.
const EVERY: u64 = 1_800;
/// Contacts that are looked up in a round: those first that were not for longest.
const CONTACTS_AT_ONCE: usize = 32;
/// How long a round of them may take.
const WITHIN: Duration = Duration::from_secs(120);

/// What was found of one contact.
struct Looked {
    at: Instant,
    /// What was found last; it counts for as long as nothing else is.
    peers: BTreeMap<PeerId, Person>,
}

/// Whose peers are, as far as it was found out.
#[derive(Default)]
pub(crate) struct People {
    contacts: Mutex<BTreeMap<IdentityId, Looked>>,
    all: Mutex<BTreeMap<PeerId, Person>>,
    /// What peers hold, and the state of the catalog of which that was counted.
    holding: Mutex<Option<(u64, BTreeMap<PeerId, u64>)>>,
    asked: Notify,
}

impl People {
    /// Whose a peer is.
    pub(crate) fn of(&self, peer: &PeerId) -> Option<Person> {
        self.all.lock().get(peer).cloned()
    }

    /// Somebody has become a contact, or is none any more: it is looked at once.
    pub(crate) fn look(&self) {
        self.asked.notify_one();
    }
}

/// Looks until it is aborted.
pub(super) async fn run(agent: Arc<Agent>) {
    let every = Duration::from_secs(agent.config.lock().acquaint_every.unwrap_or(EVERY).max(1));
    let mut told = String::new();
    loop {
        let (looker, node) = (agent.clone(), agent.node.clone());
        let looked = blocking(move || looker.acquaint()).await;
        let cause = match looked {
            Ok(Ok(Some(acquainted))) => match node.run(Command::Acquaint(acquainted)).await {
                Outcome::Failed(error) => error.to_string(),
                _ => String::new(),
            },
            Ok(Ok(None)) => String::new(),
            Ok(Err(cause)) => cause.to_string(),
            Err(failure) => failure.to_string(),
        };
        if !cause.is_empty() && cause != told {
            tracing::warn!(cause, "whose peers are could not be looked up; it is tried again");
        }
        told = cause;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = agent.acquainted.asked.notified() => {}
        }
    }
}

impl Agent {
    /// Blocks.
    fn acquaint(&self) -> Result<Option<Acquainted>, PortError> {
        // Who only stores knows nobody, and before the head is found nothing is known of what there is.
        let Some(own) = self.with_volume().filter(|_| !self.config.lock().recovering) else { return Ok(None) };
        let people = self.people(own)?;
        let holding = self.holding(own)?;
        let known = people
            .iter()
            .map(|(peer, person)| (*peer, Acquaintance { whose: person.whose, operator: person.identity }));
        let acquainted = Acquainted::new(known, holding);
        *self.acquainted.all.lock() = people;
        Ok(Some(acquainted))
    }

    fn people(&self, own: &Own) -> Result<BTreeMap<PeerId, Person>, PortError> {
        let identity = &own.volume.identity;
        let contacts = Contacts::of(identity.keystore()).list();
        let due = {
            let mut looked = self.acquainted.contacts.lock();
            // Who is no contact any more has no part in anything from now on.
            looked.retain(|identity, _| contacts.iter().any(|contact| contact.identity == *identity));
            due(&contacts, |contact| looked.get(&contact.identity).map(|looked| looked.at))
        };
        let found = for_each(&due, WITHIN, |contact| told::of_contact(identity, contact));
        for (contact, found) in due.iter().zip(found) {
            let mut looked = self.acquainted.contacts.lock();
            match found {
                Ok(peers) => drop(looked.insert(contact.identity, Looked { at: Instant::now(), peers })),
                Err(error) => {
                    tracing::info!(%error, "a contact was not found, whose peers would be known");
                    let before = looked.entry(contact.identity);
                    before.or_insert_with(|| Looked { at: Instant::now(), peers: BTreeMap::new() }).at = Instant::now();
                }
            }
        }
        let mut people: BTreeMap<PeerId, Person> = BTreeMap::new();
        for looked in self.acquainted.contacts.lock().values() {
            people.extend(looked.peers.clone());
        }
        // The own devices' word counts before that of others.
        people.extend(told::own(identity));
        people.remove(&self.mesh.peer_id());
        Ok(people)
    }

    /// Bytes of shards that peers hold, counted anew where something has changed.
    fn holding(&self, own: &Own) -> Result<BTreeMap<PeerId, u64>, PortError> {
        let changes = health::changes(&own.volume);
        let mut counted = self.acquainted.holding.lock();
        if let Some((of, holding)) = &*counted
            && *of == changes
        {
            return Ok(holding.clone());
        }
        let holding = health::holding(&own.volume)?;
        *counted = Some((changes, holding.clone()));
        Ok(holding)
    }
}

/// The contacts that are to be looked up: those that never were, then those that were not for longest.
fn due(contacts: &[Contact], looked: impl Fn(&Contact) -> Option<Instant>) -> Vec<Contact> {
    let mut due: Vec<Contact> = contacts.to_vec();
    due.sort_by_key(|contact| looked(contact));
    due.truncate(CONTACTS_AT_ONCE);
    due
}

#[cfg(test)]
mod tests {
    use hypernet_core::identity::place::Address;
    use hypernet_core::time::Hlc;

    use super::*;

    #[test]
    fn of_many_contacts_each_has_its_turn() {
        let contact = |i: u8| {
            let address = Address { signer: [i; 32], secret: [i; 16] };
            Contact::new(&format!("{i}"), IdentityId([i; 32]), address, Hlc::default())
        };
        let all: Vec<Contact> = (0..100).map(contact).collect();
        let (mut looked, begun) = (BTreeMap::new(), Instant::now());
        for round in 0..4 {
            for contact in due(&all, |contact| looked.get(&contact.identity).copied()) {
                looked.insert(contact.identity, begun + Duration::from_secs(round));
            }
        }
        assert_eq!(looked.len(), all.len());
    }
}
