//! Two agents that share a code and nothing else make a key together, and two people make sure that nobody is in between,
//! by comparing seven pictures.
//!
//! This is *Short Authentication String verification* of the Matrix specification (client-server API, "Key verification
//! framework" and "SAS method"), with X25519, HKDF-SHA-256 and HMAC-SHA-256 as `vodozemac` has them:
//!
//! | here | Matrix | who |
//! |---|---|---|
//! | `Request` | `m.key.verification.request` | who shows the code |
//! | `Start` | `ready` and `start` in one | who enters it |
//! | `Accept`: hash of the own key and of all that was said | `accept`: hash of the own key and of `start` | shows |
//! | `Key` | `key` | enters |
//! | `Key`, which the other one holds against the hash | `key` | shows |
//! | pictures, of a key that depends on all of that | emoji, of one that depends on both keys and the transaction | people |
//! | `Vouch`: what, and a MAC of it | `mac`: names of keys, and MACs of the keys | shows, then enters |
//! | `Done`, with a MAC of what it says | `done` | shows, then enters |
//! | `Cancel` | `cancel` | anybody, at any time |
//!
//! Where it deviates: there is one way of doing it and nothing to agree on. The hash of the commitment is BLAKE3, and
//! covers the request as well. Messages are CBOR, and the pictures and MACs are bound to the hash of all of them instead
//! of to names of users and devices, which do not know each other yet. Whoever has shown the code vouches first, because a
//! new device learns by that for which identity it is to sign its own entry. And `Done` is vouched for as well: it says
//! what was handed over.
//!
//! Without the commitment somebody in between could try keys until the seven pictures (42 bits) come out alike on both
//! sides. With it they have one try for each meeting.
//!
//! The machine knows neither clock nor network. It hears all that the other side has said so far, again and again, and what
//! is new of it must be the next that is to come; anything else ends the meeting.

use hypernet_core::codec;
use hypernet_core::identity::proof::Transcript;
use thiserror::Error;
use vodozemac::Curve25519PublicKey;
use vodozemac::sas::{EstablishedSas, Mac, Sas};

use super::emoji::Picture;
use super::message::{MESSAGES_MAX, Message, NAME_MAX, Reason, Said, Topic, VOUCHED_MAX};

const COMMIT_CONTEXT: &str = "hypernet 2026 pairing commitment v1";
const TRANSCRIPT_CONTEXT: &str = "hypernet 2026 pairing transcript v1";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its person was shown the code first.
    Shows,
    /// Its person has entered it.
    Enters,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Shows => Self::Enters,
            Self::Enters => Self::Shows,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Shows => "shows",
            Self::Enters => "enters",
        }
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The other one is there, and calls itself so. Nothing vouches for that yet.
    Met(String),
    /// To be compared by people.
    Compare(Picture),
    /// What the other side vouches for; its person has compared, and so has this one.
    Vouched(Vec<u8>),
    /// The other side has all, and says this.
    Done(Vec<u8>),
}

/// Why a meeting has ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    /// The other side has.
    #[error("{0}")]
    Cancelled(Reason),
    /// Something else than what is to come.
    #[error("what came is not what is to come next")]
    Order,
    /// The other side has said something else before.
    #[error("what was said before has changed: two answer to this code")]
    Changed,
    /// Of another meeting.
    #[error("what came is of another meeting")]
    Meeting,
    /// The code is for something else.
    #[error("the code is for something else: for {0}")]
    Topic(&'static str),
    /// The key is not the one that was promised.
    #[error("the key that came is not the one that was promised")]
    Commitment,
    /// The key is none, or this side's own.
    #[error("the key that came is none")]
    Key,
    /// The MAC does not fit.
    #[error("what the other side vouches for was changed on the way")]
    Mac,
    /// Too much.
    #[error("what came is too long")]
    TooLong,
}

impl Topic {
    fn word(self) -> &'static str {
        match self {
            Self::Device => "a new device (`hn device join`)",
            Self::Contact => "a contact (`hn contact verify`)",
            Self::Share => "a share of somebody's words (`hn guardians help`)",
        }
    }
}

/// The key that both have.
enum Keys {
    Mine(Box<Sas>),
    Shared(Box<EstablishedSas>),
    Spent,
}

/// One side of a meeting.
pub(crate) struct Pairing {
    role: Role,
    topic: Topic,
    name: String,
    said: Vec<Message>,
    /// As the other side last had it, and how much of it was dealt with.
    heard: Vec<Message>,
    dealt: usize,
    keys: Keys,
    compared: bool,
}

/// What both must see alike.
fn encoded(messages: &[Message]) -> Vec<u8> {
    codec::encode(&Said(messages.to_vec()))
}

fn commitment(key: &[u8; 32], request: &Message, start: &Message) -> [u8; 32] {
    let before = encoded(&[request.clone(), start.clone()]);
    blake3::derive_key(COMMIT_CONTEXT, &[&key[..], &before].concat())
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl Pairing {
    /// Of who shows the code. `transaction` is random.
    pub(crate) fn shows(topic: Topic, name: &str, transaction: [u8; 16]) -> Self {
        let said = vec![Message::Request { topic, transaction }];
        Self { said, ..Self::new(Role::Shows, topic, name) }
    }

    /// Of who enters it.
    pub(crate) fn enters(topic: Topic, name: &str) -> Self {
        Self::new(Role::Enters, topic, name)
    }

    fn new(role: Role, topic: Topic, name: &str) -> Self {
        let name = name[..name.floor_char_boundary(NAME_MAX)].to_owned();
        let keys = Keys::Mine(Box::new(Sas::new()));
        Self { role, topic, name, said: Vec::new(), heard: Vec::new(), dealt: 0, keys, compared: false }
    }

    /// Which of the two this is.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether nobody was heard yet.
    pub(crate) fn has_heard_nothing(&self) -> bool {
        self.heard.is_empty()
    }

    /// All that this side has to say so far.
    pub(crate) fn said(&self) -> Said {
        Said(self.said.clone())
    }

    /// The person has compared, and it is the same.
    pub(crate) fn is_same(&mut self) -> Result<Vec<Event>, Refused> {
        self.compared = true;
        self.go_on()
    }

    /// This side vouches for something, once the person has compared.
    pub(crate) fn vouch(&mut self, what: Vec<u8>) -> Result<(), Refused> {
        let mac = self.mac(self.role, "vouch", &what)?;
        self.said.push(Message::Vouch { what, mac });
        Ok(())
    }

    /// This side has all.
    pub(crate) fn done(&mut self, what: Vec<u8>) -> Result<(), Refused> {
        let mac = self.mac(self.role, "done", &what)?;
        self.said.push(Message::Done { what, mac });
        Ok(())
    }

    /// It is over.
    pub(crate) fn cancel(&mut self, reason: Reason) {
        if !matches!(self.said.last(), Some(Message::Cancel(_))) {
            self.said.push(Message::Cancel(reason));
        }
        self.keys = Keys::Spent;
    }

    /// Hash of all that was said before the pictures: of this meeting and no other.
    pub(crate) fn transcript(&self) -> Transcript {
        let (shows, enters) = match self.role {
            Role::Shows => (&self.said, &self.heard),
            Role::Enters => (&self.heard, &self.said),
        };
        // Request, acceptance, key; start, key.
        let before: Vec<Message> = shows.iter().take(3).chain(enters.iter().take(2)).cloned().collect();
        Transcript(blake3::derive_key(TRANSCRIPT_CONTEXT, &encoded(&before)))
    }

    /// The other side has said all this by now.
    pub(crate) fn hear(&mut self, said: &Said) -> Result<Vec<Event>, Refused> {
        let said = &said.0;
        if said.len() > MESSAGES_MAX {
            return Err(Refused::TooLong);
        }
        if said.len() < self.heard.len() && self.heard.starts_with(said) {
            // An older record, from a keeper that has not heard of the newer one.
            return Ok(Vec::new());
        }
        if !said.starts_with(&self.heard) {
            return Err(Refused::Changed);
        }
        self.heard.clone_from(said);
        self.go_on()
    }

    fn go_on(&mut self) -> Result<Vec<Event>, Refused> {
        let mut events = Vec::new();
        while let Some(message) = self.heard.get(self.dealt).cloned() {
            if let Message::Cancel(reason) = message {
                return Err(Refused::Cancelled(reason));
            }
            match self.deal_with(message)? {
                Dealt::Waits => {
                    // Whatever is in between is of no use when it is over.
                    if let Some(Message::Cancel(reason)) = self.heard.last() {
                        return Err(Refused::Cancelled(*reason));
                    }
                    break;
                }
                Dealt::Quietly => {}
                Dealt::With(event) => events.push(event),
            }
            self.dealt += 1;
        }
        Ok(events)
    }

    fn deal_with(&mut self, message: Message) -> Result<Dealt, Refused> {
        match (self.role, self.dealt, message) {
            (Role::Enters, 0, Message::Request { topic, transaction }) => {
                self.is_for(topic)?;
                self.said.push(Message::Start { topic, transaction, name: self.name.clone() });
                Ok(Dealt::Quietly)
            }
            (Role::Shows, 0, Message::Start { topic, transaction, name }) => {
                self.is_for(topic)?;
                if !matches!(self.said[..], [Message::Request { transaction: mine, .. }] if mine == transaction) {
                    return Err(Refused::Meeting);
                }
                if name.len() > NAME_MAX {
                    return Err(Refused::TooLong);
                }
                let commitment = commitment(&self.my_key()?, &self.said[0], &self.heard[0]);
                self.said.push(Message::Accept { commitment });
                Ok(Dealt::With(Event::Met(name)))
            }
            (Role::Enters, 1, Message::Accept { .. }) => {
                self.said.push(Message::Key(self.my_key()?));
                Ok(Dealt::Quietly)
            }
            (Role::Shows, 1, Message::Key(key)) => {
                let mine = self.my_key()?;
                self.said.push(Message::Key(mine));
                self.share(key).map(|picture| Dealt::With(Event::Compare(picture)))
            }
            (Role::Enters, 2, Message::Key(key)) => {
                let ([request, Message::Accept { commitment: promised }, ..], [start, ..]) =
                    (&self.heard[..], &self.said[..])
                else {
                    return Err(Refused::Order);
                };
                if commitment(&key, request, start) != *promised {
                    return Err(Refused::Commitment);
                }
                self.share(key).map(|picture| Dealt::With(Event::Compare(picture)))
            }
            (Role::Shows, 2, Message::Vouch { what, mac }) | (Role::Enters, 3, Message::Vouch { what, mac }) => {
                // Who has shown the code vouches first.
                if !self.compared || (self.role == Role::Shows && !self.said.iter().any(is_vouch)) {
                    return if self.role == Role::Shows { Err(Refused::Order) } else { Ok(Dealt::Waits) };
                }
                self.check(&what, &mac, "vouch")?;
                Ok(Dealt::With(Event::Vouched(what)))
            }
            (Role::Shows, 3, Message::Done { what, mac }) | (Role::Enters, 4, Message::Done { what, mac }) => {
                let may = match self.role {
                    Role::Shows => is_done,
                    Role::Enters => is_vouch,
                };
                if !self.said.iter().any(may) {
                    return Err(Refused::Order);
                }
                self.check(&what, &mac, "done")?;
                Ok(Dealt::With(Event::Done(what)))
            }
            _ => Err(Refused::Order),
        }
    }

    fn is_for(&self, topic: Topic) -> Result<(), Refused> {
        if topic == self.topic { Ok(()) } else { Err(Refused::Topic(topic.word())) }
    }

    fn my_key(&self) -> Result<[u8; 32], Refused> {
        match &self.keys {
            Keys::Mine(sas) => Ok(sas.public_key().to_bytes()),
            Keys::Shared(shared) => Ok(shared.our_public_key().to_bytes()),
            Keys::Spent => Err(Refused::Order),
        }
    }

    fn share(&mut self, key: [u8; 32]) -> Result<Picture, Refused> {
        if self.my_key()? == key {
            return Err(Refused::Key);
        }
        let Keys::Mine(sas) = std::mem::replace(&mut self.keys, Keys::Spent) else { return Err(Refused::Order) };
        let shared = sas.diffie_hellman(Curve25519PublicKey::from_bytes(key)).map_err(|_| Refused::Key)?;
        let mine = shared.our_public_key().to_bytes();
        let (shows, enters) = match self.role {
            Role::Shows => (mine, key),
            Role::Enters => (key, mine),
        };
        let transcript = self.transcript();
        let info = format!(
            "HYPERNET_KEY_VERIFICATION_SAS|shows|{}|enters|{}|{}",
            hex(&shows),
            hex(&enters),
            hex(&transcript.0)
        );
        let picture = Picture::new(shared.bytes(&info).emoji_indices());
        self.keys = Keys::Shared(Box::new(shared));
        Ok(picture)
    }

    /// By which key, and bound to what, one side vouches.
    fn shared(&self, by: Role, label: &str) -> Result<(&EstablishedSas, String), Refused> {
        let Keys::Shared(shared) = &self.keys else { return Err(Refused::Order) };
        let (by, to, transcript) = (by.word(), by.other().word(), hex(&self.transcript().0));
        Ok((shared, format!("HYPERNET_KEY_VERIFICATION_MAC|{label}|{by}|{to}|{transcript}")))
    }

    fn mac(&self, by: Role, label: &str, what: &[u8]) -> Result<[u8; 32], Refused> {
        if !self.compared {
            return Err(Refused::Order);
        }
        if what.len() > VOUCHED_MAX {
            return Err(Refused::TooLong);
        }
        let (shared, info) = self.shared(by, label)?;
        shared.calculate_mac(&hex(what), &info).as_bytes().try_into().map_err(|_| Refused::Mac)
    }

    fn check(&self, what: &[u8], mac: &[u8; 32], label: &str) -> Result<(), Refused> {
        if what.len() > VOUCHED_MAX {
            return Err(Refused::TooLong);
        }
        let (shared, info) = self.shared(self.role.other(), label)?;
        shared.verify_mac(&hex(what), &info, &Mac::from_slice(mac)).map_err(|_| Refused::Mac)
    }
}

fn is_vouch(message: &Message) -> bool {
    matches!(message, Message::Vouch { .. })
}

fn is_done(message: &Message) -> bool {
    matches!(message, Message::Done { .. })
}

/// What has come of a message.
enum Dealt {
    /// The person has not compared yet.
    Waits,
    Quietly,
    With(Event),
}

#[cfg(test)]
mod tests;
